"""F.group_norm and F.instance_norm: against the truth and PyTorch, running statistics, corners and refusals."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from norm_checks import DTYPES, held, near, rms
from op_checks import LAYOUTS, draw

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

CASES = [
    ((2, 6, 4, 5), 3),
    ((2, 6, 4, 5), 6),
    ((2, 6, 4, 5), 1),
    ((3, 4, 7), 2),
    ((4, 6), 2),
    ((1, 34, 3, 3), 17),
    ((2, 4, 2, 3, 2), 2),
    ((40, 2, 2, 2), 2),
]
ids = {"ids": lambda value: str(value)}


@functools.cache
def numbers(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """x, dy, weight, bias; every image and channel about a mean of its own."""
    per_image = draw("normal", (*shape[:2], *[1] * (len(shape) - 2)), 4)
    dy, weight, bias = draw("normal", shape, 1), draw("normal", shape[1:2], 2), draw("normal", shape[1:2], 3)
    return held(draw("normal", shape) + per_image), dy, weight, bias


@functools.cache
def truth(shape: tuple[int, ...], groups: int) -> tuple[np.ndarray, ...]:
    """y, dx, dweight, dbias."""
    x, dy, weight, bias = numbers(shape)
    return naive.group_norm(x, groups, weight, bias), *naive.group_norm_grad(dy, x, groups, weight)


def check(shape: tuple[int, ...], groups: int, dtype: str, norm: Any, layout: str = "nhwc") -> None:
    __tracebackhide__ = True
    x, dy, weight, bias = numbers(shape)
    leaves = [
        gpucnn.Tensor(LAYOUTS[layout](x.astype(dtype)), requires_grad=True),
        gpucnn.tensor(weight, dtype, requires_grad=True),
        gpucnn.tensor(bias, dtype, requires_grad=True),
    ]
    y = norm(*leaves)
    y.backward(LAYOUTS[layout](dy.astype(dtype)))
    terms = x.size // shape[0] // groups
    grouped = x.reshape(shape[0], groups, -1)
    size = 3 * rms(dy) * np.abs(weight).max() / np.sqrt(grouped.var(axis=2).min() + 1e-5)
    near(y, truth(shape, groups)[0], terms, name="y")
    for leaf, gradient, scale in zip(leaves, truth(shape, groups)[1:], (size, None, None), strict=True):
        near(leaf.grad, gradient, x.size // shape[1] if scale is None else terms, scale)


@pytest.mark.parametrize(("shape", "groups"), CASES, **ids)
@pytest.mark.parametrize("dtype", DTYPES)
def test_group_norm_of_every_dtype(shape: tuple[int, ...], groups: int, dtype: str) -> None:
    check(shape, groups, dtype, lambda x, w, b: F.group_norm(x, groups, w, b))


@pytest.mark.parametrize("shape", [(2, 6, 4, 5), (3, 4, 7), (40, 2, 2, 2)], **ids)
@pytest.mark.parametrize("dtype", DTYPES)
def test_instance_norm_of_every_dtype(shape: tuple[int, ...], dtype: str) -> None:
    check(shape, shape[1], dtype, lambda x, w, b: F.instance_norm(x, None, None, w, b))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_is_taken(layout: str) -> None:
    check((2, 6, 4, 5), 3, "float32", lambda x, w, b: F.group_norm(x, 3, w, b), layout)


def test_blocks_of_any_size(block_bytes: int) -> None:
    check((40, 2, 2, 2), 2, "float32", lambda x, w, b: F.group_norm(x, 2, w, b))
    check((1, 34, 3, 3), 17, "float32", lambda x, w, b: F.group_norm(x, 17, w, b))


def test_gradients_are_central_differences() -> None:
    x, _, weight, bias = (gpucnn.tensor(array, requires_grad=True) for array in numbers((2, 6, 4, 5)))
    assert gradcheck(lambda x, w, b: F.group_norm(x, 2, w, b), [x, weight, bias])
    assert gradcheck(lambda x, w, b: F.instance_norm(x, None, None, w, b), [x, weight, bias])
    assert gradcheck(lambda x: F.group_norm(x, 3), [x])
    kept = gpucnn.zeros(6, dtype="float64"), gpucnn.ones(6, dtype="float64")
    assert gradcheck(lambda x, w, b: F.instance_norm(x, *kept, w, b, use_input_stats=False), [x, weight, bias])


def test_a_group_whose_weights_are_zero_passes_no_gradient() -> None:
    x = gpucnn.tensor(numbers((2, 6, 4, 5))[0], requires_grad=True)
    weight = gpucnn.tensor([0.0, 0, 1, 0, 2, 0], "float64")
    F.group_norm(x, 3, weight).backward(numbers((2, 6, 4, 5))[1])
    gradient = naive.group_norm_grad(numbers((2, 6, 4, 5))[1], numbers((2, 6, 4, 5))[0], 3, weight.numpy())[0]
    near(x.grad, gradient, 40, 1.0)
    assert_equal(x.grad.numpy()[:, :2], np.zeros((2, 2, 4, 5)), signed_zeros=False)


def test_channels_with_means_far_apart_share_a_variance() -> None:
    """Three channels of a group at 0, 1e3 and 1e6: what each is off the common mean counts."""
    x = draw("normal", (2, 3, 8, 8)) + np.array([0, 1e3, 1e6]).reshape(3, 1, 1)
    y = F.group_norm(gpucnn.tensor(x, "float32"), 1)
    assert_close(y, naive.group_norm(x.astype(np.float32), 1), rtol=1e-6, atol=1e-6)


def test_one_group_is_layer_norm_and_one_image_is_batch_norm() -> None:
    x = gpucnn.tensor(numbers((2, 6, 4, 5))[0])
    assert_close(F.group_norm(x, 1), F.layer_norm(x, (6, 4, 5)).numpy(), rtol=1e-12, atol=1e-12)
    one = gpucnn.tensor(numbers((1, 34, 3, 3))[0])
    assert_close(F.instance_norm(one), F.batch_norm(one, None, None, training=True).numpy(), rtol=1e-12, atol=1e-12)


# --------------------------------------------------------------------------------------------- running statistics


@pytest.mark.parametrize("dtype", DTYPES)
def test_running_statistics_of_instance_norm_follow_the_images_average(dtype: str) -> None:
    x = numbers((2, 6, 4, 5))[0]
    mean, var = (gpucnn.tensor(values, dtype) for values in (np.arange(6.0), np.arange(1.0, 7)))
    F.instance_norm(gpucnn.tensor(x, "float64" if dtype == "float64" else "float32"), mean, var, momentum=0.25)
    near(mean, 0.75 * np.arange(6) + 0.25 * x.mean(axis=(0, 2, 3)), 40)
    near(var, 0.75 * np.arange(1, 7) + 0.25 * x.var(axis=(2, 3), ddof=1).mean(axis=0), 40)


def test_instance_norm_by_running_statistics_is_batch_norm_by_them() -> None:
    x, _, weight, bias = (gpucnn.tensor(array) for array in numbers((2, 6, 4, 5)))
    kept = gpucnn.tensor(np.arange(6.0)), gpucnn.tensor(np.arange(1.0, 7))
    y = F.instance_norm(x, *kept, weight, bias, use_input_stats=False)
    assert_equal(y, F.batch_norm(x, *kept, weight, bias))
    assert kept[0].tolist() == list(range(6))


def test_empty_batches() -> None:
    mean, var = gpucnn.zeros(6), gpucnn.ones(6)
    weight = gpucnn.ones(6, requires_grad=True)
    for shape in ((0, 6, 2, 2), (2, 6, 0, 2)):
        for norm in (
            lambda x: F.instance_norm(x, mean, var, weight),
            lambda x: F.group_norm(x, 2, weight),
        ):
            x = gpucnn.zeros(shape, requires_grad=True)
            y = norm(x)
            y.backward(np.zeros(shape, np.float32))
            assert (y.shape, x.grad.shape) == (shape, shape)
    assert weight.grad.tolist() == [0] * 6
    assert (mean.tolist(), var.tolist()) == ([0] * 6, [1] * 6)


def test_infinities_and_nan_stay_in_their_group() -> None:
    x = np.array(numbers((2, 6, 4, 5))[0])
    x[0, 1, 0, 0], x[1, 5, 3, 4] = np.nan, np.inf
    y = F.group_norm(gpucnn.tensor(x, "float32"), 3).numpy()
    assert np.isnan(y[0, :2]).all()
    assert np.isnan(y[1, 4:]).all()
    assert np.isfinite(y[0, 2:]).all()
    assert np.isfinite(y[1, :4]).all()


def test_channels_last_stays_channels_last_without_a_copy() -> None:
    x = gpucnn.tensor(numbers((2, 6, 4, 5))[0], requires_grad=True)
    for norm in (lambda x: F.group_norm(x, 3), F.instance_norm):
        with backend.count_layout_copies() as copies:
            y = norm(x)
            y.backward(y.detach())
        assert copies.value == 0
        assert y.data.strides == x.grad.data.strides == x.data.strides


# ---------------------------------------------------------------------------------------------------- PyTorch


@pytest.mark.peers
@pytest.mark.parametrize(("shape", "groups"), CASES, **ids)
def test_pytorch_agrees(shape: tuple[int, ...], groups: int, torch: Any) -> None:
    x, dy, weight, bias = numbers(shape)

    def norms(library: Any) -> list[Any]:
        found = [lambda x, w, b: library.group_norm(x, groups, w, b, 1e-3)]
        if groups == shape[1]:
            found.append(lambda x, w, b: library.instance_norm(x, None, None, w, b, eps=1e-3))
        return found

    for ours, theirs in zip(norms(F), norms(torch.nn.functional), strict=True):
        mine = [gpucnn.tensor(array, requires_grad=True) for array in (x, weight, bias)]
        leaves = [torch.tensor(array, requires_grad=True) for array in (x, weight, bias)]
        y, z = theirs(*leaves), ours(*mine)
        y.backward(torch.tensor(dy))
        z.backward(dy)
        assert_close(z, y.detach().numpy(), rtol=1e-9, atol=1e-9)
        for a, b in zip(mine, leaves, strict=True):
            assert_close(a.grad, b.grad.numpy(), rtol=1e-9, atol=1e-9 * max(1, float(b.grad.abs().max())))


@pytest.mark.peers
def test_running_statistics_are_pytorchs(torch: Any) -> None:
    x = numbers((3, 4, 7))[0]
    ours = gpucnn.tensor(np.arange(4.0)), gpucnn.tensor(np.arange(1.0, 5))
    theirs = [torch.tensor(kept.numpy().copy()) for kept in ours]
    for _ in range(2):
        F.instance_norm(gpucnn.tensor(x), *ours, momentum=0.3)
        torch.nn.functional.instance_norm(torch.tensor(x), *theirs, momentum=0.3)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b.numpy(), rtol=1e-12, atol=0)


@pytest.mark.peers
@pytest.mark.parametrize("x", DTYPES)
@pytest.mark.parametrize("weight", DTYPES)
def test_dtypes_go_together_as_in_pytorch(x: str, weight: str, torch: Any) -> None:
    def run(library: Any, functional: Any, norm: str) -> str:
        image, factor = (library.ones(4, 6, 2, dtype=getattr(library, d, d)) for d in (x, weight))
        factor = library.ones(6, dtype=factor.dtype)
        arguments = (2, factor, factor) if norm == "group_norm" else (None, None, factor, factor)
        try:
            return str(getattr(functional, norm)(image, *arguments).dtype).removeprefix("torch.")
        except (TypeError, RuntimeError):
            return "refused"

    for norm in ("group_norm", "instance_norm"):
        assert run(gpucnn, F, norm) == run(torch, torch.nn.functional, norm)


# ---------------------------------------------------------------------------------------------------- refusals


def ones(*shape: int) -> gpucnn.Tensor:
    return gpucnn.ones(*shape)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ones(6), 2), ValueError, r"input must have shape \(N, C, ...\), got \(6,\)"),
        ((ones(2, 6, 3), 4), ValueError, r"num_groups=4 must divide the 6 channels of input \(2, 6, 3\)"),
        ((ones(2, 6, 3), 0), ValueError, "num_groups=0 must divide"),
        ((ones(2, 6, 3), -2), ValueError, "num_groups=-2 must divide"),
        ((ones(2, 6, 3), 2.0), TypeError, "num_groups must be an integer, got 2.0"),
        ((ones(2, 6, 3), 2, ones(2)), ValueError, r"weight must have shape \(6,\)"),
        ((ones(1, 6), 6), ValueError, "expected more than 1 value per group"),
        ((gpucnn.tensor([[1, 2]]), 1), TypeError, "input must have a floating dtype"),
        ((ones(2, 6), 2, None, None, None), TypeError, "eps must be a number, got None"),
    ],
)
def test_bad_groups_are_refused(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"group_norm: {message}"):
        F.group_norm(*arguments)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((ones(4, 3),), {}, ValueError, r"expected more than 1 spatial element when training, got input \(4, 3\)"),
        ((ones(4, 3, 1, 1),), {}, ValueError, "expected more than 1 spatial element"),
        ((ones(4, 3, 2),), {"use_input_stats": False}, ValueError, "running_mean and running_var are needed"),
        ((ones(4, 3, 2), ones(3)), {}, ValueError, "running_mean and running_var go together"),
        ((ones(4, 3, 2), ones(2), ones(2)), {}, ValueError, r"running_mean must have shape \(3,\)"),
        ((ones(4, 3, 2), ones(3), [1.0] * 3), {}, TypeError, "running_var must be a gpucnn.Tensor"),
        ((ones(4, 3, 2), None, None, ones(4)), {}, ValueError, r"weight must have shape \(3,\)"),
        ((ones(4, 3, 2),), {"momentum": None}, TypeError, "momentum must be a number"),
    ],
)
def test_bad_instances_are_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"instance_norm: {message}"):
        F.instance_norm(*arguments, **options)
