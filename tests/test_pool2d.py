"""Pooling: every kernel against the truth, F.max_pool2d and F.avg_pool2d with gradients against PyTorch, corners."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NCHW, SEED, compare, draw, each_kernel, frozen, names, nhwc, plant

import gpucnn
from gpucnn import functional as F
from gpucnn.ops import pool2d
from gpucnn.problem import Pool2dProblem, pool2d_problem
from gpucnn.reference import pool2d as reference
from gpucnn.reference.pool2d import AveragePool2dProblem
from gpucnn.testing import PoolCase, assert_close, assert_equal, gradcheck, naive, pool_cases

MAX_CASES = [
    *pool_cases("max", SEED, 40, max_taps=1024),
    PoolCase(1, 2, 20, 19, (17, 16), (1, 1), padding=(8, 8)),  # more than 256 taps
    PoolCase(3, 5, 9, 9, (1, 3), (2, 1), padding=(0, 1)),
]
AVG_CASES = pool_cases("avg", SEED, 40, max_taps=1024)
INF, NAN = math.inf, math.nan


def ties(shape: tuple[int, ...]) -> np.ndarray:
    """So few values that most windows hold their maximum twice."""
    return np.random.default_rng([SEED, *shape]).integers(-2, 3, shape).astype(np.float64)


def special(shape: tuple[int, ...]) -> np.ndarray:
    """Windows of -inf alone, NaN beside infinities."""
    return np.random.default_rng([SEED, *shape]).choice([-INF, -INF, -INF, -1, 0, 1, INF, NAN], shape)


def max_problem(case: PoolCase) -> Pool2dProblem:
    return pool2d_problem(
        "max_pool2d", case.x_shape, case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode
    )


@functools.cache
def max_truth(case: PoolCase, kind: str) -> tuple[np.ndarray, ...]:
    """x, y, indices, dy, dx."""
    x = special(case.x_shape) if kind == "special" else ties(case.x_shape)
    y, indices = naive.max_pool2d(x, case.kernel, **case.max_arguments)
    dy = draw("integers", y.shape)
    return x, y, indices, dy, naive.max_pool2d_grad(dy, indices, case.x_shape)


def check_max(case: PoolCase, dtype: str, kind: str) -> None:
    """All four tables of max pooling; maxima, places and small integer sums are exact in every dtype."""
    __tracebackhide__ = True
    x, y, indices, dy, dx = max_truth(case, kind)
    p = max_problem(case)
    images, gradient = nhwc(x, dtype), nhwc(dy, dtype)
    for name, found in each_kernel(pool2d.max_fprop, p, images):
        assert_equal(found.transpose(NCHW), y, dtype=dtype, signed_zeros=False, name=name)
    for name, (found, winners) in each_kernel(pool2d.max_fprop_winners, p, images):
        assert found.flags.c_contiguous, name
        assert winners.flags.c_contiguous, name
        assert_equal(found.transpose(NCHW), y, dtype=dtype, signed_zeros=False, name=name)
        for index_name, places in each_kernel(pool2d.max_indices, p, frozen(winners)):
            assert_equal(places.transpose(NCHW), indices, dtype=np.int64, name=f"{name}, {index_name}")
        for grad_name, dx_found in each_kernel(pool2d.max_dgrad, p, gradient, frozen(winners)):
            assert_equal(dx_found.transpose(NCHW), dx, dtype=dtype, signed_zeros=False, name=f"{name}, {grad_name}")


@pytest.mark.parametrize("case", MAX_CASES, ids=str)
@pytest.mark.parametrize("kind", ["ties", "special"])
def test_max_kernels_are_exact(case: PoolCase, kind: str, block_bytes: int) -> None:
    for dtype in ("float32", "float64", "float16"):
        check_max(case, dtype, kind)


def avg_problem(case: PoolCase) -> Pool2dProblem:
    return pool2d_problem("avg_pool2d", case.x_shape, case.kernel, case.stride, case.padding, 1, case.ceil_mode)


@functools.cache
def avg_truth(case: PoolCase) -> tuple[np.ndarray, ...]:
    """x, y, dy, dx."""
    x = draw("normal", case.x_shape)
    y = naive.avg_pool2d(x, case.kernel, **case.avg_arguments)
    dy = draw("normal", y.shape, 1)
    return x, y, dy, naive.avg_pool2d_grad(dy, case.x_shape, case.kernel, **case.avg_arguments)


def check_average(case: PoolCase, dtype: str) -> None:
    __tracebackhide__ = True
    x, y, dy, dx = avg_truth(case)
    p = AveragePool2dProblem(avg_problem(case), case.count_include_pad, case.divisor_override)
    terms = case.kernel[0] * case.kernel[1]
    for table, array, expected in ((pool2d.average_fprop, x, y), (pool2d.average_dgrad, dy, dx)):
        for name, found in each_kernel(table, p, nhwc(array, dtype)):
            assert (found.flags.c_contiguous, found.dtype) == (True, np.dtype(dtype)), name
            compare(found.transpose(NCHW), expected, terms, name)


@pytest.mark.parametrize("case", AVG_CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_average_kernels(case: PoolCase, dtype: str, block_bytes: int) -> None:
    check_average(case, dtype)


def test_these_are_all_kernels() -> None:
    assert [names(t) for t in (pool2d.max_fprop, pool2d.max_fprop_winners, pool2d.max_dgrad)] == [["taps"]] * 3
    assert names(pool2d.max_indices) == ["arithmetic"]
    assert [names(t) for t in (pool2d.average_fprop, pool2d.average_dgrad)] == [["whole_image", "taps"]] * 2


# ------------------------------------------------------------------------------------------------ against PyTorch


@pytest.mark.peers
@pytest.mark.parametrize("case", [c for c in MAX_CASES if c.N], ids=str)
@pytest.mark.parametrize("kind", ["ties", "special"])
def test_max_pool2d_is_pytorchs(case: PoolCase, kind: str, torch: Any) -> None:
    x, _, _, dy, _ = max_truth(case, kind)
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    arguments = (case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode)
    y, indices = F.max_pool2d(ours, *arguments, return_indices=True)
    expected, places = torch.nn.functional.max_pool2d(theirs, *arguments, return_indices=True)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_equal(y, expected.detach(), signed_zeros=False, name="y")
    assert_equal(indices, places, name="indices")
    assert_equal(ours.grad, theirs.grad, signed_zeros=False, name="dx")
    assert_equal(F.max_pool2d(gpucnn.tensor(x), *arguments), y.numpy(), name="y without a gradient")


@pytest.mark.peers
@pytest.mark.parametrize("case", [c for c in AVG_CASES if c.N], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_avg_pool2d_is_pytorchs(case: PoolCase, dtype: str, torch: Any) -> None:
    x, _, dy, _ = avg_truth(case)
    ours = gpucnn.tensor(x, dtype, requires_grad=True)
    theirs = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
    y = F.avg_pool2d(ours, case.kernel, **case.avg_arguments)
    expected = torch.nn.functional.avg_pool2d(theirs, case.kernel, **case.avg_arguments)
    y.backward(gpucnn.tensor(dy, dtype))
    expected.backward(torch.tensor(dy, dtype=expected.dtype))
    terms = case.kernel[0] * case.kernel[1]
    compare(y, expected.detach().double().numpy(), terms, "y")
    compare(ours.grad, theirs.grad.double().numpy(), terms, "dx")


@pytest.mark.peers
@pytest.mark.parametrize("pool", ["max_pool2d", "avg_pool2d"])
def test_infinities_and_nan_warn_of_nothing(pool: str, torch: Any) -> None:
    x = special((2, 3, 8, 8))
    dy = special((2, 3, 4, 4))
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = getattr(F, pool)(ours, 3, 2, 1), getattr(torch.nn.functional, pool)(theirs, 3, 2, 1)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    close = functools.partial(assert_close, rtol=1e-12, atol=1e-12, equal_nan=True)
    close(y, expected.detach(), name="y")
    close(ours.grad, theirs.grad, name="dx")


# --------------------------------------------------------------------------------------- gradients, layouts, corners


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: F.max_pool2d(x, (2, 3), (1, 2), (1, 0), (2, 1), True),
        lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
        lambda x: F.avg_pool2d(x, (2, 4), None, (0, 1), divisor_override=3),
    ],
    ids=["max", "max-dilated-ceil", "avg-ceil-nopad", "avg-divisor"],
)
def test_gradients_are_central_differences(pool: Any) -> None:
    values = np.random.default_rng(SEED).permutation(2 * 3 * 7 * 8).reshape(2, 3, 7, 8) / 100  # no two near each other
    assert gradcheck(pool, [gpucnn.tensor(values, requires_grad=True)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["x", "dy"])
def test_any_memory_layout_is_taken(operand: str, layout: str) -> None:
    case = PoolCase(2, 3, 9, 8, (3, 2), (2, 1), padding=(1, 1))
    x, y, indices, dy, dx = (a.copy() for a in max_truth(case, "ties"))
    x, dy = (LAYOUTS[layout](a) if name == operand else a for name, a in (("x", x), ("dy", dy)))
    leaf = gpucnn.Tensor(x, requires_grad=True)
    found, places = F.max_pool2d(leaf, case.kernel, **case.max_arguments, return_indices=True)
    found.backward(dy)
    assert_equal(found, y, signed_zeros=False)
    assert_equal(places, indices)
    assert_equal(leaf.grad, dx, signed_zeros=False)
    leaf = gpucnn.Tensor(x, requires_grad=True)
    average = F.avg_pool2d(leaf, case.kernel, case.stride, case.padding)
    average.backward(dy)
    assert_close(average, naive.avg_pool2d(x, case.kernel, case.stride, case.padding), rtol=1e-14, atol=1e-14)
    expected = naive.avg_pool2d_grad(dy, case.x_shape, case.kernel, case.stride, case.padding)
    assert_close(leaf.grad, expected, rtol=1e-14, atol=1e-14)


def test_an_unbatched_image_is_a_batch_of_one() -> None:
    x = gpucnn.tensor(ties((3, 6, 6)), requires_grad=True)
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    expected, places = naive.max_pool2d(x.numpy()[None], 2)
    assert_equal(y, expected[0], signed_zeros=False)
    assert_equal(indices, places[0])
    y.backward(np.ones((3, 3, 3)))
    assert_equal(x.grad, naive.max_pool2d_grad(np.ones((1, 3, 3, 3)), places, (1, 3, 6, 6))[0], signed_zeros=False)
    assert_equal(F.avg_pool2d(x, 2), naive.avg_pool2d(x.numpy()[None], 2)[0], signed_zeros=False)


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_empty_batch(pool: Any, dtype: str) -> None:
    x = gpucnn.zeros(0, 3, 6, 7, dtype=dtype, requires_grad=True)
    y = pool(x, 2)
    assert (y.shape, y.dtype) == ((0, 3, 3, 3), np.dtype(dtype))
    y.backward(np.zeros(y.shape, dtype))
    assert (x.grad.shape, x.grad.dtype) == (x.shape, np.dtype(dtype))


def test_a_window_without_an_element_has_no_winner() -> None:
    """Dilation can step over a small image: the maximum of nothing is -inf, lies nowhere and hands no gradient on."""
    x = gpucnn.ones(1, 1, 1, 1, requires_grad=True)
    y, indices = F.max_pool2d(x, 2, 1, 1, 2, return_indices=True)
    assert (y.item(), indices.item()) == (-INF, -1)
    y.backward()
    assert x.grad.item() == 0


def test_average_of_half_precision_is_summed_in_float32() -> None:
    x = gpucnn.tensor(np.full((1, 1, 32, 32), 100), "float16")
    assert F.avg_pool2d(x, 32).item() == 100  # the sum, 102,400, is no float16


def test_divisors_that_are_all_the_same_are_one() -> None:
    x = np.zeros((1, 6, 6, 1), np.float32)
    same, others = (pool2d_problem("avg_pool2d", (1, 1, 6, 6), 3, 3, pad, 1, False) for pad in (0, 1))
    assert reference.divisors(same, True, None, x).ravel().tolist() == [9]
    assert reference.divisors(others, True, 5, x).ravel().tolist() == [5]
    assert reference.divisors(others, False, None, x)[..., 0].tolist() == [[4, 6], [6, 9]]
    with pytest.raises(ValueError, match="read-only"):
        reference.divisors(same, True, None, x)[...] = 0  # they are kept for the next call


def test_one_window_is_a_product_with_ones() -> None:
    x = draw("normal", (2, 3, 9, 8))
    whole, part = (
        AveragePool2dProblem(pool2d_problem("avg_pool2d", x.shape, kernel, None, 0, 1, False), True, None)
        for kernel in ((9, 8), (9, 4))
    )
    assert pool2d.average_fprop.pick(whole, x).name == pool2d.average_dgrad.pick(whole, x).name == "whole_image"
    assert pool2d.average_fprop.pick(part, x).name == "taps"
    assert reference.one_window(part) == "needs one window that is the image, got 1 x 2 of 9 x 4"
    special_x = x.copy()
    special_x[0, 1, 4, 4], special_x[1, 2, 0, 0] = INF, NAN
    for dtype in ("float64", "float32", "float16"):
        y = F.avg_pool2d(gpucnn.tensor(special_x, dtype), (9, 8)).numpy()
        assert np.isinf(y).sum() == np.isnan(y).sum() == 1  # other channels are none the wiser


# ----------------------------------------------------------------------------------- wrong kernels must be caught


def last_tie_wins(p: Pool2dProblem, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from gpucnn.reference.common import padded, taps

    y = reference.max_fprop(p, x)
    winners = np.zeros(y.shape, np.uint8)
    for index, (_, _, cells) in enumerate(taps(padded(x, p, -INF), p)):
        winners[cells == y] = index
    return y, winners


def padding_of_zeros(p: Pool2dProblem, x: np.ndarray) -> np.ndarray:
    return np.maximum(reference.max_fprop(p, x), 0)


def overlap_not_added(p: Pool2dProblem, dy: np.ndarray, winners: np.ndarray) -> np.ndarray:
    return np.clip(reference.max_dgrad(p, dy, winners), -4, 4)


def every_cell_counts(p: AveragePool2dProblem, x: np.ndarray) -> np.ndarray:
    return reference.average_fprop(replace(p, divisor_override=p.windows.R * p.windows.S), x)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (pool2d.max_fprop_winners, last_tie_wins),
        (pool2d.max_fprop, padding_of_zeros),
        (pool2d.max_dgrad, overlap_not_added),
        (pool2d.average_fprop, every_cell_counts),
    ],
    ids=["last-tie-wins", "padding-of-zeros", "overlap-not-added", "every-cell-counts"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = PoolCase(2, 3, 9, 9, (2, 2), (1, 1), padding=(1, 1), count_include_pad=False)

    def check() -> None:
        check_max(case, "float32", "ties")
        check_average(case, "float32")

    check()
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted.* elements are wrong"):
        check()
