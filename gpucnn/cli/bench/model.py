"""gpucnn bench model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from gpucnn.bench import contest, records, table
from gpucnn.bench.contest import ABOVE, Contest, Result
from gpucnn.bench.networks import AMP, RANDOM, Task
from gpucnn.cli.arguments import sizes
from gpucnn.cli.bench.common import DTYPES, Place, asked_dtype
from gpucnn.cli.options import computing, data_place
from gpucnn.data import DATASETS

_LEAST_SHARE = 0.005
"""Of a step: what takes less is taken together."""


@click.command()
@click.argument("model")
@click.option("--train/--inference", "training", default=True, help="Training steps, or the forward pass.")
@click.option("--batch", type=click.IntRange(min=1), help="Images at a time.  [default: as the model is used]")
@click.option("--input", "image", callback=sizes(3), metavar="C,H,W", help="One image.  [default: the model's own]")
@click.option("--num-classes", "classes", type=click.IntRange(min=1), help="To tell apart.  [default: the model's own]")
@click.option(
    "--dtype", callback=asked_dtype, default="float32", show_default=True, help="Of the network; in training float32."
)
@click.option(
    "--amp",
    type=click.Choice((*AMP, "bf16", "fp16")),
    help="Mixed precision: what convolutions and linear layers multiply in.",
)
@click.option("--fused", is_flag=True, help="With --inference: batch norms folded into convolutions, the peers' too.")
@click.option(
    "--data",
    type=click.Choice((RANDOM, *DATASETS)),
    help="What it sees.  [default: mnist-sample for the LeNets, else random images]",
)
@click.option("--against", default="torch", show_default=True, metavar="NAME,...", help="torch, cupy (on a GPU), none.")
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True, help="Interleaved rounds.")
@click.option("--steps", type=click.IntRange(min=1), help="Of each contestant, in all rounds.  [default: by --seconds]")
@click.option(
    *("--seconds", "seconds"),
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="What gpucnn's steps take in all rounds.",
)
@click.option("--fail-below", type=click.FloatRange(min=0), help="Exit status 1 where less than this of torch's speed.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write a record to this file.")
@data_place
@computing
def model(model: str, training: bool, **options: Any) -> None:
    """Train MODEL, or run it forward, end to end beside PyTorch: images a second, memory, and where the time goes.

    \b
      gpucnn bench model resnet50 --train --batch 64 --amp bf16 --against torch
      gpucnn bench model resnet50 --inference --batch 1 --fused
      gpucnn bench model lenet5 --train --data mnist --steps 900

    All start from the same weights and make the same steps on the same images, which are in memory before the clock
    starts. Before that the first step's loss and gradients, or the outputs, are compared: where gpucnn's are not the
    peers', it says WRONG, and the exit status is 1. "off" is how far gpucnn's are from a peer's.

    "torch" has channels_last images, cuDNN's measured choice of algorithms, and gpucnn's precision; "torch default"
    PyTorch's own layout, heuristics and precision. "x" is a peer's time over gpucnn's. "steps" counts those to warm up
    too. Memory is, on a GPU, the most that the library's pool takes from the device; on a CPU, the most that is
    resident over what is there before the first step.
    """
    place = Place.of({**options, "against": "none"})
    given = {name: options[name] for name in ("batch", "image", "classes", "dtype", "fused", "data", "data_dir")}
    amp = DTYPES.get(options["amp"], options["amp"])
    task = Task.of(model, training, place.device, amp=amp, download=options["download"], **given)
    against = contest.baselines(options["against"], place.machine.kind)
    click.echo(f"{task}\non {place.text}, backend {place.own}")
    with tqdm(bar_format="{desc} {elapsed}", disable=not sys.stderr.isatty(), leave=False) as progress:
        found = contest.run(
            *(task, place.own, against, options["rounds"], options["steps"], options["seconds"]),
            told=progress.set_description_str,
        )
    show(found)
    if options["json_file"]:
        head = records.head(f"model {model}", place.machine.to_dict(), ["gpucnn", *sys.argv[1:]])
        records.write(Path(options["json_file"]), {**head, "rows": found.rows()})
    if found.is_cut:  # what there was until then is shown and kept
        raise KeyboardInterrupt
    _end(found, options["fail_below"])


def show(found: Contest) -> None:
    """Two tables: a line a contestant, and a line for each pass of an op that takes a share of gpucnn's time."""
    others = [each.contestant for each in found.results[1:]]
    headers = ["contestant", "ms a step", "spread", "images/s", *(f"x {name}" for name in others), "memory MiB"]
    headers += ["steps", "loss", "off", ""] if found.task.training else ["steps", "off", ""]
    lines = [_line(found, each, others) for each in found.results]
    used = [column for column in range(len(headers)) if any(line[column] for line in lines)]
    table.show([headers[column] for column in used], [[line[column] for column in used] for line in lines])
    if found.shares is None:
        return
    shares, rows, small = found.shares, [], []
    for op in shares.ops:
        if op.seconds < _LEAST_SHARE * shares.seconds:
            small.append(op)
            continue
        rows.append([op.op, op.direction, str(op.calls), *_part(op.seconds, shares.seconds), " ".join(op.kernels)])
    if small:
        calls, seconds = sum(op.calls for op in small), sum(op.seconds for op in small)
        rows.append([f"{len(small)} more", "", str(calls), *_part(seconds, shares.seconds), ""])
    rows.append([ABOVE, "", "", *_part(shares.above, shares.seconds), ""])
    click.echo(f"\nWhere {found.own.contestant}'s time goes, in a step of {1e3 * shares.seconds:.2f} ms:")
    table.show(["op", "pass", "calls", "ms", "%", "kernel"], rows)


def _line(found: Contest, result: Result, others: list[str]) -> list[str]:
    timing, off = result.timing, result.off
    cells = [result.contestant, "", "", "", *[""] * len(others)]
    if timing is not None:
        rate = found.task.batch / timing.seconds
        cells[1:4] = (
            f"{1e3 * timing.seconds:.2f}",
            f"{1e3 * timing.spread:.2f}",
            f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}",
        )
        if result is found.own:
            ratios = [found.times_as_fast(name) for name in others]
            cells[4:] = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
    cells += ["" if result.peak is None else f"{result.peak.most / 2**20:.0f}", str(result.steps or "")]
    if found.task.training:
        first, last = result.first_loss, result.last_loss
        cells.append("" if first is None else f"{first:.4f}" + ("" if last is None else f" to {last:.4f}"))
    of_gradients = "" if off is None or off.gradients is None else f", {off.gradients:.0e}"
    cells.append("" if off is None else f"{off.result:.0e}{of_gradients}")
    return [*cells, "" if result.status == "ok" else result.status]


def _part(seconds: float, whole: float) -> tuple[str, str]:
    return f"{1e3 * seconds:.2f}", f"{100 * seconds / whole:.1f}"


def _end(found: Contest, least: float | None) -> None:
    """Exit status 1 for what is wrong and what is too slow; "torch default" is not held against it."""
    reasons = [f"{each.contestant}: {each.status}" for each in found.results if each.status.startswith("WRONG")]
    for each in found.results[1:]:
        ratio = found.times_as_fast(each.contestant)
        if least is not None and each.contestant != "torch default" and ratio is not None and not ratio >= least:
            reasons.append(f"{found.own.contestant} has {ratio:.2f} of {each.contestant}'s speed")
    if reasons:
        raise click.ClickException("\n".join(reasons))
