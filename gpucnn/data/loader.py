"""Batches in an order that is a function of seed and epoch, prepared by a thread while the network computes."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.dataset import Dataset, gather
from gpucnn.data.draw import Draw, checked_epoch, permutation
from gpucnn.data.transforms import check_images
from gpucnn.random import split64
from gpucnn.tensor import Tensor

T = TypeVar("T")
_Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]


class DataLoader:
    """Iterates over a data set in batches of Tensors.

    A batch is images (N, C, H, W) float32, which in memory are (N, H, W, C), and labels (N,) int64. Bytes that no
    transform has turned into floats are divided by 255.

    Each `iter(loader)` is one epoch and the next is another: with `shuffle` it comes in another order, and random
    transforms draw other numbers. Order and draws depend on `seed` and the epoch's number alone, so `set_epoch` repeats
    an epoch, or resumes within one, bit by bit, whatever `prefetch` is.

    Args:
        dataset: `len(dataset)` images, `dataset[i]` giving (image (H, W, C), label), as in `Dataset`.
        batch_size: images in a batch.
        shuffle: a new order each epoch; otherwise the data set's own.
        seed: in [0, 2**64), for order and transforms.
        drop_last: leave out a last batch that is not full.
        transform: called as `transform(images, draw)` on each batch; see `gpucnn.data.transforms`.
        prefetch: how many batches a background thread prepares ahead; 0 prepares each when it is asked for.

    Raises:
        TypeError: not a data set, or a transform that cannot be called.
        ValueError: a number out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        transform: Callable[[NDArray[Any], Draw], NDArray[Any]] | None = None,
        prefetch: int = 2,
    ) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise TypeError(f"a data set has len(dataset) and dataset[i]; {type(dataset).__name__} does not")
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be callable as transform(images, draw), got {transform!r}")
        self.dataset = dataset
        self.batch_size = _integer("batch_size", batch_size, 1)
        self.shuffle = bool(shuffle)
        self.seed = _integer("seed", seed, 0)
        split64(self.seed)
        self.drop_last = bool(drop_last)
        self.transform = transform
        self.prefetch = _integer("prefetch", prefetch, 0)
        self._epoch = self._start_batch = 0

    def __len__(self) -> int:
        """The number of batches in a whole epoch."""
        count = len(self.dataset)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Makes the next `iter(loader)` epoch number `epoch`, beginning at its batch number `start_batch`.

        Raises:
            ValueError: an epoch outside [0, 2**32), or a batch that the epoch does not have.
        """
        checked_epoch(epoch)
        if not 0 <= start_batch <= len(self):
            raise ValueError(f"start_batch must lie in [0, {len(self)}], the epoch's batches, got {start_batch}")
        self._epoch, self._start_batch = epoch, start_batch

    def __iter__(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        arrays = self._arrays(self._epoch, self._start_batch)
        self._epoch, self._start_batch = self._epoch + 1, 0
        return _tensors(_prefetched(arrays, self.prefetch) if self.prefetch else arrays)

    def _arrays(self, epoch: int, start_batch: int) -> Generator[_Arrays, None, None]:
        count = len(self.dataset)
        order = permutation(count, self.seed, epoch) if self.shuffle else np.arange(count, dtype=np.int64)
        for number in range(start_batch, len(self)):
            indices = order[number * self.batch_size : (number + 1) * self.batch_size]
            images, labels = gather(self.dataset, indices)
            if self.transform is not None:
                images = self.transform(images, Draw(self.seed, epoch, indices))
            yield _as_floats(images, len(indices)), labels


def _tensors(batches: Generator[_Arrays, None, None]) -> Generator[tuple[Tensor, Tensor], None, None]:
    with closing(batches):
        for images, labels in batches:
            yield Tensor(images.transpose(0, 3, 1, 2)), Tensor(labels)


def _prefetched(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The same items, made up to `depth` ahead by a thread that ends with this generator, however that ends."""
    ready: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()
    free, closed = threading.Semaphore(depth), threading.Event()
    # The thread must not hold this generator: dropping it is what ends the thread.
    worker = threading.Thread(target=_produce, args=(items, ready, free, closed), name="gpucnn-data", daemon=True)
    worker.start()
    try:
        while (message := ready.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            free.release()
            yield message[0]
    finally:
        closed.set()
        free.release()
        if worker is not threading.current_thread():  # which it is where its own garbage collection closes us
            worker.join()


def _produce(
    items: Iterator[T],
    ready: SimpleQueue[tuple[T] | BaseException | None],
    free: threading.Semaphore,
    closed: threading.Event,
) -> None:
    try:
        while True:
            free.acquire()
            if closed.is_set():
                return
            try:
                item = next(items)
            except StopIteration:
                ready.put(None)
                return
            ready.put((item,))
    except BaseException as error:  # for the consumer, who raises it with this thread's traceback
        ready.put(error)


def _as_floats(images: NDArray[Any], count: int) -> NDArray[np.float32]:
    check_images(images)
    if len(images) != count:
        raise ValueError(f"the transform was given {count} images and returned {len(images)}")
    if images.dtype == np.uint8:
        images = np.divide(images, 255, dtype=np.float32)
    return np.ascontiguousarray(images, dtype=np.float32)


def _integer(name: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number
