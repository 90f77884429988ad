"""Unfold and fold on the CPU: both kernels of each against the truth, in any order of threads, and what their bindings
refuse."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, askew, sample
from op_checks import NCHW, SEED, compare, draw, frozen, nhwc

from gpucnn.ops.compiled import FLOATS
from gpucnn.problem import Pool2dProblem, unfold_problem
from gpucnn.reference import unfold as reference
from gpucnn.testing import assert_equal, naive, pairwise

Case = tuple[tuple[int, int, int, int], tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]
"""N, C, H, W; kernel, dilation, padding, stride."""

CASES: list[Case] = [  # 16 channels and more are turned in tiles of 32 x 32, and lines too long for shared memory
    ((2, 3, 5, 6), (3, 2), (1, 1), (0, 0), (1, 1)),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    ((2, 15, 5, 6), (5, 6), (1, 1), (0, 0), (1, 1)),
    ((0, 16, 5, 6), (3, 3), (1, 1), (0, 0), (1, 1)),
    ((0, 2, 5, 6), (3, 3), (1, 1), (0, 0), (1, 1)),
    ((2, 16, 7, 5), (3, 3), (1, 1), (1, 1), (1, 1)),
    ((1, 33, 6, 6), (2, 2), (1, 1), (0, 0), (2, 2)),
    ((1, 32, 8, 9), (3, 3), (2, 1), (2, 1), (1, 2)),
    ((1, 20, 9, 9), (2, 2), (1, 1), (0, 0), (4, 3)),  # cells that no window sees
    ((1, 17, 2, 3), (3, 3), (1, 1), (4, 4), (1, 1)),  # windows that see nothing
    ((2, 65, 1, 33), (1, 3), (1, 2), (0, 2), (1, 1)),
    ((1, 2, 4, 129), (2, 5), (1, 1), (0, 3), (2, 1)),
    ((1, 1, 33, 40), (3, 3), (1, 1), (1, 1), (1, 1)),  # few channels: windows of two blocks
    ((1, 1, 4, 3000), (1, 1), (1, 1), (0, 0), (1, 3)),  # lines of which fewer windows share what fits
    ((1, 3, 2, 4100), (2, 2), (1, 1), (0, 0), (1, 4)),  # and which do not fit: tiles
]


def problem_of(case: Case) -> Pool2dProblem:
    return unfold_problem("unfold", *case)


def fits(factors: dict[str, Any]) -> bool:
    try:
        return problem_of(made(factors)) is not None
    except ValueError:
        return False


def made(f: dict[str, Any]) -> Case:
    return (f["N"], f["C"], f["H"], f["W"]), f["kernel"], f["dilation"], f["padding"], f["stride"]


FACTORS = {
    "N": (1, 2),
    "C": (1, 4, 16, 33),
    "H": (1, 3, 7),
    "W": (1, 5, 8),
    "kernel": ((1, 1), (2, 2), (3, 3), (1, 4)),
    "dilation": ((1, 1), (2, 2), (1, 3)),
    "padding": ((0, 0), (1, 1), (3, 2)),
    "stride": ((1, 1), (2, 2), (3, 1)),
}
CASES += [made(factors) for factors in pairwise(FACTORS, SEED, fits)]


@functools.cache
def truth(case: Case, kind: str) -> dict[str, np.ndarray]:
    """x and its columns; other columns and the image that they fold to."""
    x = draw(kind, case[0])
    columns = naive.unfold(x, *case[1:])
    others = draw(kind, columns.shape, 1)
    return {"x": x, "columns": columns, "others": others, "image": naive.fold(others, case[0][2:], *case[1:])}


def check(module: Any, case: Case, kind: str, dtype: str) -> None:
    """Both ways: nothing unwritten, nothing else written, every element right; what is only moved exactly."""
    __tracebackhide__ = True
    t, p, memory, call = truth(case, kind), problem_of(case), Memory(), f"{case} {kind} {dtype}"
    x, others = memory.given("x", t["x"], dtype), memory.given("others", t["others"], dtype)
    columns, image = memory.wanted("columns", others.shape, dtype), memory.wanted("image", x.shape, dtype)
    module.unfold(p, dtype, x, columns, 0)
    module.fold(p, dtype, others, image, 0)
    memory.check(call)
    assert_equal(columns, t["columns"].astype(dtype), signed_zeros=False, name=f"{call}: columns")
    exact = kind == "integers"
    compare(image.transpose(NCHW), t["image"], p.R * p.S, f"{call}: image", exact=exact)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["integers", "normal"])
def test_both_ways(simt: ModuleType, order: str, kind: str) -> None:
    simt.set_order(order)
    start = ORDERS.index(order) + len(kind)
    for number, case in enumerate(sample(simt.flavour, CASES), start):
        check(simt, case, kind, FLOATS[number % 3])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("order", ORDERS[:2])
def test_tiles_are_turned(simt: ModuleType, order: str, dtype: str) -> None:
    simt.set_order(order)
    for case in (*CASES[5:11], CASES[14]):
        check(simt, case, "integers", dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_folds_round_as_the_references_do(simt: ModuleType, dtype: str) -> None:
    """Windows that overlap add up in the order of the taps: the same bits; wherever the arrays lie."""
    for case in sample(simt.flavour, CASES):
        p, others = problem_of(case), frozen(draw("normal", truth(case, "normal")["others"].shape, 3), dtype)
        image = askew(np.zeros((p.N, p.H, p.W, p.C), others.dtype))
        simt.fold(p, dtype, askew(others), image, 0)
        assert_equal(image, reference.fold(p, others), signed_zeros=False, name=f"{case} {dtype}")


def test_infinities_stay_where_they_are(simt: ModuleType) -> None:
    for case in (CASES[0], CASES[5]):
        p, x = problem_of(case), nhwc(draw("integers", case[0]), "float32").copy()
        x[0, 1, 2], x[0, 2, 3, ::2] = math.inf, math.nan
        columns = np.empty((p.N, p.C * p.R * p.S, p.P * p.Q), np.float32)
        simt.unfold(p, "float32", x, columns, 0)
        assert_equal(columns, reference.unfold(p, x), signed_zeros=False)
        image = np.empty_like(x)
        simt.fold(p, "float32", columns, image, 0)
        assert_equal(image, reference.fold(p, columns), signed_zeros=False)


WRONG: dict[str, tuple[str, Any]] = {
    "dilation": ("unfold", lambda run, p, *a: run(replace(p, dilation=(1, 1)), *a)),
    "not turned": (
        "unfold",
        lambda run, p, dtype, x, columns, s: (run(p, dtype, x, columns, s), np.copyto(columns, columns[:, ::-1])),
    ),
    "overlap": ("fold", lambda run, p, dtype, columns, x, s: (run(p, dtype, columns, x, s), np.clip(x, -4, 4, out=x))),
    "unwritten": (
        "fold",
        lambda run, p, dtype, columns, x, s: (run(p, dtype, columns, x, s), x.reshape(-1)[-1:].fill(math.nan)),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    name, run = WRONG[wrong]
    with pytest.raises(AssertionError, match="elements are wrong"):
        check(Planted(simt, **{name: run}), CASES[7], "integers", "float32")


def test_what_does_not_fit_is_refused_and_nothing_is_written(simt: ModuleType) -> None:
    p = unfold_problem("unfold", (2, 3, 5, 6), (3, 2), 1, 0, 1)
    x, columns, f32 = np.zeros((2, 5, 6, 3), np.float32), np.full((2, 18, 15), 7, np.float32), "float32"
    calls: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
        ("unfold", (p, f32, x[:1], columns), ValueError, r"'x' .*\(N,H,W,C\)"),
        ("unfold", (p, f32, x, columns[:, :9]), ValueError, r"'columns' .*(C-contiguous|\(N,C\*R\*S,P\*Q\))"),
        ("unfold", (p, f32, x, columns.reshape(2, 15, 18)), ValueError, r"'columns' .*\(N,C\*R\*S,P\*Q\)"),
        ("unfold", (p, "float16", x, columns), TypeError, "'x' .*must be float16"),
        ("unfold", (p, "int8", x, columns), ValueError, "dtype must be float32, float16 or bfloat16"),
        ("unfold", (p, f32, columns.reshape(-1)[:180].reshape(x.shape), columns), ValueError, "overlap"),
        ("unfold", (replace(p, P=9), f32, x, columns), ValueError, "more outputs than windows"),
        ("unfold", (replace(p, N=1 << 30, C=1 << 9), f32, x, columns), ValueError, r"more than 2\^38 elements"),
        ("fold", (p, f32, columns[..., ::-1], x), ValueError, "'columns' .*C-contiguous"),
        ("fold", (p, f32, columns, columns), ValueError, r"'x' .*\(N,H,W,C\)"),
        ("fold", (replace(p, N=1 << 31), f32, columns, x), ValueError, r"N must be in \[0, 2\^31\)"),
    ]
    for name, arguments, error, message in calls:
        with pytest.raises(error, match=f"{name}: .*{message}"):
            getattr(simt, name)(*arguments, 0)
        assert (columns == 7).all(), message
        assert not x.any(), message
