"""Default options: what trains a model well on a data set, each with where it was measured.

An option that the user gives replaces the recipe's.
"""

from __future__ import annotations

from typing import Any

MODEL_OPTIONS: dict[str, dict[str, Any]] = {
    "lenet5": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64, "epochs": 15},
}

SMALL = 10_000
SMALL_EPOCHS = {"lenet5": 40}
"""Epochs where the training set has fewer than SMALL images: as many looks at few images cost as little time."""

DATA_OPTIONS: dict[str, dict[str, Any]] = {
    "mnist": {"shift": 2},
    "mnist-sample": {"shift": 2},
    "cifar10": {"shift": 4, "flip": True},
}


def recipe(model: str, data: str, images: int) -> dict[str, Any]:
    """The options of TrainConfig, by name, for a model on a data set with so many training images."""
    options = {"model": model, "data": data, **MODEL_OPTIONS.get(model, {}), **DATA_OPTIONS.get(data, {})}
    if images < SMALL and model in SMALL_EPOCHS:
        options["epochs"] = SMALL_EPOCHS[model]
    return options
