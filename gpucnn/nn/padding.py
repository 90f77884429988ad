"""Padding layers; as F.pad with its modes."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn.arguments import whole
from gpucnn.nn.module import Module
from gpucnn.tensor import Tensor

Amounts = int | tuple[int, int, int, int]
"""Cells at every side, or (left, right, top, bottom); a negative number cuts as many off."""


class _Pad2d(Module):
    """(N,C,H,W) or (C,H,W) to H + top + bottom and W + left + right; see F.pad.

    Args:
        padding: cells at every side, or (left, right, top, bottom); a negative number cuts as many off.

    Raises:
        ValueError, TypeError: amounts that are not one integer or four; on calls what F.pad raises.
    """

    mode = "constant"
    value: float | None = None

    def __init__(self, padding: Amounts) -> None:
        super().__init__()
        amounts = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * 4
        if len(amounts) != 4:
            raise ValueError(f"{type(self).__name__}: padding is an int or (left, right, top, bottom), got {padding!r}")
        self.padding = tuple([whole(amount, f"{type(self).__name__}: padding") for amount in amounts])

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ConstantPad2d(_Pad2d):
    """Adds cells that hold `value`: `padding` at every side, or (left, right, top, bottom); see F.pad."""

    def __init__(self, padding: Amounts, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ZeroPad2d(_Pad2d):
    """Adds zeros: `padding` at every side, or (left, right, top, bottom); see F.pad."""


class ReflectionPad2d(_Pad2d):
    """Adds the cells beyond the edge one, in reverse; see F.pad, whose mode 'reflect' it is."""

    mode = "reflect"


class ReplicationPad2d(_Pad2d):
    """Adds copies of the edge cells; see F.pad, whose mode 'replicate' it is."""

    mode = "replicate"


class CircularPad2d(_Pad2d):
    """Adds the cells of the opposite side; see F.pad, whose mode 'circular' it is."""

    mode = "circular"
