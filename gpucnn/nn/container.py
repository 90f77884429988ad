"""Modules in a row, and the change of shape between convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, overload

from gpucnn import functional as F
from gpucnn.nn.module import Module
from gpucnn.tensor import Tensor


class Sequential(Module):
    """Each module's output is the next one's input: Sequential(a, b) or Sequential({"name": a, ...})."""

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        named = modules[0].items() if len(modules) == 1 and isinstance(modules[0], dict) else enumerate(modules)
        for name, module in named:
            _must_be_module(module, name)
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        """The last module's output; of a Sequential without modules, `input`."""
        for module in self:
            input = module(input)
        return input

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return Sequential(dict(list(self.named_children())[index]))
        return list(self.children())[index]

    def append(self, module: Module) -> Sequential:
        """Adds a module at the end, under the first number from its position on that is no name yet."""
        _must_be_module(module, len(self))
        self.add_module(str(next(n for n in count(len(self)) if str(n) not in self._modules)), module)
        return self


def _must_be_module(module: Any, place: object) -> None:
    if not isinstance(module, Module):
        raise TypeError(f"Sequential takes modules, got {type(module).__name__} at {place}")


class Flatten(Module):
    """(N,C,H,W) -> (N, C*H*W) by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
