"""The truth for optimisers: single steps by hand, and runs of several steps against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.testing import assert_close, naive

STEPS = 6


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch, which the truth is compared with, is not installed")


def test_sgd_by_hand() -> None:
    parameter, buffer = naive.sgd_step([1.0], [2.0], lr=0.25)
    assert (parameter.item(), buffer) == (0.5, None)
    parameter, buffer = naive.sgd_step([1.0], [2.0], lr=0.25, momentum=0.5, dampening=0.75, weight_decay=2.0)
    assert buffer is not None
    assert (parameter.item(), buffer.item()) == (0.0, 4.0)  # the first step is not dampened
    parameter, buffer = naive.sgd_step([1.0], [2.0], [4.0], lr=0.25, momentum=0.5, dampening=0.75)
    assert buffer is not None
    assert (parameter.item(), buffer.item()) == (0.375, 2.5)
    parameter, buffer = naive.sgd_step([1.0], [2.0], [4.0], lr=0.25, momentum=0.5, nesterov=True)
    assert buffer is not None
    assert (parameter.item(), buffer.item()) == (0.0, 4.0)


def test_adam_by_hand() -> None:
    """The first step moves by lr against the gradient's sign, whatever its size."""
    parameter, m, v = naive.adam_step([1.0, 1.0], [1e-3, -50.0], [0.0, 0.0], [0.0, 0.0], 1, lr=0.125, eps=0.0)
    assert_close(parameter, [0.875, 1.125], rtol=1e-15, atol=0)
    assert_close(m, [1e-4, -5.0], rtol=1e-14, atol=0)
    assert_close(v, [1e-9, 2.5], rtol=1e-12, atol=0)
    decayed, _, _ = naive.adamw_step([1.0], [2.0], [0.0], [0.0], 1, lr=0.125, eps=0.0, weight_decay=4.0)
    assert decayed.item() == pytest.approx(0.5 - 0.125, rel=1e-15)
    coupled, _, _ = naive.adam_step([1.0], [2.0], [0.0], [0.0], 1, lr=0.125, eps=0.0, weight_decay=4.0)
    assert coupled.item() == pytest.approx(0.875, rel=1e-15)


def run_pytorch(torch: Any, optimiser: str, start: np.ndarray, grads: np.ndarray, **options: Any) -> list[np.ndarray]:
    leaf = torch.tensor(start, requires_grad=True)
    torch_optimiser = getattr(torch.optim, optimiser)([leaf], **options)
    path = []
    for grad in grads:
        leaf.grad = torch.tensor(grad)
        torch_optimiser.step()
        path.append(leaf.detach().numpy().copy())
    return path


@pytest.fixture
def start_and_grads() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((4, 3)), rng.standard_normal((STEPS, 4, 3))


@pytest.mark.peers
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
    ],
    ids=str,
)
def test_sgd_is_pytorchs(options: dict[str, Any], start_and_grads: tuple[np.ndarray, np.ndarray], torch: Any) -> None:
    start, grads = start_and_grads
    parameter, buffer = start, None
    for grad, expected in zip(grads, run_pytorch(torch, "SGD", start, grads, lr=0.1, **options), strict=True):
        parameter, buffer = naive.sgd_step(parameter, grad, buffer, lr=0.1, **options)
        assert_close(parameter, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.peers
@pytest.mark.parametrize("options", [{}, {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-2, "weight_decay": 0.3}], ids=str)
@pytest.mark.parametrize(("name", "step"), [("Adam", naive.adam_step), ("AdamW", naive.adamw_step)])
def test_adam_is_pytorchs(
    name: str, step: Any, options: dict[str, Any], start_and_grads: tuple[np.ndarray, np.ndarray], torch: Any
) -> None:
    start, grads = start_and_grads
    parameter, m, v = start, np.zeros_like(start), np.zeros_like(start)
    for number, (grad, expected) in enumerate(
        zip(grads, run_pytorch(torch, name, start, grads, **options), strict=True), start=1
    ):
        parameter, m, v = step(parameter, grad, m, v, number, **options)
        assert_close(parameter, expected, rtol=1e-13, atol=1e-15)
