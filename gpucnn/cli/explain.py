"""gpucnn explain."""

from __future__ import annotations

import contextlib
import io
import json

import click

import gpucnn
from gpucnn import backend as backends
from gpucnn.cli.arguments import named_values


@click.command()
@click.argument("op")
@click.argument("arguments", metavar="NAME=VALUE...", nargs=-1)
@click.option("--dtype", default="float32", show_default=True, help="Of the tensors.")
@click.option("--backend", type=click.Choice(backends.BACKENDS), help="The one to ask about.  [default: all]")
@click.option("--forward", is_flag=True, help="Leave the gradients out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(op: str, arguments: tuple[str, ...], dtype: str, backend: str | None, forward: bool, as_json: bool) -> None:
    """Show which kernel runs each pass of OP, why, and why each other does not.

    A shape stands for a tensor: gpucnn explain conv2d input=32,64,56,56 weight=64,64,3,3 padding=1
    """
    given = named_values(arguments)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        found = gpucnn.explain(op, dtype=dtype, backend=backend, backward=not forward, **given)
    click.echo(json.dumps(found.to_dict()) if as_json else printed.getvalue().rstrip())
