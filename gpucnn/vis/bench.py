"""Pictures of a benchmark: how near each case comes to what the machine can do, and how many times as fast as others.

The roofline is that of S. Williams, A. Waterman and D. Patterson, "Roofline: an insightful visual performance model for
multicore architectures", Communications of the ACM 52, 2009.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpucnn.vis import labels, style
from gpucnn.vis.files import check_target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (style.BLUE, style.ORANGE, "#2f8f6b", "#8a5a9e", "#58a6d6", style.MUTED)
"""Of contestants and baselines, in order; those beyond them have a marker of their own."""
_MARKERS = "osD^vP"
_SIGNS = dict(zip(_MARKERS, "●■◆▲▼✚", strict=True))
"""As they are written in the legend."""

_LEFT, _HEIGHT = 92, 460
_WIDTH = style.WIDTH - _LEFT - style.MARGIN - 6
_ENTRY = 20  # pixels, a line of the list of cases
_LEGEND_LINE, _LEGEND_COLUMNS = 22, 4
_MARKER = 9
_BESIDE = ((1, 0), (0, -1), (0, 1), (-1, 0), (1, -1), (1, 1), (-1, -1), (-1, 1))
"""Where the number of a case may stand, seen from its point."""

_BAR, _GAP, _NAMES, _LEAST = 14, 14, 330, 30


class Point(NamedTuple):
    """A case, operations a byte, operations a second, and whose it is."""

    label: str
    intensity: float
    rate: float
    kind: str


class Ceilings(NamedTuple):
    """What the machine reaches: bytes a second, and operations a second by dtype."""

    bandwidth: float
    rates: Mapping[str, float]


class Bar(NamedTuple):
    """A case, and how many times as fast as each baseline it is; None where that was not measured."""

    label: str
    ratios: Mapping[str, float | None]


def roofline(
    points: Sequence[Point], ceilings: Ceilings, path: str | os.PathLike[str], title: str, line: str = ""
) -> Path:
    """Draws cases below the roof of a machine, both axes logarithmic, as PNG.

    A case has a number beside its fastest point and its name below the picture. Points without operations, or that took
    no measurable time, are on no logarithmic axis: they are left out, which the picture says.

    Args:
        points: of each case one for each contestant.
        ceilings: of the machine that they were measured on.
        path: the file to write, ending in ``.png``; replaced atomically.
        title: the heading.
        line: one quieter line below it.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: no point with operations, an amount that is not finite, ceilings that are not positive, or a name
            that does not end in ``.png``.
        FileNotFoundError: the folder of ``path`` does not exist.
        MatplotlibMissingError: matplotlib is not installed.
    """
    target = check_target(path)
    ceilings = Ceilings(*ceilings)
    every = [Point(*point) for point in points]
    for point in every:
        if not (math.isfinite(point.intensity) and math.isfinite(point.rate)):
            raise ValueError(f"points: {point.label}: {point.intensity:g} a byte and {point.rate:g} a second")
    if not ceilings.rates or not all(0 < rate < math.inf for rate in (ceilings.bandwidth, *ceilings.rates.values())):
        raise ValueError(f"ceilings: must be positive, got {ceilings.bandwidth:g} and {dict(ceilings.rates)}")
    shown = [point for point in every if point.intensity > 0 and point.rate > 0]
    if not shown:
        raise ValueError("points: none of them has operations; a roofline needs one that has")
    names = list(dict.fromkeys(point.label for point in shown))
    kinds = list(dict.fromkeys(point.kind for point in shown))
    top = style.HEADER + 40 + _LEGEND_LINE * math.ceil(len(kinds) / _LEGEND_COLUMNS)
    columns = 1 if len(names) <= 6 else 2
    listed = math.ceil(len(names) / columns) * _ENTRY
    foot = top + _HEIGHT + 84
    left_out = len(every) - len(shown)
    figure = style.new_figure(style.WIDTH, foot + listed + (_ENTRY + 6 if left_out else 0) + 6)
    style.write_header(figure, title, line)
    _write_legend(figure, kinds)
    place = _Logarithmic.around(shown, ceilings, top)
    axes = _log_axes(figure, place)
    taken = _draw_ceilings(figure, axes, place, ceilings)
    _draw_points(figure, axes, place, shown, kinds, names, taken)
    style.write(figure, "floating-point operations a second", style.MARGIN, top - 16, style.NOTE)
    style.write(figure, "operations a byte", _LEFT + _WIDTH, top + _HEIGHT + 44, style.NOTE, across="right")
    width = (style.WIDTH - 2 * style.MARGIN) // columns
    for index, name in enumerate(names):
        column, row = divmod(index, math.ceil(len(names) / columns))
        x, y = style.MARGIN + column * width, foot + row * _ENTRY
        style.write(figure, str(index + 1), x + 24, y, replace(style.LABEL, bold=True), across="right")
        style.write(figure, style.fit(figure, name, width - 50, style.LABEL), x + 34, y, style.LABEL)
    if left_out:
        text = f"not in it: {left_out} of {len(every)} points, which have no operations"
        style.write(figure, text, style.MARGIN, foot + listed + 6, style.NOTE)
    return style.save(figure, target)


class _Logarithmic(NamedTuple):
    """The panel's limits as powers of ten, the pixel where it begins, and where amounts lie in it."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float
    top: int

    @staticmethod
    def around(points: Sequence[Point], ceilings: Ceilings, top: int) -> _Logarithmic:
        """All points, the bend of every ceiling, and room beside them."""
        bends = [rate / ceilings.bandwidth for rate in ceilings.rates.values()]
        low_x = min([point.intensity / 2 for point in points] + [min(bends) / 20])
        high_x = max([point.intensity * 2 for point in points] + [max(bends) * 8])
        low_y = min(min(point.rate for point in points) / 2, ceilings.bandwidth * low_x)
        high_y = 1.8 * max(max(point.rate for point in points), *ceilings.rates.values())
        return _Logarithmic(math.log10(low_x), math.log10(high_x), math.log10(low_y), math.log10(high_y), top)

    def pixel(self, intensity: float, rate: float) -> tuple[float, float]:
        """From the top left corner of the picture."""
        x = (math.log10(intensity) - self.low_x) / (self.high_x - self.low_x)
        y = (self.high_y - math.log10(rate)) / (self.high_y - self.low_y)
        return _LEFT + _WIDTH * x, self.top + _HEIGHT * y


class _Boxes:
    """Rectangles that are taken: x, y of the middle, half the width and height."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._taken: list[tuple[float, float, float, float]] = []

    def add(self, x: float, y: float, width: float, height: float) -> None:
        self._taken.append((x, y, width / 2, height / 2))

    def overlap(self, x: float, y: float, width: float, height: float) -> float:
        """Pixels of a rectangle that are taken, or outside the panel."""
        lost = 0.0
        for other_x, other_y, half_width, half_height in self._taken:
            across = half_width + width / 2 - abs(x - other_x)
            down = half_height + height / 2 - abs(y - other_y)
            lost += max(across, 0.0) * max(down, 0.0)
        beyond = max(_LEFT - x + width / 2, x + width / 2 - _LEFT - _WIDTH)
        outside = max(self._top - y + height / 2, y + height / 2 - self._top - _HEIGHT)
        return lost + width * max(beyond, outside, 0)


def _log_axes(figure: Figure, place: _Logarithmic) -> Axes:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    axes = style.add_panel(figure, _LEFT, place.top, _WIDTH, _HEIGHT, grid="y")
    axes.set_xlim(place.low_x, place.high_x)
    axes.set_ylim(place.low_y, place.high_y)
    for axis, low, high in ((axes.xaxis, place.low_x, place.high_x), (axes.yaxis, place.low_y, place.high_y)):
        axis.set_major_locator(FixedLocator([math.log10(tick) for tick in style.log_ticks(low, high)]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: amount(10**value).rstrip()))
    return axes


def _draw_ceilings(figure: Figure, axes: Axes, place: _Logarithmic, ceilings: Ceilings) -> _Boxes:
    """The roof, with what each part of it is; and where these words stand."""
    taken = _Boxes(place.top)
    high = max(ceilings.rates.values())
    ends = (10**place.low_x, high / ceilings.bandwidth)
    _rule(axes, *((x, ceilings.bandwidth * x) for x in ends))
    (x0, y0), (x1, y1) = (place.pixel(x, ceilings.bandwidth * x) for x in ends)
    text = f"copies: {amount(ceilings.bandwidth)}B/s"
    angle = math.atan2(y0 - y1, x1 - x0)
    bend = place.pixel(min(ceilings.rates.values()) / ceilings.bandwidth, min(ceilings.rates.values()))
    length = style.text_width(figure, text, style.NOTE)
    x, y = (x0 + bend[0]) / 2 - 11 * math.sin(angle), (y0 + bend[1]) / 2 - 11 * math.cos(angle)
    style.write(figure, text, x, y, style.NOTE, across="center", down="center", rotation=math.degrees(angle))
    for share in np.linspace(-0.5, 0.5, 9):  # it lies aslant: small boxes follow it
        taken.add(x + share * length * math.cos(angle), y - share * length * math.sin(angle), 16, 16)
    words: list[tuple[float, str]] = []
    for name, rate in sorted(ceilings.rates.items(), key=lambda item: -item[1]):
        _rule(axes, (rate / ceilings.bandwidth, rate), (10**place.high_x, rate))
        y = place.pixel(1, rate)[1]
        text = f"{name} {amount(rate)}FLOP/s"
        if words and y - words[-1][0] < 18:
            words[-1] = words[-1][0], f"{words[-1][1]}, {text}"
        else:
            words.append((y, text))
    for y, text in words:
        length = style.text_width(figure, text, style.NOTE)
        style.write(figure, text, _LEFT + _WIDTH, y - 6, style.NOTE, across="right")
        taken.add(_LEFT + _WIDTH - length / 2, y - 11, length, 14)
    return taken


def _rule(axes: Axes, begin: tuple[float, float], end: tuple[float, float]) -> None:
    axes.plot(
        [math.log10(begin[0]), math.log10(end[0])], [math.log10(begin[1]), math.log10(end[1])], color=style.MUTED,
        linewidth=style.points(1.5), linestyle="-", marker="none", solid_capstyle="butt", zorder=2,
    )  # fmt: skip


def _draw_points(
    figure: Figure,
    axes: Axes,
    place: _Logarithmic,
    points: Sequence[Point],
    kinds: Sequence[str],
    names: Sequence[str],
    taken: _Boxes,
) -> None:
    for point in points:
        color, marker = _look(kinds.index(point.kind))
        axes.plot(
            [math.log10(point.intensity)], [math.log10(point.rate)], marker=marker, markersize=style.points(_MARKER),
            markerfacecolor=color, markeredgecolor=style.PAPER, markeredgewidth=style.points(1), linestyle="none",
            alpha=1.0, clip_on=False, zorder=3,
        )  # fmt: skip
        taken.add(*place.pixel(point.intensity, point.rate), _MARKER, _MARKER)
    bold = replace(style.NOTE, bold=True)
    for index, name in enumerate(names):
        fastest = max((point for point in points if point.label == name), key=lambda point: point.rate)
        x, y = place.pixel(fastest.intensity, fastest.rate)
        text = str(index + 1)
        width, height = style.text_width(figure, text, bold), 12
        spots = [
            (x + across * (width / 2 + far), y + down * (height / 2 + far - 2))
            for far in (7, 16)
            for across, down in _BESIDE
        ]
        best = min(spots, key=lambda spot: taken.overlap(spot[0], spot[1], width, height))
        taken.add(*best, width, height)
        style.write(figure, text, best[0], best[1] + 5, bold, across="center")


def _look(index: int) -> tuple[str, str]:
    """Colour and marker of a contestant."""
    return COLORS[index % len(COLORS)], _MARKERS[(index + index // len(COLORS)) % len(_MARKERS)]


def _write_legend(figure: Figure, kinds: Sequence[str]) -> None:
    width = (style.WIDTH - 2 * style.MARGIN) / min(len(kinds), _LEGEND_COLUMNS)
    x, y = float(style.MARGIN), float(style.HEADER + 12)
    for index, name in enumerate(kinds):
        if index and index % _LEGEND_COLUMNS == 0:
            x, y = style.MARGIN, y + _LEGEND_LINE
        color, marker = _look(index)
        kind = replace(style.LABEL, color=color, bold=True)
        text = style.fit(figure, f"{_SIGNS[marker]} {name}", width - 16, kind)
        style.write(figure, text, x, y, kind)
        x += width if len(kinds) > _LEGEND_COLUMNS else style.text_width(figure, text, kind) + 22


def speedup_bars(bars: Sequence[Bar], path: str | os.PathLike[str], title: str, line: str = "") -> Path:
    """Draws, for each case and baseline, a bar from 1 to how many times as fast it is, logarithmic, as PNG.

    To the right is faster, to the left slower, twice as much as far as half. Each baseline's geometric mean over its
    cases is beside its name.

    Args:
        bars: from top to bottom.
        path: the file to write, ending in ``.png``; replaced atomically.
        title: the heading.
        line: one quieter line below it.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: no bars, none with a ratio, a ratio that is not positive, or a name that does not end in ``.png``.
        FileNotFoundError: the folder of ``path`` does not exist.
        MatplotlibMissingError: matplotlib is not installed.
    """
    target = check_target(path)
    every = [Bar(*bar) for bar in bars]
    baselines = list(dict.fromkeys(name for bar in every for name in bar.ratios))
    for bar in every:
        for name, ratio in bar.ratios.items():
            if ratio is not None and not 0 < ratio < math.inf:
                raise ValueError(f"bars: {bar.label}: a ratio to {name} must be positive, got {ratio:g}")
    ratios = [ratio for bar in every for ratio in bar.ratios.values() if ratio is not None]
    if not ratios:
        raise ValueError("bars: there is no ratio; the chart needs at least one")
    group = max(_BAR * len(baselines) + _GAP, _LEAST)
    top, height = style.HEADER + 20 + _LEGEND_LINE * len(baselines), group * len(every)
    figure = style.new_figure(style.WIDTH, top + height + 78)
    style.write_header(figure, title, line)
    for index, name in enumerate(baselines):
        kind = replace(style.LABEL, color=COLORS[index % len(COLORS)], bold=True)
        measured = [ratio for bar in every if (ratio := bar.ratios.get(name)) is not None]
        mean = f"{_geometric_mean(measured):.2f}{labels.TIMES}" if measured else "not measured"
        mean += f", geometric mean of {len(measured)}" if len(measured) > 1 else ""
        text = style.fit(figure, f"■ {name}: {mean}", style.WIDTH - 2 * style.MARGIN, kind)
        style.write(figure, text, style.MARGIN, style.HEADER + 12 + _LEGEND_LINE * index, kind)
    left, width = _NAMES, style.WIDTH - _NAMES - style.MARGIN
    axes = style.add_panel(figure, left, top, width, height, grid="x")
    low, high = min(0.5, min(ratios)), max(2.0, max(ratios))
    room = (high / low) ** 0.09  # for the figures at the ends
    axes.set_xlim(math.log2(low / room), math.log2(high * room))
    axes.set_ylim(height, 0)
    for row, bar in enumerate(every):
        _draw_group(axes, bar, baselines, row * group + group / 2)
        text = style.fit(figure, bar.label, _NAMES - style.MARGIN - 16, style.LABEL)
        style.write(figure, text, _NAMES - 12, top + row * group + group / 2 + 5, style.LABEL, across="right")
    _set_ratios(axes, low / room, high * room)
    style.write(figure, "slower than the baseline", left, top + height + 52, style.NOTE)
    style.write(figure, "faster", left + width, top + height + 52, style.NOTE, across="right")
    return style.save(figure, target)


def _draw_group(axes: Axes, bar: Bar, baselines: Sequence[str], middle: float) -> None:
    for index, name in enumerate(baselines):
        ratio = bar.ratios.get(name)
        centre = middle + _BAR * (index + 0.5 - len(baselines) / 2)
        end = 0.0 if ratio is None else math.log2(ratio)
        axes.barh(centre, end, height=_BAR - 3, color=COLORS[index % len(COLORS)], linewidth=0, zorder=3)
        is_left = end < 0
        axes.annotate(
            labels.NONE if ratio is None else f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.3g}", (end, centre),
            xytext=(-4 if is_left else 4, 0), textcoords="offset points", va="center",
            ha="right" if is_left else "left", fontsize=style.points(12), color=style.INK, fontfamily=style.FONT,
            zorder=4,
        )  # fmt: skip


def _set_ratios(axes: Axes, low: float, high: float) -> None:
    """Ticks at powers of two or, where those would be too many, of ten; and a line at 1."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    ticks = [float(power) for power in powers]
    if len(ticks) > 9:
        ticks = [math.log2(10) * power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _times(2**value)))
    axes.set_yticks([])
    axes.axvline(0.0, color=style.INK, linewidth=style.points(1.5), linestyle="-", zorder=2)


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))


def _times(ratio: float) -> str:
    return f"{ratio:.3g}{labels.TIMES}"


def amount(value: float) -> str:
    """1234567 as "1.23 M", 3 as "3 ": a unit goes behind it."""
    power = min(max(math.floor(math.log10(value) / 3 + 1e-9), 0), 6)
    text = f"{value / 1000**power:.3g}"
    if text == "1e+03" and power < 6:
        text, power = "1", power + 1
    return f"{text} {('', *'kMGTPE')[power]}"
