"""gpucnn summary."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from typing import Any

import click

import gpucnn
from gpucnn import models
from gpucnn.nn.init import skip_init
from gpucnn.vis.files import check_target


def _shape(context: click.Context, option: click.Parameter, text: str) -> tuple[int, int, int]:
    """C,H,W as three numbers of at least 1."""
    sizes = [part.strip() for part in text.split(",")]
    if len(sizes) != 3 or not all(size.isdecimal() and int(size) >= 1 for size in sizes):
        raise click.BadParameter(f"{text!r} is not channels, height and width, such as 3,224,224")
    channels, height, width = map(int, sizes)
    return channels, height, width


@click.command()
@click.argument("model")
@click.option("--input", "shape", metavar="C,H,W", callback=_shape, required=True, help="Size of one image: 3,224,224.")
@click.option("--num-classes", type=click.IntRange(min=1), help="Classes to tell apart.  [default: the model's own]")
@click.option("--depth", type=click.IntRange(min=1), help="Take modules together that lie deeper than this.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, always with all layers.")
@click.option(
    "--plot", type=click.Path(dir_okay=False), help="Draw where operations, parameters and memory sit, as PNG."
)
def summary(
    model: str,
    shape: tuple[int, int, int],
    num_classes: int | None,
    depth: int | None,
    as_json: bool,
    plot: str | None,
) -> None:
    """Show what MODEL costs and sees: shapes, parameters, operations, memory and receptive fields, layer by layer."""
    if plot:
        check_target(plot)
    options: dict[str, Any] = {"in_channels": shape[0]} | ({"num_classes": num_classes} if num_classes else {})
    if model in models.MODELS and "image_size" in inspect.signature(models.MODELS[model]).parameters:
        options |= {"image_size": shape[1]} if shape[1] == shape[2] else {}
    with skip_init():  # of no account here, and the slowest part of a large network
        network = models.build(model, **options)
    found = replace(gpucnn.summary(network, shape), model=model)
    if plot:
        found.plot(plot)
    click.echo(json.dumps(found.to_dict()) if as_json else found.table(depth))
