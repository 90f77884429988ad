"""Rectifiers: piecewise linear activations and exponential linear units, in whatever order memory has.

A formula writes its result into `out`; `saved` is the forward's output where that alone determines the slope, else its
input. Infinities and NaN come and go as in IEEE 754; the registry runs kernels without numpy's warnings of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpucnn.backend import Array, namespace
from gpucnn.random import philox4x32, split64
from gpucnn.reference.common import select
from gpucnn.reference.pointwise import blend, pointwise


@pointwise
def relu(problem: None, x: Array, *, out: Array) -> None:
    namespace(x).maximum(x, 0, out=out)


@pointwise
def relu_grad(problem: None, dy: Array, y: Array, *, out: Array) -> None:
    """dy where y is not 0, of softshrink too: a NaN in it lets dy pass, as in PyTorch."""
    select(dy, y != 0, out=out)


@dataclass(frozen=True)
class HardtanhProblem:
    """Bounds that the dtype of the arrays holds exactly: the gradient asks which outputs equal them."""

    min_val: float
    max_val: float


@pointwise
def hardtanh(p: HardtanhProblem, x: Array, *, out: Array) -> None:
    namespace(x).clip(x, p.min_val, p.max_val, out=out)


@pointwise
def hardtanh_grad(p: HardtanhProblem, dy: Array, y: Array, *, out: Array) -> None:
    inside = y > p.min_val
    inside &= y < p.max_val
    select(dy, inside, out=out)


@pointwise
def leaky_relu(slope: float, x: Array, *, out: Array) -> None:
    namespace(x).multiply(x, slope, out=out)
    blend(~(x > 0), out, x, out)


@pointwise
def leaky_relu_grad(slope: float, dy: Array, saved: Array, *, out: Array) -> None:
    """`saved` may be the input or, for slopes that are not negative, the output."""
    namespace(dy).multiply(dy, slope, out=out)
    blend(~(saved > 0), out, dy, out)


@dataclass(frozen=True)
class ThresholdProblem:
    threshold: float
    value: float


@pointwise
def threshold(p: ThresholdProblem, x: Array, *, out: Array) -> None:
    out[...] = p.value
    blend(x <= p.threshold, out, x, out)


@pointwise
def threshold_grad(p: ThresholdProblem, dy: Array, x: Array, *, out: Array) -> None:
    select(dy, ~(x <= p.threshold), out=out)


@pointwise
def hardshrink(lambd: float, x: Array, *, out: Array) -> None:
    select(x, ~(namespace(x).abs(x) <= lambd), out=out)


@pointwise
def hardshrink_grad(lambd: float, dy: Array, x: Array, *, out: Array) -> None:
    select(dy, ~(namespace(x).abs(x) <= lambd), out=out)


@pointwise
def softshrink(lambd: float, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.clip(x, -lambd, lambd, out=out)
    xp.subtract(x, out, out=out)


# ---------------------------------------------------------------------------------------- exponential linear units


@dataclass(frozen=True)
class EluProblem:
    """scale * x where x > 0, else scale * alpha * (exp(input_scale * x) - 1): elu, celu and selu."""

    alpha: float
    scale: float = 1.0
    input_scale: float = 1.0

    @property
    def follows_from_output(self) -> bool:
        """Whether the output tells which inputs were positive, and is no larger; if not the gradient needs these."""
        return self.alpha >= 0 and self.input_scale > 0


@pointwise
def elu(p: EluProblem, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.minimum(x, 0, out=out)
    out *= p.input_scale
    xp.expm1(out, out=out)
    out *= p.alpha
    blend(x <= 0, out, x, out)
    out *= p.scale


@pointwise
def elu_grad(p: EluProblem, dy: Array, saved: Array, *, out: Array) -> None:
    """Below 0 the slope over `scale` is alpha * input_scale * exp(input_scale * x), which follows from y too."""
    xp = namespace(dy)
    if p.follows_from_output:
        xp.divide(saved, p.scale, out=out)
        out += p.alpha
        out *= p.input_scale
    else:
        xp.minimum(saved, 0, out=out)
        out *= p.input_scale
        xp.exp(out, out=out)
        out *= p.alpha * p.input_scale
    out *= dy
    blend(saved <= 0, out, dy, out)
    out *= p.scale


# --------------------------------------------------------------------------------- slopes learnt, and slopes drawn


@pointwise
def prelu(problem: None, x: Array, weight: Array, *, out: Array) -> None:
    namespace(x).multiply(x, weight, out=out)
    blend(~(x > 0), out, x, out)


@pointwise
def prelu_grad(problem: None, dy: Array, x: Array, weight: Array, *, out: Array) -> None:
    namespace(x).multiply(dy, weight, out=out)
    blend(~(x > 0), out, dy, out)


@pointwise
def prelu_weight_grad(problem: None, dy: Array, x: Array, *, out: Array) -> None:
    """What each element adds to the gradient of its weight."""
    namespace(x).multiply(dy, x, out=out)
    select(out, ~(x > 0), out=out)


@dataclass(frozen=True)
class RReluProblem:
    """Element i, counted in the logical order of `shape` (N,C,H,W), draws lower + (upper - lower) * u / 2**32, where u
    is word 0 of Philox 4x32-10 at counter (i low, i high, call low, call high) under the key `seed`."""

    shape: tuple[int, ...]
    lower: float
    upper: float
    seed: int
    call: int
    order: tuple[int, ...] | None = None
    """The axes of x as they lie in memory, which is how the kernel gets it; None is in their own order."""


def rrelu_slopes(p: RReluProblem, x: Array) -> Array:
    """Each element's factor, laid out like x and in its dtype: 1, but a number drawn where x <= 0."""
    xp = namespace(x)
    index = xp.arange(x.size, dtype=np.uint64)
    counter = (index & np.uint64(0xFFFFFFFF), index >> np.uint64(32), *split64(p.call))
    word = philox4x32(counter, split64(p.seed))[0].reshape(p.shape)
    if p.order:
        word = word.transpose(p.order)
    slopes = (word.astype(np.float64) * ((p.upper - p.lower) * 2.0**-32) + p.lower).astype(x.dtype)
    return xp.where(x <= 0, slopes, x.dtype.type(1))
