"""gpucnn bench suite."""

from __future__ import annotations

from typing import Any

import click

from gpucnn import backend
from gpucnn.bench import suites, table
from gpucnn.bench.measure import Row
from gpucnn.cli.bench.common import Place, measuring, run
from gpucnn.cli.options import choose


@click.command()
@click.argument("name")
@click.option("--batch", type=click.IntRange(min=1), help="Images at a time.  [default: the suite's own]")
@click.option("--op", "ops", metavar="NAME,...", help="Leave it at these functions, such as conv2d,linear.")
@measuring
def suite(name: str, batch: int | None, ops: str | None, **options: Any) -> None:
    """All layers of a network, each distinct one once, with totals that count it as often as the network has it.

    \b
      gpucnn bench suite resnet50 --dtype bf16 --pass fwd,dgrad,wgrad --against torch
      gpucnn bench suite mobilenet_v2 --op conv2d --pass fwd --fail-below 0.9

    NAME: resnet50, vgg16, alexnet, googlenet, resnext50, densenet121, mobilenet_v2, lenet5, cifar (ResNet-20).
    """
    of = suites.suite(name)
    kind = backend.parse_device(choose(options["device"], options["backend_name"]))[0]
    images = batch or of.batch[kind]
    only = ops.split(",") if ops else None
    cases = suites.cases(name, images, options["passes"], options["dtype"], options["precision"], only)

    def show(rows: list[Row], place: Place) -> None:
        own = [place.own]
        if options["kernel"]:
            table.show(*table.lines(rows, place.baselines))
        else:
            table.show(*table.suite_lines(rows, own, place.baselines))
        size = "x".join(map(str, of.image))
        title = f"{of.network}, {images} images of {size}: each layer as often as it is there"
        table.show(*table.totals(rows, own, place.baselines), f"\n{title}")

    run(f"suite {name}", cases, options, show)
