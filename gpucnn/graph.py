"""The graph of recorded calls, and the walk back through it that turns it into gradients.

Knows arrays and nodes; of tensors only that a leaf can take a gradient (`Leaf`).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from typing import Any, Protocol, Union

import numpy as np

from gpucnn import backend
from gpucnn.autograd import Context, Function
from gpucnn.backend import Array
from gpucnn.ops.elementwise import add, in_memory_order

_numbers = itertools.count()


class Leaf(Protocol):
    """What a gradient ends in: a tensor that no recorded call made."""

    data: Array
    version: int

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def accumulate(self, gradient: Array, owners: dict[int, Array]) -> None: ...


Edge = Union["tuple[Node, int]", Leaf]
"""Where a gradient goes: an output (by number) of a node, or a leaf."""


class Node:
    """One recorded call of a Function.

    `edges` has an entry for each positional input, None where no gradient is needed. `number` grows with every node,
    so that the nodes of a graph in falling order are in reverse topological order.
    """

    __slots__ = ("context", "edges", "function", "number", "outputs", "versions")

    def __init__(
        self,
        function: type[Function],
        context: Context,
        edges: tuple[Edge | None, ...],
        leaves: Iterable[Leaf],
        outputs: Iterable[Leaf],
    ) -> None:
        self.function = function
        self.context: Context | None = context
        self.edges = edges
        self.number = next(_numbers)
        self.outputs = tuple([(output.shape, output.dtype) for output in outputs])
        # Leaves (parameters) are written to, by an optimiser say; what was saved of them must not have been.
        self.versions = tuple(
            [(leaf, leaf.version) for leaf in leaves if any(_same_memory(leaf.data, a) for a in context.saved)]
        )

    def run_backward(self, gradients: list[Array | None], retain: bool) -> tuple[Array | None, ...]:
        """The gradients of the inputs, given those of the outputs; frees what forward saved unless `retain`."""
        name, context = self.function.__name__, self.context
        if context is None:
            raise RuntimeError(
                f"backward() went through {name} a second time, and the first has freed what it saved: "
                "call the first one with retain_graph=True"
            )
        for leaf, version in self.versions:
            if leaf.version != version:
                raise RuntimeError(
                    f"{name} saved a tensor of shape {leaf.shape} for backward() that was changed in place since "
                    "(by an optimiser step or copy_): run the forward pass again"
                )
        answer = self.function.backward(context, *self._filled(gradients))
        answers = answer if isinstance(answer, tuple) else (answer,)
        if len(answers) != len(self.edges):
            raise RuntimeError(f"{name}.backward returned {len(answers)} gradients for {len(self.edges)} inputs")
        for position, (edge, value) in enumerate(zip(self.edges, answers, strict=True)):
            if edge is None or value is None:
                continue
            expected = edge[0].outputs[edge[1]][0] if isinstance(edge, tuple) else edge.shape
            if value.shape != expected:
                raise RuntimeError(
                    f"{name}.backward returned a gradient of shape {value.shape} for input {position} of shape {expected}"
                )
        if not retain:
            self.context = None
        return answers

    def _filled(self, gradients: list[Array | None]) -> list[Array | None]:
        """Zeros where a floating output went unused while another was used."""
        if all(gradient is not None for gradient in gradients):
            return gradients
        present = next(g for g in gradients if g is not None)
        return [
            backend.zeros(*output, present) if gradient is None and output[1].kind == "f" else gradient
            for gradient, output in zip(gradients, self.outputs, strict=True)
        ]


def backpropagate(root: Edge, gradient: Array, retain: bool) -> None:
    """Walks the graph from `root`, last recorded node first, and leaves gradients in the leaves."""
    owners: dict[int, Array] = {id(_owner(gradient)): gradient}
    waiting: dict[int, tuple[Node, list[Array | None]]] = {}
    order: list[int] = []

    def deliver(edge: Edge, value: Array) -> None:
        if not isinstance(edge, tuple):
            edge.accumulate(value, owners)
            return
        node, output = edge
        if node.number not in waiting:
            waiting[node.number] = (node, [None] * len(node.outputs))
            heapq.heappush(order, -node.number)
        slots = waiting[node.number][1]
        before = slots[output]
        slots[output] = value if before is None else in_memory_order(add, None, before, value)

    deliver(root, gradient)
    while order:
        node, gradients = waiting.pop(-heapq.heappop(order))
        for edge, value in zip(node.edges, node.run_backward(gradients, retain), strict=True):
            if edge is not None and value is not None:
                deliver(edge, np.asarray(value) if isinstance(value, np.generic) else value)
        if not retain:
            node.edges = ()


def own(gradient: Array, owners: dict[int, Array]) -> Array:
    """`gradient`, or a copy where its memory has been given out before: an op may hand one array to several inputs."""
    repeated = 0 in gradient.strides and gradient.size > 1
    if repeated:
        gradient = backend.namespace(gradient).array(gradient, order="C")
    elif id(_owner(gradient)) in owners:
        gradient = gradient.copy(order="K")
    owners[id(_owner(gradient))] = gradient
    return gradient


def _owner(array: Array) -> Array:
    return array if array.base is None else array.base


def _same_memory(a: Array, b: Array | None) -> bool:
    return b is not None and _owner(a) is _owner(b)
