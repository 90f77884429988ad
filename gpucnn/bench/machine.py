"""What a benchmark runs on: the device by name, and its ceilings, measured in the same run.

The roofline of S. Williams, A. Waterman and D. Patterson ("Roofline: an insightful visual performance model for
multicore architectures", Communications of the ACM 52, 2009), with what a copy and a large product of matrices reach
here and now in place of a data sheet's peaks.
"""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.bench.turns import cores

_COPIED = {"cpu": 256 << 20, "cuda": 1 << 30}
"""Bytes of the largest array that is copied."""
_SMALLEST = 1 << 16
_TRIES = 7
_PRODUCT = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""


@dataclass
class Machine:
    """A device, and its ceilings as far as they were asked for.

    Attributes:
        kind: "cpu" or "cuda".
        name: of the processor or the GPU.
        details: cores; or capability, multiprocessors, memory, driver, CUDA, clocks.
        bandwidth: bytes a second, read and written, that a copy reaches, by the bytes of its working set.
        rates: floating-point operations a second of a product of matrices, by what is multiplied: float32, tf32,
            bfloat16, float16, float64.
    """

    kind: str
    name: str
    details: dict[str, Any]
    bandwidth: dict[int, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for JSON."""
        return asdict(self)

    def bytes_per_second(self, moved: float) -> float:
        """What a copy whose working set is of `moved` bytes reaches: on a CPU its caches hold small ones; on a GPU
        they are flushed before each sample."""
        if not self.bandwidth:
            self.bandwidth = _gpu_bandwidth() if self.kind == "cuda" else _cpu_bandwidth()
        return self.bandwidth[min((size for size in self.bandwidth if size >= moved), default=max(self.bandwidth))]

    def operations_per_second(self, dtype: str, precision: str = "highest") -> float:
        """What a product of matrices of `dtype` reaches, in float32's case at this precision."""
        factors = "tf32" if dtype == "float32" and precision == "high" and self.kind == "cuda" else dtype
        if factors not in self.rates:
            self.rates[factors] = _gpu_rate(factors) if self.kind == "cuda" else _cpu_rate(factors)
        return self.rates[factors]

    def bound(self, moved: float, operations: float, dtype: str, precision: str = "highest") -> tuple[float, str]:
        """(seconds, "bytes" or "operations"): the least that moving `moved` bytes and computing `operations` needs."""
        by_bytes = moved / self.bytes_per_second(moved)
        by_operations = operations / self.operations_per_second(dtype, precision) if operations else 0.0
        return (by_bytes, "bytes") if by_bytes >= by_operations else (by_operations, "operations")


def here(device: str) -> Machine:
    """The machine that arrays on `device` are computed on. Raises RuntimeError where there is no such GPU."""
    kind, index = backend.parse_device(device)
    if kind == "cpu":
        return Machine("cpu", cpu_name(), {"cores": cores(), "system": platform.platform()})
    runtime = backend.cupy().cuda.runtime
    found = runtime.getDeviceProperties(index)
    details = {
        "capability": f"{found['major']}.{found['minor']}",
        "multiprocessors": int(found["multiProcessorCount"]),
        "memory": int(found["totalGlobalMem"]),
        "l2": int(found["l2CacheSize"]),
        "cuda driver": runtime.driverGetVersion(),
        "cuda runtime": runtime.runtimeGetVersion(),
        "host": cpu_name(),
        "cores": cores(),
        **_from_driver(index),
    }
    return Machine("cuda", found["name"].decode(), details)


def cpu_name() -> str:
    """As the system has it, else the architecture."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


_ASKED = (
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "temperature.gpu",
    "mig.mode.current",
)


def _from_driver(index: int) -> dict[str, str]:
    """Driver, clocks and limits as nvidia-smi has them; empty where it is not there."""
    command = ["nvidia-smi", f"--id={index}", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(_ASKED, (text.strip() for text in answer.split(",")), strict=False))


def _best(run: Callable[[], Any]) -> float:
    """The seconds of the fastest try: a ceiling is what can be reached."""
    seconds = []
    run()
    for _ in range(_TRIES):
        before = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - before)
    return min(seconds)


def _cpu_bandwidth() -> dict[int, float]:
    """Of copies by as many threads as there are cores, each with its share of the working set."""
    found = {}
    count = cores()
    source = np.ones(_COPIED["cpu"] // 2, np.uint8)
    target = np.empty_like(source)
    with ThreadPoolExecutor(count) as pool:
        size = _SMALLEST
        while size <= _COPIED["cpu"]:
            part = size // 2 // count
            times = max(1, (8 << 20) // size)

            def copy(thread: int, part: int = part, times: int = times) -> None:
                piece = slice(thread * part, (thread + 1) * part)
                for _ in range(times):
                    np.copyto(target[piece], source[piece])

            def copy_all(copy: Callable[[int], None] = copy) -> None:
                list(pool.map(copy, range(count)))

            found[size] = 2 * part * count * times / _best(copy_all)
            size *= 4
    return found


def _cpu_rate(factors: str) -> float:
    """numpy's float32 and float64; of 16-bit factors, which array code multiplies as float32, PyTorch's if that is
    installed and faster: processors may have units of their own for them."""
    dtype = np.dtype(np.float64 if factors == "float64" else np.float32)
    side = _PRODUCT["cpu"]
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((side, side), np.float32).astype(dtype) for _ in range(2))
    out = np.empty_like(a)
    seconds = _best(lambda: np.matmul(a, b, out=out))
    if factors in ("bfloat16", "float16") and importlib.util.find_spec("torch") is not None:
        import torch

        x, y = (torch.from_numpy(each).to(getattr(torch, factors)) for each in (a, b))
        seconds = min(seconds, _best(lambda: torch.matmul(x, y)))
    return 2 * side**3 / seconds


def _events(run: Callable[[], Any]) -> float:
    """The seconds of the fastest try on the GPU."""
    cuda = backend.cupy().cuda
    start, stop = cuda.Event(), cuda.Event()
    seconds = []
    run()
    for _ in range(_TRIES):
        start.record()
        run()
        stop.record()
        stop.synchronize()
        seconds.append(1e-3 * float(cuda.get_elapsed_time(start, stop)))
    return min(seconds)


def _gpu_bandwidth() -> dict[int, float]:
    cupy = backend.cupy()
    source = cupy.arange(_COPIED["cuda"] // 8, dtype=np.int64)
    target = cupy.empty_like(source)
    return {2 * source.nbytes: 2 * source.nbytes / _events(lambda: cupy.copyto(target, source))}


def _gpu_rate(factors: str) -> float:
    """cuBLAS's, through PyTorch where it is installed (it has bfloat16 and says which precision), else through cupy."""
    side = _PRODUCT["cuda"]
    operations = 2 * side**3
    try:
        import torch
    except ImportError:
        return operations / _events(_cupy_product(factors, side))
    dtype = {"tf32": torch.float32}.get(factors) or getattr(torch, factors)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = factors == "tf32"
    try:
        device = f"cuda:{backend.cupy().cuda.Device().id}"
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return operations / _events(lambda: torch.matmul(a, b, out=out))  # cupy's stream and PyTorch's are the default
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _cupy_product(factors: str, side: int) -> Callable[[], Any]:
    cupy = backend.cupy()
    if factors in ("tf32", "bfloat16"):
        raise RuntimeError(f"the rate of products of {factors} is measured through PyTorch, which is not installed")
    rng = np.random.default_rng(0)
    a, b = (cupy.asarray(rng.standard_normal((side, side), np.float32).astype(factors)) for _ in range(2))
    return lambda: cupy.matmul(a, b)
