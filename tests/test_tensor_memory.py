"""The memory of tensors: what is shared, what is copied, what may be written, and what is let go."""

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
IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


def channels_last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


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


# -------------------------------------------------------------------------------------------- copy and pickle


@pytest.mark.parametrize(
    "through", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))], ids=["deepcopy", "pickle"]
)
def test_leaves_are_copied_whole(through: Any) -> None:
    for tensor in (
        gpucnn.tensor(IMAGES, requires_grad=True),
        gpucnn.tensor([1, 2]),
        nn.Parameter(gpucnn.tensor(IMAGES)),
    ):
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
