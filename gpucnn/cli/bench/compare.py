"""gpucnn bench compare."""

from __future__ import annotations

import json
from pathlib import Path

import click
from tabulate import tabulate

from gpucnn.bench import records
from gpucnn.bench.compare import Comparison, Pair
from gpucnn.bench.compare import compare as compared

RECORD = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("before", type=RECORD, metavar="A.json")
@click.argument("after", type=RECORD, metavar="B.json")
@click.option(
    "--fail-below", type=click.FloatRange(min=0), metavar="RATIO", help="Exit status 1 if any ratio is below."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def compare(context: click.Context, before: Path, after: Path, fail_below: float | None, as_json: bool) -> None:
    """Compare two records, row by row: the times of A over those of B, so that above 1 B is faster.

    \b
      gpucnn bench suite lenet5 --json before.json
      gpucnn bench suite lenet5 --json after.json
      gpucnn bench compare before.json after.json --fail-below 0.9

    A difference within the spread of both is marked with ~: it may be noise. What was right in A and is not in B
    counts as below any ratio.
    """
    found = compared(records.read(before), records.read(after))
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        _show(found, before.name, after.name)
    if fail_below is not None and (slower := found.below(fail_below)):
        click.echo(f"{len(slower)} of {len(found.pairs)} rows are below {fail_below:g}, or no longer right:", err=True)
        for pair in slower:
            click.echo(f"  {_ratio(pair)} {pair.what}{f': {pair.status}' if pair.status else ''}", err=True)
        context.exit(1)


def _show(found: Comparison, before: str, after: str) -> None:
    for note in found.notes:
        click.echo(f"differs: {note}")
    headers = ["what", "times", "A us", "+-", "B us", "+-", "A / B", "kernel"]
    told = [pair for pair in found.pairs if pair.status or (pair.before, pair.after) != (None, None)]
    click.echo(tabulate([_row(pair) for pair in told], headers, disable_numparse=True, colalign=_ALIGNED))
    if len(told) < len(found.pairs):
        click.echo(f"{len(found.pairs) - len(told)} rows have a time in neither")
    a, b = found.totals()
    if found.mean_ratio is not None:
        click.echo(f"\nA {before}, B {after}; geometric mean of A / B {found.mean_ratio:.3f}")
        click.echo(f"sum of all, each as often as it is there: {a:,.1f} us and {b:,.1f} us, A / B {a / b:.3f}")
    for name, rows in (("A", found.only_before), ("B", found.only_after)):
        for what in rows:
            click.echo(f"only in {name}: {what}")


_ALIGNED = ("left", *["right"] * 6, "left")


def _row(pair: Pair) -> list[str]:
    times = [_number(pair.before), _number(pair.spread_before), _number(pair.after), _number(pair.spread_after)]
    kernel = " -> ".join(pair.kernels) if pair.kernels else ""
    return [pair.what, str(pair.count), *times, _ratio(pair), pair.status or kernel]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _ratio(pair: Pair) -> str:
    return "-" if pair.ratio is None else f"{'~' if pair.is_noise else ''}{pair.ratio:.3f}"
