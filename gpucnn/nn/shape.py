"""Changes of shape as modules, such as the one between convolutions and linear layers."""

from __future__ import annotations

from typing import Any

from gpucnn import functional as F
from gpucnn.arguments import whole
from gpucnn.nn.module import Module
from gpucnn.tensor import Tensor


class Identity(Module):
    """Its input; arguments are taken and ignored, so that it can stand in for any layer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """`input` itself."""
        return input


class Flatten(Module):
    """Axes start_dim to end_dim as one: (N,C,H,W) -> (N, C*H*W) by default; see F.flatten."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """The axis `dim` as several of the sizes `unflattened_size`, of which one may be -1.

    (N, C*H*W) -> (N,C,H,W) for dim=1 and unflattened_size=(C,H,W).

    Raises:
        TypeError: sizes that are no tuple of integers.
        ValueError: on calls, sizes that do not make up the axis.
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        if not isinstance(unflattened_size, (tuple, list)):
            raise TypeError(f"Unflatten: unflattened_size must be a tuple of integers, got {unflattened_size!r}")
        self.dim = whole(dim, "Unflatten: dim")
        self.unflattened_size = tuple([whole(size, "Unflatten: a size") for size in unflattened_size])

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
