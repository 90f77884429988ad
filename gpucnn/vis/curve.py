"""The training curve: loss, error and learning rate over the epochs of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.vis import labels, metrics, style
from gpucnn.vis.files import check_target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT, _RIGHT = 84, 150  # margins in pixels; the right one holds the name and the last value of each line
_PANEL_WIDTH = style.WIDTH - _LEFT - _RIGHT
_GAP, _FOOT = 50, 58
_LOG_FROM = 20.0  # a linear axis hides the end of a run whose values span more than this factor
_MARKERS_UP_TO = 30  # epochs; more markers than this blur the line


@dataclass(frozen=True)
class _Line:
    name: str
    epochs: NDArray[np.int64]  # those that recorded a value
    values: NDArray[np.float64]  # NaN or infinite where training diverged
    color: str
    unit: str = ""
    dashed: bool = False
    markers: bool = True
    width: float = 2.25

    @property
    def finite(self) -> NDArray[np.float64]:
        return self.values[np.isfinite(self.values)]

    def last(self) -> str:
        if self.finite.size == 0:
            return f"{self.name} not finite".lstrip()
        return f"{self.name} {self.finite[-1]:{'.2f' if self.unit else '.3g'}}{self.unit}".lstrip()


@dataclass(frozen=True)
class _Panel:
    heading: str
    lines: list[_Line]
    height: int
    may_be_log: bool


def training_curve(rows: metrics.Rows, path: str | os.PathLike[str]) -> Path:
    """Draws loss, error in percent and learning rate against the epoch, the best test epoch marked, as PNG.

    A panel whose values span more than a factor of 20 gets a logarithmic axis; there, zeros leave through the bottom. A
    value that is NaN or infinite leaves a gap and a cross on the bottom line; an epoch without a value is passed over.

    Args:
        rows: one mapping an epoch, in order: ``epoch`` (int, required), and any of ``train_loss``, ``test_loss``,
            ``train_accuracy``, ``test_accuracy`` (0..1), ``learning_rate``. Other keys are ignored.
        path: the file to write, ending in ``.png``; replaced atomically.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: no rows, nothing to draw in them, epochs that do not increase, or an accuracy outside 0..1.
        TypeError: a row that is not a mapping, or a value that is not a number.
        FileNotFoundError: the folder of ``path`` does not exist.
        MatplotlibMissingError: matplotlib is not installed.
    """
    target = check_target(path)
    if len(rows) == 0:
        raise ValueError("rows: is empty; the curve needs at least one epoch")
    metrics.check_rows(rows)
    panels = _panels(rows)
    if not panels:
        raise ValueError(
            "rows: no row has train_loss, test_loss, train_accuracy, test_accuracy or learning_rate, "
            f"the first has only {sorted(map(str, rows[0]))}"
        )
    epochs, best = metrics.epochs(rows), metrics.best_row(rows)
    bottom = style.HEADER - 12 + sum(panel.height for panel in panels) + _GAP * len(panels)
    figure = style.new_figure(style.WIDTH, bottom + _FOOT)
    style.write_header(figure, *_title(rows, best))
    top = style.HEADER - 12
    for panel in panels:
        top += _GAP
        _draw(figure, panel, top, epochs, best, is_last=panel is panels[-1])
        top += panel.height
    style.write(figure, "epoch", _LEFT + _PANEL_WIDTH / 2, bottom + 46, style.NOTE, across="center")
    return style.save(figure, target)


def _panels(rows: metrics.Rows) -> list[_Panel]:
    epochs = metrics.epochs(rows)

    def line(name: str, key: str, values: NDArray[np.float64] | None, **look: Any) -> list[_Line]:
        if values is None:
            return []
        recorded = np.array([row.get(key) is not None for row in rows])
        return [_Line(name, epochs[recorded], values[recorded], **look)]

    def pair(key: str, unit: str, read: Callable[[str], NDArray[np.float64] | None]) -> list[_Line]:
        train = line("train", f"train_{key}", read("train"), color=style.ORANGE, unit=unit, dashed=True)
        return train + line("test", f"test_{key}", read("test"), color=style.BLUE, unit=unit)

    rate, look = metrics.column(rows, "learning_rate"), {"color": style.MUTED, "markers": False, "width": 1.25}
    panels = [
        _Panel("loss", pair("loss", "", lambda split: metrics.column(rows, f"{split}_loss")), 250, True),
        _Panel("error, %", pair("accuracy", " %", lambda split: metrics.errors_in_percent(rows, split)), 250, True),
        _Panel("learning rate", line("", "learning_rate", rate, **look), 84, False),
    ]
    return [panel for panel in panels if panel.lines]


def _title(rows: metrics.Rows, best: int | None) -> tuple[str, str]:
    last = "at the right: last values"
    count = f"Training: {len(rows)} {'epoch' if len(rows) == 1 else 'epochs'}"
    if best is None:
        return count, last
    epoch, errors = rows[best]["epoch"], metrics.errors_in_percent(rows, "test")
    if errors is not None and np.isfinite(errors[best]):
        return count, f"best test error {errors[best]:.2f} %, epoch {epoch} (ring)  ·  {last}"
    return count, f"best test loss {rows[best]['test_loss']:.3g}, epoch {epoch} (ring)  ·  {last}"


def _draw(
    figure: Figure, panel: _Panel, top: int, epochs: NDArray[np.int64], best: int | None, *, is_last: bool
) -> None:
    axes = style.add_panel(figure, _LEFT, top, _PANEL_WIDTH, panel.height, grid="y")
    _set_scale(axes, panel)
    _set_epochs(axes, epochs, is_last)
    if best is not None:
        axes.axvline(
            float(epochs[best]), color=style.MUTED, linewidth=style.points(1), linestyle=(0, (2, 3)), zorder=1,
            dash_capstyle="butt",
        )  # fmt: skip
    for line in panel.lines:
        _draw_line(axes, line, many=len(epochs) > _MARKERS_UP_TO)
        if line.name == "test" and best is not None:
            _draw_ring(axes, line, int(epochs[best]))
    style.write(figure, panel.heading, style.MARGIN, top - 16, style.STRONG)
    if any(len(line.finite) < len(line.values) for line in panel.lines):
        x = style.MARGIN + style.text_width(figure, panel.heading, style.STRONG) + 14
        style.write(figure, f"{labels.TIMES} not finite", x, top - 16, style.NOTE)
    _write_ends(figure, axes, panel, top)


def _draw_line(axes: Axes, line: _Line, *, many: bool) -> None:
    finite = np.isfinite(line.values)
    alone = finite & ~np.append(finite[1:], False) & ~np.append(False, finite[:-1])  # a line would not show these
    marked = finite if line.markers and not many else alone
    axes.plot(
        line.epochs, line.values, color=line.color, linewidth=style.points(line.width), zorder=3, antialiased=True,
        linestyle=(0, (4, 1.5)) if line.dashed else "-", dash_capstyle="butt", solid_capstyle="round",
        solid_joinstyle="round", dash_joinstyle="round", marker="o", markersize=style.points(7), fillstyle="full",
        markerfacecolor=line.color, markeredgecolor=style.PAPER, markeredgewidth=style.points(1),
        markevery=[int(index) for index in np.flatnonzero(marked)], clip_on=True,
    )  # fmt: skip
    diverged = line.epochs[~finite]
    axes.plot(
        diverged, np.zeros(len(diverged)), transform=axes.get_xaxis_transform(), linestyle="none", marker="x",
        markersize=style.points(9), markeredgecolor=line.color, markeredgewidth=style.points(2), fillstyle="full",
        clip_on=False, zorder=6, antialiased=True,
    )  # fmt: skip


def _draw_ring(axes: Axes, line: _Line, epoch: int) -> None:
    at = line.epochs == epoch
    values = np.clip(line.values[at], *axes.get_ylim())  # a zero on a logarithmic axis: on the bottom line
    axes.plot(
        line.epochs[at], values, linestyle="none", marker="o", markersize=style.points(13), fillstyle="full",
        markerfacecolor="none", markeredgecolor=line.color, markeredgewidth=style.points(2), clip_on=False, zorder=5,
        antialiased=True,
    )  # fmt: skip


def _set_scale(axes: Axes, panel: _Panel) -> None:
    """Limits and ticks of the vertical axis."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    values = np.concatenate([line.finite for line in panel.lines])
    positive = values[values > 0]
    low, high = (np.log10(positive.min()), np.log10(positive.max())) if positive.size else (0.0, 0.0)
    if panel.may_be_log and values.min(initial=0.0) >= 0 and high - low > np.log10(_LOG_FROM):
        pad = 0.06 * (high - low)
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(10 ** (low - pad), 10 ** (high + pad))
        axes.yaxis.set_major_locator(FixedLocator(style.log_ticks(low - pad, high + pad)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        low = min(0.0, float(values.min())) if values.size else 0.0
        high = float(values.max()) if values.size and values.max() > low else low + 1.0
        axes.set_ylim(low, high + 0.06 * (high - low))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5 if panel.height > 100 else 2, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _set_epochs(axes: Axes, epochs: NDArray[np.int64], is_last: bool) -> None:
    """Limits and ticks of the horizontal axis."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    first, last = int(epochs[0]), int(epochs[-1])
    pad = 0.015 * (last - first) if last > first else 0.5
    axes.set_xlim(first - pad, last + pad)
    axes.xaxis.set_major_locator(FixedLocator(_epoch_ticks(first, last)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.tick_params(axis="x", labelbottom=is_last)


def _epoch_ticks(first: int, last: int) -> list[float]:
    """Multiples of 1, 2, 5, 10, 20, ... epochs, and the first epoch where there is room for its number."""
    step = next(d * 10**e for e in range(20) for d in (1, 2, 5) if (last - first) <= 14 * d * 10**e)
    ticks = list(range(-(-first // step) * step, last + 1, step))
    if not ticks or (ticks[0] - first) * 20 > last - first:
        ticks.insert(0, first)
    return [float(tick) for tick in ticks]


def _write_ends(figure: Figure, axes: Axes, panel: _Panel, top: int) -> None:
    """Names the lines and gives their last values at the right edge, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"
    heights = []
    for line in panel.lines:
        value = float(np.clip(line.finite[-1], low, high)) if line.finite.size else low
        share = np.log(value / low) / np.log(high / low) if log else (value - low) / (high - low)
        heights.append(top + panel.height * (1 - float(share)))
    if len(heights) == 2 and abs(heights[0] - heights[1]) < 20:
        upper = 0 if heights[0] < heights[1] else 1
        middle = sum(heights) / 2
        heights[upper], heights[1 - upper] = middle - 10, middle + 10
    for line, height in zip(panel.lines, heights, strict=True):
        kind = replace(style.STRONG, color=line.color, bold=bool(line.name))
        style.write(figure, line.last(), style.WIDTH - _RIGHT + 14, height, kind, down="center_baseline")
