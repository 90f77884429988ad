"""Tensors as PyTorch's files have them: a storage of numbers, and an offset, sizes and strides over it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.backend import bfloat16
from gpucnn.serialization.refusal import WeightFileError

# What torch calls them, and their elements; bfloat16, which numpy itself lacks, is widened once read unless it is to be
# kept. The bytes of an untyped storage get their dtype from the tensor.
STORAGES = {
    "torch.storage.UntypedStorage": "u1",
    "torch.ComplexDoubleStorage": "c16",
    "torch.ComplexFloatStorage": "c8",
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
keep_bfloat16: ContextVar[bool] = ContextVar("keep_bfloat16", default=False)
"""Whether bfloat16 numbers are read as ml_dtypes' bfloat16."""

_MOST_AXES = 64  # of a numpy array
ITEM_SIZES = {kind: 2 if kind == "bfloat16" else np.dtype(kind).itemsize for kind in STORAGES.values()}


@dataclass(frozen=True)
class Storage:
    """Numbers of `kind` (a value of STORAGES) under the name that the file has for them; None: not read yet."""

    key: str
    kind: str
    numbers: np.ndarray[Any, Any] | None

    @classmethod
    def of_bytes(cls, key: str, kind: str, raw: bytearray, big_endian: bool) -> Storage:
        """The numbers in `raw`, in the byte order of this machine."""
        return cls(key, kind, numbers_of(raw, kind, big_endian))


def numbers_of(raw: bytearray | np.ndarray[Any, Any], kind: str, big_endian: bool = False) -> np.ndarray[Any, Any]:
    """Bytes as the numbers that they are, without a copy where the machine has such numbers in that byte order."""
    if kind == "?":
        return np.asarray(np.frombuffer(raw, np.uint8) != 0)  # in a file any other byte may stand for True
    dtype = np.dtype("u2" if kind == "bfloat16" else kind)
    stored = np.frombuffer(raw, dtype.newbyteorder(">" if big_endian else "<"))
    native: np.ndarray[Any, Any] = stored.astype(dtype, copy=False)
    if kind != "bfloat16":
        return native
    return native.view(bfloat16()) if keep_bfloat16.get() else widened(native)


def widened(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """bfloat16 numbers, given by their bits as uint16, as the float32 that each of them is."""
    wide = bits.astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


def strided(storage: Storage, offset: Any, sizes: Any, strides: Any) -> np.ndarray[Any, Any] | None:
    """The tensor as a view of its storage, after a check that it lies inside; None where that is still to be read."""
    where = f"a tensor over storage {storage.key!r}"
    if not (_whole((offset,), sizes, strides) and len(sizes) == len(strides)):
        raise WeightFileError(f"{where} has an offset, sizes or strides that are no tuples of non-negative integers")
    if len(sizes) > _MOST_AXES:
        raise WeightFileError(f"{where} has {len(sizes)} axes, more than {_MOST_AXES}: refused")
    if storage.numbers is None:
        return None
    available = storage.numbers.size
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if all(sizes) and last >= available:
        raise WeightFileError(
            f"{where} with offset {offset}, sizes {sizes} and strides {strides} does not fit its {available} numbers"
        )
    if not all(sizes):
        return np.empty(sizes, storage.numbers.dtype)
    item = storage.numbers.itemsize
    steps = tuple([stride * item for stride in strides])
    view: np.ndarray[Any, Any] = np.ndarray(sizes, storage.numbers.dtype, storage.numbers, offset * item, steps)
    return view


def _whole(*several: Any) -> bool:
    return all(isinstance(counts, tuple) and all(is_count(n) for n in counts) for counts in several)


def is_count(n: Any) -> bool:
    """Whether `n` is an integer from 0 that 64 bits hold: a longer one may be as long as the file."""
    return type(n) is int and 0 <= n < 2**63
