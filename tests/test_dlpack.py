"""DLPack both ways: nothing is copied, strides are kept, and what must not be shared is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import Tensor, from_dlpack
from gpucnn.nn import Parameter

DTYPES = ["float16", "float32", "float64", "bool", "int8", "uint8", "int16", "int32", "int64"]
IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_both_ways(dtype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    tensor = from_dlpack(array)
    assert (tensor.dtype, tensor.shape, tensor.requires_grad) == (np.dtype(dtype), (2, 3), False)
    assert np.shares_memory(tensor.data, array)
    back = np.from_dlpack(gpucnn.tensor(array))  # type: ignore[arg-type]
    assert np.array_equal(back, array)
    assert back.dtype == array.dtype


needs_numpy_2_1 = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="numpy 2.0 takes all DLPack memory as read-only"
)


@needs_numpy_2_1
def test_writes_are_seen_on_the_other_side() -> None:
    array = np.zeros(3, np.float32)
    tensor = from_dlpack(array)
    tensor.copy_([1.0, 2.0, 3.0])
    assert array.tolist() == [1, 2, 3]
    twin = from_dlpack(tensor)
    twin.copy_([4.0, 5.0, 6.0])
    assert array.tolist() == [4, 5, 6]


def test_strides_are_kept() -> None:
    tensor = gpucnn.tensor(IMAGES)
    for view in (tensor.data, tensor.data[:, 1:, ::2], tensor.data[:0], np.float32(1).reshape(())):
        seen = np.from_dlpack(Tensor(view))  # type: ignore[arg-type]
        assert seen.shape == view.shape
        assert view.size <= 1 or seen.strides == view.strides
        assert np.array_equal(seen, view)


def test_tensors_that_require_gradients_are_not_exported() -> None:
    x = gpucnn.tensor([1.0], requires_grad=True)
    for tensor in (x, x * 2, Parameter([1.0])):
        with pytest.raises(BufferError, match=r"export detach\(\)"):
            np.from_dlpack(tensor)  # type: ignore[arg-type]
        assert np.shares_memory(np.from_dlpack(tensor.detach()), tensor.data)  # type: ignore[arg-type]


@needs_numpy_2_1
def test_read_only_memory_stays_read_only() -> None:
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    tensor = from_dlpack(array)
    assert np.shares_memory(tensor.data, array)
    with pytest.raises(ValueError, match="read-only"):
        tensor.copy_([1.0, 2.0, 3.0])
    assert not np.from_dlpack(Tensor(array)).flags.writeable  # type: ignore[arg-type]


def test_what_is_no_tensor_is_refused() -> None:
    for source in ([1.0], 1.0, None, "text", memoryview(b"12")):
        with pytest.raises(TypeError, match="from_dlpack needs an object that speaks DLPack"):
            from_dlpack(source)
    with pytest.raises(TypeError, match="complex64"):
        from_dlpack(np.zeros(2, np.complex64))


def test_memory_outlives_its_first_owner() -> None:
    tensor = from_dlpack(np.full(1000, 7.0))
    gone = [np.full(1000, 8.0) for _ in range(20)]
    assert gone
    assert tensor.sum().item() == 7000


@pytest.mark.peers
class TestPyTorch:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_in(self, torch: Any, dtype: str) -> None:
        theirs = torch.tensor([[0, 1, 1], [1, 0, 1]], dtype=getattr(torch, dtype))
        ours = from_dlpack(theirs)
        assert (ours.dtype, ours.shape) == (np.dtype(dtype), (2, 3))
        assert ours.data.ctypes.data == theirs.data_ptr()
        assert ours.tolist() == theirs.tolist()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_out(self, torch: Any, dtype: str) -> None:
        ours = gpucnn.tensor([[0, 1, 1], [1, 0, 1]], dtype=dtype)
        theirs = torch.from_dlpack(ours)
        assert theirs.dtype == getattr(torch, dtype)
        assert theirs.data_ptr() == ours.data.ctypes.data
        assert theirs.tolist() == ours.tolist()

    def test_channels_last_stays_channels_last(self, torch: Any) -> None:
        ours = gpucnn.tensor(IMAGES)
        theirs = torch.from_dlpack(ours)
        assert theirs.is_contiguous(memory_format=torch.channels_last)
        assert theirs.shape == ours.shape
        back = from_dlpack(theirs)
        assert back.data.strides == ours.data.strides
        assert back.data.ctypes.data == ours.data.ctypes.data
        ours.copy_(-IMAGES)
        assert np.array_equal(theirs.numpy(), -IMAGES)

    def test_gradients_are_refused_on_both_sides(self, torch: Any) -> None:
        with pytest.raises(BufferError):
            from_dlpack(torch.ones(2, requires_grad=True))
        with pytest.raises(BufferError, match="detach"):
            torch.from_dlpack(gpucnn.ones(2, requires_grad=True))

    def test_dtypes_that_tensors_do_not_hold(self, torch: Any) -> None:
        with pytest.raises(TypeError, match="complex64"):
            from_dlpack(torch.ones(2, dtype=torch.complex64))

    def test_a_tensor_of_theirs_is_data_of_ours(self, torch: Any) -> None:
        theirs = torch.ones(2, dtype=torch.float64)
        assert np.shares_memory(Tensor(theirs).data, theirs.numpy())
        assert gpucnn.tensor(theirs).dtype == np.float64
        assert torch.from_dlpack(gpucnn.tensor(theirs)).equal(theirs)
