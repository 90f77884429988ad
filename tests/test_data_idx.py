"""IDX files: every dtype and shape comes back, and nothing that breaks a header's promise is read."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from gpucnn.data import read_idx, write_idx

CODES = {0x08: "B", 0x09: "b", 0x0B: "h", 0x0C: "i", 0x0D: "f", 0x0E: "d"}
ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def by_hand(code: int, shape: tuple[int, ...], values: list[float]) -> bytes:
    """An IDX file packed element by element."""
    header = bytes([0, 0, code, len(shape)]) + b"".join(struct.pack(">I", side) for side in shape)
    return header + b"".join(struct.pack(">" + CODES[code], value) for value in values)


@pytest.fixture(params=["plain", "gz"])
def store(request, tmp_path):
    """Writes bytes as a file, plain or compressed, and returns its path."""

    def write(content: bytes) -> Path:
        path = tmp_path / "file-idx"
        path.write_bytes(gzip.compress(content) if request.param == "gz" else content)
        return path

    return write


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 2, 3), (2, 1, 2, 2), (1,) * 9])
def test_every_dtype_and_shape(code, shape, store):
    values = [(-1) ** index * (index % 100) if code != 0x08 else index for index in range(int(np.prod(shape)))]
    array = read_idx(store(by_hand(code, shape, values)))
    assert array.shape == shape
    assert array.dtype.isnative
    assert array.dtype == np.dtype(CODES[code])
    assert array.reshape(-1).tolist() == values
    assert array.flags.c_contiguous
    assert array.flags.writeable


@pytest.mark.parametrize(("code", "value"), [(0x0B, -2), (0x0C, 0x01020304), (0x0D, 1.5), (0x0E, -1e300)])
def test_elements_are_big_endian(code, value, store):
    assert read_idx(store(by_hand(code, (1,), [value]))).tolist() == [value]


def test_an_array_without_elements(store):
    assert read_idx(store(by_hand(0x08, (0, 28, 28), []))).shape == (0, 28, 28)
    assert read_idx(store(by_hand(0x0D, (3, 0), []))).shape == (3, 0)


@pytest.mark.parametrize("name", ["a", "a.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i4", "f4", ">f8"])
def test_what_is_written_is_read(name, dtype, tmp_path):
    array = np.arange(-6, 6).astype(dtype).reshape(3, 2, 2)[:, ::-1]
    write_idx(tmp_path / name, array)
    again = read_idx(tmp_path / name)
    assert again.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(again, array)
    assert ((tmp_path / name).read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")


def test_compressed_bytes_depend_on_the_array_alone(tmp_path):
    write_idx(tmp_path / "one.gz", ARRAY)
    write_idx(tmp_path / "other.gz", ARRAY)
    one = (tmp_path / "one.gz").read_bytes()
    assert one == (tmp_path / "other.gz").read_bytes()
    assert one[4:8] == bytes(4), "the time field of the gzip header must be zero"


@pytest.mark.parametrize("array", [np.zeros(3, np.int64), np.zeros(3, np.float16), np.zeros(()), np.array(["a"])])
def test_what_idx_cannot_hold_is_not_written(array, tmp_path):
    with pytest.raises(ValueError, match="IDX holds"):
        write_idx(tmp_path / "a", array)
    assert not (tmp_path / "a").exists()


def test_truncated_anywhere(store):
    content = by_hand(0x0B, (2, 3), [1, 2, 3, 4, 5, 6])
    for length in range(len(content)):
        path = store(content[:length])
        with pytest.raises(ValueError, match=r"expected .* found") as caught:
            read_idx(path)
        assert str(path) in str(caught.value)


def test_truncation_says_how_much_is_there(store):
    with pytest.raises(ValueError, match=r"expected 12 bytes of data for 2x3 int16, found 10"):
        read_idx(store(by_hand(0x0B, (2, 3), [1, 2, 3, 4, 5, 6])[:-2]))


@pytest.mark.parametrize("more", [b"\0", b"x" * 5000])
def test_trailing_data(more, store):
    with pytest.raises(ValueError, match="more data after"):
        read_idx(store(by_hand(0x08, (2, 2), [1, 2, 3, 4]) + more))


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(100), b"<!DOCTYPE html>" * 9, b"\0\0\x0a\x01" + bytes(9)],
)
def test_foreign_files(content, store):
    with pytest.raises(ValueError, match=r"not an IDX file: .*found " + content[:4].hex(" ")):
        read_idx(store(content))


@pytest.mark.parametrize("dimensions", [0, 33, 255])
def test_dimensions_that_no_array_has(dimensions, store):
    with pytest.raises(ValueError, match=f"expected 1 to 32 dimensions .*found {dimensions}"):
        read_idx(store(bytes([0, 0, 8, dimensions]) + bytes(4 * 300)))


@pytest.mark.parametrize("shape", [(2**32 - 1,), (2**32 - 1, 2**32 - 1, 2**32 - 1)])
def test_a_header_that_promises_more_than_memory_holds(shape, store):
    with pytest.raises(ValueError, match=f"cut short: expected {np.prod([int(s) for s in shape], dtype=object)} bytes"):
        read_idx(store(by_hand(0x08, shape, [1, 2, 3])))


def test_damaged_gzip_anywhere(tmp_path):
    write_idx(tmp_path / "whole.gz", ARRAY)
    whole, path = (tmp_path / "whole.gz").read_bytes(), tmp_path / "damaged.gz"
    for length in range(2, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="expected") as caught:
            read_idx(path)
        assert str(path) in str(caught.value)
    unread = {3, 4, 5, 6, 7, 8, 9}  # flags, time, and two bytes of hints: not part of what the checksum covers
    for place in sorted(set(range(len(whole))) - unread):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="expected") as caught:
            read_idx(path)
        assert str(path) in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_idx(tmp_path / "absent")
