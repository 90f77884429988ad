"""The profiler's counts beside those of NVIDIA's hardware profiler (ncu) for the same launches, on a GPU.

    python benchmarks/calibrate_profile.py [--only conv2d,linear] [--json FILE]

For each call of tests/budget_cases.py: counted by the flavour `profile` of the kernels on the CPU, and by ncu while the
same call runs on the GPU, on copies of its arrays (tests/on_gpu.py). A line compares one counter of one kernel; what
differs by more than --tolerance is marked. Needs a GPU, ncu, the CUDA extension, and GPUCNN_SIMT=profile. Until a
record of it is in results/, tables of counts say "model, not calibrated". With --stand-in the model stands for the GPU
too: everything runs but ncu, and nothing can differ.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import record

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "_build")]

METRICS = {
    "global_load_requests": "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum",
    "global_store_requests": "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum",
    "global_load_sectors": "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
    "global_store_sectors": "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
    "shared_wavefronts": "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "shared_conflicts": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "fma": "smsp__sass_thread_inst_executed_op_ffma_pred_on.sum",
    "l2_read_sectors": "lts__t_sectors_op_read.sum",
    "dram_bytes": "dram__bytes.sum",
    "registers": "launch__registers_per_thread",
}
"""What is compared, by ncu's names of it (Nsight Compute's documentation, metrics reference)."""

MARKER = "a_call_begins"
"""A kernel of cupy's making, launched before each call."""


@dataclass(frozen=True)
class Row:
    """One counter of one kernel in one call; counts of all its launches together. L2 is bracketed by the model."""

    case: str
    dtype: str
    kernel: str
    counter: str
    model: float | None
    most: float | None
    hardware: float

    def differs(self, tolerance: float) -> bool:
        if self.model is None:
            return False
        low, high = self.model * (1 - tolerance), (self.most if self.most is not None else self.model) * (1 + tolerance)
        return not low <= self.hardware <= high


def modelled(launches: Iterable[Any]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """By kernel and counter: what the profiler counts, and the upper end where it is a bracket."""
    found: dict[str, dict[str, tuple[float, float | None]]] = {}
    for launch in launches:
        counts = {
            "global_load_requests": (_of(launch, "requests", "load"), None),
            "global_store_requests": (_of(launch, "requests", "store"), None),
            "global_load_sectors": (_of(launch, "sectors", "load"), None),
            "global_store_sectors": (_of(launch, "sectors", "store"), None),
            "shared_wavefronts": (float(launch.total("wavefronts")), None),
            "shared_conflicts": (float(launch.conflicts), None),
            "fma": (float(launch.multiplications), None),
            "l2_read_sectors": (float(launch.least_l2_sectors), float(launch.total("sectors"))),
            "dram_bytes": (float(launch.compulsory_bytes), float(launch.moved_bytes)),
        }
        into = found.setdefault(launch.kernel, {})
        for name, (low, high) in counts.items():
            before = into.get(name, (0.0, None if high is None else 0.0))
            into[name] = before[0] + low, None if high is None else (before[1] or 0.0) + high
    return found


def _of(launch: Any, count: str, purpose: str) -> float:
    return float(sum(getattr(access, count) for access in launch.accesses if purpose in access.purpose))


def parse_ncu(text: str) -> list[tuple[str, dict[str, float]]]:
    """(kernel's name as ncu prints it, metrics) of each launch, from `ncu --csv --page raw`."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise SystemExit("ncu printed no table:\n" + text[-2000:])
    rows = list(csv.DictReader(io.StringIO("\n".join(lines[start:]))))
    launches = []
    for row in rows[1:]:  # the first holds the units
        counts = {
            name: float(row[metric].replace(",", "")) for name, metric in METRICS.items() if row.get(metric, "") != ""
        }
        launches.append((row["Kernel Name"], counts))
    return launches


def plain_name(kernel: str) -> str:
    """gpucnn::(anonymous namespace)::k<float, true>(...) as k<float, true>."""
    from ptxas_report import kernel_names

    (name,) = kernel_names([kernel])
    return name


def by_call(launches: Iterable[tuple[str, dict[str, float]]]) -> list[dict[str, dict[str, float]]]:
    """Of each call, which a launch of MARKER begins: by kernel and counter, the sum of its launches."""
    found: list[dict[str, dict[str, float]]] = []
    for kernel, counts in launches:
        if MARKER in kernel:
            found.append({})
        elif found:
            into = found[-1].setdefault(plain_name(kernel), {})
            for counter, value in counts.items():
                before = into.get(counter, 0.0)
                into[counter] = max(before, value) if counter == "registers" else before + value
    return found


def measured(calls: Sequence[tuple[int, Any, str]]) -> list[dict[str, dict[str, float]]]:
    """Of each call, by kernel and counter, what ncu counts while a child process runs them on the GPU."""
    asked = ",".join(f"{number}:{dtype}" for number, _, dtype in calls)
    command = [
        *("ncu", "--csv", "--page", "raw", "--metrics", ",".join(METRICS.values()), "--kernel-name-base", "demangled"),
        *("--clock-control", "none", sys.executable, __file__, "--run", asked),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"ncu failed ({done.returncode}) on {asked}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    found = by_call(parse_ncu(done.stdout))
    if len(found) != len(calls):
        raise SystemExit(f"ncu saw {len(found)} of {len(calls)} calls of {asked}:\n{done.stdout[-4000:]}")
    return found


def stood_in(counted: Iterable[dict[str, dict[str, tuple[float, float | None]]]]) -> str:
    """As ncu's table, what the model counted."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["ID", "Kernel Name", *METRICS.values()])
    writer.writerow(["", "", *["" for _ in METRICS]])
    for model in counted:
        writer.writerow(["0", MARKER, *["" for _ in METRICS]])
        for kernel, counts in model.items():
            values = [counts[name][0] if name in counts else "" for name in METRICS]
            writer.writerow(["0", f"gpucnn::{kernel}(int)", *values])
    return text.getvalue()


def run_calls(asked: str) -> None:
    """On the GPU, each after a launch that marks its begin."""
    import on_gpu
    from budget_cases import cases

    from gpucnn import backend, extension

    mark = backend.cupy().ElementwiseKernel("", "int32 y", "y = 1", MARKER)
    place = backend.cupy().zeros((1,), "int32")
    every = list(cases())
    with on_gpu.in_use(on_gpu.OnDevice(extension.require(), on_gpu.Gpu())):
        for call in asked.split(","):
            number, _, dtype = call.partition(":")
            mark(place)
            backend.cupy().cuda.runtime.deviceSynchronize()
            with on_gpu.forced(every[int(number)].kernel):
                every[int(number)].run(dtype)


def compare(
    case: str,
    dtype: str,
    model: dict[str, dict[str, tuple[float, float | None]]],
    hardware: dict[str, dict[str, float]],
) -> Iterator[Row]:
    """A row for each counter of each kernel that both have launched."""
    for kernel, counts in hardware.items():
        if kernel not in model:
            continue  # cupy's own
        for counter, value in counts.items():
            low, high = model[kernel].get(counter, (None, None))
            yield Row(case, dtype, kernel, counter, low, high, value)


def show(row: Row, differs: bool) -> str:
    most = "" if row.most is None else f" to {row.most:.0f}"
    model = "-" if row.model is None else f"{row.model:.0f}{most}"
    mark = "DIFFERS" if differs else ""
    return f"{row.dtype:9} {row.kernel:45} {row.counter:22} {model:>22} {row.hardware:14.0f} {mark}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="ops, separated by commas")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--largest", type=int, default=1 << 19, help="elements of a tensor (default: 2^19)")
    parser.add_argument("--most", type=int, help="calls (default: all)")
    parser.add_argument("--at-a-time", type=int, default=8, help="calls that one process makes under ncu")
    parser.add_argument("--stand-in", action="store_true", help="count on the CPU what ncu would count")
    parser.add_argument("--rows", action="store_true", help="print rows as JSON")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_calls(options.run)
        return
    if not options.stand_in and shutil.which("ncu") is None:
        raise SystemExit("ncu is not installed: it comes with the CUDA toolkit (Nsight Compute)")

    from budget_cases import in_turns

    only = {name for name in options.only.split(",") if name}
    there = {case.op for _, case, _ in in_turns(options.largest)}
    if unknown := sorted(only - there):
        raise SystemExit(f"--only: there is no {', '.join(unknown)}; there are {', '.join(sorted(there))}")
    calls = [
        call
        for call in in_turns(options.largest)
        if (not only or call[1].op in only) and call[2] in options.dtypes.split(",")
    ][: options.most]
    rows: list[Row] = []
    for first in range(0, len(calls), options.at_a_time):
        together = calls[first : first + options.at_a_time]
        counted = [count(case, dtype) for _, case, dtype in together]
        hardware = by_call(parse_ncu(stood_in(counted))) if options.stand_in else measured(together)
        for (_, case, dtype), model, found in zip(together, counted, hardware, strict=True):
            for row in compare(case.name, dtype, model, found):
                rows.append(row)
                differs = row.differs(options.tolerance)
                text = json.dumps({**asdict(row), "differs": differs}) if options.rows else show(row, differs)
                print(text, flush=True)
    differing = sum(row.differs(options.tolerance) for row in rows)
    print(f"{len(rows)} counters of {len({(row.case, row.dtype) for row in rows})} calls; {differing} differ")
    if options.json:
        record.write(options.json, "calibrate_profile", [asdict(row) for row in rows], "cuda")


def count(case: Any, dtype: str) -> dict[str, dict[str, tuple[float, float | None]]]:
    """What the profiler counts of a call, by kernel and counter."""
    from gpucnn import profile

    with profile.capture(kernel=case.kernel) as runs:
        case.run(dtype)
    return modelled(launch for run in runs for launch in run.launches)


if __name__ == "__main__":
    main()
