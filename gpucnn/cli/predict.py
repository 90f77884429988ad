"""gpucnn predict."""

from __future__ import annotations

import json

import click
import numpy as np
from tabulate import tabulate

from gpucnn import functional as F
from gpucnn import no_grad, tensor
from gpucnn.cli import session
from gpucnn.cli.options import choose, computing, run_folder
from gpucnn.data import Draw, load_image
from gpucnn.train import Run
from gpucnn.train.evaluate import mixed

MODES = {1: "L", 3: "RGB"}


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(dir_okay=False))
@run_folder
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, help="Classes to name, likeliest first."
)
@click.option(
    "--invert", is_flag=True, help="For dark strokes on light paper where training was light on dark (MNIST)."
)
@computing
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def predict(
    images: tuple[str, ...],
    folder: str,
    checkpoint: str,
    top: int,
    invert: bool,
    device: str | None,
    backend_name: str | None,
    as_json: bool,
) -> None:
    """Say what is in IMAGES, by a run's network."""
    place = choose(device, backend_name)
    run = Run.open(folder)
    config, facts, _ = session.restore(run)
    channels, height, width = facts.image_shape
    if channels not in MODES:
        raise ValueError(f"the run's images have {channels} channels; image files have 1 or 3")
    pixels = np.stack([load_image(path, (height, width), MODES[channels]) for path in images])
    normalized = facts.normalize()(255 - pixels if invert else pixels, Draw(0, 0, np.arange(len(pixels))))
    model = session.trained_model(run, config, facts, checkpoint, place)
    with no_grad(), mixed(config.amp):
        probabilities = F.softmax(model(tensor(normalized.transpose(0, 3, 1, 2), device=place)), 1).numpy()
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    rows = []
    for path, shares, ranking in zip(images, probabilities, order, strict=True):
        likeliest = [(facts.classes[index], float(shares[index])) for index in ranking]
        if as_json:
            click.echo(json.dumps({"image": path, "classes": dict(likeliest)}))
        rows.append([path, *(f"{name} {share:.1%}" for name, share in likeliest)])
    if not as_json:
        click.echo(tabulate(rows, ["image", "likeliest", *[""] * (len(rows[0]) - 2)]))
