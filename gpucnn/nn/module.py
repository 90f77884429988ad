"""Modules: trees of layers, with their parameters and buffers by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from gpucnn import backend
from gpucnn.autograd import no_grad
from gpucnn.nn.parameter import Parameter
from gpucnn.tensor import Tensor, as_array

M = TypeVar("M", bound="Module")


class Module:
    """Base of all layers and networks; subclasses define `forward`.

    Assigning a Parameter or a Module to an attribute registers it under that name; `register_buffer` does so for a
    tensor that is state but not trained. Names join with dots, as in PyTorch: "features.0.weight".
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module]

    def __init__(self) -> None:
        for name, value in (("_parameters", {}), ("_buffers", {}), ("_modules", {}), ("training", True)):
            object.__setattr__(self, name, value)

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self.forward(*inputs, **options)

    # -- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Parameter, Module)) and "_modules" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
        if isinstance(value, Parameter):
            self._forget(name)
            self._parameters[name] = value
        elif isinstance(value, Module):
            self._forget(name)
            self._modules[name] = value
        elif name in self.__dict__.get("_buffers", {}) and (value is None or isinstance(value, Tensor)):
            self._buffers[name] = value
        elif name in self.__dict__.get("_parameters", {}) and value is None:
            self._parameters[name] = None
        else:
            if "_modules" in self.__dict__:
                self._forget(name)
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        for kind in ("_parameters", "_buffers", "_modules"):
            registered = self.__dict__.get(kind, {})
            if name in registered:
                return registered[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            object.__delattr__(self, name)

    def _forget(self, name: str) -> bool:
        found = False
        for registered in (self._parameters, self._buffers, self._modules, self.__dict__):
            found |= registered.pop(name, self) is not self
        return found

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        self._forget(name)
        self._buffers[name] = tensor

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Registers a parameter, or the fact that this layer has none of that name (`bias=False`)."""
        self._forget(name)
        self._parameters[name] = parameter

    def add_module(self, name: str, module: Module) -> None:
        if not name or "." in name:
            raise ValueError(f"a module's name must not be empty or contain a dot, got {name!r}")
        self._forget(name)
        self._modules[name] = module

    # -- walking the tree

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(name, module) of this module (named '') and all below it, each once, parents first."""
        seen: set[int] = set()

        def walk(name: str, module: Module) -> Iterator[tuple[str, Module]]:
            if id(module) in seen:
                return
            seen.add(id(module))
            yield name, module
            for child_name, child in module._modules.items():
                yield from walk(f"{name}.{child_name}" if name else child_name, child)

        yield from walk(prefix, self)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return iter(self._modules.items())

    def children(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter), a shared parameter once, under its first name."""
        seen: set[int] = set()
        for name, parameter in self._named("_parameters"):
            if isinstance(parameter, Parameter) and id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        return self._named("_buffers")

    def buffers(self) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers())

    def _named(self, kind: str) -> Iterator[tuple[str, Tensor]]:
        for prefix, module in self.named_modules():
            for name, tensor in getattr(module, kind).items():
                if tensor is not None:
                    yield (f"{prefix}.{name}" if prefix else name), tensor

    def apply(self: M, function: Any) -> M:
        """Calls function(module) on every module, children before their parents."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # -- mode, place, gradients

    def train(self: M, mode: bool = True) -> M:
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self: M) -> M:
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self: M, *targets: Any, dtype: Any = None, device: str | None = None) -> M:
        """Moves parameters and floating buffers, in place: to('cuda'), to('float64'), to(dtype=..., device=...)."""
        with no_grad():
            for tensor in (*self.parameters(), *self.buffers()):
                wanted = () if tensor.dtype.kind != "f" else targets
                only_place = tuple(t for t in targets if isinstance(t, str) and t.partition(":")[0] in ("cpu", "cuda"))
                moved = Tensor(tensor.data).to(
                    *(wanted or only_place), dtype=dtype if tensor.dtype.kind == "f" else None, device=device
                )
                tensor.data = moved.data
                tensor.version += 1
                if tensor.grad is not None:
                    tensor.grad = tensor.grad.to(*targets, dtype=dtype, device=device)
        return self

    def cpu(self: M) -> M:
        return self.to("cpu")

    def cuda(self: M) -> M:
        return self.to("cuda")

    # -- state

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter and buffer by name, without history; the tensors share the module's memory."""
        state: dict[str, Tensor] = {}
        for prefix, module in self._every_place():
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    state[f"{prefix}.{name}" if prefix else name] = tensor.detach()
        return state

    def _every_place(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """As named_modules, but a module that is used in two places comes twice: state has a key for each."""
        yield prefix, self
        for name, child in self._modules.items():
            yield from child._every_place(f"{prefix}.{name}" if prefix else name)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copies tensors or arrays into the parameters and buffers of the same names.

        Returns (missing keys, unexpected keys); with `strict` there must be none.

        Raises:
            ValueError: everything that does not fit, in one message; nothing has been loaded then.
        """
        mine = self.state_dict()
        values = {name: state[name].data if isinstance(state[name], Tensor) else as_array(state[name]) for name in state}
        missing = [name for name in mine if name not in values]
        unexpected = [name for name in values if name not in mine]
        problems = [
            f"{name}: shape {values[name].shape}, this module has {mine[name].shape}"
            for name in mine
            if name in values and values[name].shape != mine[name].shape
        ]
        if strict:
            problems += [f"{name}: missing" for name in missing] + [f"{name}: unexpected" for name in unexpected]
        if problems:
            raise ValueError(f"state does not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        targets = {id(t.data): t for t in (*self.parameters(), *self.buffers())}
        with no_grad():
            for name, view in mine.items():
                if name in values:
                    source = backend.to_device(values[name], view.device)
                    targets[id(view.data)].copy_(np.asarray(source) if view.device == "cpu" else source)
        return missing, unexpected

    # -- printing

    def extra_repr(self) -> str:
        """What a layer says of itself between the brackets."""
        return ""

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        return "\n".join([f"{type(self).__name__}({extra}", *lines, ")"])
