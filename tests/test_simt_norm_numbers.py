"""Batch, instance and group norm on the CPU: nothing is lost, special numbers, functions and layers in every dtype."""

from __future__ import annotations

import functools
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from norm_kernel_checks import ALL, INF, batch
from op_checks import SEED, draw, frozen

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.ops import norm as ops
from gpucnn.ops.compiled import FLOATS
from gpucnn.optim import SGD
from gpucnn.reference import norm as reference
from gpucnn.reference.norm_problem import NormProblem, Wanted
from gpucnn.testing import assert_close, assert_equal, tolerance

# ---------------------------------------------------------------------------------------------- nothing is lost


def statistics(module: ModuleType, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """y, mean and variance of each channel of x (M,C)."""
    p = NormProblem(1, *x.shape, x.shape[1], 1e-12)
    with np.errstate(all="ignore"):
        y, mean, inverse = ops.fprop(p, frozen(x[None]), None, None, None, None, like=x)
    return y[0], mean[0], inverse[0] ** -2 - 1e-12


@pytest.mark.parametrize("mean", [0.0, 1e4, -3e5])
def test_a_large_mean_costs_no_digits(simt: ModuleType, mean: float) -> None:
    M = 6000 if simt.flavour == "plain" else 600
    x = (mean + np.random.default_rng(SEED).standard_normal((M, 4))).astype(np.float32)
    wide = x.astype(np.float64)
    y, found, var = statistics(simt, x)
    assert_close(found, wide.mean(axis=0), rtol=0, atol=1e-6)
    assert_close(var, wide.var(axis=0), rtol=2e-6, atol=0)
    assert_close(y, (wide - wide.mean(axis=0)) / wide.std(axis=0), rtol=2e-6, atol=2e-6)


def test_a_first_row_that_stands_out_costs_no_digits(simt: ModuleType) -> None:
    """Differences are taken from it, and it is a thousand deviations of the rest off."""
    x = np.random.default_rng(SEED).standard_normal((3000 if simt.flavour == "plain" else 300, 8)).astype(np.float32)
    x[0] += 1000
    wide = x.astype(np.float64)
    _, found, var = statistics(simt, x)
    assert_close(found, wide.mean(axis=0), rtol=0, atol=2e-4)
    assert_close(var, wide.var(axis=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", [0.0, 3.0, 1 / 3, -1e7, 65504.0, 1e30])
def test_a_constant_has_no_variance(simt: ModuleType, value: float) -> None:
    for C in (3, 4):
        y, mean, var = statistics(simt, np.full((200, C), value, np.float32))
        assert_equal(mean, np.full(C, np.float64(np.float32(value))))
        assert_equal(y, np.zeros((200, C)))
        assert (np.abs(var) < 1e-15).all()


def test_infinities_and_nan_stay_in_their_channel(simt: ModuleType) -> None:
    x = np.array(draw("normal", (1, 65, 8)), np.float32)
    x[0, 5, 0], x[0, 0, 1], x[0, 64, 2], x[0, 40, 3] = INF, -INF, math.nan, INF
    p = batch(65, 8, INF)
    kept = np.zeros(8, np.float32), np.ones(8, np.float32)
    y, mean, inverse = ops.fprop(p, frozen(x), None, None, kept, None, like=x)
    dx, dweight, *_ = ops.bprop(p, frozen(x), frozen(x), y, None, mean, inverse, ALL, like=x)
    for array in (y[0], dx[0], inverse, mean, dweight, *kept):
        finite = np.isfinite(array)
        assert (finite if finite.ndim == 1 else finite.all(axis=0))[4:].all()
    assert np.isnan(y[0, :, :4]).all()
    assert not np.isfinite(mean[0, :4]).any()


@pytest.mark.parametrize("value", [math.nan, INF, -INF, -0.0])
@pytest.mark.parametrize("limit", [None, INF, 6.0])
def test_special_numbers_by_running_statistics_are_the_references(
    simt: ModuleType, value: float, limit: float | None
) -> None:
    x, dy = (np.array(draw("normal", (1, 9, 4), n), np.float32) for n in range(2))
    x[0, 3, 2] = dy[0, 5, 1] = value
    p, kept = batch(9, 4, limit, None), (np.zeros(4, np.float32), np.ones(4, np.float32))
    wanted = ALL if limit else Wanted(True, True, True)
    with np.errstate(all="ignore"):
        y, mean, inverse = reference.fprop(p, x, None, None, kept, None)
        right = (y, *reference.bprop(p, dy, x, y, None, mean, inverse, wanted))
    found = ops.fprop(p, x, None, None, kept, None, like=x)[0]
    found = (found, *ops.bprop(p, dy, x, y, None, mean, inverse, wanted, like=x))
    for one, other in zip(found, right, strict=True):
        if other is not None:
            assert_close(one, other, rtol=1e-5, atol=1e-5, equal_nan=True)


# ------------------------------------------------------------------------------------------- functions and layers


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_functions_run_these_kernels(simt: ModuleType, dtype: str) -> None:
    """Forward and backward, with the results of the reference in the same dtype."""
    relu = functools.partial(F.batch_norm_relu, training=True)
    calls: list[tuple[Any, int]] = [
        (lambda x, m, v, w, b, r: relu(x, m, v, w, b, residual=r), 8),
        (lambda x, m, v, w, b, r: relu(x, m, v, w, b, max_val=6), 5),
        (lambda x, m, v, w, b, r: F.batch_norm(x, m, v, w, b), 8),
        (lambda x, m, v, w, b, r: F.batch_norm(x, None, None, w, b, True), 6),
        (lambda x, m, v, w, b, r: F.instance_norm(x, m, v, w, b), 8),
        (lambda x, m, v, w, b, r: F.group_norm(x, 2, w, b), 12),
    ]

    def run(backend_name: str, function: Any, C: int) -> list[np.ndarray]:
        with backend.use_backend(backend_name, strict=True):
            x, residual = (gpucnn.tensor(draw("normal", (3, C, 5, 7), n), dtype, requires_grad=True) for n in (1, 2))
            weight, bias = (gpucnn.tensor(draw("normal", (C,), n), dtype, requires_grad=True) for n in (3, 4))
            kept = gpucnn.zeros(C, dtype=dtype), gpucnn.ones(C, dtype=dtype)
            y = function(x, *kept, weight, bias, residual)
            y.backward(draw("normal", y.shape, 5).astype(dtype))
            leaves = (x, weight, bias, residual)
            return [y.numpy(), *(k.numpy() for k in kept), *(a.grad.numpy() for a in leaves if a.grad is not None)]

    for call in calls:
        for found, right in zip(run("simt", *call), run("reference", *call), strict=True):
            size = 1 + float(np.abs(right.astype(np.float64)).max())
            allowed = 4 * tolerance(found.dtype, 64)
            assert_close(found, right.astype(np.float64), rtol=allowed, atol=allowed * size)


def test_networks_train_as_on_the_reference(simt: ModuleType) -> None:
    """Three steps of a block of batch norms, by the fused op, with strict=False: other ops may be the reference's."""
    outcomes = []
    for name in ("reference", "simt"):
        with backend.use_backend(name):
            gpucnn.manual_seed(5)
            net = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6), nn.ReLU6(), nn.GroupNorm(2, 6))
            optimizer = SGD(net.parameters(), 0.1, momentum=0.9)
            x = gpucnn.tensor(draw("normal", (4, 6, 5, 5)), "float32")
            for _ in range(3):
                optimizer.zero_grad()
                ((net(x) - 1.0) ** 2).mean().backward()
                optimizer.step()
        outcomes.append(net.state_dict())
    for key, value in outcomes[0].items():
        if key.endswith("num_batches_tracked"):
            assert int(outcomes[1][key]) == int(value) == 3
        else:
            assert_close(outcomes[1][key], value.numpy().astype(np.float64), rtol=1e-5, atol=1e-6, name=key)
