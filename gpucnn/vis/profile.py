"""Pictures of a profile: what each kernel's resources need at least, and one request's way through banks or sectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpucnn.vis import style
from gpucnn.vis.files import check_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESOURCE_COLORS = {"dram": "#0069a8", "l2": "#58a6d6", "l1": "#2f8f6b", "fp32": "#c04f00", "tensor": "#8a5a9e"}
"""Of bars, by the resource's name."""

_BAR, _GAP, _NAMES = 12, 16, 440
_LEAST = 44
"""Pixels for a kernel with two lines of text."""
_CELL = 18
_STOPS = ["#d8e6f1", "#58a6d6", "#c04f00", "#7a1f00"]
"""From one turn or lane in a cell to 32 of them."""


@dataclass(frozen=True)
class KernelBars:
    """A kernel's name, microseconds that each resource needs, and a quieter line below the name."""

    name: str
    microseconds: dict[str, float]
    detail: str = ""


def bounds_chart(kernels: Sequence[KernelBars], path: str | os.PathLike[str], title: str, line: str = "") -> Path:
    """Draws, for each kernel, a bar for each resource: the time that it needs at least, as PNG.

    Args:
        kernels: from top to bottom.
        path: the file to write, ending in ``.png``; replaced atomically.
        title: the heading.
        line: one quieter line below it.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: no kernels, or a name that does not end in ``.png``.
        FileNotFoundError: the folder of ``path`` does not exist.
        MatplotlibMissingError: matplotlib is not installed.
    """
    target = check_target(path)
    if not kernels:
        raise ValueError("kernels: is empty; the chart needs at least one")
    used = [name for name in RESOURCE_COLORS if any(kernel.microseconds.get(name, 0) > 0 for kernel in kernels)]
    group = max(_BAR * max(1, len(used)) + _GAP, _LEAST if any(kernel.detail for kernel in kernels) else 0)
    top, height = style.HEADER + 40, group * len(kernels)
    figure = style.new_figure(style.WIDTH, top + height + 78)
    style.write_header(figure, title, line)
    x = float(style.MARGIN)
    for name in used:
        kind = replace(style.LABEL, color=RESOURCE_COLORS[name], bold=True)
        style.write(figure, f"\N{BLACK SQUARE} {name}", x, style.HEADER + 12, kind)
        x += style.text_width(figure, f"\N{BLACK SQUARE} {name}", kind) + 22
    width = style.WIDTH - _NAMES - style.MARGIN - 62
    axes = style.add_panel(figure, _NAMES, top, width, height, grid="x")
    for row, kernel in enumerate(kernels):
        longest = max(kernel.microseconds.values())
        for bar, name in enumerate(used):
            value = kernel.microseconds.get(name, 0.0)
            centre = row * group + group / 2 + _BAR * (bar + 0.5 - len(used) / 2)
            axes.barh(centre, value, height=_BAR - 2, color=RESOURCE_COLORS[name], linewidth=0)
            if value == longest and value > 0:
                axes.annotate(
                    f"{value:.3g}", (value, centre), xytext=(4, 0), textcoords="offset points", va="center",
                    fontsize=style.points(12), color=style.INK, fontfamily=style.FONT,
                )  # fmt: skip
        middle = top + row * group + group / 2
        for text, kind, y in (
            (kernel.name, style.LABEL, middle + (-4 if kernel.detail else 5)),
            (kernel.detail, style.NOTE, middle + 13),
        ):
            fitting = style.fit(figure, text, _NAMES - style.MARGIN - 16, kind)
            style.write(figure, fitting, _NAMES - 12, y, kind, across="right")
    axes.set_ylim(height, 0)
    axes.set_xlim(0, max(max(kernel.microseconds.values()) for kernel in kernels) or 1.0)
    axes.set_yticks([])
    style.write(figure, "microseconds at least", _NAMES, top + height + 52, style.NOTE)
    return style.save(figure, target)


def request_map(
    addresses: Sequence[int | None],
    size: int,
    is_shared: bool,
    path: str | os.PathLike[str],
    title: str,
    line: str = "",
) -> Path:
    """Draws where a warp's lanes reach at one instruction, as PNG: a row a lane, a column a bank or a sector.

    A cell is darker the more different words of its bank are wanted at the same turn (shared memory), or the fewer of
    its sector's 32 bytes are (global memory, where columns are the sectors in order of their addresses).

    Args:
        addresses: of each of the 32 lanes the byte address, or None where it takes no part.
        size: bytes that a lane accesses.
        is_shared: whether they are addresses in shared memory.
        path: the file to write, ending in ``.png``; replaced atomically.
        title: the heading.
        line: one quieter line below it.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: no lane takes part, or a name that does not end in ``.png``.
        FileNotFoundError: the folder of ``path`` does not exist.
        MatplotlibMissingError: matplotlib is not installed.
    """
    target = check_target(path)
    if all(address is None for address in addresses):
        raise ValueError("addresses: no lane takes part")
    reached = _banks(addresses, size) if is_shared else _sectors(addresses, size)
    columns = 32 if is_shared else max(column for _, column, _ in reached) + 1
    shown = min(columns, 64)
    left, top = 76, style.HEADER + 34
    figure = style.new_figure(max(style.WIDTH, left + shown * _CELL + style.MARGIN), top + 32 * _CELL + 84)
    style.write_header(figure, title, line)
    pixels = np.full((32 * _CELL, shown * _CELL, 3), 255, np.uint8)
    pixels[::_CELL], pixels[:, ::_CELL] = 232, 232
    for lane, column, heat in reached:
        if column < shown:
            row, begin = lane * _CELL, column * _CELL
            pixels[row + 1 : row + _CELL, begin + 1 : begin + _CELL] = style.ramp(_STOPS, np.array(heat))
    style.paste(figure, style.framed(pixels), left, top)
    for lane in (0, 7, 8, 15, 16, 23, 24, 31):
        style.write(figure, str(lane), left - 8, top + (lane + 0.75) * _CELL, style.NOTE, across="right")
    style.write(figure, "lane", style.MARGIN, top - 10, style.NOTE)
    step = 4 if shown > 16 else 1
    for column in range(0, shown, step):
        x = left + (column + 0.5) * _CELL
        style.write(figure, str(column), x, top + 32 * _CELL + 18, style.NOTE, across="center")
    name = "bank of shared memory" if is_shared else "sector of 32 bytes, in order of addresses"
    more = f"; {columns - shown} more are not shown" if columns > shown else ""
    style.write(figure, name + more, left, top + 32 * _CELL + 44, style.NOTE)
    _write_scale(figure, is_shared, left, top + 32 * _CELL + 68)
    return style.save(figure, target)


def _banks(addresses: Sequence[int | None], size: int) -> list[tuple[int, int, float]]:
    """(lane, bank, heat): of the words that its part of the warp wants of that bank, log2 over 5."""
    part = 32 if size <= 4 else 16 if size == 8 else 8
    found = []
    for first in range(0, 32, part):
        words: dict[int, set[int]] = {}
        mine: list[tuple[int, int]] = []
        for lane in range(first, first + part):
            address = addresses[lane]
            if address is None:
                continue
            for word in range(address // 4, (address + size - 1) // 4 + 1):
                words.setdefault(word % 32, set()).add(word)
                mine.append((lane, word % 32))
        found += [(lane, bank, float(np.log2(len(words[bank])) / 5)) for lane, bank in mine]
    return found


def _sectors(addresses: Sequence[int | None], size: int) -> list[tuple[int, int, float]]:
    """(lane, number of the sector, heat): the share of its bytes that nobody asks for."""
    asked: dict[int, set[int]] = {}
    for address in addresses:
        for byte in () if address is None else range(address, address + size):
            asked.setdefault(byte // 32, set()).add(byte)
    number = {sector: i for i, sector in enumerate(sorted(asked))}
    return [
        (lane, number[sector], 1 - len(asked[sector]) / 32)
        for lane, address in enumerate(addresses)
        if address is not None
        for sector in range(address // 32, (address + size - 1) // 32 + 1)
    ]


def _write_scale(figure: Figure, is_shared: bool, left: float, y: float) -> None:
    texts = ("1 word of the bank at a turn", "32") if is_shared else ("all 32 bytes of it asked for", "few")
    style.write(figure, texts[0], left, y, style.NOTE)
    begin = left + style.text_width(figure, texts[0], style.NOTE) + 10
    shares = np.linspace(0, 1, 120)[None].repeat(12, axis=0)
    style.paste(figure, style.ramp(_STOPS, shares), begin, y - 11)
    style.write(figure, texts[1], begin + 130, y, style.NOTE)
