"""Other shapes, other orders of axes, parts of tensors, reductions: values, gradients, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import Tensor
from gpucnn.testing import assert_close, rotating_seed

SEED = rotating_seed()
IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.float64).reshape(2, 3, 4, 5)
NHWC = (0, 2, 3, 1)


def gradient_of(run: Any, array: np.ndarray) -> np.ndarray:
    """d(sum of run(x) * (1, 2, 3, ...))/dx."""
    x = gpucnn.tensor(array, requires_grad=True)
    y = run(x)
    y.backward(np.arange(1.0, y.numel() + 1).reshape(y.shape))
    assert x.grad is not None
    return x.grad.numpy()


def scattered(run: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The same for a `run` that moves elements: by moving their numbers and adding up where each went."""
    numbers = run(np.arange(int(np.prod(shape))).reshape(shape)).reshape(-1)
    return np.bincount(numbers, np.arange(1.0, numbers.size + 1), int(np.prod(shape))).reshape(shape)


# ----------------------------------------------------------------------------------------------------- reshape


@pytest.mark.parametrize(
    "sizes",
    [
        (120,),
        (-1,),
        (6, 20),
        (6, -1),
        (-1, 5),
        (2, 3, 20),
        (2, 1, 3, 4, 5),
        (1, -1, 1),
        ((4, 30),),
        ([-1, 10],),
        (0, 0),
    ],
    ids=str,
)
def test_reshape_is_in_logical_order(sizes: Any) -> None:
    array = IMAGES if sizes != (0, 0) else np.zeros((0, 0, 1))
    wanted = sizes[0] if isinstance(sizes[0], (tuple, list)) else sizes
    for name in ("reshape", "view"):
        found = getattr(gpucnn.tensor(array), name)(*sizes)
        assert np.array_equal(found.numpy(), array.reshape(wanted))
    assert np.array_equal(
        gradient_of(lambda x: x.reshape(*sizes), array), scattered(lambda a: a.reshape(wanted), array.shape)
    )


def test_reshape_to_and_from_no_axes() -> None:
    assert gpucnn.tensor([5.0]).reshape().shape == ()
    assert gpucnn.tensor([5.0]).reshape(()).shape == ()
    assert gpucnn.tensor(5.0).reshape(1, 1).shape == (1, 1)
    assert gpucnn.tensor(5.0).reshape(-1).shape == (1,)
    assert gpucnn.zeros(0, 3).reshape(-1, 3).shape == (0, 3)
    assert gpucnn.zeros(0, 3).reshape(3, -1).shape == (3, 0)
    assert gpucnn.zeros(2, 3).reshape(np.int64(3), np.int32(2)).shape == (3, 2)


@pytest.mark.parametrize(
    ("shape", "sizes", "message"),
    [
        ((2, 3), (5,), r"\(2, 3\) has 6 elements, \(5,\) does not"),
        ((2, 3), (), r"has 6 elements"),
        ((2, 3), (4, -1), r"has 6 elements"),
        ((2, 3), (0, -1), r"has 6 elements"),
        ((2, 3), (0,), r"has 6 elements"),
        ((2, 3), (-1, -1), "one at most -1"),
        ((2, 3), (-2, -3), "one at most -1"),
        ((2, 3), (-6, -1), "one at most -1"),
        ((0, 3), (0, -1), "ambiguous"),
    ],
    ids=str,
)
def test_reshape_refuses(shape: Any, sizes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpucnn.zeros(*shape).reshape(*sizes)


def test_reshape_takes_integers() -> None:
    for size in (2.0, "2", None, 1.5):
        with pytest.raises(TypeError, match="reshape: a size must be an integer"):
            gpucnn.zeros(2).reshape(size)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ((), (120,)),
        ((1,), (2, 60)),
        ((1, 2), (2, 12, 5)),
        ((-2,), (2, 3, 20)),
        ((2, 2), (2, 3, 4, 5)),
        ((0, -2), (24, 5)),
    ],
    ids=str,
)
def test_flatten(arguments: Any, shape: Any) -> None:
    assert np.array_equal(gpucnn.tensor(IMAGES).flatten(*arguments).numpy(), IMAGES.reshape(shape))
    assert np.array_equal(
        gradient_of(lambda x: x.flatten(*arguments), IMAGES), scattered(lambda a: a.reshape(shape), IMAGES.shape)
    )


def test_flatten_of_little_and_nothing() -> None:
    assert gpucnn.tensor(1.0).flatten().shape == (1,)
    assert gpucnn.zeros(0, 3, 2).flatten(1).shape == (0, 6)
    assert gpucnn.zeros(2, 0, 2).flatten(1).shape == (2, 0)


def test_flatten_refuses() -> None:
    for arguments, message in (((2, 1), "start_dim=2 comes after end_dim=1"), ((4,), "axis 4"), ((0, -5), "axis -5")):
        with pytest.raises(ValueError, match=message):
            gpucnn.tensor(IMAGES).flatten(*arguments)
    with pytest.raises(ValueError, match="axis 1 is out of range"):
        gpucnn.tensor(1.0).flatten(1)


def test_squeeze_and_unsqueeze() -> None:
    x = gpucnn.zeros(1, 2, 1, 3)
    assert x.squeeze().shape == (2, 3)
    assert x.squeeze(0).shape == (2, 1, 3)
    assert x.squeeze(-2).shape == (1, 2, 3)
    assert x.squeeze(1).shape == (1, 2, 1, 3)
    assert [gpucnn.zeros(2, 3, 4).unsqueeze(d).shape.index(1) for d in (0, 1, 2, 3, -1, -4)] == [0, 1, 2, 3, 3, 0]
    assert gpucnn.zeros(2, 3).unsqueeze(1).shape == (2, 1, 3)
    assert gpucnn.zeros(2, 3).unsqueeze(-1).shape == (2, 3, 1)
    assert gpucnn.tensor(1.0).unsqueeze(0).shape == (1,)
    for run in (lambda: x.squeeze(4), lambda: x.unsqueeze(5), lambda: x.unsqueeze(-6)):
        with pytest.raises(ValueError, match="out of range"):
            run()
    assert gradient_of(lambda t: t.unsqueeze(1).squeeze(1), np.zeros((2, 2))).tolist() == [[1, 2], [3, 4]]


# ------------------------------------------------------------------------------------------------ order of axes


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (3, 2, 1, 0), NHWC, (1, 0, 3, 2), (-1, 0, -2, 1)], ids=str)
def test_permute_is_a_view(axes: Any) -> None:
    x = gpucnn.tensor(IMAGES)
    for found in (x.permute(*axes), x.permute(axes), x.permute(list(axes))):
        assert np.array_equal(found.numpy(), IMAGES.transpose(axes))
        assert np.shares_memory(found.data, x.data)
    moved = scattered(lambda a: a.transpose(axes), IMAGES.shape)
    assert np.array_equal(gradient_of(lambda t: t.permute(*axes), IMAGES), moved)


def test_transpose_is_a_view() -> None:
    x = gpucnn.tensor(IMAGES)
    for pair in ((0, 3), (1, -1), (2, 2), (-3, 0)):
        assert np.array_equal(x.transpose(*pair).numpy(), IMAGES.swapaxes(*pair))
        assert np.shares_memory(x.transpose(*pair).data, x.data)
        moved = scattered(lambda a, pair=pair: a.swapaxes(*pair), IMAGES.shape)
        assert np.array_equal(gradient_of(lambda t, pair=pair: t.transpose(*pair), IMAGES), moved)


def test_orders_that_are_none_are_refused() -> None:
    x = gpucnn.tensor(IMAGES)
    for axes in ((0, 1, 2), (0, 1, 2, 2), (0, 1, 2, 3, 3), ()):
        with pytest.raises(ValueError, match="no permutation of the 4 axes"):
            x.permute(*axes)
    for run in (lambda: x.permute(0, 1, 2, 4), lambda: x.transpose(0, 4), lambda: x.transpose(-5, 0)):
        with pytest.raises(ValueError, match="out of range for 4 axes"):
            run()
    for run in (lambda: x.permute(0, 1, 2, 3.0), lambda: x.transpose("a", 0)):
        with pytest.raises(TypeError, match="an axis must be an integer"):
            run()


# -------------------------------------------------------------------------------------------------------- parts

MASK = IMAGES % 7 == 0
INDICES = [
    0,
    -1,
    np.int64(1),
    slice(None, None, -1),
    slice(5, 9),
    ...,
    None,
    (0, 1),
    (slice(None), 1, slice(1, 3), -1),
    (..., slice(None, None, 2)),
    (None, 0, ..., None),
    (1, 2, 3, 4),
    [0, 0, 1],
    (slice(None), [2, 0, 2, 2]),
    (np.array([0, 1, 0]), np.array([2, 2, 2])),
    (slice(None), slice(None), np.array([[0, 1], [1, 0]])),
    ([0, 1], slice(None), 1, [1, 1]),
    np.array([], np.int64),
    np.array([True, False]),
    MASK,
    (1, MASK[1]),
    np.array(1),
    True,
]


@pytest.mark.parametrize("index", INDICES, ids=lambda index: str(index).replace("\n", "")[:30])
def test_indexing_is_numpys(index: Any) -> None:
    found = gpucnn.tensor(IMAGES)[index]
    assert isinstance(found.data, np.ndarray)
    assert np.array_equal(found.numpy(), IMAGES[index])
    assert found.shape == IMAGES[index].shape
    assert np.array_equal(gradient_of(lambda x: x[index], IMAGES), scattered(lambda a: a[index], IMAGES.shape))


def test_tensors_are_indices() -> None:
    x = gpucnn.tensor([10.0, 20.0, 30.0])
    assert x[gpucnn.tensor([2, 0, 2])].tolist() == [30, 10, 30]
    assert x[gpucnn.tensor(1)].item() == 20
    assert x[x > 15].tolist() == [20, 30]
    images = gpucnn.tensor(IMAGES)
    rows, labels = np.arange(2), gpucnn.tensor([2, 0])
    assert np.array_equal(images[rows, labels].numpy(), IMAGES[rows, [2, 0]])


def test_gradients_of_an_element_picked_often_add_up() -> None:
    x = gpucnn.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x[[0, 2, 0, 0]].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3, 0, 1]
    half = gpucnn.tensor([1.0, 2.0], "float16", requires_grad=True)
    half[[1] * 1000].sum().backward()
    assert half.grad is not None
    assert half.grad.tolist() == [0, 1000]


def test_indices_are_those_of_the_call() -> None:
    array, tensor, numbers = np.array([0, 0]), gpucnn.tensor([0, 0]), [0, 0]
    x = gpucnn.tensor([1.0, 2.0], requires_grad=True)
    y = x[array] + x[tensor] + x[numbers]
    for index in (array, tensor.data, numbers):
        index[0] = 1
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [6, 0]


def test_indices_that_do_not_fit_are_refused() -> None:
    x = gpucnn.zeros(2, 3)
    for index in (2, -3, (0, 3), (0, 0, 0), [5], 1.5, "a", np.zeros((3, 2), bool)):
        with pytest.raises(IndexError):
            x[index]
    with pytest.raises(TypeError):
        x[0] = 1  # type: ignore[index]


# --------------------------------------------------------------------------------------------------- reductions


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2), (3, 1), [0, 1, 2, 3], (-1, 0), ()], ids=str)
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_sums_and_means(name: str, dim: Any, keepdim: bool) -> None:
    array = np.random.default_rng(SEED).standard_normal((2, 3, 4, 5))
    axes = tuple(dim) if isinstance(dim, list) else dim
    truth = getattr(array, name)(axis=axes, keepdims=keepdim)
    found = getattr(gpucnn.tensor(array), name)(dim, keepdim)
    assert_close(found.numpy(), truth, rtol=1e-13, atol=1e-13)
    spread = np.arange(1.0, truth.size + 1).reshape(array.sum(axis=axes, keepdims=True).shape)
    share = truth.size / array.size if name == "mean" else 1
    gradient = gradient_of(lambda x: getattr(x, name)(dim, keepdim), array)
    assert_close(gradient, np.broadcast_to(spread * share, array.shape), rtol=1e-14, atol=0)


def test_sums_of_integers_are_int64_and_means_are_refused() -> None:
    for dtype in ("bool", "int8", "int32"):
        assert gpucnn.ones(300, dtype=dtype).sum().dtype == np.int64
        assert gpucnn.ones(300, dtype=dtype).sum().item() == 300
        with pytest.raises(TypeError, match=f"mean needs a floating dtype, got {dtype}"):
            gpucnn.ones(3, dtype=dtype).mean()


def test_reductions_refuse_axes_that_are_none() -> None:
    x = gpucnn.zeros(2, 3)
    for name in ("sum", "mean"):
        for dim, message in (((0, 0), "twice"), ((0, -2), "twice"), (2, "axis 2"), ((0, -3), "axis -3")):
            with pytest.raises(ValueError, match=message):
                getattr(x, name)(dim)
        with pytest.raises(TypeError, match="an axis must be an integer"):
            getattr(x, name)(0.0)
    for dim in (2, -3):
        with pytest.raises(ValueError, match="out of range"):
            x.argmax(dim)
    for empty, dim in ((gpucnn.zeros(0), None), (gpucnn.zeros(2, 0), 1)):
        with pytest.raises(ValueError, match="no largest element"):
            empty.argmax(dim)


@pytest.mark.parametrize("dim", [None, 0, 1, -1])
def test_argmax_is_the_first_in_logical_order(dim: int | None) -> None:
    array = np.array([[[[1, 5], [5, 0]], [[5, 1], [2, 3]]]] * 2, np.float32)
    x = gpucnn.tensor(array, requires_grad=True)
    found = x.argmax(dim)
    assert (found.dtype, found.requires_grad, found.is_leaf) == (np.int64, False, True)
    assert np.array_equal(found.numpy(), array.argmax(dim))
    assert np.array_equal(x.argmax(dim, keepdim=True).numpy(), array.argmax(dim, keepdims=True))
    assert gpucnn.tensor([1.0, np.nan, 2.0]).argmax().item() == 1


def test_methods_do_not_change_the_tensor() -> None:
    x = Tensor(IMAGES.copy())
    for run in (x.flatten, x.squeeze, x.sum, x.mean, x.exp, x.relu, x.argmax, lambda: x.reshape(-1), lambda: x + 1):
        run()
    assert np.array_equal(x.numpy(), IMAGES)
    assert x.shape == IMAGES.shape
