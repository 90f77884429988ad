"""What was counted, as tables, as data for JSON, and as the rows of pictures."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpucnn import kernels
from gpucnn.profile.bounds import RESOURCES, Bounds, Occupancy, bounds, occupancy, problem_bound
from gpucnn.profile.devices import Device
from gpucnn.profile.launches import SECTOR, Access, Launch, Run

MODEL = "model, not calibrated: lower bounds in time are for ranking kernels, not for predicting them"


@dataclass(frozen=True)
class Row:
    """The launches of one kernel in one kind of pass, together.

    Attributes:
        pass_: op and direction.
        chosen: the kernel's name in the op's table.
        kernel: the name in the binary.
        times: launches.
        seconds: by resource, of all of them together.
        needed: seconds that the passes need at least, whichever kernel runs them; None for the further launches of a
            kernel that takes several.
        warp_imbalance, block_imbalance: steps of the longest warp, or block, over the mean; of the worst launch.
        waves: of blocks that the device holds at once; of the largest launch, None where registers are not known.
    """

    pass_: str
    chosen: str
    kernel: str
    times: int
    requests: float
    sectors: float
    ideal_sectors: float
    shared_requests: float
    conflicts: float
    moved_bytes: float
    compulsory_bytes: float
    products: float
    seconds: dict[str, float]
    needed: float | None
    warp_imbalance: float
    block_imbalance: float
    waves: float | None

    @property
    def bound(self) -> Bounds:
        return Bounds(self.seconds)

    @property
    def text(self) -> str:
        """Both names of the kernel."""
        return f"{self.chosen}: {self.kernel}" if self.chosen else self.kernel


@dataclass(frozen=True)
class Report:
    """The runs of a capture on one device's description."""

    runs: Sequence[Run]
    device: Device

    def rows(self) -> list[Row]:
        """One for each pass, chosen kernel and kernel in the binary, in the order of their first launch."""
        found: dict[tuple[str, str, str], Row] = {}
        for run, launch, is_first in self._launches():
            key = (f"{run.op} {run.direction}".strip(), run.kernel, launch.kernel)
            row = self._row(key, run, launch, is_first)
            found[key] = _sum(found[key], row) if key in found else row
        return list(found.values())

    def _launches(self) -> Iterator[tuple[Run, Launch, bool]]:
        for run in self.runs:
            for i, launch in enumerate(run.launches):
                yield run, launch, i == 0

    def _row(self, key: tuple[str, str, str], run: Run, launch: Launch, is_first: bool) -> Row:
        scale = launch.scale
        products = launch.multiplications + sum(launch.matrix_products.values())
        return Row(
            *key,
            times=1,
            requests=scale * launch.total("requests"),
            sectors=scale * launch.total("sectors"),
            ideal_sectors=scale * launch.total("ideal_sectors"),
            shared_requests=scale * launch.total("shared_requests"),
            conflicts=scale * launch.conflicts,
            moved_bytes=scale * launch.moved_bytes,
            compulsory_bytes=scale * launch.compulsory_bytes,
            products=scale * products,
            seconds=bounds(launch, self.device).seconds,
            needed=self.needed(run) if is_first else None,
            warp_imbalance=launch.warp_imbalance,
            block_imbalance=launch.block_imbalance,
            waves=held.waves if (held := self.occupancy(launch)) else None,
        )

    def occupancy(self, launch: Launch) -> Occupancy | None:
        """Of the launch on the device; None where nvcc has compiled nothing for it, so that registers are not known."""
        held = self.registers(launch)
        if held is None:
            return None
        return occupancy(launch.threads, held, launch.shared_bytes, launch.blocks, self.device)

    def registers(self, launch: Launch) -> int | None:
        """Of a thread of its kernel on the device; None where nvcc has compiled nothing for it."""
        of_kernel = {
            arch: count
            for (file, kernel, arch), count in self._registers.items()
            if (file, kernel) == (launch.file, launch.kernel)
        }
        arch = runs_there(of_kernel, self.device)
        return None if arch is None else of_kernel[arch]

    def needed(self, run: Run) -> float:
        """Seconds that any kernel needs for it that computes with the unit that its kernels compute with."""
        return problem_bound(run.bytes, run.products, self._rate(run), self.device)

    @functools.cached_property
    def _registers(self) -> dict[tuple[str, str, str], int]:
        return kernels.registers()

    def _rate(self, run: Run) -> float:
        """Products in a cycle by the unit that the run's kernels use."""
        used = {dtype for launch in run.launches for dtype in launch.matrix_products}
        return max((self.device.tensor[dtype] for dtype in used), default=self.device.fp32)

    def table(self) -> str:
        """By kernel: requests against the ideal, conflicts, traffic, bounds in microseconds and which of them binds."""
        from tabulate import tabulate

        found = self.rows()
        used = [name for name in RESOURCES if any(row.seconds[name] for row in found)]
        headers = [
            *("pass", "kernel", "launches", "sectors/ideal", "conflicts", "moved/once", "products", "imbalance"),
            *("waves", *(f"{name} us" for name in used)),
            *("bound us", "by", "x needed"),
        ]
        rows = [
            [
                row.pass_,
                row.text,
                row.times,
                _ratio(row.sectors, row.ideal_sectors),
                rounded(row.conflicts),
                _ratio(row.moved_bytes, row.compulsory_bytes),
                rounded(row.products),
                f"{row.warp_imbalance:.1f}, {row.block_imbalance:.1f}",
                "" if row.waves is None else f"{row.waves:.2g}",
                *(f"{1e6 * row.seconds[name]:.3g}" for name in used),
                f"{1e6 * row.bound.time:.3g}",
                row.bound.binding,
                "" if not row.needed else f"{row.bound.time / row.needed:.2f}",
            ]
            for row in found
        ]
        lines = [tabulate(rows, headers=headers, disable_numparse=True), "", f"{self.device.name}: {MODEL}"]
        return "\n".join([*lines, *self.notes()])

    def notes(self) -> list[str]:
        """How the counts are to be read, and what they leave out."""
        sampled = [launch for _, launch, _ in self._launches() if launch.sampled_blocks < launch.blocks]
        unknown = [
            launch for _, launch, _ in self._launches() if any(access.line[0] == "?" for access in launch.accesses)
        ]
        notes = [
            "imbalance: steps of the longest warp, and of the longest block, over the mean; x needed: over what any "
            "kernel needs, each byte moved once and each product computed once",
            "floating-point atomics: 0, for kernels with one do not compile",
            "not counted: local memory, parameters and constants, instructions besides those named, latency",
        ]
        if not any(self.occupancy(launch) for _, launch, _ in self._launches()):
            notes.append("waves: not known, since nvcc has compiled no kernel here (gpucnn info)")
        if sampled:
            notes.append(
                f"sampled: {sum(launch.sampled_blocks for launch in sampled)} of "
                f"{sum(launch.blocks for launch in sampled)} blocks of {len(sampled)} launches were counted and scaled"
            )
        if unknown:
            notes.append(f"of {len(unknown)} launches some accesses are of no known line")
        return notes

    def lines(self) -> str:
        """By kernel and source line: requests; a request's lanes, sectors and wavefronts; multiplications."""
        from tabulate import tabulate

        texts = []
        headers = [
            "line",
            "access",
            "requests",
            "lanes",
            "sectors/request",
            "ideal",
            "wavefronts/request",
            "ideal",
            "FMA",
        ]
        seen = set()
        for _, launch, _ in self._launches():
            if (launch.kernel, launch.grid) in seen:
                continue
            seen.add((launch.kernel, launch.grid))
            grid = " x ".join(str(size) for size in launch.grid if size > 1) or "1"
            texts += [f"{launch.kernel} ({launch.file}), {grid} blocks of {launch.threads}", *self._facts(launch), ""]
            fma = dict(launch.fma)
            rows: list[list[Any]] = []
            for line, accesses in launch.by_line().items():
                for access in accesses:
                    requests, shared = access.requests, access.shared_requests
                    rows.append(
                        [
                            f"{line[0]}:{line[1]}",
                            f"{access.purpose} {access.bytes}",
                            rounded(requests + shared),
                            f"{(access.lanes + access.shared_lanes) / (requests + shared):.1f}",
                            f"{access.sectors / requests:.2f}" if requests else "",
                            f"{access.ideal_sectors / requests:.2f}" if requests else "",
                            f"{access.wavefronts / shared:.2f}" if shared else "",
                            f"{access.ideal_wavefronts / shared:.2f}" if shared else "",
                            rounded(fma.pop(line)) if line in fma else "",
                        ]
                    )
            rows += [
                [f"{line[0]}:{line[1]}", "", "", "", "", "", "", "", rounded(n)] for line, n in sorted(fma.items())
            ]
            for (name, line), warps in sorted(launch.operations.items()):
                rows.append([f"{line[0]}:{line[1]}", name, rounded(warps), "", "", "", "", "", ""])
            texts += [tabulate(rows, headers=headers, disable_numparse=True), ""]
        return "\n".join(texts).rstrip()

    def _facts(self, launch: Launch) -> Iterator[str]:
        """Of a launch as a whole."""
        yield (
            f"  a block: {launch.shared_bytes} bytes of shared memory, {launch.barriers / launch.sampled_blocks:.3g} "
            f"barriers; the longest warp is {launch.warp_imbalance:.2f} of the mean, the longest block "
            f"{launch.block_imbalance:.2f}"
        )
        moved, asked = launch.scale * launch.moved_bytes, launch.scale * launch.asked_bytes
        least = launch.scale * SECTOR * launch.least_l2_sectors
        yield (
            f"  global memory: {rounded(asked)} bytes asked for, {rounded(moved)} moved, "
            f"{rounded(launch.scale * launch.compulsory_bytes)} if each once; L2: {rounded(least)} to {rounded(moved)}"
        )
        if held := self.occupancy(launch):
            yield (
                f"  {self.device.name}: {held.blocks} blocks ({held.warps} warps) on a multiprocessor, as "
                f"{held.limit} allow; {held.waves:.2f} waves"
            )

    def costliest(self, line: str) -> tuple[Access, str]:
        """The access at "file:line" whose worst request cost most over its ideal, and its kernel.

        Raises:
            ValueError: nothing is accessed there; the message names the lines where something is.
        """
        accesses = [(access, launch.kernel) for _, launch, _ in self._launches() for access in launch.accesses]
        there = sorted({access.line for access, _ in accesses})
        file, _, number = line.rpartition(":")
        found = [each for each in accesses if str(each[0].line[1]) == number and each[0].line[0].endswith(file)]
        if not found:
            known = ", ".join(f"{name}:{at}" for name, at in there)
            raise ValueError(f"{line} accesses no memory in these launches; these lines do: {known}")
        return max(found, key=lambda each: (each[0].worst_cost / max(each[0].worst_ideal, 1), each[0].worst_cost))

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for JSON: the device, rows as in the table, and every launch's counts."""
        return {
            "device": asdict(self.device),
            "note": MODEL,
            "notes": self.notes(),
            "rows": [{**asdict(row), "bound": row.bound.time, "binding": row.bound.binding} for row in self.rows()],
            "runs": [
                {
                    **{name: getattr(run, name) for name in ("op", "direction", "kernel", "dtype", "problem")},
                    "needed_bytes": run.bytes,
                    "needed_products": run.products,
                    "launches": [self._launch_dict(launch) for launch in run.launches],
                }
                for run in self.runs
            ],
        }

    def _launch_dict(self, launch: Launch) -> dict[str, Any]:
        found = asdict(launch)
        found["fma"] = [[*line, count] for line, count in launch.fma.items()]
        found["operations"] = [[name, *line, warps] for (name, line), warps in launch.operations.items()]
        found["warp_imbalance"], found["block_imbalance"] = launch.warp_imbalance, launch.block_imbalance
        found["floating_point_atomics"] = 0  # a kernel with one does not compile (simt/host_atomic.h)
        found["occupancy"] = asdict(held) if (held := self.occupancy(launch)) else None
        return found


def runs_there(archs: Collection[str], device: Device) -> str | None:
    """Of the architectures that a kernel is compiled for the one that the device takes; None: it takes none."""
    major, minor = device.capability
    for older in range(minor, -1, -1):
        for arch in (f"sm_{major}{older}a", f"sm_{major}{older}"):
            if arch in archs and (older == minor or not arch.endswith("a")):
                return arch
    return None


def _sum(a: Row, b: Row) -> Row:
    both = {name: getattr(a, name) + getattr(b, name) for name in _SUMMED}
    seconds = {name: a.seconds[name] + b.seconds[name] for name in RESOURCES}
    needed = None if a.needed is None or b.needed is None else a.needed + b.needed
    waves = None if a.waves is None or b.waves is None else max(a.waves, b.waves)
    return Row(
        *(a.pass_, a.chosen, a.kernel),
        **both,
        seconds=seconds,
        needed=needed,
        warp_imbalance=max(a.warp_imbalance, b.warp_imbalance),
        block_imbalance=max(a.block_imbalance, b.block_imbalance),
        waves=waves,
    )


_SUMMED = (
    *("times", "requests", "sectors", "ideal_sectors", "shared_requests", "conflicts", "moved_bytes"),
    *("compulsory_bytes", "products"),
)


def _ratio(value: float, of: float) -> str:
    return f"{value / of:.2f}" if of else ""


def rounded(value: float) -> str:
    """1234567 as 1.23M."""
    if value < 10_000:
        return f"{value:.0f}"
    power = min(int(math.log10(value)) // 3, 4)
    return f"{value / 1000**power:.3g}{'_kMGT'[power]}"
