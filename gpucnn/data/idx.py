"""IDX files: the container that MNIST is published in, read with every promise of its header checked.

The format is LeCun's: two zero bytes, a type code, the number of dimensions, each dimension as a big-endian 32-bit
word, then the elements in C order, big-endian (http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MAX_DIMENSIONS = 32
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in an IDX file, plain or gzip-compressed (told apart by content, not by name).

    Args:
        path: the file.

    Returns:
        A writable C-contiguous array in native byte order with the shape and dtype that the header names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not IDX, is cut short, goes on after the last element, or its gzip stream is damaged;
            the message names the path, what was expected and what was found.
    """
    path = Path(path)
    with path.open("rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        file.seek(0)
        if not packed:
            return _parse(file, path)
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _parse(unpacked, path)  # type: ignore[arg-type]
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: expected an undamaged gzip file, found: {error}") from error


def write_idx(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Writes an array as an IDX file, gzip-compressed where the name ends in ".gz".

    The bytes depend on the array alone: the gzip header carries neither time nor name.

    Raises:
        ValueError: the dtype or the number of dimensions has no IDX encoding.
    """
    path = Path(path)
    array = np.asarray(array)
    native = array.dtype.newbyteorder("=")
    code = next((code for code, dtype in _DTYPES.items() if dtype.newbyteorder("=") == native), None)
    if code is None:
        raise ValueError(f"{path}: IDX holds {_known_dtypes()}, not {array.dtype}")
    if not 1 <= array.ndim <= _MAX_DIMENSIONS:
        raise ValueError(f"{path}: IDX holds 1 to {_MAX_DIMENSIONS} dimensions, not {array.ndim}")
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    content = header + array.astype(_DTYPES[code]).tobytes()
    with path.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed:
                packed.write(content)
        else:
            file.write(content)


def _parse(stream: BinaryIO, path: Path) -> NDArray[Any]:
    magic = stream.read(4)
    if len(magic) < 4:
        raise ValueError(f"{path}: expected an IDX header of at least 8 bytes, found {len(magic)} bytes")
    if magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise ValueError(
            f"{path}: not an IDX file: expected two zero bytes and a type code "
            f"({', '.join(f'{code:#04x}' for code in _DTYPES)}), found {magic.hex(' ')}"
        )
    dtype, ndim = _DTYPES[magic[2]], magic[3]
    if not 1 <= ndim <= _MAX_DIMENSIONS:
        raise ValueError(f"{path}: expected 1 to {_MAX_DIMENSIONS} dimensions in the IDX header, found {ndim}")
    words = stream.read(4 * ndim)
    if len(words) < 4 * ndim:
        raise ValueError(f"{path}: expected an IDX header of {4 + 4 * ndim} bytes, found {4 + len(words)} bytes")
    shape = struct.unpack(f">{ndim}I", words)
    expected = math.prod(shape) * dtype.itemsize
    content = _read_at_most(stream, expected)
    promise = f"{expected} bytes of data for {'x'.join(map(str, shape))} {dtype.newbyteorder('=')}"
    if len(content) < expected:
        raise ValueError(f"{path}: cut short: expected {promise}, found {len(content)}")
    if stream.read(1):  # at the end of a gzip stream this also checks its CRC
        raise ValueError(f"{path}: expected {promise}, found more data after them")
    array: NDArray[Any] = np.ndarray(shape, dtype, buffer=content)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_at_most(stream: BinaryIO, size: int) -> bytearray:
    """Up to `size` bytes, a chunk at a time: a foreign header may promise more than the memory holds."""
    content = bytearray()
    while len(content) < size:
        chunk = stream.read(min(_CHUNK, size - len(content)))
        if not chunk:
            break
        content += chunk
    return content


def _known_dtypes() -> str:
    return ", ".join(str(dtype.newbyteorder("=")) for dtype in _DTYPES.values())
