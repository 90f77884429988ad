"""Rectifiers beyond what all activations have in common: rounded bounds, slopes learnt and slopes drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, draw, each_kernel, frozen, names
from pointwise_checks import EPS, INF, NAN, check, values

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.ops import rectifier as ops
from gpucnn.random import philox4x32, split64
from gpucnn.reference import rectifier as reference
from gpucnn.reference.rectifier import RReluProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("bound", [0.1, 1 / 3, 1e-4])
def test_bounds_that_the_dtype_rounds_still_have_no_slope(dtype: str, bound: float) -> None:
    """The gradient asks which outputs equal the bounds: these are the bounds as the dtype holds them."""
    x = gpucnn.tensor([-1.0, -bound, 0.0, bound, 1.0], dtype, requires_grad=True)
    F.hardtanh(x, -bound, bound).sum().backward()
    assert x.grad.tolist() == [0, 0, 1, 0, 0]


# --------------------------------------------------------------------------------------------------- learnt slopes

PRELU_SHAPES = [((2, 3, 4, 5), 3), ((2, 3, 4, 5), 1), ((4, 3), 3), ((3, 5, 2), 5), ((7,), 1), ((), 1), ((0, 3, 2), 3)]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize(("shape", "weights"), PRELU_SHAPES, ids=str)
def test_prelu(shape: tuple[int, ...], weights: int, dtype: str) -> None:
    x, w = values(*shape), draw("normal", (weights,), 2)
    dy = draw("normal", shape, 1)
    along = w.reshape(-1, *(1,) * (len(shape) - 2)) if weights > 1 else w.reshape((1,) * len(shape))
    for layout in LAYOUTS.values() if shape else [np.asarray]:
        leaf, weight = gpucnn.Tensor(layout(x.astype(dtype)), requires_grad=True), gpucnn.tensor(w, dtype)
        y = F.prelu(leaf, weight.requires_grad_())
        y.backward(layout(dy.astype(dtype)))
        check(y.numpy(), naive.prelu(x, along), dtype, "y", 4)
        check(leaf.grad.numpy(), naive.prelu_grad(dy, x, along), dtype, "input gradient", 4)
        terms = naive.prelu_weight_grad(dy, x)
        if weights > 1:
            terms = terms.sum(axis=tuple(axis for axis in range(len(shape)) if axis != 1))
        check(weight.grad.numpy(), terms.sum().reshape(1) if weights == 1 else terms, dtype, "weight gradient", 64)


def test_these_are_all_kernels() -> None:
    assert names(ops.prelu) == names(ops.prelu_grad) == names(ops.prelu_weight_grad) == ["array"]
    assert names(ops.rrelu_slopes) == ["philox"]


def test_every_kernel_of_prelu() -> None:
    for dtype in EPS:
        x, dy = (values(5, 4, 3, stream=i, kind=kind).astype(dtype) for i, kind in enumerate(("special", "normal")))
        w = draw("normal", (4, 1), 2).astype(dtype)
        with np.errstate(all="ignore"):
            for name, found in each_kernel(ops.prelu, None, frozen(x), frozen(w)):
                check(found, naive.prelu(x, w), dtype, name, 2)
            for name, found in each_kernel(ops.prelu_grad, None, frozen(dy), frozen(x), frozen(w)):
                check(found, naive.prelu_grad(dy, x, w), dtype, name, 2)
            for name, found in each_kernel(ops.prelu_weight_grad, None, frozen(dy), frozen(x)):
                check(found, naive.prelu_weight_grad(dy, x), dtype, name, 2)


@pytest.mark.peers
@pytest.mark.parametrize(("shape", "weights"), PRELU_SHAPES, ids=str)
def test_prelu_is_pytorchs(shape: tuple[int, ...], weights: int, torch: Any) -> None:
    arrays = values(*shape), draw("normal", (weights,), 2)
    ours = [gpucnn.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = F.prelu(*ours), torch.nn.functional.prelu(*theirs)
    dy = draw("normal", shape, 1)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_close(y, expected.detach(), rtol=1e-15, atol=0)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)


def test_prelu_copies_nothing_and_asks_only_for_what_is_needed() -> None:
    x, w = gpucnn.tensor(values(2, 3, 4, 5), requires_grad=True), gpucnn.tensor([0.5, 0.0, -1.0], "float64")
    with backend.count_layout_copies() as copies:
        y = F.prelu(x, w)
        y.backward(y.detach())
    assert copies.value == 0
    assert w.grad is None
    assert y.data.transpose(NHWC).flags.c_contiguous
    weight = w.requires_grad_()
    F.prelu(x.detach(), weight).sum().backward()
    assert weight.grad.shape == (3,)
    x = gpucnn.tensor(np.where(abs(values(2, 3, 4)) < 0.1, 0.5, values(2, 3, 4)), requires_grad=True)
    assert gradcheck(F.prelu, [x, weight.detach().requires_grad_()])


# ---------------------------------------------------------------------------------------------------- drawn slopes


def drawn(shape: tuple[int, ...], lower: float, upper: float, seed: int, call: int) -> np.ndarray:
    """The slopes by the definition of RReluProblem, one counter at a time."""
    words = [
        int(philox4x32((i & 0xFFFFFFFF, i >> 32, *split64(call)), split64(seed))[0]) for i in range(int(np.prod(shape)))
    ]
    return (lower + (upper - lower) * np.array(words, np.float64) / 2**32).reshape(shape)


@pytest.mark.parametrize("dtype", EPS)
def test_every_kernel_of_rrelu(dtype: str) -> None:
    x = values(2, 3, 4, 5, kind="special").astype(dtype)
    truth = np.where(x <= 0, drawn(x.shape, 0.125, 0.5, 7, 2**33), 1.0)
    for name, found in each_kernel(ops.rrelu_slopes, RReluProblem(x.shape, 0.125, 0.5, 7, 2**33), frozen(x)):
        check(found, truth, dtype, name, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rrelu_in_training_is_a_function_of_seed_call_and_place(layout: str) -> None:
    x, dy = values(2, 3, 4, 5), draw("normal", (2, 3, 4, 5), 1)
    gpucnn.manual_seed(11)
    for call in range(2):
        leaf = gpucnn.Tensor(LAYOUTS[layout](x), requires_grad=True)
        y = F.rrelu(leaf, 0.25, 0.75, training=True)
        y.backward(LAYOUTS[layout](dy))
        slopes = np.where(x <= 0, drawn(x.shape, 0.25, 0.75, 11, call), 1.0)
        assert_close(y, x * slopes, rtol=1e-15, atol=0)
        assert_close(leaf.grad, dy * slopes, rtol=1e-15, atol=0)


def test_rrelu_spreads_its_slopes_evenly_and_copies_nothing() -> None:
    x = gpucnn.tensor(-np.ones((4, 5, 30, 30)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = F.rrelu(x, 0.2, 0.6, training=True)
        y.backward(y.detach())
    assert copies.value == 0
    slopes = -y.numpy()
    assert 0.2 <= slopes.min() < 0.201 < 0.599 < slopes.max() <= 0.6
    assert abs(slopes.mean() - 0.4) < 5 * 0.4 / math.sqrt(12 * slopes.size)
    assert y.data.transpose(NHWC).flags.c_contiguous


def test_rrelu_layer_draws_in_training_alone() -> None:
    layer, x = nn.RReLU(0.25, 0.75), gpucnn.tensor(-np.ones(50))
    assert len(set(layer(x).tolist())) > 40
    before = gpucnn.random.state()
    assert set(layer.eval()(x).tolist()) == {-0.5}
    assert gpucnn.random.state() == before


# -------------------------------------------------------------------------------------------------------- bad input

X = gpucnn.ones(2, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.hardtanh(X, 2, 1), ValueError, "hardtanh: min_val=2 is greater than max_val=1"),
        (lambda: F.hardtanh(X, "a"), TypeError, "hardtanh: min_val must be a number, got 'a'"),
        (lambda: F.leaky_relu(X, X), TypeError, "leaky_relu: negative_slope must be a number"),
        (lambda: F.elu(X, None), TypeError, "elu: alpha must be a number, got None"),
        (lambda: F.celu(X, 0), ValueError, "celu: alpha must not be 0"),
        (lambda: F.softshrink(X, -0.1), ValueError, "softshrink: lambd must be at least 0, got -0.1"),
        (lambda: F.softshrink(X, NAN), ValueError, "softshrink: lambd must be at least 0, got nan"),
        (lambda: F.rrelu(X, 0.5, 0.25), ValueError, "rrelu: lower must not exceed upper, .* got 0.5 and 0.25"),
        (lambda: F.rrelu(X, 0.5, INF, True), ValueError, "both be finite, got 0.5 and inf"),
        (lambda: F.threshold(X, 0.5, [1]), TypeError, r"threshold: value must be a number, got \[1\]"),
        (
            lambda: F.prelu(X, gpucnn.ones(3)),
            ValueError,
            r"prelu: weight must have shape \(1,\), or \(5,\) for the channels of input \(2, 5\), got \(3,\)",
        ),
        (lambda: F.prelu(X, gpucnn.ones(1, 5)), ValueError, r"prelu: weight must have shape .* got \(1, 5\)"),
        (lambda: F.prelu(gpucnn.ones(4), gpucnn.ones(4)), ValueError, r"or \(1,\) for the channels"),
        (lambda: F.prelu(X, gpucnn.ones(5, dtype="float64")), TypeError, "input has dtype float32, but weight"),
        (lambda: F.prelu(X, 0.25), TypeError, "prelu: weight must be a gpucnn.Tensor, got float"),
        (lambda: nn.PReLU(0), ValueError, "PReLU: num_parameters must be at least 1, got 0"),
        (lambda: nn.Hardtanh(1.0, 1.0), ValueError, "Hardtanh: min_val must be less than max_val, got 1.0 and 1.0"),
    ],
)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_selection_by_bits_keeps_what_multiplication_would_spoil() -> None:
    x, slopes = np.array([INF, -INF, NAN, 2.0]), np.zeros(4)
    with np.errstate(all="ignore"):
        assert_equal(reference.prelu(None, x, slopes), np.array([INF, NAN, NAN, 2.0]))
        assert_equal(reference.prelu_weight_grad(None, np.ones(4), x), np.array([0.0, -INF, NAN, 0.0]))
