"""The profiler's counts beside those of NVIDIA's hardware profiler (ncu) for the same launches, on a GPU.

    python benchmarks/calibrate_profile.py [--only conv2d,linear] [--json FILE]

For each call of tests/budget_cases.py: counted by the flavour `profile` of the kernels on the CPU, and by ncu while the
same call runs on the GPU. A line compares one counter of one kernel; what differs by more than --tolerance is marked.
Needs a GPU, ncu, the CUDA extension, and GPUCNN_SIMT=profile. Until a record of it is in results/, tables of counts say
"model, not calibrated".
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
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


def measured(case: int, dtype: str) -> dict[str, dict[str, float]]:
    """By kernel and counter, what ncu counts while a child process runs the case on the GPU."""
    command = [
        *("ncu", "--csv", "--page", "raw", "--metrics", ",".join(METRICS.values()), "--kernel-name-base", "demangled"),
        *(sys.executable, __file__, "--run", f"{case}:{dtype}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"ncu failed ({done.returncode}) on case {case}, {dtype}:\n{done.stdout}{done.stderr}")
    found: dict[str, dict[str, float]] = {}
    for name, counts in parse_ncu(done.stdout):
        into = found.setdefault(plain_name(name), {})
        for counter, value in counts.items():
            before = into.get(counter, 0.0)
            into[counter] = max(before, value) if counter == "registers" else before + value
    return found


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="ops, separated by commas")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()

    from budget_cases import cases

    import gpucnn
    from gpucnn import profile

    every = list(cases())
    if options.run:
        number, _, dtype = options.run.partition(":")
        with gpucnn.use_backend("cuda", strict=True):
            every[int(number)].run(dtype)
        return
    if shutil.which("ncu") is None:
        raise SystemExit("ncu is not installed: it comes with the CUDA toolkit (Nsight Compute)")
    only = {name for name in options.only.split(",") if name}
    rows: list[Row] = []
    for number, case in enumerate(every):
        for dtype in case.dtypes:
            if (only and case.op not in only) or dtype not in options.dtypes.split(","):
                continue
            with profile.capture(kernel=case.kernel) as runs:
                case.run(dtype)
            model = modelled(launch for run in runs for launch in run.launches)
            rows += compare(case.name, dtype, model, measured(number, dtype))
            for row in [row for row in rows if row.case == case.name and row.dtype == dtype]:
                mark = "DIFFERS" if row.differs(options.tolerance) else ""
                most = "" if row.most is None else f" to {row.most:.0f}"
                model_text = "-" if row.model is None else f"{row.model:.0f}{most}"
                print(f"{row.dtype:9} {row.kernel:45} {row.counter:22} {model_text:>22} {row.hardware:14.0f} {mark}")
    differing = sum(row.differs(options.tolerance) for row in rows)
    print(f"{len(rows)} counters of {len({(row.case, row.dtype) for row in rows})} calls; {differing} differ")
    if options.json:
        record.write(options.json, "calibrate_profile", [asdict(row) for row in rows], "cuda")


if __name__ == "__main__":
    main()
