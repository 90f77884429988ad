"""Changes of shape."""

from __future__ import annotations

from gpucnn.functional.checks import a_tensor
from gpucnn.tensor import Tensor


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim to end_dim as one, in logical (N,C,H,W) order."""
    return a_tensor(input, "input", "flatten").flatten(start_dim, end_dim)
