"""The table of CUDA kernels where there is no GPU: what is known of them without one, and never a measured time.

Of each kernel: what it takes of a multiprocessor (nvcc's registers, shared memory), what the cost model that picks
kernels expects (gpucnn/ops/planned.py), and what it does, counted on the CPU (gpucnn/profile), with the least time that
each resource of a GPU needs for that.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpucnn import kernels
from gpucnn.bench import counted
from gpucnn.bench.cases import PASSES, unknown
from gpucnn.bench.counted import ALL, BLOCKS, Counted, Counter, Question
from gpucnn.calls import Call
from gpucnn.ops.compiled import COMPILED, Kernel
from gpucnn.ops.registry import KernelSpec, first_choice
from gpucnn.profile import Bounds, Device, Launch, Report, occupancy
from gpucnn.profile.bounds import RESOURCES
from gpucnn.profile.report import MODEL, rounded, runs_there

STATUS = "static: nothing is measured"
"""Of rows, which tells them from those that were measured."""


@dataclass(frozen=True)
class Taken:
    """What a kernel of a launch takes on the device.

    Attributes:
        kernel, file: its name in the binary, and the source.
        threads, shared: of a block; bytes.
        registers: of a thread; None where nvcc has compiled nothing for the device.
        blocks: that a multiprocessor holds at once; at most, where registers are not known.
        limit: what they are limited by.
        grid: blocks of the launch; waves: that they are of what the device holds; None where not counted.
    """

    kernel: str
    file: str
    threads: int | None
    shared: int | None
    registers: int | None
    blocks: int | None
    limit: str | None
    grid: int | None
    waves: float | None


@dataclass(frozen=True)
class Counts:
    """What all launches of a kernel do together.

    Attributes:
        counted: how much of them was counted, in words; the rest is scaled from it.
        requests, sectors, ideal_sectors: of global memory, of 32 bytes.
        shared_requests, conflicts: of shared memory.
        moved_bytes: of global memory in whole sectors, by all requests.
        products: multiplications with addition.
        seconds: that each resource needs at least.
        binding: the resource that needs longest, bound: its seconds.
        needed: seconds that any kernel needs: each byte moved once, each product computed once.
    """

    counted: str
    requests: float
    sectors: float
    ideal_sectors: float
    shared_requests: float
    conflicts: float
    moved_bytes: float
    products: float
    seconds: dict[str, float]
    binding: str
    bound: float
    needed: float


@dataclass(frozen=True)
class StaticRow:
    """One kernel for one question of a call to a table of kernels.

    Attributes:
        call: in words, as a user would write it.
        op, direction: the table; moment: "fwd", or "bwd" on the walk back.
        dtype, problem: what it was asked for, and how often, `times`.
        kernel: its name in the table, empty where none can.
        is_preferred: whether it is the one that would run.
        configuration: in words; None where it has none.
        expected: seconds, by the cost model, on an H100; None where that says nothing of it.
        bytes, products: that any kernel moves and computes.
        taken: by launch; of every kernel that may be launched for it, where nothing was counted.
        counts: None where nothing was counted; why, says `missing`.
        device: that figures are of.
    """

    call: str
    op: str
    direction: str
    moment: str
    dtype: str
    problem: str
    times: int
    kernel: str
    is_preferred: bool
    configuration: str | None
    expected: float | None
    bytes: int
    products: int
    taken: tuple[Taken, ...]
    counts: Counts | None
    missing: str | None
    device: str

    @property
    def pass_(self) -> str:
        """The narrowest of PASSES that it is part of."""
        return self.direction if self.direction in PASSES else self.moment

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for a record: as rows that were measured have it, without a time, and what is known."""
        found = asdict(self)
        counts = self.counts
        return {
            **{"layer": self.call, "op": self.op, "pass": self.pass_, "problem": self.problem, "count": self.times},
            **{"dtype": self.dtype, "contestant": "cuda", "kernel": self.kernel, "chosen": self.is_preferred},
            "microseconds": None,
            "bound_us": None if counts is None else 1e6 * counts.bound,
            "bound_by": None if counts is None else counts.binding,
            "status": STATUS,
            **{name: found[name] for name in ("direction", "configuration", "expected", "bytes", "products", "counts")},
            **{"taken": list(found["taken"]), "missing": self.missing, "device": self.device},
        }


def static_rows(
    call: Call, passes: Sequence[str] | None, kernel: str | None, device: Device, blocks: int = BLOCKS
) -> list[StaticRow]:
    """What is known of the CUDA kernels for a call without running them on a GPU: about a second each.

    Args:
        call: described by shapes, as `Call.of` makes it of zeros. What its tensors hold does not matter, and is of no
            use afterwards.
        passes: "fwd", what it asks the tables forward; "dgrad" and "wgrad", their passes of these names; "bwd", all
            that it asks backward; None: all.
        kernel: the name of one, for the questions whose table has it (else the preferred); "all": each that can run
            the question; None: the preferred.
        device: that bounds are for.
        blocks: of a launch that are counted at most, if all are too many.

    Returns:
        Rows in the order of the questions, kernels in the order of their table. A question that no kernel can answer
        has one row, without a kernel, that says why.

    Raises:
        ValueError: no such pass or kernel, a kernel that can't run what it is asked for, what the call itself refuses.
    """
    _check_passes(passes)
    counter = Counter(call, passes is None or any(name != "fwd" for name in passes))
    numbers = [i for i, each in enumerate(counter.questions) if passes is None or any(_is(each, p) for p in passes)]
    if not numbers:
        there = ", ".join(name for name in PASSES if any(_is(each, name) for each in counter.questions))
        raise ValueError(f"{call.words} has no pass {' or '.join(passes or ())}, it has: {there or 'none'}")
    _check_kernel(kernel, [counter.questions[i] for i in numbers])
    cannot = counted.why_not()
    rows = []
    for i in numbers:
        question = counter.questions[i]
        preferred, candidates = _candidates(question, kernel)
        for spec in candidates:
            row = functools.partial(_row, call, question, spec, spec is preferred, device)
            if cannot is not None:
                rows.append(row(_by_record(question, spec, device), None, cannot))
                continue
            try:
                rows.append(row(*_summed_up(counter.count(i, spec, blocks), device), None))
            except MemoryError as error:
                missing = " ".join(str(error).split()) or "no memory"
                rows.append(row(_by_record(question, spec, device), None, missing))
        if not candidates:
            reasons = [str(_why_not(spec, question)) for spec in question.table.specs(COMPILED[0])]
            why = "; ".join(dict.fromkeys(reasons)) or "the table has none"
            rows.append(_row(call, question, None, False, device, (), None, f"no CUDA kernel can: {why}"))
    return rows


def _check_passes(passes: Sequence[str] | None) -> None:
    for name in passes or ():
        if name not in PASSES:
            raise ValueError(unknown("pass", name, PASSES))


def _is(question: Question, name: str) -> bool:
    return name in (question.moment, question.table.direction)


def _check_kernel(kernel: str | None, asked: Sequence[Question]) -> None:
    if kernel in (None, "all"):
        return
    there = sorted({spec.name for each in asked for spec in each.table.specs(COMPILED[0])})
    name = str(kernel).partition(":")[0]
    if name not in there:
        raise ValueError(unknown("kernel", name, there))


def _candidates(question: Question, kernel: str | None) -> tuple[KernelSpec | None, list[KernelSpec]]:
    """The one that would run, and those that are asked for, in the order of the table."""
    table, problem, like = question.table, question.problem, question.like
    able = [spec for spec in table.specs(COMPILED[0]) if _why_not(spec, question) is None]
    preferred = first_choice(able, problem, like)
    if kernel == "all":
        return preferred, able
    if kernel is not None and any(spec.name == kernel.partition(":")[0] for spec in table.specs(COMPILED[0])):
        return preferred, [table.forced(kernel, COMPILED[0], problem, like)]
    return preferred, [] if preferred is None else [preferred]


def _why_not(spec: KernelSpec, question: Question) -> str | None:
    try:
        return spec.why_not(question.problem, question.like)
    except RuntimeError as error:  # it asks the compiled module, which is not there
        return f"nobody can tell here: {error}"


def _row(
    call: Call,
    question: Question,
    spec: KernelSpec | None,
    is_preferred: bool,
    device: Device,
    taken: tuple[Taken, ...],
    counts: Counts | None,
    missing: str | None,
) -> StaticRow:
    dtype = question.like.dtype.name
    run = spec.run if spec is not None and isinstance(spec.run, Kernel) else None
    return StaticRow(
        *(call.words, question.table.op, question.table.direction, question.moment, dtype),
        problem="" if question.problem is None else str(question.problem),
        times=question.times,
        kernel="" if spec is None else spec.name,
        is_preferred=is_preferred,
        configuration=None if run is None else run.configuration(question.problem, dtype),
        expected=None if run is None else run.expected(question.problem, dtype),
        bytes=question.bytes,
        products=question.products,
        taken=taken,
        counts=counts,
        missing=missing,
        device=device.name,
    )


def _by_record(question: Question, spec: KernelSpec, device: Device) -> tuple[Taken, ...]:
    """Of every kernel that tests have seen launched for it: what nvcc and these say of it."""
    label = f"{question.table}: {spec.name.partition(':')[0]}"
    found = []
    for each in kernels.kernels():
        if label in each.ops and question.like.dtype.name in each.dtypes:
            arch = runs_there(each.usage, device)
            usage = None if arch is None else each.usage[arch]
            registers, shared = (None, None) if usage is None else (usage.registers, usage.shared)
            held, limit = None, None
            if registers is not None and shared is not None and each.threads:
                of_device = occupancy(each.threads, registers, shared, 0, device)
                held, limit = of_device.blocks, of_device.limit
            found.append(Taken(each.name, each.file, each.threads, shared, registers, held, limit, None, None))
    return tuple(found)


def _summed_up(found: Counted, device: Device) -> tuple[tuple[Taken, ...], Counts]:
    report = Report([found.run], device)
    rows = report.rows()
    seconds = {name: sum(row.seconds[name] for row in rows) for name in RESOURCES}
    if not found.is_exact:  # blocks share what they read, which is scaled as if each had its own
        seconds["dram"] = min(seconds["dram"], found.run.bytes / device.dram)
    bound = Bounds(seconds)

    def total(name: str) -> float:
        return float(sum(getattr(row, name) for row in rows))

    counts = Counts(
        found.words,
        **{name: total(name) for name in _SUMMED},
        seconds=seconds,
        binding=bound.binding,
        bound=bound.time,
        needed=report.needed(found.run),
    )
    return tuple([_taken(report, launch) for launch in found.run.launches]), counts


_SUMMED = ("requests", "sectors", "ideal_sectors", "shared_requests", "conflicts", "moved_bytes", "products")


def _taken(report: Report, launch: Launch) -> Taken:
    registers = report.registers(launch)
    held = occupancy(launch.threads, registers or 0, launch.shared_bytes, launch.blocks, report.device)
    waves = None if registers is None else 1.0 if launch.is_one_wave else held.waves
    return Taken(
        *(launch.kernel, launch.file, launch.threads, launch.shared_bytes, registers),
        *(held.blocks, held.limit, launch.blocks, waves),
    )


# ---------------------------------------------------------------------------------------------------------------- text

_TITLES = (
    *("pass", "kernel", "registers", "shared", "blocks/SM", "waves", "model us", "sectors/ideal", "conflicts"),
    *("moved/once", "products", "bound us", "by", "needed us", "counted"),
)
_LEFT = {"pass", "kernel", "by", "counted"}


def static_table(rows: Sequence[StaticRow], device: Device) -> str:
    """Rows as plain text, under their calls, with what the figures are and are not."""
    cells = [((row.call, row.dtype), _cells(row)) for row in rows]
    widths = [max(len(line[i]) for line in (_TITLES, *(each for _, each in cells))) for i in range(len(_TITLES))]

    def laid_out(line: Sequence[str]) -> str:
        columns = zip(line, widths, _TITLES, strict=True)
        return "  ".join(
            cell.ljust(width) if title in _LEFT else cell.rjust(width) for cell, width, title in columns
        ).rstrip()

    lines = [f"CUDA kernels on {device.name}, {STATUS}"]
    for i, (row, (call, line)) in enumerate(zip(rows, cells, strict=True)):
        if i == 0 or call != cells[i - 1][0]:
            lines += ["", ", ".join(call), laid_out(_TITLES)]
        lines.append(laid_out(line))
        if row.missing is not None and row.kernel == "":
            lines[-1] = f"{line[0].ljust(widths[0])}  {row.missing}"
    return "\n".join([*lines, "", *_notes(rows)])


def _cells(row: StaticRow) -> tuple[str, ...]:
    times = f" x{row.times}" if row.times > 1 else ""
    name = f"{'>' if row.is_preferred else ' '} {row.kernel}"
    model = "" if row.expected is None else _microseconds(row.expected)
    before = (f"{row.op} {row.direction}{times}", name, *_taken_cells(row), model)
    if row.counts is None:
        return (*before, *([""] * (len(_TITLES) - len(before) - 1)), "no")
    found = row.counts
    return (
        *before,
        f"{found.sectors / found.ideal_sectors:.2f}" if found.ideal_sectors else "",
        rounded(found.conflicts),
        f"{found.moved_bytes / row.bytes:.2f}" if row.bytes else "",
        rounded(found.products),
        *(_microseconds(found.bound), found.binding, _microseconds(found.needed), found.counted),
    )


def _taken_cells(row: StaticRow) -> tuple[str, ...]:
    """Registers, shared memory, blocks of a multiprocessor, waves: of the first launch; where nothing was counted, of
    all kernels that may be launched, from the least to the most."""
    if not row.taken:
        return "", "", "", ""
    if row.counts is None:
        names = ("registers", "shared", "blocks")
        return (*(_range([getattr(each, name) for each in row.taken]) for name in names), "")
    first = row.taken[0]
    known = first.registers is not None
    return (
        str(first.registers) if known else "",
        str(first.shared),
        f"{'' if known else '<='}{first.blocks}",
        "" if first.waves is None else f"{first.waves:.3g}",
    )


def _range(values: Sequence[int | None]) -> str:
    known = sorted({value for value in values if value is not None})
    return "" if not known else str(known[0]) if len(known) == 1 else f"{known[0]}-{known[-1]}"


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:.3g}" if seconds < 1e-4 else f"{1e6 * seconds:.0f}"


def _notes(rows: Sequence[StaticRow]) -> list[str]:
    notes = [
        "> is what would run; model us: what the cost model expects that picks it, on an H100",
        f"bound us: least time, by the resource that needs longest; needed us: of any kernel; {MODEL}",
        "moved/once: bytes that all requests move over what any kernel has to; conflicts: wavefronts beyond the ideal",
    ]
    if any(row.taken and all(each.registers is None for each in row.taken) for row in rows):
        notes.append(
            "registers: not known, since nvcc has compiled no kernel for this device here (gpucnn info); <=: blocks as "
            "shared memory and threads allow"
        )
    if any(row.counts is not None and row.counts.counted != ALL for row in rows):
        notes.append("counted: what was not is scaled from what was")
    return [*notes, *dict.fromkeys(f"not counted: {row.missing}" for row in rows if row.missing and row.kernel)]
