"""How well a model does on a data set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn import functional as F
from gpucnn.autograd import no_grad
from gpucnn.nn import Module
from gpucnn.precision import autocast, float32_precision, set_float32_precision
from gpucnn.tensor import Tensor


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, and for each image its label, the predicted class and that class's probability."""

    loss: float
    labels: np.ndarray[Any, Any]
    predicted: np.ndarray[Any, Any]
    confidence: np.ndarray[Any, Any]

    @property
    def accuracy(self) -> float:
        return float((self.labels == self.predicted).mean())

    @property
    def error(self) -> float:
        """Share of wrong predictions."""
        return 1.0 - self.accuracy

    def confusion(self, classes: int) -> np.ndarray[Any, Any]:
        """(classes, classes) counts, rows the labels, columns the predictions."""
        matrix = np.zeros((classes, classes), np.int64)
        np.add.at(matrix, (self.labels, self.predicted), 1)
        return matrix


@contextlib.contextmanager
def mixed(amp: str | None) -> Iterator[None]:
    """The block that a configuration's `amp` asks for: `autocast(amp)`; for "tf32" one in which float32 is multiplied
    at precision "high"; for None one that changes nothing."""
    before = float32_precision()
    if amp == "tf32":
        set_float32_precision("high")
    try:
        with autocast(enabled=False) if amp in (None, "tf32") else autocast(amp):
            yield
    finally:
        set_float32_precision(before)


def evaluate(
    model: Module, batches: Iterable[tuple[Tensor, Tensor]], device: str = "cpu", amp: str | None = None
) -> Evaluation:
    """Runs the model in evaluation mode over batches of images (N,C,H,W) and labels (N,).

    Args:
        amp: "bfloat16" or "float16" to multiply in, as `gpucnn.autocast`, or "tf32"; None for the dtype that the model
            has.

    Raises ValueError for no images.
    """
    was_training = model.training
    model.eval()
    losses, labels, predicted, confidence = [], [], [], []
    try:
        with no_grad(), mixed(amp):
            for images, targets in batches:
                logits = model(images.to(device))
                losses.append(F.cross_entropy(logits, targets.to(device), reduction="sum").item())
                probabilities = F.softmax(logits, 1).numpy()
                best = probabilities.argmax(axis=1)
                labels.append(targets.numpy())
                predicted.append(best)
                confidence.append(probabilities[np.arange(len(best)), best])
    finally:
        model.train(was_training)
    if not labels:
        raise ValueError("evaluate needs at least one image")
    count = sum(map(len, labels))
    return Evaluation(sum(losses) / count, *(np.concatenate(parts) for parts in (labels, predicted, confidence)))
