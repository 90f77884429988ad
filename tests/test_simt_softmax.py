"""Softmax on the CPU: every pass against the truth, in any order of threads, and what its bindings refuse."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from op_checks import SEED, draw, frozen

from gpucnn.ops import softmax as ops
from gpucnn.ops.compiled import FLOATS
from gpucnn.reference import softmax as reference
from gpucnn.testing import assert_equal, tolerance
from gpucnn.testing.compare import assert_close

COLUMNS = [1, 2, 3, 4, 7, 8, 9, 10, 31, 32, 33, 127, 128, 129, 256, 257, 1000, 1023, 1024, 1025, 1028, 1032, 2049, 2304]
"""Across a pack of 4 or 8, a warp's 32, what four lanes hold (128) and what 32 do (1,024), a block's 256 packs."""

_ROTATED = np.random.default_rng(SEED)
CASES: list[tuple[int, int]] = [
    *((3, columns) for columns in COLUMNS),
    *((rows, 8) for rows in (0, 1, 2, 7, 8, 9, 63, 64, 65, 300)),  # 64 rows a block
    *((rows, 130) for rows in (7, 8, 9)),  # eight rows a block
    *((rows, 5) for rows in (7, 9, 130)),
    (40, 1025),
    (3, 0),
    *((int(_ROTATED.integers(1, 20)), int(_ROTATED.integers(1, 1500))) for _ in range(12)),
]
FORMS = {
    "softmax": (reference.softmax, reference.softmax_grad),
    "log_softmax": (reference.log_softmax, reference.log_softmax_grad),
}
"""In float64, where test_softmax.py holds them against plain loops."""


@functools.cache
def truth(form: str, rows: int, columns: int) -> dict[str, np.ndarray]:
    """Of rows of usual numbers, wide ones, and ones whose exponentials overflow."""
    x = draw("normal", (rows, columns)) * np.array([1, 16, 256])[np.arange(rows) % 3][:, None]
    dy = draw("normal", (rows, columns), 1)
    forward, gradient = FORMS[form]
    with np.errstate(under="ignore", divide="ignore"):
        y = forward(None, x)
        return {"x": x, "dy": dy, "y": y, "dx": gradient(None, dy, y)}


def results(module: Any, form: str, t: dict[str, np.ndarray], dtype: str, call: str) -> dict[str, np.ndarray]:
    __tracebackhide__ = True
    memory = Memory()
    x, dy, saved = (memory.given(name, t[name], dtype) for name in ("x", "dy", "y"))
    y, dx = memory.wanted("y", x.shape, dtype), memory.wanted("dx", x.shape, dtype)
    module.softmax_fprop(dtype, x, y, form == "log_softmax", 0)
    module.softmax_dgrad(dtype, dy, saved, dx, form == "log_softmax", 0)
    memory.check(call)
    return {"y": y, "dx": dx}


def check(module: Any, form: str, case: tuple[int, int], dtype: str) -> None:
    """Forward, and the gradient given the rounded truth of the output, which is off by as much as that was."""
    __tracebackhide__ = True
    t, call = truth(form, *case), f"{form} {case} {dtype}"
    for name, found in results(module, form, t, dtype, call).items():
        allowed = tolerance(found.dtype, 64)
        size = 1.0 if name == "y" else max(1.0, float(np.abs(t["dy"]).sum(axis=1).max(initial=1.0)) / 8)
        assert_close(found, t[name], rtol=allowed, atol=allowed * size, name=f"{call}: {name}")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_pass_in_any_order(simt: ModuleType, order: str, form: str) -> None:
    simt.set_order(order)
    dtypes = FLOATS if order == "fwd" else FLOATS[:1]
    for number, case in enumerate(sample(simt.flavour, CASES)):
        for dtype in dtypes if order == "fwd" and number % 3 == 0 else (FLOATS[number % 3],):
            check(simt, form, case, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_row_in_every_dtype(simt: ModuleType, form: str, dtype: str) -> None:
    for columns in (5, 8, 129, 136, 1025, 1032):
        check(simt, form, (3, columns), dtype)


def test_more_rows_than_the_grid_has_at_a_time(simt: ModuleType) -> None:
    for case in ((2200, 2), (150, 129)) if simt.flavour == "plain" else ((70, 2),):
        check(simt, "softmax", case, "float32")


def test_one_order_has_the_bits_of_another(simt: ModuleType) -> None:
    t = truth("softmax", 9, 1000)
    runs = []
    for order in ORDERS:
        simt.set_order(order)
        found = results(simt, "softmax", t, "float32", order)
        runs.append(found["y"].tobytes() + found["dx"].tobytes())
    assert len(set(runs)) == 1


@pytest.mark.parametrize("start", [1, 3, 4])
@pytest.mark.parametrize("columns", [8, 64, 1032])
def test_memory_that_is_not_aligned_takes_the_narrow_path(simt: ModuleType, start: int, columns: int) -> None:
    """With the bits of every other way to the same sums of a row's first numbers: columns of zeros beside one."""
    for dtype in FLOATS:
        x = np.zeros(3 * columns + start, dtype)[start:].reshape(3, columns)
        y = np.full(3 * columns + start, 7, dtype)
        simt.softmax_fprop(dtype, x, y[start:].reshape(3, columns), False, 0)
        assert_equal(y[start:], np.full(3 * columns, 1 / columns, dtype))
        assert (y[:start] == 7).all()


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize("columns", [5, 8, 1030, 1032])
def test_special_numbers_are_the_references(simt: ModuleType, columns: int) -> None:
    """A NaN, an infinity or nothing but -infinity is a row of NaN; -infinity beside numbers a probability of 0."""
    x = np.zeros((6, columns), np.float32)
    x[0, 1], x[1, 2], x[2], x[3, :-1], x[4, 0] = NAN, INF, -INF, -INF, -INF
    for form, wrong in (("softmax", 1 / columns), ("log_softmax", -np.log(columns))):
        table = getattr(ops, form)
        y = table(None, frozen(x), like=x)
        with np.errstate(all="ignore"):
            expected = table.specs("reference")[0].run(None, x)
        assert np.isnan(y[:3]).all()
        assert_close(y, expected, rtol=1e-5, atol=1e-6, equal_nan=True, name=form)
        assert abs(float(y[5, 0]) - wrong) < 1e-5


def test_a_wrong_kernel_is_caught(simt: ModuleType) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "last column forgotten": {
            "softmax_fprop": lambda run, d, x, y, log, s: (run(d, x, y, log, s), y[:, -1].fill(NAN))
        },
        "no maximum": {
            "softmax_fprop": lambda run, d, x, y, log, s: np.copyto(y, np.exp(x) / np.exp(x).sum(1)[:, None])
        },
        "no sum": {"softmax_dgrad": lambda run, d, dy, y, dx, log, s: np.copyto(dx, dy * y)},
        "the other form": {"softmax_dgrad": lambda run, d, dy, y, dx, log, s: run(d, dy, y, dx, not log, s)},
    }
    check(simt, "softmax", (3, 33), "float32")
    for bindings in wrong.values():
        with np.errstate(all="ignore"), pytest.raises(AssertionError, match=r"elements are wrong|never written"):
            check(Planted(simt, **bindings), "softmax", (3, 33), "float32")


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    x, y = np.zeros((4, 6), np.float32), np.full((4, 6), 7, np.float32)
    locked = y.copy()
    locked.flags.writeable = False
    calls: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        (("float64", x, y), ValueError, "dtype must be float32, float16 or bfloat16, got float64"),
        (("float16", x, y), TypeError, r"argument 'x' .*must be float16"),
        (("float32", x, y[:3]), ValueError, "must have the same shape"),
        (("float32", x.T, y), ValueError, "'x' .*must be C-contiguous"),
        (("float32", x, x), ValueError, "'y' .* and 'x' .* overlap in memory"),
        (("float32", x, locked), ValueError, "'y' .*is read-only"),
        (("float32", np.zeros((), "f4"), np.full((), 7, "f4")), ValueError, "'x' has no axes"),
        (("float32", x, None), TypeError, "'y' must be an array in CPU memory"),
    ]
    for arguments, error, message in calls:
        with pytest.raises(error, match=f"^softmax: .*{message}"):
            simt.softmax_fprop(*arguments, False, 0)
        assert (y == 7).all()
    with pytest.raises(ValueError, match=r"^log_softmax: 'dy' .* and 'dx' .* must have the same shape"):
        simt.softmax_dgrad("float32", x, x, y[:2], True, 0)
    with pytest.raises(ValueError, match=r"^log_softmax: 'dx' .* and 'y' .* overlap in memory"):
        simt.softmax_dgrad("float32", x, y, y, True, 0)
