"""Writes between forward and backward: noticed wherever what was saved has changed, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_checks import grad, leaf

import gpucnn
from gpucnn import functional as F
from gpucnn import no_grad
from gpucnn.nn import Parameter
from gpucnn.optim import SGD


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    w, x = Parameter([2.0, 3.0]), leaf(1.0, 1.0)
    w.grad = gpucnn.tensor([1.0, 1.0])
    loss = (w * x).sum()
    SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match=r"Multiply saved an array of shape \(2,\).*changed in place"):
        loss.backward()
    (w * x).sum().backward()
    assert grad(x) == w.tolist()


def test_a_change_of_what_was_not_saved_is_no_matter() -> None:
    x, w, bias = gpucnn.ones(1, 2), Parameter(np.ones((3, 2), np.float32)), Parameter(np.zeros(3, np.float32))
    loss = F.linear(x, w, bias).sum()
    with no_grad():
        bias.copy_([1.0, 2.0, 3.0])
    loss.backward()
    assert grad(bias) == [1, 1, 1]
    a, b = leaf(1.0), leaf(2.0)
    total = (a + b).sum()
    with no_grad():
        a += 1
        b.copy_([7.0])
    total.backward()
    assert (grad(a), grad(b)) == ([1], [1])


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: x.copy_([5.0, 5.0]),
        lambda x, y: y.copy_([5.0, 5.0]),
        lambda x, y: x.detach().copy_([5.0, 5.0]),
        lambda x, y: y.detach().copy_([5.0, 5.0]),
        lambda x, y: x[:1].copy_([5.0]),
        lambda x, y: x.reshape(2, 1).copy_([[5.0], [5.0]]),
        lambda x, y: x.__iadd__(1),
        lambda x, y: y.__imul__(2),
    ],
    ids=["leaf", "result", "detached leaf", "detached result", "part", "view", "leaf +=", "result *="],
)
def test_changes_through_any_name_of_the_memory_are_noticed(change: Any) -> None:
    x, z = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = x.exp()
    loss = (y * z + x * z).sum()
    with no_grad():
        change(x, y)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_a_change_before_the_call_is_part_of_it() -> None:
    x = leaf(1.0, 2.0)
    with no_grad():
        x.copy_([3.0, 4.0])
    (x * x).sum().backward()
    assert grad(x) == [6, 8]


def test_new_memory_at_an_old_address_is_not_taken_for_a_change() -> None:
    x, other = leaf(1.0), gpucnn.zeros(1)
    addresses = set()
    for _ in range(50):
        scratch = gpucnn.zeros(1).copy_([1.0])  # at the address of the one before
        addresses.add(id(scratch.data))
        y = (x * scratch).sum()
        other.copy_([1.0])  # later than the call, but no business of its
        y.backward()
    assert len(addresses) < 50
    assert grad(x) == [50]
