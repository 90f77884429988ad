"""Modules in a row, in a list, by name. Their parameters are found under "0", "1", ... or the names given."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import count, pairwise
from typing import Any, TypeVar, cast, overload

from gpucnn.arguments import whole
from gpucnn.nn.module import Module, changed
from gpucnn.nn.norm_relu import run_first

R = TypeVar("R", bound="_Row")


class _Row(Module):
    """What Sequential and ModuleList share: modules in an order, reached by their positions."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self: R, index: slice) -> R: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._part(dict(list(self.named_children())[index]))
        return self._modules[self._name(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        name = self._name(index)
        self.add_module(name, self._checked(module, index))

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        for name in names[index] if isinstance(index, slice) else [self._name(index)]:
            del self._modules[name]
        self._renumber(list(self))

    def append(self: R, module: Module) -> R:
        """Adds a module at the end, under the first number from its position on that is no name yet."""
        self._checked(module, len(self))
        self.add_module(str(next(n for n in count(len(self)) if str(n) not in self._modules)), module)
        return self

    def extend(self: R, modules: Iterable[Module]) -> R:
        """Adds modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self: R, index: int, module: Module) -> R:
        """Adds a module before the one at `index`; all are numbered anew."""
        modules = list(self)
        modules.insert(index, self._checked(module, index))
        self._renumber(modules)
        return self

    def pop(self, index: int = -1) -> Module:
        """Takes the module at `index` out; those left are numbered anew."""
        module = self[index]
        del self[index]
        return module

    def _part(self: R, named: dict[str, Module]) -> R:
        raise NotImplementedError

    def _name(self, index: Any) -> str:
        position = whole(index, f"{type(self).__name__}: an index")
        if not -len(self) <= position < len(self):
            raise IndexError(f"{type(self).__name__}: no module {position}, there are {len(self)}")
        return list(self._modules)[position]

    def _renumber(self, modules: list[Module]) -> None:
        self._modules.clear()
        self._modules.update((str(number), module) for number, module in enumerate(modules))

    def _checked(self, module: Any, place: object) -> Module:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__} takes modules, got {type(module).__name__} at {place}")
        return module


class Sequential(_Row):
    """Each module's output is the next one's input: Sequential(a, b) or Sequential({"name": a, ...}).

    A batch norm and the ReLU behind it run as one op, a Conv2d before them takes part, and a ReLU behind a Conv2d is
    part of that: see `conv_norm_relu`.
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        named = modules[0].items() if len(modules) == 1 and isinstance(modules[0], dict) else enumerate(modules)
        for name, module in named:
            self.add_module(str(name), self._checked(module, name))

    def forward(self, input: Any) -> Any:
        """The last module's output; of a Sequential without modules, `input`."""
        modules = list(self)
        position = 0
        while position < len(modules):
            input, count = run_first(modules[position : position + 3], input)
            position += count
        return input

    def pairs(self) -> Iterable[tuple[str, str]]:
        """Neighbours, unless a subclass has a forward of its own."""
        names = list(self._modules)
        is_ours = type(self).forward is Sequential.forward and not changed(self)
        return pairwise(names) if is_ours else self.conv_norms

    def _part(self, named: dict[str, Module]) -> Sequential:
        return Sequential(named)


class ModuleList(_Row):
    """A list of modules, for a forward that calls them by itself."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        return self.extend(modules)

    def __add__(self, modules: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *modules])

    def _part(self, named: dict[str, Module]) -> ModuleList:
        return ModuleList(named.values())


class ModuleDict(Module):
    """Modules by name, in the order in which they came."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        super().__init__()
        self.update(modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __getitem__(self, name: str) -> Module:
        return self._named_modules()[name]

    def __setitem__(self, name: str, module: Module) -> None:
        if not isinstance(name, str):
            raise TypeError(f"ModuleDict takes names, got {name!r}")
        if not isinstance(module, Module):
            raise TypeError(f"ModuleDict takes modules, got {type(module).__name__} at {name!r}")
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> ValuesView[Module]:
        """The modules."""
        return self._named_modules().values()

    def items(self) -> ItemsView[str, Module]:
        """(name, module) pairs."""
        return self._named_modules().items()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Adds modules; one of a name that is there already takes its place."""
        for name, module in dict(modules).items():
            self[name] = module

    def pop(self, name: str) -> Module:
        """Takes a module out."""
        module = self[name]
        del self[name]
        return module

    def clear(self) -> None:
        """Takes all out."""
        self._modules.clear()

    def _named_modules(self) -> dict[str, Module]:
        return cast("dict[str, Module]", self._modules)
