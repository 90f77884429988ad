"""What the commands of `gpucnn bench` share: options, and the way from cases to a table, a record and a picture."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from tqdm import tqdm

from gpucnn import backend
from gpucnn.bench import records, table
from gpucnn.bench.cases import Case, asked_passes, unknown
from gpucnn.bench.machine import Machine, here
from gpucnn.bench.measure import BASELINES, IDLE, Field, Row
from gpucnn.books.choice import explain_quietly
from gpucnn.cli.bench.beside import draw, show_static
from gpucnn.cli.options import choose, computing
from gpucnn.profile import DEVICES
from gpucnn.vis.files import check_folder, check_target

F = TypeVar("F", bound=Callable[..., Any])

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "fp64": "float64"}
"""Short names on the command line."""


def asked_dtype(context: click.Context, option: click.Parameter, text: str) -> str:
    """A dtype's name as gpucnn has it."""
    try:
        return backend.dtype_name(backend.supported_dtype(DTYPES.get(text, text)))
    except (TypeError, ValueError) as error:
        raise click.BadParameter(str(error)) from None


def _passes(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    try:
        return asked_passes(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_OPTIONS = (
    click.option("--dtype", callback=asked_dtype, default="float32", show_default=True, help="Also bf16, fp16, fp32."),
    click.option(
        "--precision",
        type=click.Choice(("highest", "high")),
        default="highest",
        show_default=True,
        help="Of float32 products: exact, or in TF32.",
    ),
    click.option(
        *("--pass", "passes"),
        callback=_passes,
        default="all",
        show_default=True,
        metavar="NAME,...",
        help="fwd, dgrad, wgrad, bwd.",
    ),
    click.option("--kernel", metavar="NAME,...", help="Kernels by name, or all.  [default: the registry's choice]"),
    click.option(
        "--against", metavar="NAME,...", help="torch, numpy (on a CPU), cupy (on a GPU), none.  [default: all that fit]"
    ),
    click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True, help="Interleaved rounds."),
    click.option(
        "--round-ms",
        type=click.FloatRange(min=0),
        default=10.0,
        show_default=True,
        help="Of a round on a CPU, at least.",
    ),
    click.option("--seed", type=click.IntRange(min=0), help="Of the numbers.  [default: another one each time]"),
    click.option(
        "--fail-below", type=click.FloatRange(min=0), help="Exit status 1 where less than this of a baseline's speed."
    ),
    click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write a record to this file."),
    click.option("--plot", type=click.Path(dir_okay=False), help="Draw roofline and speed-ups, as PNG."),
    click.option("--static/--no-static", default=True, help="Without a GPU: what is known of the CUDA kernels."),
    click.option(
        "--static-device", default="h100", show_default=True, help=f"Whose bounds these get: {', '.join(DEVICES)}."
    ),
)


def measuring(function: F) -> F:
    """The options of commands that measure cases."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return computing(function)


@dataclass(frozen=True)
class Place:
    """Where a benchmark runs: the device, gpucnn's backend that competes there, the machine, the baselines."""

    device: str
    own: str
    machine: Machine
    baselines: list[str]

    @staticmethod
    def of(options: dict[str, Any]) -> Place:
        """What the options ask for, checked before anything is measured."""
        for name, check in (("plot", check_target), ("json_file", lambda path: check_folder(Path(path)))):
            if options.get(name):
                check(options[name])
        device = choose(options["device"], options["backend_name"])
        kind = backend.parse_device(device)[0]
        names = options["against"] or ",".join(dict.fromkeys(name.split()[0] for name in BASELINES[kind]))
        return Place(device, backend.current_backend(), here(device), Field.baselines(names))

    @property
    def text(self) -> str:
        """The machine in a line."""
        details = self.machine.details
        more = f"{details['cores']} cores" if self.machine.kind == "cpu" else f"driver {details.get('driver_version')}"
        return f"{self.machine.name}, {more}"


def measured_kernels(cases: Sequence[Case], own: str, kernels: str | None) -> str | None:
    """Those of the kernels asked for that backend `own` has; the others are CUDA's, of which the static table tells.

    Raises ValueError for a name that neither has.
    """
    if kernels in (None, "all"):
        return kernels
    there: dict[str, list[str]] = {own: [], "cuda": []}
    for case in {case.same_call: case for case in cases}.values():
        for name, found in there.items():
            explained = explain_quietly(case.function, dtype=case.dtype, backend=name, **case.arguments)
            found += [one.kernel for each in explained.passes for one in each.candidates[name]]
    names = [name.strip() for name in str(kernels).split(",")]
    for name in names:
        if not any(name.partition(":")[0] in found for found in there.values()):
            listed = dict.fromkeys([*there[own], *there["cuda"]])
            raise ValueError(unknown("kernel", name, listed))
    return ",".join(name for name in names if name.partition(":")[0] in there[own]) or None


def run(study: str, cases: Sequence[Case], options: dict[str, Any], show: Callable[[list[Row], Place], None]) -> None:
    """Measures the cases, shows them, writes what was asked for, and ends with the exit status that it earns."""
    place = Place.of(options)
    kernels = measured_kernels(cases, place.own, options["kernel"])
    seed = options["seed"] if options["seed"] is not None else secrets.randbelow(1 << 32)
    if not cases:
        raise ValueError(f"{study}: none of its functions has a pass {', '.join(options['passes'])}")
    click.echo(f"{study} on {place.text}; seed {seed}")
    rows: list[Row] = []
    try:
        with (
            Field(place.machine, place.device, (place.own,), place.baselines) as contestants,
            tqdm(total=len(cases), disable=not sys.stderr.isatty(), leave=False, unit="case") as progress,
        ):

            def note(of_case: list[Row]) -> None:
                rows.extend(of_case)
                progress.update()

            contestants.measure(cases, kernels, options["rounds"], 1e-3 * options["round_ms"], seed, note)
    finally:  # what was measured before an error or Ctrl-C is shown and kept
        if rows:
            show(rows, place)
            click.echo(ceilings(place.machine))
            _write(study, rows, [], place, seed, options["json_file"])
    if options["static"] and place.machine.kind == "cpu":
        asked = options["kernel"] if kernels in (None, "all") else None
        static = show_static(cases, asked, options["static_device"])
        _write(study, rows, static, place, seed, options["json_file"])
    if options["plot"]:
        for path in draw(rows, place.machine, place.baselines, Path(options["plot"]), study):
            click.echo(path)
    end(rows, place, options["fail_below"])


def _write(
    study: str, rows: list[Row], static: list[dict[str, Any]], place: Place, seed: int, path: str | None
) -> None:
    if path is None:
        return
    record = records.head(study, place.machine.to_dict(), ["gpucnn", *sys.argv[1:]])
    records.write(Path(path), {**record, "seed": seed, "rows": [*[row.to_dict() for row in rows], *static]})


def ceilings(machine: Machine) -> str:
    """What bounds are made of, in a line."""
    found = machine.bandwidth
    copies = f"copies {1e-9 * min(found.values()):.3g}-{1e-9 * max(found.values()):.3g} GB/s" if found else ""
    rates = ", ".join(f"{name} {1e-12 * rate:.3g} TFLOP/s" for name, rate in machine.rates.items())
    return f"ceilings measured in this run: {copies}{'; products of ' if rates else ''}{rates}"


def end(rows: Sequence[Row], place: Place, least: float | None) -> None:
    """Exit status 1 for a wrong kernel, one of gpucnn's that failed, and too small a ratio, with the reasons."""
    reasons = [
        f"{row.op} {row.layer} {row.direction}: {row.contestant} {row.kernel} {row.status}"
        for row in rows
        if row.status == "WRONG" or (row.contestant == place.own and row.chosen and row.status not in ("ok", IDLE))
    ]
    if least is not None:
        reasons += table.below(rows, [place.own], place.baselines, least)
    if reasons:
        raise click.ClickException("\n".join(reasons))
