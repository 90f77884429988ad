"""gpucnn bench."""

from __future__ import annotations

import click


@click.group()
def bench() -> None:
    """Kernels, layers and networks beside their peers: correct first, then how fast, and how near the limit."""


COMMANDS: tuple[click.Command, ...] = ()

for command in COMMANDS:
    bench.add_command(command)
