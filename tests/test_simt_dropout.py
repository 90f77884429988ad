"""What is drawn at random, on the CPU: the array code's masks and slopes bit for bit, whatever the order of memory and
of threads."""

from __future__ import annotations

import itertools
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, askew, sample
from op_checks import LAYOUTS, NHWC, SEED, draw
from test_dropout import expected_mask, philox_word

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops import dropout as ops
from gpucnn.ops.compiled import FLOATS
from gpucnn.reference import dropout as reference
from gpucnn.reference import rectifier
from gpucnn.reference.dropout import DropoutProblem
from gpucnn.reference.rectifier import RReluProblem
from gpucnn.testing import assert_close, assert_equal

KEY = 0x1234_5678_9ABC_DEF0
SIZES = [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 127, 128, 129, 2048, 4103, 20_011]
"""Across packs of 4, 8 and 16, a block, and what the whole grid on the CPU moves in one pass."""

IMAGES = [
    ((2, 3, 4, 5), 4),
    ((2, 8, 3, 3), 4),
    ((1, 16, 1, 7), 4),
    ((3, 1, 5, 2), 4),
    ((2, 33, 9, 2), 4),
    ((2, 8, 3, 3), 2),
    ((5, 7, 3, 4), 2),
    ((1, 1, 1, 1), 2),
    ((0, 3, 2, 2), 4),
    ((2, 24, 3, 3), 2),
]
"""(N,C,H,W), and of how many axes the mask is."""


def run_apply(module: Any, p: DropoutProblem, x: np.ndarray, dtype: str, call: str) -> np.ndarray:
    memory = Memory()
    given, y = memory.given("x", x, dtype), memory.wanted("y", x.shape, dtype)
    where = ops.places(p.shape, x.shape, p.order)
    scale = float(np.float16(1 / (1 - p.p))) if dtype == "float16" else 1 / (1 - p.p)
    module.dropout_apply(dtype, given, y, *where, p.p, scale, p.seed, p.call, 0)
    memory.check(call)
    return y


def check(module: Any, p: DropoutProblem, x: np.ndarray, dtype: str) -> None:
    """x in memory order: the bits of the array code, which test_dropout.py holds against plain integers."""
    __tracebackhide__ = True
    x = x.astype(dtype)
    wide = x.astype(np.float32) if dtype == "bfloat16" else x
    expected = reference.forward(p, wide)[0].astype(dtype)
    assert_equal(run_apply(module, p, x, dtype, f"{p} {dtype}"), expected, signed_zeros=False, name=f"{p} {dtype}")


@pytest.mark.parametrize("order", ORDERS)
def test_flat_memory_in_any_order(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for number, size in enumerate(sample(simt.flavour, SIZES)):
        for dtype in FLOATS if order == "fwd" else (FLOATS[number % 3],):
            check(simt, DropoutProblem((size,), 0.3, KEY, 2**33 + number), draw("normal", (size,)), dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_images_draw_in_logical_order(simt: ModuleType, dtype: str) -> None:
    for number, ((shape, axes), p) in enumerate(itertools.product(IMAGES, (0.5, 0.999))):
        x = draw("normal", shape)
        for order in (NHWC, None):
            laid_out = np.ascontiguousarray(x.transpose(order)) if order else x
            problem = DropoutProblem(shape[:axes], p, SEED, number, order)
            found = simt_free(simt, problem, laid_out, dtype)
            keep = expected_mask(shape[:axes], p, SEED, number).reshape(shape[:axes] + (1,) * (4 - axes))
            wanted = np.where(keep, x.astype(dtype).astype(np.float64) / (1 - p), 0)
            logical = found.transpose(np.argsort(order)) if order else found
            tolerance = {"float32": 2.0**-22, "float16": 2.0**-9, "bfloat16": 2.0**-7}[dtype]
            assert_close(logical, wanted, rtol=tolerance, atol=0, name=f"{problem}")


def simt_free(module: Any, problem: DropoutProblem, x: np.ndarray, dtype: str) -> np.ndarray:
    """As run_apply, for what lies in memory order already."""
    y = np.full(x.shape, np.nan, dtype)
    where = ops.places(problem.shape, x.shape, problem.order)
    arguments = (problem.p, 1 / (1 - problem.p), problem.seed, problem.call, 0)
    module.dropout_apply(dtype, x.astype(dtype), y, *where, *arguments)
    return y


@pytest.mark.parametrize("order", ORDERS)
def test_masks_are_the_documented_function(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for size, p, call in ((0, 0.5, 0), (1, 0.0, 1), (16, 1.0, 1), (37, 0.5, 2**64 - 1), (600, 0.25, 7)):
        memory = Memory()
        keep = memory.wanted("keep", (size,), np.uint8)
        simt.dropout_mask(keep, (1, 1), (1, 0, 0), p, KEY, call, 0)
        memory.check(f"{size} {p}")
        assert_equal(keep.view(bool), expected_mask((size,), p, KEY, call))
        shifted = np.full(size + 1, 9, np.uint8)
        simt.dropout_mask(shifted[1:], (1, 1), (1, 0, 0), p, KEY, call, 0)
        assert_equal(shifted[1:], keep)
        assert shifted[0] == 9


def test_elements_beyond_four_thousand_million_draw_from_the_counters_second_word(simt: ModuleType) -> None:
    """Steps so large that a handful of elements spans them."""
    keep = np.empty(6, np.uint8)
    steps = (2**34, 2**31, 3)
    simt.dropout_mask(keep, (1, 3), steps, 0.5, KEY, 5, 0)
    where = [a * steps[0] + c * steps[2] for a in range(2) for c in range(3)]
    assert keep.tolist() == [int(philox_word(KEY, 5, place) >= 2**31) for place in where]


def test_memory_that_is_not_aligned_takes_the_narrow_path(simt: ModuleType) -> None:
    for dtype in FLOATS:
        x = askew(draw("normal", (4, 16)).astype(dtype))
        y, aligned = askew(np.zeros((4, 16), dtype)), np.zeros((4, 16), dtype)
        simt.dropout_apply(dtype, x, y, (1, 1), (1, 0, 0), 0.5, 2.0, KEY, 1, 0)
        simt.dropout_apply(dtype, x.copy(), aligned, (1, 1), (1, 0, 0), 0.5, 2.0, KEY, 1, 0)
        assert y.tobytes() == aligned.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("function", ["dropout", "dropout2d"])
def test_networks_drop_what_the_reference_drops(simt: ModuleType, function: str, dtype: str, layout: str) -> None:
    """Forward and backward, images of three and four axes: the same bits, and no mask is kept."""
    for shape in ((2, 8, 3, 4), (3, 4, 5), (2, 3)):
        runs = []
        for name in ("simt", "reference"):
            with backend.use_backend(name, strict=True):
                gpucnn.manual_seed(KEY)
                x = gpucnn.Tensor(LAYOUTS[layout](draw("normal", shape).astype(dtype)), requires_grad=True)
                y = getattr(F, function)(x, 0.25)
                y.backward(LAYOUTS[layout](draw("normal", shape, 1).astype(dtype)))
                runs.append([y.numpy(), x.grad.numpy()])
        for mine, truth in zip(*runs, strict=True):
            assert_equal(mine, truth, signed_zeros=False, name=f"{shape}")


def test_channels_last_stays_channels_last_without_a_copy(simt: ModuleType) -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), "float32", requires_grad=True)
    with backend.count_layout_copies() as copies:
        for function in (F.dropout, F.dropout2d):
            y = function(x, 0.3)
            y.backward(y.detach())
    assert copies.value == 0
    assert all(t.data.transpose(NHWC).flags.c_contiguous for t in (y, x.grad))


def test_all_is_dropped_and_special_numbers_pass(simt: ModuleType) -> None:
    x = gpucnn.tensor([math.inf, math.nan, -1.0], requires_grad=True)
    assert F.dropout(x, 1.0).tolist() == [0, 0, 0]
    gpucnn.manual_seed(3)
    kept = np.isfinite(F.dropout(gpucnn.full((64,), math.inf), 0.5).numpy())
    gpucnn.manual_seed(3)
    assert_equal(kept, F.dropout(gpucnn.ones(64), 0.5).numpy() == 0)


# -------------------------------------------------------------------------------------------------------------- slopes


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("order", [None, NHWC])
def test_slopes_are_the_references(simt: ModuleType, dtype: str, order: Any) -> None:
    for shape in ((2, 3, 4, 5), (2, 8, 5, 5), (1, 1, 1, 1), (3, 40, 7, 7)):
        x = draw("integers", shape) / 4
        x.reshape(-1)[0] = math.nan
        problem = RReluProblem(shape, 0.125, 0.5625, KEY, 2**40, order)
        laid_out = np.ascontiguousarray(x.transpose(order) if order else x).astype(dtype)
        wide = laid_out.astype(np.float32) if dtype == "bfloat16" else laid_out
        with np.errstate(all="ignore"):
            expected = rectifier.rrelu_slopes(problem, wide).astype(dtype)
        memory = Memory()
        slopes = memory.wanted("slopes", laid_out.shape, dtype)
        where = ops.places(shape, laid_out.shape, order)
        simt.rrelu_slopes(dtype, laid_out, slopes, *where, 0.125, 0.5625, KEY, 2**40, 0)
        memory.check(f"{shape}")
        assert_equal(slopes, expected, name=f"{shape} {dtype}")


def test_rrelu_runs_on_it(simt: ModuleType) -> None:
    runs = []
    for name in ("simt", "reference"):
        with backend.use_backend(name):
            gpucnn.manual_seed(5)
            x = gpucnn.tensor(draw("normal", (2, 8, 3, 4)), "float32", requires_grad=True)
            y = F.rrelu(x, training=True)
            y.backward(y.detach())
            runs.append([y.numpy(), x.grad.numpy()])
    for mine, truth in zip(*runs, strict=True):
        assert_equal(mine, truth, signed_zeros=False)


# ----------------------------------------------------------------------------------------------- wrong, and refused


def test_a_wrong_kernel_is_caught(simt: ModuleType) -> None:
    problem, x = DropoutProblem((600,), 0.5, KEY, 1), draw("normal", (600,))
    check(simt, problem, x, "float32")
    for change in ({5: 0.51}, {6: 2.001}, {7: KEY + 1}, {8: 2}, {4: (3, 0, 0)}):

        def wrong(run: Any, *arguments: Any, change: Any = change) -> None:
            run(*[change.get(i, argument) for i, argument in enumerate(arguments)])

        with pytest.raises(AssertionError, match="elements are wrong"):
            check(Planted(simt, dropout_apply=wrong), problem, x, "float32")


def test_arguments_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    x, y = np.zeros(8, np.float32), np.full(8, 7, np.float32)
    rest = (0.5, 2.0, 0, 0, 0)
    calls: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        (("float64", x, y, (1, 1), (1, 0, 0), *rest), ValueError, "dtype must be"),
        (("float16", x, y, (1, 1), (1, 0, 0), *rest), TypeError, "'x' .*must be float16"),
        (("float32", x, y[:7], (1, 1), (1, 0, 0), *rest), ValueError, "must have the same shape"),
        (("float32", y, y, (1, 1), (1, 0, 0), *rest), ValueError, "overlap in memory"),
        (("float32", x[::2], y[:4], (1, 1), (1, 0, 0), *rest), ValueError, "must be C-contiguous"),
        (("float32", x, y, (0, 1), (1, 0, 0), *rest), ValueError, r"sizes in \[1, 2\^31\)"),
        (("float32", x, y, (1, 2**31), (1, 0, 0), *rest), ValueError, r"sizes in \[1, 2\^31\)"),
        (("float32", x, y, (1, 1), (-1, 0, 0), *rest), ValueError, r"steps must be below 2\^38"),
        (("float32", x, y, (1, 1), (1, 0, 0), 1.5, *rest[1:]), ValueError, r"p must be a probability in \[0, 1\]"),
    ]
    for arguments, error, message in calls:
        with pytest.raises(error, match=f"^dropout: .*{message}"):
            simt.dropout_apply(*arguments)
        assert (y == 7).all(), message
