"""Cross-entropies on the CPU: every pass against the array code in float64, in any order of threads, what a label out
of range does, and what the bindings refuse."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from op_checks import SEED, draw

from gpucnn.ops.compiled import FLOATS
from gpucnn.reference import loss as reference
from gpucnn.reference.loss import CrossEntropyProblem, NLLProblem
from gpucnn.testing import assert_close, assert_equal, tolerance
from gpucnn.testing.pairwise import pairwise

CLEAR = 2**63 - 1


@dataclass(frozen=True)
class Case:
    rows: int
    classes: int
    kind: str = "labels"  # probabilities, nll
    reduction: str = "mean"
    weighted: bool = False
    smoothing: float = 0.0
    ignored: bool = False
    dtype: str = "float32"


SHAPES = [
    *((5, classes) for classes in (1, 2, 3, 4, 7, 8, 10, 31, 32, 33, 127, 128, 129, 1000, 1024, 1025, 1032, 2052)),
    *((rows, 5) for rows in (0, 1, 7, 8, 9, 33, 63, 64, 65, 257)),
    *((rows, 130) for rows in (7, 8, 9)),
    (300, 8),
]
"""Across a pack, a warp's 32 lanes, what four lanes hold (128) and what 32 do (1,024), a block's packs; a block's rows,
64 or eight, and beyond."""

CASES = [
    *(Case(rows, classes) for rows, classes in SHAPES),
    *(Case(rows, classes, "nll") for rows, classes in SHAPES[::3]),
    *(Case(rows, classes, "probabilities", smoothing=0.1) for rows, classes in SHAPES[::3]),
    *(Case(3, classes, dtype=dtype) for classes in (5, 8, 129, 136, 1025, 1032) for dtype in FLOATS),
    *(Case(3, classes, "nll", dtype=dtype) for classes in (5, 8) for dtype in FLOATS),
    Case(8200, 2),  # more rows than 1,024 blocks have at a time
    Case(1030, 1025, dtype="float16"),
    *(
        Case(*values.pop("shape"), **values)
        for values in pairwise(
            {
                "shape": SHAPES,
                "kind": ["labels", "probabilities", "nll"],
                "reduction": ["mean", "sum", "none"],
                "weighted": [False, True],
                "smoothing": [0.0, 0.2, 1.0],
                "ignored": [False, True],
                "dtype": list(FLOATS),
            },
            SEED,
        )
    ),
]


def problem_of(case: Case) -> Any:
    ignored = 1 if case.ignored else -100
    if case.kind == "nll":
        return NLLProblem(ignored, case.reduction)
    return CrossEntropyProblem(ignored, case.smoothing, case.reduction)


@functools.cache
def truth(case: Case) -> dict[str, Any]:
    """In float64, from numbers that the case's dtype holds."""
    rows, classes = case.rows, case.classes
    rng, p = np.random.default_rng([SEED, rows, classes]), problem_of(case)
    x = draw("normal", (rows, classes)) * np.array([1, 4, 256])[np.arange(rows) % 3][:, None]
    dy = draw("normal", (rows,) if case.reduction == "none" else (), 1)
    weight = np.abs(draw("normal", (classes,), 2)) + 0.25 if case.weighted else None
    if weight is not None:
        weight = weight.astype(case.dtype).astype(np.float64)
    labels = rng.integers(0, classes, rows)
    found: dict[str, Any] = {"x": x, "dy": dy, "weight": weight, "labels": labels}
    with np.errstate(all="ignore"):
        if case.kind == "nll":
            found["loss"], total = reference.nll_loss(p, x, labels, weight)
            found["dx"] = reference.nll_loss_grad(p, dy, total, labels, weight, classes)
        elif case.kind == "labels":
            found["loss"], *saved = reference.cross_entropy(p, x, labels, weight)
            found["dx"] = reference.cross_entropy_grad(p, dy, x, *saved, labels, weight)
        else:
            q = np.exp(draw("normal", (rows, classes), 3))
            q = found["q"] = (q / q.sum(axis=1, keepdims=True)).astype(case.dtype).astype(np.float64)
            found["loss"], *saved = reference.soft_cross_entropy(p, x, q, weight)
            found["dx"] = reference.soft_cross_entropy_grad(p, dy, x, *saved, q, weight)
            found["dq"] = reference.soft_cross_entropy_target_grad(p, dy, x, *saved, q, weight)
    return found


def results(module: Any, case: Case, t: dict[str, Any], call: str, flag: Any = None) -> dict[str, np.ndarray]:
    """What the bindings make of it; no other memory is touched."""
    __tracebackhide__ = True
    memory, p, dtype = Memory(), problem_of(case), case.dtype
    x, dy = memory.given("x", t["x"], dtype), memory.given("dy", t["dy"], dtype)
    weight = None if t["weight"] is None else memory.given("weight", t["weight"], dtype)
    labels = None if case.kind == "probabilities" else memory.given("labels", t["labels"], np.int64)
    q = None if case.kind != "probabilities" else memory.given("q", t["q"], dtype)
    loss = memory.wanted("loss", dy.shape, dtype)
    total = memory.wanted("total", (), np.float32, some_are_poison=case.reduction == "none")
    sums = memory.wanted("memory", (module.loss_words,), np.int32, some_are_poison=True)
    sums[...] = 0
    total[...] = 1
    dx = memory.wanted("dx", x.shape, dtype)
    if case.kind == "nll":
        module.nll_loss_fprop(dtype, p, x, labels, weight, loss, total, sums, flag, True, 0)
        module.nll_loss_dgrad(dtype, p, dy, total, labels, weight, dx, 0)
        memory.check(call)
        return {"loss": loss, "dx": dx}
    statistics = memory.wanted("statistics", (2 if q is None else 3, case.rows))
    module.cross_entropy_fprop(dtype, p, x, labels, q, weight, loss, statistics, total, sums, flag, True, 0)
    found = {"loss": loss, "dx": dx}
    module.cross_entropy_dgrad(dtype, p, dy, x, statistics, total, labels, q, weight, dx, False, 0)
    if q is not None:
        dq = found["dq"] = memory.wanted("dq", x.shape, dtype)
        module.cross_entropy_dgrad(dtype, p, dy, x, statistics, total, labels, q, weight, dq, True, 0)
    memory.check(call)
    return found


def check(module: Any, case: Case) -> None:
    __tracebackhide__ = True
    t = truth(case)
    for name, found in results(module, case, t, str(case)).items():
        expected = np.asarray(t[name], np.float64)
        if case.dtype == "float16":
            expected = np.where(np.abs(expected) > 65504, np.copysign(np.inf, expected), expected)
        allowed = tolerance(found.dtype, 32 + case.classes // 8)
        finite = expected[np.isfinite(expected)]
        size = float(np.sqrt(np.mean(finite**2))) if finite.size else 1.0
        least = 2.0**-24 if found.dtype == np.float16 else 0.0  # its numbers are no closer, however small
        atol = max(allowed * size, least)
        assert_close(found, expected, rtol=allowed, atol=atol, equal_nan=True, name=f"{case}: {name}")


@pytest.mark.parametrize("order", ORDERS)
def test_every_pass_in_any_order(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    cases = CASES if order == "fwd" else CASES[:: len(ORDERS)]
    for case in sample(simt.flavour, cases):
        check(simt, case)


def test_one_order_has_the_bits_of_another(simt: ModuleType) -> None:
    """Which block adds the sums of all blocks up is up to the order, what it finds is not."""
    case = Case(8200, 3, weighted=True) if simt.flavour == "plain" else Case(100, 3, weighted=True)
    t, runs = truth(case), []
    for order in ORDERS:
        simt.set_order(order)
        runs.append(b"".join(array.tobytes() for array in results(simt, case, t, order).values()))
    assert len(set(runs)) == 1


@pytest.mark.parametrize("kind", ["labels", "nll"])
def test_memory_that_is_not_aligned_takes_the_narrow_path(simt: ModuleType, kind: str) -> None:
    for dtype in FLOATS:
        case = Case(4, 16, kind, dtype=dtype)
        t, p = truth(case), problem_of(case)
        memory = np.zeros((3, 65), dtype)
        x, dx, aligned = (row[1:].reshape(4, 16) for row in memory)
        x[...] = t["x"]
        expected = results(simt, case, t, "aligned")
        total, dy = np.full((), 4, np.float32), np.asarray(t["dy"], dtype)
        sums, loss = np.zeros(simt.loss_words, np.int32), np.zeros((), dtype)
        if kind == "nll":
            simt.nll_loss_fprop(dtype, p, x, t["labels"], None, loss, total, sums, None, True, 0)
            simt.nll_loss_dgrad(dtype, p, dy, total, t["labels"], None, dx, 0)
        else:
            kept = np.zeros((2, 4), np.float32)
            simt.cross_entropy_fprop(dtype, p, x, t["labels"], None, None, loss, kept, total, sums, None, True, 0)
            simt.cross_entropy_dgrad(dtype, p, dy, x, kept, total, t["labels"], None, None, dx, False, 0)
        assert_close(loss, expected["loss"], rtol=tolerance(loss.dtype, 4), atol=0)
        assert_close(dx, expected["dx"], rtol=tolerance(loss.dtype, 4), atol=tolerance(loss.dtype, 1) / 64)
        assert not aligned.any()
        assert not memory[:, 0].any()


@pytest.mark.parametrize("kind", ["labels", "nll"])
@pytest.mark.parametrize("order", ORDERS)
def test_labels_out_of_range_raise_the_flag_and_touch_nothing(simt: ModuleType, kind: str, order: str) -> None:
    """The first of them is noted; its row is NaN, and so is what it is part of."""
    simt.set_order(order)
    for classes in (5, 1030):
        for wrong in (-1, classes, 2**62, -(2**62), -99):
            case = Case(40, classes, kind, "none", ignored=True)
            t = {**truth(case), "labels": truth(case)["labels"].copy()}
            t["labels"][[7, 8, 39]] = wrong
            flag = np.array([CLEAR, 11])
            found = results(simt, case, t, f"{kind} {wrong}", flag)
            assert flag.tolist() == [11 << 39 | 1 << 36 | 7, 11]
            assert np.isnan(found["loss"]).nonzero()[0].tolist() == [7, 8, 39]
            mean = results(simt, replace(case, reduction="mean"), {**t, "dy": np.array(1.0)}, "mean", flag)
            assert np.isnan(mean["loss"])
            assert flag.tolist() == [11 << 39 | 1 << 36 | 7, 11]


def test_a_loss_that_is_not_finite_raises_the_flag_where_it_is_watched(simt: ModuleType) -> None:
    for number, reduction, watched, raised in (
        (np.inf, "mean", True, True),
        (np.nan, "sum", True, True),
        (np.nan, "none", True, False),
        (np.nan, "mean", False, False),
        (3e38, "mean", True, False),
    ):
        x, labels = np.zeros((3, 4), np.float32), np.zeros(3, np.int64)
        x[1, 2] = number
        p, flag = NLLProblem(-100, reduction), np.array([CLEAR, 3])
        loss, total = np.zeros(3 if reduction == "none" else (), np.float32), np.zeros((), np.float32)
        labels[1] = 2
        sums = np.zeros(simt.loss_words, np.int32)
        simt.nll_loss_fprop("float32", p, x, labels, None, loss, total, sums, flag, watched, 0)
        assert flag.tolist() == [3 << 39 | 4 << 36 if raised else CLEAR, 3], (number, reduction)


def test_a_wrong_kernel_is_caught(simt: ModuleType) -> None:
    case = Case(9, 33, weighted=True, smoothing=0.2, ignored=True)
    check(simt, case)

    def unweighted(run: Any, dtype: str, p: Any, x: Any, labels: Any, q: Any, weight: Any, *rest: Any) -> None:
        run(dtype, p, x, labels, q, None, *rest)

    def unsmoothed(run: Any, dtype: str, p: Any, *rest: Any) -> None:
        run(dtype, replace(p, label_smoothing=0.0), *rest)

    def forgets_rows(run: Any, *arguments: Any) -> None:
        run(*arguments)
        arguments[9][-1] = np.nan

    for wrong in (
        {"cross_entropy_fprop": unweighted},
        {"cross_entropy_fprop": unsmoothed},
        {"cross_entropy_dgrad": unsmoothed},
        {"cross_entropy_dgrad": forgets_rows},
    ):
        with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
            check(Planted(simt, **wrong), case)


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    x, labels, loss = np.zeros((4, 6), np.float32), np.zeros(4, np.int64), np.full((), 7, np.float32)
    kept, total, sums = np.full((2, 4), 7, np.float32), np.full((), 7, np.float32), np.zeros(simt.loss_words, np.int32)
    p = CrossEntropyProblem(-100, 0.0, "mean")

    def call(**changes: Any) -> None:
        given = {
            **{"dtype": "float32", "problem": p, "logits": x, "targets": labels, "probabilities": None},
            **{"weight": None, "loss": loss, "statistics": kept, "total": total, "memory": sums, "flag": None},
            **{"check_loss": True, "stream": 0},
        }
        simt.cross_entropy_fprop(**{**given, **changes})

    changes: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"dtype": "int32"}, ValueError, "dtype must be float32, float16 or bfloat16"),
        ({"logits": x.astype(np.float16)}, TypeError, "'scores' .*must be float32"),
        ({"logits": x[0]}, ValueError, r"'scores' must have shape \(rows, classes\), got \(6,\)"),
        ({"logits": x[:, ::2]}, ValueError, "'scores' .*must be C-contiguous"),
        ({"targets": labels[:3]}, ValueError, "'targets' .*must have shape"),
        ({"targets": labels.astype(np.int32)}, TypeError, "'targets' .*must be int64"),
        ({"targets": None}, ValueError, "one of targets and probabilities is wanted"),
        ({"probabilities": x}, ValueError, "one of targets and probabilities is wanted"),
        ({"weight": x[0, :5].copy()}, ValueError, "'weight' .*must have shape"),
        ({"loss": kept[0]}, ValueError, "'loss' .*must have shape"),
        ({"statistics": x[:3, :4].copy()}, ValueError, "'statistics' .*must have shape"),
        ({"statistics": x.reshape(-1)[:8].reshape(2, 4)}, ValueError, "'statistics' .* and 'scores' .* overlap"),
        ({"total": None}, TypeError, "'total' must be an array"),
        ({"memory": sums[1:]}, ValueError, "'memory' .*must have shape"),
        ({"flag": np.zeros(3, np.int64)}, ValueError, "'flag' .*must have shape"),
        ({"problem": replace(p, reduction="median")}, ValueError, "reduction must be 'none', 'mean' or 'sum'"),
    ]
    for change, error, message in changes:
        with pytest.raises(error, match=f"^cross_entropy: .*{message}"):
            call(**change)
        assert loss == 7
        assert (kept == 7).all()
    call()
    with pytest.raises(ValueError, match=r"^cross_entropy: class indices have no gradient"):
        simt.cross_entropy_dgrad("float32", p, loss, x, kept, total, labels, None, None, np.zeros_like(x), True, 0)
    with pytest.raises(ValueError, match=r"^nll_loss: 'gradient' .* and 'dy' .* overlap"):
        simt.nll_loss_dgrad("float32", NLLProblem(-100, "mean"), x[0, 0:1].reshape(()), total, labels, None, x, 0)


def test_the_bits_are_those_of_every_partition(simt: ModuleType) -> None:
    """A row's loss does not depend on the rows beside it."""
    t = truth(Case(300, 8, reduction="none"))
    whole = results(simt, Case(300, 8, reduction="none"), t, "whole")["loss"]
    part = {**t, "x": t["x"][37:41], "labels": t["labels"][37:41], "dy": t["dy"][37:41]}
    assert_equal(results(simt, Case(4, 8, reduction="none"), part, "part")["loss"], whole[37:41])
