"""Problem descriptions, and the formula for output sizes that every room uses (csrc/common/problem.h mirrors this).

A description is made once per combination of shapes and arguments and then cached; making it is what checks the
arguments, so errors here are in the terms of whoever called `F.conv2d` or `F.max_pool2d`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpucnn.arguments import whole

IntPair = int | tuple[int, int] | tuple[int]
"""PyTorch's `int or tuple`: one number for both directions, or (vertical, horizontal)."""


@dataclass(frozen=True)
class _Windows:
    """P x Q windows of R x S taps over N images of H x W x C.

    P and Q are given, so the padding at the bottom and right is implied by them.
    """

    N: int
    H: int
    W: int
    C: int
    R: int
    S: int
    P: int
    Q: int
    stride: tuple[int, int]
    padding: tuple[int, int]  # top, left
    dilation: tuple[int, int]

    @property
    def padding_after(self) -> tuple[int, int]:
        """Rows below and columns right of the image that the last windows read, never negative."""
        below = (self.P - 1) * self.stride[0] + self.dilation[0] * (self.R - 1) + 1 - self.padding[0] - self.H
        right = (self.Q - 1) * self.stride[1] + self.dilation[1] * (self.S - 1) + 1 - self.padding[1] - self.W
        return max(0, below), max(0, right)


@dataclass(frozen=True)
class Conv2dProblem(_Windows):
    """One convolution: y[n,p,q,k] = sum over r,s,c of x[n, p*stride-pad+r*dilation, ..., c] * w[k,r,s,c].

    What lies outside the image reads as 0. `precision` is that of float32: see gpucnn/precision.py.
    """

    K: int
    groups: int
    precision: str = "highest"
    epilogue: tuple[str, ...] = ()
    """What else than bias and ReLU becomes of the sums before they are stored: names of EPILOGUES, in their order."""

    @property
    def plain(self) -> Conv2dProblem:
        """The same without an epilogue."""
        return replace(self, epilogue=()) if self.epilogue else self


EPILOGUES = ("scale", "residual", "moments")
"""relu((sum + bias) * scale + shift + residual) with a scale and a shift for each channel and a residual of y's shape;
and of what is stored, the moments that a batch norm begins with."""


@dataclass(frozen=True)
class Pool2dProblem(_Windows):
    """The windows of a pooling, whose padded positions take part in no maximum, or of unfold and fold."""


def pair(value: Any, name: str, *, minimum: int) -> tuple[int, int]:
    """An int or a tuple of one or two ints as (vertical, horizontal); TypeError or ValueError names the argument."""
    vertical, horizontal = each_axis(value, 2, name, minimum=minimum)
    return vertical, horizontal


def each_axis(value: Any, axes: int, name: str, *, minimum: int) -> tuple[int, ...]:
    """An int, or a tuple of one int or as many as there are axes, as one int for each axis."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(values) not in (1, axes):
        several = "a pair (vertical, horizontal)" if axes == 2 else "a tuple of one"
        raise ValueError(f"{name} takes an int or {several}, got {value!r}")
    numbers = tuple([whole(v, name) for v in values])
    if min(numbers) < minimum:
        rule = "not be negative" if minimum == 0 else f"be at least {minimum}"
        raise ValueError(f"{name} must {rule}, got {value!r}")
    return numbers if len(numbers) == axes else numbers * axes


def _two(values: Sequence[int], missing: int) -> tuple[int, int]:
    """One number for each of two axes; where there is one alone it is the horizontal one."""
    return (values[0] if len(values) == 2 else missing), values[-1]


def _group_count(op: str, groups: Any) -> int:
    count = whole(groups, f"{op}: groups")
    if count < 1:
        raise ValueError(f"{op}: groups must be at least 1, got {groups!r}")
    return count


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool = False) -> int:
    """Windows of `kernel` taps that fit along `size` with `padding` cells in total at both ends; below 1 if none fits.

    floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1; `ceil_mode` rounds up instead.
    """
    room = size + padding - dilation * (kernel - 1) - 1
    return (-(-room // stride) if ceil_mode else room // stride) + 1


def _image_shape(shape: tuple[int, ...], op: str) -> tuple[int, ...]:
    if len(shape) != 4:
        raise ValueError(f"{op}: input must have shape (N, C, H, W) or (C, H, W), got {_text(shape)}")
    return shape


def _text(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


@functools.lru_cache(maxsize=4096, typed=True)
def conv2d_problem(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: IntPair,
    padding: IntPair | str,
    dilation: IntPair,
    groups: int,
    precision: str = "highest",
) -> Conv2dProblem:
    """Checks the arguments of a convolution of `x` (N,C,H,W) with `w` (K,C/groups,R,S) and describes it.

    Raises:
        ValueError: channels or groups that do not fit, a kernel larger than the padded input, a stride or dilation
            below 1, a negative padding, padding='same' with a stride other than 1.
        TypeError: an argument that is not an integer where one is needed.
    """
    _image_shape(x, "conv2d")
    if len(w) != 4:
        raise ValueError(f"conv2d: weight must have shape (K, C/groups, R, S), got {_text(w)}")
    return _convolution("conv2d", x, w, stride, padding, dilation, groups, precision)


@functools.lru_cache(maxsize=4096, typed=True)
def conv1d_problem(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: IntPair,
    padding: IntPair | str,
    dilation: IntPair,
    groups: int,
    precision: str = "highest",
) -> Conv2dProblem:
    """As `conv2d_problem` for `x` (N,C,L) and `w` (K,C/groups,S): described as a convolution of images of one row."""
    if len(x) != 3:
        raise ValueError(f"conv1d: input must have shape (N, C, L) or (C, L), got {_text(x)}")
    if len(w) != 3:
        raise ValueError(f"conv1d: weight must have shape (K, C/groups, S), got {_text(w)}")
    return _convolution("conv1d", x, w, stride, padding, dilation, groups, precision)


def _convolution(
    op: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: IntPair,
    padding: IntPair | str,
    dilation: IntPair,
    groups: int,
    precision: str,
) -> Conv2dProblem:
    """A convolution along one or two axes; along one it has a single row and a single row of taps."""
    N, C, *sizes = x
    K, per_group, *kernel = w
    if min(K, per_group, C, *kernel) < 1:
        raise ValueError(f"{op}: channels and kernel must not be empty, got input {_text(x)} and weight {_text(w)}")
    axes = len(sizes)
    strides = each_axis(stride, axes, f"{op}: stride", minimum=1)
    dilations = each_axis(dilation, axes, f"{op}: dilation", minimum=1)
    group_count = _group_count(op, groups)
    if C % group_count or K % group_count:
        raise ValueError(
            f"{op}: groups must divide the channels of input and weight: groups={groups}, input has C={C}, "
            f"weight {_text(w)} has K={K}"
        )
    if per_group * group_count != C:
        raise ValueError(
            f"{op}: input {_text(x)} has C={C} channels, but weight {_text(w)} with groups={groups} "
            f"expects {per_group * group_count}"
        )
    before, total = conv_padding(op, kernel, stride, padding, dilation)
    outputs = [output_size(*axis) for axis in zip(sizes, kernel, strides, total, dilations, strict=True)]
    if min(outputs) < 1:
        spans = [d * (taps - 1) + 1 for d, taps in zip(dilations, kernel, strict=True)]
        room = [size + cells for size, cells in zip(sizes, total, strict=True)]
        raise ValueError(
            f"{op}: a kernel that spans {_times(spans)} (weight {_text(w)}, dilation={dilation!r}) is "
            f"larger than the padded input {_times(room)} (input {_text(x)}, padding={padding!r})"
        )
    (H, W), (R, S), (P, Q) = _two(sizes, 1), _two(kernel, 1), _two(outputs, 1)
    steps = _two(strides, 1), _two(before, 0), _two(dilations, 1)
    return Conv2dProblem(N, H, W, C, R, S, P, Q, *steps, K, group_count, precision)


def conv_padding(
    op: str, kernel: Sequence[int], stride: IntPair, padding: IntPair | str, dilation: IntPair
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(cells before the image, cells at both ends together) along each axis of `kernel`, what `padding` asks for.

    'same' has as many outputs as inputs, and puts an odd cell at the end.

    Raises:
        ValueError: a negative padding, another word than 'same' and 'valid', 'same' with a stride other than 1.
        TypeError: an argument that is no integer.
    """
    axes = len(kernel)
    if not isinstance(padding, str):
        before = each_axis(padding, axes, f"{op}: padding", minimum=0)
        return before, tuple([2 * cells for cells in before])
    if padding not in ("same", "valid"):
        choices = "'same', 'valid', an int or a pair" if axes == 2 else "'same', 'valid' or an int"
        raise ValueError(f"{op}: padding must be {choices}, got {padding!r}")
    if padding == "valid":
        return (0,) * axes, (0,) * axes
    if max(each_axis(stride, axes, f"{op}: stride", minimum=1)) > 1:
        raise ValueError(f"{op}: padding='same' needs stride 1, got stride={stride!r}")
    spreads = each_axis(dilation, axes, f"{op}: dilation", minimum=1)
    total = tuple([d * (taps - 1) for d, taps in zip(spreads, kernel, strict=True)])
    return tuple([cells // 2 for cells in total]), total


@functools.lru_cache(maxsize=4096, typed=True)
def conv_transpose2d_problem(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: IntPair,
    padding: IntPair,
    output_padding: IntPair,
    groups: int,
    dilation: IntPair,
    precision: str = "highest",
) -> Conv2dProblem:
    """Checks the arguments of a transposed convolution of `x` (N,C,H,W) with `w` (C,K/groups,R,S) and describes it
    as the convolution that it transposes: from (N,K,P,Q), its own output, to `x`, with the same filters.

    P = (H-1) * stride - 2 * padding + dilation * (R-1) + 1 + output_padding, Q likewise.

    Raises:
        ValueError: channels or groups that do not fit, an output without cells, an output_padding that is smaller
            than neither stride nor dilation, a stride or dilation below 1, a negative padding.
        TypeError: an argument that is not an integer.
    """
    op = "conv_transpose2d"
    N, C, H, W = _image_shape(x, op)
    if len(w) != 4:
        raise ValueError(f"{op}: weight must have shape (C, K/groups, R, S), got {_text(w)}")
    w_channels, per_group, R, S = w
    if min(C, H, W, w_channels, per_group, R, S) < 1:
        raise ValueError(
            f"{op}: channels, image and kernel must not be empty, got input {_text(x)} and weight {_text(w)}"
        )
    strides = pair(stride, f"{op}: stride", minimum=1)
    before = pair(padding, f"{op}: padding", minimum=0)
    extra = pair(output_padding, f"{op}: output_padding", minimum=0)
    dilations = pair(dilation, f"{op}: dilation", minimum=1)
    group_count = _group_count(op, groups)
    if w_channels != C:
        raise ValueError(f"{op}: input {_text(x)} has C={C} channels, but weight {_text(w)} expects {w_channels}")
    if C % group_count:
        raise ValueError(f"{op}: groups must divide the channels of input: groups={groups}, input has C={C}")
    if any(cells >= max(s, d) for cells, s, d in zip(extra, strides, dilations, strict=True)):
        raise ValueError(
            f"{op}: output_padding must be smaller than stride or dilation, got output_padding={output_padding!r}, "
            f"stride={stride!r}, dilation={dilation!r}"
        )
    P, Q = (
        (size - 1) * s - 2 * pad + d * (taps - 1) + 1 + cells
        for size, taps, s, pad, d, cells in zip((H, W), (R, S), strides, before, dilations, extra, strict=True)
    )
    if P < 1 or Q < 1:
        raise ValueError(
            f"{op}: the output would have {P} x {Q} cells (input {_text(x)}, weight {_text(w)}, stride={stride!r}, "
            f"padding={padding!r}, dilation={dilation!r})"
        )
    steps = strides, before, dilations
    return Conv2dProblem(N, P, Q, per_group * group_count, R, S, H, W, *steps, C, group_count, precision)


@functools.lru_cache(maxsize=4096, typed=True)
def pool2d_problem(
    op: str,
    x: tuple[int, ...],
    kernel_size: IntPair,
    stride: IntPair | None,
    padding: IntPair,
    dilation: IntPair,
    ceil_mode: bool,
) -> Pool2dProblem:
    """Checks the arguments of a pooling of `x` (N,C,H,W) and describes it; `stride` None means `kernel_size`.

    Raises ValueError or TypeError as `conv2d_problem` does, and for a padding of more than half the kernel.
    """
    N, C, H, W = _image_shape(x, op)
    R, S = pair(kernel_size, f"{op}: kernel_size", minimum=1)
    strides = (R, S) if stride is None else pair(stride, f"{op}: stride", minimum=1)
    before = pair(padding, f"{op}: padding", minimum=0)
    dilations = pair(dilation, f"{op}: dilation", minimum=1)
    if min(C, H, W) < 1:
        raise ValueError(f"{op}: channels and image must not be empty, got input {_text(x)}")
    spans = (dilations[0] * (R - 1) + 1, dilations[1] * (S - 1) + 1)
    if before[0] > R // 2 or before[1] > S // 2:
        raise ValueError(f"{op}: padding={padding!r} must be at most half of kernel_size={kernel_size!r}")

    def windows(size: int, kernel: int, step: int, pad: int, spread: int) -> int:
        count = output_size(size, kernel, step, 2 * pad, spread, ceil_mode)
        # Rounding up may add a window that starts beyond the image and its left padding: it would see nothing.
        return count - 1 if ceil_mode and (count - 1) * step >= size + pad else count

    P = windows(H, R, strides[0], before[0], dilations[0])
    Q = windows(W, S, strides[1], before[1], dilations[1])
    if P < 1 or Q < 1:
        raise ValueError(
            f"{op}: a window of {spans[0]} x {spans[1]} is larger than the padded input "
            f"{H + 2 * before[0]} x {W + 2 * before[1]} (input {_text(x)}, padding={padding!r})"
        )
    return Pool2dProblem(N, H, W, C, R, S, P, Q, strides, before, dilations)


@functools.lru_cache(maxsize=4096, typed=True)
def unfold_problem(
    op: str, image: tuple[int, ...], kernel_size: IntPair, dilation: IntPair, padding: IntPair, stride: IntPair
) -> Pool2dProblem:
    """Checks the arguments of an unfold of an `image` (N,C,H,W), or a fold to it, and describes its windows.

    Raises ValueError or TypeError as `conv2d_problem` does.
    """
    N, C, H, W = _image_shape(image, op)
    if min(C, H, W) < 1:
        raise ValueError(f"{op}: channels and image must not be empty, got {_text(image)}")
    R, S = pair(kernel_size, f"{op}: kernel_size", minimum=1)
    dilations = pair(dilation, f"{op}: dilation", minimum=1)
    before = pair(padding, f"{op}: padding", minimum=0)
    strides = pair(stride, f"{op}: stride", minimum=1)
    P = output_size(H, R, strides[0], 2 * before[0], dilations[0])
    Q = output_size(W, S, strides[1], 2 * before[1], dilations[1])
    if P < 1 or Q < 1:
        spans = [d * (taps - 1) + 1 for d, taps in zip(dilations, (R, S), strict=True)]
        raise ValueError(
            f"{op}: a window of {_times(spans)} is larger than the padded image "
            f"{_times((H + 2 * before[0], W + 2 * before[1]))} (image {_text(image)}, padding={padding!r})"
        )
    return Pool2dProblem(N, H, W, C, R, S, P, Q, strides, before, dilations)


@functools.lru_cache(maxsize=4096, typed=True)
def fold_problem(
    columns: tuple[int, ...],
    output_size: IntPair,
    kernel_size: IntPair,
    dilation: IntPair,
    padding: IntPair,
    stride: IntPair,
) -> Pool2dProblem:
    """Checks the arguments of a fold of `columns` (N,C*R*S,L) and describes its windows.

    Raises ValueError or TypeError as `conv2d_problem` does, and for columns that are not as many or as long as the
    windows of an image of `output_size`.
    """
    if len(columns) != 3:
        raise ValueError(f"fold: input must have shape (N, C*R*S, L) or (C*R*S, L), got {_text(columns)}")
    N, rows, count = columns
    R, S = pair(kernel_size, "fold: kernel_size", minimum=1)
    H, W = pair(output_size, "fold: output_size", minimum=1)
    if rows < 1 or rows % (R * S):
        raise ValueError(
            f"fold: a column of input has a number for each cell of each channel's window: {R} x {S} = {R * S} must "
            f"divide its length {rows} (input {_text(columns)}, kernel_size={kernel_size!r})"
        )
    p = unfold_problem("fold", (N, rows // (R * S), H, W), kernel_size, dilation, padding, stride)
    if count != p.P * p.Q:
        raise ValueError(
            f"fold: an image of {H} x {W} has {p.P} x {p.Q} = {p.P * p.Q} windows (kernel_size={kernel_size!r}, "
            f"dilation={dilation!r}, padding={padding!r}, stride={stride!r}), but input {_text(columns)} has {count} "
            "columns"
        )
    return p
