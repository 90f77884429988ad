"""The networks of networks_cpu.py in PyTorch, as torchvision and the papers have them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def conv_bn(channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1, *after: nn.Module) -> Any:
    conv = nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(filters), *after)


class Residual(nn.Module):
    """Of a body and a shortcut that may be None; activated or not."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None, activated: bool = True) -> None:
        super().__init__()
        self.body, self.shortcut, self.activated = body, shortcut, activated

    def forward(self, x: Any) -> Any:
        y = self.body(x)
        y += x if self.shortcut is None else self.shortcut(x)
        return F.relu(y, inplace=True) if self.activated else y


def resnet50() -> nn.Module:
    layers, channels = [conv_bn(3, 64, 7, 2, 1, nn.ReLU(True)), nn.MaxPool2d(3, 2, 1)], 64
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(blocks):
            stride = first if index == 0 else 1
            body = nn.Sequential(
                conv_bn(channels, width, 1, 1, 1, nn.ReLU(True)),
                conv_bn(width, width, 3, stride, 1, nn.ReLU(True)),
                conv_bn(width, 4 * width, 1),
            )
            layers.append(Residual(body, conv_bn(channels, 4 * width, 1, stride) if index == 0 else None))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def mobilenet_v2() -> nn.Module:
    layers, channels = [conv_bn(3, 32, 3, 2, 1, nn.ReLU6(True))], 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, filters, blocks, first in stages:
        for index in range(blocks):
            hidden, stride = channels * expansion, first if index == 0 else 1
            body = nn.Sequential(
                *([conv_bn(channels, hidden, 1, 1, 1, nn.ReLU6(True))] if expansion > 1 else []),
                conv_bn(hidden, hidden, 3, stride, hidden, nn.ReLU6(True)),
                conv_bn(hidden, filters, 1),
            )
            same = stride == 1 and channels == filters
            layers.append(Residual(body, None, activated=False) if same else body)
            channels = filters
    head = [conv_bn(channels, 1280, 1, 1, 1, nn.ReLU6(True)), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head, nn.Dropout(0.2), nn.Linear(1280, 1000))


class EveryOther(nn.Module):
    """The CIFAR networks' shortcut: every other pixel, and maps of zeros on both sides."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, x: Any) -> Any:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.maps, self.maps))


def resnet20() -> nn.Module:
    layers, channels = [conv_bn(3, 16, 3, 1, 1, nn.ReLU(True))], 16
    for width in (16, 32, 64):
        for _ in range(3):
            stride = 1 if width == channels else 2
            body = nn.Sequential(conv_bn(channels, width, 3, stride, 1, nn.ReLU(True)), conv_bn(width, width, 3))
            layers.append(Residual(body, EveryOther(width // 4) if stride == 2 else None))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


NETWORKS = {"resnet50": resnet50, "mobilenet_v2": mobilenet_v2, "resnet20": resnet20}


def build(name: str, channels_last: bool) -> Any:
    torch.manual_seed(0)
    return NETWORKS[name]().to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
