"""gpucnn bench op."""

from __future__ import annotations

from typing import Any

import click

import gpucnn.functional as F
from gpucnn import calls
from gpucnn.bench.cases import Case, chosen_passes, unknown
from gpucnn.bench.suites import STEMS, example, words
from gpucnn.bench.updates import UPDATES
from gpucnn.cli.arguments import named_values, sizes
from gpucnn.cli.bench.common import measuring, run
from gpucnn.cli.bench.conv2d import show_lines

SIGNS = ("add", "subtract", "multiply", "divide")


@click.command()
@click.argument("name")
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--shape", callback=sizes(), metavar="N,C,H,W", help="Of the first tensor: the same as input=N,C,H,W.")
@measuring
def op(name: str, arguments: tuple[str, ...], shape: tuple[int, ...] | None, **options: Any) -> None:
    """Any function, by its name in gpucnn.functional, or by a stem such as norm, pool2d, loss, optim.

    \b
      gpucnn bench op norm --shape 32,64,56,56 --dtype bf16
      gpucnn bench op max_pool2d --shape 32,64,112,112 kernel_size=3 stride=2 padding=1

    Arguments are NAME=VALUE, where a shape stands for a tensor; those that are not given are what the function is
    mostly used with. Lines are those of `gpucnn bench conv2d`.
    """
    function = STEMS.get(name, name)
    there = [*F.__all__, *SIGNS, *UPDATES]
    if function not in there:
        raise click.UsageError(unknown("op", name, [*STEMS, *there]))
    given = named_values(arguments)
    first = "param" if function in UPDATES else calls.first_argument(function)
    if shape is not None:
        given = {first: shape, **given}
    if "dtype" in given:
        raise click.UsageError("dtype=... is given as --dtype")
    of_first = given.get(first)
    if not isinstance(of_first, (tuple, list)):
        raise click.UsageError(f"{function} needs the shape of its {first}: --shape N,C,H,W or {first}=N,C,H,W")
    plain = isinstance(of_first, tuple) and all(isinstance(size, int) for size in of_first)
    known = {**(example(function, tuple(of_first)) if plain else {}), **given}
    known = {first: known[first], **known}
    cases = [
        Case(function, known, direction, options["dtype"], options["precision"], words(function, known))
        for direction in chosen_passes(function, options["passes"])
    ]
    run(f"op {function}", cases, options, show_lines)
