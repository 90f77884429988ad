"""Analytic gradients against central differences, in float64.

Tensors are met by their interface alone (`data`, `requires_grad`, `grad`, `numpy()`, `backward(gradient)` and
`type(tensor)(array, requires_grad=True)`), so this module serves any Tensor and imports none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn.testing.compare import to_numpy

_SHOWN = 8
# Streams of their own: a caller who draws the inputs from the same seed must not get a cotangent equal to an input, for
# which x.T @ v, say, is symmetric and a transposed gradient right.
_COTANGENT, _DIRECTIONS = 0x636F74, 0x646972


def gradcheck(
    fn: Callable[..., Any],
    inputs: Sequence[Any],
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    seed: int = 0,
    max_elements: int = 64,
) -> bool:
    """Compares `fn`'s backward with central differences, for a random cotangent v:

        grad[i] = d/dx[i] sum(v * fn(x))    against    sum(v * (fn(x + eps e_i) - fn(x - eps e_i))) / (2 eps)

    An input of at most `max_elements` is checked at every element; a larger one at that many drawn from `seed`, and
    along one random direction of all its elements together, in which a wrong element shows wherever it is.

    The central difference is off by eps**2/6 times the third derivative and by about 1e-16/eps times the value; the
    default tolerances hold both for values and derivatives around 1. Keep the inputs a good deal more than eps away
    from kinks (0 for relu, ties for max pooling): at a kink the two sides rightly differ, and that is the caller's
    matter.

    Args:
        fn: takes the inputs in order, returns one float64 Tensor; must give the same bits each time and leave its
            inputs alone. Close over anything that is not to be differentiated.
        inputs: float64 Tensors with requires_grad. They are copied: their values and `.grad` stay as they are.
        eps: the step.
        rtol, atol: an element passes with |analytic - numeric| <= atol + rtol * |numeric|.
        seed: of the cotangent, the sample and the direction.

    Returns:
        True, so that it can be asserted.

    Raises:
        AssertionError: a gradient that differs (input, coordinates, analytic and numeric value), is missing or has the
            wrong shape or dtype; an `fn` that changes its inputs or answers two equal calls differently.
        ValueError: inputs that are not float64 or do not require a gradient, an output that is not float64.
    """
    __tracebackhide__ = True
    if not inputs:
        raise ValueError("gradcheck needs at least one input")
    if eps <= 0:
        raise ValueError(f"eps must be positive, got {eps}")
    for number, tensor in enumerate(inputs):
        if tensor.data.dtype != np.float64:
            raise ValueError(f"input {number} must be float64 for central differences, got {tensor.data.dtype}")
        if not tensor.requires_grad:
            raise ValueError(f"input {number} does not require a gradient; pass constants by closing over them")
    cotangent, gradients = _analytic(fn, inputs, seed)
    rng = np.random.default_rng([seed, _DIRECTIONS])
    for number, gradient in enumerate(gradients):

        def slope(direction: NDArray[np.float64], number: int = number) -> float:
            step = eps * direction
            ahead, behind = (_value(fn(*_fresh(inputs, number, sign * step))) for sign in (1.0, -1.0))
            return float(np.sum(cotangent * (ahead - behind)) / (2 * eps))

        shape, size = gradient.shape, gradient.size
        sampled = size > max_elements
        wrong = []
        for flat in np.sort(rng.choice(size, max_elements, replace=False)) if sampled else range(size):
            place = tuple(int(i) for i in np.unravel_index(flat, shape))
            basis = np.zeros(shape)
            basis[place] = 1.0
            analytic, numeric = float(gradient[place]), slope(basis)
            if not abs(analytic - numeric) <= atol + rtol * abs(numeric):
                wrong.append((place, analytic, numeric))
        if wrong:
            raise AssertionError(_report(number, wrong, max_elements if sampled else size, size, rtol, atol))
        if sampled:
            direction = rng.choice([-1.0, 1.0], shape) / np.sqrt(size)
            analytic, numeric = float(np.sum(gradient * direction)), slope(direction)
            spread = float(np.linalg.norm(gradient * direction))
            if not abs(analytic - numeric) <= atol + rtol * spread:
                raise AssertionError(
                    f"gradient of input {number} is wrong along a random direction of all its {size} elements: "
                    f"analytic {analytic:.9g}, numeric {numeric:.9g} (none of the {max_elements} sampled ones differs)"
                )
    return True


def _analytic(
    fn: Callable[..., Any], inputs: Sequence[Any], seed: int
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """The cotangent drawn, and the gradient of each input; forward and backward are run twice and must agree."""
    __tracebackhide__ = True
    value, cotangent, gradients = _run(fn, inputs, seed)
    value_again, _, gradients_again = _run(fn, inputs, seed)
    if not np.array_equal(value, value_again, equal_nan=True):
        raise AssertionError("fn is not deterministic: two calls with the same inputs gave different outputs")
    for number, (gradient, again) in enumerate(zip(gradients, gradients_again, strict=True)):
        if not np.array_equal(gradient, again, equal_nan=True):
            raise AssertionError(f"backward is not deterministic: two runs gave different gradients of input {number}")
    return cotangent, gradients


def _run(
    fn: Callable[..., Any], inputs: Sequence[Any], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.float64]]]:
    """One forward and backward: the output, the cotangent and each input's gradient."""
    __tracebackhide__ = True
    copies = _fresh(inputs)
    output = fn(*copies)
    value = _value(output)
    cotangent = np.asarray(np.random.default_rng([seed, _COTANGENT]).standard_normal(value.shape))
    output.backward(type(output)(_array_module(output.data).asarray(cotangent.copy())))
    for number, (tensor, copy) in enumerate(zip(inputs, copies, strict=True)):
        if not np.array_equal(to_numpy(tensor.data), to_numpy(copy.data), equal_nan=True):
            raise AssertionError(f"fn changed the values of input {number}")
    return value, cotangent, [_gradient(number, copy) for number, copy in enumerate(copies)]


def _value(output: Any) -> NDArray[np.float64]:
    if not hasattr(output, "backward"):
        raise TypeError(f"fn must return one Tensor, got {type(output).__name__}")
    value = np.array(to_numpy(output))
    if value.dtype != np.float64:
        raise ValueError(f"fn must keep float64, its output is {value.dtype}")
    return value


def _gradient(number: int, tensor: Any) -> NDArray[np.float64]:
    __tracebackhide__ = True
    if tensor.grad is None:
        raise AssertionError(f"input {number} got no gradient: its grad is None after backward")
    gradient = to_numpy(tensor.grad)
    shape = to_numpy(tensor.data).shape
    if gradient.shape != shape or gradient.dtype != np.float64:
        raise AssertionError(
            f"gradient of input {number} is {gradient.dtype} of shape {gradient.shape}, "
            f"expected float64 of shape {shape}"
        )
    return np.array(gradient)


def _fresh(inputs: Sequence[Any], moved: int | None = None, step: NDArray[np.float64] | None = None) -> list[Any]:
    """Tensors over copies of the inputs, in the same memory order and place; `step` is added to number `moved`."""
    arrays = [tensor.data.copy(order="K") for tensor in inputs]
    if moved is not None:
        arrays[moved] += _array_module(arrays[moved]).asarray(step)
    return [type(tensor)(array, requires_grad=True) for tensor, array in zip(inputs, arrays, strict=True)]


def _array_module(array: Any) -> Any:
    """numpy or cupy, whichever the array is of."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def _report(
    number: int,
    wrong: list[tuple[tuple[int, ...], float, float]],
    checked: int,
    size: int,
    rtol: float,
    atol: float,
) -> str:
    head = (
        f"gradient of input {number} is wrong at {len(wrong)} of {checked} elements checked (of {size}), "
        f"rtol {rtol:g}, atol {atol:g}:"
    )
    worst = sorted(wrong, key=lambda row: -np.nan_to_num(abs(row[1] - row[2]), nan=np.inf))[:_SHOWN]
    return "\n".join([head, *(f"  at {place}: analytic {a:.9g}, numeric {n:.9g}" for place, a, n in worst)])
