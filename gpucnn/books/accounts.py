"""The books of a network: `summary(model, shape)`."""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpucnn import backend, creation, random
from gpucnn.arguments import whole
from gpucnn.autograd import enable_grad
from gpucnn.books.fields import Field, Reach
from gpucnn.books.table import in_a_word, si, size, text
from gpucnn.books.trace import Trace, Traced, peak
from gpucnn.nn import Module
from gpucnn.tensor import Tensor
from gpucnn.vis.books import depth_chart

_BATCH = 2
"""Images of the training pass: of a single one batch normalisation may have no statistics."""


@dataclass(frozen=True)
class Layer:
    """One line of the books: a call of a module without modules below it, or an op that a larger module ran itself.

    Shapes and bytes are those of one image.
    """

    path: str
    """Name of the module in the network; of a single op, that of the module whose forward ran it."""
    kind: str
    """Class of the module or of the op."""
    outputs: tuple[tuple[int, ...], ...]
    """Shapes without the batch."""
    parameters: int
    """Numbers in those parameters that this layer is the first to use."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products."""
    memory: int
    """Bytes of its results; a view of another layer's result has none of its own."""
    training_memory: int
    """Bytes that it made and that are held until backward."""
    field: Field | None
    """Receptive field of the (last) result; None where that depends on no pixel."""
    unread: tuple[str, ...] = ()
    """Rows and columns of its input that its windows never read, in words."""
    unknown: tuple[str, ...] = ()
    """Ops without a rule: their multiply-accumulates are not in `macs`, and the field is not known."""
    only_in_training: bool = False
    """Whether evaluation does not run it (auxiliary heads); it then has no `macs` and no `memory`."""

    @property
    def name(self) -> str:
        """Path and kind."""
        return f"{self.path} ({self.kind})" if self.path else self.kind


@dataclass(frozen=True)
class Summary:
    """What `gpucnn.summary` returns; `print` shows the table. Shapes, operations and activations are of one image."""

    model: str
    input: tuple[int, ...]
    dtype: str
    layers: tuple[Layer, ...]
    parameters: int
    """All of the model's, also those that no layer used."""
    trained_parameters: int
    """Those that require gradients."""
    parameter_bytes: int
    peak_memory: int
    """Bytes of results that inference must hold at once."""
    peak_layer: str
    """The layer at which it does."""
    classes: dict[str, str]
    """Class of each module by its name, '' for the network itself."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image in inference; of the ops that have a rule."""
        return sum(layer.macs for layer in self.layers)

    @property
    def memory(self) -> int:
        """Bytes of all results of inference together."""
        return sum(layer.memory for layer in self.layers)

    @property
    def training_memory(self) -> int:
        """Bytes that training holds from forward to backward: the arrays that ops saved, and the outputs."""
        return sum(layer.training_memory for layer in self.layers)

    @property
    def total(self) -> Layer:
        """All layers together, with all parameters of the model."""
        return replace(_together("", "total", self.layers), parameters=self.parameters)

    @property
    def unused_parameters(self) -> int:
        """Numbers in parameters that neither pass used."""
        return self.parameters - sum(layer.parameters for layer in self.layers)

    def at_depth(self, depth: int | None) -> tuple[Layer, ...]:
        """The layers, those more than `depth` names deep taken together; None takes none together.

        Raises ValueError for a depth below 1.
        """
        if depth is None:
            return self.layers
        if whole(depth, "summary: depth") < 1:
            raise ValueError(f"summary: depth must be at least 1, got {depth}")
        groups: list[tuple[str | None, list[Layer]]] = []
        for layer in self.layers:
            names = layer.path.split(".") if layer.path else []
            is_module = self.classes.get(layer.path) == layer.kind
            prefix = ".".join(names[:depth]) if len(names) + (not is_module) > depth and names else None
            if prefix is not None and groups and groups[-1][0] == prefix:
                groups[-1][1].append(layer)
            else:
                groups.append((prefix, [layer]))
        return tuple(
            members[0] if prefix is None else _together(prefix, self.classes[prefix], members)
            for prefix, members in groups
        )

    def by_kind(self) -> dict[str, Layer]:
        """Totals of each kind of layer, in order of appearance."""
        kinds = dict.fromkeys(layer.kind for layer in self.layers)
        return {kind: _together("", kind, [la for la in self.layers if la.kind == kind]) for kind in kinds}

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, strings, lists and dicts, for JSON; bytes and multiply-accumulates of one image."""
        return {
            "model": self.model,
            "input": list(self.input),
            "dtype": self.dtype,
            "totals": {
                "parameters": self.parameters,
                "trained_parameters": self.trained_parameters,
                "unused_parameters": self.unused_parameters,
                "parameter_bytes": self.parameter_bytes,
                "macs": self.macs,
                "memory_bytes": self.memory,
                "peak_memory_bytes": self.peak_memory,
                "peak_layer": self.peak_layer,
                "training_memory_bytes": self.training_memory,
                "ops_without_rule": sorted({op for layer in self.layers for op in layer.unknown}),
            },
            "layers": [_as_dict(layer) for layer in self.layers],
        }

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draws where operations, parameters and activations sit through the depth, as PNG; see `vis.depth_chart`."""
        shape, amounts = "x".join(map(str, self.input)), f"{si(self.macs)} multiply-accumulates"
        held = f"{size(self.training_memory)} an image held until backward"
        line = f"input {shape}  ·  {amounts}  ·  {self.parameters:,} parameters  ·  {held}"
        return depth_chart(self.layers, path, f"{self.model}: where it computes, what it stores", line)

    def table(self, depth: int | None = None) -> str:
        """The table in plain text; see `at_depth`."""
        return text(self, self.at_depth(depth))

    def __str__(self) -> str:
        return self.table()


def summary(model: Module, shape: Sequence[int]) -> Summary:
    """Parameters, operations, memory and receptive fields of `model` for an input of `shape`, layer by layer.

    Runs the network on zeros: one image in evaluation mode, which is what layers, operations and fields are read
    from, then a batch of two in training mode, if it has one, for what training holds. Training flags, buffers,
    gradients and the random stream are afterwards what they were; meanwhile no other thread should use the model.

    - Multiply-accumulates are those of convolutions and matrix products, as published figures count them: biases,
      normalisation, pooling, activations and additions count as none.
    - Memory of inference is that of the results. What must be there at once is the peak of the results that are yet
      to be read: from the op that makes one to the last that reads it.
    - Memory of training is what the ops have in fact saved for backward, and the network's outputs, each allocation
      once, booked to the layer that made it. It grows with the batch, and goes beside parameters, gradients and the
      optimiser's state.
    - Receptive fields are those of Araujo, Norris and Sim, "Computing receptive fields of convolutional neural
      networks" (Distill, 2019): size, jump between neighbours, and where the first one's centre lies, in pixels from
      the centre of the image's first pixel. "all" is the whole image, after what mixes all positions.

    An op without a rule is shown with "?" and named below the table. A window that leaves rows or columns of its
    input unread, because the stride does not fit or steps over them, is listed.

    Args:
        model: the network; it runs on its own device and in its own dtype.
        shape: of one input without the batch, such as (3, 224, 224).

    Raises:
        ValueError: sizes below 1; NetworkEndsError, a ValueError that names the layer, if the network can't take it.
        TypeError: not a Module, or sizes that are not integers.
    """
    if not isinstance(model, Module):
        raise TypeError(f"summary: model must be a gpucnn.nn.Module, got {type(model).__name__}")
    sizes = tuple(whole(size, "summary: shape") for size in shape)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"summary: shape is that of one input, such as (3, 224, 224), all at least 1; got {shape!r}")
    with _untouched(model), enable_grad():
        model.eval()
        # A result of an op that requires gradients: so that `x += y` makes an array, as it does in training.
        inference = Trace(model, _zeros(model, (1, *sizes)).requires_grad_().clone())
        if not any(module.evaluates_only for module in model.modules()):
            model.train()
        training = Trace(model, _zeros(model, (_BATCH, *sizes)))
    parameters = dict(model.named_parameters())
    peak_memory, peak_layer = peak(inference)
    return Summary(
        model=type(model).__name__,
        input=sizes,
        dtype=str(inference.image.dtype),
        layers=_layers(inference, training, {name: p.numel() for name, p in parameters.items()}),
        parameters=sum(p.numel() for p in parameters.values()),
        trained_parameters=sum(p.numel() for p in parameters.values() if p.requires_grad),
        parameter_bytes=sum(int(p.data.nbytes) for p in parameters.values()),
        peak_memory=peak_memory,
        peak_layer=f"{peak_layer.path} ({peak_layer.kind})" if peak_layer.path else peak_layer.kind,
        classes={name: type(module).__name__ for name, module in model.named_modules()},
    )


def _zeros(model: Module, shape: tuple[int, ...]) -> Tensor:
    """An input in the dtype and on the device of the model's parameters."""
    like = next((p for p in model.parameters() if p.dtype.kind in backend.FLOAT_KINDS), None)
    if like is None:
        return creation.zeros(*shape)
    return creation.zeros(*shape, dtype=like.dtype, device=like.device)


@contextlib.contextmanager
def _untouched(model: Module) -> Iterator[None]:
    """Runs on copies of the buffers, and puts back buffers, training flags and the random stream at the end."""
    flags = [(module, module.training) for module in model.modules()]
    registered = [(module, dict(module._buffers)) for module in model.modules()]
    buffers = [(buffer, buffer.data) for buffer in model.buffers()]
    stream = random.state()
    try:
        for buffer, data in buffers:
            buffer.data = data.copy()
        yield
    finally:
        random.set_state(stream)
        for buffer, data in buffers:
            buffer.data = data
        for module, names in registered:
            module._buffers = names
        for module, flag in flags:
            module.training = flag


def _layers(inference: Trace, training: Trace, sizes: dict[str, int]) -> tuple[Layer, ...]:
    """The layers of inference, with those that only training runs between them, where it runs them."""
    memory: Counter[int] = Counter()
    for result in inference.memories:
        if result.is_result:
            memory[id(result.maker)] += result.bytes
    held: Counter[int] = Counter()
    for kept in training.memories:
        if kept.is_kept:
            held[id(kept.maker)] += kept.bytes
    trained = _by_place(training.layers)
    order = list(_by_place(inference.layers).items())
    place = 0
    for key, layer in trained.items():
        at = next((number for number, (other, _) in enumerate(order[place:], place) if other == key), None)
        if at is None:
            order.insert(place, (key, layer))
        place = (place if at is None else at) + 1
    used = {name for layer in inference.layers for name in layer.parameters}
    entries = []
    for key, layer in order:
        twin, is_new = trained.get(key), trained.get(key) is layer
        names = [name for name in layer.parameters if not (is_new and name in used)]
        entries.append(
            Layer(
                path=layer.path,
                kind=layer.kind,
                outputs=tuple(value.shape[1:] for value in layer.outputs),
                parameters=sum(sizes[name] for name in names),
                macs=0 if is_new else layer.macs,
                memory=memory[id(layer)],
                training_memory=math.ceil(held[id(twin)] / _BATCH),
                field=layer.outputs[-1].field if layer.outputs else None,
                unread=tuple(layer.unread),
                unknown=tuple(layer.unknown),
                only_in_training=is_new,
            )
        )
    return tuple(entries)


def _by_place(layers: Sequence[Traced]) -> dict[tuple[str, str, int], Traced]:
    """Layers by path, kind and how many of these came before: what tells one in both passes."""
    seen: Counter[tuple[str, str]] = Counter()
    places = {}
    for layer in layers:
        places[layer.path, layer.kind, seen[layer.path, layer.kind]] = layer
        seen[layer.path, layer.kind] += 1
    return places


def _together(path: str, kind: str, layers: Sequence[Layer]) -> Layer:
    return replace(
        layers[-1],
        path=path,
        kind=kind,
        parameters=sum(layer.parameters for layer in layers),
        macs=sum(layer.macs for layer in layers),
        memory=sum(layer.memory for layer in layers),
        training_memory=sum(layer.training_memory for layer in layers),
        unread=tuple(words for layer in layers for words in layer.unread),
        unknown=tuple(op for layer in layers for op in layer.unknown),
        only_in_training=all(layer.only_in_training for layer in layers),
    )


def _as_dict(layer: Layer) -> dict[str, Any]:
    field = None
    if layer.field is not None:
        field = [
            {"size": extent.pixels, "jump": float(extent.jump), "offset": float(extent.offset)}
            if isinstance(extent, Reach)
            else in_a_word(extent)
            for extent in layer.field
        ]
    return {
        "path": layer.path,
        "kind": layer.kind,
        "outputs": [list(shape) for shape in layer.outputs],
        "parameters": layer.parameters,
        "macs": layer.macs,
        "memory_bytes": layer.memory,
        "training_memory_bytes": layer.training_memory,
        "receptive_field": field,
        "unread": list(layer.unread),
        "ops_without_rule": list(layer.unknown),
        "only_in_training": layer.only_in_training,
    }
