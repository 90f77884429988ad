"""What the tests of activations share: numbers with the special ones among them, kernels and tensors against the
truth, against PyTorch and against central differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from op_checks import NHWC, SEED, draw, each_kernel, frozen

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops.registry import KernelTable
from gpucnn.testing import assert_close, gradcheck

INF, NAN = math.inf, math.nan
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10}
GRADIENT_ULPS = {"float64": 64, "float32": 64, "float16": 16}
"""For gradients of a few units in size that lose digits where slopes do; float16 is computed in float32."""
SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e-30, -1e-30, 88.0, -88.0, 104.0, -104.0, 6e4, -6e4, 0.5, -0.5, 3.0, -3.0]
)


@dataclass(frozen=True)
class Case:
    """An activation: its tables and problem, its truth and that of its gradient, and what users call it."""

    forward: KernelTable
    backward: KernelTable
    truth: Callable[..., Any]
    truth_grad: Callable[..., Any]
    call: Callable[[Any, Any], Any]
    """Of (functional module, tensor): PyTorch's and ours take the same."""
    problem: Any = None
    saves_output: bool = True
    uncertain_at_nan: bool = False
    """PyTorch's gradient at NaN is one or another as the element falls into its vectors or not."""


def values(*shape: int, stream: int = 0, kind: str = "normal") -> np.ndarray:
    """Normal numbers three times as wide; with 'special' the special ones among them. All are float16 numbers."""
    x = (3 * draw("normal", shape, stream)).astype(np.float16).astype(np.float64)
    if kind == "special":
        with np.errstate(all="ignore"):
            x.reshape(-1)[: SPECIAL.size] = SPECIAL.astype(np.float16)
        np.random.default_rng([SEED, stream]).shuffle(x.reshape(-1))
    return x


def check(found: np.ndarray, truth: np.ndarray, dtype: str, name: str, ulps: float, undefined: Any = False) -> None:
    """Within a few units in the last place, of 1 where the truth is less; infinite beyond the dtype's range.

    Where `undefined` a truth of NaN allows any number: of an infinite x definitions often say 0 * infinity.
    """
    __tracebackhide__ = True
    assert found.dtype == dtype, name
    with np.errstate(all="ignore"):
        truth = np.where(np.abs(truth) > np.finfo(dtype).max, truth.astype(dtype).astype(np.float64), truth)
        truth = np.where(undefined & np.isnan(truth), found.astype(np.float64), truth)
    allowed = ulps * EPS[dtype]
    assert_close(found, truth, rtol=allowed, atol=allowed, dtype=dtype, equal_nan=True, name=name)


def check_forward(case: Case, dtype: str, kind: str, shape: tuple[int, ...] = (7, 9), ulps: float = 4) -> None:
    __tracebackhide__ = True
    x = values(*shape, kind=kind).astype(dtype)
    truth = case.truth(x)
    with np.errstate(all="ignore"):
        for kernel, found in each_kernel(case.forward, case.problem, frozen(x)):
            check(found, truth, dtype, f"{kernel} {dtype}", ulps, undefined=np.isinf(x))


def check_backward(case: Case, dtype: str, kind: str, shape: tuple[int, ...] = (7, 9)) -> None:
    """The gradient from above is of usual numbers."""
    __tracebackhide__ = True
    x, dy = values(*shape, kind=kind).astype(dtype), draw("normal", shape, 1).astype(dtype)
    truth = case.truth_grad(dy, x)
    with np.errstate(all="ignore"):
        for _, y in each_kernel(case.forward, case.problem, frozen(x)):
            saved = frozen(y if case.saves_output else x)
            for kernel, found in each_kernel(case.backward, case.problem, frozen(dy), saved):
                check(found, truth, dtype, f"{kernel} {dtype}", GRADIENT_ULPS[dtype], undefined=np.isinf(x))


def check_against_pytorch(case: Case, shape: tuple[int, ...], kind: str, torch: Any) -> None:
    """With NaN and infinities among the numbers; nothing warns of them."""
    __tracebackhide__ = True
    x, dy = values(*shape, kind=kind), draw("normal", shape, 1)
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = case.call(F, ours), case.call(torch.nn.functional, theirs)
    assert y.shape == tuple(expected.shape)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    check(y.numpy(), expected.detach().numpy(), "float64", "y", 8, undefined=np.isinf(x))
    ulps = 2.0**30 if case.forward.op == "hardsigmoid" else 128  # of which PyTorch rounds 1/6 to float32
    gradient = theirs.grad.numpy()
    if case.uncertain_at_nan:
        gradient = np.where(np.isnan(x), NAN, gradient)
    undefined = np.isinf(x) | (np.isnan(x) & case.uncertain_at_nan)
    check(ours.grad.numpy(), gradient, "float64", "gradient", ulps, undefined)


KINKS = (0.0, 0.5, -0.5, 0.75, 1.0, -1.0, 3.0, -3.0)
"""Where one activation or another has no derivative."""


def check_central_differences(case: Case) -> None:
    __tracebackhide__ = True
    x = draw("normal", (2, 3, 2, 3))
    for kink in KINKS:
        x = np.where(abs(x - kink) < 0.1, kink + 0.3, x)
    assert gradcheck(lambda t: case.call(F, t), [gpucnn.tensor(x, requires_grad=True)])


def check_layouts(case: Case, layout: Callable[[np.ndarray], np.ndarray]) -> None:
    """Whatever the order in memory of input and gradient, the numbers are the same."""
    __tracebackhide__ = True
    x, dy = values(2, 3, 4, 5), draw("normal", (2, 3, 4, 5), 1)
    leaf = gpucnn.Tensor(layout(x), requires_grad=True)
    y = case.call(F, leaf)
    y.backward(layout(dy))
    check(y.numpy(), case.truth(x), "float64", "y", 4)
    check(leaf.grad.numpy(), case.truth_grad(dy, x), "float64", "gradient", GRADIENT_ULPS["float64"])


def check_nothing_is_copied(case: Case) -> None:
    """A chain of channels-last ops stays so, forward and backward."""
    x = gpucnn.tensor(values(2, 4, 4, 5), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = case.call(F, x)
        y.backward(y.detach())
    assert copies.value == 0
    for tensor in (y, x.grad):
        assert tensor.data.transpose(NHWC).flags.c_contiguous
