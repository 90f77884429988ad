"""Tensors: what they are made of, what they share, and how their data get out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_checks import named

import gpucnn
from gpucnn import Tensor, nn

FLOATS = ["float16", "float32", "float64"]
OTHERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


# ------------------------------------------------------------------------------------------------- what goes in


@pytest.mark.parametrize("make", [Tensor, gpucnn.tensor])
@pytest.mark.parametrize("dtype", FLOATS + OTHERS)
def test_arrays_of_every_supported_dtype_keep_it(make: Any, dtype: str) -> None:
    array = np.array([[0, 1], [1, 0]], dtype)
    tensor = make(array)
    assert (tensor.dtype, tensor.shape, tensor.ndim, tensor.numel()) == (np.dtype(dtype), (2, 2), 2, 4)
    assert np.array_equal(tensor.numpy(), array)
    assert (tensor.device, tensor.requires_grad, tensor.grad, tensor.is_leaf) == ("cpu", False, None, True)


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"),
        (3, "int64"),
        (True, "bool"),
        ([1.5, 2], "float32"),
        ([1, 2.5], "float32"),
        ([[1, 2], [3, 4]], "int64"),
        ([True, False], "bool"),
        ((1.0, 2.0), "float32"),
        ([], "float32"),
        ([[], []], "float32"),
        (np.float64(1.5), "float64"),
        (np.float16(1.5), "float16"),
        ([np.float64(1.5)], "float64"),
        ([np.zeros(2), np.ones(2)], "float64"),
        (np.int8(3), "int8"),
        (memoryview(np.ones(3)), "float64"),
    ],
)
def test_only_python_floats_become_float32(data: Any, dtype: str) -> None:
    for made in (Tensor(data), gpucnn.tensor(data)):
        assert made.dtype == np.dtype(dtype)
        assert np.array_equal(made.numpy(), np.asarray(data))


def test_lists_of_tensors_are_stacked() -> None:
    rows = [gpucnn.tensor([1.0, 2.0]), gpucnn.tensor([3.0, 4.0])]
    assert np.array_equal(gpucnn.tensor(rows).numpy(), [[1, 2], [3, 4]])
    assert gpucnn.tensor([row.sum() for row in rows]).tolist() == [3.0, 7.0]


def test_a_given_dtype_takes_python_numbers_at_their_full_precision() -> None:
    assert gpucnn.tensor([0.1], dtype="float64").item() == 0.1
    assert gpucnn.tensor(0.1).item() == np.float32(0.1)
    assert gpucnn.tensor([1.75, -1.75], dtype="int64").tolist() == [1, -1]
    assert gpucnn.tensor([0, 2], dtype=bool).tolist() == [False, True]
    assert gpucnn.tensor([1], dtype=float).dtype == np.float64


@pytest.mark.parametrize(
    "data",
    [
        1j,
        [1j],
        np.zeros(2, np.complex64),
        "text",
        ["a"],
        None,
        [None],
        object(),
        2**64,
        np.longdouble(1),
        {"a": 1},
        np.array(["2020-01-01"], "datetime64[D]"),
        np.zeros(2, [("a", "f4")]),
        np.array([object()]),
    ],
    ids=named,
)
@pytest.mark.parametrize("make", [Tensor, gpucnn.tensor, lambda data: gpucnn.tensor(data, dtype="float32")])
def test_what_is_no_number_is_refused(make: Any, data: Any) -> None:
    with pytest.raises(TypeError, match="a tensor holds floats"):
        make(data)


@pytest.mark.parametrize("dtype", ["complex64", "object", "str", "longdouble", "datetime64[s]"])
def test_dtypes_that_tensors_do_not_hold_are_refused(dtype: str) -> None:
    for run in (
        lambda: gpucnn.tensor([1.0], dtype=dtype),
        lambda: gpucnn.tensor([1.0]).to(dtype),
        lambda: gpucnn.tensor([1.0]).to(dtype=dtype),
        lambda: gpucnn.zeros(2, dtype=dtype),
    ):
        with pytest.raises(TypeError, match="a tensor holds floats"):
            run()


def test_a_dtype_that_does_not_exist_is_named() -> None:
    for run in (lambda: gpucnn.tensor([1.0], dtype="float33"), lambda: gpucnn.tensor([1.0]).to("float33")):
        with pytest.raises(TypeError, match="'float33'"):
            run()


def test_ragged_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="inhomogeneous"):
        gpucnn.tensor([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">f2", ">i4", ">u2"])
def test_big_endian_data_are_converted(dtype: str) -> None:
    array = np.array([[1, 2], [3, 4]], dtype)
    for tensor in (Tensor(array), gpucnn.tensor(array), gpucnn.tensor(array, dtype=dtype)):
        assert tensor.dtype == np.dtype(dtype).newbyteorder("=")
        assert tensor.dtype.isnative
        assert tensor.tolist() == [[1, 2], [3, 4]]
    assert gpucnn.tensor([1, 2]).to(dtype).dtype.isnative


@pytest.mark.parametrize("make", [Tensor, gpucnn.tensor])
def test_non_contiguous_data_keep_their_logical_order(make: Any) -> None:
    for view in (IMAGES[::2, ::-1, 1:, ::3], IMAGES.T, np.broadcast_to(np.float32(3), (2, 3, 4, 5))):
        assert np.array_equal(make(view).numpy(), view)


def test_subclasses_of_arrays_lose_their_own_rules() -> None:
    class Odd(np.ndarray):
        def __mul__(self, other: Any) -> Any:
            raise AssertionError("a subclass's operator ran")

    tensor = Tensor(np.ones((2, 2), np.float32).view(Odd))
    assert type(tensor.data) is np.ndarray
    assert (tensor * 2).tolist() == [[2, 2], [2, 2]]


# ------------------------------------------------------------------------------------------- requires_grad


@pytest.mark.parametrize("dtype", OTHERS)
def test_only_floats_require_gradients(dtype: str) -> None:
    tensor = gpucnn.tensor([1], dtype=dtype)
    for run in (
        lambda: Tensor(tensor, requires_grad=True),
        lambda: gpucnn.tensor([1], dtype=dtype, requires_grad=True),
        lambda: tensor.requires_grad_(),
        lambda: setattr(tensor, "requires_grad", True),
    ):
        with pytest.raises(ValueError, match="floating dtype"):
            run()
    assert not tensor.requires_grad_(False).requires_grad


def test_requires_grad_is_switched_on_leaves_only() -> None:
    x = gpucnn.zeros(2)
    x.requires_grad = True
    y = x * 2
    assert y.requires_grad
    assert y.requires_grad_() is y
    with pytest.raises(RuntimeError, match="detach"):
        y.requires_grad = False
    x.requires_grad = False
    assert not (x * 2).requires_grad


# ------------------------------------------------------------------------------------------ what comes out


def test_item_and_numbers() -> None:
    for x in (gpucnn.tensor(2.5), gpucnn.tensor([2.5]), gpucnn.tensor([[[2.5]]])):
        assert (x.item(), float(x), int(x), bool(x)) == (2.5, 2.5, 2, True)
    assert type(gpucnn.tensor(3).item()) is int
    assert gpucnn.tensor(0.0).item() is not None
    assert not gpucnn.tensor(False)
    for x in (gpucnn.zeros(2), gpucnn.zeros(0)):
        for run in (x.item, x.__float__, x.__int__, x.__bool__):
            with pytest.raises(ValueError, match="one element"):
                run()


def test_length_size_and_iteration() -> None:
    x = gpucnn.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert (len(x), x.size(), x.size(0), x.size(-1), x.dim()) == (3, (3, 2), 3, 2, 2)
    assert [row.tolist() for row in x] == [[1, 2], [3, 4], [5, 6]]
    assert [float(v) for v in reversed(x[0])] == [2, 1]
    assert 5.0 in x[2]
    assert 7.0 not in x[2]
    with pytest.raises(ValueError, match="axis 2"):
        x.size(2)
    for run in (lambda: len(gpucnn.tensor(1.0)), lambda: list(gpucnn.tensor(1.0))):
        with pytest.raises(TypeError, match="without axes"):
            run()


def test_rows_of_an_iteration_carry_gradients() -> None:
    x = gpucnn.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    first, second = x
    (first * second).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[3, 4], [1, 2]]


def test_repr_says_what_matters() -> None:
    assert repr(gpucnn.tensor([1.0, 2.5])) == "Tensor([1. , 2.5])"
    assert repr(gpucnn.tensor([1, 2])) == "Tensor([1, 2], dtype=int64)"
    assert repr(gpucnn.tensor(1.0, requires_grad=True)) == "Tensor(1., requires_grad=True)"
    assert repr(gpucnn.tensor(1.0, dtype="float16")) == "Tensor(1., dtype=float16)"
    assert "..." in repr(gpucnn.zeros(1000))
    assert repr(gpucnn.zeros(0)) == "Tensor([])"
    assert repr(nn.Parameter(np.zeros(1, np.float32))) == "Parameter([0.], requires_grad=True)"


def test_format_of_a_tensor_without_axes_is_that_of_its_number() -> None:
    loss = gpucnn.tensor(0.123456)
    assert f"{loss:.3f}" == "0.123"
    assert f"{loss}" == str(loss) == repr(loss)
    assert f"{gpucnn.tensor([1.0]):>14}" == "  Tensor([1.])"


@pytest.mark.parametrize("size", [(2, 3), ((2, 3),), ([2, 3],), (2,), ((),), (), (0, 3), (1, 2, 3, 4)])
def test_zeros_and_ones(size: Any) -> None:
    shape = np.zeros(*size if size else [()]).shape if len(size) == 1 else size
    assert np.array_equal(gpucnn.zeros(*size).numpy(), np.zeros(shape))
    assert np.array_equal(gpucnn.ones(*size, dtype="int8").numpy(), np.ones(shape))
    assert gpucnn.zeros(*size).dtype == np.float32
    assert gpucnn.ones(*size, requires_grad=True).requires_grad
