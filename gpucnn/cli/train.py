"""gpucnn train."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import gpucnn
from gpucnn import models, vis
from gpucnn.cli import session
from gpucnn.cli.options import choose, computing, data_place
from gpucnn.cli.progress import TerminalProgress
from gpucnn.data import DATASETS, Dataset
from gpucnn.train import InterruptedRunError, Run, TrainConfig, Trainer, recipe
from gpucnn.train.config import AMP, OPTIMIZERS, SCHEDULES
from gpucnn.train.evaluate import Evaluation, evaluate
from gpucnn.train.report import speed, write_pictures, write_report
from gpucnn.train.run import CHECKPOINTS

RESUMABLE = {"resume", "folder", "checkpoint", "device", "backend_name"}
_RECIPE = "  [default: the model's recipe]"


@click.command()
@click.argument("model", required=False)
@click.option(
    "--data", default="mnist", show_default=True, help=f"{', '.join(DATASETS)}, or a folder with train/ and test/."
)
@data_place
@click.option("--size", type=int, help="Height and width to bring the images of a folder to.")
@click.option(
    "--mode", type=click.Choice(["RGB", "L"]), default="RGB", show_default=True, help="Colour or grey, for a folder."
)
@click.option("--epochs", type=int, help="Passes over the training set." + _RECIPE)
@click.option("--batch-size", type=int, help="Images a step." + _RECIPE)
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), help="sgd has Nesterov momentum." + _RECIPE)
@click.option("--lr", type=float, help="Highest learning rate of the schedule." + _RECIPE)
@click.option("--momentum", type=float, help="Momentum of sgd." + _RECIPE)
@click.option("--weight-decay", type=float, help="Weight decay." + _RECIPE)
@click.option("--schedule", type=click.Choice(SCHEDULES), help="How the rate changes." + _RECIPE)
@click.option("--warmup-epochs", type=float, help="Epochs over which the rate rises first." + _RECIPE)
@click.option("--label-smoothing", type=float, help="Share of each label spread over all classes." + _RECIPE)
@click.option("--shift", type=int, help="Random shifts in training, in pixels." + _RECIPE)
@click.option("--flip/--no-flip", default=None, help="Random mirroring in training." + _RECIPE)
@click.option(
    "--amp",
    type=click.Choice(AMP),
    help="Multiply in 16 bits, of float16 with a scaled loss, or in TF32.  [default: float32 throughout]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, order, shifts and dropout.")
@computing
@click.option("--out", type=click.Path(file_okay=False), help="Folder of the run.  [default: runs/<model>-<data>]")
@click.option("--overwrite", is_flag=True, help="Replace a run that lies in --out already.")
@click.option("--resume", is_flag=True, help="Go on with the run in --run, as it was configured.")
@click.option("--run", "folder", type=click.Path(file_okay=False), help="The run to resume.")
@click.option(
    "--checkpoint", type=click.Choice(CHECKPOINTS), default="last", show_default=True, help="Where to resume from."
)
@click.pass_context
def train(context: click.Context, /, resume: bool, **options: Any) -> None:
    """Train MODEL and leave a run folder with metrics, checkpoints, pictures and a report.

    MODEL is a network of gpucnn.models, such as lenet5 (the default), resnet20 or mobilenet_v2. Without options
    `gpucnn train` trains LeNet-5 on MNIST by a recipe that works.
    """
    device = choose(options["device"], options["backend_name"])
    if resume:
        given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if extra := sorted(set(given) - RESUMABLE):
            raise click.UsageError(f"a resumed run keeps its configuration; leave out {', '.join(extra)}")
        if not options["folder"]:
            raise click.UsageError("--resume needs --run FOLDER")
        _resume(Run.open(options["folder"]), options["checkpoint"], device)
    else:
        if options["folder"]:
            raise click.UsageError("--run is for --resume; a new run's folder is --out")
        _start(options, device)


def _start(options: dict[str, Any], device: str) -> None:
    name = options["model"] or "lenet5"
    if name not in models.MODELS:
        models.build(name)  # raises, with the nearest name
    data_options = {key: options[key] for key in ("data_dir", "size", "mode")}
    train_set, test_set = session.load_data(
        options["data"], options["data_dir"], options["download"], options["size"], options["mode"], click.echo
    )
    # What is in use, not what was asked for: a run on the sample stays on it when the network is back.
    data = train_set.name if options["data"] in DATASETS else options["data"]
    given = {f.name: options[f.name] for f in fields(TrainConfig) if options.get(f.name) is not None}
    config = TrainConfig(**{**recipe(name, data, len(train_set)), **given, "model": name, "data": data})
    facts = session.DataFacts.of(train_set)
    gpucnn.manual_seed(config.seed)
    model = models.build_for(name, len(facts.classes), facts.image_shape).to(device=device)
    out = options["out"] or Run.unused(f"{name}-{Path(config.data).name}")
    run = Run.create(out, overwrite=options["overwrite"])
    run.write_config(session.describe(config, facts, data_options))
    with _stop_on_interrupt() as stop:
        trainer = Trainer(config, run, model, train_set, test_set, facts.normalize(), device, TerminalProgress(), stop)
        _fit(trainer, test_set)


def _resume(run: Run, checkpoint: str, device: str) -> None:
    config, facts, data_options = session.restore(run)
    train_set, test_set = session.load_data(
        config.data, data_options["data_dir"], True, data_options["size"], data_options["mode"], click.echo
    )
    if facts != session.DataFacts.of(train_set):
        raise ValueError(f"the data are not those that {run.folder} was started on ({facts.source})")
    model = models.build_for(config.model, len(facts.classes), facts.image_shape).to(device=device)
    with _stop_on_interrupt() as stop:
        trainer = Trainer(config, run, model, train_set, test_set, facts.normalize(), device, TerminalProgress(), stop)
        trainer.resume(checkpoint)
        click.echo(f"resuming {run.folder} at epoch {trainer.at.epoch + 1}, step {trainer.at.step}")
        _fit(trainer, test_set)


def _fit(trainer: Trainer, test_set: Dataset) -> None:
    config, run = trainer.config, trainer.run
    parameters = sum(p.numel() for p in trainer.model.parameters())
    click.echo(
        f"{config.model}: {parameters:,} parameters, {config.epochs} epochs of {len(trainer.train_loader)} batches of "
        f"{config.batch_size} on {trainer.device} (backend {gpucnn.backend.current_backend()})"
        + (f", in {config.amp}" if config.amp else "")
    )
    if config.amp is None and gpucnn.backend.current_backend() != "reference":
        click.echo("multiplying in float32; on tensor cores --amp tf32 rounds factors to 11 bits, --amp bfloat16 to 8")
    try:
        trainer.fit()
    except InterruptedRunError as stopped:
        raise InterruptedRunError(
            f"{stopped}; checkpoint written, go on with: gpucnn train --resume --run {run.folder}"
        ) from None
    result = evaluate(trainer.model, trainer.test_loader, trainer.device, config.amp)
    _finish(run, trainer.model, test_set, result, f"{config.model} on {test_set.name}")


def _finish(run: Run, model: gpucnn.nn.Module, test_set: Dataset, result: Evaluation, title: str) -> None:
    pictures: list[tuple[str, Path]] = []
    try:
        pictures = write_pictures(run, model, test_set, result)
    except vis.MatplotlibMissingError as missing:
        click.echo(f"no pictures: {missing}", err=True)
    report = write_report(run, title, model, result, pictures)
    images_per_second, seconds = speed(run.read_metrics())
    wrong = int((result.labels != result.predicted).sum())
    click.echo(f"test error: {result.error:.2%} ({wrong} of {len(result.labels)} images)")
    click.echo(f"training speed: {images_per_second:,.0f} images/s ({seconds:.1f} s)")
    click.echo(f"report: {report}")


@contextmanager
def _stop_on_interrupt() -> Iterator[Any]:
    """Yields a function that says whether Ctrl-C was pressed; a second Ctrl-C ends the program at once."""
    pressed = False

    def note(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, previous)
