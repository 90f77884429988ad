"""The transposed convolution on the CPU: no pass of it falls to the reference, and its own kernel, that adds a bias."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conv2d_checks import DTYPES
from conv_transpose2d_cases import CORNERS, Case, terms_of, truth
from kernel_checks import ORDERS, Memory, sample
from op_checks import compare, draw

import gpucnn
from gpucnn import functional as F
from gpucnn.ops import conv_transpose2d
from gpucnn.testing import assert_equal

CASES = [
    *CORNERS,
    Case(2, 16, 5, 4, 8, 4, 4, (2, 2), (1, 1)),  # whole packs of every dtype
    Case(1, 8, 5, 6, 8, 3, 3, (2, 2), (1, 1), (1, 1), groups=8),  # depthwise
    Case(1, 8, 5, 6, 8, 3, 3, (1, 1), (1, 1), groups=8),
    Case(2, 12, 4, 4, 6, 2, 2, (2, 2), groups=3),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pass_runs_on_kernels(simt: ModuleType, dtype: str) -> None:
    """All of F.conv_transpose2d, forward and backward, strict: no pass has a kernel of the reference's to fall to."""
    for case in sample(simt.flavour, CASES):
        t, terms = truth(case, "integers"), terms_of(case)
        leaves = [gpucnn.Tensor(a.astype(DTYPES[dtype]), requires_grad=True) for a in (t.x, t.w, t.b)[: 2 + case.bias]]
        y = F.conv_transpose2d(*leaves, **case.arguments)
        y.backward(gpucnn.Tensor(t.dy.astype(DTYPES[dtype])))
        for name, found in zip(("y", "dx", "dw", "db"), (y, *[leaf.grad for leaf in leaves]), strict=False):
            expected = getattr(t, name)
            if name == "y" and case.bias:  # rounded twice: the bias is added to what was stored
                expected = (expected - t.b[:, None, None]).astype(DTYPES[dtype]).astype(float) + t.b[:, None, None]
            expected = expected.astype(DTYPES[dtype]).astype(float)
            assert found.dtype == dtype
            compare(found.numpy(), expected, terms[name], f"{case}: {name} {dtype}", exact=True)


def test_these_are_all_kernels() -> None:
    for backend in ("cuda", "simt"):
        assert [spec.name for spec in conv_transpose2d.add_bias.specs(backend)] == ["packs"]


SHAPES = [(1,), (7, 1), (3, 2, 8), (33, 3), (5, 33), (2, 3, 4, 12), (129, 16), (31, 2, 40), (1, 1000), (70_000, 1)]
"""The last one takes the grid's 16,384 threads several passes."""


@pytest.mark.parametrize("order", ORDERS)
def test_biases_are_added_in_place_wherever_memory_begins(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for number, shape in enumerate(SHAPES if simt.flavour == "plain" else SHAPES[:-1], ORDERS.index(order)):
        name, dtype = [*DTYPES.items()][number % 3]
        for kind, offset in (("integers", 0), ("normal", 0), ("normal", 1)):
            y, bias = draw(kind, shape).astype(dtype), draw(kind, shape[-1:], 1).astype(dtype)
            memory = Memory()
            flat = memory.wanted("y", (offset + y.size,), dtype)
            flat[:offset], flat[offset:] = 7, y.reshape(-1)
            given = memory.given("bias", bias, dtype)
            simt.conv_transpose2d_add_bias(name, flat[offset:].reshape(shape), given, 0)
            memory.check(f"{shape} {name}")
            expected = (y.astype(np.float32) + bias.astype(np.float32)).astype(dtype)
            assert_equal(flat[offset:].reshape(shape), expected, name=f"{shape} {name}")
            assert (flat[:offset] == 7).all()


@pytest.mark.parametrize("shape", [(0, 3), (4, 0, 8)])
def test_no_pixels_need_no_launch(simt: ModuleType, shape: tuple[int, ...]) -> None:
    simt.launched()
    simt.conv_transpose2d_add_bias("float32", np.zeros(shape, np.float32), np.zeros(shape[-1], np.float32), 0)
    assert simt.launched() == []


def test_infinities_and_nan_are_sums_as_any(simt: ModuleType) -> None:
    y = np.array([[np.inf, np.nan, -0.0, 65504.0]], np.float16)
    bias = np.array([-np.inf, 1.0, -0.0, 32.0], np.float16)
    simt.conv_transpose2d_add_bias("float16", y, bias, 0)
    assert_equal(y, np.array([[np.nan, np.nan, -0.0, np.inf]], np.float16))


def test_what_does_not_fit_is_refused_and_nothing_is_written(simt: ModuleType) -> None:
    y, bias = np.full((2, 3, 4), 7, np.float32), np.ones(4, np.float32)
    read_only = y.copy()
    read_only.flags.writeable = False
    pool = np.full(28, 7, np.float32)
    bad: list[tuple[tuple[str, Any, Any], type[Exception], str]] = [
        (
            ("float32", y, bias[:3]),
            ValueError,
            r"'bias' of shape \(3,\) must have shape \(4,\): a bias for each of y's",
        ),
        (("float32", y, bias.reshape(2, 2)), ValueError, r"'bias' of shape \(2, 2\) must have shape \(4,\)"),
        (("float16", y, bias), TypeError, r"'y' of shape \(2, 3, 4\) must be float16"),
        (("float64", y, bias), ValueError, "dtype must be float32, float16 or bfloat16, got float64"),
        (("float32", y[:, ::2], bias), ValueError, "'y' .*must be C-contiguous"),
        (("float32", read_only, bias), ValueError, "'y' .*is read-only"),
        (("float32", np.array(7, np.float32), bias), ValueError, "'y' has no axis of channels"),
        (("float32", np.zeros((3, 0), np.float32), bias[:0]), ValueError, r"must have from 1 to 2\^31 - 1 channels"),
        (("float32", pool[:24].reshape(6, 4), pool[22:26]), ValueError, "'y' .* and 'bias' .* overlap in memory"),
    ]
    for arguments, error, message in bad:
        with pytest.raises(error, match=message):
            simt.conv_transpose2d_add_bias(*arguments, 0)
    assert (y == 7).all()
    assert (pool == 7).all()
