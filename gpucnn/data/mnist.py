"""MNIST: 70,000 handwritten digits, 28x28 grey, of LeCun, Cortes and Burges (1998); and the sample carried here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gpucnn.data.dataset import ArrayDataset
from gpucnn.data.idx import read_idx
from gpucnn.data.locate import (
    Announce,
    DownloadError,
    FileSet,
    cache_folder,
    describe_variable,
    fetch_files,
    intact,
    search,
    tell,
)

CLASSES = tuple("0123456789")
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
SHA256 = {
    "t10k-labels-idx1-ubyte.gz": "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
    "t10k-images-idx3-ubyte.gz": "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be",
    "train-labels-idx1-ubyte.gz": "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203",
    "train-images-idx3-ubyte.gz": "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971",
}
"""Of the files as published; the smallest first, since it is what a mirror is probed with."""

SAMPLE_FOLDER = Path(__file__).parent / "embedded" / "mnist"

FILES = FileSet(
    title="MNIST",
    names=tuple(name.removesuffix(".gz") for name in SHA256),
    folders=("", "mnist", "MNIST/raw"),
    endings=("", ".gz"),
)


def load_mnist(
    data_dir: str | os.PathLike[str] | None = None, *, download: bool = True, announce: Announce | None = None
) -> tuple[ArrayDataset, ArrayDataset]:
    """MNIST's training and test set, from the first place that has both.

    Looked at in this order: `data_dir`, `$GPUCNN_DATA` (the folder itself, `mnist` and `MNIST/raw` in it, files plain
    or .gz), the cache, a checksummed download, and last the sample of 4,000 and 1,000 images that the package carries.

    Args:
        data_dir: the folder to read; nothing else is tried then.
        download: whether the network may be asked.
        announce: called with one line that says what is in use (also the data sets' `source`); by default the line goes
            to the log "gpucnn.data".

    Returns:
        Training and test set of images (28, 28, 1) uint8. Their name is "mnist", or "mnist-sample" for the sample.

    Raises:
        FileNotFoundError: `data_dir` was given and does not have the files.
        ValueError: a file is damaged or is not MNIST's; the message names it.
    """
    found = search(FILES, data_dir)
    if found is not None:
        return _announced(*found, announce)
    cache = cache_folder("mnist")
    cached = {name.removesuffix(".gz"): cache / name for name in SHA256}
    if intact(cache, SHA256):
        return _announced(cached, "the cache", announce)
    reason = "download not asked for"
    if download:
        try:
            fetch_files(SHA256, MIRRORS, cache)
            return _announced(cached, "downloaded", announce)
        except DownloadError as error:
            reason = f"download failed: {error}"
    return _sample(f"the full set was not found: {describe_variable()}; not in the cache {cache}; {reason}", announce)


def load_mnist_sample(*, announce: Announce | None = None) -> tuple[ArrayDataset, ArrayDataset]:
    """The sample that the package carries: 4,000 images of MNIST's training set, 1,000 of its test set.

    400 and 100 of each class, drawn at random by tools/make_mnist_sample.py; see the NOTICE beside the files.

    Args:
        announce: as in `load_mnist`.
    """
    return _sample("carried by the package", announce)


def _sample(reason: str, announce: Announce | None) -> tuple[ArrayDataset, ArrayDataset]:
    train, test = _read(FILES.find_or_refuse(SAMPLE_FOLDER))
    for dataset in (train, test):
        dataset.name = "mnist-sample"
        dataset.source = f"a sample of MNIST, {len(train):,} training and {len(test):,} test images ({reason})"
    tell(train.source, announce)
    return train, test


def _announced(files: Mapping[str, Path], place: str, announce: Announce | None) -> tuple[ArrayDataset, ArrayDataset]:
    train, test = _read(files)
    folder = next(iter(files.values())).parent
    for dataset in (train, test):
        dataset.source = f"MNIST, {len(train):,} training and {len(test):,} test images from {folder} ({place})"
    tell(train.source, announce)
    return train, test


def _read(files: Mapping[str, Path]) -> tuple[ArrayDataset, ArrayDataset]:
    return _read_split(files, "train"), _read_split(files, "t10k")


def _read_split(files: Mapping[str, Path], stem: str) -> ArrayDataset:
    images_path, labels_path = files[f"{stem}-images-idx3-ubyte"], files[f"{stem}-labels-idx1-ubyte"]
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.dtype != "u1" or images.shape[1:] != (28, 28):
        raise ValueError(f"{images_path}: expected images (N, 28, 28) uint8, found {images.shape} {images.dtype}")
    if labels.dtype != "u1" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{labels_path}: expected {len(images)} labels uint8, as {images_path} has images, "
            f"found {labels.shape} {labels.dtype}"
        )
    if labels.size and labels.max() >= len(CLASSES):
        raise ValueError(f"{labels_path}: expected labels 0 to 9, found {labels.max()}")
    return ArrayDataset(images[..., None], labels, CLASSES, "mnist")
