"""Moments that come with a convolution, and the batch norm that is given them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from epilogue_checks import CASES, truth_of
from op_checks import NCHW, draw, frozen

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops import norm
from gpucnn.reference.norm_problem import Moments, NormProblem
from gpucnn.testing import assert_close, assert_equal, naive, tolerance

pytestmark = pytest.mark.usefixtures("poison")


def normalized(y: Any, moments: Any, **options: Any) -> tuple[Any, list[Any]]:
    kept = [gpucnn.zeros(y.shape[1], dtype=y.dtype), gpucnn.ones(y.shape[1], dtype=y.dtype)]
    return F.batch_norm_relu(y, *kept, training=True, moments=moments, **options), kept


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_batch_norm_given_moments_is_the_one_that_takes_them(dtype: str) -> None:
    for case in CASES:
        t = truth_of(case, "normal")
        leaves = [[gpucnn.tensor(array, dtype, requires_grad=True) for array in (t.x, t.w)] for _ in range(2)]
        y, moments = F.conv2d(*leaves[0], **case.arguments, return_moments=True)
        assert isinstance(moments, Moments)
        found, kept = normalized(y, moments)
        again, kept_again = normalized(F.conv2d(*leaves[1], **case.arguments), None)
        allowed = tolerance(found.dtype, 8)
        assert_close(found, again.numpy().astype(np.float64), rtol=allowed, atol=allowed)
        for one, other in zip(kept, kept_again, strict=True):
            assert_close(one, other.numpy().astype(np.float64), rtol=allowed, atol=allowed)
        dy = draw("normal", y.shape, 9)
        for result in (found, again):
            result.backward(dy)
        for one, other in zip(*leaves, strict=True):
            size = float(np.abs(other.grad.numpy()).max())
            assert_close(one.grad, other.grad.numpy().astype(np.float64), rtol=64 * allowed, atol=64 * allowed * size)


@pytest.mark.parametrize("name", ["reference", "simt"])
@pytest.mark.parametrize("rows", [1, 7, 64, 100, 399, 400, 1000])
def test_moments_of_any_splits_are_merged(rows: int, name: str) -> None:
    """Far from 0, each split with its own mean; and the moments stay what they were."""
    if reason := backend.unavailable(name):
        pytest.skip(reason)
    y = (draw("normal", (400, 24)) + 50 + 3 * (np.arange(400) // 100)[:, None]).astype(np.float32)
    first = y[0].astype(np.float64)
    lines = naive.conv2d_moments(y.reshape(4, 10, 10, 24).transpose(NCHW) - first[:, None, None], rows)
    moments = Moments(frozen(np.vstack([lines, first]), np.float32), rows)
    problem = NormProblem(1, 400, 24, 24, 1e-5, 0.25)
    kept = (np.zeros(24, np.float32), np.ones(24, np.float32))
    mine = (kept[0].copy(), kept[1].copy())
    with backend.use_backend("reference"):
        truth = norm.fprop(problem, y[None].astype(np.float64), None, None, kept, None, like=y)
    with backend.use_backend(name, strict=True):
        writable = Moments(moments.partial.copy(), rows)
        found = norm.fprop(problem, y[None], None, None, mine, None, writable, like=y)
    for one, other in zip((*found, *mine), (*truth, *kept), strict=True):
        assert_close(one.astype(np.float32), other.astype(np.float64), rtol=2e-6, atol=2e-5)
    assert_equal(writable.partial, moments.partial)


@pytest.mark.parametrize("name", ["reference", "simt"])
def test_a_batch_norm_given_moments_reads_its_input_for_nothing_else(name: str) -> None:
    """Those of other numbers make other results: it is they that count."""
    if reason := backend.unavailable(name):
        pytest.skip(reason)
    x = draw("normal", (1, 60, 8)).astype(np.float32)
    moments = Moments(np.vstack([np.full(8, 3.0), np.full(8, 60 * 4.0), np.zeros(8)]).astype(np.float32), 60)
    with backend.use_backend(name, strict=True):
        y, mean, inverse = norm.fprop(NormProblem(1, 60, 8, 8, 0.0), x, None, None, None, None, moments, like=x)
    assert_close(y, (x.astype(np.float64) - 3) / 2, rtol=1e-6, atol=1e-6)
    assert_equal(mean, np.full((1, 8), 3.0))
    assert_equal(inverse, np.full((1, 8), 0.5))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"moments": np.ones((3, 5))}, TypeError, "moments are what F.conv2d"),
        ({"moments": Moments(np.ones((3, 4), "f4"), 32)}, ValueError, r"of 4 channels and of 1 to 32 positions"),
        ({"moments": Moments(np.ones((3, 5), "f4"), 31)}, ValueError, r"not those of input \(2, 5, 4, 4\)"),
        ({"moments": Moments(np.ones((5, 5), "f4"), 32)}, ValueError, "of 33 to 64 positions"),
        ({"moments": Moments(np.ones((3, 5), "f4"), 32), "training": False}, ValueError, "training is False"),
    ],
)
def test_moments_that_are_not_the_inputs_are_refused(options: Any, error: type[Exception], message: str) -> None:
    x, kept = gpucnn.ones(2, 5, 4, 4), (gpucnn.zeros(5), gpucnn.ones(5))
    for name in ("batch_norm", "batch_norm_relu"):
        with pytest.raises(error, match=f"{name}: .*{message}"):
            getattr(F, name)(x, *kept, **{"training": True, **options})
    assert kept[0].tolist() == [0] * 5
