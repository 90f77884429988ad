"""The training loop: a pure function of configuration and data, wherever it is interrupted and resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpucnn import flags, optim, random
from gpucnn import functional as F
from gpucnn.backend import namespace
from gpucnn.data import Compose, DataLoader, Dataset, Normalize, RandomHorizontalFlip, RandomShift, Transform
from gpucnn.nn import Module
from gpucnn.tensor import Tensor
from gpucnn.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from gpucnn.train.config import TrainConfig
from gpucnn.train.evaluate import evaluate, mixed
from gpucnn.train.run import Run

EVALUATION_BATCH = 250
READ_EVERY = 20  # steps between two looks at a GPU's losses: each look waits for the GPU


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or NaN; the checkpoints are of before."""


class InterruptedRunError(RuntimeError):
    """The run was asked to stop; a checkpoint of where it stood is written."""


class Progress(Protocol):
    """Told what happens, to show it."""

    def start(self, epochs: int, images: int, done: int) -> None:
        """`images` to be seen in all, `done` of them by the run that is resumed."""

    def batch(self, images: int, loss: float, accuracy: float) -> None:
        """Running means of the epoch."""

    def epoch(self, row: dict[str, Any]) -> None: ...

    def stop(self) -> None: ...


@dataclass
class _Sums:
    """What an epoch's metrics are made of; part of a checkpoint."""

    loss: float = 0.0
    correct: int = 0
    images: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Unread:
    """A step's results, still on the device."""

    step: int
    loss: Tensor
    right: Tensor
    images: int


@dataclass
class _Position:
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_accuracy: float = -1.0
    sums: _Sums = field(default_factory=_Sums)


def build_optimizer(config: TrainConfig, model: Module) -> optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return optim.SGD(parameters, config.lr, config.momentum, weight_decay=config.weight_decay, nesterov=nesterov)
    kind = optim.Adam if config.optimizer == "adam" else optim.AdamW
    return kind(parameters, config.lr, weight_decay=config.weight_decay)


def build_schedule(
    config: TrainConfig, optimizer: optim.Optimizer, steps_an_epoch: int
) -> optim.lr_scheduler.LRScheduler:
    """Stepped once a batch."""
    schedules = optim.lr_scheduler
    steps = max(1, config.epochs * steps_an_epoch)
    warmup = round(config.warmup_epochs * steps_an_epoch)
    if config.schedule == "one-cycle":
        return schedules.OneCycleLR(optimizer, config.lr, steps, cycle_momentum=False)
    rest = max(1, steps - warmup)
    main: dict[str, Callable[[], schedules.LRScheduler]] = {
        "cosine": lambda: schedules.CosineAnnealingLR(optimizer, rest),
        "step": lambda: schedules.StepLR(optimizer, max(1, -(-rest // 3))),
        "constant": lambda: schedules.LambdaLR(optimizer, lambda step: 1.0),
    }
    if not warmup:
        return main[config.schedule]()
    rising = schedules.LinearLR(optimizer, 0.01, 1.0, warmup)
    return schedules.SequentialLR(optimizer, [rising, main[config.schedule]()], [warmup])


AUXILIARY_WEIGHT = 0.3
"""Of each auxiliary classifier's loss: Szegedy et al., "Going deeper with convolutions" (2015), section 5."""


def training_loss(outputs: Any, labels: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """(logits, loss) of what a model in training answers: logits (N, classes), or a tuple of these, the main one first.

    Of a tuple the others are those of auxiliary classifiers, whose losses count AUXILIARY_WEIGHT each.
    """
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    for others in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * F.cross_entropy(others, labels, label_smoothing=label_smoothing)
    return logits, loss


class Trainer:
    """Trains a model on a data set and keeps the books in a run folder.

    Args:
        config: the options.
        run: where metrics and checkpoints go.
        model: already on `device`; its initial weights are the caller's.
        train, test: data sets.
        normalize: applied to every image, after random shifts and flips in training.
        device: 'cpu' or 'cuda[:i]'.
        progress: shown what happens.
        should_stop: asked after each batch; True ends the run with a checkpoint and InterruptedRunError.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: Run,
        model: Module,
        train: Dataset,
        test: Dataset,
        normalize: Normalize,
        device: str = "cpu",
        progress: Progress | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.run, self.model, self.device = config, run, model, device
        self.progress, self.should_stop = progress, should_stop
        transforms: list[Transform] = [normalize]
        if config.flip:
            transforms.insert(0, RandomHorizontalFlip())
        if config.shift:
            transforms.insert(0, RandomShift(config.shift))
        transform = Compose(transforms)
        self.train_loader = DataLoader(train, config.batch_size, shuffle=True, seed=config.seed, transform=transform)
        self.test_loader = DataLoader(test, EVALUATION_BATCH, transform=normalize)
        if not len(self.train_loader):
            raise ValueError("the training set has no images")
        self.optimizer = build_optimizer(config, model)
        self.schedule = build_schedule(config, self.optimizer, len(self.train_loader))
        self.scaler = optim.GradScaler(enabled=config.amp == "float16")
        self.at = _Position()

    # -- where the training stands

    def save(self, which: str = "last") -> None:
        """Writes a checkpoint; NonFiniteLossError, and nothing written, if a weight is infinite or NaN."""
        at = self.at
        for name, parameter in self.model.named_parameters():
            if not bool(namespace(parameter.data).isfinite(parameter.data).all()):
                raise self._diverged(f"{name} is no longer finite after step {at.step}")
        progress = {
            **{"epoch": at.epoch, "batch": at.batch, "step": at.step, "best_accuracy": at.best_accuracy},
            **{"sums": vars(at.sums), "schedule": self.schedule.state_dict(), "random": random.state()},
            **{"scaler": self.scaler.state_dict()},
        }
        checkpoint = Checkpoint(dict(self.model.state_dict()), self.optimizer.state_dict(), progress)
        previous = self.run.checkpoint("previous") if which == "last" else None
        save_checkpoint(self.run.checkpoint(which), checkpoint, previous)

    def resume(self, which: str = "last") -> None:
        """Goes back to a checkpoint of the run; metrics of epochs after it are dropped.

        Raises FileNotFoundError, CheckpointError, or ValueError if it is of another model.
        """
        checkpoint = load_checkpoint(self.run.checkpoint(which))
        progress = checkpoint.progress
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.schedule.load_state_dict(progress["schedule"])
        self.scaler.load_state_dict(progress.get("scaler", {}))
        random.set_state(progress["random"])
        position = {name: progress[name] for name in ("epoch", "batch", "step", "best_accuracy")}
        self.at = _Position(**position, sums=_Sums(**progress["sums"]))
        self.run.rewrite_metrics(row for row in self.run.read_metrics() if row["epoch"] <= self.at.epoch)

    # -- the loop

    def fit(self) -> None:
        """Trains to the last epoch.

        Raises:
            NonFiniteLossError: with the step; nothing of that step is kept.
            flags.BadInputError: a label outside the classes that a compiled kernel met, with the step.
            InterruptedRunError: `should_stop` said so.
        """
        images = len(self.train_loader.dataset)
        if self.progress:
            done = self.at.epoch * images + self.at.sums.images
            self.progress.start(self.config.epochs, self.config.epochs * images, done)
        flags.reset(self.at.step)
        try:
            if self.at.step == 0:
                self.save()  # a run killed in its first epoch resumes from its initial weights
            while self.at.epoch < self.config.epochs:
                self._epoch()
        finally:
            flags.reset()  # what was raised has been told
            if self.progress:
                self.progress.stop()

    def _epoch(self) -> None:
        at = self.at
        self.model.train()
        self.train_loader.set_epoch(at.epoch, at.batch)
        unread: list[_Unread] = []
        every = 1 if self.device == "cpu" else READ_EVERY
        start, before = time.perf_counter(), at.sums.seconds
        batches = iter(self.train_loader)
        try:
            for images, labels in batches:
                images, labels = images.to(self.device), labels.to(self.device)
                with mixed(self.config.amp):
                    logits, loss = training_loss(self.model(images), labels, self.config.label_smoothing)
                unread.append(_Unread(at.step + 1, loss.detach(), logits.argmax(1) == labels, len(labels)))
                if len(unread) == every:
                    self._read(unread)
                self.optimizer.zero_grad()
                self.scaler.scale(loss).backward()
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.schedule.step()
                at.batch += 1
                at.step += 1
                at.sums.seconds = before + time.perf_counter() - start
                if self.should_stop() and at.batch < len(self.train_loader):
                    self._read(unread)
                    self.save()
                    raise InterruptedRunError(f"stopped in epoch {at.epoch + 1} after step {at.step}")
            self._read(unread)
        finally:
            batches.close()
        self._finish_epoch()
        if self.should_stop() and at.epoch < self.config.epochs:
            raise InterruptedRunError(f"stopped after epoch {at.epoch}, step {at.step}")

    def _read(self, unread: list[_Unread]) -> None:
        """Takes losses off the device, adds them to the books, and stops at one that is not finite."""
        sums = self.at.sums
        for result in unread:
            try:
                value = result.loss.item()
            except flags.NonFiniteLossError as error:
                raise self._diverged(f"the loss is infinite or NaN at step {error.step}") from error
            if not math.isfinite(value):
                raise self._diverged(f"the loss is {value} at step {result.step}")
            sums.loss += value * result.images
            sums.correct += int(result.right.data.sum())
            sums.images += result.images
        if unread and self.progress:
            images = sum(result.images for result in unread)
            self.progress.batch(images, sums.loss / sums.images, sums.correct / sums.images)
        unread.clear()

    def _diverged(self, what: str) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"{what} (epoch {self.at.epoch + 1}); the last good checkpoint is kept. "
            "A lower learning rate (--lr) is the usual remedy"
        )

    def _finish_epoch(self) -> None:
        at, sums = self.at, self.at.sums
        result = evaluate(self.model, self.test_loader, self.device, self.config.amp)
        row = {
            **{"epoch": at.epoch + 1, "step": at.step},
            **{"train_loss": sums.loss / sums.images, "train_accuracy": sums.correct / sums.images},
            **{"test_loss": result.loss, "test_accuracy": result.accuracy},
            **{"learning_rate": self.schedule.get_last_lr()[0]},
            **{"images_per_second": sums.images / max(sums.seconds, 1e-9), "seconds": sums.seconds},
        }
        best = result.accuracy > at.best_accuracy
        at.best_accuracy = max(at.best_accuracy, result.accuracy)
        at.epoch, at.batch, at.sums = at.epoch + 1, 0, _Sums()
        self.run.append_metrics(row)
        if best:
            self.save("best")
        self.save()
        if self.progress:
            self.progress.epoch(row)
