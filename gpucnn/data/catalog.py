"""Data sets by name, and folders of images, as pairs of training and test set."""

from __future__ import annotations

import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from gpucnn.data.cifar import load_cifar10
from gpucnn.data.dataset import ArrayDataset, Dataset
from gpucnn.data.folder import ImageFolder
from gpucnn.data.locate import Announce, tell
from gpucnn.data.mnist import load_mnist, load_mnist_sample


def _sample(
    data_dir: str | os.PathLike[str] | None, *, download: bool, announce: Announce | None
) -> tuple[ArrayDataset, ArrayDataset]:
    if data_dir is not None:
        raise ValueError(f"mnist-sample is carried by the package and is not read from {data_dir}; name mnist instead")
    return load_mnist_sample(announce=announce)


DATASETS: dict[str, Callable[..., tuple[ArrayDataset, ArrayDataset]]] = {
    "mnist": load_mnist,
    "mnist-sample": _sample,
    "cifar10": load_cifar10,
}
"""Called as `DATASETS[name](data_dir, download=..., announce=...)`, returning training and test set."""

_TEST_FOLDERS = ("test", "val")


def load_dataset(
    name_or_folder: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    size: tuple[int, int] | None = None,
    mode: str = "RGB",
    download: bool = True,
    announce: Announce | None = None,
) -> tuple[Dataset, Dataset]:
    """Training and test set of a data set by its name, or of a folder of images.

    Args:
        name_or_folder: a name in `DATASETS`, or a folder with `train/` and `test/` (or `val/`) in it, each with one
            subfolder of images for each class.
        data_dir: for a name, the folder to read it from; see the data set's own loader.
        size: for a folder, (height, width) to bring the images to.
        mode: for a folder, "RGB" or "L".
        download: for a name, whether the network may be asked.
        announce: called with one line that says what is in use; by default it goes to the log "gpucnn.data".

    Raises:
        FileNotFoundError: a path that is no folder, or one that lacks `train/` or `test/`.
        ValueError: an unknown name (the message lists the known ones and the nearest), or what the loaders refuse.
    """
    name = os.fspath(name_or_folder)
    if name in DATASETS:
        if size is not None:
            raise ValueError(f"size is for a folder of images; the images of {name} have a size of their own")
        return DATASETS[name](data_dir, download=download, announce=announce)
    if Path(name).is_dir():
        if data_dir is not None:
            raise ValueError(f"data_dir is for a data set by name; {name} is itself the folder")
        return _folder_pair(Path(name), size, mode, announce)
    if not isinstance(name_or_folder, str) or os.sep in name:
        raise FileNotFoundError(f"{name}: there is no such folder of images")
    raise ValueError(_unknown(name))


def _folder_pair(
    root: Path, size: tuple[int, int] | None, mode: str, announce: Announce | None
) -> tuple[ImageFolder, ImageFolder]:
    test_folder = next((root / name for name in _TEST_FOLDERS if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test_folder is None:
        raise FileNotFoundError(f"{root}: expected the folders train and {' or '.join(_TEST_FOLDERS)} in it")
    train, test = ImageFolder(root / "train", size, mode), ImageFolder(test_folder, size, mode)
    if train.classes != test.classes:
        different = ", ".join(sorted(set(train.classes) ^ set(test.classes)))
        raise ValueError(f"{train.root} and {test.root} must have the same classes; only one of them has {different}")
    for dataset in (train, test):
        dataset.name = root.resolve().name
        dataset.source = (
            f"{len(train):,} training and {len(test):,} test images in {len(train.classes)} classes from {root}"
        )
    tell(train.source, announce)
    return train, test


def _unknown(name: str) -> str:
    near = get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.4)
    hint = f"; the nearest is {near[0]}" if near else ""
    return f"unknown data set {name!r}: there are {', '.join(DATASETS)}{hint}; or name a folder of images"
