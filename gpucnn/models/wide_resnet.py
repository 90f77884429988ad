"""Wide residual networks for CIFAR: Zagoruyko and Komodakis, "Wide residual networks" (2016), arXiv:1605.07146.

Blocks begin with their batch norm and ReLU ("pre-activation": He, Zhang, Ren and Sun, "Identity mappings in deep
residual networks", 2016, arXiv:1603.05027).
"""

from __future__ import annotations

from typing import Any

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.channels import scaled
from gpucnn.nn import init
from gpucnn.tensor import Tensor


class WideBlock(nn.Module):
    """BN, ReLU and 3x3 convolution, twice, with dropout in between; a 1x1 convolution as shortcut where maps change.

    (N, in_channels, H, W) -> (N, channels, H / stride, W / stride).
    """

    conv_norms = (("conv1", "bn2"),)

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != channels or stride != 1:
            self.shortcut = nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = nn.norm_relu(self.bn1, F.relu, x)
        carried = x if self.shortcut is None else self.shortcut(active)
        y = self.dropout(nn.conv_norm_relu(self.conv1, self.bn2, F.relu, active))
        return nn.conv_norm_relu(self.conv2, None, None, y, carried)


class WideResNet(nn.Module):
    """A 3x3 convolution, three stages with 16, 32 and 64 times `widen` maps, BN, ReLU, global average, linear layer.

    Input (N, in_channels, H, W), in the paper 32x32, of any size; output (N, num_classes) logits.

    Args:
        depth: 6 * blocks a stage + 4.
        widen: the paper's k.
        dropout: probability between a block's convolutions; where the paper has it, 0.3 for CIFAR and 0.4 for SVHN.
        width: factor on all numbers of channels.

    Raises:
        ValueError: a depth that no number of blocks has; `widen` below 1.
    """

    def __init__(
        self,
        depth: int,
        widen: int,
        num_classes: int = 10,
        dropout: float = 0.0,
        *,
        in_channels: int = 3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"a wide ResNet has 6 n + 4 layers (10, 16, 22, 28, ...), not {depth}")
        if widen < 1:
            raise ValueError(f"a wide ResNet is at least 1 times as wide as a ResNet, not {widen} times")
        channels = scaled(16, width)
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        for number in range(3):
            stage, maps = nn.Sequential(), scaled(16 * widen * 2**number, width)
            for index in range((depth - 4) // 6):
                stage.append(WideBlock(channels, maps, 2 if number and not index else 1, dropout))
                channels = maps
            self.add_module(f"layer{number + 1}", stage)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = F.adaptive_avg_pool2d(nn.norm_relu(self.bn, F.relu, x), 1)
        x = self.fc(F.flatten(x, 1))
        return x


def wrn_16_8(num_classes: int = 10, **options: Any) -> WideResNet:
    """WRN-16-8 of "Wide residual networks" (arXiv:1605.07146): 16 layers, 8 times as wide, 10,961,370 parameters."""
    return WideResNet(16, 8, num_classes, **options)


def wrn_28_10(num_classes: int = 10, **options: Any) -> WideResNet:
    """WRN-28-10 of "Wide residual networks" (arXiv:1605.07146): 28 layers, 10 times as wide, 36,479,194 parameters."""
    return WideResNet(28, 10, num_classes, **options)
