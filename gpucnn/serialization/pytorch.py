"""PyTorch's .pt and .pth files: the zip archive of version 1.6 and later, and the row of pickles from before.

Both hold one pickle in which each tensor is a call of `torch._utils._rebuild_tensor_v2` on a storage, which is named
by a persistent id ("storage", class, key, device, count); the storages' bytes lie beside the pickle or behind it.
"""

from __future__ import annotations

import io
import mmap
import os
import zipfile
from collections.abc import Callable
from typing import IO, Any, cast

import numpy as np

from gpucnn.serialization import pickled
from gpucnn.serialization.refusal import WeightFileError
from gpucnn.serialization.storages import ITEM_SIZES, STORAGES, Storage, is_count, numbers_of, strided

ZIP_MAGIC = b"PK\x03\x04"
_PIECE = 1 << 20
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# What zipfile raises for a damaged archive beside its own error: it finds an unheard-of version or encryption, a name
# that is no text, a place before the beginning.
_ZIP_TROUBLE = (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, UnicodeDecodeError)
# The dtypes for which PyTorch has no storage class: tensors of them are laid over plain bytes.
_OF_BYTES = {"torch.uint16": "u2", "torch.uint32": "u4", "torch.uint64": "u8"}
_LEAVES = (str, bytes, int, float, type(None), np.ndarray)
OpenStorage = Callable[[str, str, int], Storage]
"""(key, kind of number, how many) -> the storage."""


def looks_legacy(head: bytes) -> bool:
    """Whether a file that begins so is a pickle of protocol 2 or later, as the older format does."""
    return len(head) > 1 and head[0] == 0x80 and head[1] in (2, 3, 4, 5)


# ------------------------------------------------------------------------------------------------- the pickle in it


def _tensors(stream: IO[bytes], open_storage: OpenStorage, big_endian: bool) -> Any:
    """The object that the pickle at `stream` holds, its tensors as arrays over what `open_storage` gives."""
    storages: dict[str, Storage] = {}
    typed: dict[tuple[str, str], Storage] = {}

    def storage(identity: Any) -> Storage:
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise WeightFileError("refers to something by a persistent id that is no storage: refused")
        _, kind, key, _, count, *view = identity
        if not isinstance(kind, pickled.Global) or kind.name not in STORAGES or not isinstance(key, str):
            raise WeightFileError("has a storage of an unknown class: refused")
        if not is_count(count) or any(part is not None for part in view):
            raise WeightFileError(f"has a storage {key!r} without a plain count of its numbers: refused")
        if key not in storages:
            storages[key] = open_storage(key, STORAGES[kind.name], count)
        if storages[key].kind != STORAGES[kind.name]:
            raise WeightFileError(f"storage {key!r} is used as {kind.name} and as another class")
        return storages[key]

    def rebuild_of_bytes(storage: Any, offset: Any, sizes: Any, strides: Any, *rest: Any) -> Any:
        dtype = rest[2]  # behind whether gradients are required, and hooks
        if not isinstance(storage, Storage) or not isinstance(dtype, pickled.Global) or dtype.name not in _OF_BYTES:
            raise WeightFileError("a tensor without a storage or a dtype: refused")
        name = (storage.key, _OF_BYTES[dtype.name])
        if name not in typed:  # but once: the conversion may copy
            raw = storage.numbers
            typed[name] = Storage(*name, None if raw is None else numbers_of(raw, name[1], big_endian))
        return _rebuild_tensor(typed[name], offset, sizes, strides, *rest[:2], *rest[3:])

    globals_: dict[str, pickled.Builder | None] = {
        **dict.fromkeys((*STORAGES, *_OF_BYTES)),
        "_codecs.encode": pickled.latin1,
        "collections.Counter": pickled.counter,
        "collections.OrderedDict": pickled.ordered_dict,
        "torch.Size": pickled.size,
        "torch._utils._rebuild_tensor": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v3": rebuild_of_bytes,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
        "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    }
    return _plain(pickled.read(stream, globals_, storage))


def _rebuild_tensor(
    storage: Any, offset: Any, sizes: Any, strides: Any, grad: Any = None, hooks: Any = None, signs: Any = None
) -> Any:
    """`signs`: whether PyTorch has put off to negate or conjugate the numbers until they are used, if it does at all.

    The other arguments are whether gradients are required, and hooks, which have no meaning in a file.
    """
    if not isinstance(storage, Storage):
        raise WeightFileError("a tensor without a storage: refused")
    if signs is not None and (not isinstance(signs, dict) or any(flag is not False for flag in signs.values())):
        raise WeightFileError(
            "a tensor that is still to be negated or conjugated: refused; save its resolve_conj().resolve_neg() instead"
        )
    return strided(storage, offset, sizes, strides)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    """Left out: whether gradients are required, hooks, attributes that were set on the parameter."""
    return data


def _plain(value: Any) -> Any:
    """`value`, in which there must be nothing but arrays and plain containers: no storage or name by itself."""
    seen, parts = set(), [value]
    while parts:  # no recursion: a file may nest its containers as deep as it is long, or put one into itself
        part = parts.pop()
        if isinstance(part, (dict, list, tuple)):
            if id(part) not in seen:
                seen.add(id(part))
                parts += part.values() if isinstance(part, dict) else part
        elif not isinstance(part, _LEAVES):
            what = part.name if isinstance(part, pickled.Global) else f"a {type(part).__name__} by itself"
            raise WeightFileError(f"holds {what}, which is neither a dense tensor nor a plain container: refused")
    return value


# ------------------------------------------------------------------------------------------------- the zip archive


def read_zip(file: IO[bytes]) -> Any:
    """What torch.save wrote from version 1.6 on."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive, os.fstat(file.fileno()).st_size)
    except _ZIP_TROUBLE as error:
        raise WeightFileError(f"truncated or damaged zip archive: {error}") from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> Any:
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise WeightFileError("a zip archive with two members of the same name: refused")
    if sum(info.file_size for info in members.values() if info.compress_type == zipfile.ZIP_STORED) > size:
        raise WeightFileError("a zip archive whose members are larger than itself, truncated or overlapping: refused")
    roots = [name.removesuffix("data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise WeightFileError("a zip archive without the data.pkl that torch.save writes: no file of PyTorch weights")
    (root,) = roots
    if f"{root}constants.pkl" in members:
        raise WeightFileError(
            "a TorchScript archive, which holds code: refused; save the module's state_dict() instead"
        )

    def content(name: str) -> bytearray:
        info = members[root + name]
        if info.compress_type != zipfile.ZIP_STORED:
            raise WeightFileError(f"{name} is compressed, which torch.save never does: refused")
        with archive.open(info) as member:
            return _filled(member, info.file_size, name)

    big_endian = f"{root}byteorder" in members and bytes(content("byteorder")) == b"big"

    def open_storage(key: str, kind: str, count: int) -> Storage:
        name = f"data/{key}"
        if root + name not in members:
            raise WeightFileError(f"storage {key!r} is missing from the archive")
        if members[root + name].file_size != count * ITEM_SIZES[kind]:
            has = members[root + name].file_size
            raise WeightFileError(f"storage {key!r} has {has} bytes for {count} numbers of {ITEM_SIZES[kind]} bytes")
        return Storage.of_bytes(key, kind, content(name), big_endian)

    return _tensors(io.BytesIO(content("data.pkl")), open_storage, big_endian)


def _filled(file: IO[bytes], size: int, name: str) -> bytearray:
    """The next `size` bytes, read piece by piece: what is large should not be in memory twice."""
    content = bytearray(size)
    view, done = memoryview(content), 0
    while done < size:
        piece = file.read(min(size - done, _PIECE))
        if not piece:
            raise WeightFileError(f"truncated: {name} should have {size - done} more bytes")
        view[done : done + len(piece)] = piece
        done += len(piece)
    return content


# ------------------------------------------------------------------------------------------------ before version 1.6


def read_legacy(file: IO[bytes]) -> Any:
    """What torch.save wrote before version 1.6: pickles of a magic number, a version, the byte order, the object and
    the storages' keys, and then each storage's count and bytes."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:  # a damaged length finds the file's end
        return _read_pickles(cast("IO[bytes]", mapped), file, len(mapped))


def _read_pickles(pickles: IO[bytes], file: IO[bytes], size: int) -> Any:
    def plain() -> Any:
        return pickled.read(pickles, {}, _no_persistent)

    if plain() != _LEGACY_MAGIC:
        raise WeightFileError("a pickle, but not one that torch.save wrote: refused")
    if plain() != _LEGACY_PROTOCOL:
        raise WeightFileError(f"not protocol {_LEGACY_PROTOCOL}, the only one of PyTorch's older format")
    machine = plain()
    if not isinstance(machine, dict) or not isinstance(machine.get("little_endian"), bool):
        raise WeightFileError("does not say in which byte order it is")
    big_endian = not machine["little_endian"]
    start = pickles.tell()
    wanted: dict[str, tuple[str, int]] = {}

    def note(key: str, kind: str, count: int) -> Storage:
        wanted[key] = (kind, count)
        return Storage(key, kind, None)

    _tensors(pickles, note, big_endian)  # once for what the storages that follow hold, and once more to make tensors
    storages: dict[str, Storage] = {}
    keys = plain()
    if not isinstance(keys, list):
        raise WeightFileError("damaged pickle: no list of storages")
    file.seek(pickles.tell())  # pages of the mapped file would count as memory in use beside what is made of them
    for key in keys:
        if not isinstance(key, str) or key not in wanted:
            raise WeightFileError("brings a storage that no tensor is in")
        storages[key] = Storage.of_bytes(key, wanted[key][0], _numbers(file, size, key, *wanted[key]), big_endian)

    def open_storage(key: str, kind: str, count: int) -> Storage:
        if key not in storages:
            raise WeightFileError(f"storage {key!r} is missing")
        return storages[key]

    pickles.seek(start)
    return _tensors(pickles, open_storage, big_endian)


def _no_persistent(_: Any) -> Any:
    raise WeightFileError("refers to a storage where there is none")


def _numbers(file: IO[bytes], end: int, key: str, kind: str, count: int) -> bytearray:
    here = int.from_bytes(file.read(8), "little")
    size = count * ITEM_SIZES[kind]
    if here != count:
        raise WeightFileError(f"storage {key!r} has {here} numbers instead of {count}")
    if size > end - file.tell():
        raise WeightFileError(f"truncated: storage {key!r} should have {size} more bytes")
    return _filled(file, size, f"storage {key!r}")
