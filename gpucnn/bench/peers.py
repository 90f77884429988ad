"""PyTorch's networks that compute what gpucnn's do, with its names of parameters: torchvision's where it has the
network, and those of the papers that it lacks.

ResNets are here too, for machines with PyTorch and without torchvision.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

REMEDY = "pip install 'gpucnn[peers]'"

OF_TORCHVISION = (
    *("alexnet", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
    *("googlenet", "squeezenet1_0", "squeezenet1_1"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d"),
    *("densenet121", "densenet161", "densenet169", "densenet201", "mobilenet_v2"),
)
"""Networks of gpucnn.models that classify and that torchvision has."""

_CIFAR_BLOCKS = {"20": 3, "32": 5, "44": 7, "56": 9, "110": 18}


def missing(model: str) -> str:
    """Why there is no peer of a network on this machine; "" if there is one."""
    if importlib.util.find_spec("torch") is None:
        return f"torch is not installed: {REMEDY}"
    if model in _OWN:
        return ""
    if model not in OF_TORCHVISION:
        return f"neither torchvision nor gpucnn.bench.peers has a {model} in PyTorch"
    return (
        "" if importlib.util.find_spec("torchvision") else f"torchvision, which has {model}, is not installed: {REMEDY}"
    )


def build(model: str, classes: int, channels: int, image_size: int) -> Any:
    """A torch.nn.Module in evaluation mode, its weights as they come: to be given others.

    Args:
        model: a name for which `missing` has nothing to say.
        classes, channels: that it tells apart, of its images.
        image_size: of square images, for networks that must know.

    Raises:
        ValueError: torchvision's network takes other images than these.
    """
    import torch

    with torch.device("meta"):
        found = _built(model, classes, channels, image_size)
    return found.to_empty(device="cpu").eval()


def _built(model: str, classes: int, channels: int, image_size: int) -> Any:
    has_torchvision = importlib.util.find_spec("torchvision") is not None
    if model in OF_TORCHVISION and channels == 3 and has_torchvision:
        options: dict[str, Any] = {"init_weights": False, "aux_logits": True} if model == "googlenet" else {}
        return getattr(load_torchvision().models, model)(num_classes=classes, **options)
    if model not in _OWN:
        raise ValueError(f"torchvision's {model} takes images of 3 channels, these have {channels}")
    return _OWN[model](classes, channels, image_size)


def load_torchvision() -> Any:
    """torchvision, also beside a PyTorch that its compiled operators were not built for: the networks use none.

    Raises ModuleNotFoundError where it is not installed.
    """
    try:
        import torchvision
    except RuntimeError:  # "operator torchvision::nms does not exist"
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float t) -> Tensor")
        import torchvision
    return torchvision


def fold(peer: Any, pairs: Sequence[tuple[str, str, str]]) -> None:
    """Makes one convolution of each pair, in place, as gpucnn.nn.Module.fuse() does.

    Args:
        peer: in evaluation mode.
        pairs: (module, first, second) by name, the latter two within the first; those that are no convolution with a
            batch norm behind it are left alone.
    """
    import torch

    nn = torch.nn
    for path, first, second in pairs:
        inside = peer.get_submodule(path)._modules
        if isinstance(inside[first], nn.Conv2d) and isinstance(inside[second], nn.BatchNorm2d):
            inside[first] = nn.utils.fusion.fuse_conv_bn_eval(inside[first], inside[second])
            inside[second] = nn.Identity()


# ----------------------------------------------------------------------------------- networks that torchvision lacks


def _lenet5(classes: int, channels: int, image_size: int) -> Any:
    from torch import nn
    from torch.nn import functional as F

    class LeNet5(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, 6, 5, padding=(32 - image_size) // 2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, classes)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.conv1(x), inplace=True), 2)
            x = F.max_pool2d(F.relu(self.conv2(x), inplace=True), 2)
            x = F.relu(self.fc1(x.flatten(1)), inplace=True)
            return self.fc3(F.relu(self.fc2(x), inplace=True))

    return LeNet5()


def _cifar(blocks: int, shortcuts: bool) -> Callable[[int, int, int], Any]:
    """He et al. (2016), section 4.2, with shortcuts without parameters (option A), or with none."""

    def build(classes: int, channels: int, image_size: int) -> Any:
        from torch import nn
        from torch.nn import functional as F

        class Block(nn.Module):  # type: ignore[misc]
            def __init__(self, before: int, maps: int, stride: int) -> None:
                super().__init__()
                self.conv1 = nn.Conv2d(before, maps, 3, stride, 1, bias=False)
                self.bn1 = nn.BatchNorm2d(maps)
                self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
                self.bn2 = nn.BatchNorm2d(maps)
                self.stride, self.new = stride, (maps - before) // 2

            def forward(self, x: Any) -> Any:
                y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
                if shortcuts:
                    carried = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
                    y += F.pad(carried, (0, 0, 0, 0, self.new, self.new)) if self.new else carried
                return F.relu(y, inplace=True)

        class CifarResNet(nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.conv1, self.bn1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
                before = 16
                for number, maps in enumerate((16, 32, 64)):
                    firsts = [(before, maps, 2 if number else 1)] + [(maps, maps, 1)] * (blocks - 1)
                    self.add_module(f"layer{number + 1}", nn.Sequential(*[Block(*first) for first in firsts]))
                    before = maps
                self.fc = nn.Linear(64, classes)

            def forward(self, x: Any) -> Any:
                x = F.relu(self.bn1(self.conv1(x)), inplace=True)
                x = self.layer3(self.layer2(self.layer1(x)))
                return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

        return CifarResNet()

    return build


def _resnet(depths: Sequence[int], bottlenecks: bool, groups: int = 1, group_width: int = 64) -> Callable[..., Any]:
    """torchvision's, stride in the 3x3 convolution of a bottleneck."""

    def build(classes: int, channels: int, image_size: int) -> Any:
        from torch import nn

        class Block(nn.Module):  # type: ignore[misc]
            def __init__(self, before: int, planes: int, stride: int) -> None:
                super().__init__()
                inner = planes * group_width // 64 * groups if bottlenecks else planes
                after = planes * (4 if bottlenecks else 1)
                layers = [(before, planes, 3, stride, 1), (planes, planes, 3, 1, 1)]
                if bottlenecks:
                    layers = [(before, inner, 1, 1, 1), (inner, inner, 3, stride, groups), (inner, after, 1, 1, 1)]
                for number, (start, maps, window, step, parts) in enumerate(layers, 1):
                    convolution = nn.Conv2d(start, maps, window, step, window // 2, groups=parts, bias=False)
                    self.add_module(f"conv{number}", convolution)
                    self.add_module(f"bn{number}", nn.BatchNorm2d(maps))
                self.relu = nn.ReLU(inplace=True)
                self.downsample = None
                if stride != 1 or before != after:
                    projection = nn.Conv2d(before, after, 1, stride, bias=False)
                    self.downsample = nn.Sequential(projection, nn.BatchNorm2d(after))

            def forward(self, x: Any) -> Any:
                y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
                if bottlenecks:
                    y = self.bn3(self.conv3(self.relu(y)))
                y += x if self.downsample is None else self.downsample(x)
                return self.relu(y)

        class ResNet(nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.conv1, self.bn1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
                self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
                before = 64
                for number, depth in enumerate(depths):
                    planes, stage = 64 * 2**number, nn.Sequential()
                    for index in range(depth):
                        stage.append(Block(before, planes, 2 if number and not index else 1))
                        before = planes * (4 if bottlenecks else 1)
                    self.add_module(f"layer{number + 1}", stage)
                self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(before, classes)

            def forward(self, x: Any) -> Any:
                x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
                x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
                return self.fc(self.avgpool(x).flatten(1))

        return ResNet()

    return build


def _mobilenet_v1(classes: int, channels: int, image_size: int) -> Any:
    from torch import nn
    from torch.nn import functional as F

    blocks = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))

    def layer(before: int, maps: int, window: int, stride: int = 1, groups: int = 1) -> Any:
        convolution = nn.Conv2d(before, maps, window, stride, window // 2, groups=groups, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(maps), nn.ReLU(inplace=True))

    class MobileNetV1(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            layers, before = [layer(channels, 32, 3, 2)], 32
            for maps, stride in blocks:
                both = nn.Sequential()
                both.add_module("depthwise", layer(before, before, 3, stride, before))
                both.add_module("pointwise", layer(before, maps, 1))
                layers.append(both)
                before = maps
            self.features = nn.Sequential(*layers)
            self.dropout, self.fc = nn.Dropout(0.001), nn.Linear(before, classes)

        def forward(self, x: Any) -> Any:
            return self.fc(self.dropout(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)))

    return MobileNetV1()


_OWN: dict[str, Callable[[int, int, int], Any]] = {
    "lenet5": _lenet5,
    **{f"resnet{depth}": _cifar(blocks, True) for depth, blocks in _CIFAR_BLOCKS.items()},
    **{f"plain{depth}": _cifar(blocks, False) for depth, blocks in _CIFAR_BLOCKS.items()},
    "resnet18": _resnet((2, 2, 2, 2), False),
    "resnet34": _resnet((3, 4, 6, 3), False),
    "resnet50": _resnet((3, 4, 6, 3), True),
    "resnet101": _resnet((3, 4, 23, 3), True),
    "resnet152": _resnet((3, 8, 36, 3), True),
    "wide_resnet50_2": _resnet((3, 4, 6, 3), True, 1, 128),
    "resnext50_32x4d": _resnet((3, 4, 6, 3), True, 32, 4),
    "mobilenet_v1": _mobilenet_v1,
}
