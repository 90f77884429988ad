"""Functions of one's own through Function.apply, and the switch that turns recording off."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from graph_checks import grad, leaf
from op_checks import named

import gpucnn
from gpucnn import Function, Tensor, no_grad
from gpucnn.testing import assert_close, gradcheck, rotating_seed


class Scaled(Function):
    """(a * factor, b * factor, and how many elements each has): several inputs and outputs, one of integers."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any, *, factor: float = 2.0) -> Any:
        ctx.factor = factor
        return a * factor, b * factor, np.array([a.size, b.size])

    @staticmethod
    def backward(ctx: Any, da: Any, db: Any, d_sizes: Any) -> Any:
        assert d_sizes is None
        return da * ctx.factor, db * ctx.factor


class Product(Function):
    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        ctx.save_for_backward(a if ctx.needs_input_grad[1] else None, b if ctx.needs_input_grad[0] else None)
        return a * b

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        a, b = ctx.saved
        return dy * b if ctx.needs_input_grad[0] else None, dy * a if ctx.needs_input_grad[1] else None


def function(forward: Any, backward: Any = None, name: str = "Mine") -> Any:
    members = {"forward": staticmethod(forward)}
    if backward is not None:
        members["backward"] = staticmethod(backward)
    return type(name, (Function,), members)


def test_several_inputs_outputs_and_parameters() -> None:
    a, b = leaf(1.0, 2.0), leaf(3.0)
    p, q, sizes = Scaled.apply(a, b, factor=5.0)
    assert (p.tolist(), q.tolist(), sizes.tolist()) == ([5, 10], [15], [2, 1])
    assert (p.requires_grad, q.requires_grad, sizes.requires_grad) == (True, True, False)
    assert all(type(t) is Tensor for t in (p, q, sizes))
    (p.sum() * q.sum()).backward()
    assert (grad(a), grad(b)) == ([75, 75], [75])
    p, _, _ = Scaled.apply(a, b)
    a.grad = b.grad = None
    p.sum().backward()
    assert (grad(a), grad(b)) == ([2, 2], [0])


def test_saved_arrays_and_needs_input_grad() -> None:
    x = np.random.default_rng(rotating_seed()).standard_normal((2, 3))
    gradcheck(Product.apply, [gpucnn.tensor(x, requires_grad=True), gpucnn.tensor(x + 1, requires_grad=True)])
    a, b = leaf(2.0), gpucnn.tensor([3.0])
    Product.apply(a, b).sum().backward()
    assert (grad(a), b.grad) == ([3], None)
    Product.apply(b, a).sum().backward()
    assert grad(a) == [6]


def test_inputs_that_are_no_tensors_pass_through() -> None:
    seen: list[Any] = []

    def forward(ctx: Any, first: Any, a: Any, last: Any) -> Any:
        seen.extend([ctx.needs_input_grad, first, type(a), last])
        return a * 2

    a = leaf(1.0)
    function(forward, lambda ctx, dy: (None, dy * 2, None)).apply("text", a, None).sum().backward()
    assert seen == [(False, True, False), "text", np.ndarray, None]
    assert grad(a) == [2]
    with pytest.raises(TypeError, match=r"Mine.apply needs at least one Tensor, got \['ndarray', 'float'\]"):
        function(forward).apply(np.ones(2), 1.0)


def test_tensors_are_positional_inputs() -> None:
    with pytest.raises(TypeError, match=r"Scaled\.apply takes Tensors by position only, got factor="):
        Scaled.apply(leaf(1.0), leaf(2.0), factor=leaf(3.0))


def test_one_input_twice() -> None:
    a = leaf(3.0)
    Product.apply(a, a).sum().backward()
    assert grad(a) == [6]


def test_a_parameter_of_a_module_is_an_input_like_any() -> None:
    weight = gpucnn.nn.Parameter([2.0])
    y = Product.apply(weight, gpucnn.tensor([5.0]))
    assert type(y) is Tensor
    y.sum().backward()
    assert grad(weight) == [5]


def test_without_recording_no_input_needs_a_gradient() -> None:
    seen: list[Any] = []
    watching = function(lambda ctx, a: seen.append(ctx.needs_input_grad) or a * 1)
    with no_grad():
        assert not watching.apply(leaf(1.0)).requires_grad
    assert not watching.apply(gpucnn.tensor([1.0])).requires_grad
    assert watching.apply(leaf(1.0)).requires_grad
    assert seen == [(False,), (False,), (True,)]


def test_scalars_of_numpy_are_results_and_gradients() -> None:
    total = function(lambda ctx, a: a.sum(), lambda ctx, dy: np.float64(2.0) * dy)
    a = gpucnn.tensor(3.0, requires_grad=True)
    y = total.apply(a)
    assert isinstance(y.data, np.ndarray)
    y.backward()
    assert a.grad is not None
    assert (a.grad.item(), a.grad.dtype) == (2.0, np.float32)


def test_gradients_of_another_dtype_are_converted() -> None:
    wide = function(lambda ctx, a: a * 2, lambda ctx, dy: (dy * 2).astype(np.float64))
    a = leaf(1.0, 2.0)
    wide.apply(wide.apply(a)).sum().backward()
    assert a.grad is not None
    assert (a.grad.dtype, a.grad.tolist()) == (np.float32, [4, 4])


def test_attributes_that_forward_did_not_set_are_named() -> None:
    forgets = function(lambda ctx, a: a * 2, lambda ctx, dy: dy * ctx.factor)
    with pytest.raises(AttributeError, match=r"ctx\.factor"):
        forgets.apply(leaf(1.0)).sum().backward()


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda dy: (dy, dy), RuntimeError, r"Mine\.backward returned 2 gradients for 1 inputs"),
        (lambda dy: (), RuntimeError, r"Mine\.backward returned 0 gradients for 1 inputs"),
        (
            lambda dy: dy[:1],
            RuntimeError,
            r"Mine\.backward returned a gradient of shape \(1,\) for input 0 of shape \(2,\)",
        ),
        (lambda dy: dy.sum(), RuntimeError, r"Mine\.backward returned a gradient of shape \(\) for input 0"),
        (lambda dy: 2.0, TypeError, r"Mine\.backward, gradient of input 0: .*float"),
        (lambda dy: [dy], TypeError, r"Mine\.backward, gradient of input 0: .*list"),
        (lambda dy: Tensor(dy), TypeError, r"Mine\.backward, gradient of input 0: .*Tensor"),
    ],
    ids=["two", "none", "part", "scalar", "float", "list", "tensor"],
)
def test_wrong_gradients_are_refused_by_name(answer: Any, error: type[Exception], message: str) -> None:
    mine = function(lambda ctx, a: a * 2, lambda ctx, dy: answer(dy))
    direct = leaf(1.0, 2.0)
    indirect = leaf(1.0, 2.0)
    for x, y in ((direct, mine.apply(direct)), (indirect, mine.apply(indirect * 1))):
        with pytest.raises(error, match=message):
            y.sum().backward()
        assert x.grad is None


@pytest.mark.parametrize(
    "output", [None, [np.ones(2)], "text", Tensor([1.0]), np.ones(2, complex), object()], ids=named
)
def test_wrong_outputs_are_refused_by_name(output: Any) -> None:
    with pytest.raises(TypeError, match=r"Mine\.forward: "):
        function(lambda ctx, a: output).apply(leaf(1.0))
    with pytest.raises(TypeError, match=r"Mine\.forward: "):
        function(lambda ctx, a: (a, output)).apply(leaf(1.0))


def test_what_a_function_does_not_define_is_said() -> None:
    with pytest.raises(NotImplementedError, match="forward"):
        type("Nothing", (Function,), {}).apply(leaf(1.0))
    with pytest.raises(NotImplementedError, match="backward"):
        function(lambda ctx, a: a * 2).apply(leaf(1.0)).sum().backward()


def test_an_error_in_backward_comes_through() -> None:
    def backward(ctx: Any, dy: Any) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        function(lambda ctx, a: a * 2, backward).apply(leaf(1.0)).sum().backward()


def test_a_gradient_that_is_none_is_no_gradient() -> None:
    stop = function(lambda ctx, a: a * 2, lambda ctx, dy: None)
    a, b = leaf(1.0), leaf(1.0)
    (stop.apply(a * 3) + b).sum().backward()
    assert (a.grad, grad(b)) == (None, [1])


def test_functions_of_images_see_logical_axes() -> None:
    images = np.random.default_rng(rotating_seed()).standard_normal((2, 3, 4, 5)).astype(np.float32)

    def forward(ctx: Any, a: Any) -> Any:
        assert a.shape == (2, 3, 4, 5)
        return a.sum(axis=1)

    mine = function(forward, lambda ctx, dy: np.broadcast_to(dy[:, None], (2, 3, 4, 5)))
    x = gpucnn.tensor(images, requires_grad=True)
    y = mine.apply(x)
    assert_close(y.numpy(), images.sum(axis=1), rtol=1e-6, atol=1e-6)
    y.sum().backward()
    assert x.grad is not None
    x.grad.data += 1
    assert np.array_equal(x.grad.numpy(), np.full_like(images, 2))


# ------------------------------------------------------------------------------------- no_grad and enable_grad


def test_no_grad_and_enable_grad_nest() -> None:
    x = leaf(1.0)
    seen = [gpucnn.is_grad_enabled()]
    with no_grad():
        seen.append((x * 1).requires_grad)
        with gpucnn.enable_grad():
            seen.append((x * 1).requires_grad)
            with no_grad():
                seen.append(gpucnn.is_grad_enabled())
        seen.append(gpucnn.is_grad_enabled())
    seen.append(gpucnn.is_grad_enabled())
    assert seen == [True, False, True, False, False, True]


def test_one_switch_may_be_used_again_and_inside_itself() -> None:
    off = no_grad()
    for _ in range(2):
        with off, off:
            assert not gpucnn.is_grad_enabled()
        assert gpucnn.is_grad_enabled()


def test_the_switch_is_put_back_after_an_error() -> None:
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert gpucnn.is_grad_enabled()


def test_as_decorators() -> None:
    @no_grad()
    def off(x: Tensor, *, depth: int = 0) -> bool:
        """Says."""
        return off(x, depth=depth - 1) if depth else (x * 1).requires_grad

    @gpucnn.enable_grad()
    def on(x: Tensor) -> bool:
        return (x * 1).requires_grad

    x = leaf(1.0)
    assert (off.__name__, off.__doc__) == ("off", "Says.")
    assert not off(x)
    assert not off(x, depth=3)
    with no_grad():
        assert on(x)
    assert gpucnn.is_grad_enabled()


def test_the_switch_is_per_thread() -> None:
    seen: list[bool] = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(gpucnn.is_grad_enabled()))
        thread.start()
        thread.join()
        assert not gpucnn.is_grad_enabled()
    assert seen == [True]
