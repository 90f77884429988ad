"""gpucnn profile."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import click
import numpy as np

import gpucnn
from gpucnn import calls, models, optim
from gpucnn import functional as F
from gpucnn.cli.arguments import named_values, sizes
from gpucnn.ops.registry import TABLES
from gpucnn.profile import DEVICES, Report, Row, capture, device
from gpucnn.vis.files import check_target
from gpucnn.vis.profile import KernelBars, bounds_chart, request_map

MOST_BARS = 20
"""Of kernels in a picture."""


@click.command()
@click.argument("op")
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--shape", callback=sizes(), metavar="N,C,H,W", help="Of the first tensor: the same as input=N,C,H,W.")
@click.option("--filters", callback=sizes(3), metavar="K,R,S", help="Of a convolution: their number, height, width.")
@click.option(
    "--input", "image", callback=sizes(3), metavar="C,H,W", help="One image of a network.  [default: 3,32,32]"
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images for a network.")
@click.option("--dtype", default="float32", show_default=True, help="Of the tensors.")
@click.option("--kernel", help="Run the kernel of this name wherever an op has it.  [default: the preferred one]")
@click.option("--pass", "passes", metavar="NAME,...", help="Show these passes alone, such as fprop,wgrad.")
@click.option("--forward", is_flag=True, help="Leave the gradients out.")
@click.option("--device", "name", default="h100", show_default=True, help=f"Of the bounds: {', '.join(DEVICES)}.")
@click.option(
    "--sample", type=click.IntRange(min=1), default=1, help="Count every n-th block of a launch.  [default: 1]"
)
@click.option("--lines", is_flag=True, help="Show the counts of every source line too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw the bounds of each kernel by resource, as PNG.")
@click.option(
    "--line", metavar="FILE:LINE", help="With --plot: draw banks and sectors of that line's costliest request."
)
def profile(op: str, arguments: tuple[str, ...], **options: Any) -> None:
    """Count what the kernels of OP do, without a GPU: sectors, bank conflicts, traffic, arithmetic, lower bounds.

    OP is a function, as of `gpucnn explain`, where a shape stands for a tensor; or a network, of which one training
    step is counted:

    \b
      gpucnn profile conv2d --shape 2,64,28,28 --filters 64,3,3 padding=1 --device h100
      gpucnn profile resnet20 --input 3,32,32 --batch 1 --sample 8
    """
    target, line = device(options["name"]), options["line"]
    if options["plot"]:
        check_target(options["plot"])
    if line and not options["plot"]:
        raise click.UsageError("--line needs --plot")
    runs = _runs(op, arguments, options)
    _check_kernel(op, runs, options["kernel"])
    if options["passes"]:
        wanted = options["passes"].split(",")
        there = list(dict.fromkeys(run.direction for run in runs))
        for each in set(wanted) - set(there):
            raise click.UsageError(f"--pass: {op} has no pass {each!r}, it has: {', '.join(there)}")
        runs = [run for run in runs if run.direction in wanted]
    if not any(run.launches for run in runs):
        raise click.UsageError(f"{op} launches nothing: its arguments may be empty")
    report = Report(runs, target)
    if options["plot"]:
        _draw(report, options["plot"], f"gpucnn profile {op}", line)
    if options["as_json"]:
        click.echo(json.dumps(report.to_dict()))
        return
    click.echo(report.table())
    if options["lines"]:
        click.echo("\n" + report.lines())
    if options["plot"]:
        click.echo(f"\n{Path(options['plot'])}")


def _runs(op: str, arguments: tuple[str, ...], options: dict[str, Any]) -> list[Any]:
    given = named_values(arguments)
    if op in models.MODELS:
        if given or options["shape"] or options["filters"]:
            raise click.UsageError(f"{op} is a network: it takes --input and --batch")
        return _training_step(op, options)
    if "dtype" in given:
        raise click.UsageError("dtype=... is given as --dtype")
    if options["shape"]:
        given[calls.first_argument(op)] = options["shape"]
    if options["filters"]:
        given["weight"] = _filters(op, given, options["filters"])
    call = calls.Call.of(op, dtype=options["dtype"], fill=calls.numbers_for(op), **given)
    with capture(options["sample"], options["kernel"]) as runs:
        call.run(not options["forward"])
    return runs


def _filters(op: str, given: dict[str, Any], filters: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of filters (K,R,S) for the input that is given."""
    image, groups, (count, height, width) = given.get("input"), given.get("groups", 1), filters
    if image is None:
        raise click.UsageError("--filters needs --shape")
    if not isinstance(image, tuple) or len(image) not in (3, 4):
        raise click.UsageError(f"--filters needs images (N,C,H,W) or (C,H,W), got {image}")
    if not isinstance(groups, int) or groups < 1:
        raise click.UsageError(f"groups must be a number of at least 1, got {groups!r}")
    channels = image[-3]
    if op == "conv_transpose2d":
        return channels, count // groups, height, width
    return count, channels // groups, height, width


def _training_step(op: str, options: dict[str, Any]) -> list[Any]:
    channels, height, width = options["image"] or (3, 32, 32)
    classes = 10
    network = models.build(op, in_channels=channels, num_classes=classes).to(options["dtype"])
    rng = np.random.default_rng(0)
    images = gpucnn.tensor(rng.standard_normal((options["batch"], channels, height, width)), options["dtype"])
    labels = gpucnn.tensor(rng.integers(0, classes, options["batch"]))
    optimizer = optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    with capture(options["sample"], options["kernel"]) as runs:
        loss = F.cross_entropy(network(images), labels)
        if not options["forward"]:
            loss.backward()
            optimizer.step()
    return runs


def _check_kernel(op: str, runs: list[Any], kernel: str | None) -> None:
    """A name that no pass of the op has would be passed over in silence."""
    there = {spec.name for run in runs if run.op for spec in TABLES[run.op, run.direction].specs("simt")}
    if kernel is not None and kernel not in there:
        near = difflib.get_close_matches(kernel, there, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise click.UsageError(f"--kernel: {op} has no kernel {kernel!r}, it has: {', '.join(sorted(there))}{hint}")


def _bars(rows: list[Row]) -> list[KernelBars]:
    """Of the kernels with the largest bounds, and one for all others together."""
    rows = sorted(rows, key=lambda row: -row.bound.time)
    least = 0.01 * sum(row.bound.time for row in rows)
    shown = [row for row in rows if row.bound.time >= least][:MOST_BARS]
    bars = [
        KernelBars(f"{row.pass_}: {row.chosen}" if row.chosen else row.pass_, _microseconds([row]), row.kernel)
        for row in shown
    ]
    if rest := rows[len(shown) :]:
        bars.append(KernelBars(f"{len(rest)} more, together", _microseconds(rest)))
    return bars


def _microseconds(rows: list[Row]) -> dict[str, float]:
    return {name: 1e6 * sum(row.seconds[name] for row in rows) for name in rows[0].seconds}


def _draw(report: Report, path: str, title: str, line: str | None) -> None:
    """The bounds of the kernels that take most or, with a line, the request there that is farthest from the ideal."""
    if line is None:
        text = f"{report.device.name}: lower bounds, not calibrated; the largest first"
        bounds_chart(_bars(report.rows()), path, title, text)
        return
    access, kernel = report.costliest(line)
    unit = "wavefronts" if access.worst_is_shared else "sectors"
    text = (
        f"{kernel}: {access.purpose} of {access.bytes} bytes, {access.worst_cost} {unit}, {access.worst_ideal} would do"
    )
    request_map(access.worst_addresses, access.bytes, access.worst_is_shared, path, line, text)
