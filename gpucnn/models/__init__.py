"""Networks by name: `gpucnn.models.lenet5(num_classes=10)` or `build("lenet5", num_classes=10)`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from gpucnn.models.lenet import LeNet5, lenet5
from gpucnn.nn import Module

__all__ = ["MODELS", "LeNet5", "build", "build_for", "lenet5"]

MODELS: dict[str, Callable[..., Module]] = {"lenet5": lenet5}


def build(name: str, **options: Any) -> Module:
    """The network of that name; ValueError with the names there are, and the nearest, for any other."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown model {name!r}, there are: {', '.join(sorted(MODELS))}{hint}")
    return MODELS[name](**options)


def build_for(name: str, classes: int, image_shape: tuple[int, int, int]) -> Module:
    """The network of that name for images (C,H,W) in so many classes; ValueError if it can't take such images."""
    channels, height, width = image_shape
    options = {"num_classes": classes, "in_channels": channels}
    if name in MODELS and "image_size" in inspect.signature(MODELS[name]).parameters:
        if height != width:
            raise ValueError(f"model {name!r} takes square images, these are {height} x {width}")
        options["image_size"] = height
    return build(name, **options)
