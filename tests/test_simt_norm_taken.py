"""Batch norm of moments that something else has taken, on the CPU: few and many splits, in any order of threads."""

from __future__ import annotations

import re
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from op_checks import draw

from gpucnn.reference import norm as reference
from gpucnn.reference.norm_problem import NormProblem
from gpucnn.testing import assert_close, naive

SPLITS = [
    (1, 8, 1),
    (37, 24, 100),
    (100, 33, 7),
    (1056, 8, 2),
    (1058, 40, 2),
    (530, 64, 1),
    (1100, 32, 1),
    (2203, 5, 4),
]
"""(positions, channels, positions of a split): up to 528 splits as they are; 529 and more, that are condensed."""


def x_of(M: int, C: int) -> np.ndarray:
    """Far from 0, and further along the way."""
    return (draw("normal", (M, C)) * 3 + 40 + np.arange(M)[:, None] / M * 8).astype(np.float32)


def results(module: Any, M: int, C: int, rows: int) -> dict[str, np.ndarray]:
    """What the binding makes of the moments of x; x itself is there for y alone, and no other memory is touched."""
    __tracebackhide__ = True
    x, memory, scratch = x_of(M, C), Memory(), Memory()
    first = x[0].astype(np.float64)
    lines = naive.conv2d_moments((x - first).T.reshape(1, C, M, 1), rows)
    taken = memory.given("taken", np.vstack([lines, first]))
    splits = module.norm_condensed_splits(len(lines) // 2)
    condensed = splits < len(lines) // 2
    images, p = (1, M, C), NormProblem(1, M, C, C, 1e-5, 0.25)
    kept = [memory.wanted(name, (C,)) for name in ("running_mean", "running_var")]
    kept[0][...], kept[1][...] = 0, 1
    y = memory.wanted("y", images)
    mean, inverse = (memory.wanted(name, (1, C), np.float64) for name in ("mean", "inverse"))
    partial = scratch.wanted("partial", (1, 2 * splits + 1, C)) if condensed else None
    linear = scratch.wanted("coefficients", (3, 1, C))
    given = memory.given("x", x[None])
    module.norm_fprop(
        *(p, "float32", given, None, None, *kept, None, y, mean, inverse, partial, linear, 0),
        **{"taken": taken, "rows_taken": rows},
    )
    memory.check("")
    scratch.check("")
    return {"y": y, "mean": mean, "inverse": inverse, "running_mean": kept[0], "running_var": kept[1]}


def check(module: Any, M: int, C: int, rows: int) -> None:
    __tracebackhide__ = True
    kept = (np.zeros(C), np.ones(C))
    p, x = NormProblem(1, M, C, C, 1e-5, 0.25), x_of(M, C).astype(np.float64)[None]
    y, mean, inverse = reference.fprop(p, x, None, None, kept, None)
    truth = {"y": y, "mean": mean, "inverse": inverse, "running_mean": kept[0], "running_var": kept[1]}
    for name, found in results(module, M, C, rows).items():
        # What float32 is off by of numbers as large as x, in deviations; without any, of the square root of eps.
        steep = float(inverse.max())
        large = {"y": 1 + 50 * steep if M == 1 else 8.0, "inverse": steep}.get(name, 50.0)
        assert_close(found.astype(np.float32), truth[name], rtol=4e-6, atol=4e-6 * large, name=f"{name} {M} {C} {rows}")


@pytest.mark.parametrize("order", ORDERS)
def test_splits_of_any_number_are_merged(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for M, C, rows in sample(simt.flavour, SPLITS[ORDERS.index(order) % 2 :]):
        check(simt, M, C, rows)


def test_few_splits_stay_and_many_become_few(simt: ModuleType) -> None:
    assert [simt.norm_condensed_splits(n) for n in (0, 1, 528, 529, 792, 793)] == [0, 1, 528, 177, 264, 199]
    assert max(simt.norm_condensed_splits(n) for n in range(529, 40_000, 7)) <= 264
    with pytest.raises(ValueError, match="norm: splits must be at least 0"):
        simt.norm_condensed_splits(-1)


def test_one_order_has_the_bits_of_another(simt: ModuleType) -> None:
    seen = set()
    for order in (*ORDERS, "fwd"):
        simt.set_order(order)
        seen.add(b"".join(found.tobytes() for found in results(simt, 1100, 40, 2).values()))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("p", "options", "message"),
    [
        ({}, {"rows_taken": 0}, "rows_taken must be at least 1"),
        ({"groups": 4}, {}, "moments that are taken are a batch norm's"),
        ({"B": 2, "M": 3}, {}, "moments that are taken are a batch norm's"),
        ({"momentum": None}, {}, "moments that are taken are a batch norm's"),
        ({}, {"rows_taken": 4}, r"'taken' of shape \(3, 8\) must have shape \(5, 8\)"),
        ({}, {"taken": np.zeros((3, 7), "f4")}, r"'taken' of shape \(3, 7\)"),
        ({}, {"partial": None, "rows_taken": 1, "taken": np.zeros((2 * 600 + 1, 8), "f4")}, "partial is needed"),
    ],
)
def test_what_is_no_batch_norms_is_refused(simt: ModuleType, p: Any, options: Any, message: str) -> None:
    M = 600 if "partial" in options else 6
    problem = replace(NormProblem(1, M, 8, 8), **p)
    shape = (problem.B, problem.M, 8)
    x, y, linear = np.zeros(shape, np.float32), np.full(shape, 7, np.float32), np.zeros((3, problem.B, 8), np.float32)
    mean, inverse = np.zeros((2, problem.B, 8))
    kept = (None, None) if problem.own_statistics else (np.zeros(8, "f4"), np.ones(8, "f4"))
    given = {"taken": np.zeros((3, 8), np.float32), "rows_taken": 6, **options}
    given.pop("partial", None)
    with pytest.raises(ValueError, match=f"norm: .*{message}"):
        simt.norm_fprop(problem, "float32", x, None, None, *kept, None, y, mean, inverse, None, linear, 0, **given)
    assert (y == 7).all()


def test_outputs_that_are_the_moments_are_refused(simt: ModuleType) -> None:
    taken = np.zeros((3, 8), np.float32)
    x, y, linear, (mean, inverse) = (
        *(np.zeros((1, 6, 8), "f4") for _ in range(2)),
        np.zeros((3, 1, 8), "f4"),
        np.zeros((2, 1, 8)),
    )
    for place, other in ((4, taken[0]), (5, taken[2])):
        arguments: list[Any] = [
            x,
            None,
            None,
            np.zeros(8, "f4"),
            np.ones(8, "f4"),
            None,
            y,
            mean,
            inverse,
            None,
            linear,
        ]
        arguments[place - 1] = other
        with pytest.raises(ValueError, match=re.compile("norm: .*overlap")):
            simt.norm_fprop(NormProblem(1, 6, 8, 8), "float32", *arguments, 0, taken, 6)


WRONG: dict[str, Any] = {
    "the splits' lengths": lambda run, *a, taken, rows_taken: run(*a, taken=taken, rows_taken=rows_taken + 1),
    "the first row": lambda run, *a, taken, rows_taken: run(
        *a, taken=np.vstack([taken[:-1], 0 * taken[-1:]]), rows_taken=rows_taken
    ),
    "one split's mean": lambda run, *a, taken, rows_taken: run(
        *a, taken=np.vstack([taken[:-3], taken[-3:-2] + 30, taken[-2:]]), rows_taken=rows_taken
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    """Of rows of which one is left, the number of splits is the same for a greater length."""
    M, C, rows = 1059, 8, 2
    check(simt, M, C, rows)
    run = WRONG[wrong]
    if wrong == "the splits' lengths":
        M, rows = 7, 4
        check(simt, M, C, rows)
    with pytest.raises(AssertionError, match="elements are wrong"):
        check(Planted(simt, norm_fprop=run), M, C, rows)
