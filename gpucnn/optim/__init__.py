"""Optimisers, learning-rate schedules, scaling of losses; names and defaults are PyTorch's."""

from __future__ import annotations

from gpucnn.optim import lr_scheduler
from gpucnn.optim.adam import Adam, AdamW
from gpucnn.optim.optimizer import Optimizer
from gpucnn.optim.scaler import GradScaler
from gpucnn.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "GradScaler", "Optimizer", "lr_scheduler"]
