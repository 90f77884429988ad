"""Problem descriptions, and the formula for output sizes that every room uses (csrc/common/problem.h mirrors this).

A description is made once per combination of shapes and arguments and then cached; making it is what checks the
arguments, so errors here are in the terms of whoever called `F.conv2d` or `F.max_pool2d`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
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

    What lies outside the image reads as 0.
    """

    K: int
    groups: int


@dataclass(frozen=True)
class Pool2dProblem(_Windows):
    """One pooling; padded positions take part in no maximum."""


def pair(value: Any, name: str, *, minimum: int) -> tuple[int, int]:
    """An int or a tuple of one or two ints as (vertical, horizontal); TypeError or ValueError names the argument."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(values) not in (1, 2):
        raise ValueError(f"{name} takes an int or a pair (vertical, horizontal), got {value!r}")
    numbers = [whole(v, name) for v in values]
    if min(numbers) < minimum:
        rule = "not be negative" if minimum == 0 else f"be at least {minimum}"
        raise ValueError(f"{name} must {rule}, got {value!r}")
    return numbers[0], numbers[-1]


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


@functools.lru_cache(maxsize=4096, typed=True)
def conv2d_problem(
    x: tuple[int, ...], w: tuple[int, ...], stride: IntPair, padding: IntPair | str, dilation: IntPair, groups: int
) -> Conv2dProblem:
    """Checks the arguments of a convolution of `x` (N,C,H,W) with `w` (K,C/groups,R,S) and describes it.

    Raises:
        ValueError: channels or groups that do not fit, a kernel larger than the padded input, a stride or dilation
            below 1, a negative padding, padding='same' with a stride other than 1.
        TypeError: an argument that is not an integer where one is needed.
    """
    N, C, H, W = _image_shape(x, "conv2d")
    if len(w) != 4:
        raise ValueError(f"conv2d: weight must have shape (K, C/groups, R, S), got {_text(w)}")
    K, per_group, R, S = w
    if min(K, per_group, R, S, C) < 1:
        raise ValueError(f"conv2d: channels and kernel must not be empty, got input {_text(x)} and weight {_text(w)}")
    strides = pair(stride, "conv2d: stride", minimum=1)
    dilations = pair(dilation, "conv2d: dilation", minimum=1)
    group_count = whole(groups, "conv2d: groups")
    if group_count < 1:
        raise ValueError(f"conv2d: groups must be at least 1, got {groups!r}")
    if C % group_count or K % group_count:
        raise ValueError(
            f"conv2d: groups must divide the channels of input and weight: groups={groups}, input has C={C}, "
            f"weight {_text(w)} has K={K}"
        )
    if per_group * group_count != C:
        raise ValueError(
            f"conv2d: input {_text(x)} has C={C} channels, but weight {_text(w)} with groups={groups} "
            f"expects {per_group * group_count}"
        )
    taps = (dilations[0] * (R - 1), dilations[1] * (S - 1))
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"conv2d: padding must be 'same', 'valid', an int or a pair, got {padding!r}")
        if padding == "same" and strides != (1, 1):
            raise ValueError(f"conv2d: padding='same' needs stride 1, got stride={stride!r}")
        total = taps if padding == "same" else (0, 0)
        before = (total[0] // 2, total[1] // 2)
    else:
        before = pair(padding, "conv2d: padding", minimum=0)
        total = (2 * before[0], 2 * before[1])
    P = output_size(H, R, strides[0], total[0], dilations[0])
    Q = output_size(W, S, strides[1], total[1], dilations[1])
    if P < 1 or Q < 1:
        raise ValueError(
            f"conv2d: a kernel that spans {taps[0] + 1} x {taps[1] + 1} (weight {_text(w)}, dilation={dilation!r}) is "
            f"larger than the padded input {H + total[0]} x {W + total[1]} (input {_text(x)}, padding={padding!r})"
        )
    return Conv2dProblem(N, H, W, C, R, S, P, Q, strides, before, dilations, K, group_count)


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
