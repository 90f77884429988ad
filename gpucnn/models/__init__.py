"""Networks by name: `gpucnn.models.resnet18(num_classes=10)` or `build("resnet18", num_classes=10)`.

Every network takes `num_classes` and `in_channels`, and a knob that makes it narrower or wider (`width`, `width_mult`,
`growth_rate`). Those that torchvision has are its own in function name, `state_dict()` and initial weights, so that
weights published for them load as they are.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from gpucnn.models.alexnet import AlexNet, alexnet
from gpucnn.models.densenet import DenseNet, densenet121, densenet161, densenet169, densenet201
from gpucnn.models.fcn import FCN, fcn_resnet50
from gpucnn.models.googlenet import GoogLeNet, GoogLeNetOutputs, googlenet
from gpucnn.models.lenet import LeNet5, lenet5
from gpucnn.models.mobilenet_v2 import MobileNetV2, mobilenet_v2
from gpucnn.models.resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    wide_resnet50_2,
)
from gpucnn.models.squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from gpucnn.models.vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from gpucnn.nn import Module

__all__ = [
    "FCN",
    "MODELS",
    "VGG",
    "AlexNet",
    "DenseNet",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "LeNet5",
    "MobileNetV2",
    "ResNet",
    "SqueezeNet",
    "alexnet",
    "build",
    "build_for",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "fcn_resnet50",
    "googlenet",
    "lenet5",
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "squeezenet1_0",
    "squeezenet1_1",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "wide_resnet50_2",
]

Network = Callable[..., Module]

# One that must know the size of its images has `image_size` in its signature.
_CLASSIFIERS: tuple[Network, ...] = (
    lenet5,
    alexnet,
    vgg11,
    vgg11_bn,
    vgg13,
    vgg13_bn,
    vgg16,
    vgg16_bn,
    vgg19,
    vgg19_bn,
    googlenet,
    squeezenet1_0,
    squeezenet1_1,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    wide_resnet50_2,
    resnext50_32x4d,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
    mobilenet_v2,
)
_SEGMENTERS: tuple[Network, ...] = (fcn_resnet50,)

MODELS: dict[str, Network] = {network.__name__: network for network in (*_CLASSIFIERS, *_SEGMENTERS)}


def build(name: str, **options: Any) -> Module:
    """The network of that name; ValueError with the names there are, and the nearest, for any other."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown model {name!r}, there are: {', '.join(sorted(MODELS))}{hint}")
    return MODELS[name](**options)


def build_for(name: str, classes: int, image_shape: tuple[int, int, int]) -> Module:
    """The network of that name that tells so many classes of images (C,H,W) apart.

    Raises:
        ValueError: no such network, it can't take such images, or it labels pixels instead of images.
    """
    channels, height, width = image_shape
    options = {"num_classes": classes, "in_channels": channels}
    if name in MODELS:
        if MODELS[name] in _SEGMENTERS:
            raise ValueError(f"model {name!r} labels every pixel of an image, these data have one label an image")
        if "image_size" in inspect.signature(MODELS[name]).parameters:
            if height != width:
                raise ValueError(f"model {name!r} takes square images, these are {height} x {width}")
            options["image_size"] = height
    return build(name, **options)
