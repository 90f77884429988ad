"""Optimisers and learning-rate schedules; names and defaults are PyTorch's."""

from __future__ import annotations

from gpucnn.optim import lr_scheduler
from gpucnn.optim.adam import Adam, AdamW
from gpucnn.optim.optimizer import Optimizer
from gpucnn.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
