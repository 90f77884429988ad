"""The graph of recorded calls, and the walk back through it that turns it into gradients.

Knows arrays and nodes; of tensors only that a leaf can take a gradient (`Leaf`).
"""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import Any, Protocol, Union

import numpy as np

from gpucnn import backend
from gpucnn.autograd import Context, Function
from gpucnn.backend import Array
from gpucnn.ops.elementwise import add, in_memory_order


class Leaf(Protocol):
    """What a gradient ends in: a tensor that no recorded call made."""

    data: Array

    def accumulate(self, gradient: Array, given_out: dict[int, Array]) -> None: ...


Edge = Union["tuple[Node, int]", Leaf]
"""Where a gradient goes: an output (by number) of a node, or a leaf."""

_numbers = itertools.count(1)
"""One sequence for recorded calls and for writes: whether a write came after a call is seen by comparing theirs."""


class _Writes:
    """Writes into arrays that may have been saved for backward."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.last = 0
        # By the id of the array that owns the memory. An id may be given out again; its number is then older than any
        # call that could have saved the new array, so that an entry left behind is never mistaken for a write.
        self.by_owner: dict[int, int] = {}


_writes = _Writes()


def wrote(array: Array) -> None:
    """Notes that the memory of `array` has been written to: what was saved of it before is no longer what it was."""
    with _writes.lock:
        _writes.last = _writes.by_owner[id(owner(array))] = next(_numbers)


def last_write(array: Array) -> int:
    """The number of the last write into the memory of `array` that was noted, 0 if none was; later ones are greater."""
    return _writes.by_owner.get(id(owner(array)), 0)


def owner(array: Array) -> Any:
    """The object that holds the memory of `array`: at the end of a chain of views."""
    while (base := getattr(array, "base", None)) is not None:
        array = base
    return array


class Node:
    """One recorded call of a Function.

    `edges` has an entry for each positional input, None where no gradient is needed; `outputs` their shapes and dtypes.
    `number` grows with every node, so that the nodes of a graph in falling order are in reverse topological order.
    A `lasting` one forgets nothing: for calls that save nothing, whose output serves several graphs.
    """

    __slots__ = ("context", "edges", "function", "lasting", "number", "outputs")

    def __init__(
        self,
        function: type[Function],
        context: Context,
        edges: list[Edge | None],
        outputs: list[tuple[tuple[int, ...], np.dtype[Any]]],
    ) -> None:
        self.function = function
        self.context: Context | None = context
        self.edges = edges
        self.lasting = False
        self.number = next(_numbers)
        self.outputs = outputs

    def run_backward(self, gradients: list[Array | None], retain: bool) -> list[tuple[Edge, Array]]:
        """The gradients of the inputs and where they go, given those of the outputs; forgets all or retains."""
        context = self._usable_context()
        answers = self.function.backward(context, *(gradients if len(gradients) == 1 else self._filled(gradients)))
        if not isinstance(answers, tuple):
            answers = (answers,)
        if len(answers) != len(self.edges):
            name = self.function.__name__
            raise RuntimeError(f"{name}.backward returned {len(answers)} gradients for {len(self.edges)} inputs")
        deliveries = []
        for position, edge in enumerate(self.edges):
            answer = answers[position]
            if edge is not None and answer is not None:
                deliveries.append((edge, self._checked(position, edge, answer, context.saved)))
        if not (retain or self.lasting):
            self.context, self.edges = None, []
        return deliveries

    def _usable_context(self) -> Context:
        name, context = self.function.__name__, self.context
        if context is None:
            raise RuntimeError(
                f"backward() went through {name} a second time, and the first has freed what it saved: "
                "call the first one with retain_graph=True"
            )
        if _writes.last > self.number:
            for array in context.saved:
                if array is not None and last_write(array) > self.number:
                    raise RuntimeError(
                        f"{name} saved an array of shape {array.shape} for backward() that was changed in place since "
                        "(by an optimiser step or copy_): run the forward pass again"
                    )
        return context

    def _filled(self, gradients: list[Array | None]) -> list[Array | None]:
        """Zeros where a floating output went unused while another was used."""
        present = next(gradient for gradient in gradients if gradient is not None)
        return [
            backend.zeros(shape, dtype, present) if gradient is None and dtype.kind in backend.FLOAT_KINDS else gradient
            for gradient, (shape, dtype) in zip(gradients, self.outputs, strict=True)
        ]

    def _checked(self, position: int, edge: Edge, gradient: Any, saved: tuple[Array | None, ...]) -> Array:
        """What backward returned for an input, as an array of the input's shape and dtype."""
        if isinstance(edge, tuple):
            is_leaf, (shape, dtype) = False, edge[0].outputs[edge[1]]
        else:
            is_leaf, shape, dtype = True, edge.data.shape, edge.data.dtype
        if type(gradient) is not np.ndarray:
            if isinstance(gradient, np.generic):
                gradient = np.asarray(gradient)
            try:
                backend.namespace(gradient)
            except TypeError as error:
                name = self.function.__name__
                raise TypeError(f"{name}.backward, gradient of input {position}: {error}") from None
        if gradient.shape != shape:
            raise RuntimeError(
                f"{self.function.__name__}.backward returned a gradient of shape {gradient.shape} for input {position} "
                f"of shape {shape}"
            )
        if gradient.dtype != dtype:
            return gradient.astype(dtype)
        if is_leaf:
            held = owner(gradient)
            for array in saved:
                if array is not None and owner(array) is held:
                    return gradient.copy()  # a leaf keeps what it gets, and what was saved may be its own data
        return gradient


def backpropagate(root: Edge, gradient: Array, retain: bool) -> None:
    """Walks the graph from `root`, last recorded node first, and leaves gradients in the leaves."""
    given_out: dict[int, Array] = {id(owner(gradient)): gradient}
    waiting: dict[Node, list[Array | None]] = {}
    order: list[tuple[int, Node]] = []

    def deliver(edge: Edge, value: Array) -> None:
        if not isinstance(edge, tuple):
            edge.accumulate(value, given_out)
            return
        node, output = edge
        slots = waiting.get(node)
        if slots is None:
            slots = waiting[node] = [None] * len(node.outputs)
            heapq.heappush(order, (-node.number, node))
        before = slots[output]
        slots[output] = value if before is None else in_memory_order(add, None, before, value)

    deliver(root, gradient)
    while order:
        _, node = heapq.heappop(order)
        for edge, value in node.run_backward(waiting.pop(node), retain):
            deliver(edge, value)


def own(gradient: Array, like: Array, given_out: dict[int, Array]) -> Array:
    """`gradient` for good: a copy laid out as `like` where its memory is read-only or has been given out before.

    An op may hand one array to several inputs, or a view that repeats one number.
    """
    held = id(owner(gradient))
    if held in given_out or 0 in gradient.strides or not getattr(gradient.flags, "writeable", True):
        mine = backend.namespace(like).empty_like(like)
        mine[...] = gradient
        gradient, held = mine, id(owner(mine))
    given_out[held] = gradient
    return gradient
