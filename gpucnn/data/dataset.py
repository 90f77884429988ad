"""What a data set is to the rest of gpucnn, and the one kind that lies in memory as a whole.

Images are (H, W, C) arrays here, the memory order of the kernels; they become (N, C, H, W) where `DataLoader` hands out
Tensors, by transposing the view.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Dataset(Protocol):
    """Numbered images with a class label each.

    `DataLoader` needs no more than `len(dataset)` and `dataset[i]`; a method `batch(indices)`, where there is one, is
    used in place of item by item. Derive from this class or just have the members.
    """

    classes: tuple[str, ...]
    """The classes' names; a label is an index into them."""

    name: str
    """A short name, as used for `gpucnn train --data`."""

    source: str
    """One sentence saying where the images come from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[NDArray[Any], int]:
        """Image (H, W, C), uint8 in 0..255 or float32 in 0..1, and its label.

        Raises:
            IndexError: no such image.
        """


class ArrayDataset:
    """A data set that lies in memory as two arrays.

    Args:
        images: (N, H, W, C), uint8 in 0..255 or float32; made C-contiguous.
        labels: (N,) integers in [0, len(classes)).
        classes: the classes' names.
        name: a short name.
        source: one sentence saying where the images come from.

    Raises:
        TypeError: images neither uint8 nor float32, or labels that are no integers.
        ValueError: shapes that do not fit each other, no classes, or a label out of range.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    name: str
    source: str

    def __init__(
        self,
        images: NDArray[Any],
        labels: ArrayLike,
        classes: Sequence[str],
        name: str = "arrays",
        source: str = "arrays in memory",
    ) -> None:
        images, label_array = np.asarray(images), _integers(np.asarray(labels))
        native = images.dtype.newbyteorder("=")
        if native not in (np.uint8, np.float32):
            raise TypeError(f"images must be uint8 or float32, got {images.dtype}")
        if images.ndim != 4:
            hint = "; add the channel axis: images[..., None]" if images.ndim == 3 else ""
            raise ValueError(f"images must have shape (N, H, W, C), got {images.shape}{hint}")
        if 0 in images.shape[1:]:
            raise ValueError(f"images must have at least one pixel and one channel, got {images.shape}")
        if label_array.shape != images.shape[:1]:
            raise ValueError(f"labels must have shape ({len(images)},), one an image, got {label_array.shape}")
        if not classes:
            raise ValueError("classes must name at least one class")
        wrong = np.flatnonzero((label_array < 0) | (label_array >= len(classes)))
        if wrong.size:
            first = wrong[0]
            raise ValueError(
                f"labels must lie in [0, {len(classes)}), as many as classes; label {first} is {label_array[first]}"
            )
        self.images = np.ascontiguousarray(images, dtype=native)
        self.labels = label_array
        self.classes, self.name, self.source = tuple(classes), name, source

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: SupportsIndex) -> tuple[NDArray[Any], int]:
        """Image (H, W, C), a view, and its label."""
        index = operator.index(index)
        return self.images[index], int(self.labels[index])

    def batch(self, indices: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Images (n, H, W, C) and labels (n,) at the given places, as copies."""
        places = np.asarray(indices, dtype=np.int64)
        return self.images.take(places, axis=0), self.labels.take(places)

    def subset(self, indices: ArrayLike) -> ArrayDataset:
        """The data set of the images at the given places, copied, in that order."""
        images, labels = self.batch(indices)
        return ArrayDataset(images, labels, self.classes, self.name, self.source)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        images = f"{len(self)} images {shape} {self.images.dtype}"
        return f"ArrayDataset({self.name!r}, {images}, {len(self.classes)} classes)"


class Subset:
    """Some images of any data set, by reference.

    Args:
        dataset: where the images are.
        indices: their places, in the order wanted.

    Raises:
        IndexError: a place that the data set does not have.
    """

    def __init__(self, dataset: Dataset, indices: ArrayLike) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        wrong = self.indices[(self.indices < 0) | (self.indices >= len(dataset))]
        if wrong.size:
            raise IndexError(f"the data set has the places 0 to {len(dataset) - 1}; there is no {wrong[0]}")
        self.classes, self.name, self.source = dataset.classes, dataset.name, dataset.source

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: SupportsIndex) -> tuple[NDArray[Any], int]:
        """Image (H, W, C) and its label."""
        return self.dataset[int(self.indices[operator.index(index)])]

    def batch(self, indices: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Images (n, H, W, C) and labels (n,) at the given places of this subset."""
        return gather(self.dataset, self.indices.take(np.asarray(indices, dtype=np.int64)))


def gather(dataset: Dataset, indices: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """A batch of any data set: its own `batch` where it has one, else its items stacked.

    Args:
        dataset: anything with `dataset[i]`.
        indices: (n,) places, at least one.

    Returns:
        Images (n, H, W, C) and labels (n,).

    Raises:
        TypeError: a label that is no integer.
        ValueError: images of several shapes or dtypes; the message names the first that differs from the first.
    """
    batch = getattr(dataset, "batch", None)
    if batch is not None:
        images, labels = batch(indices)
        return np.asarray(images), _integers(np.asarray(labels))
    items = [dataset[int(index)] for index in indices]
    arrays = [np.asarray(image) for image, _ in items]
    for index, array in zip(indices, arrays, strict=True):
        if array.shape != arrays[0].shape or array.dtype != arrays[0].dtype:
            raise ValueError(
                f"the images of a batch must have one shape and dtype: image {indices[0]} is {arrays[0].shape} "
                f"{arrays[0].dtype}, image {index} is {array.shape} {array.dtype}"
            )
    return np.stack(arrays), _integers(np.asarray([label for _, label in items]))


def _integers(labels: NDArray[Any]) -> NDArray[np.int64]:
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    return labels.astype(np.int64, copy=False)
