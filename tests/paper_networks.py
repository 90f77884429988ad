"""The networks that torchvision does not have, small enough for a test."""

from __future__ import annotations

from typing import Any

import numpy as np
from op_checks import SEED

import gpucnn
from gpucnn import models, nn

NARROW = {"width": 0.125, "num_classes": 5}
# Options that make the network small, the shape of its input, and of its output.
SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "lenet1": ({}, (3, 1, 28, 28), (3, 10)),
    "lenet4": ({"in_channels": 3}, (3, 3, 28, 28), (3, 10)),
    "lenet5_1998": ({"num_classes": 7, "image_size": 32}, (3, 1, 32, 32), (3, 7)),
    "alexnet_grouped": (NARROW, (2, 3, 95, 79), (2, 5)),
    "nin": (NARROW, (2, 3, 21, 16), (2, 5)),
    **{
        f"{kind}{depth}": (NARROW | {"width": 0.25}, (2, 3, 9, 12), (2, 5))
        for kind in ("resnet", "plain")
        for depth in (20, 32, 44, 56, 110)
    },
    "wrn_16_8": (NARROW | {"dropout": 0.3}, (2, 3, 9, 12), (2, 5)),
    "wrn_28_10": (NARROW, (2, 3, 9, 12), (2, 5)),
    "mobilenet_v1": ({"width_mult": 0.25, "num_classes": 5, "in_channels": 1}, (2, 1, 40, 33), (2, 5)),
    "fcn32s": (NARROW | {"width": 1 / 32}, (1, 3, 37, 20), (1, 5, 37, 20)),
    "fcn16s": (NARROW | {"width": 1 / 32}, (1, 3, 37, 20), (1, 5, 37, 20)),
    "fcn8s": (NARROW | {"width": 1 / 32}, (1, 3, 37, 20), (1, 5, 37, 20)),
    "unet": (NARROW, (1, 1, 188, 204), (1, 5, 4, 20)),
    "deconvnet": (NARROW | {"width": 1 / 16, "window": 2}, (2, 3, 64, 64), (2, 5, 64, 64)),
}


def small(name: str) -> tuple[nn.Module, gpucnn.Tensor]:
    gpucnn.manual_seed(SEED)
    options, shape, _ = SMALL[name]
    x = np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)
    return models.build(name, **options), gpucnn.tensor(x)
