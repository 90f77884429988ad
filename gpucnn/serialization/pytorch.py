"""PyTorch's .pt and .pth files: the zip archive of version 1.6 and later, and the row of pickles from before.

Both hold one pickle in which each tensor is a call of `torch._utils._rebuild_tensor_v2` on a storage, which is named
by a persistent id ("storage", class, key, device, count); the storages' bytes lie beside the pickle or behind it.
"""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Callable
from typing import IO, Any, cast

from gpucnn.serialization import pickled
from gpucnn.serialization.refusal import WeightFileError
from gpucnn.serialization.storages import ITEM_SIZES, STORAGES, Storage, strided

ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# What zipfile raises for a damaged archive beside its own error: it finds an unheard-of version or encryption, a name
# that is no text, a place before the beginning.
_ZIP_TROUBLE = (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, UnicodeDecodeError)
OpenStorage = Callable[[str, str, int], Storage]
"""(key, kind of number, how many) -> the storage."""


def looks_legacy(head: bytes) -> bool:
    """Whether a file that begins so is a pickle of protocol 2 or later, as the older format does."""
    return len(head) > 1 and head[0] == 0x80 and head[1] in (2, 3, 4, 5)


# ------------------------------------------------------------------------------------------------- the pickle in it


def _tensors(stream: IO[bytes], open_storage: OpenStorage) -> Any:
    """The object that the pickle at `stream` holds, its tensors as arrays over what `open_storage` gives."""
    storages: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise WeightFileError("refers to something by a persistent id that is no storage: refused")
        _, kind, key, _, count, *view = identity
        if not isinstance(kind, pickled.Global) or kind.name not in STORAGES or not isinstance(key, str):
            raise WeightFileError("has a storage of an unknown class: refused")
        if type(count) is not int or count < 0 or any(part is not None for part in view):
            raise WeightFileError(f"has a storage {key!r} without a plain count of its numbers: refused")
        if key not in storages:
            storages[key] = open_storage(key, STORAGES[kind.name], count)
        if storages[key].kind != STORAGES[kind.name]:
            raise WeightFileError(f"storage {key!r} is used as {kind.name} and as another class")
        return storages[key]

    globals_: dict[str, pickled.Builder | None] = {
        **dict.fromkeys(STORAGES),
        "_codecs.encode": pickled.latin1,
        "collections.OrderedDict": pickled.ordered_dict,
        "torch.Size": tuple,
        "torch._utils._rebuild_tensor": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
    }
    return pickled.read(stream, globals_, storage)


def _rebuild_tensor(storage: Any, offset: Any, sizes: Any, strides: Any, *_: Any) -> Any:
    """The arguments left out: whether gradients are required, hooks, metadata."""
    if not isinstance(storage, Storage):
        raise WeightFileError("a tensor without a storage: refused")
    return strided(storage, offset, sizes, strides)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


# ------------------------------------------------------------------------------------------------- the zip archive


def read_zip(file: IO[bytes]) -> Any:
    """What torch.save wrote from version 1.6 on."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive)
    except _ZIP_TROUBLE as error:
        raise WeightFileError(f"truncated or damaged zip archive: {error}") from error


def _read_archive(archive: zipfile.ZipFile) -> Any:
    members = {info.filename: info for info in archive.infolist()}
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
        return bytearray(archive.read(info))

    big_endian = f"{root}byteorder" in members and bytes(content("byteorder")) == b"big"

    def open_storage(key: str, kind: str, count: int) -> Storage:
        name = f"data/{key}"
        if root + name not in members:
            raise WeightFileError(f"storage {key!r} is missing from the archive")
        if members[root + name].file_size != count * ITEM_SIZES[kind]:
            has = members[root + name].file_size
            raise WeightFileError(f"storage {key!r} has {has} bytes for {count} numbers of {ITEM_SIZES[kind]} bytes")
        return Storage.of_bytes(key, kind, content(name), big_endian)

    return _tensors(io.BytesIO(content("data.pkl")), open_storage)


# ------------------------------------------------------------------------------------------------ before version 1.6


def read_legacy(file: IO[bytes]) -> Any:
    """What torch.save wrote before version 1.6: pickles of a magic number, a version, the byte order, the object and
    the storages' keys, and then each storage's count and bytes."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:  # a damaged length finds the file's end
        return _read_pickles(cast("IO[bytes]", mapped), len(mapped))


def _read_pickles(file: IO[bytes], size: int) -> Any:
    def plain() -> Any:
        return pickled.read(file, {}, _no_persistent)

    if plain() != _LEGACY_MAGIC:
        raise WeightFileError("a pickle, but not one that torch.save wrote: refused")
    if plain() != _LEGACY_PROTOCOL:
        raise WeightFileError(f"not protocol {_LEGACY_PROTOCOL}, the only one of PyTorch's older format")
    machine = plain()
    if not isinstance(machine, dict) or not isinstance(machine.get("little_endian"), bool):
        raise WeightFileError("does not say in which byte order it is")
    big_endian = not machine["little_endian"]
    start = file.tell()
    wanted: dict[str, tuple[str, int]] = {}

    def note(key: str, kind: str, count: int) -> Storage:
        wanted[key] = (kind, count)
        return Storage(key, kind, None)

    _tensors(file, note)  # once for what the storages hold, which follow it, and once more to make tensors of them
    storages: dict[str, Storage] = {}
    for key in plain():
        if key not in wanted:
            raise WeightFileError("brings a storage that no tensor is in")
        storages[key] = Storage.of_bytes(key, wanted[key][0], _numbers(file, size, key, *wanted[key]), big_endian)

    def open_storage(key: str, kind: str, count: int) -> Storage:
        if key not in storages:
            raise WeightFileError(f"storage {key!r} is missing")
        return storages[key]

    file.seek(start)
    return _tensors(file, open_storage)


def _no_persistent(_: Any) -> Any:
    raise WeightFileError("refers to a storage where there is none")


def _numbers(file: IO[bytes], end: int, key: str, kind: str, count: int) -> bytearray:
    here = int.from_bytes(file.read(8), "little")
    size = count * ITEM_SIZES[kind]
    if here != count:
        raise WeightFileError(f"storage {key!r} has {here} numbers instead of {count}")
    if size > end - file.tell():
        raise WeightFileError(f"truncated: storage {key!r} should have {size} more bytes")
    return bytearray(file.read(size))
