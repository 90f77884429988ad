"""What running kernels on the CPU costs: a fiber switch, barriers, warp operations, a tiled convolution.

    python benchmarks/simt_speed.py [--flavours plain,race] [--rounds 15] [--json FILE]

Kernels are those of simt_speed.cu, compiled as the package compiles its own. A figure is the median of the rounds, each
a launch; beside it the best of them and the range of their middle half.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import record
from tabulate import tabulate

from gpucnn.bench.turns import spread

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "_build"), str(ROOT / "tools")]

from simt_library import build  # noqa: E402

from cuda_toolkit import host_compiler  # noqa: E402

SWITCHES, TIMES, PRODUCTS = 128 * 20_000, 2000, 5000
N, H, W, C, K = 2, 14, 14, 32, 32


def passed(value: np.ndarray | int) -> Any:
    return ctypes.c_void_p(value.ctypes.data) if isinstance(value, np.ndarray) else ctypes.c_int(value)


def measured(library: ctypes.CDLL, flavour: str) -> Iterator[tuple[str, str, Callable[[], float]]]:
    """(what, unit, one measurement in that unit)."""

    def function(name: str) -> Callable[..., float]:
        found = getattr(library, name)
        found.restype = ctypes.c_double
        return lambda *arguments: float(found(*map(passed, arguments)))

    result = np.zeros(1024, np.int32)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((N, H, W, C), np.float32)
    weight = generator.standard_normal((K, 3, 3, C), np.float32)
    y = np.empty((N, H, W, K), np.float32)
    if flavour == "plain":  # elsewhere the loop around it is instrumented
        yield "fiber switch, alone", "ns", lambda: function("switches")(SWITCHES // 128) / SWITCHES * 1e9
    for threads in (32, 128, 1024):
        yield (
            f"__syncthreads(), {threads} threads, each",
            "ns",
            lambda threads=threads: function("barriers")(threads, TIMES) / TIMES / threads * 1e9,
        )
    yield "__shfl_xor_sync(), a lane", "ns", lambda: function("shuffles")(32, TIMES, result) / TIMES / 32 * 1e9
    yield "mma_m16n8k16_bf16, a warp", "us", lambda: function("products")(PRODUCTS, result) / PRODUCTS * 1e6
    yield "launch of 32 threads", "us", lambda: function("barriers")(32, 0) * 1e6
    yield "conv 3x3, N2 C32 14x14 K32", "ms", lambda: function("convolution")(x, weight, y, N, H, W, C, K) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flavours", default="plain,race", help="of the SIMT layer (default: plain,race)")
    parser.add_argument("--rounds", type=int, default=15, help="launches a figure is the median of (default: 15)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    options = parser.parse_args()
    compiler = host_compiler(os.environ)
    if compiler is None:
        raise SystemExit("no C++ compiler (g++): kernels for the CPU are compiled with one")
    rows: list[dict[str, Any]] = []
    for flavour in options.flavours.split(","):
        library = ctypes.CDLL(str(build("simt_speed", flavour, compiler, ["benchmarks/simt_speed.cu"])))
        for what, unit, measure in measured(library, flavour):
            measure()
            times = [measure() for _ in range(options.rounds)]
            figures = {"median": median(times), "best": min(times), "spread": spread(times)}
            rows.append({"flavour": flavour, "what": what, "unit": unit, **figures})
    table = [[*list(row.values())[:3], *(f"{figure:.3g}" for figure in list(row.values())[3:])] for row in rows]
    print(tabulate(table, headers=list(rows[0])))
    if options.json:
        record.write(options.json, "simt_speed", rows)


if __name__ == "__main__":
    main()
