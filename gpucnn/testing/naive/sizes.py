"""THE formulas of windows along one axis, how many and where: everything else in the truth asks these."""

from __future__ import annotations

from operator import index

IntPair = int | tuple[int, int]
"""One number for both axes, or (vertical, horizontal)."""

Meetings = list[tuple[int, int, int]]
"""(window, tap, element): which taps of which windows meet which elements along an axis."""


def pair(value: IntPair) -> tuple[int, int]:
    """A number as the same number for both axes; a pair as it is."""
    first, second = value if isinstance(value, tuple) else (value, value)
    return index(first), index(second)


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """How many positions a dilated kernel takes on a padded axis.

        P = floor((H + 2*padding - ((R - 1)*dilation + 1)) / stride) + 1

    Raises:
        ValueError: an argument is out of range, or the dilated kernel is longer than the padded axis.
    """
    _check(size, kernel, stride, padding, dilation)
    extent = (kernel - 1) * dilation + 1
    padded = size + 2 * padding
    if extent > padded:
        raise ValueError(
            f"kernel of {kernel} (extent {extent} with dilation {dilation}) is longer than the padded input "
            f"of {padded} ({size} + 2*{padding})"
        )
    return (padded - extent) // stride + 1


def meetings(count: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Meetings:
    """All (p, r, h) of `count` windows p, their `kernel` taps r and what these meet of `size` elements h.

    h = p*stride - padding + r*dilation
    """
    return [
        (p, r, h) for p in range(count) for r in range(kernel) if 0 <= (h := p * stride - padding + r * dilation) < size
    ]


def pool_output_size(
    size: int, kernel: int, stride: int, padding: int = 0, dilation: int = 1, ceil_mode: bool = False
) -> int:
    """How many windows pooling takes on an axis, as PyTorch counts them.

        P = floor((H + 2*padding - ((R - 1)*dilation + 1)) / stride) + 1, or ceil with ceil_mode; and then, with
        ceil_mode, a last window that would start in the right padding, (P - 1)*stride >= H + padding, is dropped.

    Raises:
        ValueError: an argument is out of range, the padding exceeds half the kernel (dilation left aside), or no
            window fits.
    """
    _check(size, kernel, stride, padding, dilation)
    if size < 1:
        raise ValueError(f"pooling needs at least one element along each image axis, got {size}")
    if 2 * padding > kernel:
        raise ValueError(f"padding of {padding} exceeds half the kernel of {kernel}")
    extent = (kernel - 1) * dilation + 1
    room = size + 2 * padding - extent
    count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    if count < 1:
        raise ValueError(f"no window of extent {extent} fits an input of {size} padded by {padding} on each side")
    return count


def _check(size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    for name, value, least in (
        ("size", size, 0),
        ("kernel", kernel, 1),
        ("stride", stride, 1),
        ("padding", padding, 0),
        ("dilation", dilation, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
