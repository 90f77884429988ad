"""Losses between input and target on the CPU: the array code's numbers in float64, in any order of threads, and what
the bindings refuse."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, askew, sample
from op_checks import SEED, draw

from gpucnn.ops.compiled import FLOATS
from gpucnn.reference import regression_loss as reference
from gpucnn.reference.regression_loss import HuberProblem, LossProblem
from gpucnn.testing import assert_close, assert_equal, tolerance
from gpucnn.testing.pairwise import pairwise

NAMES = ["mse", "l1", "huber", "bce", "bce_with_logits", "kl_div", "kl_div_log"]
BY_TARGET = {"bce", "bce_with_logits", "kl_div", "kl_div_log"}
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 127, 128, 129, 1023, 1024, 1025, 2048, 2049, 4103]
"""Across a pack of 4 or 8, and a block's pass of 1,024 or 2,048."""

CASES = list(
    pairwise(
        {
            "name": NAMES,
            "size": SIZES,
            "reduce": [False, True],
            "factor": [0, 1, "size"],
            "one": [False, True],
            "dtype": list(FLOATS),
        },
        SEED,
    )
)


def operands(name: str, size: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """float64 numbers that `dtype` holds: probabilities where the loss takes these."""
    x, t = (draw("normal", (size,), stream) for stream in (0, 1))
    inside = [np.clip(1 / (1 + np.exp(-a)), 0.02, 0.98) for a in (x, t)]
    if name == "bce":
        x, t = inside
    elif name in ("bce_with_logits", "kl_div"):
        t = inside[1]
    return tuple(a.astype(dtype).astype(np.float64) for a in (x, t))  # type: ignore[return-value]


def problem_of(name: str, reduce: bool) -> LossProblem:
    divisor = 7.0 if reduce else 1.0
    return HuberProblem(reduce, divisor, delta=0.75, scale=1.5) if name == "huber" else LossProblem(reduce, divisor)


@functools.cache
def truth(name: str, size: int, reduce: bool, factor: Any, one: bool, dtype: str) -> dict[str, Any]:
    x, t = operands(name, size, dtype)
    p = problem_of(name, reduce)
    number = {0: 0, 1: 1, "size": size}[factor] if name == "bce_with_logits" else 0
    w = (np.abs(draw("normal", (number,), 2)) + 0.5).astype(dtype).astype(np.float64)
    dy = draw("normal", (1,) if one else (size,), 3)
    factors = (w,) if number else ()
    with np.errstate(all="ignore"):
        found = {"x": x, "t": t, "w": w if number else None, "dy": dy, "p": p}
        found["loss"] = np.asarray(getattr(reference, name)(p, x, t, *factors))
        found["dx"] = getattr(reference, f"{name}_grad")(p, x, t, dy, *factors)
        if name in BY_TARGET:
            found["dt"] = getattr(reference, f"{name}_target_grad")(p, x, t, dy, *factors)
    return found


def results(module: Any, name: str, t: dict[str, Any], dtype: str, call: str) -> dict[str, np.ndarray]:
    __tracebackhide__ = True
    memory, p = Memory(), t["p"]
    x, target, dy = (memory.given(key, t[key], dtype) for key in ("x", "t", "dy"))
    w = None if t["w"] is None else memory.given("w", t["w"], dtype)
    loss = memory.wanted("loss", () if p.reduce else x.shape, dtype)
    sums = np.zeros(module.loss_words, np.int32) if p.reduce else None
    module.regression_loss_fprop(name, dtype, p, x, target, w, loss, sums, None, True, 0)
    found = {"loss": loss}
    for key in ("dx", "dt"):
        if key in t:
            found[key] = memory.wanted(key, x.shape, dtype)
            module.regression_loss_dgrad(name, dtype, p, x, target, w, dy, key == "dt", found[key], 0)
    memory.check(call)
    return found


def check(module: Any, case: dict[str, Any]) -> None:
    __tracebackhide__ = True
    t, dtype = truth(**case), case["dtype"]
    for key, found in results(module, case["name"], t, dtype, str(case)).items():
        expected = np.asarray(t[key])
        allowed = tolerance(found.dtype, 16)
        size = float(np.sqrt(np.mean(expected**2))) if expected.size and np.isfinite(expected).all() else 1.0
        atol = allowed * max(size, float(np.abs(t["x"]).mean()) if expected.size > 1 else size)
        assert_close(found, expected, rtol=allowed, atol=atol, equal_nan=True, name=f"{case}: {key}")


@pytest.mark.parametrize("order", ORDERS)
def test_every_formula_in_any_order(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    cases = CASES if order == "fwd" else CASES[:: len(ORDERS)]
    for case in sample(simt.flavour, cases):
        check(simt, case)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_every_formula_in_every_dtype(simt: ModuleType, name: str, dtype: str) -> None:
    for reduce in (False, True):
        for factor in (0, 1, "size"):
            check(simt, {"name": name, "size": 37, "reduce": reduce, "factor": factor, "one": reduce, "dtype": dtype})


def test_large_sums_have_one_value_in_every_order(simt: ModuleType) -> None:
    size = 70_000 if simt.flavour == "plain" else 6000
    t, found = truth("mse", size, True, 0, True, "float32"), set()
    for order in ORDERS:
        simt.set_order(order)
        loss = results(simt, "mse", t, "float32", order)["loss"]
        found.add(loss.tobytes())
        assert_close(loss, t["loss"], rtol=1e-5, atol=0)
    assert len(found) == 1


def test_a_factor_is_repeated_over_the_last_axes(simt: ModuleType) -> None:
    p = LossProblem(False)
    x, t = operands("bce_with_logits", 60, "float32")
    w = np.arange(1.0, 13.0)
    loss = np.empty((5, 3, 4), np.float32)
    given = [a.reshape(5, 3, 4).astype(np.float32) for a in (x, t)]
    simt.regression_loss_fprop("bce_with_logits", "float32", p, *given, w.astype("f4"), loss, None, None, False, 0)
    expected = reference.bce_with_logits(p, *(a.reshape(5, 3, 4) for a in (x, t)), w.reshape(3, 4))
    assert_close(loss, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_memory_that_is_not_aligned_takes_the_narrow_path(simt: ModuleType, name: str) -> None:
    for dtype in FLOATS:
        t = truth(name, 37, False, 0, False, dtype)
        arrays = [askew(t[key].astype(dtype)) for key in ("x", "t", "dy")]
        loss, dx = (askew(np.zeros(37, dtype)) for _ in range(2))
        expected = results(simt, name, t, dtype, name)
        simt.regression_loss_fprop(name, dtype, t["p"], *arrays[:2], None, loss, None, None, False, 0)
        simt.regression_loss_dgrad(name, dtype, t["p"], *arrays[:2], None, arrays[2], False, dx, 0)
        assert_equal(loss, expected["loss"])
        assert_equal(dx, expected["dx"])


SPECIAL = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 1e-30, 90.0, -90.0, 3e38, -3e38])


@pytest.mark.parametrize("name", NAMES)
def test_special_numbers_are_the_references(simt: ModuleType, name: str) -> None:
    x, t = (a.reshape(-1).astype(np.float32) for a in np.meshgrid(SPECIAL, SPECIAL))
    p, dy = problem_of(name, False), np.full(x.shape, 0.5, np.float32)
    loss, dx = np.empty_like(x), np.empty_like(x)
    simt.regression_loss_fprop(name, "float32", p, x, t, None, loss, None, None, False, 0)
    simt.regression_loss_dgrad(name, "float32", p, x, t, None, dy, False, dx, 0)
    with np.errstate(all="ignore"):
        for found, run in ((loss, getattr(reference, name)), (dx, getattr(reference, f"{name}_grad"))):
            expected = run(p, x, t, dy) if found is dx else run(p, x, t)
            assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True, name=name)


def test_a_wrong_kernel_is_caught(simt: ModuleType) -> None:
    case = {"name": "huber", "size": 33, "reduce": False, "factor": 0, "one": False, "dtype": "float32"}
    check(simt, case)

    def by_the_wrong_width(run: Any, name: str, dtype: str, p: Any, *rest: Any) -> None:
        run(name, dtype, replace(p, delta=0.8), *rest)

    def last_forgotten(run: Any, *arguments: Any) -> None:
        run(*arguments)
        arguments[-2].reshape(-1)[-1:] = np.nan

    for wrong in (
        {"regression_loss_fprop": by_the_wrong_width},
        {"regression_loss_dgrad": by_the_wrong_width},
        {"regression_loss_dgrad": last_forgotten},
    ):
        with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
            check(Planted(simt, **wrong), case)


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    x, t, loss = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32), np.full((), 7, np.float32)
    sums, p, each = np.zeros(simt.loss_words, np.int32), LossProblem(True, 6.0), np.full((2, 3), 7, np.float32)
    calls: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
        ("mae", ("float32", p, x, t, None, loss, sums), ValueError, "there is no loss 'mae'"),
        ("mse", ("float64", p, x, t, None, loss, sums), ValueError, "mse: dtype must be"),
        ("mse", ("float16", p, x, t, None, loss, sums), TypeError, "mse: argument 'x' .*must be float16"),
        ("mse", ("float32", p, x, t[:1], None, loss, sums), ValueError, "must have the same shape"),
        ("mse", ("float32", p, x, t, None, each, sums), ValueError, "'loss' .*must have shape"),
        ("mse", ("float32", p, x, t, None, loss, None), TypeError, "'memory' must be an array"),
        ("mse", ("float32", p, x, t, None, loss, sums[1:]), ValueError, "'memory' .*must have shape"),
        ("mse", ("float32", p, x, t, x[0], loss, sums), ValueError, "mse: it has no factor w"),
        (
            "bce_with_logits",
            ("float32", p, x, t, x.reshape(-1)[:4], loss, sums),
            ValueError,
            r"'w' of shape \(4,\) can't be repeated over \(2, 3\)",
        ),
        ("mse", ("float32", LossProblem(False), x, t, None, x, None), ValueError, "overlap in memory"),
    ]
    for name, arguments, error, message in calls:
        with pytest.raises(error, match=message):
            simt.regression_loss_fprop(name, *arguments, None, True, 0)
        assert loss == 7
        assert (each == 7).all()
    with pytest.raises(ValueError, match=r"^mse: 'x' .* and 'dy' .* must have the same shape"):
        simt.regression_loss_dgrad("mse", "float32", p, x, t, None, x[0], False, each, 0)
