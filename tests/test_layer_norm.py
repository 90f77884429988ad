"""F.layer_norm: every kernel against the truth, axes and memory orders, PyTorch, corners and refusals."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from norm_checks import DTYPES, held, near, rms
from op_checks import LAYOUTS, SEED, check_threads, draw, each_kernel, frozen, plant

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops import norm as ops
from gpucnn.reference import layer_norm as reference
from gpucnn.reference.norm_problem import Wanted
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

CASES = [
    ((2, 3, 4, 5), 1),
    ((2, 3, 4, 5), 2),
    ((2, 3, 4, 5), 3),
    ((2, 3, 4, 5), 4),
    ((7, 33), 1),
    ((33, 128), 1),
    ((5,), 1),
    ((3, 1), 1),
    ((1, 2, 3, 2, 2), 3),
]
ALL = Wanted(True, True, True)
ids = {"ids": lambda value: str(value)}


@functools.cache
def numbers(shape: tuple[int, ...], axes: int) -> tuple[np.ndarray, ...]:
    """x, dy, weight, bias."""
    inner = shape[len(shape) - axes :]
    return held(draw("normal", shape) + 1), draw("normal", shape, 1), draw("normal", inner, 2), draw("normal", inner, 3)


@functools.cache
def truth(shape: tuple[int, ...], axes: int, affine: bool = True) -> tuple[np.ndarray, ...]:
    """y, dx, dweight, dbias."""
    x, dy, weight, bias = numbers(shape, axes)
    if not affine:
        return naive.layer_norm(x, axes), *naive.layer_norm_grad(dy, x, axes)
    return naive.layer_norm(x, axes, weight, bias), *naive.layer_norm_grad(dy, x, axes, weight)


def part_size(shape: tuple[int, ...], axes: int) -> float:
    """About what the parts of a gradient of x are large."""
    x, dy, weight, _ = numbers(shape, axes)
    deviation = np.sqrt(x.var(axis=tuple(range(len(shape) - axes, len(shape)))) + 1e-5)
    return float(3 * rms(dy) * max(1.0, np.abs(weight).max()) / np.min(deviation))


def check(rows: int, length: int, dtype: str, affine: bool = True) -> None:
    """Both tables on (rows, length)."""
    __tracebackhide__ = True
    shape = (rows, length)
    x, dy, weight, bias = (frozen(array, dtype) for array in numbers(shape, 1))
    y, dx, dweight, dbias = truth(shape, 1, affine)
    extra = (weight, bias) if affine else (None, None)
    for name, (found, mean, inverse) in each_kernel(ops.layer_fprop, 1e-5, x, *extra):
        assert (found.dtype, mean.shape, inverse.shape) == (dtype, (rows, 1), (rows, 1))
        near(found, y, length, name=name)
        for other, gradients in each_kernel(ops.layer_bprop, ALL, dy, x, extra[0], mean, inverse):
            assert gradients[0].dtype == dtype
            near(gradients[0], dx, length, part_size(shape, 1), name=f"{other} dx")
            for gradient, right in zip(gradients[1:], (dweight, dbias), strict=True):
                near(gradient.astype(np.float32), right, rows, rms(dy) * rows**0.5, name=f"{other} dweight or dbias")


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (33, 128), (129, 7), (3, 1500)], **ids)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kernel(shape: tuple[int, int], dtype: str) -> None:
    check(*shape, dtype)


def test_every_kernel_in_blocks(block_bytes: int) -> None:
    check(129, 7, "float32")
    check(33, 128, "float16", affine=False)


@pytest.mark.parametrize(("shape", "axes"), CASES, **ids)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_last_axes(shape: tuple[int, ...], axes: int, dtype: str) -> None:
    for layout in ("nhwc", "nchw"):
        run(shape, axes, dtype, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axes", [1, 3])
def test_any_memory_layout_is_taken(layout: str, axes: int) -> None:
    run((2, 3, 4, 5), axes, "float32", layout)


def run(shape: tuple[int, ...], axes: int, dtype: str, layout: str) -> None:
    __tracebackhide__ = True
    x, dy, weight, bias = numbers(shape, axes)
    leaf = gpucnn.Tensor(LAYOUTS[layout](x.astype(dtype)), requires_grad=True)
    parameters = [gpucnn.tensor(array, dtype, requires_grad=True) for array in (weight, bias)]
    y = F.layer_norm(leaf, shape[len(shape) - axes :], *parameters)
    y.backward(LAYOUTS[layout](dy.astype(dtype)))
    length = weight.size
    near(y, truth(shape, axes)[0], length, name="y")
    near(leaf.grad, truth(shape, axes)[1], length, part_size(shape, axes), name="dx")
    for parameter, gradient in zip(parameters, truth(shape, axes)[2:], strict=True):
        near(parameter.grad, gradient, x.size // length, name="dweight or dbias")


def test_gradients_are_central_differences() -> None:
    for axes in (1, 2, 3):
        x, _, weight, bias = (gpucnn.tensor(a, requires_grad=True) for a in numbers((2, 3, 4, 5), axes))
        shape = (2, 3, 4, 5)[4 - axes :]
        assert gradcheck(lambda x, w, b, shape=shape: F.layer_norm(x, shape, w, b), [x, weight, bias])
        assert gradcheck(lambda x, shape=shape: F.layer_norm(x, shape), [x])
        assert gradcheck(lambda x, b, shape=shape: F.layer_norm(x, shape, None, b), [x, bias])


@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=str)
def test_only_the_gradients_that_are_asked_for(wanted: tuple[int, ...]) -> None:
    x, dy, weight, bias = numbers((7, 33), 1)
    leaves = [gpucnn.tensor(a, requires_grad=bool(w)) for a, w in zip((x, weight, bias), wanted, strict=True)]
    F.layer_norm(leaves[0], (33,), *leaves[1:]).backward(dy)
    for leaf, gradient in zip(leaves, truth((7, 33), 1)[1:], strict=True):
        assert (leaf.grad is not None) == leaf.requires_grad
        if leaf.grad is not None:
            near(leaf.grad, gradient, 33)


def test_numbers_that_come_out_exactly() -> None:
    x, dy = np.array([[1.0, -1, 1, -1], [3, 3, 1, 1]]), np.array([[1.0, 2, 3, 4], [0, -1, 2, 1]])
    z = (x - x.mean(1, keepdims=True)) / 2
    for dtype in DTYPES:
        leaf = gpucnn.tensor(x, dtype, requires_grad=True)
        y = F.layer_norm(leaf, (4,), eps=3.0)
        y.backward(dy.astype(dtype))
        assert_equal(y, z)
        truth = (dy - dy.mean(1, keepdims=True) - z * (dy * z).mean(1, keepdims=True)) / 2
        assert_equal(leaf.grad, truth, signed_zeros=False)


def test_large_means_lose_nothing() -> None:
    x = (1000 + np.random.default_rng(SEED).standard_normal((64, 768))).astype(np.float32)
    dy = np.random.default_rng(SEED + 1).standard_normal(x.shape).astype(np.float32)
    leaf = gpucnn.tensor(x, requires_grad=True)
    y = F.layer_norm(leaf, (768,))
    y.backward(dy)
    wide = x.astype(np.float64)
    deviation = np.sqrt(wide.var(axis=1, keepdims=True) + 1e-5)
    z = (wide - wide.mean(axis=1, keepdims=True)) / deviation
    dx = dy - dy.mean(axis=1, keepdims=True, dtype=np.float64)
    dx = (dx - z * (dy * z).mean(axis=1, keepdims=True)) / deviation
    assert_close(y, z, rtol=1e-6, atol=1e-6)
    assert_close(leaf.grad, dx, rtol=1e-6, atol=1e-6)


def test_the_number_of_threads_changes_no_bit() -> None:
    rng = np.random.default_rng(SEED)
    x, dy = (rng.standard_normal((4096, 700)).astype(np.float32) for _ in range(2))
    weight = rng.standard_normal(700).astype(np.float32)

    def run() -> list[np.ndarray]:
        y, mean, inverse = ops.layer_fprop(1e-5, x, weight, weight, like=x)
        return [y, mean, inverse, *ops.layer_bprop(ALL, dy, x, weight, mean, inverse, like=x)]

    check_threads(run)


def test_empty_batches_and_rows_of_one() -> None:
    for shape, inner in (((0, 4), (4,)), ((3, 0), (0,)), ((0, 3, 2, 2), (3, 2, 2))):
        x = gpucnn.zeros(shape, requires_grad=True)
        weight = gpucnn.ones(inner, requires_grad=True)
        y = F.layer_norm(x, inner, weight)
        y.backward(np.zeros(shape, np.float32))
        assert (y.shape, x.grad.shape) == (shape, shape)
        assert not weight.grad.numpy().any()
    x = gpucnn.tensor([[3.0], [4.0]], requires_grad=True)
    y = F.layer_norm(x, (1,))
    y.backward(np.ones((2, 1), np.float32))
    assert (y.tolist(), x.grad.tolist()) == ([[0], [0]], [[0], [0]])


def test_infinities_and_nan_stay_in_their_row() -> None:
    x = gpucnn.tensor([[1.0, np.inf, 2], [np.nan, 1, 2], [1, 2, 3], [-np.inf, 0, 1]])
    y = F.layer_norm(x, (3,)).numpy()
    assert np.isnan(y).all(axis=1).tolist() == [True, True, False, True]
    assert np.isfinite(y[2]).all()


def test_images_in_either_order_are_not_copied() -> None:
    """All of an image in the order that it lies in; its channels alone where they come last, as after a permute."""
    x = gpucnn.tensor(numbers((2, 3, 4, 5), 3)[0], requires_grad=True)
    weight = gpucnn.ones(3, 4, 5, dtype="float64", requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = F.layer_norm(x, (3, 4, 5), weight)
        y.backward(y.detach())
        z = F.layer_norm(x.permute(0, 2, 3, 1), (3,)).permute(0, 3, 1, 2)
        z.backward(z.detach())
    assert copies.value == 0
    assert y.data.strides == z.data.strides == x.data.strides


@pytest.mark.peers
@pytest.mark.parametrize(("shape", "axes"), CASES, **ids)
def test_pytorch_agrees(shape: tuple[int, ...], axes: int, torch: Any) -> None:
    x, dy, weight, bias = numbers(shape, axes)
    mine = [gpucnn.tensor(array, requires_grad=True) for array in (x, weight, bias)]
    leaves = [torch.tensor(array, requires_grad=True) for array in (x, weight, bias)]
    inner = shape[len(shape) - axes :]
    y, z = (
        torch.nn.functional.layer_norm(leaves[0], inner, *leaves[1:], 1e-3),
        F.layer_norm(mine[0], inner, *mine[1:], 1e-3),
    )
    y.backward(torch.tensor(dy))
    z.backward(dy)
    assert_close(z, y.detach().numpy(), rtol=1e-9, atol=1e-9)
    for a, b in zip(mine, leaves, strict=True):
        assert_close(a.grad, b.grad.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.peers
@pytest.mark.parametrize("x", DTYPES)
@pytest.mark.parametrize("weight", DTYPES)
def test_dtypes_go_together_as_in_pytorch(x: str, weight: str, torch: Any) -> None:
    def once(library: Any, functional: Any) -> str:
        rows, factor = (library.ones(*s, dtype=getattr(library, d, d)) for s, d in (((4, 6), x), ((6,), weight)))
        try:
            return str(functional.layer_norm(rows, (6,), factor, factor).dtype).removeprefix("torch.")
        except (TypeError, RuntimeError):
            return "refused"

    assert once(gpucnn, F) == once(torch, torch.nn.functional)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((gpucnn.ones(4, 3, 2), (3,)), ValueError, r"input \(4, 3, 2\) must end in normalized_shape \(3,\)"),
        ((gpucnn.ones(2), (3, 2)), ValueError, r"input \(2,\) must end in"),
        ((gpucnn.ones(()), (1,)), ValueError, r"input \(\) must end in"),
        ((gpucnn.ones(4, 3), ()), ValueError, "normalized_shape must name one axis or more"),
        ((gpucnn.ones(4, 3), 3), TypeError, "normalized_shape takes a tuple of ints, got 3"),
        ((gpucnn.ones(4, 3), (3.0,)), TypeError, "a size in normalized_shape must be an integer"),
        (
            (gpucnn.ones(4, 3), (3,), gpucnn.ones(4)),
            ValueError,
            r"weight must have shape \(3,\), normalized_shape, got",
        ),
        ((gpucnn.ones(4, 3), (4, 3), None, gpucnn.ones(12)), ValueError, r"bias must have shape \(4, 3\)"),
        ((gpucnn.tensor([[1, 2]]), (2,)), TypeError, "input must have a floating dtype"),
        ((gpucnn.ones(4, 3), (3,), None, None, "small"), TypeError, "eps must be a number, got 'small'"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"layer_norm: {message}"):
        F.layer_norm(*arguments)


def mean_forgotten(eps: float, x: np.ndarray, weight: Any, bias: Any) -> Any:
    _, mean, inverse = reference.fprop(eps, x, weight, bias)
    y = x * inverse * (1 if weight is None else weight) + (0 if bias is None else bias)
    return y.astype(x.dtype), mean, inverse


def weight_forgotten(wanted: Wanted, dy: np.ndarray, x: np.ndarray, weight: Any, *statistics: Any) -> Any:
    return reference.bprop(wanted, dy, x, None, *statistics)


@pytest.mark.parametrize(("table", "wrong"), [(ops.layer_fprop, mean_forgotten), (ops.layer_bprop, weight_forgotten)])
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted.* elements are wrong"):
        check(7, 33, "float32")
