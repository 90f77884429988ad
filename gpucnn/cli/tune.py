"""gpucnn tune."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
from typing import Any

import click

import gpucnn
from gpucnn import models
from gpucnn.cli.arguments import sizes
from gpucnn.cli.options import choose, computing
from gpucnn.tuning import ROUNDS


@click.command()
@click.argument("model")
@click.option("--input", "image", callback=sizes(3), metavar="C,H,W", required=True, help="One image: 3,224,224.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images at a time.")
@click.option("--num-classes", type=click.IntRange(min=1), help="Classes to tell apart.  [default: the model's own]")
@click.option("--dtype", default="float32", show_default=True, help="Of the network and of its images.")
@click.option("--inference", is_flag=True, help="Leave the gradients out.")
@click.option("--fused", is_flag=True, help="With --inference: batch norms folded into convolutions, as by fuse().")
@click.option("--rounds", type=click.IntRange(min=3), default=ROUNDS, show_default=True, help="Samples of a kernel.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@computing
def tune(model: str, image: tuple[int, int, int], as_json: bool, **options: Any) -> None:
    """Measure which kernels are the fastest for the layers of MODEL, and keep that for all that runs afterwards.

    \b
      gpucnn tune resnet50 --input 3,224,224 --batch 32 --dtype bfloat16

    It is kept in $GPUCNN_CACHE, ~/.cache/gpucnn otherwise; GPUCNN_TUNING=0 switches it off.
    """
    if options["fused"] and not options["inference"]:
        raise click.UsageError("--fused needs --inference")
    device = choose(options["device"], options["backend_name"])
    given: dict[str, Any] = {"in_channels": image[0]}
    if options["num_classes"]:
        given["num_classes"] = options["num_classes"]
    if model in models.MODELS and "image_size" in inspect.signature(models.MODELS[model]).parameters:
        given |= {"image_size": image[1]} if image[1] == image[2] else {}
    network = models.build(model, **given).to(options["dtype"]).to(device)
    if options["fused"]:
        network = network.eval().fuse()
    shape = (options["batch"], *image)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        found = gpucnn.tune(network, shape, training=not options["inference"], rounds=options["rounds"])
    click.echo(json.dumps(found.to_dict()) if as_json else printed.getvalue().rstrip())
