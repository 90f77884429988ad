"""The depth chart: where a network's operations, parameters and activations sit, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from gpucnn.vis import style
from gpucnn.vis.files import check_target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT, _RIGHT = 74, style.MARGIN  # margins in pixels
_PANEL_WIDTH = style.WIDTH - _LEFT - _RIGHT
_PANEL_HEIGHT, _GAP = 150, 52
_NAMED_FROM = 17  # pixels a layer: from this width on, each has its name below the chart
_NAME_LENGTH = 178  # pixels, the margin below included
_PALE = "#b9c3cd"

_GROUPS = (("convolution", style.BLUE), ("fully connected", style.ORANGE), ("other", style.MUTED))


class LayerBooks(Protocol):
    """What the chart asks of a layer; `gpucnn.summary(...).layers` have it."""

    @property
    def path(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def macs(self) -> int: ...
    @property
    def parameters(self) -> int: ...
    @property
    def memory(self) -> int: ...
    @property
    def training_memory(self) -> int: ...


def depth_chart(layers: Sequence[LayerBooks], path: str | os.PathLike[str], title: str, line: str = "") -> Path:
    """Draws multiply-accumulates, parameters and activation memory as bars, a layer each, from input to output, as PNG.

    Memory has two bars: what training holds until backward, and, paler behind it, the results of inference. Below the
    chart stand the layers' names or, where there are too many, those of the modules that they are part of.

    Args:
        layers: in the order in which they run.
        path: the file to write, ending in ``.png``; replaced atomically.
        title: the heading.
        line: one quieter line below it.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: no layers, a name that does not end in ``.png``, or a negative amount.
        FileNotFoundError: the folder of ``path`` does not exist.
        MatplotlibMissingError: matplotlib is not installed.
    """
    target = check_target(path)
    if len(layers) == 0:
        raise ValueError("layers: is empty; the chart needs at least one layer")
    columns = {
        name: np.array([getattr(layer, name) for layer in layers], np.float64)
        for name in ("macs", "parameters", "memory", "training_memory")
    }
    for name, values in columns.items():
        if not (values >= 0).all():
            raise ValueError(f"layers: {name} must not be negative, got {values.min():g}")
    top = style.HEADER + 22
    bottom = top + 3 * (_GAP + _PANEL_HEIGHT)
    named = len(layers) * _NAMED_FROM <= _PANEL_WIDTH
    figure = style.new_figure(style.WIDTH, bottom + (_NAME_LENGTH if named else 84))
    style.write_header(figure, title, line)
    _write_legend(figure, style.HEADER + 8)
    colors = [_GROUPS[_group(layer.kind)][1] for layer in layers]
    names = [layer.path or layer.kind for layer in layers]
    panels = (
        ("multiply-accumulates", 1000, columns["macs"], None),
        ("parameters", 1000, columns["parameters"], None),
        ("activations held until backward (pale: results of inference)", 1024, columns["training_memory"],
         columns["memory"]),
    )  # fmt: skip
    for heading, base, values, behind in panels:
        top += _GAP
        unit, name = _unit(max(values.max(), 0 if behind is None else behind.max()), base)
        axes = style.add_panel(figure, _LEFT, top, _PANEL_WIDTH, _PANEL_HEIGHT, grid="y")
        _draw_bars(axes, values / unit, None if behind is None else behind / unit, colors)
        _write_heading(figure, heading + (f", {name}" if name else ""), values, names, top)
        top += _PANEL_HEIGHT
    if named:
        _write_names(figure, layers, bottom)
    else:
        _write_stages(figure, [layer.path.split(".") for layer in layers], bottom)
    return style.save(figure, target)


def _group(kind: str) -> int:
    return 0 if kind.startswith("Conv") else 1 if kind == "Linear" else 2


def _unit(largest: float, base: int) -> tuple[float, str]:
    """The largest unit that `largest` reaches: multiples of 1000, or of 1024 bytes."""
    names = (
        ("", "thousands", "millions", "billions", "trillions") if base == 1000 else ("B", "KiB", "MiB", "GiB", "TiB")
    )
    power = next((p for p in range(4, 0, -1) if largest >= base**p), 0)
    return float(base**power), names[power]


def _draw_bars(
    axes: Axes, values: NDArray[np.float64], behind: NDArray[np.float64] | None, colors: Sequence[str]
) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    count = len(values)
    # Bars of a few pixels touch: a gap would take a good part of each, and not the same part.
    width = 0.8 if _PANEL_WIDTH / count >= 6 else 1.0
    sides = np.arange(count)[:, None] + np.array([-0.5, -0.5, 0.5, 0.5]) * width
    for heights, color, order in ((behind, _PALE, 2), (values, colors, 3)):
        if heights is not None:  # one collection: a patch a bar takes seconds for hundreds of layers
            corners = np.stack([sides, heights[:, None] * np.array([0, 1, 1, 0])], axis=2)
            axes.add_collection(
                PolyCollection(list(corners), facecolors=color, linewidths=0, zorder=order, antialiaseds=width < 1),
                autolim=False,
            )
    highest = max(float(values.max()), 0.0 if behind is None else float(behind.max()))
    axes.set_xlim(-0.6, count - 0.4)
    axes.set_ylim(0, 1.06 * highest or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(NullLocator())


def _write_heading(figure: Figure, heading: str, values: NDArray[np.float64], names: Sequence[str], top: int) -> None:
    style.write(figure, heading, style.MARGIN, top - 16, style.STRONG)
    if values.sum() > 0:
        most = int(values.argmax())
        text = f"most: {names[most]}, {100 * values[most] / values.sum():.0f} %"
        room = _PANEL_WIDTH + _LEFT - style.MARGIN - 20 - style.text_width(figure, heading, style.STRONG)
        style.write(
            figure, style.fit(figure, text, room, style.NOTE), _LEFT + _PANEL_WIDTH, top - 16, style.NOTE,
            across="right",
        )  # fmt: skip


def _write_legend(figure: Figure, y: float) -> None:
    x = float(style.MARGIN)
    for name, color in _GROUPS:
        kind = replace(style.LABEL, color=color, bold=True)
        style.write(figure, "\N{BLACK SQUARE} " + name, x, y, kind)
        x += style.text_width(figure, "\N{BLACK SQUARE} " + name, kind) + 22


def _at(index: float, count: int) -> float:
    """The pixel column of position ``index`` on the axis of ``count`` layers."""
    return _LEFT + _PANEL_WIDTH * (index + 0.6) / (count + 0.2)


def _write_names(figure: Figure, layers: Sequence[LayerBooks], bottom: int) -> None:
    """Each layer's name, upwards."""
    for index, layer in enumerate(layers):
        name = f"{layer.path} {layer.kind}" if layer.path else layer.kind
        text = style.fit(figure, name, _NAME_LENGTH - style.MARGIN, style.NOTE)
        style.write(
            figure, text, _at(index, len(layers)), bottom + 8, style.NOTE, across="center", down="top", rotation=90
        )  # fmt: skip


def _write_stages(figure: Figure, paths: Sequence[Sequence[str]], bottom: int) -> None:
    """Brackets below the layers of one module, for two levels of modules, and those names that find room.

    A name of the inner level stays below its bracket; one of the outer level may be longer where nothing is beside it.
    """
    for level in range(2):
        y, taken = bottom + 14 + 30 * (1 - level), list[tuple[float, float]]()
        for first, last, name in sorted(_runs(paths, level), key=lambda run: run[0] - run[1]):
            left, right = _at(first - 0.5, len(paths)), _at(last + 0.5, len(paths))
            text = style.fit(figure, name, max(right - left, _NAME_LENGTH), style.NOTE)
            width = style.text_width(figure, text, style.NOTE)
            begin = min(max((left + right - width) / 2, _LEFT), style.WIDTH - _RIGHT - width)
            beside = all(begin + width < other - 4 or end + 4 < begin for other, end in taken)
            fits = beside and (level == 0 or width <= right - left)
            if fits:
                style.write(figure, text, begin, y + 5, style.NOTE, down="top")
                taken.append((begin, begin + width))
            if last > first and (fits or level == 0):
                _rule(figure, left + 1, right - 1, y)


def _runs(paths: Sequence[Sequence[str]], level: int) -> list[tuple[int, int, str]]:
    """(first, last, name) of the layers in a row that share their first ``level`` + 1 names."""
    runs = []
    for names, members in groupby(range(len(paths)), lambda index: tuple(paths[index][: level + 1])):
        indices = list(members)
        if len(names) > level and names[level]:
            runs.append((indices[0], indices[-1], names[level]))
    return runs


def _rule(figure: Figure, left: float, right: float, y: float) -> None:
    from matplotlib.lines import Line2D

    width, height = style.size(figure)
    figure.add_artist(
        Line2D(
            [left / width, right / width], [1 - y / height] * 2, color=style.MUTED, linewidth=style.points(1),
            solid_capstyle="butt", antialiased=False,
        )
    )  # fmt: skip
