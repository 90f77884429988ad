"""A network's steps as something to be measured: which network, on what, and what every contestant can be asked.

A training step is forward, cross entropy, backward, and SGD with Nesterov momentum; an inference step is forward alone.
Images are in the device's memory before the clock starts, in the contestant's own layout; steps go through several
batches of them in turn. All contestants start from the same weights and see the same batches, so that what they compute
can be compared before what they take.
"""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn import models, random
from gpucnn.backend import FLOAT_KINDS, supported_dtype
from gpucnn.bench import memory
from gpucnn.bench.answers import Answer
from gpucnn.bench.turns import rest
from gpucnn.data import ArrayDataset, load_dataset
from gpucnn.nn import Module
from gpucnn.nn.init import skip_init

MOMENTUM = 0.9

RANDOM = "random"
"""In place of a data set: standard normals, labels at random."""

_RANDOM_BATCHES = 3
_MOST_BATCHES = 50
ANSWER_SCALE = 1024.0
"""Of the loss in float16, when gradients are compared: less than a GradScaler begins with, which overflows at first."""

AMP = ("bfloat16", "float16", "tf32")

_DIGITS, _SMALL, _LARGE = ((1, 28, 28), 10, 64, 64), ((3, 32, 32), 10, 128, 128), ((3, 224, 224), 1000, 32, 4)
"""One image, classes, and the batch on a GPU and on a CPU."""
_CIFAR = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "plain", "wrn", "nin")
_SIZES = (("lenet", _DIGITS), *((stem, _SMALL) for stem in _CIFAR))
"""By how networks' names begin; _LARGE are the rest."""


@dataclass(frozen=True)
class Task:
    """What every contestant is to do.

    Attributes:
        model: a name of gpucnn.models.
        batch, image, classes: so many images of (C,H,W) at a time, told apart into so many classes.
        training: whether a step is a training step.
        dtype: of weights and images.
        amp: one of AMP, or None to compute in `dtype`, float32 at precision "highest".
        fused: whether batch norms are folded into convolutions, as by Module.fuse().
        device: where it is computed.
        data, data_dir, download: a data set of gpucnn.data and where it is found, or RANDOM.
    """

    model: str
    batch: int
    image: tuple[int, int, int]
    classes: int
    training: bool
    dtype: str = "float32"
    amp: str | None = None
    fused: bool = False
    device: str = "cpu"
    data: str = RANDOM
    data_dir: str | None = None
    download: bool = True

    @staticmethod
    def of(
        model: str,
        training: bool,
        device: str = "cpu",
        *,
        batch: int | None = None,
        image: tuple[int, int, int] | None = None,
        classes: int | None = None,
        data: str | None = None,
        **options: Any,
    ) -> Task:
        """The task, with what is None as the network's papers have it; LeNets see digits of MNIST, the rest noise.

        Args:
            options: the other attributes.

        Raises:
            ValueError: no such network, one that labels pixels, what it can't take, or options that don't go together.
            FileNotFoundError: the data are not there.
        """
        if model not in models.MODELS:
            models.build(model)  # names those there are
        usual, of_model, on_gpu, on_cpu = next((size for stem, size in _SIZES if model.startswith(stem)), _LARGE)
        if data is None:
            data = "mnist-sample" if model.startswith("lenet") and not image and not classes else RANDOM
        task = Task(
            model,
            batch or (on_cpu if device == "cpu" else on_gpu),
            image or usual,
            classes or of_model,
            training,
            device=device,
            data=data,
            **options,
        )
        task._check_numbers()
        if data != RANDOM:
            if image or classes:
                raise ValueError(f"the images and classes of {data} are what they are: leave out image and classes")
            train = _dataset(task)
            height, width, channels = train.images.shape[1:]
            task = replace(task, image=(channels, height, width), classes=len(train.classes))
            if len(train) < task.batch:
                raise ValueError(f"{data} has {len(train)} images, a batch is of {task.batch}")
        with skip_init():
            models.build_for(model, task.classes, task.image)
        return task

    def _check_numbers(self) -> None:
        held, amp = supported_dtype(self.dtype), self.amp
        if held.kind not in FLOAT_KINDS:
            raise ValueError(f"a network computes in floats, not in {held.name}")
        if amp is not None and amp not in AMP:
            raise ValueError(f"amp must be {', '.join(AMP[:-1])} or {AMP[-1]}, got {amp!r}")
        if amp is not None and held.name != "float32":
            raise ValueError(f"amp={amp!r} is for networks of float32, not of {held.name}")
        if self.training and held.itemsize == 2:
            raise ValueError(f"a network of {held.name} is for inference; with amp={held.name!r} one of float32 trains")
        if self.training and self.fused:
            raise ValueError("fused networks are for inference: a batch norm in training uses the batch's statistics")

    @property
    def learning_rate(self) -> float:
        """At which small batches of such images are learned, noise too."""
        return 0.01 if max(self.image[1:]) <= 32 else 0.001

    @property
    def numbers(self) -> str:
        """In what it is computed: a dtype, or "tf32"."""
        return self.amp or self.dtype

    def __str__(self) -> str:
        what = "training step" if self.training else "forward pass"
        numbers = {None: self.dtype, "tf32": "float32 by TF32"}.get(self.amp, f"float32 with autocast to {self.amp}")
        fused = ", batch norms folded" if self.fused else ""
        of = "random images" if self.data == RANDOM else self.data
        shape = " x ".join(map(str, (self.batch, *self.image)))
        return f"{self.model}, {what}, {shape}, {self.classes} classes, {numbers}{fused}, {of}"


def _dataset(task: Task) -> ArrayDataset:
    train, _ = load_dataset(task.data, task.data_dir, download=task.download, announce=lambda line: None)
    if not isinstance(train, ArrayDataset):
        raise ValueError(
            f"{task.data}: folders of images are decoded as they are read, which is not what is timed here"
        )
    return train


def batches(task: Task) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Images (N,C,H,W), normalised, and labels (N,): the same for every contestant."""
    rng = np.random.default_rng(0)
    if task.data == RANDOM:
        shape = (task.batch, *task.image)
        return [
            (rng.standard_normal(shape, np.float32), rng.integers(0, task.classes, task.batch))
            for _ in range(_RANDOM_BATCHES)
        ]
    train = _dataset(task)
    found = []
    order = rng.permutation(len(train))
    for number in range(min(_MOST_BATCHES, len(train) // task.batch)):
        images, labels = train.batch(order[number * task.batch :][: task.batch])
        values = images.transpose(0, 3, 1, 2).astype(np.float32)
        found.append(((values - values.mean()) / values.std(), labels))
    return found


def network(task: Task) -> Module:
    """gpucnn's network on the CPU, with the weights that all contestants start from; in evaluation mode unless it is to
    be trained, and then with batch norms that are not the identity, as those of trained networks are not."""
    random.manual_seed(0)
    options: dict[str, Any] = {"num_classes": task.classes, "in_channels": task.image[0]}
    if "image_size" in inspect.signature(models.MODELS[task.model]).parameters:
        options["image_size"] = task.image[1]
    found = models.build(task.model, **options).train(task.training)
    if not task.training:
        rng = np.random.default_rng(0)
        state = {name: tensor.numpy() for name, tensor in found.state_dict().items()}
        for name in [name for name in state if name.endswith(".running_var")]:
            norm, channels = name.removesuffix(".running_var"), len(state[name])
            for kind in ("running_var", "weight"):
                state[f"{norm}.{kind}"] = rng.uniform(0.5, 1.5, channels).astype(np.float32)
            for kind in ("running_mean", "bias"):
                state[f"{norm}.{kind}"] = rng.normal(0.0, 0.2, channels).astype(np.float32)
        found.load_state_dict(state)
    return found


@dataclass(frozen=True)
class Turn:
    """What a round came to.

    Attributes:
        seconds: a step.
        loss: in training, of its last step.
        made: how many steps the contestant has made by then, those to warm up among them.
    """

    seconds: float
    loss: float | None
    made: int


class Contestant(ABC):
    """A network that makes steps. A library says how; what is asked of all is here."""

    def __init__(self, name: str, task: Task) -> None:
        self.name, self.task = name, task
        self._made = 0

    # -- of a library

    @abstractmethod
    def _inside(self) -> AbstractContextManager[None]:
        """What is in force while it computes."""

    @abstractmethod
    def _step(self, number: int) -> Any:
        """A step on batch `number`: the loss or the outputs, where they were computed."""

    @abstractmethod
    def _number(self, loss: Any) -> float:
        """A loss as a number."""

    @abstractmethod
    def _wait(self) -> None:
        """Until all that was asked of the device is done."""

    @abstractmethod
    def _answer(self) -> Answer:
        """Of batch 0 with the first weights; changes none of them."""

    @abstractmethod
    def _meter(self) -> memory.Meter:
        """What sees the memory that it takes."""

    @abstractmethod
    def _count(self) -> int:
        """How many batches there are."""

    # -- asked by the benchmark

    def answer(self) -> Answer:
        """What the first step computes; to be asked before any step is made."""
        with self._inside():
            return self._answer()

    def turn(self, steps: int) -> Turn:
        """Makes so many steps. On a CPU each is timed, and the median counts; on a GPU all together, between two points
        where nothing is left to do, since a look at each would keep the queue empty."""
        with self._inside():
            return self._timed(steps) if self.task.device == "cpu" else self._queued(steps)

    def peak(self, steps: int) -> memory.Peak:
        """The memory that so many steps take at most."""
        meter = self._meter()
        with self._inside():
            meter.begin()
            for _ in range(steps):
                self._next()
            self._wait()
            return meter.end()

    def release(self) -> None:
        """Gives back memory that is kept for the next step but holds nothing."""
        with self._inside():
            self._meter().release()

    def _timed(self, steps: int) -> Turn:
        samples = []
        for _ in range(steps):
            begin = time.perf_counter()
            result = self._next()
            samples.append(time.perf_counter() - begin)
        rest()
        return Turn(float(np.median(samples)), self._loss(result), self._made)

    def _queued(self, steps: int) -> Turn:
        self._next()  # finds its memory again
        self._wait()
        begin = time.perf_counter()
        for _ in range(steps):
            result = self._next()
        self._wait()
        seconds = (time.perf_counter() - begin) / steps
        return Turn(seconds, self._loss(result), self._made)

    def _next(self) -> Any:
        self._made += 1
        return self._step((self._made - 1) % self._count())

    def _loss(self, result: Any) -> float | None:
        return self._number(result) if self.task.training else None
