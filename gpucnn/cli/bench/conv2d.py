"""gpucnn bench conv2d."""

from __future__ import annotations

from typing import Any

import click

from gpucnn.bench import table
from gpucnn.bench.cases import Case, chosen_passes
from gpucnn.bench.measure import Row
from gpucnn.bench.suites import words
from gpucnn.cli.arguments import sizes, value
from gpucnn.cli.bench.common import Place, measuring, run


@click.command()
@click.option("--shape", callback=sizes(4), metavar="N,C,H,W", required=True, help="Of the images.")
@click.option("--filters", callback=sizes(3), metavar="K,R,S", required=True, help="Their number, height and width.")
@click.option("--stride", default="1", show_default=True, metavar="INT|INT,INT")
@click.option("--padding", default="0", show_default=True, metavar="INT|INT,INT|same")
@click.option("--dilation", default="1", show_default=True, metavar="INT|INT,INT")
@click.option("--groups", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--bias", is_flag=True, help="Add one, and compute its gradient with the filters'.")
@measuring
def conv2d(shape: tuple[int, ...], filters: tuple[int, ...], groups: int, bias: bool, **options: Any) -> None:
    """One convolution: each pass and kernel beside PyTorch's, numpy's or cupy's.

    \b
      gpucnn bench conv2d --shape 32,64,56,56 --filters 64,3,3 --padding 1 --dtype bf16 --kernel all --against torch

    A line is one contestant's: microseconds (the median of the rounds, and the range of their middle half), operations
    and bytes a second, the least that this machine needs for them and its share of the time, how many times faster than
    each baseline, and the largest error. The star is at the kernel that a call gets which names none. A wrong result is
    not timed: it says WRONG, and the exit status is 1.
    """
    count, height, width = filters
    arguments: dict[str, Any] = {"input": shape, "weight": (count, shape[1] // groups, height, width)}
    if bias:
        arguments["bias"] = (count,)
    for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1)):
        given = value(options.pop(name))
        if given != usual:
            arguments[name] = given
    if groups != 1:
        arguments["groups"] = groups
    cases = [
        Case("conv2d", arguments, direction, options["dtype"], options["precision"], words("conv2d", arguments))
        for direction in chosen_passes("conv2d", options["passes"])
    ]
    run("conv2d", cases, options, show_lines)


def show_lines(rows: list[Row], place: Place) -> None:
    """A line for each contestant."""
    table.show(*table.lines(rows, place.baselines))
