"""gpucnn's network as a contestant, and where the time of its steps goes, op by op."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from gpucnn import backend, creation, flags
from gpucnn.autograd import no_grad
from gpucnn.backend import Array
from gpucnn.bench import memory
from gpucnn.bench.answers import Answer, sketch
from gpucnn.bench.networks import (
    ANSWER_SCALE,
    MOMENTUM,
    Contestant,
    Task,
    batches,
    network,
)
from gpucnn.nn import Dropout, Dropout2d
from gpucnn.ops.registry import KernelTable, observe_calls
from gpucnn.optim import SGD, GradScaler
from gpucnn.tensor import Tensor
from gpucnn.train.evaluate import mixed
from gpucnn.train.trainer import training_loss


@dataclass(frozen=True)
class OpShare:
    """What the calls of one op's pass take in a step.

    Attributes:
        op, direction: of the table of kernels.
        calls: how many.
        seconds: all together.
        kernels: the names of those that ran, the most frequent first.
    """

    op: str
    direction: str
    calls: int
    seconds: float
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class Shares:
    """Where the seconds of one step went: to passes of ops, the longest first, and the rest to all that is above the
    kernels (modules, checks, the graph, the choice of kernels; on a GPU the time in which it has nothing to do)."""

    seconds: float
    ops: tuple[OpShare, ...]

    @property
    def above(self) -> float:
        return max(0.0, self.seconds - sum(op.seconds for op in self.ops))


class OwnNetwork(Contestant):
    """gpucnn on one of its backends."""

    def __init__(self, name: str, task: Task, backend_name: str) -> None:
        super().__init__(name, task)
        self._backend = backend_name
        self._on_gpu = task.device != "cpu"
        with self._inside():
            self._others = memory.CupyPool.in_use() if self._on_gpu else 0
            made = network(task).to(task.dtype)
            if task.fused:  # in the dtype that it is to run in, as fuse() says
                made = made.fuse()
            self._network = made.to(task.device)
            self._batches = [
                (creation.tensor(images, task.dtype, task.device), creation.tensor(labels, device=task.device))
                for images, labels in batches(task)
            ]
            flags.reset()
        self._scaler = GradScaler(enabled=task.amp == "float16")
        self._optimizer: SGD | None = None
        if task.training:
            self._optimizer = SGD(self._network.parameters(), task.learning_rate, MOMENTUM, nesterov=True)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        kind, index = backend.parse_device(self.task.device)
        place = nullcontext() if kind == "cpu" else backend.cupy().cuda.Device(index)
        with place, backend.use_backend(self._backend):
            yield

    def _step(self, number: int) -> Tensor:
        images, labels = self._batches[number]
        if self._optimizer is None:
            with no_grad(), mixed(self.task.amp):
                return self._network(images)  # type: ignore[no-any-return]
        with mixed(self.task.amp):
            _, loss = training_loss(self._network(images), labels, 0.0)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss

    def _number(self, loss: Tensor) -> float:
        return float(loss.item())

    def _wait(self) -> None:
        if self._on_gpu:
            backend.cupy().cuda.Device().synchronize()

    def _answer(self) -> Answer:
        if not self.task.training:
            return Answer(outputs=self._step(0).to("float32").numpy())
        images, labels = self._batches[0]
        with self._without_dropout():
            with mixed(self.task.amp):
                _, loss = training_loss(self._network(images), labels, 0.0)
            scale = ANSWER_SCALE if self._scaler.is_enabled() else 1.0
            (loss * scale).backward()
        gradients = {
            name: sketch(parameter.grad.numpy() / scale, name)
            for name, parameter in self._network.named_parameters()
            if parameter.grad is not None
        }
        self._network.zero_grad()
        return Answer(self._number(loss), gradients)

    @contextmanager
    def _without_dropout(self) -> Iterator[None]:
        layers = [module for module in self._network.modules() if isinstance(module, (Dropout, Dropout2d))]
        before = [layer.p for layer in layers]
        try:
            for layer in layers:
                layer.p = 0.0
            yield
        finally:
            for layer, p in zip(layers, before, strict=True):
                layer.p = p

    def _meter(self) -> memory.Meter:
        return memory.CupyPool(self._others) if self._on_gpu else memory.Process()

    def _count(self) -> int:
        return len(self._batches)

    def shares(self, steps: int) -> Shares:
        """Of the step of median length among so many, each call of a table of kernels timed on its own."""
        with self._inside():
            found = []
            for _ in range(steps):
                watch = Watch(_event, _between_events) if self._on_gpu else Watch(time.perf_counter, _difference)
                with watch.step():
                    self._next()
                self._wait()
                found.append(watch.shares())
        return sorted(found, key=lambda each: each.seconds)[len(found) // 2]


class Watch:
    """Observes calls of tables of kernels: runs the kernels, with a mark of the time before and behind each.

    Args:
        mark: makes a mark; on a GPU an event in the queue of its work.
        between: seconds from one mark to another.
    """

    def __init__(self, mark: Callable[[], Any], between: Callable[[Any, Any], float]) -> None:
        self._mark, self._between = mark, between
        self._calls: list[tuple[KernelTable, str, Any, Any]] = []
        self._whole: tuple[Any, Any] | None = None
        self._is_inside = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """Everything inside is one step."""
        begin = self._mark()
        with observe_calls(self):
            yield
        self._whole = begin, self._mark()

    def __call__(
        self, table: KernelTable, problem: Any, arrays: tuple[Any, ...], kernel: str | None, like: Array
    ) -> Any:
        spec = table.pick(problem, like, kernel)
        if self._is_inside:  # a kernel asks a table: its own time
            return spec.run(problem, *arrays)
        self._is_inside = True
        begin = self._mark()
        try:
            return spec.run(problem, *arrays)
        finally:
            self._calls.append((table, spec.name, begin, self._mark()))
            self._is_inside = False

    def shares(self) -> Shares:
        """To be asked when all of the step is done, on a GPU too."""
        assert self._whole is not None
        seconds: dict[KernelTable, float] = {}
        kernels: dict[KernelTable, Counter[str]] = {}
        for table, kernel, begin, end in self._calls:
            seconds[table] = seconds.get(table, 0.0) + self._between(begin, end)
            kernels.setdefault(table, Counter())[kernel] += 1
        ops = [
            OpShare(
                *(table.op, table.direction, sum(ran.values()), seconds[table]),
                tuple([name for name, _ in ran.most_common()]),
            )
            for table, ran in kernels.items()
        ]
        return Shares(self._between(*self._whole), tuple(sorted(ops, key=lambda op: -op.seconds)))


def _difference(begin: float, end: float) -> float:
    return end - begin


def _event() -> Any:
    event = backend.cupy().cuda.Event()
    event.record()
    return event


def _between_events(begin: Any, end: Any) -> float:
    return 1e-3 * float(backend.cupy().cuda.get_elapsed_time(begin, end))
