"""What the tests of graphs share: small leaves, and gradients as plain numbers."""

from __future__ import annotations

from typing import Any

import gpucnn
from gpucnn import Tensor


def leaf(*values: float) -> Tensor:
    return gpucnn.tensor(list(values), requires_grad=True)


def grad(tensor: Tensor) -> Any:
    return None if tensor.grad is None else tensor.grad.tolist()
