"""Dropout: masks against an independent Philox written for one number at a time, and what follows from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, draw, each_kernel, names, plant

import gpucnn
from gpucnn import functional as F
from gpucnn import random
from gpucnn.ops import dropout as ops
from gpucnn.reference import dropout as reference
from gpucnn.reference.dropout import DropoutProblem
from gpucnn.testing import assert_equal

SEED = 0x1234_5678_9ABC_DEF0


def philox_word(seed: int, call: int, element: int) -> int:
    """Word 0 of Philox 4x32-10 (Salmon et al., SC 2011), in Python's integers."""
    k = [seed & 0xFFFFFFFF, seed >> 32]
    c = [element & 0xFFFFFFFF, element >> 32, call & 0xFFFFFFFF, call >> 32]
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 1 << 32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % (1 << 32), (k[1] + 0xBB67AE85) % (1 << 32)]
    return c[0]


def expected_mask(shape: tuple[int, ...], p: float, seed: int, call: int) -> np.ndarray:
    kept = [philox_word(seed, call, i) >= p * 2**32 for i in range(math.prod(shape))]
    return np.array(kept, bool).reshape(shape)


def check_masks(shape: tuple[int, ...], p: float, seed: int, call: int) -> None:
    __tracebackhide__ = True
    problem = DropoutProblem(shape, p, seed, call)
    for name, found in each_kernel(ops.mask, problem, np.empty(shape, np.float32)):
        assert_equal(found, expected_mask(shape, p, seed, call), name=name)


def test_the_scalar_philox_gives_the_published_numbers() -> None:
    """Known answers of the authors' Random123 (kat_vectors): counter and key of all zeros, and of all ones."""
    assert philox_word(0, 0, 0) == 0x6627E8D5
    assert philox_word(2**64 - 1, 2**64 - 1, 2**64 - 1) == 0x408F276D


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (7,), (), (0, 3), (33, 31)], ids=str)
@pytest.mark.parametrize(("seed", "call"), [(0, 0), (SEED, 3), (2**64 - 1, 2**32 + 1)])
def test_masks_are_the_documented_function(shape: tuple[int, ...], seed: int, call: int) -> None:
    for p in (0.5, 0.1, 0.999):
        check_masks(shape, p, seed, call)


def test_these_are_all_kernels() -> None:
    tables = (ops.mask, ops.dropout, ops.dropout_grad)
    assert [names(table) for table in tables] == [["philox"], ["kept"], ["kept"]]
    assert [[s.name for s in table.specs("cuda")] for table in tables] == [["philox"], ["redrawn"], ["redrawn"]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_mask_counts_in_logical_order_whatever_memory_is_like(layout: str, dtype: str) -> None:
    gpucnn.manual_seed(SEED)
    F.dropout(gpucnn.ones(3))  # call 0
    x = draw("integers", (2, 3, 4, 5))
    leaf = gpucnn.Tensor(LAYOUTS[layout](x.astype(dtype)), requires_grad=True)
    y = F.dropout(leaf, 0.75)
    keep = expected_mask((2, 3, 4, 5), 0.75, SEED, 1)
    assert_equal(y, x * keep * 4, dtype=dtype, signed_zeros=False)
    dy = draw("integers", (2, 3, 4, 5), 1)
    y.backward(dy.astype(dtype))
    assert_equal(leaf.grad, dy * keep * 4, dtype=dtype, signed_zeros=False)


def test_channels_last_stays_channels_last_without_a_copy() -> None:
    from gpucnn import backend

    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = F.dropout(x, 0.3)
        y.backward(y.detach())
    assert copies.value == 0
    assert all(t.data.transpose(NHWC).flags.c_contiguous for t in (y, x.grad))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_that_is_kept(p: float) -> None:
    """Within 5 standard deviations of a binomial count; neighbours, calls and seeds are independent of each other."""
    n = 200_000
    masks = [
        reference.mask(DropoutProblem((n,), p, seed, call), np.empty(0)) for seed, call in ((1, 0), (1, 1), (2, 0))
    ]
    for mask in masks:
        assert abs(int(mask.sum()) - n * (1 - p)) <= 5 * math.sqrt(n * p * (1 - p))
    q = (1 - p) ** 2
    for a, b in ((masks[0], masks[1]), (masks[0], masks[2]), (masks[0][1:], masks[0][:-1])):
        assert abs(int((a & b).sum()) - len(a) * q) <= 5 * math.sqrt(len(a) * q * (1 - q))


def test_what_is_dropped_is_zero_whatever_it_was() -> None:
    x = gpucnn.tensor(np.full(1000, math.inf), "float32", requires_grad=True)
    y = F.dropout(x, 0.5)
    assert set(y.numpy().tolist()) == {0.0, math.inf}
    y.backward(np.full(1000, math.nan, np.float32))
    assert_equal(np.isnan(x.grad.numpy()), y.numpy() != 0)


def test_nothing_and_everything() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), requires_grad=True)
    before = random.state()
    assert F.dropout(x, 0.0) is x
    assert F.dropout(x, 0.7, training=False) is x
    assert random.state() == before  # no mask was drawn
    y = F.dropout(x, 1.0)
    y.backward(np.ones(x.shape))
    assert_equal(y, np.zeros(x.shape), signed_zeros=False)
    assert_equal(x.grad, np.zeros(x.shape), signed_zeros=False)


def test_a_seed_starts_the_masks_anew() -> None:
    x = gpucnn.ones(1000)

    def two() -> list[np.ndarray]:
        return [F.dropout(x).numpy() for _ in range(2)]

    gpucnn.manual_seed(5)
    first = two()
    other = two()
    gpucnn.manual_seed(5)
    again = two()
    gpucnn.manual_seed(6)
    different = two()
    for a, b in zip(first, again, strict=True):
        assert_equal(a, b)
    runs = [m.tobytes() for m in (*first, *other, *different)]
    assert len(set(runs)) == 6


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_p_is_a_probability(p: float) -> None:
    with pytest.raises(ValueError, match=r"dropout: p must be a probability in \[0, 1\], got"):
        F.dropout(gpucnn.ones(3), p)
    with pytest.raises(ValueError, match="must be a probability"):
        F.dropout(gpucnn.ones(3), p, training=False)


def test_dropout_takes_floating_tensors() -> None:
    with pytest.raises(TypeError, match=r"dropout: input must be a gpucnn.Tensor, got list"):
        F.dropout([1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dropout: input must have a floating dtype, got int64"):
        F.dropout(gpucnn.tensor([1, 2]))


def memory_order_counted(problem: DropoutProblem, like: np.ndarray) -> np.ndarray:
    N, C, H, W = problem.shape
    mask = reference.mask(DropoutProblem((N, H, W, C), problem.p, problem.seed, problem.call), like)
    return mask.transpose(0, 3, 1, 2)


def next_word(problem: DropoutProblem, like: np.ndarray) -> np.ndarray:
    return np.roll(reference.mask(problem, like), 1)


def test_a_wrong_kernel_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (memory_order_counted, next_word):
        plant(monkeypatch, ops.mask, wrong)
        with pytest.raises(AssertionError, match=r"dropout mask planted: .* elements are wrong"):
            check_masks((2, 3, 4, 5), 0.5, SEED, 0)
