"""The truth of normalisation: by hand and against PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gpucnn.testing import assert_close, naive

SHAPE = (3, 4, 2, 5)


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.standard_normal(shape) for shape in shapes]


def test_by_hand() -> None:
    x = np.array([[1.0, 10], [3, 30]])  # means 2 and 20, variances 1 and 100
    assert naive.batch_norm(x, eps=3.0)[:, 0].tolist() == [-0.5, 0.5]
    assert naive.batch_norm(x, [2, 4], [1, 1], eps=0.0).tolist() == [[-1, -3], [3, 5]]
    assert naive.batch_norm(x, eps=0.0, mean=[1, 0], var=[4, 25]).tolist() == [[0, 2], [1, 6]]
    mean, var = naive.batch_statistics(x)
    assert (mean.tolist(), var.tolist()) == ([2, 20], [2, 200])
    assert naive.layer_norm([[1.0, 3], [4, 4]], 1, eps=3.0).tolist() == [[-0.5, 0.5], [0, 0]]
    assert naive.group_norm([[1.0, 3, 7, 7]], 2, eps=3.0).tolist() == [[-0.5, 0.5, 0, 0]]
    assert naive.instance_norm([[[1.0, 3], [5, 5]]], eps=3.0).tolist() == [[[-0.5, 0.5], [0, 0]]]
    assert naive.local_response_norm([[[1.0], [2], [3]]], 2, 2.0, 1.0, 1.0).reshape(-1).tolist() == [
        1 / 2,
        2 / 6,
        3 / 14,
    ]


def test_gradients_by_hand() -> None:
    """Two values a and b become -z and z with z = d / sqrt(d**2 + eps), d being half of b - a."""
    d, eps = 2.0, 12.0
    slope = eps / math.sqrt(d * d + eps) ** 3 / 2  # dz / db
    dx, dweight, dbias = naive.batch_norm_grad([[0.0], [1.0]], [[1.0], [1 + 2 * d]], eps=eps)
    assert_close(dx, np.array([[-slope], [slope]]), rtol=1e-15, atol=0)
    assert (dweight.tolist(), dbias.tolist()) == ([0.5], [1])
    dx = naive.local_response_norm_grad([[[1.0]]], [[[2.0]]], 1, 1.0, 1.0, 1.0)  # x / (1 + x**2)
    assert_close(dx, np.array([[[-3 / 25]]]), rtol=1e-15, atol=0)


def compare(torch: Any, ours: tuple[np.ndarray, ...], run: Any, dy: np.ndarray, *inputs: np.ndarray) -> None:
    leaves = [torch.tensor(array, requires_grad=True) for array in inputs]
    y = run(*leaves)
    y.backward(torch.tensor(dy))
    for found, right in zip(ours, (y, *(leaf.grad for leaf in leaves)), strict=True):
        assert_close(found, right.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.peers
def test_all_are_pytorchs(torch: Any) -> None:
    f = torch.nn.functional
    x, dy, weight, bias, mean = arrays(SHAPE, SHAPE, (4,), (4,), (4,))
    var = np.abs(mean) + 0.5
    given = torch.tensor(mean), torch.tensor(var)
    compare(
        torch,
        (naive.batch_norm(x, weight, bias), *naive.batch_norm_grad(dy, x, weight)),
        lambda x, w, b: f.batch_norm(x, None, None, w, b, True),
        *(dy, x, weight, bias),
    )
    compare(
        torch,
        (
            naive.batch_norm(x, weight, bias, mean=mean, var=var),
            *naive.batch_norm_grad(dy, x, weight, mean=mean, var=var),
        ),
        lambda x, w, b: f.batch_norm(x, *given, w, b),
        *(dy, x, weight, bias),
    )
    compare(
        torch,
        (naive.instance_norm(x, weight, bias), *naive.instance_norm_grad(dy, x, weight)),
        lambda x, w, b: f.instance_norm(x, None, None, w, b),
        *(dy, x, weight, bias),
    )
    for groups in (1, 2, 4):
        compare(
            torch,
            (naive.group_norm(x, groups, weight, bias), *naive.group_norm_grad(dy, x, groups, weight)),
            lambda x, w, b, groups=groups: f.group_norm(x, groups, w, b),
            *(dy, x, weight, bias),
        )
    for axes in (1, 2, 3):
        inner = SHAPE[4 - axes :]
        weight, bias = arrays(inner, inner)
        compare(
            torch,
            (naive.layer_norm(x, axes, weight, bias), *naive.layer_norm_grad(dy, x, axes, weight)),
            lambda x, w, b, inner=inner: f.layer_norm(x, inner, w, b),
            *(dy, x, weight, bias),
        )
    for size in (1, 2, 3, 9):
        compare(
            torch,
            (naive.local_response_norm(x, size, 0.5), naive.local_response_norm_grad(dy, x, size, 0.5)),
            lambda x, size=size: f.local_response_norm(x, size, 0.5),
            *(dy, x),
        )
