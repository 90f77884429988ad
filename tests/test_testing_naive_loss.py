"""The truth for cross-entropy: by hand and against PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gpucnn.testing import assert_close, assert_equal, naive


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch, which the truth is compared with, is not installed")


LOG2 = math.log(2)


def test_by_hand() -> None:
    logits = [[0.0, 0.0], [0.0, math.log(3)]]  # softmax: [1/2, 1/2], [1/4, 3/4]
    losses = naive.cross_entropy(logits, [1, 0], reduction="none")
    assert_close(losses, [LOG2, 2 * LOG2], rtol=1e-15, atol=0)
    assert naive.cross_entropy(logits, [1, 0]).item() == pytest.approx(1.5 * LOG2, rel=1e-15)
    assert naive.cross_entropy(logits, [1, 0], reduction="sum").item() == pytest.approx(3 * LOG2, rel=1e-15)
    weighted = naive.cross_entropy(logits, [1, 0], weight=[3.0, 1.0])
    assert weighted.item() == pytest.approx((LOG2 + 3 * 2 * LOG2) / 4, rel=1e-15)
    assert naive.cross_entropy(logits, [1, 0], ignore_index=0).item() == pytest.approx(LOG2, rel=1e-15)
    smoothed = naive.cross_entropy(logits, [1, 0], label_smoothing=0.5, reduction="none")
    assert_close(smoothed, [LOG2, 0.75 * 2 * LOG2 + 0.25 * math.log(4 / 3)], rtol=1e-15, atol=0)


def test_gradient_by_hand() -> None:
    logits = [[0.0, 0.0], [0.0, math.log(3)]]
    assert_close(naive.cross_entropy_grad(1.0, logits, [1, 0]), [[0.25, -0.25], [-0.375, 0.375]], rtol=1e-15, atol=0)
    dz = naive.cross_entropy_grad([2.0, 4.0], logits, [1, 0], reduction="none")
    assert_close(dz, [[1, -1], [-3, 3]], rtol=1e-15, atol=0)


def test_huge_logits_do_not_overflow() -> None:
    logits = [[1e4, -1e4], [-1e4, 1e4], [0.0, -math.inf]]
    assert naive.cross_entropy(logits, [0, 0, 0], reduction="none").tolist() == [0, 2e4, 0]
    assert naive.cross_entropy_grad(1.0, logits, [0, 0, 0], reduction="sum").tolist() == [[0, 0], [-1, 1], [0, 0]]


def test_nothing_to_average_is_nan_with_zero_gradients() -> None:
    assert math.isnan(naive.cross_entropy([[1.0, 2.0]], [-100]).item())
    assert naive.cross_entropy([[1.0, 2.0]], [-100], reduction="sum").item() == 0
    assert naive.cross_entropy_grad(1.0, [[1.0, 2.0]], [-100]).tolist() == [[0, 0]]
    assert math.isnan(naive.cross_entropy(np.zeros((0, 3)), np.zeros(0, np.int64)).item())
    assert naive.cross_entropy_grad(1.0, np.zeros((0, 3)), np.zeros(0, np.int64)).shape == (0, 3)


@pytest.mark.peers
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("targets", ["all", "some ignored", "all ignored", "class ignored"])
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 2, 3), (5, 1)], ids=str)
def test_is_pytorchs(
    shape: tuple[int, ...], targets: str, weighted: bool, label_smoothing: float, reduction: Any, torch: Any
) -> None:
    rng = np.random.default_rng(7)
    logits = rng.standard_normal(shape) * 3
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    ignore_index = 0 if targets == "class ignored" else -100
    if targets == "some ignored":
        target[::2] = ignore_index
    elif targets == "all ignored":
        target[...] = ignore_index
    weight = rng.random(shape[1]) + 0.1 if weighted else None
    options: dict[str, Any] = {
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "reduction": reduction,
    }
    leaf = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        leaf, torch.tensor(target), weight=None if weight is None else torch.tensor(weight), **options
    )
    found = naive.cross_entropy(logits, target, weight, **options)
    assert_close(found, loss.detach(), rtol=1e-13, atol=1e-15, equal_nan=True)

    dloss = rng.standard_normal(tuple(loss.shape))
    loss.backward(torch.tensor(dloss))
    dlogits = naive.cross_entropy_grad(dloss, logits, target, weight, **options)
    assert_close(dlogits, leaf.grad, rtol=1e-12, atol=1e-15)
    ignored = np.broadcast_to(np.expand_dims(target == ignore_index, 1), shape)
    assert_equal(dlogits[ignored], np.zeros(np.count_nonzero(ignored)))


@pytest.mark.parametrize(
    ("logits", "target", "options", "message"),
    [
        (np.zeros((2, 3)), [0, 3], {}, r"class 3, outside \[0, 3\)"),
        (np.zeros((2, 3)), [0, -1], {}, "class -1"),
        (np.zeros((2, 3)), [0, 1, 2], {}, "do not fit"),
        (np.zeros(3), 0, {}, "do not fit"),
        (np.zeros((2, 3)), [0.0, 1.0], {}, "class indices, integers"),
        (np.zeros((2, 3)), [0, 1], {"weight": [1.0, 2.0]}, r"weight must have shape \(3,\)"),
        (np.zeros((2, 3)), [0, 1], {"reduction": "average"}, "reduction must be"),
    ],
)
def test_refuses(logits: Any, target: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        naive.cross_entropy(logits, target, **options)
