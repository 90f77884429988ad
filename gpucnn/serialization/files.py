"""`gpucnn.load` and `gpucnn.save`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpucnn.backend import bfloat16
from gpucnn.serialization import pytorch
from gpucnn.serialization.refusal import WeightFileError
from gpucnn.serialization.storages import keep_bfloat16 as kept
from gpucnn.serialization.storages import numbers_of
from gpucnn.tensor import Tensor

_SAFETENSORS_DTYPES = {
    **{"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bfloat16", "BOOL": "?", "C64": "c8"},
    **{"I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1"},
}


def load(path: str | os.PathLike[str], *, keep_bfloat16: bool = False) -> Any:
    """The weights in a file: what was saved, with a numpy array for each tensor.

    Reads `.safetensors` (a dict of arrays by name) and PyTorch's `.pt` and `.pth` (a state dict, or whatever plain
    dicts, lists, tuples, numbers and strings it was saved in), by their content and not their ending. PyTorch is not
    needed and nothing in the file is executed: only dense tensors and plain containers are built, anything else (a
    sparse or quantized tensor, a whole module) is refused by its name. bfloat16 becomes float32, which holds the same
    numbers, unless it is to be kept. Arrays may share memory as the tensors did, and an expanded one has strides of 0.

    Args:
        path: of the file.
        keep_bfloat16: bfloat16 stays bfloat16, for which ml_dtypes has to be installed.

    Raises:
        FileNotFoundError: no such file.
        WeightFileError: damaged or truncated, neither kind of file, or with more in it than tensors and plain
            containers.
        RuntimeError: bfloat16 is to be kept and ml_dtypes is not installed.
    """
    if keep_bfloat16:
        bfloat16()
    reset = kept.set(keep_bfloat16)
    try:
        return _load(path)
    finally:
        kept.reset(reset)


def _load(path: str | os.PathLike[str]) -> Any:
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(f"{place}: there is no such file")
    with place.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        try:
            if head.startswith(pytorch.ZIP_MAGIC):
                return pytorch.read_zip(file)
            if pytorch.looks_legacy(head):
                return pytorch.read_legacy(file)
            if head[8:9] == b"{":  # after eight bytes with its length, the header of a safetensors file is JSON
                return _read_safetensors(file)
        except WeightFileError as error:
            reason = str(error)  # which may quote what is in the file at any length
            raise WeightFileError(f"{place}: {reason[:400]}{' ...' * (len(reason) > 400)}") from error
    raise WeightFileError(f"{place}: neither a safetensors file nor one of PyTorch's")


def _read_safetensors(file: IO[bytes]) -> dict[str, np.ndarray[Any, Any]]:
    from safetensors import SafetensorError, deserialize

    try:
        entries = deserialize(file.read())  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise WeightFileError(f"damaged or truncated safetensors file: {error}") from error
    found = {}
    for name, entry in entries:
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise WeightFileError(f"{name} has dtype {entry['dtype']}, of which there are no arrays: refused")
        try:
            found[name] = numbers_of(entry["data"], _SAFETENSORS_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        except ValueError as error:  # an empty tensor may have any shape
            raise WeightFileError(f"{name} has a shape that no array has: {error}") from error
    return found


def save(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes tensors or arrays by name, such as `model.state_dict()`, as a safetensors file, whole or not at all.

    Raises:
        TypeError: `state` is no mapping of names to tensors or arrays.
        FileNotFoundError: no such folder.
    """
    from safetensors.numpy import save as serialize

    if not isinstance(state, Mapping):
        raise TypeError(f"save takes a mapping of names to tensors, got {type(state).__name__}")
    for name in state:
        if not isinstance(name, str):
            raise TypeError(f"save: names are strings, got {name!r}")
    write_whole(Path(path), serialize({name: plain(value) for name, value in state.items()}))


def plain(value: Any) -> np.ndarray[Any, Any]:
    """A tensor or array as a C-contiguous numpy array in logical order."""
    array = (value if isinstance(value, Tensor) else Tensor(value)).numpy()
    return np.asarray(array, order="C")  # ascontiguousarray would give a scalar an axis


def write_whole(path: Path, content: bytes, keep_previous_as: Path | None = None) -> None:
    """Writes beside `path` and moves the file there once it is on the disk.

    A file that was at `path` is first linked to `keep_previous_as`: at no moment is there no good file.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if keep_previous_as is not None and path.exists():
        link = keep_previous_as.with_name(keep_previous_as.name + ".partial")
        link.unlink(missing_ok=True)
        os.link(path, link)
        os.replace(link, keep_previous_as)
    os.replace(partial, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the renames themselves survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
