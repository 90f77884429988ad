"""Max unpooling on the CPU: both passes against the truth, in any order of threads, and what its bindings refuse."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, askew, sample
from op_checks import NCHW, SEED, draw, nhwc

from gpucnn.ops import unpool2d as ops
from gpucnn.ops.compiled import FLOATS
from gpucnn.reference.unpool2d import Unpool2dProblem
from gpucnn.testing import assert_equal, naive, pairwise

Case = tuple[int, int, int, int, int, int]
"""N, C, P, Q, H, W."""

CASES: list[Case] = [
    (1, 1, 1, 1, 1, 1),
    (2, 4, 3, 4, 6, 8),  # packs of channels
    (1, 6, 2, 2, 5, 3),  # of two, not of four
    (2, 3, 5, 7, 3, 2),  # more values than places
    (1, 128, 3, 3, 2, 3),
    (1, 33, 4, 4, 5, 3),
    (0, 4, 2, 2, 4, 4),
    *[
        tuple(case.values())  # type: ignore[misc]
        for case in pairwise(
            {"N": (1, 2), "C": (1, 3, 4, 8), "P": (1, 2, 7), "Q": (1, 3, 5), "H": (1, 4, 9), "W": (2, 7)}, SEED
        )
    ],
]


@functools.cache
def truth(case: Case) -> dict[str, np.ndarray]:
    """In logical order; places are drawn with replacement, so that many values compete for one."""
    N, C, P, Q, H, W = case
    x, dy = draw("normal", (N, C, P, Q)), draw("normal", (N, C, H, W), 1)
    indices = np.random.default_rng([SEED, *case]).integers(0, H * W, x.shape)
    y, dx = naive.max_unpool2d(x, indices, (H, W)), naive.max_unpool2d_grad(dy, indices)
    return {"x": x, "dy": dy, "indices": indices, "y": y, "dx": dx}


def problem_of(case: Case) -> Unpool2dProblem:
    N, C, P, Q, H, W = case
    return Unpool2dProblem(N, P, Q, C, H, W)


def check(module: Any, case: Case, dtype: str) -> None:
    """Values are moved and none is changed: the same bits, everywhere, and nothing else written."""
    __tracebackhide__ = True
    t, p, memory, call = truth(case), problem_of(case), Memory(), f"{case} {dtype}"
    x, dy = memory.given("x", t["x"], dtype), memory.given("dy", t["dy"], dtype)
    indices = memory.given("indices", t["indices"], np.int64)
    y, dx = memory.wanted("y", dy.shape, dtype), memory.wanted("dx", x.shape, dtype)
    numbers = None if dtype == "float32" else memory.wanted("numbers", dy.shape, np.int32)
    module.max_unpool2d_fprop(p, dtype, x, indices, numbers, y, 0)
    module.max_unpool2d_dgrad(p, dtype, dy, indices, dx, 0)
    memory.check(call)
    assert_equal(y.transpose(NCHW), t["y"].astype(dtype), name=f"{call}: y")
    assert_equal(dx.transpose(NCHW), t["dx"].astype(dtype), name=f"{call}: dx")


@pytest.mark.parametrize("order", ORDERS)
def test_both_passes_are_exact(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for number, case in enumerate(sample(simt.flavour, CASES), ORDERS.index(order)):
        check(simt, case, FLOATS[number % 3])


@pytest.mark.parametrize("dtype", FLOATS)
def test_packs_of_channels(simt: ModuleType, dtype: str) -> None:
    for case in CASES[1:6]:
        check(simt, case, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_that_is_not_aligned_to_16_bytes_takes_the_narrow_path(simt: ModuleType, dtype: str) -> None:
    t, p = truth(CASES[1]), problem_of(CASES[1])
    x, dy, indices = askew(nhwc(t["x"], dtype)), askew(nhwc(t["dy"], dtype)), askew(nhwc(t["indices"], np.int64))
    y, dx, numbers = askew(np.zeros_like(dy)), askew(np.zeros_like(x)), askew(np.zeros(dy.shape, np.int32))
    simt.max_unpool2d_fprop(p, dtype, x, indices, numbers, y, 0)
    simt.max_unpool2d_dgrad(p, dtype, dy, indices, dx, 0)
    assert_equal(y.transpose(NCHW), t["y"].astype(dtype))
    assert_equal(dx.transpose(NCHW), t["dx"].astype(dtype))
    for array in (y, dx, numbers):
        assert array.base is not None
        assert np.count_nonzero(array.base) == np.count_nonzero(array)


def test_bits_of_nan_and_of_zeros_stay(simt: ModuleType) -> None:
    x = np.array([0x7FC12345, 0xFFC00001, 0x80000000, 0x7F800000], np.uint32).view(np.float32).reshape(1, 2, 2, 1)
    indices = np.array([5, 2, 0, 3]).reshape(x.shape)
    p = Unpool2dProblem(1, 2, 2, 1, 2, 3)
    y = ops.unpool_fprop(p, x, indices, like=x)
    assert y.view(np.uint32).ravel().tolist() == [0x80000000, 0, 0xFFC00001, 0x7F800000, 0, 0x7FC12345]
    assert ops.unpool_dgrad(p, y, indices, like=x).tobytes() == x.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_indices_outside_the_image_are_passed_over(simt: ModuleType, dtype: str) -> None:
    """Whoever calls F.max_unpool2d is told; a kernel touches no other memory."""
    p = Unpool2dProblem(1, 1, 4, 2, 2, 2)
    memory = Memory()
    x = memory.given("x", np.arange(1.0, 9.0).reshape(1, 2, 1, 4), dtype)
    indices = memory.given("indices", np.array([[[[0, 4, -1, 1]], [[1 << 40, -(1 << 40), 3, 3]]]]), np.int64)
    y, dx = memory.wanted("y", (1, 2, 2, 2), dtype), memory.wanted("dx", x.shape, dtype)
    numbers = memory.wanted("numbers", y.shape, np.int32)
    simt.max_unpool2d_fprop(p, dtype, x, indices, numbers, y, 0)
    simt.max_unpool2d_dgrad(p, dtype, y, indices, dx, 0)
    memory.check(dtype)
    assert_equal(y.transpose(NCHW), np.array([[[[1, 4], [0, 0]], [[0, 0], [0, 8]]]]).astype(dtype))
    assert_equal(dx.transpose(NCHW), np.array([[[[1, 0, 0, 4]], [[0, 0, 8, 8]]]]).astype(dtype))


@pytest.mark.parametrize("dtype", FLOATS[1:])
def test_values_of_16_bits_are_numbered_a_few_images_at_a_time(
    simt: ModuleType, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = (5, 4, 2, 3, 3, 4)
    t, p = truth(case), problem_of(case)
    monkeypatch.setattr(ops, "_MOST_NUMBERS", 2 * 48)
    y = ops.unpool_fprop(p, nhwc(t["x"], dtype), nhwc(t["indices"]).astype(np.int64), like=nhwc(t["x"], dtype))
    assert_equal(y.transpose(NCHW), t["y"].astype(dtype))
    monkeypatch.setattr(ops, "_MOST_NUMBERS", 47)
    with pytest.raises(ValueError, match="numbers an image's places in 64 MiB at most, got 3 x 4 of 4 channels"):
        ops.unpool_fprop.pick(p, y, kernel="numbered_apart")
    with pytest.raises(ValueError, match="numbers values by int32, got 65536 x 32768 of them"):
        ops.unpool_dgrad.pick(replace(p, P=1 << 16, Q=1 << 15), y, kernel="gather")


WRONG: dict[str, Any] = {
    "max_unpool2d_fprop": lambda run, p, dtype, x, indices, numbers, y, s: run(
        p, dtype, x[:, ::-1, ::-1].copy(), indices[:, ::-1, ::-1].copy(), numbers, y, s
    ),
    "max_unpool2d_dgrad": lambda run, p, dtype, dy, indices, dx, s: (
        run(p, dtype, dy, indices, dx, s),
        dx[:, -1].fill(0),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    check(simt, CASES[3], "float32")
    with pytest.raises(AssertionError, match="elements are wrong"):
        check(Planted(simt, **{wrong: WRONG[wrong]}), CASES[3], "float32")


def test_what_does_not_fit_is_refused_and_nothing_is_written(simt: ModuleType) -> None:
    p = Unpool2dProblem(2, 2, 3, 3, 4, 6)
    x, y = np.zeros((2, 2, 3, 3), np.float32), np.full((2, 4, 6, 3), 7, np.float32)
    indices, numbers, f32 = np.zeros(x.shape, np.int64), np.zeros(y.shape, np.int32), "float32"
    half, large = x.astype(np.float16), y.astype(np.float16)
    calls: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
        ("fprop", (p, f32, x[:1], indices, None, y), ValueError, r"'x' .*\(N,P,Q,C\)"),
        ("fprop", (p, f32, x, indices.astype(np.int32), None, y), TypeError, "'indices' .*must be int64"),
        ("fprop", (p, f32, x, indices, numbers[:1], y), ValueError, r"'numbers' .*\(N,H,W,C\)"),
        ("fprop", (p, f32, x, indices, y.view(np.int32), y), ValueError, "'numbers' .* and 'y' .*overlap"),
        ("fprop", (p, "float16", half, indices, None, large), TypeError, "'numbers' must be an array"),
        ("fprop", (p, "float64", x, indices, None, y), ValueError, "dtype must be float32, float16 or bfloat16"),
        ("fprop", (replace(p, P=1 << 16, Q=1 << 15, N=0), f32, x, indices, None, y), ValueError, r"P\*Q must be below"),
        ("fprop", (replace(p, C=0), f32, x, indices, None, y), ValueError, r"C must be in \[1, 2\^31\)"),
        ("dgrad", (p, f32, y, indices, y[:, :2, :3]), ValueError, "'dx' .*C-contiguous"),
        ("dgrad", (p, f32, y, indices, y.reshape(-1)[:36].reshape(x.shape)), ValueError, "overlap"),
    ]
    for name, arguments, error, message in calls:
        with pytest.raises(error, match=f"max_unpool2d: .*{message}"):
            getattr(simt, f"max_unpool2d_{name}")(*arguments, 0)
        assert (y == 7).all(), message
        assert not x.any(), message
