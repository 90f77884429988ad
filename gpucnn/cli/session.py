"""What train, eval and predict share: a run's data, model and pictures of it, as its config.json says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpucnn import __version__, models
from gpucnn.data import ArrayDataset, Dataset, Normalize, load_dataset
from gpucnn.data.dataset import gather
from gpucnn.nn import Module
from gpucnn.train import Run, TrainConfig, load_checkpoint


@dataclass(frozen=True)
class DataFacts:
    """What a network must know of the data it was trained on."""

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]  # C, H, W
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int
    source: str = field(compare=False)
    """Where the data were found, in words: the same data may be found elsewhere another time."""

    @classmethod
    def of(cls, train: Dataset) -> DataFacts:
        """Measured on the training set: its shape, and mean and standard deviation of each channel."""
        first = gather(train, np.array([0]))[0]
        _, height, width, channels = first.shape
        mean, std = (0.5,) * channels, (0.5,) * channels
        if isinstance(train, ArrayDataset) and train.images.dtype == np.uint8:
            mean, std = _moments(train.images)
        return cls(tuple(train.classes), (channels, height, width), mean, std, len(train), train.source)

    def normalize(self) -> Normalize:
        return Normalize(self.mean, self.std)


def _moments(images: np.ndarray[Any, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over [0, 1], from exact counts of the byte values."""
    values = np.arange(256) / 255.0
    means, deviations = [], []
    for channel in range(images.shape[3]):
        counts = np.bincount(images[..., channel].reshape(-1), minlength=256) / images[..., channel].size
        mean = float(counts @ values)
        means.append(round(mean, 6))
        deviations.append(max(round(float(np.sqrt(counts @ (values - mean) ** 2)), 6), 1e-3))
    return tuple(means), tuple(deviations)


def load_data(
    name: str, data_dir: str | None, download: bool, size: int | None, mode: str, announce: Callable[[str], None]
) -> tuple[Dataset, Dataset]:
    options: dict[str, Any] = {} if size is None else {"size": (size, size)}
    return load_dataset(name, data_dir, mode=mode, download=download, announce=announce, **options)


def describe(config: TrainConfig, facts: DataFacts, data_options: dict[str, Any]) -> dict[str, Any]:
    """What config.json holds."""
    return {
        "gpucnn": __version__,
        "options": config.to_dict(),
        "data": {**data_options, **vars(facts)},
    }


def restore(run: Run) -> tuple[TrainConfig, DataFacts, dict[str, Any]]:
    """The configuration, the facts and the data options of a run; ValueError if its config.json is not one of ours."""
    values = run.read_config()
    try:
        data = dict(values["data"])
        options = {name: data.pop(name) for name in ("data_dir", "size", "mode")}
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        facts = DataFacts(**fields)
        return TrainConfig.from_dict(values["options"]), facts, options
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run.config} is not a configuration of gpucnn: {error!r}") from error


def trained_model(run: Run, config: TrainConfig, facts: DataFacts, checkpoint: str, device: str) -> Module:
    """The run's network with a checkpoint's weights, fused for evaluation, on `device`."""
    model = models.build_for(config.model, len(facts.classes), facts.image_shape)
    model.load_state_dict(load_checkpoint(run.checkpoint(checkpoint)).model)
    return model.to(device=device).eval().fuse()
