"""Pooling."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from gpucnn.arguments import whole
from gpucnn.functional.checks import a_tensor, batched, floats_together, hashable
from gpucnn.ops import adaptive_pool2d as adaptive
from gpucnn.ops import compiled, pool2d, unpool2d
from gpucnn.problem import IntPair, Pool2dProblem, pair, pool2d_problem
from gpucnn.reference.adaptive_pool2d import AdaptivePool2dProblem
from gpucnn.reference.lp_pool2d import LpPool2dProblem
from gpucnn.reference.unpool2d import Unpool2dProblem
from gpucnn.tensor import Tensor, record

AdaptiveSize = int | tuple[int | None, int | None]
"""Outputs along each axis: a number for both, or (vertical, horizontal); None keeps that of the input."""


def max_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Each window's maximum: (N,C,H,W) -> (N,C,P,Q), or (C,H,W) -> (C,P,Q); stride defaults to kernel_size.

    The gradient goes to the first of equal maxima in row-major order; a NaN is larger than any number. Scherer, Müller
    and Behnke, "Evaluation of pooling operations in convolutional architectures for object recognition" (2010).

    Args:
        kernel_size, stride, dilation: int or (vertical, horizontal), at least 1.
        padding: cells of -infinity at each side, at most half the window.
        ceil_mode: keep a last window that reaches beyond the image, as long as it starts inside.
        return_indices: return (output, indices), int64 positions h * W + w of the maxima.

    Raises:
        ValueError: windows that do not fit the image, arguments out of range, an input with other axes.
        TypeError: not a floating tensor, an argument that is not an integer.
    """
    floats_together("max_pool2d", input=input)
    arguments = hashable("max_pool2d", kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)

    def run(x: Tensor) -> Any:
        problem = pool2d_problem("max_pool2d", x.shape, *arguments, bool(ceil_mode))
        return record(pool2d.MaxPool2d, (x,), {"problem": problem, "return_indices": return_indices})

    return batched(input, run)


def avg_pool2d(
    input: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Each window's average: (N,C,H,W) -> (N,C,P,Q), or (C,H,W) -> (C,P,Q); stride defaults to kernel_size.

    LeCun et al., "Gradient-based learning applied to document recognition" (1998).

    Args:
        kernel_size, stride, padding, ceil_mode: as of max_pool2d, with zeros for padding.
        count_include_pad: padded zeros count as cells of the window.
        divisor_override: divide by this instead of the number of cells; not 0.

    Raises:
        ValueError, TypeError: as max_pool2d; a `divisor_override` of 0.
    """
    floats_together("avg_pool2d", input=input)
    if divisor_override is not None and whole(divisor_override, "avg_pool2d: divisor_override") == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    arguments = hashable("avg_pool2d", kernel_size=kernel_size, stride=stride, padding=padding)

    def run(x: Tensor) -> Tensor:
        problem = pool2d_problem("avg_pool2d", x.shape, *arguments, 1, bool(ceil_mode))
        options = {"count_include_pad": bool(count_include_pad), "divisor_override": divisor_override}
        return record(pool2d.AvgPool2d, (x,), {"problem": problem, **options})  # type: ignore[no-any-return]

    return batched(input, run)  # type: ignore[no-any-return]


def lp_pool2d(
    input: Tensor,
    norm_type: float,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Each window's (sum of x**norm_type)**(1/norm_type): (N,C,H,W) -> (N,C,P,Q), or (C,H,W) -> (C,P,Q).

    As in PyTorch the powers are those of x, not of |x| (of an odd one the sum can be negative, and its root NaN), a
    window that `ceil_mode` lets reach beyond the image counts as if it were full of its average, and a window whose sum
    is 0 passes no gradient on. Sermanet, Chintala and LeCun, "Convolutional neural networks applied to house numbers
    digit classification" (2012).

    Args:
        norm_type: any number but 0; infinity is the maximum of |x| and -infinity its minimum.
        stride: defaults to kernel_size.

    Raises:
        ValueError, TypeError: as max_pool2d; `norm_type` is 0, NaN or no number.
    """
    floats_together("lp_pool2d", input=input)
    norm = _norm_type(norm_type)
    arguments = hashable("lp_pool2d", kernel_size=kernel_size, stride=stride)

    def run(x: Tensor) -> Tensor:
        windows = pool2d_problem("lp_pool2d", x.shape, *arguments, 0, 1, bool(ceil_mode))
        return record(pool2d.LpPool2d, (x,), {"problem": LpPool2dProblem(windows, norm)})  # type: ignore[no-any-return]

    return batched(input, run)  # type: ignore[no-any-return]


def _norm_type(value: Any) -> float:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"lp_pool2d: norm_type must be a number, got {value!r}")
    norm = float(value)
    if norm == 0 or math.isnan(norm):
        raise ValueError(f"lp_pool2d: norm_type must be a number other than 0, got {value!r}")
    return norm


# ----------------------------------------------------------------------------------------------------------- adaptive


def adaptive_avg_pool2d(input: Tensor, output_size: AdaptiveSize) -> Tensor:
    """Averages over P x Q windows that cover the image: (N,C,H,W) -> (N,C,P,Q), or (C,H,W) -> (C,P,Q).

    Window p spans the rows floor(p * H / P) up to, not including, ceil((p + 1) * H / P), columns likewise: where P does
    not divide H windows differ in size and may share a row. He et al., "Spatial pyramid pooling in deep convolutional
    networks for visual recognition" (2014).

    Args:
        output_size: (P, Q), or one number for both; None keeps the input's size along that axis.

    Raises:
        ValueError: an image without pixels, a size below 0, an input that is neither (N,C,H,W) nor (C,H,W).
        TypeError: sizes that are no integers, an input that is no tensor of a floating dtype.
    """
    floats_together("adaptive_avg_pool2d", input=input)

    def run(x: Tensor) -> Tensor:
        problem = _adaptive_problem("adaptive_avg_pool2d", x.shape, output_size)
        if isinstance(problem, Pool2dProblem):
            options = {"count_include_pad": True, "divisor_override": None}
            return record(pool2d.AvgPool2d, (x,), {"problem": problem, **options})  # type: ignore[no-any-return]
        return record(adaptive.AdaptiveAvgPool2d, (x,), {"problem": problem})  # type: ignore[no-any-return]

    return batched(input, run)  # type: ignore[no-any-return]


def adaptive_max_pool2d(input: Tensor, output_size: AdaptiveSize, return_indices: bool = False) -> Any:
    """Maxima over the windows of `adaptive_avg_pool2d`: (N,C,H,W) -> (N,C,P,Q), or (C,H,W) -> (C,P,Q).

    The gradient goes to the first of equal maxima in row-major order; a NaN is larger than any number.

    Args:
        return_indices: return (output, indices), int64 positions h * W + w of the maxima.

    Raises:
        ValueError, TypeError: as adaptive_avg_pool2d.
    """
    floats_together("adaptive_max_pool2d", input=input)

    def run(x: Tensor) -> Any:
        problem = _adaptive_problem("adaptive_max_pool2d", x.shape, output_size)
        if isinstance(problem, Pool2dProblem):
            return record(pool2d.MaxPool2d, (x,), {"problem": problem, "return_indices": return_indices})
        y, indices = record(adaptive.AdaptiveMaxPool2d, (x,), {"problem": problem})
        return (y, indices) if return_indices else y

    return batched(input, run)


def _adaptive_problem(op: str, x: tuple[int, ...], output_size: Any) -> Pool2dProblem | AdaptivePool2dProblem:
    """The windows of an adaptive pooling of `x` (N,C,H,W): those of an ordinary one where all are alike."""
    if len(x) != 4:
        raise ValueError(f"{op}: input must have shape (N, C, H, W) or (C, H, W), got {x}")
    N, C, H, W = x
    if min(H, W) < 1:
        raise ValueError(f"{op}: the image must not be empty, got input {x}")
    if C < 1 and op == "adaptive_max_pool2d":
        raise ValueError(f"{op}: channels must not be empty, got input {x}")
    sizes = output_size if isinstance(output_size, (tuple, list)) else (whole(output_size, f"{op}: output_size"),) * 2
    if len(sizes) != 2:
        raise ValueError(f"{op}: output_size takes an int or a pair (vertical, horizontal), got {output_size!r}")
    P, Q = (
        full if size is None else whole(size, f"{op}: output_size") for size, full in zip(sizes, (H, W), strict=True)
    )
    if min(P, Q) < 0:
        raise ValueError(f"{op}: output_size must not be negative, got {output_size!r}")
    if min(P, Q) == 0 or H % P or W % Q:
        return AdaptivePool2dProblem(N, H, W, C, P, Q)
    window = (H // P, W // Q)
    return Pool2dProblem(N, H, W, C, *window, P, Q, window, (0, 0), (1, 1))


# ---------------------------------------------------------------------------------------------------------- unpooling


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    output_size: Any = None,
) -> Tensor:
    """Puts pooled values back where `max_pool2d` found them, zeros elsewhere: (N,C,P,Q) -> (N,C,H,W), or unbatched.

    H = (P - 1) * stride - 2 * padding + kernel_size, W likewise: the arguments of the pooling to be undone. Where
    several values go to one place, the last in row-major order stays there and all of them get its gradient. Zeiler
    and Fergus, "Visualizing and understanding convolutional networks" (2014).

    Args:
        indices: int64 positions h * W + w in an image of the output's size, of the shape of `input`.
        stride: defaults to kernel_size.
        output_size: (H, W), or a shape that ends so, less than a stride away from the sizes above: what was rounded
            down when pooling.

    Raises:
        ValueError: shapes that do not fit, an output size out of reach, an index outside the output (of a compiled
            kernel not here, but where a result is read: gpucnn.flags).
        TypeError: indices that are not int64, an input that is no floating tensor, an argument that is not an integer.
    """
    op = "max_unpool2d"
    floats_together(op, input=input)
    if a_tensor(indices, "indices", op).dtype != np.int64:
        raise TypeError(f"{op}: indices must be int64, as max_pool2d returns them, got {indices.dtype}")
    if indices.shape != input.shape:
        raise ValueError(f"{op}: indices {indices.shape} must have the shape of input {input.shape}")
    if indices.device != input.device:
        raise ValueError(f"{op}: input is on {input.device}, but indices on {indices.device}")
    if input.ndim == 3:
        batch = max_unpool2d(
            input.unsqueeze(0), indices.unsqueeze(0), kernel_size, stride, padding, output_size=output_size
        )
        return batch.squeeze(0)
    problem = _unpool_problem(input.shape, kernel_size, stride, padding, output_size)
    if not compiled.runs(unpool2d.unpool_fprop, problem, input.data):
        _check_indices(indices, problem)
    return record(unpool2d.MaxUnpool2d, (input, indices), {"problem": problem})  # type: ignore[no-any-return]


def _unpool_problem(
    x: tuple[int, ...], kernel_size: IntPair, stride: IntPair | None, padding: IntPair, output_size: Any
) -> Unpool2dProblem:
    op = "max_unpool2d"
    if len(x) != 4:
        raise ValueError(f"{op}: input must have shape (N, C, P, Q) or (C, P, Q), got {x}")
    if min(x[1:]) < 1:
        raise ValueError(f"{op}: channels and image must not be empty, got input {x}")
    kernel = pair(kernel_size, f"{op}: kernel_size", minimum=1)
    strides = kernel if stride is None else pair(stride, f"{op}: stride", minimum=1)
    pad = pair(padding, f"{op}: padding", minimum=0)
    usual = [(n - 1) * s - 2 * b + k for n, s, b, k in zip(x[2:], strides, pad, kernel, strict=True)]
    sizes = usual
    if output_size is not None:
        given = output_size if isinstance(output_size, (tuple, list)) else (output_size,)
        if len(given) not in (2, 4):
            raise ValueError(f"{op}: output_size must be (H, W) or (N, C, H, W), got {output_size!r}")
        sizes = [whole(size, f"{op}: output_size") for size in given[-2:]]
        for size, middle, step in zip(sizes, usual, strides, strict=True):
            if not middle - step < size < middle + step:
                raise ValueError(
                    f"{op}: output_size={output_size!r} must lie less than the stride {strides} away from "
                    f"{tuple(usual)}, what the input {x} would be unpooled to"
                )
    if min(sizes) < 0:
        raise ValueError(f"{op}: padding={padding!r} leaves an output of {sizes[0]} x {sizes[1]} (input {x})")
    N, C, P, Q = x
    return Unpool2dProblem(N, P, Q, C, *sizes)


def _check_indices(indices: Tensor, p: Unpool2dProblem) -> None:
    data = indices.data
    if data.size and (data.min() < 0 or data.max() >= p.H * p.W):
        wrong = (data < 0) | (data >= p.H * p.W)
        where = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), indices.shape))
        raise ValueError(
            f"max_unpool2d: index {int(data[where])} at {where} lies outside the output of {p.H} x {p.W} = "
            f"{p.H * p.W}; output_size=... can name the size that was pooled"
        )
