"""Random small graphs, recorded here and in PyTorch: same values, same gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpucnn
from gpucnn.testing import assert_close, rotating_seed

pytestmark = pytest.mark.peers

SHAPES = [(2, 3), (3,), (1, 3), (2, 1), (), (2, 3, 2, 2), (3, 1, 1)]

# A step takes tensors of either library and answers with one; what raises ValueError or RuntimeError does not fit.
BINARY: list[Any] = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b * 0.1,
    lambda a, b: a / (b * b + 1),
    lambda a, b: 2 - a * 0.5 + b,
]
UNARY: list[Any] = [
    lambda a: -a,
    lambda a: (-(a * a)).exp(),
    lambda a: (a * a + 1).log(),
    lambda a: a.relu(),
    lambda a: (a * 0.1) ** 2,
    lambda a: a.sum(),
    lambda a: a.mean(0, True) if a.ndim else a,
    lambda a: a.sum((0, -1)) if a.ndim > 1 else a,
    lambda a: a.reshape(-1),
    lambda a: a.flatten(1) if a.ndim > 1 else a,
    lambda a: a.unsqueeze(0) if a.ndim < 4 else a,
    lambda a: a.transpose(0, -1) if a.ndim else a,
    lambda a: a.permute(0, 2, 3, 1) if a.ndim == 4 else a,
    lambda a: a[0] if a.ndim else a,
    lambda a: a[..., 1:] if a.ndim and a.shape[-1] > 1 else a,
    lambda a: a[[0, -1, 0]] if a.ndim else a,
    lambda a: a.clone(),
    lambda a: a.detach() + a,
]
steps = st.one_of(
    st.tuples(st.sampled_from(BINARY), st.integers(0, 99), st.integers(0, 99)),
    st.tuples(st.sampled_from(UNARY), st.integers(0, 99)),
)


def run(leaves: list[Any], program: list[Any]) -> tuple[list[Any], list[bool]]:
    """Every tensor that came about, and which steps could run."""
    tensors, ran = list(leaves), []
    for function, *operands in program:
        try:
            result = function(*[tensors[number % len(tensors)] for number in operands])
        except (ValueError, RuntimeError):
            ran.append(False)
            continue
        ran.append(True)
        tensors.append(result)
    return tensors, ran


def total(tensors: list[Any]) -> Any:
    """A number to which all tensors contribute, bounded where they grow large."""
    result = 0
    for position, tensor in enumerate(tensors):
        result = result + (tensor / (tensor * tensor + 1)).sum() * (position + 1)
    return result


@settings(
    max_examples=150, deadline=None, derandomize=False, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3),
    program=st.lists(steps, max_size=8),
    calls=st.integers(1, 2),
)
def test_random_graphs(torch: Any, shapes: list[Any], program: list[Any], calls: int) -> None:
    rng = np.random.default_rng([rotating_seed(), len(program)])
    arrays = [rng.standard_normal(shape) for shape in shapes]
    ours = [gpucnn.tensor(array, requires_grad=True) for array in arrays]
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    our_tensors, our_steps = run(ours, program)
    their_tensors, their_steps = run(theirs, program)
    assert our_steps == their_steps
    for a, b in zip(our_tensors, their_tensors, strict=True):
        assert_close(a.numpy(), b.detach().numpy(), rtol=1e-11, atol=1e-11)
    for _ in range(calls):
        total(our_tensors).backward(retain_graph=True)
        total(their_tensors).backward(retain_graph=True)
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad is not None
        largest = max(1.0, float(np.abs(b.grad.numpy()).max(initial=0.0)))
        assert_close(a.grad.numpy(), b.grad.numpy(), rtol=1e-10, atol=1e-10 * largest)
