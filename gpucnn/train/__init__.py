"""Training runs: configuration, the loop, checkpoints, evaluation and the folder that a run leaves behind."""

from __future__ import annotations

from gpucnn.train.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from gpucnn.train.config import TrainConfig
from gpucnn.train.evaluate import Evaluation, evaluate
from gpucnn.train.recipes import recipe
from gpucnn.train.run import Run
from gpucnn.train.trainer import InterruptedRunError, NonFiniteLossError, Progress, Trainer

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Evaluation",
    "InterruptedRunError",
    "NonFiniteLossError",
    "Progress",
    "Run",
    "TrainConfig",
    "Trainer",
    "evaluate",
    "load_checkpoint",
    "recipe",
    "save_checkpoint",
]
