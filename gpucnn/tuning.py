"""Measuring which kernel is the fastest for the layers of a network: `gpucnn.tune`.

The cost model picks kernels in microseconds and without a trial; it is a model. Where a user asks for it, each kernel
and configuration that can run a pass is measured on the data that the pass gets, and what was fastest is kept on disk
(gpucnn/tuned.py) for all that comes after.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpucnn import backend as backends
from gpucnn import tuned
from gpucnn.autograd import no_grad
from gpucnn.backend import Array
from gpucnn.calls import Call, numbers_for
from gpucnn.nn import Module
from gpucnn.ops.registry import KernelSpec, KernelTable, observe_calls, ready
from gpucnn.tensor import Tensor

ROUNDS = 10
"""How often each kernel is measured, in turn with the others."""

_HOPELESS = 3.0
"""Times the fastest: a kernel that takes longer at its first try is not measured again."""

_FLUSHED_BYTES = 256 << 20
"""Written before each sample on a GPU: more than its caches hold, and long enough that work is queued meanwhile."""


@dataclass(frozen=True)
class Timing:
    """What one kernel took: the median of its samples, and half of them lie within `spread`; in seconds."""

    kernel: str
    seconds: float
    spread: float
    samples: int


@dataclass(frozen=True)
class Measured:
    """One pass of one problem.

    Attributes:
        times: how often the call asks just this.
        default: the kernel that is expected to be the fastest, as measured.
        chosen: the one that is kept: the fastest, if it gains more than the spread of both; else the default.
        others: all that were measured, the fastest first.
        failed: those that could not be, with the reason.
    """

    op: str
    direction: str
    dtype: str
    problem: str
    layer: str
    times: int
    default: Timing
    chosen: Timing
    others: tuple[Timing, ...]
    failed: dict[str, str]

    @property
    def gain(self) -> float:
        """How many times as fast."""
        return self.default.seconds / self.chosen.seconds


@dataclass(frozen=True)
class Tuning:
    """What `tune` found. Its str() is a table."""

    call: str
    device: str
    passes: tuple[Measured, ...]
    file: str | None
    """Where it is kept; None where it was not to be."""

    @property
    def gain(self) -> float:
        """Of all passes together, as often as the call has each."""
        before, after = (
            sum(each.times * getattr(each, name).seconds for each in self.passes) for name in ("default", "chosen")
        )
        return before / after if after else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.call} on {self.device}"]
        if not self.passes:
            return f"{lines[0]}\nnothing to choose: it asks for no kernel of which there are several"
        titles = ("pass", "layer", "times", "default", "us", "fastest", "us", "gain")
        rows = [titles, *[_row(each) for each in self.passes]]
        widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
        numbers = {2, 4, 6, 7}
        for row in rows:
            cells = [
                cell.rjust(width) if column in numbers else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        changed = sum(each.chosen.kernel != each.default.kernel for each in self.passes)
        lines += [
            "",
            f"{changed} of {len(self.passes)} passes get another kernel; together {self.gain:.2f} times as fast",
        ]
        for each in self.passes:
            lines += [f"{each.op} {each.direction} {each.layer}: {name}: {why}" for name, why in each.failed.items()]
        return "\n".join([*lines, f"kept in {self.file}" if self.file else "not kept"])


def _row(each: Measured) -> tuple[str, ...]:
    is_kept = each.chosen.kernel == each.default.kernel
    return (
        *(f"{each.op} {each.direction}", each.layer, str(each.times), each.default.kernel, _microseconds(each.default)),
        *(("=", "", "") if is_kept else (each.chosen.kernel, _microseconds(each.chosen), f"{each.gain:.2f}x")),
    )


def _microseconds(timing: Timing) -> str:
    return f"{timing.seconds * 1e6:.1f}"


def tune(
    op: str | Callable[..., Any],
    *inputs: Any,
    dtype: Any = None,
    training: bool = True,
    device: str | None = None,
    rounds: int = ROUNDS,
    keep: bool = True,
    **parameters: Any,
) -> Tuning:
    """Measures which kernels are the fastest for the convolutions and linear layers of a call, prints it and keeps it.

        gpucnn.tune(model, (32, 3, 224, 224), dtype="bfloat16")
        gpucnn.tune("conv2d", (32, 64, 56, 56), (64, 64, 3, 3), padding=1, training=False)

    From then on, in this process and in others, the fastest run wherever the same pass of the same problem is asked
    for: same device, version, build, sizes, dtype and precision. Another kernel may round differently, so results may
    differ in their last bits from those before; the same kernel gives the same bits every time. `gpucnn.set_tuning`
    and GPUCNN_TUNING=0 switch it off; GPUCNN_CACHE is the folder, ~/.cache/gpucnn otherwise.

    Args:
        op, inputs, parameters: what is called and with what, as for `gpucnn.explain`; a network is not changed.
        dtype: of the tensors that are given as shapes; None: the network's, float32 otherwise.
        training: also the gradients, and a network in training mode; otherwise inference in evaluation mode.
        device: where these tensors are made; None: where the network lies, the GPU if backend 'cuda' is in use.
        rounds: how often each kernel is measured, at least 3.
        keep: whether what was found is written to the file, and used.

    Returns:
        The same as data.

    Raises:
        ValueError: no such op, fewer rounds than 3, or what the call itself refuses.
        RuntimeError: the file can't be written, which is found out before anything is measured.
    """
    if rounds < 3:
        raise ValueError(f"tune: rounds must be at least 3, got {rounds}")
    if keep:
        tuned.check_writable()
    own = next(iter(op.parameters()), None) if isinstance(op, Module) else None
    lies = device or (own.device if own is not None else "cuda" if backends.current_backend() == "cuda" else "cpu")
    held = dtype if dtype is not None else own.dtype if own is not None else "float32"
    numbers = numbers_for(op if isinstance(op, str) else "")

    def fill(shape: tuple[int, ...], kind: np.dtype[Any]) -> Tensor:
        return numbers(shape, kind).to(lies)

    call = Call.of(op, *inputs, dtype=held, fill=fill, **parameters)
    if isinstance(call.function, Module):  # a copy
        call.function.train(training)
    found = _Measurements(rounds)
    with observe_calls(found):
        _run(call, fill, training)
    where, passes = found.place, found.passes()
    file = tuned.save(where, found.choices()) if keep and where is not None and passes else None
    on = tuned.device(where or (backends.current_backend(), -1))
    tuning = Tuning(call.words, on, passes, None if file is None else str(file))
    print(tuning)
    return tuning


def _run(call: Call, fill: Callable[[tuple[int, ...], np.dtype[Any]], Tensor], training: bool) -> None:
    """As Call.run, of gradients that are numbers as the input is."""
    if not training:
        with no_grad():
            call.function(*call.arguments, **call.options)
        return
    results = call.function(*call.arguments, **call.options)
    for result in results if isinstance(results, tuple) else (results,):
        if isinstance(result, Tensor) and result.requires_grad:
            result.backward(fill(result.shape, result.data.dtype), retain_graph=True)


class _Measurements:
    """What is measured as the call goes: each pass of each problem when it is first met, on its own arrays."""

    def __init__(self, rounds: int) -> None:
        self.place: tuned.Place | None = None
        self._rounds = rounds
        self._found: dict[tuple[Any, ...], tuple[Measured, int]] = {}

    def passes(self) -> tuple[Measured, ...]:
        return tuple([Measured(**{**vars(found), "times": times}) for found, times in self._found.values()])

    def choices(self) -> dict[str, tuned.Choice | None]:
        """By question; None where the default stays."""
        return {
            tuned.question(*key): None
            if found.chosen.kernel == found.default.kernel
            else tuned.Choice(*(found.chosen.kernel, found.chosen.seconds, found.default.kernel, found.default.seconds))
            for key, (found, _) in self._found.items()
        }

    def __call__(
        self, table: KernelTable, problem: Any, arrays: tuple[Any, ...], kernel: str | None, like: Array
    ) -> Any:
        if kernel is not None or table.op not in tuned.OPS:
            return table.pick(problem, like, kernel).run(problem, *arrays)
        default = table.pick_unmeasured(problem, like)
        key = (table.op, table.direction, like.dtype.name, problem)
        if key in self._found:
            found, times = self._found[key]
            self._found[key] = found, times + 1
        elif len(rivals := _rivals(table, default, problem, like)) > 1:
            self.place = tuned.place(default.backend, like)
            timed, failed = measure(
                {name: _calling(spec, problem, arrays) for name, spec in rivals.items()},
                like,
                self._rounds,
                default.name,
            )
            fastest = timed[0]
            own = next(timing for timing in timed if timing.kernel == default.name)
            gains = own.seconds - fastest.seconds > max(own.spread, fastest.spread)
            words = (table.op, table.direction, like.dtype.name, str(problem), _layer(problem))
            self._found[key] = Measured(*words, 1, own, fastest if gains else own, tuple(timed), failed), 1
        return default.run(problem, *arrays)


def _rivals(table: KernelTable, default: KernelSpec, problem: Any, like: Array) -> dict[str, KernelSpec]:
    """By name, all kernels of the default's backend that can run it, in each of their configurations."""
    found = {default.name: default}
    for spec in table.specs(default.backend):
        if spec.why_not(problem, like) is None:
            each = [spec.configured(name) for name in spec.configurations()] or [spec]
            found |= {one.name: ready(one, like) for one in each if one.name not in found}
    return found


def _calling(spec: KernelSpec, problem: Any, arrays: tuple[Any, ...]) -> Callable[[], Any]:
    return lambda: spec.run(problem, *arrays)


def measure(
    runs: dict[str, Callable[[], Any]], like: Array, rounds: int, needed: str
) -> tuple[list[Timing], dict[str, str]]:
    """Times each of `runs`, in turn with the others, on the machine where `like` lies.

    Those that are far behind at their first try, after one to warm up, are not tried again; `needed` is.

    Returns:
        Timings, the fastest first, and why others could not be measured.
    """
    clock = clock_for(like)
    samples: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for name, run in runs.items():
        try:
            run()
            samples[name] = [clock(run)]
        except MemoryError as error:
            if name == needed:
                raise
            failed[name] = " ".join(str(error).split()) or "no memory"
    limit = _HOPELESS * min(times[0] for times in samples.values())
    tried = [name for name, times in samples.items() if times[0] <= limit or name == needed]
    for _ in range(rounds - 1):
        for name in tried:
            samples[name].append(clock(runs[name]))
    return sorted([_timing(name, samples[name]) for name in samples], key=lambda timing: timing.seconds), failed


def _timing(name: str, samples: list[float]) -> Timing:
    quarters = statistics.quantiles(samples, n=4) if len(samples) > 1 else [samples[0]] * 3
    return Timing(name, statistics.median(samples), quarters[2] - quarters[0], len(samples))


def clock_for(like: Array, flushes: int = 1) -> Callable[[Callable[[], Any]], float]:
    """What says how many seconds a call takes where `like` lies.

    On a GPU its caches are flushed before, `flushes` times over: while that runs, some 80 microseconds each on a
    Hopper, the host queues the call, whose own overhead is then no part of what is measured.
    """
    if isinstance(like, np.ndarray):
        return _seconds
    library = backends.namespace(like)
    flushed = library.empty(_FLUSHED_BYTES, np.uint8)
    start, stop = library.cuda.Event(), library.cuda.Event()

    def seconds(run: Callable[[], Any]) -> float:
        stream = library.cuda.get_current_stream()
        for _ in range(flushes):
            flushed.fill(0)
        start.record(stream)
        run()
        stop.record(stream)
        stop.synchronize()
        return 1e-3 * float(library.cuda.get_elapsed_time(start, stop))

    return seconds


def _seconds(run: Callable[[], Any]) -> float:
    before = time.perf_counter()
    run()
    return time.perf_counter() - before


def _layer(problem: Any) -> str:
    """A problem in a few words: "N32 C64 56x56 K128 3x3/2"."""
    if hasattr(problem, "O"):
        return f"M{problem.M} I{problem.I} O{problem.O}"
    p = problem
    steps = f"/{_pair(p.stride)}" if p.stride != (1, 1) else ""
    spread = f" dilation {_pair(p.dilation)}" if p.dilation != (1, 1) else ""
    groups = f" groups {p.groups}" if p.groups > 1 else ""
    beside = "".join(f" +{name}" for name in p.epilogue)
    return f"N{p.N} C{p.C} {p.H}x{p.W} K{p.K} {p.R}x{p.S}{steps}{spread}{groups}{beside}"


def _pair(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"
