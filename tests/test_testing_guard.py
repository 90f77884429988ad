"""The guard must see every stray write and every missing one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.testing import Guarded, guarded, naive

DTYPES = ["float64", "float32", "float16", "int64", "int32", "int8", "uint8", "bool"]


def memory_of(guard: Guarded) -> tuple[np.ndarray, int]:
    """The whole buffer in the array's elements, and where the array starts in it."""
    whole = guard._buffer.view(guard.array.dtype)
    return whole, len(guard._before) // guard.array.dtype.itemsize


def message_of(guard: Guarded, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        guard.check(**options)
    return str(caught.value)


@pytest.mark.parametrize("memory", ["C", "NHWC"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_written_fully_and_only_there_passes(dtype: str, memory: Any) -> None:
    guard = guarded((2, 3, 5, 7), dtype, memory)
    assert guard.array.shape == (2, 3, 5, 7)
    assert guard.array.dtype == dtype
    assert guard.array.ctypes.data % 256 == 0
    stored = guard.array if memory == "C" else guard.array.transpose(0, 2, 3, 1)
    assert stored.flags.c_contiguous
    guard.check()
    guard.array[...] = 1
    guard.check(written=True)
    assert (guard.array == 1).all()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_floating_poison_and_canaries_are_nan(dtype: str) -> None:
    guard = guarded((4, 5), dtype)
    assert np.isnan(guard.array).all()
    whole, start = memory_of(guard)
    assert np.isnan(whole).all()
    assert len(whole) == 2 * start + 20


@pytest.mark.parametrize("value", [0, 1, 90])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_element_before_and_after_is_seen(dtype: str, value: int) -> None:
    shape, size = (3, 7), 21
    guard = guarded(shape, dtype)
    guard.array[...] = value
    whole, start = memory_of(guard)
    whole[start - 1] = value
    message = message_of(guard, name="conv2d y")
    assert message.startswith("conv2d y: overwritten before the array:")
    assert "(element -1 to -1)" in message
    assert "after" not in message
    guard._buffer[: len(guard._before)] = guard._before
    guard.check()

    whole[start + size] = value
    message = message_of(guard)
    assert message.startswith("overwritten after the array:")
    assert "(element 21 to 21 of 21)" in message
    assert "before" not in message


def test_far_strays_and_single_bytes_are_seen() -> None:
    guard = guarded((3,), np.float32)
    guard._buffer[0] ^= 1
    assert "1 bytes, from 4096 to 4096 bytes before its start (element -1024 to -1024)" in message_of(guard)
    guard = guarded((3,), np.float32)
    guard._buffer[-1] ^= 1
    assert "1 bytes, from 4095 to 4095 past its end (element 1026 to 1026 of 3)" in message_of(guard)


def test_a_shifted_copy_is_seen() -> None:
    """Moving everything by one element replaces canaries by canaries and poison by poison."""
    guard = guarded((8,), np.float32)
    whole = guard._buffer.view(np.uint32)
    whole[:-1] = whole[1:].copy()
    message = message_of(guard, written=True)
    assert "before the array" in message
    assert "after the array" in message
    assert "7 of 8 elements never written" in message


@pytest.mark.parametrize("memory", ["C", "NHWC"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_unwritten_elements_are_named_by_logical_coordinates(dtype: str, memory: Any) -> None:
    guard = guarded((2, 3, 4, 5), dtype, memory)
    mask = np.ones(guard.array.shape, bool)
    mask[0, 1, 2, 3] = mask[1, 2, 3, 4] = False
    guard.array[mask] = 0
    guard.check()
    assert message_of(guard, written=True) == "2 of 120 elements never written: (0, 1, 2, 3), (1, 2, 3, 4)"


def test_long_lists_are_cut() -> None:
    message = message_of(guarded((100,), np.float32), written=True)
    assert message == ("100 of 100 elements never written: (0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,), ...")


def test_a_computed_nan_counts_as_written() -> None:
    guard = guarded((2,), np.float32)
    with np.errstate(invalid="ignore"):
        guard.array[:] = np.float32(np.inf) - np.float32(np.inf)
    guard.check(written=True)
    guard.array[0] = np.nan
    guard.check(written=True)


def test_reading_past_a_guarded_input_shows_in_the_result() -> None:
    """A sum that runs one element too far turns NaN, though the extra term has weight 0."""
    guard = guarded((4,), np.float32)
    guard.array[:] = [1, 2, 3, 4]
    whole, start = memory_of(guard)
    weights = np.array([1, 1, 1, 1, 0], np.float32)
    assert np.dot(whole[start : start + 4], weights[:4]) == 10
    assert np.isnan(np.dot(whole[start : start + 5], weights))
    guard.check()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3, 4, 4), (1,)])
def test_scalars_and_empty_arrays(shape: tuple[int, ...]) -> None:
    guard = guarded(shape, np.float32)
    assert guard.array.shape == shape
    guard.array[...] = 2
    guard.check(written=True)
    whole, start = memory_of(guard)
    whole[start + guard.array.size] = 2
    assert "after the array" in message_of(guard)


def test_a_real_op_fills_its_guarded_output() -> None:
    y = naive.conv2d(np.ones((1, 2, 4, 4)), np.ones((3, 2, 3, 3)))
    guard = guarded(y.shape, np.float64, "NHWC")
    guard.array[...] = y
    guard.check(written=True)


def test_bfloat16_is_poisoned() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 arrays need ml_dtypes")
    guard = guarded((3, 5), ml_dtypes.bfloat16)
    assert np.isnan(guard.array.astype(np.float32)).all()
    assert "15 of 15" in message_of(guard, written=True)
    guard.array[...] = np.nan
    guard.check(written=True)


def test_on_a_gpu() -> None:
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("cupy finds no GPU")
    guard = guarded((2, 3, 4, 5), np.float32, "NHWC", xp=cupy)
    assert "120 of 120" in message_of(guard, written=True)
    guard.array[...] = 0
    guard.check(written=True)
    guard._buffer[0] ^= 1
    assert "before the array" in message_of(guard)


@pytest.mark.parametrize("dtype", [np.complex64, object, "U3", "M8[s]"])
def test_a_dtype_without_poison_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="no poison for dtype"):
        guarded((2,), dtype)


def test_memory_orders_are_checked() -> None:
    with pytest.raises(ValueError, match="needs a shape"):
        guarded((2, 3), np.float32, "NHWC")
    with pytest.raises(ValueError, match="must be 'C' or 'NHWC'"):
        guarded((2, 3), np.float32, "F")  # type: ignore[arg-type]
