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

from gpucnn.autograd import no_grad
from gpucnn.backend import use_backend
from gpucnn.creation import zeros
from gpucnn.models.alexnet import AlexNet, alexnet
from gpucnn.models.alexnet_grouped import AlexNetGrouped, alexnet_grouped
from gpucnn.models.deconvnet import DeconvNet, deconvnet
from gpucnn.models.densenet import DenseNet, densenet121, densenet161, densenet169, densenet201
from gpucnn.models.fcn import FCN, fcn_resnet50
from gpucnn.models.fcn_vgg import FCNVGG16, fcn8s, fcn16s, fcn32s
from gpucnn.models.googlenet import GoogLeNet, GoogLeNetOutputs, googlenet
from gpucnn.models.lenet import LeNet5, lenet5
from gpucnn.models.lenet_early import LeNet1, LeNet4, LeNet51998, lenet1, lenet4, lenet5_1998
from gpucnn.models.mobilenet_v1 import MobileNetV1, mobilenet_v1
from gpucnn.models.mobilenet_v2 import MobileNetV2, mobilenet_v2
from gpucnn.models.nin import NiN, nin
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
from gpucnn.models.resnet_cifar import (
    CifarResNet,
    plain20,
    plain32,
    plain44,
    plain56,
    plain110,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
)
from gpucnn.models.squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from gpucnn.models.unet import UNet, unet
from gpucnn.models.vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from gpucnn.models.wide_resnet import WideResNet, wrn_16_8, wrn_28_10
from gpucnn.nn import Module

__all__ = [
    "FCN",
    "FCNVGG16",
    "MODELS",
    "VGG",
    "AlexNet",
    "AlexNetGrouped",
    "CifarResNet",
    "DeconvNet",
    "DenseNet",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "LeNet1",
    "LeNet4",
    "LeNet5",
    "LeNet51998",
    "MobileNetV1",
    "MobileNetV2",
    "NiN",
    "ResNet",
    "SqueezeNet",
    "UNet",
    "WideResNet",
    "alexnet",
    "alexnet_grouped",
    "build",
    "build_for",
    "deconvnet",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "fcn8s",
    "fcn16s",
    "fcn32s",
    "fcn_resnet50",
    "googlenet",
    "lenet1",
    "lenet4",
    "lenet5",
    "lenet5_1998",
    "mobilenet_v1",
    "mobilenet_v2",
    "nin",
    "plain20",
    "plain32",
    "plain44",
    "plain56",
    "plain110",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
    "resnext50_32x4d",
    "squeezenet1_0",
    "squeezenet1_1",
    "unet",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "wide_resnet50_2",
    "wrn_16_8",
    "wrn_28_10",
]

Network = Callable[..., Module]

# One that must know the size of its images has `image_size` in its signature.
_CLASSIFIERS: tuple[Network, ...] = (
    lenet1,
    lenet4,
    lenet5,
    lenet5_1998,
    alexnet,
    alexnet_grouped,
    vgg11,
    vgg11_bn,
    vgg13,
    vgg13_bn,
    vgg16,
    vgg16_bn,
    vgg19,
    vgg19_bn,
    nin,
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
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
    plain20,
    plain32,
    plain44,
    plain56,
    plain110,
    wrn_16_8,
    wrn_28_10,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
    mobilenet_v1,
    mobilenet_v2,
)
_SEGMENTERS: tuple[Network, ...] = (fcn32s, fcn16s, fcn8s, fcn_resnet50, unet, deconvnet)

MODELS: dict[str, Network] = {network.__name__: network for network in (*_CLASSIFIERS, *_SEGMENTERS)}


def build(name: str, **options: Any) -> Module:
    """The network of that name; ValueError with the names there are, and the nearest, for any other."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown model {name!r}, there are: {', '.join(sorted(MODELS))}{hint}")
    return MODELS[name](**options)


def build_for(name: str, classes: int, image_shape: tuple[int, int, int]) -> Module:
    """The network of that name that tells so many classes of images (C,H,W) apart, tried on one.

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
    model = build(name, **options).eval()
    try:
        with no_grad(), use_backend("reference"):
            model(zeros(1, *image_shape))
    except ValueError as error:
        raise ValueError(f"model {name!r} can't take images of {height} x {width}: {error}") from None
    return model.train()
