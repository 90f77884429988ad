"""Positions of extrema, picking, putting and running sums on the CPU: the array code's results, in any order of
threads, and what the bindings refuse."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, askew, sample
from op_checks import SEED, draw

import gpucnn
from gpucnn.ops.compiled import FLOATS
from gpucnn.reference import ordering as reference
from gpucnn.reference.ordering import CumsumProblem, PutProblem
from gpucnn.testing import assert_close, assert_equal, tolerance
from gpucnn.testing.pairwise import pairwise

LENGTHS = [1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 127, 128, 129, 1000, 1023, 1024, 1025, 1032, 2053]
"""Along the axis: across a pack, a warp, and the 1,024 of a warp's row and of a tile of sums."""

SHAPES: list[tuple[tuple[int, ...], int]] = [
    *(((3, length), 1) for length in LENGTHS),
    *(((2, length, 5), 1) for length in LENGTHS[::3]),
    *(((length, 40), 0) for length in LENGTHS[::4]),
    *(((rows, 6), 1) for rows in (0, 1, 7, 8, 9, 33, 300)),
    ((2, 3, 4, 5), 0),
    ((2, 3, 4, 5), 2),
    ((2, 0, 4), 2),
    ((0,), 0),
    ((5,), 0),
    ((1, 600), 0),
    ((70, 1, 33), 1),
]
CASES = list(
    pairwise({"what": SHAPES, "kind": ["ties", "normal", "special"], "dtype": list(FLOATS), "up": [False, True]}, SEED)
)


def numbers(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Few values, so that most come often; or the special ones among them."""
    rng = np.random.default_rng([SEED, *shape])
    if kind == "normal":
        return draw("normal", shape)
    values = [-2, -1, 0, 1, 2] if kind == "ties" else [-np.inf, -1, -0.0, 0.0, 1, np.inf, np.nan]
    weights = None if kind == "ties" else [0.19, 0.19, 0.19, 0.19, 0.19, 0.04, 0.01]
    return rng.choice(np.array(values, np.float64), shape, p=weights)


def check_extrema(module: Any, case: dict[str, Any]) -> None:
    __tracebackhide__ = True
    (shape, axis), dtype = case["what"], case["dtype"]
    if shape[axis] == 0:
        return
    x, memory = numbers(case["kind"], shape).astype(dtype), Memory()
    expected = (reference.argmax if case["up"] else reference.argmin)(axis, x.astype(np.float32))
    index = memory.wanted("index", expected.shape, np.int64)
    module.extremum(dtype, askew(x) if case["kind"] == "special" else x, index, axis, case["up"], 0)
    memory.check(str(case))
    assert_equal(index, expected, name=str(case))


def check_picks(module: Any, case: dict[str, Any]) -> None:
    """Some positions of each row, none twice, taken and put back."""
    __tracebackhide__ = True
    (shape, axis), dtype = case["what"], case["dtype"]
    x, memory = numbers(case["kind"], shape).astype(dtype), Memory()
    order = reference.argsort(reference.SortProblem(axis, case["up"]), draw("normal", shape, 5))
    index = np.ascontiguousarray(np.take(order, range((shape[axis] + 1) // 2), axis))
    y = memory.wanted("y", index.shape, dtype)
    module.take(dtype, x, index, y, axis, 0)
    expected = reference.take(axis, x, index)
    assert y.tobytes() == np.ascontiguousarray(expected).tobytes(), f"take {case}"
    back = memory.wanted("back", shape, dtype)
    back[...] = 0
    module.put(dtype, y, index, back, axis, 0)
    memory.check(str(case))
    assert_equal(back, reference.put(PutProblem(axis, shape[axis]), y, index), name=f"put {case}")


def check_sums(module: Any, case: dict[str, Any]) -> None:
    __tracebackhide__ = True
    (shape, axis), dtype = case["what"], case["dtype"]
    x, memory = numbers("ties" if case["kind"] == "special" else case["kind"], shape).astype(dtype), Memory()
    y = memory.wanted("y", shape, dtype)
    module.running_sum(dtype, askew(x) if case["kind"] == "special" else x, y, axis, case["up"], 0)
    memory.check(str(case))
    expected = reference.cumsum(CumsumProblem(axis, case["up"]), x.astype(np.float64))
    if case["kind"] != "normal":
        assert_equal(y, expected.astype(dtype), name=str(case), signed_zeros=False)
    else:
        allowed = tolerance(y.dtype, 2)
        assert_close(y, expected, rtol=allowed, atol=allowed, name=str(case))


CHECKS = {"extrema": check_extrema, "picks": check_picks, "sums": check_sums}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("what", CHECKS)
def test_every_kernel_in_any_order(simt: ModuleType, what: str, order: str) -> None:
    simt.set_order(order)
    cases = CASES if order == "fwd" else CASES[:: len(ORDERS)]
    for case in sample(simt.flavour, cases):
        CHECKS[what](simt, case)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("what", CHECKS)
def test_every_shape(simt: ModuleType, what: str, dtype: str) -> None:
    shapes = SHAPES if dtype == "float32" else SHAPES[::2]
    for number, shape in enumerate(sample(simt.flavour, shapes)):
        CHECKS[what](simt, {"what": shape, "kind": "ties", "dtype": dtype, "up": number % 2 == 0})


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integers_are_picked_too(simt: ModuleType, dtype: str) -> None:
    x = np.arange(60).reshape(3, 4, 5).astype(dtype)
    index = np.array([[[3, 0, 1, 2, 2]]] * 3)
    y, back = np.zeros((3, 1, 5), dtype), np.zeros_like(x)
    simt.take(dtype, x, index, y, 1, 0)
    assert_equal(y, np.take_along_axis(x, index, 1))
    simt.put(dtype, y, index, back, 1, 0)
    assert_equal(back, reference.put(PutProblem(1, 4), y, index))


def test_positions_outside_touch_nothing(simt: ModuleType) -> None:
    x, index = np.ones((2, 3), np.float32), np.array([[-1, 3, 2**62], [0, -(2**62), 2]])
    y, back = np.full((2, 3), 7, np.float32), np.zeros((2, 3), np.float32)
    simt.take("float32", x, index, y, 1, 0)
    assert y.tolist() == [[0, 0, 0], [1, 0, 1]]
    simt.put("float32", x, index, back, 1, 0)
    assert back.tolist() == [[0, 0, 0], [1, 0, 1]]


def test_long_running_sums_keep_their_digits(simt: ModuleType) -> None:
    count = 20_000 if simt.flavour == "plain" else 3000
    for dtype in FLOATS:
        x = np.full((1, count), 0.1).astype(dtype)
        y = np.empty_like(x)
        simt.running_sum(dtype, x, y, 1, False, 0)
        exact = np.cumsum(x.astype(np.float64), axis=1)
        assert_close(y, exact, rtol={"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype], atol=0)


def test_infinities_stay_where_they_come(simt: ModuleType) -> None:
    x = np.ones((1, 3000), np.float32)
    x[0, 1500] = np.inf
    y = np.empty_like(x)
    simt.running_sum("float32", x, y, 1, False, 0)
    assert np.isfinite(y[0, :1500]).all()
    assert (y[0, 1500:] == np.inf).all()


def test_tensors_run_on_it(simt: ModuleType) -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), "float32", requires_grad=True)
    values, indices = x.max(1)
    values.backward(np.ones(values.shape, np.float32))
    assert_equal(indices, x.numpy().argmax(1))
    assert_equal(x.grad, (x.numpy() == x.numpy().max(1, keepdims=True)).astype(np.float32))
    y = x.detach().requires_grad_()
    y.cumsum(2).backward(np.ones(y.shape, np.float32))
    assert_equal(y.grad, np.broadcast_to(np.arange(4, 0, -1.0)[:, None], y.shape).astype(np.float32))


def test_a_wrong_kernel_is_caught(simt: ModuleType) -> None:
    def last_of_equals(run: Any, dtype: str, x: Any, index: Any, axis: int, *rest: Any) -> None:
        run(dtype, np.ascontiguousarray(np.flip(x, axis)), index, axis, *rest)
        index[...] = x.shape[axis] - 1 - index

    def exclusive(run: Any, dtype: str, x: Any, y: Any, *rest: Any) -> None:
        run(dtype, x, y, *rest)
        y -= x

    def shifted(run: Any, dtype: str, x: Any, index: Any, *rest: Any) -> None:
        run(dtype, x, (index + 1) % 33, *rest)

    case = {"what": ((3, 33), 1), "kind": "ties", "dtype": "float32", "up": True}
    for what, wrong in (
        ("extrema", {"extremum": last_of_equals}),
        ("sums", {"running_sum": exclusive}),
        ("picks", {"take": shifted}),
        ("picks", {"put": shifted}),
    ):
        CHECKS[what](simt, case)
        with pytest.raises(AssertionError, match=r"elements are wrong|take \{"):
            CHECKS[what](Planted(simt, **wrong), case)


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    x, index = np.zeros((4, 6), np.float32), np.full((4, 1), 7)
    y = np.full((4, 1), 7, np.float32)
    calls: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
        ("extremum", ("float64", x, index, 1, True), ValueError, "argmax: dtype must be"),
        ("extremum", ("float32", x, index, 2, True), ValueError, r"argmax: 'x' of shape \(4, 6\) has no axis 2"),
        ("extremum", ("float32", x, index, -1, False), ValueError, "argmin: 'x' .* has no axis -1"),
        ("extremum", ("float32", x, index, 0, True), ValueError, "'index' .*must have shape"),
        ("extremum", ("float32", x, index.astype(np.int32), 1, True), TypeError, "'index' .*must be int64"),
        ("extremum", ("float32", x[:, :0], index, 1, True), ValueError, "argmax: no elements"),
        ("take", ("float32", x, index[:2], y[:2], 1), ValueError, "take: .*'index' .*must have shape"),
        ("take", ("float32", x, index, x, 1), ValueError, "must have the same shape"),
        ("take", ("int64", index, index, index, 1), ValueError, "overlap in memory"),
        ("take", ("int16", x, index, y, 1), ValueError, "dtype must be"),
        ("put", ("float32", y, index, x[:3], 1), ValueError, "put: .*must have shape"),
        ("put", ("float32", x, index, x, 1), ValueError, "must have the same shape"),
        ("running_sum", ("float32", x, y, 1, False), ValueError, "cumsum: .*must have the same shape"),
        ("running_sum", ("float32", x, x, 1, False), ValueError, "overlap in memory"),
        ("running_sum", ("float32", x[:, ::2], x[:, :3].copy(), 1, False), ValueError, "must be C-contiguous"),
    ]
    for name, arguments, error, message in calls:
        with pytest.raises(error, match=message):
            getattr(simt, name)(*arguments, 0)
        assert (index == 7).all(), message
        assert (y == 7).all(), message
        assert not x.any(), message
