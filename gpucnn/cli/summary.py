"""gpucnn summary."""

from __future__ import annotations

import inspect
import json

import click

import gpucnn
from gpucnn import models
from gpucnn.books import Summary
from gpucnn.vis.files import check_target


class _Shape(click.ParamType):
    """C,H,W as a tuple of three numbers of at least 1."""

    name = "C,H,W"

    def convert(
        self, value: object, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, int, int]:
        sizes = [part.strip() for part in str(value).split(",")]
        if len(sizes) != 3 or not all(size.isdecimal() and int(size) >= 1 for size in sizes):
            self.fail(f"{value!r} is not channels, height and width, such as 3,224,224", param, context)
        channels, height, width = map(int, sizes)
        return channels, height, width


@click.command()
@click.argument("model")
@click.option("--input", "shape", type=_Shape(), required=True, help="Size of one image, such as 3,224,224.")
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
    found = _books(model, shape, num_classes)
    if plot:
        found.plot(plot)
    click.echo(json.dumps(found.to_dict()) if as_json else found.table(depth))


def _books(model: str, shape: tuple[int, int, int], num_classes: int | None) -> Summary:
    if num_classes is None and model in models.MODELS:
        num_classes = inspect.signature(models.MODELS[model]).parameters["num_classes"].default
    return gpucnn.summary(models.build_for(model, num_classes or 1, shape), shape)
