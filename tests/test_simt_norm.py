"""Batch, instance and group norm on the CPU: every pass against the truth, in any order of threads, the same bits."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Planted, sample
from norm_kernel_checks import ALL, INF, Case, batch, check, numbers, results, truth
from op_checks import SEED, draw

from gpucnn.ops import norm as ops
from gpucnn.ops.compiled import FLOATS
from gpucnn.reference.norm_problem import NormProblem, Wanted
from gpucnn.testing import assert_close, assert_equal, naive, tolerance
from gpucnn.testing.pairwise import pairwise

CORNERS = [
    *(Case(batch(M, 8, INF), residual=True) for M in (1, 2, 7, 31, 32, 33, 127, 128, 129)),
    *(
        Case(batch(33, C, INF), FLOATS[C % 3], running=True)
        for C in (1, 2, 3, 4, 5, 7, 8, 12, 16, 31, 32, 33, 127, 129)
    ),
    *(Case(batch(19, C), FLOATS[C % 3]) for C in (24, 68, 80, 96, 128, 132, 136, 144, 160, 192, 320, 520, 2048)),
    Case(batch(2, 2048, INF), residual=True),  # more threads along a row than there are rows for
    Case(batch(1, 2056), "float16"),
    *(Case(batch(M, 4, 6.0), FLOATS[M % 3], running=True) for M in (1000, 2048, 2049)),  # several splits
    Case(batch(5000, 3, INF), residual=True, running=True),
    Case(batch(5000, 32), running=True),  # 10 and 18 splits: blocks of 512 and of 1,024 threads merge them
    Case(batch(9000, 32, INF), residual=True),
    Case(batch(4100, 8, INF), "bfloat16", residual=True),
    Case(batch(37, 12, INF, None), running=True, residual=True),
    Case(batch(37, 5, None, None), running=True),
    Case(batch(300, 16, 6.0, None), "float16", running=True, wanted=Wanted(True, False, False, True)),
    Case(NormProblem(5, 12, 6, 6, limit=INF, momentum=0.5), running=True, residual=True),
    Case(NormProblem(5, 12, 6, 2)),
    Case(NormProblem(3, 49, 8, 1, limit=6.0), "float16"),
    Case(NormProblem(2, 1, 12, 3), affine=False),
    Case(NormProblem(2, 300, 96, 2), "bfloat16"),
    Case(NormProblem(40, 4, 4, 4)),
    Case(NormProblem(3, 1100, 4, 2)),
    Case(NormProblem(0, 4, 8, 8), running=True),
    Case(NormProblem(2, 0, 8, 4)),
    Case(batch(0, 8, INF), running=True, residual=True),
]

_FACTORS: dict[str, list[Any]] = {
    "B": [1, 1, 2, 5],
    "M": [1, 2, 16, 30, 65, 150, 700],
    "C": [1, 3, 4, 6, 8, 16, 24, 33, 64, 140],
    "grouped": [False, False, True],
    "limit": [None, INF, 6.0],
    "momentum": [0.0, 0.3, None],
    "dtype": list(FLOATS),
    "affine": [True, False],
    "running": [True, False],
    "residual": [True, False],
    "wanted": [ALL, Wanted(True, False, False, True), Wanted(False, True, True), Wanted(True, False, False)],
}


def _case(choice: dict[str, Any]) -> Case:
    B, M, C = choice["B"], choice["M"], choice["C"]
    own = choice["momentum"] is not None
    groups = C if not own or choice["running"] or not choice["grouped"] else next(g for g in (3, 2, 1) if C % g == 0)
    p = NormProblem(B if own else 1, M, C, groups, 1e-5, choice["momentum"], choice["limit"])
    wanted = choice["wanted"] if choice["residual"] else choice["wanted"]._replace(residual=False)
    running = choice["running"] or not own
    return Case(p, choice["dtype"], choice["affine"], running, choice["residual"], wanted)


CASES = [*CORNERS, *map(_case, pairwise(_FACTORS, SEED))]


@pytest.mark.parametrize("order", ORDERS)
def test_every_pass_in_any_order(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for case in sample(simt.flavour, CASES) if order == "fwd" else sample(simt.flavour, CASES)[:: len(ORDERS)]:
        check(simt, case)


def exact(module: ModuleType, p: NormProblem, dtype: str) -> None:
    """Small integers by statistics that are dyadic fractions: everything comes out exactly."""
    images, sets = (p.B, p.M, p.C), (p.B, p.C)
    n = {name: draw("integers", images, number) for number, name in enumerate(("x", "dy", "residual"))}
    weight, bias = draw("integers", (p.C,), 3), draw("integers", (p.C,), 4)
    mean, inverse = draw("integers", sets, 5), np.full(sets, 0.5)
    y = (n["x"] - mean[:, None]) * 0.5 * weight + bias + n["residual"]
    y = y if p.limit is None else np.clip(y, 0, p.limit)
    open_ = np.ones(images) if p.limit is None else (y > 0) & (y < p.limit)
    g, away = n["dy"] * open_, n["x"] - mean[:, None]
    h, z = g * weight, away * 0.5
    shared = (p.B, 1, 1, p.groups, -1)

    def average(values: np.ndarray) -> np.ndarray:
        if p.momentum is None:
            return np.zeros(images)
        means = values.reshape(p.B, p.M, p.groups, -1).mean(axis=(1, 3)).reshape(shared)
        return np.broadcast_to(means, (p.B, 1, 1, p.groups, p.C // p.groups)).reshape(p.B, 1, p.C)  # type: ignore[no-any-return]

    right = {
        "y": y,
        "dx": 0.5 * (h - average(h) - z * average(h * z)),
        "dweight": (g * z).sum(axis=(0, 1)),
        "dbias": g.sum(axis=(0, 1)),
        "passed": g,
    }
    case = Case(p, dtype, True, p.momentum is None, True)
    n |= {"weight": weight, "bias": bias, "running_mean": mean[0], "running_var": np.full(p.C, 4 - p.eps)}
    t = {"mean": mean, "inverse": inverse, "saved y": y}
    found = results(module, case, n, t)
    for name, expected in right.items():
        array = found[name]
        if array is None or (name == "y" and p.momentum is not None):
            continue
        rounded = expected.astype(array.dtype)
        assert_equal(array, rounded, signed_zeros=False, name=f"{case}: {name}")


def test_integers_come_out_exactly(simt: ModuleType) -> None:
    problems = [
        *(NormProblem(1, M, C, C, 1.0, None, limit) for M, C, limit in ((33, 8, None), (129, 5, INF), (1500, 4, 6.0))),
        *(NormProblem(1, M, C, C, 1.0, 0.5, limit) for M, C, limit in ((32, 8, None), (128, 5, INF), (2048, 4, 6.0))),
        NormProblem(3, 16, 8, 2, 1.0, 0.5, INF),
        NormProblem(4, 8, 16, 16, 1.0, 0.5, None),
    ]
    for number, p in enumerate(sample(simt.flavour, problems)):
        exact(simt, p, FLOATS[number % 3])


def test_small_problems_against_plain_loops(simt: ModuleType) -> None:
    for B, M, C, groups in ((1, 12, 5, 5), (3, 6, 8, 8), (2, 7, 8, 2), (2, 4, 6, 1)):
        case = Case(NormProblem(B, M, C, groups))
        n = numbers(case)
        x, dy = (n[name].transpose(0, 2, 1) for name in ("x", "dy"))
        y = naive.group_norm(x, groups, n["weight"], n["bias"])
        dx, dweight, dbias = naive.group_norm_grad(dy, x, groups, n["weight"])
        found = results(simt, case, n, truth(case))
        right = {"y": y.transpose(0, 2, 1), "dx": dx.transpose(0, 2, 1), "dweight": dweight, "dbias": dbias}
        for name, expected in right.items():
            array = found[name]
            assert array is not None
            assert_close(array, expected, rtol=1e-5, atol=1e-5, name=f"{case}: {name}")


# ----------------------------------------------------------------------------------------------- the same bits


def test_one_order_has_the_bits_of_another(simt: ModuleType) -> None:
    cases = [Case(batch(2100, 8, INF), residual=True, running=True), Case(NormProblem(2, 33, 12, 3), "float16")]
    for case in cases if simt.flavour == "plain" else cases[1:]:
        runs = []
        for order in (*ORDERS, "fwd"):
            simt.set_order(order)
            found = results(simt, case, numbers(case), truth(case))
            runs.append(b"".join(array.tobytes() for array in found.values() if array is not None))
        assert len(set(runs)) == 1, case


def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType) -> None:
    x, dy = (draw("normal", (6, 300, 8), number).astype(np.float32) for number in range(2))

    def run(some: slice) -> tuple[np.ndarray, ...]:
        p = NormProblem(len(x[some]), 300, 8, 4, limit=INF)
        y, mean, inverse = ops.fprop(p, x[some], None, None, None, None, like=x)
        return y, mean, inverse, ops.bprop(p, dy[some], x[some], y, None, mean, inverse, ALL, like=x)[0]

    for whole, alone in zip(run(slice(0, 6)), run(slice(4, 5)), strict=True):
        assert_equal(whole[4:5], alone)


@pytest.mark.parametrize("start", [1, 2, 3])
@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_that_is_not_aligned_to_16_bytes(simt: ModuleType, start: int, dtype: str) -> None:
    """Every array lies `start` elements off; results are those of aligned arrays, but for the order of sums."""
    p = batch(200, 16, INF)
    n = numbers(Case(p, dtype))

    def off(array: np.ndarray) -> np.ndarray:
        memory = np.empty(array.size + start, dtype)
        moved = memory[start:].reshape(array.shape)
        moved[...] = array
        return moved

    outcomes = []
    for place in (lambda array: np.array(array, dtype), off):
        x, dy, residual = (place(n[name]) for name in ("x", "dy", "residual"))
        y, mean, inverse = ops.fprop(p, x, None, None, None, residual, like=x)
        outcomes.append(
            (y, *ops.bprop(p, dy, x, place(outcomes[0][0] if outcomes else y), None, mean, inverse, ALL, like=x))
        )
    for one, other in zip(*outcomes, strict=True):
        allowed = tolerance(one.dtype, 200)
        assert_close(one, np.asarray(other, np.float64), rtol=allowed, atol=allowed * 50)


# ------------------------------------------------------------------------------------------------- wrong kernels

WRONG: dict[str, dict[str, Any]] = {
    "fprop: last row forgotten": {
        "norm_fprop": lambda run, *a: (run(*a), a[8][:, -1].fill(math.nan)),
    },
    "fprop: no residual": {"norm_fprop": lambda run, *a: run(*a[:7], None, *a[8:])},
    "fprop: not cut": {"norm_fprop": lambda run, p, *a: run(replace(p, limit=None), *a)},
    "fprop: variance unbiased": {"norm_fprop": lambda run, p, *a: (run(p, *a), np.multiply(a[9], 0.99, out=a[9]))},
    "fprop: running statistics stay": {"norm_fprop": lambda run, p, *a: run(replace(p, momentum=0.0), *a)},
    "bprop: dy passes everywhere": {"norm_bprop": lambda run, p, *a: run(replace(p, limit=None), *a)},
    "bprop: without statistics": {"norm_bprop": lambda run, p, *a: run(replace(p, momentum=None), *a)},
    "bprop: dweight of weightless": {"norm_bprop": lambda run, *a: run(*a[:5], None, *a[6:])},
    "bprop: dbias unwritten": {"norm_bprop": lambda run, *a: (run(*a), a[10][-1:].fill(math.nan))},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = Case(batch(45, 8, INF), running=True, residual=True)
    check(simt, case)
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check(Planted(simt, **WRONG[wrong]), case)
