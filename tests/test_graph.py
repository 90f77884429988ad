"""backward(): where gradients go, how they add up, what they share, what is freed, and what is refused."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from graph_checks import grad, leaf

import gpucnn
from gpucnn import Tensor, backend, no_grad
from gpucnn import functional as F

# ------------------------------------------------------------------------------------------------- graphs


def test_a_diamond() -> None:
    x = leaf(3.0)
    y = x * x
    (y * y + y).sum().backward()
    assert grad(x) == [4 * 3**3 + 2 * 3]


def test_a_tensor_used_many_times() -> None:
    x = leaf(1.0, 2.0)
    total = gpucnn.zeros(2)
    for _ in range(50):
        total = total + x
    (total * x).sum().backward()
    assert grad(x) == [100, 200]


def test_a_late_use_of_an_early_result_waits_for_all_that_comes_between() -> None:
    x = leaf(2.0)
    early = x * 3
    late = early
    for _ in range(5):
        late = late * 2
    (late + early).sum().backward()
    assert grad(x) == [3 * 33]


def test_of_two_outputs_one_is_used() -> None:
    class Both(gpucnn.Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            return a * 2, a * 3

        @staticmethod
        def backward(ctx: Any, first: Any, second: Any) -> Any:
            assert isinstance(first, np.ndarray)
            assert isinstance(second, np.ndarray)
            assert first.shape == second.shape == (2,)
            return first * 2 + second * 3

    for used, expected in ((0, [2, 2]), (1, [3, 3])):
        x = leaf(1.0, 1.0)
        Both.apply(x)[used].sum().backward()
        assert grad(x) == expected
    x = leaf(1.0, 1.0)
    first, second = Both.apply(x)
    (first + second).sum().backward()
    assert grad(x) == [5, 5]


def test_integer_outputs_take_no_part() -> None:
    x = gpucnn.tensor(np.arange(16.0).reshape(1, 1, 4, 4), requires_grad=True)
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    assert (y.requires_grad, indices.requires_grad, indices.is_leaf) == (True, False, True)
    assert indices.tolist() == [[[[5, 7], [13, 15]]]]
    (y * indices).sum().backward()
    assert x.grad is not None
    assert x.grad.numpy().reshape(-1)[[5, 7, 13, 15, 0]].tolist() == [5, 7, 13, 15, 0]
    with pytest.raises(RuntimeError, match="requires no gradient"):
        indices.sum().backward()


def test_inputs_that_need_no_gradient_get_none() -> None:
    x, y = leaf(1.0), gpucnn.tensor([2.0])
    (x * y).sum().backward()
    assert y.grad is None
    frozen = leaf(1.0).requires_grad_(False)
    (x * frozen).sum().backward()
    assert frozen.grad is None
    assert grad(x) == [3]


def test_a_leaf_is_a_graph_of_its_own() -> None:
    x = gpucnn.tensor(5.0, requires_grad=True)
    x.backward()
    x.backward(np.array(2.0, np.float32))
    assert grad(x) == 3
    y = leaf(1.0, 2.0)
    y.backward(gpucnn.tensor([3.0, 4.0]))
    assert grad(y) == [3, 4]


def test_an_empty_batch_has_zero_gradients() -> None:
    weight = gpucnn.ones(3, requires_grad=True)
    (gpucnn.zeros(0, 3) * weight).sum().backward()
    assert grad(weight) == [0, 0, 0]


def test_a_chain_of_20_000_calls_needs_no_recursion() -> None:
    one = gpucnn.tensor(1.0)
    for walk in (True, False):
        x = gpucnn.tensor(0.0, requires_grad=True)
        y = x
        for _ in range(20_000):
            y = y + one
        assert y.item() == 20_000
        if walk:
            y.backward()
            assert grad(x) == 1
        end = weakref.ref(y)
        del y  # without a walk the whole chain goes at once
        assert end() is None


# ------------------------------------------------------------------------------------------------ accumulation


def test_gradients_add_up_over_calls() -> None:
    x = leaf(1.0, 2.0)
    for n in range(1, 4):
        (x * x).sum().backward()
        assert grad(x) == [2 * n, 4 * n]
    x.grad = None
    (x * 3).sum().backward()
    assert grad(x) == [3, 3]


def test_a_gradient_that_somebody_holds_stays_what_it_was() -> None:
    x = leaf(1.0)
    (x * 2).sum().backward()
    held = x.grad
    (x * 2).sum().backward()
    assert held is not None
    assert held.tolist() == [2]
    assert grad(x) == [4]


def memories_differ(*tensors: Tensor | None) -> bool:
    arrays = [t.data for t in tensors if t is not None]
    assert len(arrays) == len(tensors)
    return not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_leaves_share_no_gradient_memory() -> None:
    a, b, c = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(5.0, 6.0)
    ((a + b + c.reshape(2, 1).reshape(2)) * 2).sum().backward()
    assert memories_differ(a.grad, b.grad, c.grad)
    for t in (a, b, c):
        assert t.grad is not None
        t.grad.data += 1
    assert [grad(t) for t in (a, b, c)] == [[3, 3]] * 3


def test_a_gradient_that_repeats_one_number_is_written_out() -> None:
    class Spread(gpucnn.Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            return a.sum()

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return np.lib.stride_tricks.as_strided(dy, (3,), (0,))  # unlike broadcast_to's, it can be written

    x = leaf(1.0, 2.0, 3.0)
    (Spread.apply(x) * 1).backward()
    assert x.grad is not None
    x.grad.data += [1, 2, 3]
    assert grad(x) == [2, 3, 4]


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3, 4, 5), (1, 1), (1, 3, 1, 1)], ids=str)
def test_the_gradient_of_a_sum_is_an_array_that_can_be_written(shape: Any) -> None:
    for run in (Tensor.sum, Tensor.mean, lambda t: t.sum() * t.detach().sum(), lambda t: (t.sum() * 3).sum()):
        x = gpucnn.tensor(np.ones(shape, np.float32), requires_grad=True)
        run(x).backward()
        assert x.grad is not None
        assert backend.memory_order(x.grad.data) == backend.memory_order(x.data)
        x.grad.data += 1  # a broadcast view would be read-only, or add up on one number
        assert np.array_equal(x.grad.numpy(), np.full(shape, x.grad.numpy().flat[0]))


def test_the_gradient_that_the_user_gave_stays_the_users() -> None:
    for given in (np.ones(2, np.float32), gpucnn.tensor([1.0, 1.0])):
        x, y, z = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(5.0, 6.0)
        (x + y).backward(given)
        z.backward(given)
        array = given.data if isinstance(given, Tensor) else given
        for t in (x, y, z):
            assert t.grad is not None
            assert not np.shares_memory(t.grad.data, array)
            t.grad.data += 5
        assert array.tolist() == [1, 1]


def test_a_gradient_is_never_an_array_that_was_saved() -> None:
    class ReturnsWhatItSaved(gpucnn.Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            ctx.save_for_backward(a)
            return a * a / 2

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return ctx.saved[0]

    x = leaf(1.0, 2.0)
    ReturnsWhatItSaved.apply(x).sum().backward()
    assert memories_differ(x.grad, x)
    assert grad(x) == [1, 2]


# ---------------------------------------------------------------------------------------- retain_graph, freeing


def test_retain_graph_lets_backward_run_again() -> None:
    x = leaf(2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    y.backward()
    assert grad(x) == [12]


@pytest.mark.parametrize("function", [lambda x: x * x, lambda x: x + x, lambda x: x.sum(), F.relu])
def test_a_second_backward_without_it_is_refused(function: Any) -> None:
    x = leaf(2.0)
    y = function(x)
    y.backward(np.ones(y.shape, np.float32))
    before = grad(x)
    with pytest.raises(RuntimeError, match=r"a second time.*retain_graph=True"):
        y.backward(np.ones(y.shape, np.float32))
    assert grad(x) == before


def test_a_freed_part_of_another_graph_is_refused_by_name() -> None:
    x = leaf(2.0)
    shared = x * x
    (shared * 2).sum().backward()
    with pytest.raises(RuntimeError, match="Multiply a second time"):
        (shared + 1).sum().backward()


def test_backward_frees_what_was_saved() -> None:
    x = leaf(1.0, 2.0)
    middle = x.exp()
    saved = weakref.ref(middle.data)
    y = (middle * 3).sum()
    del middle
    gc.collect()
    assert saved() is not None
    y.backward()
    assert saved() is None


def test_what_was_saved_lives_while_the_graph_is_retained() -> None:
    x = leaf(1.0, 2.0)
    middle = x.exp()
    saved = weakref.ref(middle.data)
    y = middle.sum()
    del middle
    y.backward(retain_graph=True)
    assert saved() is not None
    del y
    assert saved() is None


def test_without_recording_nothing_is_kept() -> None:
    x = leaf(1.0, 2.0)
    with no_grad():
        middle = x.exp()
        saved = weakref.ref(middle.data)
        y = middle * 3
        del middle
    assert saved() is None
    assert (y.requires_grad, y.is_leaf) == (False, True)


# ------------------------------------------------------------------------------------------------- refusals


def test_create_graph_is_refused() -> None:
    x = leaf(1.0)
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        (x * x).sum().backward(create_graph=True)
    (x * x).sum().backward(create_graph=False)
    assert grad(x) == [2]


def test_backward_needs_something_that_requires_gradients() -> None:
    for y in (gpucnn.tensor(1.0), gpucnn.tensor([1.0]) * 2, leaf(1.0).detach(), leaf(1.0) > 0, leaf(1.5).to("int64")):
        with pytest.raises(RuntimeError, match="requires no gradient"):
            y.backward()


def test_the_gradient_argument_is_checked() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"without a gradient needs one element.*\(2,\)"):
        (x * 1).backward()
    for shape in ((3,), (), (1,), (2, 1)):
        with pytest.raises(ValueError, match=r"gradient has shape .* the tensor \(2,\)"):
            (x * 1).backward(np.ones(shape, np.float32))
    with pytest.raises(TypeError, match="a tensor holds floats"):
        (x * 1).backward(np.ones(2, np.complex64))
    assert x.grad is None
    (x * 1).backward(np.ones(2, np.int64))
    assert x.grad is not None
    assert x.grad.dtype == np.float32
    (x * 1).backward([1.0, 2.0])
    assert grad(x) == [2, 3]
    x[:1].reshape(1, 1).backward()
    assert grad(x) == [3, 3]
