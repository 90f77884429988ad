"""What the tests of the convolution kernels share: a case's truth, and what the bindings of one kernel make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from kernel_checks import Memory
from op_checks import NCHW, NHWC, compare, draw

from gpucnn.problem import Conv2dProblem, conv2d_problem
from gpucnn.testing import ConvCase, naive

DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


class Truth:
    """Inputs, which `dtype` holds, and results of one case in float64, logical order."""

    def __init__(self, case: ConvCase, kind: str, dtype: str = "float32") -> None:
        def drawn(shape: tuple[int, ...], stream: int = 0) -> Any:
            return draw(kind, shape, stream).astype(DTYPES[dtype]).astype(np.float64)

        self.x, self.w = drawn(case.x_shape), drawn(case.weight_shape, 1)
        self.bias = drawn((case.K,), 2) if case.bias else None
        self.dy = drawn(case.y_shape, 3)
        self.refresh(case)

    def refresh(self, case: ConvCase) -> None:
        """The results of the inputs as they are now."""
        self.y = naive.conv2d(self.x, self.w, self.bias, **case.arguments)
        self.dx = naive.conv2d_input_grad(self.dy, self.w, case.x_shape, **case.arguments)
        self.dw = naive.conv2d_weight_grad(self.dy, self.x, case.weight_shape, **case.arguments)


def problem_of(case: ConvCase) -> Conv2dProblem:
    return conv2d_problem(case.x_shape, case.weight_shape, case.stride, case.padding, case.dilation, case.groups)


def results(
    kernel: str,
    module: Any,
    p: Conv2dProblem,
    t: Any,
    call: str = "",
    passes: tuple[str, ...] = ("y", "dx", "dw"),
    dtype: str = "float32",
    relu: bool = False,
    offset: int = 0,
) -> dict[str, Any]:
    """What `kernel` makes of t.x, t.w, t.bias and t.dy, in memory order; no other memory is touched. Arrays begin
    `offset` elements after a multiple of 16 bytes."""
    __tracebackhide__ = True
    memory = Memory()

    def taken(name: str) -> Any:
        array = getattr(t, name)
        if array is None:
            return None
        laid_out = array.transpose(NHWC) if array.ndim == 4 else array
        flat = np.concatenate([np.zeros(offset), laid_out.reshape(-1)])
        return memory.given(name, flat, DTYPES[dtype])[offset:].reshape(laid_out.shape)

    def wanted(name: str) -> Any:
        shape = shapes[name]
        flat = memory.wanted(name, (offset + int(np.prod(shape)),), DTYPES[dtype])
        flat[:offset] = 0
        return flat[offset:].reshape(shape)

    shapes = {"y": (p.N, p.P, p.Q, p.K), "dx": (p.N, p.H, p.W, p.C), "dw": (p.K, p.R, p.S, p.C // p.groups)}
    given = {name: taken(name) for name in ("x", "w", "bias", "dy")}
    found = {name: wanted(name) for name in passes}
    run = {name: getattr(module, f"conv2d_{kernel}_{name}", None) for name in ("fprop", "dgrad", "wgrad")}
    if "y" in passes:
        run["fprop"](p, dtype, given["x"], given["w"], given["bias"], found["y"], relu, 0)
    if "dx" in passes:
        run["dgrad"](p, dtype, given["dy"], given["w"], found["dx"], 0)
    if "dw" in passes:
        splits = getattr(module, f"conv2d_{kernel}_wgrad_splits")(p)
        partial = memory.wanted("dw's parts", (splits, *shapes["dw"])) if splits > 1 else None
        run["wgrad"](p, dtype, given["x"], given["dy"], found["dw"], partial, 0)
    memory.check(call)
    return found


def check_passes(
    kernel: str,
    passes: tuple[str, ...],
    truth: Callable[..., Truth],
    module: Any,
    case: ConvCase,
    kind: str,
    dtype: str = "float32",
    relu: bool = False,
) -> None:
    """Every pass of one case: nothing unwritten, nothing else written, every element right; and float32 sums of small
    integers are exact, so that what is stored is the truth, rounded once."""
    __tracebackhide__ = True
    t, p, exact = truth(case, kind, dtype), problem_of(case), kind == "integers"
    terms = {"y": case.terms + 1, "dx": p.K // p.groups * p.R * p.S, "dw": p.N * p.P * p.Q}
    for name, found in results(kernel, module, p, t, f"{case}", passes, dtype, relu).items():
        expected = np.maximum(t.y, 0) if name == "y" and relu else getattr(t, name)
        expected = expected.astype(DTYPES[dtype]).astype(np.float64) if exact else expected
        compare(found.transpose(NCHW), expected, terms[name], f"{case}: {name} {dtype}", exact=exact)
