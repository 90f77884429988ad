"""What a call costs beside its kernel: microseconds for each layer of the stack, beside PyTorch eager's.

Tensors are so small that the time is that of the layers. On a CPU even tiny arrays take array code longer than all
layers together, so these are timed with kernels whose answers are at hand; the whole call, array code and all, is timed
besides. PyTorch's kernels can't be taken out: its figures hold them. Where the kernels for GPUs are built for the CPU,
the layers above their bindings are timed as well, and the bindings' own checks.

On a GPU nothing is replaced. The host's time, until the next call can be made, is the layers'; the time until the work
is done says whether the host or the GPU sets the pace.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpucnn import backend as backends
from gpucnn.bench.stack_calls import OPS
from gpucnn.bench.stacks import LAYERS, Gpucnn, Torch
from gpucnn.bench.turns import Apart, Here, Host, Timing, threads

OURS, WHOLE, ABOVE_BINDINGS, PEER = "gpucnn", "gpucnn, array code", "gpucnn, above bindings", "torch"
"""The contestants. OURS is the stack: on a CPU without kernels, on a GPU with them."""

RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""How near the results of two contestants have to be, float32 both."""

SECONDS = 0.02
"""Of samples, a round."""


@dataclass(frozen=True)
class Row:
    """A layer of an op.

    Attributes:
        op, layer: of stacks.OPS and stacks.LAYERS.
        times: until the next call can be made, by contestant, as far as it has that layer.
        done: until the call's work is done, by contestant; empty on a CPU.
        below: seconds of the layer below, of OURS; None for the lowest.
    """

    op: str
    layer: str
    times: dict[str, Timing]
    done: dict[str, Timing] = field(default_factory=dict)
    below: float | None = None

    @property
    def ratio(self) -> float | None:
        """OURS over PyTorch's; None where one of them lacks the layer."""
        if OURS not in self.times or PEER not in self.times:
            return None
        return self.times[OURS].seconds / self.times[PEER].seconds

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for JSON; times in seconds."""
        kinds = {"times": self.times, "done": self.done}
        plain = {kind: {name: vars(timing) for name, timing in found.items()} for kind, found in kinds.items() if found}
        ratio = {} if self.ratio is None else {"ratio": self.ratio}
        return {"op": self.op, "layer": self.layer, **plain, **ratio}


@dataclass(frozen=True)
class Study:
    """What `measure` found.

    Attributes:
        device: "cpu" or a GPU.
        rows: a layer of an op each, from the lowest layer up.
        missing: contestants that are not there, and why.
    """

    device: str
    rows: tuple[Row, ...]
    missing: dict[str, str]


def measure(
    device: str = "cpu",
    ops: Sequence[str] = OPS,
    *,
    rounds: int = 9,
    seconds: float | None = None,
    report: Callable[[Row], None] = lambda row: None,
) -> Study:
    """Times every layer of `ops`, contestants in turn.

    Args:
        device: "cpu", or "cuda" for the backend of that name.
        ops: of stacks.OPS.
        rounds: of each layer, in each of which a contestant is sampled for `seconds`, SECONDS if None.
        report: is told of each row as soon as it is there.

    Raises:
        ValueError: an op that there is not, fewer than one round.
        RuntimeError: no such device; results of two contestants differ.
    """
    for op in ops:
        if op not in OPS:
            near = difflib.get_close_matches(op, OPS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"overhead: no op {op!r}, there are: {', '.join(OPS)}{hint}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    rows: list[Row] = []
    with ExitStack() as stack:
        hosts, missing = _hosts(device, stack)
        for op in ops:
            _check(op, hosts)
            has = {name: host.call("layers", op) for name, host in hosts.items()}
            below: float | None = None
            for layer in LAYERS:
                taking_part = {name: host for name, host in hosts.items() if layer in has[name]}
                if not taking_part:
                    continue
                row = _row(op, layer, taking_part, rounds, seconds or SECONDS, device, below)
                if OURS in row.times:
                    below = row.times[OURS].seconds
                rows.append(row)
                report(row)
    return Study(device, tuple(rows), missing)


def _hosts(device: str, stack: ExitStack) -> tuple[dict[str, Host], dict[str, str]]:
    """The contestants, and why others are missing. On a CPU each is a process with one thread."""
    kind = backends.parse_device(device)[0]
    if kind == "cuda" and (reason := backends.unavailable("cuda")):
        raise RuntimeError(f"overhead on {device}: {reason}")
    house: type[Here] | type[Apart] = Here if kind == "cuda" else Apart
    made: dict[str, tuple[Any, ...]] = {OURS: (Gpucnn, OURS, "own", "cuda", device)}
    missing: dict[str, str] = {}
    if kind == "cpu":
        made = {OURS: (Gpucnn, OURS, "none", "reference", device), WHOLE: (Gpucnn, WHOLE, "own", "reference", device)}
        if reason := backends.unavailable("simt"):
            missing[ABOVE_BINDINGS] = reason
        else:
            made[ABOVE_BINDINGS] = (Gpucnn, ABOVE_BINDINGS, "bindings", "simt", device)
    made[PEER] = (Torch, PEER, device)
    hosts: dict[str, Host] = {}
    stack.enter_context(threads(1))
    for name, what in made.items():
        try:
            hosts[name] = house(*what)
        except ImportError as error:
            missing[name] = f"PyTorch can't be imported: {error}"
        else:
            stack.callback(hosts[name].close)
    return hosts, missing


def _check(op: str, hosts: dict[str, Host]) -> None:
    """Raises RuntimeError where those that compute by themselves do not agree. The others replay what one of them has
    answered, or compute nothing."""
    ours = WHOLE if WHOLE in hosts else OURS
    if PEER not in hosts:
        return
    for number, (a, b) in enumerate(zip(*(hosts[name].call("result", op) for name in (ours, PEER)), strict=True)):
        if a.shape != b.shape or not np.allclose(a, b, RELATIVE, ABSOLUTE):
            what = f"gradient {number}" if number else "result"
            raise RuntimeError(f"WRONG: {op}: the {what} of {ours} is not that of {PEER}")


def _row(
    op: str, layer: str, hosts: dict[str, Host], rounds: int, seconds: float, device: str, below: float | None
) -> Row:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in hosts}
    for _ in range(rounds):
        for name, host in hosts.items():
            found[name].append(host.call("seconds", op, layer, seconds))
    times, done = ({name: Timing.of([pair[i] for pair in pairs]) for name, pairs in found.items()} for i in (0, 1))
    return Row(op, layer, times, {} if device == "cpu" else done, below)


# ------------------------------------------------------------------------------------------------------------ words

_LAYER_WORDS = {
    "table": "table / aten",
    "recorded": "function, recorded",
    "module": "module, recorded",
    "backward": "the same and backward",
}
_COLUMNS = {OURS: "gpucnn us", WHOLE: "with array code", ABOVE_BINDINGS: "above GPU bindings", PEER: "PyTorch us"}


def lines(study: Study) -> tuple[list[str], list[list[str]]]:
    """Headers, and cells for each row; times in microseconds, median and spread."""
    shown = [name for name in (OURS, PEER) if name not in study.missing]
    others = [name for name in (WHOLE, ABOVE_BINDINGS) if any(name in row.times for row in study.rows)]
    titles = ["op", "layer", _COLUMNS[OURS], "+-", "adds"]
    titles += [_COLUMNS[PEER], "+-", "ratio"] if PEER in shown else []
    titles += [f"{_COLUMNS[name]} done" for name in shown if study.device != "cpu"]
    titles += [_COLUMNS[name] for name in others]
    lines = []
    for row in study.rows:
        ours, adds = row.times.get(OURS), ""
        if ours is not None and row.below is not None:
            adds = _microseconds(ours.seconds - row.below)
        line = [row.op, _LAYER_WORDS.get(row.layer, row.layer), *_median_and_spread(ours), adds]
        if PEER in shown:
            line += [*_median_and_spread(row.times.get(PEER)), "" if row.ratio is None else f"{row.ratio:.2f}"]
        line += [_median_and_spread(row.done.get(name))[0] for name in shown if study.device != "cpu"]
        lines.append([*line, *[_median_and_spread(row.times.get(name))[0] for name in others]])
    return titles, lines


def notes(study: Study) -> list[str]:
    """What has to be known beside the table."""
    found = []
    if study.device == "cpu":
        found.append(
            "gpucnn us: the layers alone, kernels' answers being at hand; PyTorch us: with its kernels, which can't be "
            "taken out."
        )
        if any(ABOVE_BINDINGS in row.times for row in study.rows):
            found.append(
                "above GPU bindings: Python above compiled kernels, as on a GPU but for cupy's allocation; binding: "
                "what it checks of its arguments."
            )
    else:
        found.append("gpucnn us, PyTorch us: until the next call can be made; done: until its work is.")
    found += [f"{name}: {why}" for name, why in study.missing.items()]
    return found


def _median_and_spread(timing: Timing | None) -> tuple[str, str]:
    return ("", "") if timing is None else (_microseconds(timing.seconds), _microseconds(timing.spread))


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}"
