"""gpucnn eval."""

from __future__ import annotations

import json

import click
import numpy as np
from tabulate import tabulate

from gpucnn.cli import session
from gpucnn.cli.options import choose, computing, data_place, run_folder
from gpucnn.data import DataLoader
from gpucnn.train import Run
from gpucnn.train.evaluate import evaluate as run_evaluation
from gpucnn.train.trainer import EVALUATION_BATCH


@click.command("eval")
@run_folder
@click.option("--data", help="Another data set with the same classes and image size.  [default: the run's own]")
@data_place
@computing
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    folder: str,
    checkpoint: str,
    data: str | None,
    data_dir: str | None,
    download: bool,
    device: str | None,
    backend_name: str | None,
    as_json: bool,
) -> None:
    """Evaluate a run's network on its test set, class by class."""
    place = choose(device, backend_name)
    run = Run.open(folder)
    config, facts, options = session.restore(run)
    model = session.trained_model(run, config, facts, checkpoint, place)
    where = data_dir if data or data_dir else options["data_dir"]
    _, test = session.load_data(
        data or config.data,
        where,
        download,
        options["size"],
        options["mode"],
        lambda line: click.echo(line, err=as_json),
    )
    if tuple(test.classes) != facts.classes:
        raise ValueError(f"the run knows the classes {', '.join(facts.classes)}, the data {', '.join(test.classes)}")
    batches = DataLoader(test, EVALUATION_BATCH, transform=facts.normalize())
    result = run_evaluation(model, batches, place, config.amp)
    matrix = result.confusion(len(facts.classes))
    counts, hits = matrix.sum(axis=1), np.diag(matrix)
    recall = [float(hit / count) if count else None for hit, count in zip(hits, counts, strict=True)]
    if as_json:
        by_class = dict(zip(facts.classes, recall, strict=True))
        click.echo(
            json.dumps({"images": len(result.labels), "loss": result.loss, "error": result.error, "recall": by_class})
        )
        return
    rows = [
        [name, int(count), int(count - hit), "-" if share is None else f"{share:.2%}"]
        for name, count, hit, share in zip(facts.classes, counts, hits, recall, strict=True)
    ]
    click.echo(tabulate(rows, ["class", "images", "wrong", "recall"], colalign=("left", "right", "right", "right")))
    click.echo(f"test loss: {result.loss:.4f}")
    click.echo(f"test error: {result.error:.2%} ({int((counts - hits).sum())} of {len(result.labels)} images)")
