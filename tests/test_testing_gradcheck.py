"""gradcheck must pass right gradients and refuse wrong ones, here on a Tensor of twenty lines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn.testing import gradcheck, naive

Vjp = Callable[[np.ndarray], Sequence[np.ndarray | None]]


class Tiny:
    """An array and how to send a cotangent to the tensors it came from."""

    def __init__(
        self, data: Any, requires_grad: bool = False, parents: Sequence[Tiny] = (), vjp: Vjp | None = None
    ) -> None:
        self.data = np.asarray(data)
        self.requires_grad = requires_grad
        self.grad: Tiny | None = None
        self.parents, self.vjp = parents, vjp

    def numpy(self) -> np.ndarray:
        return self.data

    def backward(self, gradient: Tiny) -> None:
        assert self.vjp is not None
        for parent, grad in zip(self.parents, self.vjp(gradient.data), strict=True):
            if grad is not None:
                parent.grad = Tiny(grad if parent.grad is None else parent.grad.data + grad)


def leaf(*shape: int, seed: int = 0) -> Tiny:
    return Tiny(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def cube(x: Tiny) -> Tiny:
    return Tiny(x.data**3, parents=[x], vjp=lambda dy: [3 * x.data**2 * dy])


def product(x: Tiny, y: Tiny) -> Tiny:
    return Tiny(x.data @ y.data, parents=[x, y], vjp=lambda dz: [dz @ y.data.T, x.data.T @ dz])


def conv(x: Tiny, weight: Tiny, bias: Tiny) -> Tiny:
    return Tiny(
        naive.conv2d(x.data, weight.data, bias.data, stride=2, padding=1),
        parents=[x, weight, bias],
        vjp=lambda dy: [
            naive.conv2d_input_grad(dy, weight.data, x.data.shape, stride=2, padding=1),
            naive.conv2d_weight_grad(dy, x.data, weight.data.shape, stride=2, padding=1),
            naive.conv2d_bias_grad(dy),
        ],
    )


def spoilt(fn: Callable[..., Tiny], number: int, fault: Callable[[np.ndarray], Any]) -> Callable[..., Tiny]:
    """fn with the gradient of one input changed by `fault`."""

    def wrapped(*inputs: Tiny) -> Tiny:
        y = fn(*inputs)
        right = y.vjp
        assert right is not None

        def vjp(dy: np.ndarray) -> list[np.ndarray | None]:
            return [fault(np.array(g)) if i == number else g for i, g in enumerate(right(dy))]

        y.vjp = vjp
        return y

    return wrapped


def refused(fn: Callable[..., Any], *inputs: Tiny, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        gradcheck(fn, inputs, **options)
    return str(caught.value)


def test_right_gradients_pass() -> None:
    assert gradcheck(cube, [leaf(3, 4)])
    assert gradcheck(product, [leaf(3, 4), leaf(4, 2, seed=1)])
    assert gradcheck(conv, [leaf(2, 3, 5, 4), leaf(4, 3, 3, 2, seed=1), leaf(4, seed=2)])
    assert gradcheck(cube, [leaf()])
    assert gradcheck(cube, [leaf(0, 3)])
    for seed in range(5):
        assert gradcheck(cube, [leaf(40, 50)], seed=seed)  # sampled


def test_the_same_tensor_twice_adds_up() -> None:
    x = leaf(3, 3)
    assert gradcheck(lambda x: product(x, x), [x])


def test_inputs_stay_as_they_are() -> None:
    x = leaf(3, 4)
    before = x.data.copy()
    gradcheck(cube, [x])
    assert x.grad is None
    assert np.array_equal(x.data, before)


@pytest.mark.parametrize("shape", [(4, 4), (32, 32)], ids=["every element", "sampled"])
@pytest.mark.parametrize(
    "fault",
    [
        lambda g: 2 * g,
        lambda g: g.T,
        lambda g: 0 * g,
        lambda g: -g,
        lambda g: g * (1 + 1e-3),
        lambda g: g + 1e-4,
        lambda g: np.nan * g,
        lambda g: np.roll(g, 1),
        lambda g: np.where(np.arange(g.size).reshape(g.shape) == g.size // 2, g + 0.1, g),
        lambda g: np.where(np.arange(g.size).reshape(g.shape) == g.size - 1, np.nan, g),
    ],
    ids=["twice", "transposed", "zero", "negated", "a bit", "shifted", "nan", "rolled", "one element", "one nan"],
)
@pytest.mark.parametrize("number", [0, 1])
def test_wrong_gradients_are_refused(fault: Callable[[np.ndarray], Any], shape: tuple[int, int], number: int) -> None:
    inputs = [leaf(*shape), leaf(*shape, seed=1)]
    message = refused(spoilt(product, number, fault), *inputs)
    assert message.startswith(f"gradient of input {number} is wrong")
    assert "analytic" in message
    assert "numeric" in message


def test_the_message_names_the_element_and_both_values() -> None:
    cotangents = []

    def off_at_2_1(x: Tiny) -> Tiny:
        def vjp(dy: np.ndarray) -> list[np.ndarray]:
            cotangents.append(dy)
            g = 3 * x.data**2 * dy
            g[2, 1] = 123.25
            return [g]

        return Tiny(x.data**3, parents=[x], vjp=vjp)

    x = leaf(3, 4)
    message = refused(off_at_2_1, x)
    head, row = message.splitlines()
    assert head == "gradient of input 0 is wrong at 1 of 12 elements checked (of 12), rtol 1e-05, atol 1e-07:"
    assert row.startswith("  at (2, 1): analytic 123.25, numeric ")
    right = cotangents[-1][2, 1] * 3 * x.data[2, 1] ** 2
    assert float(row.rpartition(" ")[2]) == pytest.approx(right, rel=1e-6)


def test_a_wrong_element_outside_the_sample_is_seen() -> None:
    seen = set()
    for place in range(0, 2000, 250):

        def off(g: np.ndarray, place: int = place) -> np.ndarray:
            g.flat[place] += 0.5
            return g

        seen.add("random direction" in refused(spoilt(cube, 0, off), leaf(40, 50), max_elements=3))
    assert True in seen


def test_missing_and_misshapen_gradients_are_refused() -> None:
    pair = leaf(2, 3), leaf(3, 2, seed=1)
    assert (
        refused(spoilt(product, 1, lambda g: None), *pair) == "input 1 got no gradient: its grad is None after backward"
    )
    message = refused(spoilt(product, 0, lambda g: g.T), *pair)
    assert "float64 of shape (3, 2), expected float64 of shape (2, 3)" in message
    message = refused(spoilt(product, 0, lambda g: g.astype(np.float32)), *pair)
    assert "is float32 of shape (2, 3)" in message


def test_what_changes_from_call_to_call_is_refused() -> None:
    numbers = itertools.count()

    def drifting(x: Tiny) -> Tiny:
        return Tiny(x.data + 1e-9 * next(numbers), parents=[x], vjp=lambda dy: [dy])

    assert "two calls with the same inputs gave different outputs" in refused(drifting, leaf(3))
    drifting_back = spoilt(cube, 0, lambda g: g + 1e-12 * next(numbers))
    assert "backward is not deterministic" in refused(drifting_back, leaf(3))


def test_what_writes_into_its_input_is_refused() -> None:
    def greedy(x: Tiny) -> Tiny:
        y = Tiny(x.data**3, parents=[x], vjp=lambda dy: [dy])
        x.data *= 2
        return y

    assert refused(greedy, leaf(3)) == "fn changed the values of input 0"


def test_unfit_inputs_and_outputs_are_refused() -> None:
    x = leaf(2)
    with pytest.raises(ValueError, match="input 1 must be float64 for central differences, got float32"):
        gradcheck(product, [x, Tiny(np.ones(2, np.float32), requires_grad=True)])
    with pytest.raises(ValueError, match="input 0 does not require a gradient"):
        gradcheck(cube, [Tiny(np.ones(2))])
    with pytest.raises(ValueError, match="at least one input"):
        gradcheck(cube, [])
    with pytest.raises(ValueError, match="eps must be positive"):
        gradcheck(cube, [x], eps=0)
    with pytest.raises(ValueError, match="its output is float32"):
        gradcheck(lambda x: Tiny(x.data.astype(np.float32), parents=[x], vjp=lambda dy: [dy]), [x])
    with pytest.raises(TypeError, match="fn must return one Tensor, got tuple"):
        gradcheck(lambda x: (x, x), [x])


def test_inputs_keep_their_memory_order() -> None:
    orders = []

    def watching(x: Tiny) -> Tiny:
        orders.append(x.data.transpose(0, 2, 3, 1).flags.c_contiguous)
        return cube(x)

    images = Tiny(np.random.default_rng(0).standard_normal((2, 3, 4, 5)).transpose(0, 3, 1, 2), requires_grad=True)
    assert gradcheck(watching, [images])
    assert len(orders) > 2
    assert all(orders)


def test_on_the_librarys_own_tensor() -> None:
    rng = np.random.default_rng(0)
    shapes = ((2, 3, 5, 4), (4, 3, 3, 2), (4,))
    inputs = [gpucnn.Tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]
    conv2d = gpucnn.functional.conv2d
    assert gradcheck(lambda x, weight, bias: conv2d(x, weight, bias, stride=2, padding=1), inputs)
    with pytest.raises(AssertionError, match="gradient of input 0 is wrong at 120 of 120 elements"):
        gradcheck(lambda x: x.detach() * x, inputs[:1], max_elements=120)
    with pytest.raises(ValueError, match="input 2 does not require a gradient"):
        gradcheck(conv2d, [*inputs[:2], inputs[2].detach()])
    with pytest.raises(ValueError, match="input 0 must be float64"):
        gradcheck(lambda x: x * x, [gpucnn.Tensor(np.ones(3, np.float32), requires_grad=True)])
