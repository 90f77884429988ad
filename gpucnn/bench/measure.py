"""Correct first, then the time: cases, computed by rivals that take turns, become the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.backend import Array
from gpucnn.bench.cases import RANDOM, Case, Truth, unknown
from gpucnn.bench.machine import Machine
from gpucnn.bench.plain_rival import Plain
from gpucnn.bench.rivals import Own, Prepared, directions, missing
from gpucnn.bench.torch_rival import Torch
from gpucnn.bench.turns import Apart, Here, Host, Timing, rest, soon_asleep, take_turns
from gpucnn.books.choice import explain_quietly

BASELINES = {"cpu": ("torch", "torch default", "numpy"), "cuda": ("torch", "torch default", "cupy")}
"""What gpucnn is compared with, by the kind of device."""

ASKED = {"torch": ("torch", "torch default"), "numpy": ("numpy",), "cupy": ("cupy",)}
"""What a name on the command line stands for."""


IDLE = "runs no kernel"
"""The status of a pass that only hands on what is there."""


@dataclass(frozen=True)
class Row:
    """What one contestant took for one case.

    Attributes:
        layer, op, direction, problem, count, dtype, precision: the case.
        contestant: "cuda", "reference" or "simt", or one of BASELINES.
        kernel: gpucnn's own that ran; `chosen`: whether it is the one that a call gets which names none.
        microseconds, spread, rounds: the median of the rounds, the range of their middle half; None where nothing was
            measured.
        tflops, gbs: 10^12 operations and 10^9 bytes a second, of those that the pass needs whoever computes it.
        bound_us, bound_by: the least that moving these bytes at the rate of a copy, and computing these operations at
            that of a product of matrices, takes on this machine.
        share: of the bound in the time, 1 at the limit.
        error: the largest, over the root mean square of the array it is in.
        status: "ok", "WRONG", IDLE, or "missing: ..." or "failed: ..." with the reason.
    """

    layer: str
    op: str
    direction: str
    problem: str
    count: int
    dtype: str
    precision: str
    contestant: str
    kernel: str = ""
    chosen: bool = True
    microseconds: float | None = None
    spread: float | None = None
    rounds: int = 0
    tflops: float | None = None
    gbs: float | None = None
    bound_us: float | None = None
    bound_by: str = ""
    share: float | None = None
    error: float | None = None
    status: str = "ok"

    @property
    def case(self) -> tuple[Any, ...]:
        """What rows have in common that are compared."""
        return self.layer, self.op, self.direction, self.problem, self.dtype, self.precision

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for JSON, with the pass under its own name."""
        found = asdict(self)
        return {("pass" if name == "direction" else name): value for name, value in found.items()}


class Field:
    """The contestants of a benchmark, on one device.

    Args:
        device: "cpu" or "cuda[:i]".
        own: backends of gpucnn that compete.
        against: names of baselines; those that are not installed get rows that say so.

    Raises:
        ValueError: a baseline that there is not on such a device.
    """

    def __init__(self, machine: Machine, device: str, own: Sequence[str], against: Iterable[str]) -> None:
        self.machine = machine
        self.device = device
        self.own = tuple(own)
        self.missing: dict[str, str] = {}
        self._hosts: dict[str, Host] = {}
        place = Here if machine.kind == "cuda" else Apart
        with soon_asleep():
            for name in against:
                if why := missing(name, machine.kind):
                    self.missing[name] = why
                elif name == "cupy":
                    self._hosts[name] = place(Own, name, "reference", device)
                else:
                    self._hosts[name] = place(Plain if name == "numpy" else Torch, name, device)
            for name in self.own:
                self._hosts[name] = place(Own, name, name, device)

    @staticmethod
    def baselines(text: str) -> list[str]:
        """Those that a comma-separated list stands for, "none" for none. Raises ValueError for any other name."""
        found: list[str] = []
        for name in [] if text == "none" else text.split(","):
            if name.strip() not in ASKED:
                raise ValueError(unknown("baseline", name.strip(), [*ASKED, "none"]))
            found += ASKED[name.strip()]
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Ends the processes."""
        for host in self._hosts.values():
            host.close()

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(
        self,
        cases: Sequence[Case],
        kernels: str | None,
        rounds: int,
        at_least: float,
        seed: int,
        on_case: Callable[[list[Row]], None],
    ) -> None:
        """Measures all cases, one after the other.

        Args:
            kernels: the name of gpucnn's kernel that is asked for, "all" for each that can run the case, None for the
                registry's choice alone.
            rounds: of all contestants, interleaved.
            at_least: seconds of a contestant's round on a CPU.
            seed: of the numbers.
            on_case: gets the rows of each case as they come.
        """
        truth: tuple[tuple[Any, ...], Truth] | None = None
        for case in cases:
            if truth is None or truth[0] != case.same_call:
                truth = None
                truth = case.same_call, Truth(case, seed, self.device)
            on_case(self._of_case(case, truth[1], self._entries(case, kernels), rounds, at_least, seed))

    def _entries(self, case: Case, kernels: str | None) -> list[tuple[str, str | None]]:
        """(contestant, kernel) that compete."""
        entries: list[tuple[str, str | None]] = []
        for name in self.own:
            names = able(case, name) if kernels == "all" else [] if kernels is None else kernels.split(",")
            entries += [(name, None), *[(name, kernel) for kernel in names]]
        return entries + [(name, None) for name in self._hosts if name not in self.own]

    def _of_case(
        self, case: Case, truth: Truth, entries: list[tuple[str, str | None]], rounds: int, at_least: float, seed: int
    ) -> list[Row]:
        prepared: dict[tuple[str, str | None], Prepared] = {}
        errors: dict[tuple[str, str | None], float] = {}
        status: dict[tuple[str, str | None], str] = {}
        for name, kernel in entries:
            found = self._hosts[name].call("prepare", case, seed, kernel)
            if found.failed:
                status[name, kernel] = f"failed: {found.failed}"
            elif kernel is not None and any(
                found.kernel == each.kernel and of == name for (of, _), each in prepared.items()
            ):
                continue  # the default, once more by its name
            else:
                is_right = True
                if case.op not in RANDOM or name in self.own:
                    errors[name, kernel], is_right = judged(case, truth, name, found.outputs)
                status[name, kernel] = "WRONG" if not is_right else IDLE if found.idle else "ok"
            prepared[name, kernel] = Prepared(
                [], found.kernel or (kernel or ""), found.moved, found.products, found.failed
            )
        if self.machine.kind == "cpu":
            rest()  # of the truth
        running = {key: self._round(*key, at_least) for key in prepared if status[key] == "ok"}
        times = take_turns({repr(key): run for key, run in running.items()}, rounds) if running else {}
        for name in dict.fromkeys(name for name, _ in prepared):
            self._hosts[name].call("drop")
        needs = next((each for (name, _), each in prepared.items() if name in self.own), Prepared())
        rows = [
            self._row(case, needs, *key, each.kernel, times.get(repr(key)), errors.get(key), status[key])
            for key, each in prepared.items()
        ]
        return rows + [
            self._row(case, needs, name, None, "", None, None, f"missing: {why}") for name, why in self.missing.items()
        ]

    def _round(self, name: str, kernel: str | None, at_least: float) -> Callable[[], float]:
        return lambda: float(self._hosts[name].call("round", kernel, at_least))

    def _row(
        self,
        case: Case,
        needs: Prepared,
        name: str,
        asked: str | None,
        kernel: str,
        timing: Timing | None,
        error: float | None,
        status: str,
    ) -> Row:
        words = ", ".join(f"{key}={value}" for key, value in case.arguments.items()).replace(" ", "")
        row = (
            case.layer,
            case.op,
            case.direction,
            words,
            case.count,
            case.dtype,
            case.precision,
            name,
            kernel,
            asked is None,
        )
        if timing is None:
            return Row(*row, error=error, status=status)
        seconds, operations = timing.seconds, 2 * needs.products
        bound, by = self.machine.bound(needs.moved, operations, case.dtype, case.precision)
        return Row(
            *row,
            microseconds=1e6 * seconds,
            spread=1e6 * timing.spread,
            rounds=timing.rounds,
            tflops=1e-12 * operations / seconds if operations else None,
            gbs=1e-9 * needs.moved / seconds,
            bound_us=1e6 * bound,
            bound_by=by,
            share=bound / seconds,
            error=error,
            status=status,
        )


def judged(case: Case, truth: Truth, contestant: str, outputs: list[Array]) -> tuple[float, bool]:
    """(largest error over the root mean square of its array, whether every element is right).

    Right is each element whose error is at most the allowed one, a small multiple of what rounding gives
    (gpucnn.testing.tolerance), so that NaN is not. What draws random numbers is compared among gpucnn's own alone.
    """
    expected = truth.outputs[case.direction]
    if len(outputs) != len(expected) or any(a.shape != t.shape for a, t in zip(outputs, expected, strict=False)):
        return math.inf, False
    rounded = case.dtype == "float32" and (case.precision == "high" or contestant == "torch default")
    allowed = truth.allowed_error(case, rounded)
    worst, right = 0.0, True
    for actual, true in zip(outputs, expected, strict=True):
        if not true.size:
            continue
        xp = backend.namespace(true)
        got = xp.asarray(actual, dtype=np.float64)
        scale = float(xp.sqrt(xp.mean(true * true))) or 1.0
        error = xp.abs(got - true)
        right = right and bool((error <= allowed * (xp.abs(true) + scale)).all())
        largest = float(error.max()) / scale
        worst = math.inf if math.isnan(largest) else max(worst, largest)
    return worst, right


def able(case: Case, backend_name: str) -> list[str]:
    """The names of the backend's kernels that can run the case; of a bias gradient beside filters', none."""
    found = explain_quietly(case.function, dtype=case.dtype, backend=backend_name, **case.arguments)
    wanted, names = directions(case), list[str]()
    for each in found.passes:
        is_forward = each.direction.partition(" ")[0] in ("fprop", "forward")
        if is_forward == (case.direction == "fwd") if wanted is None else each.direction == wanted[0]:
            names += [one.kernel for one in each.candidates[backend_name] if one.can and one.kernel not in names]
    return names
