"""Smooth activations, sigmoids and self-gated units, in whatever order memory has; and gated linear units.

A formula writes its result into `out`; gradients get the forward's output `y` where that alone determines the slope,
else its input `x`. Infinities and NaN come and go as in IEEE 754; the registry runs kernels without numpy's warnings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpucnn.backend import Array, empty, namespace
from gpucnn.reference.common import select
from gpucnn.reference.pointwise import blend, pointwise, scratch
from gpucnn.reference.special import normal_tail


def _sigmoid(x: Array, out: Array) -> None:
    """out = 1 / (1 + exp(-x)); an exponential that overflows is the right step towards 0."""
    xp = namespace(x)
    xp.negative(x, out=out)
    xp.exp(out, out=out)
    out += 1
    xp.reciprocal(out, out=out)


@pointwise
def sigmoid(problem: None, x: Array, *, out: Array) -> None:
    _sigmoid(x, out)


@pointwise
def sigmoid_grad(problem: None, dy: Array, y: Array, *, out: Array) -> None:
    namespace(y).subtract(1, y, out=out)
    out *= y
    out *= dy


@pointwise
def tanh(problem: None, x: Array, *, out: Array) -> None:
    namespace(x).tanh(x, out=out)


@pointwise
def tanh_grad(problem: None, dy: Array, y: Array, *, out: Array) -> None:
    xp = namespace(y)
    xp.multiply(y, y, out=out)
    xp.subtract(1, out, out=out)
    out *= dy


@pointwise
def tanhshrink(problem: None, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.tanh(x, out=out)
    xp.subtract(x, out, out=out)


@pointwise
def tanhshrink_grad(problem: None, dy: Array, x: Array, *, out: Array) -> None:
    namespace(x).tanh(x, out=out)
    out *= out
    out *= dy


@pointwise
def softsign(problem: None, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.abs(x, out=out)
    out += 1
    xp.divide(x, out, out=out)


@pointwise
def softsign_grad(problem: None, dy: Array, y: Array, *, out: Array) -> None:
    """dy / (1 + |x|)**2, and 1 / (1 + |x|) is 1 - |y|."""
    xp = namespace(y)
    xp.abs(y, out=out)
    xp.subtract(1, out, out=out)
    out *= out
    out *= dy


def _log1p_exp(x: Array, out: Array) -> None:
    """out = log(1 + exp(-|x|)), between 0 and log 2."""
    xp = namespace(x)
    xp.abs(x, out=out)
    xp.negative(out, out=out)
    xp.exp(out, out=out)
    xp.log1p(out, out=out)


@pointwise
def logsigmoid(problem: None, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    _log1p_exp(x, out)
    (negative,) = scratch(1, x)
    xp.subtract(xp.minimum(x, 0, out=negative), out, out=out)


@pointwise
def logsigmoid_grad(problem: None, dy: Array, y: Array, *, out: Array) -> None:
    """dy * sigmoid(-x), which is 1 - exp(y)."""
    xp = namespace(y)
    xp.expm1(y, out=out)
    out *= dy
    xp.negative(out, out=out)


@dataclass(frozen=True)
class SoftplusProblem:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x exceeds the threshold."""

    beta: float
    threshold: float


@pointwise
def softplus(p: SoftplusProblem, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    (scaled,) = scratch(1, x)
    xp.multiply(x, p.beta, out=scaled)
    _log1p_exp(scaled, out)
    linear = scaled > p.threshold
    out += xp.maximum(scaled, 0, out=scaled)
    out /= p.beta
    blend(~linear, out, x, out)


@pointwise
def softplus_grad(p: SoftplusProblem, dy: Array, x: Array, *, out: Array) -> None:
    (scaled,) = scratch(1, x)
    namespace(x).multiply(x, p.beta, out=scaled)
    _sigmoid(scaled, out)
    out *= dy
    blend(~(scaled > p.threshold), out, dy, out)


@pointwise
def hardsigmoid(problem: None, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.add(x, 3, out=out)
    xp.clip(out, 0, 6, out=out)
    out /= 6


@pointwise
def hardsigmoid_grad(problem: None, dy: Array, x: Array, *, out: Array) -> None:
    select(dy, namespace(x).abs(x) < 3, out=out)
    out /= 6


# ------------------------------------------------------------------------------------------------ self-gated units


@pointwise
def silu(problem: None, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.negative(x, out=out)
    xp.exp(out, out=out)
    out += 1
    xp.divide(x, out, out=out)


@pointwise
def silu_grad(problem: None, dy: Array, x: Array, *, out: Array) -> None:
    """dy * s * (1 + x * (1 - s)) with s = sigmoid(x)."""
    _sigmoid(x, out)
    (slope,) = scratch(1, x)
    namespace(x).subtract(1, out, out=slope)
    slope *= x
    slope += 1
    out *= slope
    out *= dy


@pointwise
def hardswish(problem: None, x: Array, *, out: Array) -> None:
    xp = namespace(x)
    xp.add(x, 3, out=out)
    xp.clip(out, 0, 6, out=out)
    out /= 6  # before it meets x, which may be as large as numbers get
    out *= x


@pointwise
def hardswish_grad(problem: None, dy: Array, x: Array, *, out: Array) -> None:
    """dy * (x/3 + 1/2) within (-3, 3), 0 up to -3, dy from 3 on."""
    namespace(x).divide(x, 3, out=out)
    out += 0.5
    out *= dy
    blend(x < 3, out, dy, out)
    select(out, ~(x <= -3), out=out)


_MISH_LINEAR = 20.0
"""From here on tanh(softplus(x)) rounds to 1, and nothing in its formula overflows up to here."""


@pointwise
def mish(problem: None, x: Array, *, out: Array) -> None:
    """x * tanh(softplus(x)); with e = exp(x) and n = e * (e + 2) the factor is n / (n + 2)."""
    xp = namespace(x)
    (work,) = scratch(1, x)
    xp.minimum(x, _MISH_LINEAR, out=out)
    xp.exp(out, out=out)
    xp.add(out, 2, out=work)
    out *= work
    xp.add(out, 2, out=work)
    out /= work
    out *= x


@pointwise
def mish_grad(problem: None, dy: Array, x: Array, *, out: Array) -> None:
    """dy * (t + x * sigmoid(x) * (1 - t**2)) with t = n / (n + 2): the second term is 4 x e (e + 1) / (n + 2)**2."""
    xp = namespace(x)
    limited, e, share = scratch(3, x)
    xp.minimum(x, _MISH_LINEAR, out=limited)
    xp.exp(limited, out=e)
    xp.add(e, 2, out=out)
    out *= e
    xp.add(out, 2, out=share)
    out /= share
    limited *= e
    e += 1
    limited *= e
    limited /= share
    limited /= share
    limited *= 4
    out += limited
    out *= dy


@pointwise
def gelu(problem: None, x: Array, *, out: Array) -> None:
    """x * Phi(x) with Phi the normal distribution function: max(x, 0) - |x| * (1 - Phi(|x|))."""
    xp = namespace(x)
    bell, limited = scratch(2, x)
    normal_tail(x, out, bell, limited)
    out *= limited
    xp.maximum(x, 0, out=bell)
    xp.subtract(bell, out, out=out)


@pointwise
def gelu_grad(problem: None, dy: Array, x: Array, *, out: Array) -> None:
    """dy * (Phi(x) + x * Phi'(x))."""
    xp = namespace(x)
    bell, limited = scratch(2, x)
    normal_tail(x, out, bell, limited)
    xp.copysign(out, x, out=out)
    xp.subtract(~xp.signbit(x), out, out=out)
    bell *= 1 / math.sqrt(2 * math.pi)
    bell *= x
    out += bell
    out *= dy


_GELU_INNER = math.sqrt(2 / math.pi)
_GELU_CUBE = 0.044715
_GELU_FLAT = 10.0
"""Beyond it the tangent rounds to 1 and its slope to 0."""


def _gelu_tangent(x: Array, out: Array) -> None:
    xp = namespace(x)
    xp.multiply(x, x, out=out)
    out *= _GELU_CUBE
    out += 1
    out *= x
    out *= _GELU_INNER
    xp.tanh(out, out=out)


@pointwise
def gelu_tanh(problem: None, x: Array, *, out: Array) -> None:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))."""
    _gelu_tangent(x, out)
    out += 1
    out *= 0.5
    out *= x


@pointwise
def gelu_tanh_grad(problem: None, dy: Array, x: Array, *, out: Array) -> None:
    """dy / 2 * (1 + t + x * (1 - t**2) * sqrt(2 / pi) * (1 + 3 * 0.044715 * x**2)) with t the tangent."""
    xp = namespace(x)
    limited, inner, slope = scratch(3, x)
    xp.clip(x, -_GELU_FLAT, _GELU_FLAT, out=limited)
    _gelu_tangent(limited, out)
    xp.multiply(limited, limited, out=inner)
    inner *= 3 * _GELU_CUBE
    inner += 1
    inner *= limited
    xp.multiply(out, out, out=slope)
    xp.subtract(1, slope, out=slope)
    inner *= slope
    inner *= _GELU_INNER
    out += 1
    out += inner
    out *= dy
    out *= 0.5


# --------------------------------------------------------------------------------------------- gated linear units


@pointwise
def _gated(problem: None, a: Array, b: Array, *, out: Array) -> None:
    _sigmoid(b, out)
    out *= a


@pointwise
def _gate_grad(problem: None, dy: Array, a: Array, b: Array, *, out: Array) -> None:
    _sigmoid(b, out)
    (rest,) = scratch(1, b)
    namespace(b).subtract(1, out, out=rest)
    out *= rest
    out *= a
    out *= dy


def glu(problem: None, x: Array) -> Array:
    """The first half of the last axis times the sigmoid of the second."""
    half = x.shape[-1] // 2
    return _gated(None, x[..., :half], x[..., half:])


def glu_grad(problem: None, dy: Array, x: Array) -> Array:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    dx = empty(x.shape, x.dtype, x)
    dx[..., :half] = _gated(None, dy, b)
    dx[..., half:] = _gate_grad(None, dy, a, b)
    return dx
