"""CIFAR-10: 60,000 colour images, 32x32, of Krizhevsky (2009), in its binary layout.

A file is a row of records: one byte of label, then 1,024 bytes each of red, green and blue, row by row
(https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from gpucnn.data.dataset import ArrayDataset
from gpucnn.data.locate import (
    VARIABLE,
    Announce,
    DownloadError,
    FileSet,
    cache_folder,
    describe_variable,
    fetch_files,
    search,
    tell,
)

ARCHIVE = "cifar-10-binary.tar.gz"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
HASHES = {ARCHIVE: "md5:c32a1d4ab5d03f1284b67883e8d87530"}

_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = ("test_batch.bin",)
_META = "batches.meta.txt"
_INNER_FOLDER = "cifar-10-batches-bin"
_RECORDS = 10_000
_CHANNELS, _SIDE = 3, 32
_RECORD_BYTES = 1 + _CHANNELS * _SIDE * _SIDE
_CLASSES = 10

FILES = FileSet(title="CIFAR-10", names=(*_TRAIN, *_TEST, _META), folders=("", "cifar10", _INNER_FOLDER))


def load_cifar10(
    data_dir: str | os.PathLike[str] | None = None, *, download: bool = True, announce: Announce | None = None
) -> tuple[ArrayDataset, ArrayDataset]:
    """CIFAR-10's training and test set, from the first place that has both.

    Looked at in this order: `data_dir`, `$GPUCNN_DATA` (the folder itself, `cifar10` and `cifar-10-batches-bin` in it),
    the cache, and a checksummed download of 170 MB.

    Args:
        data_dir: the folder to read; nothing else is tried then.
        download: whether the network may be asked.
        announce: called with one line that says what is in use (also the data sets' `source`); by default the line goes
            to the log "gpucnn.data".

    Returns:
        Training and test set of images (32, 32, 3) uint8, red, green, blue.

    Raises:
        FileNotFoundError: the files are nowhere; the message says where was looked and how to get them.
        ValueError: a file is damaged or is not CIFAR-10's; the message names it.
    """
    found = search(FILES, data_dir)
    if found is not None:
        return _announced(*found, announce)
    cache = cache_folder("cifar10")
    if (cached := FILES.find(cache)) is not None:
        return _announced(cached, "the cache", announce)
    reason = "download not asked for"
    if download:
        try:
            fetch_files(HASHES, MIRRORS, cache)
            extract(cache / ARCHIVE, cache)
            (cache / ARCHIVE).unlink()
            return _announced(FILES.find_or_refuse(cache), "downloaded", announce)
        except DownloadError as error:
            reason = f"download failed: {error}"
    raise FileNotFoundError(
        f"CIFAR-10 was not found: {describe_variable()}; not in the cache {cache}; {reason}. To get it: unpack "
        f"{MIRRORS[0]}{ARCHIVE} and name its folder {_INNER_FOLDER} as the data folder or in ${VARIABLE}"
    )


def extract(archive: Path, folder: Path) -> None:
    """Unpacks CIFAR-10's files from its archive into a folder, flat; each appears there whole or not at all.

    The archive's checksum is for the caller to verify: tar notices a cut, but not a changed byte.

    Raises:
        ValueError: the archive is cut short, lacks a file, or holds a path that leads outside it.
    """
    wanted = set(FILES.names)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch, tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise ValueError(f"{archive}: refused, its member {member.name!r} leads outside the archive")
                content = tar.extractfile(member) if member.isreg() and path.name in wanted else None
                if content is not None:
                    with content, (Path(scratch) / path.name).open("wb") as file:
                        shutil.copyfileobj(content, file)
            missing = wanted - {path.name for path in Path(scratch).iterdir()}
            if missing:
                raise ValueError(f"{archive}: expected CIFAR-10's files, found none named {', '.join(sorted(missing))}")
            for name in FILES.names:
                (Path(scratch) / name).replace(folder / name)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{archive}: expected an undamaged tar archive, found: {error}") from error


def _announced(files: Mapping[str, Path], place: str, announce: Announce | None) -> tuple[ArrayDataset, ArrayDataset]:
    classes = _read_classes(files[_META])
    train = _read_records([files[name] for name in _TRAIN], classes)
    test = _read_records([files[name] for name in _TEST], classes)
    for dataset in (train, test):
        dataset.source = (
            f"CIFAR-10, {len(train):,} training and {len(test):,} test images from {files[_META].parent} ({place})"
        )
    tell(train.source, announce)
    return train, test


def _read_classes(path: Path) -> tuple[str, ...]:
    classes = tuple(path.read_text(encoding="utf-8", errors="replace").split())
    if len(classes) != _CLASSES or len(set(classes)) != _CLASSES:
        raise ValueError(f"{path}: expected the names of {_CLASSES} classes, one a line, found {len(classes)} words")
    return classes


def _read_records(paths: list[Path], classes: tuple[str, ...]) -> ArrayDataset:
    images = np.empty((len(paths), _RECORDS, _SIDE, _SIDE, _CHANNELS), np.uint8)
    labels = np.empty((len(paths), _RECORDS), np.uint8)
    for path, image_part, label_part in zip(paths, images, labels, strict=True):
        found, expected = path.stat().st_size, _RECORDS * _RECORD_BYTES
        if found != expected:
            raise ValueError(f"{path}: expected {expected} bytes, {_RECORDS} records of {_RECORD_BYTES}, found {found}")
        records = np.fromfile(path, np.uint8).reshape(_RECORDS, _RECORD_BYTES)
        label_part[:] = records[:, 0]
        if label_part.max() >= _CLASSES:
            raise ValueError(f"{path}: expected labels 0 to {_CLASSES - 1}, found {label_part.max()}")
        planes = records[:, 1:].reshape(_RECORDS, _CHANNELS, _SIDE, _SIDE)
        image_part[:] = planes.transpose(0, 2, 3, 1)
    return ArrayDataset(images.reshape(-1, _SIDE, _SIDE, _CHANNELS), labels.reshape(-1), classes, "cifar10")
