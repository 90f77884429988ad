"""Local response norm on the CPU: every pass against the truth, in any order of threads."""

from __future__ import annotations

import functools
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from norm_checks import rms
from op_checks import draw

from gpucnn.ops.compiled import FLOATS
from gpucnn.reference import local_response_norm
from gpucnn.reference.local_response_norm import LocalResponseProblem
from gpucnn.testing import assert_close, tolerance

COLUMNS = [1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 96, 127, 128, 129, 255, 256, 257, 1000, 1023, 1024, 1025, 1028, 1032, 2304]
"""Across a pack of 4 or 8, a warp's 32, what it holds in registers (1,024), a block's 256 packs."""


def rounded(arrays: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """What every dtype of the call holds."""
    return {name: array.astype(dtype).astype(np.float64) for name, array in arrays.items()}


Local = tuple[int, int, int, str]
"""Rows, channels, size of the window, dtype."""

LOCAL: list[Local] = [
    *((7, channels, 5, FLOATS[number % 3]) for number, channels in enumerate(COLUMNS)),
    *((40, 16, size, FLOATS[size % 3]) for size in (1, 2, 3, 4, 5, 15, 16, 17, 33, 100)),
    *((rows, 96, 5, "float32") for rows in (1, 2, 20, 21, 22, 43)),  # 21 rows a block
    (2, 2049, 3, "float32"),
    (1, 2056, 4, "float16"),
    (0, 8, 5, "float32"),
    (3, 0, 5, "float32"),
]
NUMBERS = {"alpha": 0.7, "beta": 0.75, "k": 2.0}


@functools.cache
def local_truth(case: Local) -> dict[str, np.ndarray]:
    """Of the reference in float64, which test_local_response_norm.py holds against plain loops."""
    rows, channels, size, dtype = case
    p = LocalResponseProblem(size, **NUMBERS)
    n = rounded({"x": draw("normal", (rows, channels)) * 2, "dy": draw("normal", (rows, channels), 1)}, dtype)
    empty = not rows * channels
    y = n["x"] if empty else local_response_norm.fprop(p, n["x"])
    return n | {"y": y, "dx": n["x"] if empty else local_response_norm.dgrad(p, n["dy"], n["x"])}


def local_results(module: Any, case: Local) -> dict[str, np.ndarray]:
    __tracebackhide__ = True
    rows, channels, size, dtype = case
    t, memory = local_truth(case), Memory()
    x, dy = memory.given("x", t["x"], dtype), memory.given("dy", t["dy"], dtype)
    y, dx = memory.wanted("y", (rows, channels), dtype), memory.wanted("dx", (rows, channels), dtype)
    module.local_response_fprop(dtype, size, *NUMBERS.values(), x, y, 0)
    module.local_response_dgrad(dtype, size, *NUMBERS.values(), dy, x, dx, 0)
    memory.check(f"{case}")
    return {"y": y, "dx": dx}


def check_local(module: Any, case: Local) -> None:
    __tracebackhide__ = True
    t = local_truth(case)
    for name, found in local_results(module, case).items():
        allowed = tolerance(found.dtype, 2 * min(case[2], case[1]) + 8)
        large = 1.0 if name == "y" else 2 * (1 + rms(t["dy"]))
        assert_close(found, t[name], rtol=allowed, atol=allowed * large, name=f"{case}: {name}")


@pytest.mark.parametrize("order", ORDERS)
def test_local_response_norm_in_any_order(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for case in sample(simt.flavour, LOCAL) if order == "fwd" else sample(simt.flavour, LOCAL)[:: len(ORDERS)]:
        check_local(simt, case)


@pytest.mark.parametrize("power", [{"beta": 0.0}, {"beta": -1.0}, {"k": 0.0, "alpha": 0.0}, {"alpha": -1.0}])
def test_numbers_outside_the_usual_are_the_references(simt: ModuleType, power: dict[str, float]) -> None:
    numbers = NUMBERS | power
    x, dy = (draw("normal", (5, 12), stream).astype(np.float32) for stream in range(2))
    x[1, 2], x[2, 3], x[3, 4], x[4] = math.inf, math.nan, -0.0, 0.0
    y, dx = np.empty_like(x), np.empty_like(x)
    simt.local_response_fprop("float32", 3, *numbers.values(), x, y, 0)
    simt.local_response_dgrad("float32", 3, *numbers.values(), dy, x, dx, 0)
    with np.errstate(all="ignore"):
        p = LocalResponseProblem(3, **numbers)
        assert_close(y, local_response_norm.fprop(p, x), rtol=1e-4, atol=1e-5, equal_nan=True)
        assert_close(dx, local_response_norm.dgrad(p, dy, x), rtol=1e-4, atol=1e-4, equal_nan=True)


def test_one_order_has_the_bits_of_another(simt: ModuleType) -> None:
    runs = []
    for order in (*ORDERS, "fwd"):
        simt.set_order(order)
        runs.append(b"".join(array.tobytes() for array in local_results(simt, (30, 96, 5, "float16")).values()))
    assert len(set(runs)) == 1


@pytest.mark.parametrize(
    "bindings",
    [
        {"local_response_fprop": lambda run, d, size, *rest: run(d, size + 1, *rest)},
        {"local_response_fprop": lambda run, d, size, a, b, *rest: run(d, size, a * size, b, *rest)},
        {"local_response_dgrad": lambda run, d, size, a, b, k, dy, x, *rest: run(d, 1, a, b, k, dy, x, *rest)},
        {"local_response_dgrad": lambda run, *a: (run(*a), a[7][-1, -1:].fill(math.nan))},
    ],
    ids=["window", "alpha not divided", "own channel alone", "unwritten"],
)
def test_a_wrong_local_response_norm_is_caught(simt: ModuleType, bindings: Any) -> None:
    check_local(simt, (7, 24, 4, "float32"))
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check_local(Planted(simt, **bindings), (7, 24, 4, "float32"))
