"""Tensors: what they are made of, what they share, and how their data get out."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import Tensor, backend, nn

FLOATS = ["float16", "float32", "float64"]
OTHERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


def channels_last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


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
    [1j, [1j], np.zeros(2, np.complex64), "text", ["a"], None, [None], object(), 2**64, np.longdouble(1), {"a": 1}]
    + [np.array(["2020-01-01"], "datetime64[D]"), np.zeros(2, [("a", "f4")]), np.array([object()])],
    ids=repr,
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


# ---------------------------------------------------------------------------------------------- what is shared


def test_Tensor_shares_and_tensor_copies() -> None:
    array = np.zeros(3, np.float32)
    shared, copied = Tensor(array), gpucnn.tensor(array)
    array[0] = 7
    assert shared.tolist() == [7, 0, 0]
    assert copied.tolist() == [0, 0, 0]
    shared.numpy()[1] = 8
    assert array.tolist() == [7, 8, 0]
    assert Tensor(shared).data is shared.data
    assert not np.shares_memory(gpucnn.tensor(shared).data, array)
    assert not np.shares_memory(gpucnn.tensor(array, dtype="float32", device="cpu").data, array)


def test_numpy_of_a_tensor_that_requires_gradients_is_given() -> None:
    tensor = gpucnn.tensor([1.0], requires_grad=True)
    assert np.shares_memory(tensor.numpy(), tensor.data)
    assert np.asarray(tensor).tolist() == [1.0]
    assert np.array(tensor, dtype="float64").dtype == np.float64
    assert np.shares_memory(np.asarray(tensor), tensor.data)
    assert not np.shares_memory(np.array(tensor), tensor.data)


@pytest.mark.parametrize("dtype", FLOATS)
def test_tensor_lays_float_images_out_channels_last(dtype: str) -> None:
    for data in (IMAGES.astype(dtype), channels_last(IMAGES.astype(dtype)), IMAGES.astype(dtype)[:, :, ::-1]):
        tensor = gpucnn.tensor(data)
        assert tensor.shape == (2, 3, 4, 5)
        assert tensor.data.transpose(0, 2, 3, 1).flags.c_contiguous
        assert np.array_equal(tensor.numpy(), data)
        assert not np.shares_memory(tensor.data, data)


def test_other_data_are_laid_out_in_C_order() -> None:
    for data in (IMAGES.astype(np.int64), IMAGES[0].T, IMAGES.reshape(2, 3, 4, 5, 1).T):
        assert gpucnn.tensor(data).data.flags.c_contiguous


def test_detach_shares_and_forgets() -> None:
    x = gpucnn.tensor([1.0, 2.0], requires_grad=True)
    y = (x * 2).detach()
    assert (y.requires_grad, y.is_leaf) == (False, True)
    z = x.detach()
    z.numpy()[0] = 5
    assert x.tolist() == [5, 2]


def test_clone_has_memory_of_its_own_and_passes_gradients() -> None:
    x = gpucnn.tensor(IMAGES, requires_grad=True)
    y = x.clone()
    assert not np.shares_memory(x.data, y.data)
    assert y.data.strides == x.data.strides
    assert not y.is_leaf
    (y * 3).sum().backward()
    assert np.array_equal(x.grad.numpy(), np.full(IMAGES.shape, 3))  # type: ignore[union-attr]


def test_to_converts_and_gives_itself_where_nothing_changes() -> None:
    x = gpucnn.tensor([1.5, 2.5], requires_grad=True)
    for same in (x.to("cpu"), x.to("float32"), x.to(np.float32, "cpu"), x.to(device="cpu"), x.to(), x.cpu()):
        assert same is x
    y = x.to("float64")
    assert (y.dtype, y.requires_grad) == (np.float64, True)
    (y * gpucnn.tensor([2.0, 3.0], dtype="float64")).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [2, 3]
    assert not x.to("int64").requires_grad
    assert x.to("int64").tolist() == [1, 2]
    assert gpucnn.tensor(IMAGES).to("float64").data.strides == gpucnn.tensor(IMAGES.astype("float64")).data.strides


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "", "CPU"])
def test_devices_that_do_not_exist_are_refused(device: str) -> None:
    with pytest.raises(ValueError, match="'cpu', 'cuda' or 'cuda:<index>'"):
        gpucnn.tensor([1.0], device=device)
    with pytest.raises(ValueError, match="'cpu', 'cuda' or 'cuda:<index>'"):
        gpucnn.tensor([1.0]).to(device=device)


# -------------------------------------------------------------------------------------------------- writing


def test_copy_writes_into_the_same_memory() -> None:
    x = gpucnn.tensor(IMAGES)
    memory = x.data
    assert x.copy_(-IMAGES) is x
    assert x.data is memory
    assert np.array_equal(memory, -IMAGES)
    assert gpucnn.zeros(2, dtype="int64").copy_(gpucnn.tensor([1.75, -2.75])).tolist() == [1, -2]
    assert gpucnn.zeros(2).copy_([1, 2]).tolist() == [1, 2]


def test_copy_refuses_what_would_change_history() -> None:
    leaf, plain = gpucnn.zeros(2, requires_grad=True), gpucnn.zeros(2)
    for run in (lambda: leaf.copy_(plain), lambda: plain.copy_(leaf), lambda: (leaf * 2).copy_(plain)):
        with pytest.raises(RuntimeError, match="no_grad"):
            run()
    with gpucnn.no_grad():
        assert leaf.copy_([1.0, 2.0]).tolist() == [1, 2]
        assert plain.copy_(leaf).tolist() == [1, 2]


def test_copy_refuses_other_shapes_and_read_only_memory() -> None:
    for shape in ((3,), (1,), (2, 1), ()):
        with pytest.raises(ValueError, match="copy_: source has shape"):
            gpucnn.zeros(2).copy_(np.zeros(shape))
    with pytest.raises(ValueError, match="read-only"):
        Tensor(np.broadcast_to(np.float32(1), (2,))).copy_([1.0, 2.0])


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


# -------------------------------------------------------------------------------------------- copy and pickle


@pytest.mark.parametrize("through", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))], ids=["deepcopy", "pickle"])
def test_leaves_are_copied_whole(through: Any) -> None:
    for tensor in (gpucnn.tensor(IMAGES, requires_grad=True), gpucnn.tensor([1, 2]), nn.Parameter(gpucnn.tensor(IMAGES))):
        twin = through(tensor)
        assert type(twin) is type(tensor)
        assert twin.requires_grad == tensor.requires_grad
        assert np.array_equal(twin.numpy(), tensor.numpy())
        assert twin.data.strides == tensor.data.strides
        assert not np.shares_memory(twin.data, tensor.data)


def test_what_was_computed_is_not_copied() -> None:
    y = gpucnn.tensor([1.0], requires_grad=True) * 2
    for through in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(RuntimeError, match="detach"):
            through(y)


def test_tensors_leave_no_cycles() -> None:
    gc.collect()
    gc.disable()
    try:
        x = gpucnn.tensor(IMAGES, requires_grad=True)
        y = (x * 2).relu().sum()
        y.backward()
        z = (x * x).sum()
        watched = [weakref.ref(t) for t in (x, y, z, x.grad)]
        del x, y, z
        assert [ref() for ref in watched] == [None] * 4
    finally:
        gc.enable()


def test_arithmetic_keeps_images_channels_last() -> None:
    x = gpucnn.tensor(IMAGES)
    assert backend.memory_order(x.data) == backend.NHWC
    assert (x * 2 + x).data.strides == x.data.strides
