"""gpucnn bench."""

from __future__ import annotations

import click

from gpucnn.cli.bench.compare import compare
from gpucnn.cli.bench.conv2d import conv2d
from gpucnn.cli.bench.model import model
from gpucnn.cli.bench.op import op
from gpucnn.cli.bench.overhead import overhead
from gpucnn.cli.bench.suite import suite


@click.group()
def bench() -> None:
    """Kernels, layers and networks beside their peers: correct first, then how fast, and how near the limit."""


COMMANDS: tuple[click.Command, ...] = (
    conv2d,
    op,
    suite,
    model,
    compare,
    overhead,
)

for command in COMMANDS:
    bench.add_command(command)
