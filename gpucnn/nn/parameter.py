"""Parameters: tensors that a module hands to its optimiser."""

from __future__ import annotations

from typing import Any

from gpucnn.tensor import Tensor


class Parameter(Tensor):
    """A leaf tensor that a Module registers when it is assigned to an attribute."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return "Parameter" + super().__repr__().removeprefix("Tensor")
