"""The confusion matrix, coloured so that the few errors of a good network show beside its many hits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.vis import labels, style
from gpucnn.vis.files import check_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COUNTS_UP_TO = 30  # classes; beyond, numbers in the cells are too small to read
_MOST_CLASSES = 1000
_HITS = ["#eef4f9", "#86b6d9"]
_MISSES = ["#fff6ec", "#fdd3a2", "#f0924a", "#c04f00", "#6e2a00"]
_EMPTY = (247, 248, 250)
_LEAST_FULL_SCALE = 0.02  # so that one error in a thousand does not look like a catastrophe
_FAINT = "#c3cad1"
_NAME_WIDTH = 170  # pixels
_RECALL_PANEL, _RECALL_WIDTH = 120, 178  # pixels, without and with the numbers


def confusion_matrix(matrix: ArrayLike, classes: Sequence[str], path: str | os.PathLike[str]) -> Path:
    """Draws a confusion matrix with the recall of each class beside it, as PNG.

    A cell's colour is its share of its row: hits (the diagonal) in blue from 0 to 100 %, errors in orange on a
    square-root scale of their own that ends at the largest error share. Up to 30 classes the counts are written into
    the cells.

    Args:
        matrix: (K, K) integer counts, rows the true class, columns the predicted class.
        classes: the K class names.
        path: the file to write, ending in ``.png``; replaced atomically.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: the matrix is not square, empty, larger than 1000 x 1000 or has negative counts, or ``classes`` has
            another length.
        TypeError: the matrix does not hold integers, or a class name is not a string.
        FileNotFoundError: the folder of ``path`` does not exist.
        MatplotlibMissingError: matplotlib is not installed.
    """
    target = check_target(path)
    counts = _checked(matrix, classes)
    rows = counts.sum(axis=1)
    shares = counts / np.maximum(rows, 1)[:, None]
    count = len(counts)
    cell = min(110, 640 // count) if count <= 10 else max(1, 864 // count)

    measure = style.new_figure(1, 1)
    names = [style.fit(measure, name, _NAME_WIDTH, style.LABEL) for name in classes]
    widest = max(style.text_width(measure, name, style.LABEL) for name in names)
    upright = widest > cell - 6 or count > _COUNTS_UP_TO
    grid = _Grid(round(style.MARGIN + 34 + widest), style.HEADER + 34, cell, count)
    beside = grid.left + grid.side + 30
    below = round(grid.top + grid.side + (widest if upright else 16))
    figure = style.new_figure(max(beside + _RECALL_WIDTH + style.MARGIN, 660), below + 132)

    style.write_header(figure, *_title(counts, names))
    full_scale = _paste_cells(figure, counts, shares, grid)
    _write_names(figure, names, grid, upright)
    if count <= _COUNTS_UP_TO:
        _write_counts(figure, counts, np.sqrt(shares / full_scale), grid)
    _draw_recall(figure, np.where(rows > 0, np.diagonal(shares), np.nan), beside, grid)
    _draw_key(figure, full_scale, grid.left, below + 68)
    return style.save(figure, target)


@dataclass(frozen=True)
class _Grid:
    """Where the matrix lies, in pixels from the top left corner of the picture."""

    left: int
    top: int
    cell: int
    count: int

    @property
    def side(self) -> int:
        return self.cell * self.count

    def middle(self, index: int) -> float:
        """Distance of the middle of a row or column from the grid's edge."""
        return (index + 0.5) * self.cell


def _checked(matrix: ArrayLike, classes: Sequence[str]) -> NDArray[np.int64]:
    array = np.asarray(matrix)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"matrix: must be square, (K, K), got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"matrix: must hold integer counts, got dtype {array.dtype}")
    if not 1 <= len(array) <= _MOST_CLASSES:
        raise ValueError(f"matrix: must have 1 to {_MOST_CLASSES} classes, got shape {array.shape}")
    if array.min() < 0:
        row, column = np.argwhere(array < 0)[0]
        raise ValueError(f"matrix: counts must not be negative, got {array[row, column]} at row {row}, column {column}")
    labels.check_classes(classes)
    if len(classes) != len(array):
        raise ValueError(f"classes: must name each of the {len(array)} classes of the matrix, got {len(classes)} names")
    return array.astype(np.int64)


def _title(counts: NDArray[np.int64], names: list[str]) -> tuple[str, str]:
    total, errors = int(counts.sum()), counts - np.diag(np.diagonal(counts))
    wrong = int(errors.sum())
    if total == 0:
        return "Confusion matrix: no images", "every count is zero"
    line = f"{wrong:,} of {total:,} images wrong"
    if wrong:
        true, predicted = np.unravel_index(int(errors.argmax()), errors.shape)
        line += f"  ·  most often {names[true]} taken for {names[predicted]}, {errors.max():,} times"
    return f"Confusion matrix: error {100 * wrong / total:.2f} %", line


def _paste_cells(figure: Figure, counts: NDArray[np.int64], shares: NDArray[np.float64], grid: _Grid) -> float:
    """Paints the matrix; returns the share at which the colour scale of the errors ends."""
    diagonal = np.eye(len(counts), dtype=np.bool_)
    full_scale = max(float(shares[~diagonal].max(initial=0.0)), _LEAST_FULL_SCALE)
    misses = style.ramp(_MISSES, np.sqrt(np.where(diagonal, 0.0, shares) / full_scale))
    colors = np.where(diagonal[..., None], style.ramp(_HITS, shares), misses)
    colors[(counts == 0) & ~diagonal] = _EMPTY
    pixels = colors.repeat(grid.cell, axis=0).repeat(grid.cell, axis=1)
    if grid.cell >= 12:
        pixels[:: grid.cell] = pixels[:, :: grid.cell] = 255
    style.paste(figure, pixels, grid.left, grid.top)
    return full_scale


def _write_names(figure: Figure, names: list[str], grid: _Grid, upright: bool) -> None:
    style.write(figure, "true ↓", style.MARGIN, grid.top - 12, style.QUIET)
    style.write(figure, "predicted →", grid.left + grid.side, grid.top - 12, style.QUIET, across="right")
    below, angle = grid.top + grid.side + 8, 90 if upright else 0
    for index in range(0, grid.count, -(-16 // grid.cell)):  # a name needs 16 pixels
        at, name = grid.middle(index), names[index]
        style.write(figure, name, grid.left - 8, grid.top + at, style.LABEL, across="right", down="center_baseline")
        style.write(figure, name, grid.left + at, below, style.LABEL, across="center", down="top", rotation=angle)


def _write_counts(figure: Figure, counts: NDArray[np.int64], darkness: NDArray[np.float64], grid: _Grid) -> None:
    widest = max(len(_short(int(count))) for count in counts.flat)
    plain = style.Type(min(16.0, grid.cell * 0.38, grid.cell * 1.3 / widest))
    for row, column in np.ndindex(*counts.shape):
        text, kind = _short(int(counts[row, column])), plain
        if row == column:
            kind = replace(plain, bold=True)
        elif counts[row, column] == 0:
            text, kind = "·", replace(plain, color=_FAINT)
        elif darkness[row, column] > 0.6:
            kind = replace(plain, color=style.PAPER)
        x, y = grid.left + grid.middle(column), grid.top + grid.middle(row)
        style.write(figure, text, x, y, kind, across="center", down="center_baseline")


def _short(count: int) -> str:
    """At most four characters up to a thousand millions: 9999, 12k, 123k, 4.6M."""
    if count < 10_000:
        return str(count)
    if count < 999_500:
        return f"{count / 1e3:.0f}k"
    return f"{count / 1e6:.1f}M" if count < 9_950_000 else f"{count / 1e6:.0f}M"


def _draw_recall(figure: Figure, recall: NDArray[np.float64], left: int, grid: _Grid) -> None:
    """One dot a class on an axis that starts below the lowest; the numbers beside them where there is room."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    lowest = float(recall[np.isfinite(recall)].min(initial=1.0))
    start = next(floor for floor in (99, 98, 95, 90, 80, 50, 0) if floor <= 100 * lowest)
    axes = style.add_panel(figure, left, grid.top, _RECALL_PANEL, grid.side, grid="x")
    axes.set_xlim(start, 100)
    axes.set_ylim(grid.count - 0.5, -0.5)
    axes.xaxis.set_major_locator(FixedLocator([start, (start + 100) / 2, 100]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="y", left=False, labelleft=False)
    axes.plot(
        100 * recall, np.arange(grid.count), linestyle="none", marker="o", fillstyle="full", antialiased=True,
        markersize=style.points(min(9, max(3, 0.7 * grid.cell))), markerfacecolor=style.BLUE, markeredgewidth=0,
        markeredgecolor=style.BLUE, clip_on=False, zorder=4,
    )  # fmt: skip
    style.write(figure, "recall, %", left, grid.top - 12, style.QUIET)
    if grid.cell >= 16:
        for index, share in enumerate(recall):
            text = labels.NONE if np.isnan(share) else f"{100 * share:.1f}"
            x, y = left + _RECALL_WIDTH, grid.top + grid.middle(index)
            style.write(figure, text, x, y, style.LABEL, across="right", down="center_baseline")


def _draw_key(figure: Figure, full_scale: float, left: int, top: int) -> None:
    """The two colour scales."""
    shares = (0.0, 0.5, 1.0)
    values = [f"{100 * full_scale * share**2:.3g}" for share in shares]
    _draw_scale(figure, "errors, % of the true class", _MISSES, dict(zip(shares, values, strict=True)), left, top, 220)
    _draw_scale(figure, "hits", _HITS, {0.0: "0", 1.0: "100"}, left + 280, top, 56)


def _draw_scale(
    figure: Figure, name: str, colors: list[str], marks: dict[float, str], left: int, top: int, width: int
) -> None:
    style.write(figure, name, left, top - 10, style.NOTE)
    style.paste(figure, style.ramp(colors, np.linspace(0.0, 1.0, width))[None].repeat(12, axis=0), left, top)
    for share, text in marks.items():
        style.write(figure, text, left + share * width, top + 18, style.NOTE, across="center", down="top")
