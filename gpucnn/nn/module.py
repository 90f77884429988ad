"""Modules: trees of layers, with their parameters and buffers by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

import numpy as np

from gpucnn import arguments, backend
from gpucnn.autograd import no_grad, observers
from gpucnn.nn.parameter import Parameter
from gpucnn.tensor import Tensor, as_array

M = TypeVar("M", bound="Module")


class Module:
    """Base of all layers and networks; subclasses define `forward`.

    Assigning a Parameter or a Module to an attribute registers it under that name; `register_buffer` does so for a
    tensor that is state but not trained. Names join with dots, as in PyTorch: "features.0.weight".
    """

    training: bool = True
    frozen: bool = False
    optional_state: tuple[str, ...] = ()
    """Names of own parameters and buffers that a state need not have; one that it lacks stays as it is."""
    evaluates_only: bool = False
    """Whether there is no training mode."""
    conv_norms: tuple[tuple[str, str], ...] = ()
    """Names of own modules that forward runs in a row by `nn.conv_norm_relu`: what `fuse` may make one."""
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]

    def __init__(self) -> None:
        for kind in _KINDS:
            object.__setattr__(self, kind, {})

    def forward(self, *inputs: Any) -> Any:
        """What calling the module does; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if observers and (observer := observers.get(threading.get_ident())):
            return observer.module(self, inputs, options)
        return self.forward(*inputs, **options)

    # -- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._register("_parameters", name, value)
        elif isinstance(value, Module):
            self._register("_modules", name, value)
        else:
            for kind, needed in _KINDS.items():
                if name in self.__dict__.get(kind, {}):
                    if value is not None and not isinstance(value, needed):
                        raise TypeError(
                            f"{type(self).__name__}: {name!r} is a registered {needed.__name__}: it takes one or None, "
                            f"not {type(value).__name__}; del it first to have a plain attribute"
                        )
                    self.__dict__[kind][name] = value
                    return
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for kind in _KINDS:
            if (registered := own.get(kind)) is not None and name in registered:
                return registered[name]
        if name in _KINDS:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before anything else")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._parameters, *self._buffers, *self._modules})

    def _forget(self, name: str) -> bool:
        found = False
        for registered in (self._parameters, self._buffers, self._modules, self.__dict__):
            found |= registered.pop(name, self) is not self
        return found

    def _register(self, kind: str, name: str, value: Any) -> None:
        needed = _KINDS[kind]
        if value is not None and not isinstance(value, needed):
            raise TypeError(f"{type(self).__name__}: {name!r} must be a {needed.__name__}, got {type(value).__name__}")
        if not name or "." in name or hasattr(type(self), name):
            raise ValueError(f"{type(self).__name__}: {name!r} is empty, has a dot, or names an attribute of the class")
        registered = getattr(self, kind)
        if name not in registered:
            self._forget(name)
        registered[name] = value

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Registers a tensor that is saved and moved with the module, but is not trained."""
        self._register("_buffers", name, tensor)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Registers a parameter, or the fact that this layer has none of that name (`bias=False`)."""
        self._register("_parameters", name, parameter)

    def add_module(self, name: str, module: Module | None) -> None:
        """Registers a module under a name that need not be an identifier, such as "0"."""
        self._register("_modules", name, module)

    # -- walking the tree

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(name, module) of this module (named '') and all below it, each once, parents first."""
        seen: set[int] = set()

        def walk(name: str, module: Module) -> Iterator[tuple[str, Module]]:
            if id(module) in seen:
                return
            seen.add(id(module))
            yield name, module
            for child_name, child in module.named_children():
                yield from walk(_join(name, child_name), child)

        yield from walk(prefix, self)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the modules directly below."""
        return ((name, child) for name, child in self._modules.items() if child is not None)

    def children(self) -> Iterator[Module]:
        """The modules directly below."""
        return (child for _, child in self.named_children())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter), a shared parameter once, under its first name."""
        return cast("Iterator[tuple[str, Parameter]]", self._named("_parameters"))

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter of this module and of those below it, once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """(name, buffer), a shared buffer once, under its first name."""
        return self._named("_buffers")

    def buffers(self) -> Iterator[Tensor]:
        """Every buffer of this module and of those below it, once."""
        return (buffer for _, buffer in self.named_buffers())

    def _named(self, kind: str) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, tensor in getattr(module, kind).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield _join(prefix, name), tensor

    def apply(self: M, function: Callable[[Module], object]) -> M:
        """Calls function(module) on every module, children before their parents."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # -- mode, place, gradients

    def train(self: M, mode: bool = True) -> M:
        """Sets `training` here and, through their own train(), in the modules below; what is frozen stays in eval.

        Raises:
            RuntimeError: a module that `fuse` has made is to be trained, whose batch norm is no more.
        """
        if mode:
            self._can_train()
        self.training = mode and not self.frozen
        for child in self.children():
            child.train(mode)
        return self

    def _can_train(self, also_frozen: bool = False) -> None:
        for name, module in self.named_modules():
            if module.evaluates_only and (also_frozen or not module.frozen):
                raise RuntimeError(
                    f"{type(self).__name__}: {name or 'it'} is a convolution that fuse() folded a batch norm into, and "
                    "has no training mode; make the network anew and load the state it had before, fuse a "
                    "copy.deepcopy of what is trained, or freeze() it, and train() leaves it in evaluation"
                )

    def eval(self: M) -> M:
        """train(False)."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Switches collecting of gradients for all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def freeze(self: M, frozen: bool = True) -> M:
        """Holds this module and all below it as they are; what is put in later, such as a new head, is not held.

        Parameters no longer collect gradients, and until `unfreeze()` the modules compute as in evaluation, also
        after train(): dropout lets everything pass and batch norm neither uses nor moves with the batch's statistics.
        """
        if not frozen:
            self._can_train(also_frozen=True)
        for module in self.modules():
            module.frozen = frozen
        return self.requires_grad_(not frozen).train(not frozen)

    def unfreeze(self: M) -> M:
        """Undoes `freeze()` here and below, and leaves all in training mode; raises what train() does."""
        return self.freeze(False)

    def fuse(self: M) -> M:
        """Makes one convolution of each Conv2d and the BatchNorm2d behind it, for inference: in place.

        They are found where they follow each other in a Sequential and where a class names them in `conv_norms`, as
        the networks of `gpucnn.models` do. A `FusedConv2d` takes the Conv2d's place, which does what batch norm, sum
        with a shortcut and ReLU behind it do, and an Identity the batch norm's; the rest is left alone, such as a
        batch norm without running statistics or behind another layer, and what has a forward of its own. What comes
        out is the same but for rounding. Parameters of the new modules collect no gradients; train() raises.

        The state is another one then: of each pair the Conv2d's names alone, `weight` and `bias` of float32, `weight`,
        `scale` and `shift` of 16 bits. It fits networks that are fused too; so load published weights before, and fuse
        a `copy.deepcopy` of what is to be trained further. What is to run in 16 bits goes there first: folded weights
        may be too small for float16.

        Raises:
            ValueError: a module is in training mode: `eval()` first.
        """
        for name, module in self.named_modules():
            if module.training:
                raise ValueError(
                    f"{type(self).__name__}.fuse(): {name or 'it'} is in training mode, in which batch norm uses the "
                    "batch's own statistics; call eval() first"
                )
        for module in list(self.modules()):
            for names in module.pairs():
                first, second = (module._modules.get(name) for name in names)
                if first is not None and second is not None and (both := first.joined(second)) is not None:
                    module._modules.update(zip(names, both, strict=True))
        return self

    def pairs(self) -> Iterable[tuple[str, str]]:
        """Names of the modules directly below of which the second runs on nothing but what the first returns."""
        return self.conv_norms

    def joined(self, following: Module) -> tuple[Module, Module] | None:
        """What takes the places of this module and of the one that runs behind it, if one can do what both do."""
        return None

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self: M, *targets: Any, dtype: Any = None, device: str | None = None) -> M:
        """Moves parameters and buffers, in place: to('cuda'), to('float64'), to(dtype=..., device=...).

        Integers and bools keep their dtype. Raises TypeError for a dtype that is no float.
        """
        wanted, place = arguments.conversion(targets, dtype, device)
        if wanted is not None and wanted.kind not in backend.FLOAT_KINDS:
            raise TypeError(f"a module's tensors go to floating dtypes only, got {wanted}")
        for tensor in (*self.parameters(), *self.buffers()):
            kept = None if tensor.dtype.kind not in backend.FLOAT_KINDS else wanted
            tensor.data = tensor.detach().to(dtype=kept, device=place).data
            if tensor.grad is not None:
                tensor.grad = tensor.grad.to(dtype=wanted, device=place)
        return self

    def cpu(self: M) -> M:
        """to('cpu')."""
        return self.to("cpu")

    def cuda(self: M) -> M:
        """to('cuda')."""
        return self.to("cuda")

    # -- state

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter and buffer by name, without history; the tensors share the module's memory."""
        return {name: tensor.detach() for name, tensor in self._state()}

    def _state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Every parameter and buffer; what is used in two places comes under both names."""
        for name, tensor in (*self._parameters.items(), *self._buffers.items()):
            if tensor is not None:
                yield _join(prefix, name), tensor
        for name, child in self.named_children():
            yield from child._state(_join(prefix, name))

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copies tensors or arrays into the parameters and buffers of the same names, whatever their dtype.

        Returns (missing keys, unexpected keys); with `strict` there must be none.

        Raises:
            ValueError: everything that does not fit, in one message; nothing has been loaded then.
            TypeError: `state` is no mapping of names to values.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict takes a mapping of names to tensors, got {type(state).__name__}")
        mine = dict(self._state())
        optional = {id(getattr(module, name)) for module in self.modules() for name in module.optional_state}
        missing = [name for name, tensor in mine.items() if name not in state and id(tensor) not in optional]
        unexpected = [name for name in state if name not in mine]
        problems, values = [], {}
        for name, tensor in mine.items():
            if name not in state:
                continue
            try:
                values[name] = as_array(state[name])
            except (TypeError, ValueError) as error:
                problems.append(f"{name}: {error}")
                continue
            if values[name].shape != tensor.shape:
                problems.append(f"{name}: shape {values[name].shape}, this module has {tensor.shape}")
        if strict:
            problems += [f"{name}: missing" for name in missing] + [f"{name}: unexpected" for name in unexpected]
            if missing and set(missing) <= {str(name).removeprefix("module.") for name in unexpected}:
                problems.append("remove 'module.' from the front of the names: PyTorch's DataParallel put it there")
        if problems:
            raise ValueError(f"state does not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        with no_grad(), np.errstate(all="ignore"):  # numbers that the dtype here can't hold become infinite
            for name, value in values.items():
                mine[name].copy_(value)
        return missing, unexpected

    # -- printing

    def extra_repr(self) -> str:
        """What a layer says of itself between the brackets."""
        return ""

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        return "\n".join([f"{type(self).__name__}({extra}", *lines, ")"])


def changed(module: Any) -> bool:
    """Whether somebody has given this one module a forward of its own."""
    return "forward" in getattr(module, "__dict__", ())


_KINDS: dict[str, type[Any]] = {"_parameters": Parameter, "_buffers": Tensor, "_modules": Module}
"""The attributes of a Module that hold what is registered, and what each takes."""


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
