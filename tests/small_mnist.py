"""A few real digits as IDX files, so that whole runs take seconds."""

from __future__ import annotations

from pathlib import Path

from gpucnn.data import load_mnist_sample, write_idx

TRAIN, TEST = 320, 100


def write_small_mnist(folder: Path) -> Path:
    """The first 320 training and 100 test images of the embedded sample, in MNIST's four files."""
    folder.mkdir(parents=True, exist_ok=True)
    train, test = load_mnist_sample(announce=lambda line: None)
    for name, dataset, count in (("train", train, TRAIN), ("t10k", test, TEST)):
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", dataset.images[:count, :, :, 0])
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", dataset.labels[:count].astype("uint8"))
    return folder
