"""What a training run is given."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from gpucnn.precision import AUTOCAST_DTYPES

AMP = (*AUTOCAST_DTYPES, "tf32")
"""What convolutions and linear layers may multiply in, other than in float32."""

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("one-cycle", "cosine", "step", "constant")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run's result, apart from the data themselves.

    Raises ValueError, naming the option, for values out of range.
    """

    model: str = "lenet5"
    data: str = "mnist"
    epochs: int = 15
    batch_size: int = 64
    optimizer: str = "sgd"
    lr: float = 0.05
    """The highest learning rate of the schedule."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    warmup_epochs: float = 0.0
    """Epochs in which the rate rises from a hundredth in a straight line; one-cycle warms up by itself."""
    label_smoothing: float = 0.0
    shift: int = 0
    """Random shifts in training, in pixels each way."""
    flip: bool = False
    """Random mirroring left to right in training."""
    seed: int = 0
    amp: str | None = None
    """What convolutions and linear layers multiply in: "bfloat16", or "float16" with a scaled loss; "tf32": in float32
    at precision "high"; None: in float32."""

    def __post_init__(self) -> None:
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.amp is not None and self.amp not in AMP:
            raise ValueError(f"amp must be one of {', '.join(AMP)}, got {self.amp!r}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "weight_decay", "warmup_epochs", "shift", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Raises ValueError for keys that no option has or that are missing."""
        values = {"amp": None, **values}  # which runs from before there was a choice do not say
        names = {field.name for field in fields(cls)}
        if names != set(values):
            raise ValueError(f"not a configuration of this version: {', '.join(sorted(names ^ set(values)))} differ")
        return cls(**values)
