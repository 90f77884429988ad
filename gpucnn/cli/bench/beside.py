"""What `gpucnn bench` shows beside its table: what is known of the CUDA kernels without a GPU, and pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from gpucnn.bench.cases import Case
from gpucnn.bench.machine import Machine
from gpucnn.bench.measure import Row
from gpucnn.bench.static import StaticRow, static_rows, static_table
from gpucnn.bench.table import by_case
from gpucnn.calls import Call, zeros
from gpucnn.precision import float32_precision, set_float32_precision
from gpucnn.profile import device
from gpucnn.vis.bench import Bar, Ceilings, Point, roofline, speedup_bars

MOST_BARS = 24
"""Of layers in a picture: those that take most."""


def show_static(cases: Sequence[Case], kernel: str | None, device_name: str) -> list[dict[str, Any]]:
    """Prints the table of the CUDA kernels for the cases' passes, and returns its rows as plain data.

    `kernel` has names of them, or is "all", or None for those that would run.
    """
    target = device(device_name)
    passes: dict[tuple[Any, ...], list[Case]] = {}
    for case in cases:
        passes.setdefault(case.same_call, []).append(case)
    rows: list[StaticRow] = []
    for of_call in tqdm(passes.values(), disable=not sys.stderr.isatty(), leave=False, unit="call"):
        first = of_call[0]
        call = Call.of(first.function, dtype=first.dtype, fill=zeros, **first.arguments)
        before = float32_precision()
        set_float32_precision(first.precision)
        try:
            for name in [None] if kernel is None else kernel.split(","):
                rows += static_rows(call, [case.direction for case in of_call], name, target)
        finally:
            set_float32_precision(before)
    click.echo("\n" + static_table(rows, target))
    return [row.to_dict() for row in rows]


def draw(rows: Sequence[Row], machine: Machine, baselines: Sequence[str], path: Path, title: str) -> list[Path]:
    """Draws the roofline to `path` and, where there are baselines, the speed-ups beside it; the paths of both."""
    timed = [row for row in rows if row.tflops and row.gbs and row.chosen]
    points = [
        Point(_label(row), 1e3 * row.tflops / row.gbs, 1e12 * row.tflops, row.contestant)
        for row in timed
        if row.tflops and row.gbs
    ]
    drawn: list[Path] = []
    if points:
        ceilings = Ceilings(max(machine.bandwidth.values()), machine.rates)
        drawn.append(roofline(points, ceilings, path, title, f"{machine.name}; ceilings measured in the same run"))
    times = by_case(rows)
    own = [row for row in rows if row.chosen and row.contestant not in baselines and row.microseconds is not None]
    largest = sorted(own, key=lambda row: -row.count * (row.microseconds or 0))[:MOST_BARS]
    bars = []
    for row in largest:
        others = times[row.case]
        ratios = {name: others[name] / row.microseconds for name in baselines if name in others and row.microseconds}
        if ratios:
            bars.append(Bar(_label(row), ratios))
    if bars:
        target = path.with_name(f"{path.stem}-speedup{path.suffix}") if points else path
        more = "" if len(own) <= MOST_BARS else f"; the {MOST_BARS} that take most of {len(own)}"
        drawn.append(speedup_bars(bars, target, title, f"{machine.name}: times as fast as each baseline{more}"))
    return drawn


def _label(row: Row) -> str:
    """A case in a few words."""
    op = "" if row.op.startswith(("conv2d", "linear")) else f"{row.op} "
    return f"{op}{row.layer} {row.direction}"
