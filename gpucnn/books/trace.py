"""One forward pass, written down: which layers ran, what they computed, and which memory lived from when to when.

The trace is an observer of the ops and modules that the pass runs (`gpucnn.autograd.observed_by`), so that what a
network does by functions (`F.relu`, a shortcut's `+`, `cat`) is seen like what its modules do. A layer of the trace is
a call of a module without modules below it, or an op that a larger module ran itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpucnn.autograd import Context, Function, observed_by
from gpucnn.backend import Array
from gpucnn.books import fields
from gpucnn.books.field_rules import Call
from gpucnn.books.fields import Field
from gpucnn.books.rules import RULES
from gpucnn.graph import owner
from gpucnn.nn import Module
from gpucnn.tensor import Tensor

Shape = tuple[int, ...]


class NetworkEndsError(ValueError):
    """The forward pass of a summary failed; the message names the layer, and the cause is its error."""


@dataclass(eq=False)
class Memory:
    """One allocation; views of it are the same memory. `maker` is None for parameters and buffers."""

    bytes: int
    maker: Traced | None
    is_result: bool
    """Whether an op gave it out; False for what an op made for its own backward."""
    is_kept: bool = False
    """Whether backward will need it, or the caller got it as output."""


@dataclass(eq=False)
class Value:
    """What is known of an array: `field` is None where it depends on no pixel."""

    shape: Shape
    memory: Memory
    field: Field | None


@dataclass(eq=False)
class Traced:
    """A layer as it ran."""

    path: str
    kind: str
    outputs: list[Value] = field(default_factory=list)
    macs: int = 0
    unknown: list[str] = field(default_factory=list)
    """Ops that have no rule."""
    unread: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    """Names of those that this layer is the first of the pass to use."""


@dataclass
class Step:
    """Memories that one op read and wrote, and the layer that it was part of."""

    layer: Traced
    memories: list[Memory]


class Trace:
    """Runs `model` on `image` and keeps what it sees; `layers` begins with the input itself.

    Raises NetworkEndsError where the network can't take the image.
    """

    def __init__(self, model: Module, image: Tensor) -> None:
        self.image = image
        self.layers: list[Traced] = []
        self.steps: list[Step] = []
        self._paths = {id(module): name for name, module in model.named_modules()}
        self._fresh = {id(parameter): name for name, parameter in model.named_parameters()}
        self._values: dict[int, Value] = {}
        self._memories: dict[int, Memory] = {}  # by the id of the array that holds it
        self._alive: list[Any] = []  # arrays whose id is a key: it must not be given out again meanwhile
        self._places: list[tuple[str, str]] = [("", type(model).__name__)]
        self._layer: Traced | None = None  # the module without modules below it that is running
        self._failed: tuple[BaseException, str, str] | None = None
        for tensor in (*model.parameters(), *model.buffers()):
            self._memory(tensor.data, None, is_result=True)
        source = self._new_layer("", "input")
        source.outputs = [self._value(image.data, source, fields.of_image(image.shape[1:]))]
        self.result = self._run(model, image)
        for value in self.result:
            value.memory.is_kept = True

    @property
    def memories(self) -> list[Memory]:
        """All that layers made; parameters and buffers are not among them."""
        return [memory for memory in self._memories.values() if memory.maker is not None]

    def _run(self, model: Module, image: Tensor) -> list[Value]:
        try:
            with observed_by(self):
                result = model(image)
        except (ValueError, TypeError, RuntimeError) as error:
            path, kind = self._failed[1:] if self._failed else ("", type(model).__name__)
            shape = "x".join(map(str, image.shape[1:]))
            where = f"at {path} ({kind})" if path else f"in {kind} itself"
            raise NetworkEndsError(f"{type(model).__name__} on input {shape} ends {where}: {error}") from error
        return self._values_in(result, self.layers[-1])

    # -- what the observed pass calls

    def module(self, module: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Runs a module's forward as a layer of its own if it has no modules below it."""
        path, kind = self._paths.get(id(module), self._places[-1][0]), type(module).__name__
        layer = None
        if self._layer is None and next(module.children(), None) is None:
            layer = self._layer = self._new_layer(path, kind)
        self._places.append((path, kind))
        try:
            result = module.forward(*inputs, **options)
        except Exception as error:
            if self._failed is None or self._failed[0] is not error:
                self._failed = error, path, kind
            raise
        finally:
            self._places.pop()
            if layer is not None:
                self._layer = None
        if layer is not None:
            layer.outputs = self._values_in(result, layer)
        return result

    def function(
        self,
        function: type[Function],
        inputs: tuple[Any, ...],
        parameters: Mapping[str, Any],
        ctx: Context,
        outputs: list[Tensor],
    ) -> None:
        """Books an op to the layer that ran it."""
        layer = self._layer or self._new_layer(self._places[-1][0], function.__name__)
        operands = [self._value(x.data, layer) if isinstance(x, Tensor) else None for x in inputs]
        for x in inputs:
            if id(x) in self._fresh:
                layer.parameters.append(self._fresh.pop(id(x)))
        shapes = tuple(None if value is None else value.shape for value in operands)
        seen = tuple(None if value is None else value.field for value in operands)
        call = Call(shapes, tuple(output.shape for output in outputs), parameters, seen)
        result = self._apply_rule(layer, function, call)
        values = [self._value(output.data, layer, result, new=True) for output in outputs]
        if self._layer is None:
            layer.outputs = values
        if any(ctx.needs_input_grad):
            for array in ctx.saved:
                if array is not None:
                    self._memory(array, layer, is_result=False).is_kept = True
        used = [value.memory for value in (*operands, *values) if value is not None]
        self.steps.append(Step(layer, used))

    def _apply_rule(self, layer: Traced, function: type[Function], call: Call) -> Field | None:
        """Books what the op costs; what its results see."""
        rule, sees = RULES.get(function), any(seen is not None for seen in call.fields)
        if rule is None:
            layer.unknown.append(function.__name__)
            return (fields.Lost(),) * len(call.seen) if sees else None
        layer.macs += rule.macs(call)
        layer.unread.extend(rule.unread(call))
        return rule.field(call) if sees else None

    # -- arrays and their memory

    def _new_layer(self, path: str, kind: str) -> Traced:
        self.layers.append(Traced(path, kind))
        return self.layers[-1]

    def _value(self, array: Array, layer: Traced, seen: Field | None = None, *, new: bool = False) -> Value:
        if new or id(array) not in self._values:
            self._alive.append(array)
            self._values[id(array)] = Value(array.shape, self._memory(array, layer, is_result=True), seen)
        return self._values[id(array)]

    def _memory(self, array: Array, maker: Traced | None, *, is_result: bool) -> Memory:
        holder = owner(array)
        if id(holder) not in self._memories:
            self._alive.append(holder)
            bytes_ = int(getattr(holder, "nbytes", array.nbytes))  # what holds mapped files has no such attribute
            self._memories[id(holder)] = Memory(bytes_, maker, is_result)
        return self._memories[id(holder)]

    def _values_in(self, result: Any, layer: Traced) -> list[Value]:
        return [self._value(tensor.data, layer) for tensor in tensors_in(result)]


def tensors_in(result: Any) -> Iterator[Tensor]:
    """The tensors of what a forward returned: one, or tuples, lists and mappings of them."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping):
        for part in result.values():
            yield from tensors_in(part)
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from tensors_in(part)


def peak(trace: Trace) -> tuple[int, Traced]:
    """The most bytes of results that must be there at once, and the layer that runs then.

    A result is there from the op that makes it to the last one that reads it, the input from the beginning and the
    network's outputs to the end. Parameters and the scratch memory inside ops are not counted.
    """
    source = [value.memory for value in trace.layers[0].outputs]
    steps = [Step(trace.layers[0], source), *trace.steps, Step(trace.layers[-1], [v.memory for v in trace.result])]
    first: dict[Memory, int] = {}
    last: dict[Memory, int] = {}
    for number, step in enumerate(steps):
        for memory in step.memories:
            if memory.maker is not None:
                first.setdefault(memory, number)
                last[memory] = number
    change = [0] * (len(steps) + 1)
    for memory, number in first.items():
        change[number] += memory.bytes
        change[last[memory] + 1] -= memory.bytes
    alive = list(itertools.accumulate(change))
    most = max(range(len(steps)), key=alive.__getitem__)
    return alive[most], steps[most].layer
