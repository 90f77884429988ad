"""Rows as text: a table in colours on a terminal where rich is installed, plain columns everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from gpucnn.bench.cases import PASSES
from gpucnn.bench.measure import Row

Cells = list[str]
_LEFT = {"layer", "op", "pass", "contestant", "kernel", "by", ""}


def show(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Prints a table."""
    left = [header in _LEFT for header in headers]
    if sys.stdout.isatty() and _print_rich(headers, rows, title, left):
        return
    from tabulate import tabulate

    align = ["left" if each else "right" for each in left]
    text = tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=align if rows else None)
    print(f"{title}\n{text}" if title else text, flush=True)


def _print_rich(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str, left: list[bool]) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        return False
    table = Table(title=title or None, title_justify="left")
    for header, is_left in zip(headers, left, strict=True):
        table.add_column(header, justify="left" if is_left else "right", no_wrap=header != "")
    for row in rows:
        bad = any("WRONG" in cell for cell in row)
        table.add_row(*(Text(cell, style="bold red" if bad else "") for cell in row))
    Console().print(table)
    return True


def lines(rows: Sequence[Row], baselines: Sequence[str]) -> tuple[list[str], list[Cells]]:
    """Headers and cells: a line for each row, with the ratio to each baseline; of a missing one the first alone."""
    headers = [
        *("layer", "pass", "contestant", "kernel", "us", "spread", "TFLOP/s", "GB/s", "bound us", "by", "share"),
        *(f"x {name}" for name in baselines),
        *("max error", ""),
    ]
    times = by_case(rows)
    cells, told = [], set[str]()
    for row in rows:
        if row.status.startswith("missing") and row.contestant in told:
            continue
        told.add(row.contestant)
        ratios = [_ratio(times[row.case].get(name), row) for name in baselines]
        kernel = f"{row.kernel} *" if row.kernel and row.chosen else row.kernel
        cells.append([row.layer or row.op, row.direction, row.contestant, kernel, *_figures(row), *ratios, *_end(row)])
    return _without_empty(headers, cells)


def by_case(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, float]]:
    """Microseconds of each contestant's own choice, by case."""
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows:
        times = found.setdefault(row.case, {})
        if row.microseconds is not None and row.chosen:
            times[row.contestant] = row.microseconds
    return found


def suite_lines(rows: Sequence[Row], own: Sequence[str], baselines: Sequence[str]) -> tuple[list[str], list[Cells]]:
    """Headers and cells: a line for each layer and pass, by gpucnn's choice, and its ratio to each baseline."""
    headers = [
        *("layer", "op", "pass", "times", "contestant", "kernel", "us", "spread", "TFLOP/s", "GB/s", "bound us", "by"),
        *("share", *(f"x {name}" for name in baselines), "max error", ""),
    ]
    times = by_case(rows)
    cells: list[Cells] = []
    told: set[tuple[str, str]] = set()
    for row in rows:
        mine = [row.layer, row.op, row.direction, str(row.count), row.contestant, row.kernel]
        if row.contestant in own:
            ratios = [_ratio(times[row.case].get(name), row) for name in baselines]
            cells.append([*mine, *_figures(row), *ratios, *_end(row)])
        elif row.status == "WRONG" or (row.status != "ok" and (row.contestant, row.status) not in told):
            told.add((row.contestant, row.status))
            cells.append([*mine, *[""] * (7 + len(baselines)), *_end(row)])
    return _without_empty(headers, cells)


def totals(rows: Sequence[Row], own: Sequence[str], baselines: Sequence[str]) -> tuple[list[str], list[Cells]]:
    """Headers and cells: by pass and for all passes, milliseconds of all layers as often as the network has them; over
    those cases that a contestant and gpucnn both ran."""
    cells = []
    times, counts = by_case(rows), {row.case: row.count for row in rows}
    bounds: dict[tuple[Any, ...], float] = {row.case: row.bound_us for row in rows if row.bound_us is not None}
    passes = [name for name in PASSES if any(row.direction == name for row in rows)]
    for direction in [*passes, *(["all"] if len(passes) > 1 else [])]:
        of_pass = [case for case in times if direction in ("all", case[2])]
        for name in own:
            mine = [case for case in of_pass if name in times[case]]
            total = sum(counts[case] * times[case][name] for case in mine)
            bound = sum(counts[case] * bounds[case] for case in mine)
            row = [direction, name, f"{1e-3 * total:.2f}", f"{bound / total:.2f}" if total else ""]
            for other in baselines:
                both = [case for case in mine if other in times[case]]
                theirs = sum(counts[case] * times[case][other] for case in both)
                own_part = sum(counts[case] * times[case][name] for case in both)
                some = "" if len(both) == len(mine) else f" ({len(both)} of {len(mine)})"
                row += [f"{1e-3 * theirs:.2f}", f"{theirs / own_part:.2f}{some}"] if both else ["", ""]
            cells.append(row)
    headers = ["pass", "contestant", "ms", "share"]
    return [*headers, *(text for name in baselines for text in (f"{name} ms", f"x {name}"))], cells


def below(rows: Sequence[Row], own: Sequence[str], baselines: Sequence[str], least: float) -> list[str]:
    """In words, where gpucnn's choice has less than `least` times a baseline's speed of the same name as asked for;
    "torch default", whose precision is another, is not held against it."""
    times = by_case(rows)
    found = []
    for row in rows:
        for name in baselines:
            theirs = times[row.case].get(name)
            if row.contestant in own and row.chosen and row.microseconds and theirs and name != "torch default":
                ratio = theirs / row.microseconds
                if not ratio >= least:
                    found.append(
                        f"{row.op} {row.layer} {row.direction}: {row.contestant} has {ratio:.2f} of {name}'s speed"
                    )
    return found


def _figures(row: Row) -> Cells:
    return [
        "" if row.microseconds is None else _short(row.microseconds),
        "" if row.spread is None else _short(row.spread),
        "" if row.tflops is None else f"{row.tflops:.3g}",
        "" if row.gbs is None else f"{row.gbs:.3g}",
        "" if row.bound_us is None else _short(row.bound_us),
        row.bound_by,
        "" if row.share is None else f"{row.share:.2f}",
    ]


def _end(row: Row) -> Cells:
    return ["" if row.error is None else f"{row.error:.1e}", "" if row.status == "ok" else row.status]


def _ratio(theirs: float | None, row: Row) -> str:
    return f"{theirs / row.microseconds:.2f}" if theirs and row.microseconds else ""


def _short(microseconds: float) -> str:
    return f"{microseconds:.1f}" if microseconds < 1000 else f"{microseconds:.0f}"


def _without_empty(headers: list[str], cells: list[Cells]) -> tuple[list[str], list[Cells]]:
    """Without columns that hold nothing."""
    kept = [i for i in range(len(headers)) if any(row[i] for row in cells)]
    return [headers[i] for i in kept], [[row[i] for i in kept] for row in cells]
