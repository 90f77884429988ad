"""gpucnn bench."""

from __future__ import annotations

import click

from gpucnn.cli.bench.compare import compare


@click.group()
def bench() -> None:
    """Kernels, layers and networks beside their peers: correct first, then how fast, and how near the limit."""


COMMANDS: tuple[click.Command, ...] = (compare,)

for command in COMMANDS:
    bench.add_command(command)
