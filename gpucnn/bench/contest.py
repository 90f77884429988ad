"""Networks end to end: gpucnn's and its peers' make the same steps in turn, once their first is found to be the same.

On a CPU each has a process of its own, and one more in which its memory is measured; on a GPU all are in this one, and
each gives back what it does not hold before the next has its turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from gpucnn.bench import peers
from gpucnn.bench.answers import Answer, Off
from gpucnn.bench.cases import unknown
from gpucnn.bench.memory import Peak
from gpucnn.bench.networks import Task
from gpucnn.bench.own_network import OwnNetwork, Shares
from gpucnn.bench.torch_network import TorchNetwork
from gpucnn.bench.turns import Apart, Here, Host, Timing

BASELINES = {"torch": ("torch", "torch default"), "cupy": ("cupy",)}
"""By the names that a user asks for."""

_PEAK_STEPS = 2
_SHARES_STEPS = 3
_FAILURES = (RuntimeError, ValueError, TypeError, NotImplementedError, MemoryError)


def baselines(text: str, device: str) -> tuple[str, ...]:
    """The contestants that a comma-separated list stands for, "none" for none. Raises ValueError for any other name."""
    there = [name for name in BASELINES if name != "cupy" or device != "cpu"]
    found: list[str] = []
    for name in [] if text == "none" else text.split(","):
        if name.strip() not in there:
            raise ValueError(unknown(f"baseline on {device}", name.strip(), [*there, "none"]))
        found += BASELINES[name.strip()]
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Result:
    """What one contestant came to.

    Attributes:
        contestant: "reference", "cuda" or "simt" for gpucnn, or a baseline.
        status: "ok", "WRONG: ..." with what is, "missing: ..." or "failed: ..." with the reason.
        timing: seconds a step; None where nothing was timed.
        peak: bytes that steps take.
        first_loss, last_loss: in training, of the first step, without dropout, and of the last.
        steps: that were made until then, those to warm up among them.
        off: how far gpucnn's first step is from this one's.
    """

    contestant: str
    status: str = "ok"
    timing: Timing | None = None
    peak: Peak | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    steps: int = 0
    off: Off | None = None


@dataclass(frozen=True)
class Contest:
    """What came of it: gpucnn's result first, and where its time went, which is None where it is wrong. `is_cut`:
    Ctrl-C ended it early, and figures are of the rounds until then."""

    task: Task
    results: tuple[Result, ...]
    shares: Shares | None
    is_cut: bool = False

    @property
    def own(self) -> Result:
        return self.results[0]

    def times_as_fast(self, baseline: str) -> float | None:
        """A baseline's time over gpucnn's."""
        theirs = next((each.timing for each in self.results if each.contestant == baseline), None)
        return None if theirs is None or self.own.timing is None else theirs.seconds / self.own.timing.seconds

    def rows(self) -> list[dict[str, Any]]:
        """Of plain types, for a record: one a contestant, then one for each pass of an op that gpucnn's step calls, and
        one for the rest."""
        task = self.task
        what = {
            "model": task.model,
            "mode": "training" if task.training else "inference",
            **{"batch": task.batch, "input": list(task.image), "classes": task.classes},
            **{"dtype": task.dtype, "amp": task.amp, "fused": task.fused, "data": task.data},
        }
        rows = [{**what, **_plain(each, task.batch)} for each in self.results]
        if self.shares is None:
            return rows
        of = {**what, "contestant": self.own.contestant}
        rows += [
            {
                **of,
                "call": f"{op.op} {op.direction}",
                "calls": op.calls,
                "microseconds": 1e6 * op.seconds,
                "share": op.seconds / self.shares.seconds,
                "kernel": " ".join(op.kernels),
            }
            for op in self.shares.ops
        ]
        above = self.shares.above
        return [*rows, {**of, "call": ABOVE, "microseconds": 1e6 * above, "share": above / self.shares.seconds}]


ABOVE = "above the kernels"


def _plain(result: Result, batch: int) -> dict[str, Any]:
    timing, peak, off = result.timing, result.peak, result.off
    return {
        "contestant": result.contestant,
        "status": result.status,
        "microseconds": None if timing is None else 1e6 * timing.seconds,
        "spread": None if timing is None else 1e6 * timing.spread,
        "rounds": None if timing is None else timing.rounds,
        "images_per_second": None if timing is None else batch / timing.seconds,
        "steps": result.steps,
        "first_loss": _finite(result.first_loss),
        "last_loss": _finite(result.last_loss),
        "peak_bytes": None if peak is None else peak.most,
        "bytes_before": None if peak is None else peak.before,
        "off": None if off is None else _finite(off.result),
        "off_gradients": None if off is None else _finite(off.gradients),
        "off_norms": None if off is None else _finite(off.norms),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclass
class _Standing:
    """A contestant while the contest is on."""

    name: str
    host: Host | None = None
    answer: Answer | None = None
    peak: Peak | None = None
    seconds: list[float] = field(default_factory=list)
    loss: float | None = None
    steps: int = 0
    status: str = "ok"
    off: Off | None = None

    @property
    def runs(self) -> bool:
        return self.host is not None and self.status == "ok"

    def result(self) -> Result:
        timing = Timing.of(self.seconds) if self.seconds and self.status == "ok" else None
        first = None if self.answer is None else self.answer.loss
        return Result(self.name, self.status, timing, self.peak, first, self.loss, self.steps, self.off)


def run(
    task: Task,
    own: str,
    against: Sequence[str],
    rounds: int,
    steps: int | None = None,
    seconds: float = 10.0,
    told: Callable[[str], None] = lambda what: None,
) -> Contest:
    """Runs a contest.

    Args:
        own: the backend that gpucnn competes with.
        against: contestants of BASELINES.
        rounds: interleaved.
        steps: that each makes in all rounds together, at least one a round; None for as many as gpucnn makes in so many
            `seconds`.
        told: gets a word on what goes on.

    Raises:
        Whatever gpucnn raises. What a baseline raises is in its result.
    """
    field_ = [_Standing(own), *[_Standing(name) for name in against]]
    with ExitStack() as hosts:
        for standing in field_:
            told(f"{standing.name}: first step and memory")
            _enter(standing, task, standing is field_[0], hosts)
        _judge(field_, task)
        makes_room = task.device != "cpu" and len(field_) > 1
        each = _steps_a_round(field_, rounds, steps, seconds, makes_room)
        shares, is_cut = None, False
        try:
            for number in range(rounds):
                for standing in field_:
                    if standing.runs:
                        told(f"round {number + 1} of {rounds}: {standing.name}")
                        with _told_of(standing, standing is field_[0]):
                            _turn(standing, each, makes_room)
            if field_[0].runs and field_[0].host is not None:
                told(f"{own}: op by op")
                shares = field_[0].host.call("shares", _SHARES_STEPS)
        except KeyboardInterrupt:
            is_cut = True
    return Contest(task, tuple([standing.result() for standing in field_]), shares, is_cut)


def _enter(standing: _Standing, task: Task, is_own: bool, hosts: ExitStack) -> None:
    """Its first step and its memory."""
    kind = "" if is_own or standing.name == "cupy" else "torch"
    if kind and (why := peers.missing(task.model)):
        standing.status = f"missing: {why}"
        return
    backend_name = "reference" if standing.name == "cupy" else standing.name
    make, more = (TorchNetwork, ()) if kind else (OwnNetwork, (backend_name,))
    with _told_of(standing, is_own):
        if task.device == "cpu":
            alone = Apart(make, standing.name, task, *more)
            try:
                standing.peak = alone.call("peak", _PEAK_STEPS)
            finally:
                alone.close()
        standing.host = (Apart if task.device == "cpu" else Here)(make, standing.name, task, *more)
        hosts.callback(standing.host.close)
        standing.answer = standing.host.call("answer")
        if task.device != "cpu":
            standing.peak = standing.host.call("peak", _PEAK_STEPS)
            standing.host.call("release")


def _judge(standings: list[_Standing], task: Task) -> None:
    """Compares first steps: gpucnn's is wrong where it is not finite, and where it is too far from a baseline's."""
    own = standings[0]
    assert own.answer is not None
    if not own.answer.is_finite():
        own.status = "WRONG: its first step is not finite"
    for other in standings[1:]:
        if other.answer is None:
            continue
        other.off = own.answer.off(other.answer)
        # PyTorch as it comes multiplies a convolution's float32 in TF32 on a GPU.
        is_rounded = other.name == "torch default" and task.device != "cpu" and task.numbers == "float32"
        if not other.off.is_allowed("tf32" if is_rounded else task.numbers) and own.status == "ok":
            own.status = f"WRONG: its first step is not that of {other.name}: {in_words(other.off)}"


def in_words(off: Off) -> str:
    """An Off in a line."""
    if off.gradients is None or off.norms is None:
        return f"outputs are {off.result:.1e} apart"
    return f"losses are {off.result:.1e} apart, gradients {off.gradients:.1e}, their norms {off.norms:.1e}"


def _steps_a_round(standings: list[_Standing], rounds: int, steps: int | None, seconds: float, makes_room: bool) -> int:
    """After a first step of each, which warms up what is warm afterwards, and a second that is timed."""
    pace = 0.0
    for standing in standings:
        if standing.runs and standing.host is not None:
            with _told_of(standing, standing is standings[0]):
                standing.host.call("turn", 1)
                took = standing.host.call("turn", 1).seconds
                pace = pace or took
                if makes_room:
                    standing.host.call("release")
    if steps is not None:
        return max(1, steps // rounds)
    return max(1, round(seconds / rounds / pace)) if pace else 1


def _turn(standing: _Standing, steps: int, makes_room: bool) -> None:
    assert standing.host is not None
    turn = standing.host.call("turn", steps)
    standing.seconds.append(turn.seconds)
    standing.steps = turn.made
    standing.loss = turn.loss
    if turn.loss is not None and not math.isfinite(turn.loss):
        standing.status = f"WRONG: the loss is {turn.loss} after {standing.steps} steps"
    if makes_room:  # on a CPU each has its own, and pages that go back must be found again
        standing.host.call("release")


@contextmanager
def _told_of(standing: _Standing, is_own: bool) -> Iterator[None]:
    """What a baseline raises becomes its status."""
    try:
        yield
    except _FAILURES as error:
        if is_own:
            raise
        standing.status = f"failed: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
