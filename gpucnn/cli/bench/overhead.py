"""gpucnn bench overhead."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gpucnn.bench import machine, records, table
from gpucnn.bench.overhead import Row, Study, lines, measure, notes
from gpucnn.bench.stack_calls import OPS
from gpucnn.cli.options import choose


@click.command()
@click.option("--ops", default=",".join(OPS), show_default=True, metavar="OP,...", help="What is called.")
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True, help="Turns of each contestant.")
@click.option("--device", help="cpu or cuda.  [default: cuda where backend cuda runs, else cpu]")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write a record to this file.")
def overhead(ops: str, rounds: int, device: str | None, file: Path | None) -> None:
    """Microseconds a call for each layer of the stack above the kernels, beside PyTorch eager's.

    \b
      gpucnn bench overhead
      gpucnn bench overhead --ops relu,conv2d --device cuda --json overhead.json
    """
    place = choose(device, None)
    study = measure(place, [op.strip() for op in ops.split(",")], rounds=rounds, report=_progress)
    table.show(*lines(study))
    for note in notes(study):
        click.echo(note)
    if file is not None:
        records.write(file, record(study, ["gpucnn", *sys.argv[1:]]))


def record(study: Study, command: list[str]) -> dict[str, Any]:
    """A record of the study (gpucnn/bench/records.py)."""
    head = records.head("overhead", machine.here(study.device).to_dict(), command)
    return {**head, "rows": [row.to_dict() for row in study.rows], "missing": study.missing}


def _progress(row: Row) -> None:
    click.echo(f"{row.op} {row.layer}", err=True)
