"""The books as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from gpucnn.books.fields import Extent, Field, Reach

if TYPE_CHECKING:
    from gpucnn.books.accounts import Layer, Summary

_UNKNOWN = "?"

_HEADINGS = (
    *("layer", "kind", "output", "parameters", "%", "MACs", "%", "memory", "training", "%"),
    *("field", "jump", "offset"),
)
_RIGHT = ("left",) * 3 + ("right",) * 10


def text(summary: Summary, layers: Sequence[Layer]) -> str:
    """The table of `layers`, with totals, shares by kind of layer, and what there is to say of the network."""
    from tabulate import tabulate

    rows = [_row(layer, summary) for layer in layers]
    rows.append(["total", "", "", *_amounts(summary.total, summary), "", "", ""])
    kinds = [
        [kind, *_amounts(layer, summary)]
        for kind, layer in summary.by_kind().items()
        if layer.parameters or layer.memory
    ]
    look: dict[str, Any] = {"tablefmt": "simple", "disable_numparse": True}
    head = f"{summary.model} on {_shape(summary.input)}, {summary.dtype}; operations and activations of one image"
    return "\n".join(
        [
            head,
            "",
            tabulate(rows, _HEADINGS, colalign=_RIGHT, **look),
            "",
            tabulate(kinds, ("kind", *_HEADINGS[3:10]), colalign=("left", *_RIGHT[3:10]), **look),
            "",
            *_remarks(summary),
        ]
    )


def _row(layer: Layer, summary: Summary) -> list[str]:
    name = layer.path or ("(input)" if layer.kind == "input" else "")
    kind = "" if layer.kind == "input" else layer.kind
    shapes = " ".join(_shape(shape) for shape in layer.outputs)
    return [name, kind, shapes, *_amounts(layer, summary), *_field(layer.field)]


def _amounts(layer: Layer, summary: Summary) -> list[str]:
    macs, memory, training = si(layer.macs), size(layer.memory), size(layer.training_memory)
    if layer.unknown:
        macs = f"{macs} + {_UNKNOWN}" if layer.macs else _UNKNOWN
    if layer.only_in_training:
        macs = memory = "-"
    return [
        f"{layer.parameters:,}" if layer.parameters else "",
        _share(layer.parameters, summary.parameters),
        macs,
        _share(layer.macs, summary.macs),
        memory,
        training,
        _share(layer.training_memory, summary.training_memory),
    ]


def _remarks(summary: Summary) -> list[str]:
    trained = summary.trained_parameters
    which = "all trained" if trained == summary.parameters else f"{trained:,} of them trained"
    lines = [
        f"parameters: {summary.parameters:,} ({size(summary.parameter_bytes)}), {which}",
        f"multiply-accumulates: {si(summary.macs)}, of convolutions and matrix products",
        f"inference holds at once: {size(summary.peak_memory)}, at {summary.peak_layer}",
        f"training holds until backward: {size(summary.training_memory)} an image",
    ]
    if summary.unused_parameters:
        lines.append(f"not used by this input: {summary.unused_parameters:,} parameters")
    for layer in summary.layers:
        if layer.unread:
            lines.append(f"unused pixels: {layer.name} never reads {' and '.join(layer.unread)} of its input")
        lines += [f"not counted: {layer.name} runs {op}, an op without a rule" for op in layer.unknown]
    return lines


def si(number: int) -> str:
    """12,400,000 as '12.40 M'; '' for 0."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.2f} {prefix}"
    return str(number or "")


def size(count: int) -> str:
    """Bytes: 602,112 as '588.0 KiB'; '' for 0."""
    for power, prefix in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 2**power:
            return f"{count / 2**power:.1f} {prefix}"
    return f"{count} B" if count else ""


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if part else ""


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _field(field: Field | None) -> tuple[str, str, str]:
    """Size, jump and offset, one number where both directions agree."""
    if not field:
        return "", "", ""
    sizes, jumps, offsets = zip(*map(_extent, field), strict=True)
    return _joined(sizes), _joined(jumps), _joined(offsets)


def _extent(extent: Extent) -> tuple[str, str, str]:
    if not isinstance(extent, Reach):
        return in_a_word(extent), "", ""
    return str(extent.pixels), _number(extent.jump), _number(extent.offset)


def in_a_word(extent: Extent) -> str:
    """'all' or '?', for an extent that has no numbers."""
    return extent if isinstance(extent, str) else _UNKNOWN


def _joined(texts: tuple[str, ...]) -> str:
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)


def _number(value: Fraction) -> str:
    return f"{float(value):.4g}"
