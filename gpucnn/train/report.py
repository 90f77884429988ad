"""The pictures and the report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpucnn import nn, vis
from gpucnn.data import Dataset
from gpucnn.data.dataset import gather
from gpucnn.train.evaluate import Evaluation
from gpucnn.train.run import Run

GALLERY = 36


def speed(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """(images a second, seconds) of training in all, from the rows of metrics.jsonl."""
    seconds = sum(row["seconds"] for row in rows)
    images = sum(row["images_per_second"] * row["seconds"] for row in rows)
    return images / max(seconds, 1e-9), seconds


def first_filters(model: nn.Module) -> np.ndarray[Any, Any] | None:
    """The weights (K,C,R,S) of the model's first convolution, None if it has none."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight.numpy()
    return None


def write_pictures(run: Run, model: nn.Module, test: Dataset, result: Evaluation) -> list[tuple[str, Path]]:
    """Draws the run's pictures; (caption, path) of each. Raises vis.MatplotlibMissingError without matplotlib."""
    classes = test.classes
    pictures = [
        ("Loss and error by epoch", vis.training_curve(run.read_metrics(), run.picture("training_curve"))),
        (
            "Confusion matrix of the test set",
            vis.confusion_matrix(result.confusion(len(classes)), classes, run.picture("confusion_matrix")),
        ),
    ]
    weights = first_filters(model)
    if weights is not None:
        pictures.append(("Filters of the first convolution", vis.filters(weights, run.picture("filters"))))
    wrong = np.flatnonzero(result.labels != result.predicted)
    wrong = wrong[np.argsort(-result.confidence[wrong], kind="stable")]
    images = gather(test, wrong[:GALLERY])[0] if len(wrong) else np.zeros((0, 1, 1, 1), np.uint8)
    shown = wrong[:GALLERY]
    pictures.append(
        (
            f"Misclassified test images, surest first ({len(shown)} of {len(wrong)})",
            vis.misclassified(
                images,
                result.labels[shown],
                result.predicted[shown],
                result.confidence[shown],
                classes,
                run.picture("misclassified"),
                most=GALLERY,
                errors=len(wrong),
            ),
        )
    )
    return pictures


def write_report(run: Run, title: str, model: nn.Module, result: Evaluation, pictures: list[tuple[str, Path]]) -> Path:
    """report.html from the run's files and its last evaluation."""
    rows = run.read_metrics()
    images_per_second, seconds = speed(rows)
    summary = [
        ("Test error", f"{result.error:.2%}"),
        ("Test images", f"{len(result.labels):,}"),
        ("Parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
        ("Training", f"{seconds:.0f} s"),
        ("Speed", f"{images_per_second:,.0f} images/s"),
    ]
    return vis.write_report(
        run.folder, title=title, summary=summary, rows=rows, pictures=pictures, config=run.read_config()
    )
