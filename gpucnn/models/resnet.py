"""Residual networks and their wide and grouped variants.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016), arXiv:1512.03385, with the stride of a
bottleneck in its 3x3 convolution ("ResNet v1.5"), as torchvision has it; Zagoruyko and Komodakis, "Wide residual
networks" (2016), arXiv:1605.07146; Xie, Girshick, Dollar, Tu and He, "Aggregated residual transformations for deep
neural networks" (ResNeXt, 2017), arXiv:1611.05431.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.channels import scaled
from gpucnn.nn import init
from gpucnn.tensor import Tensor


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """What brings a block's input to the shape of its output; None where it has that shape."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, in_channels, H, W) -> (N, planes, H / stride, W / stride)."""

    expansion = 1
    conv_norms = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        groups: int = 1,
        width_per_group: int = 64,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        if (groups, width_per_group, dilation) != (1, 64, 1):
            raise ValueError(
                "networks of basic blocks (ResNet-18 and -34) have groups=1, width_per_group=64 and no dilation, got "
                f"groups={groups}, width_per_group={width_per_group}, dilation={dilation}"
            )
        self.conv1 = nn.Conv2d(in_channels, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _projection(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = nn.conv_norm_relu(self.conv1, self.bn1, self.relu, x)
        x = nn.conv_norm_relu(self.conv2, self.bn2, self.relu, x, shortcut)
        return x


class Bottleneck(nn.Module):
    """1x1, 3x3 (in `groups`) and 1x1 convolutions and a shortcut: in_channels maps -> 4 * planes."""

    expansion = 4
    conv_norms = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        groups: int = 1,
        width_per_group: int = 64,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        inner, outer = max(1, planes * width_per_group // 64) * groups, planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outer, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, outer, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = nn.conv_norm_relu(self.conv1, self.bn1, self.relu, x)
        x = nn.conv_norm_relu(self.conv2, self.bn2, self.relu, x)
        x = nn.conv_norm_relu(self.conv3, self.bn3, self.relu, x, shortcut)
        return x


class ResNet(nn.Module):
    """A 7x7 convolution, max pooling, four stages of residual blocks, global average pooling and a linear layer.

    Input (N, in_channels, H, W) of any size, in the paper 224x224; output (N, num_classes) logits. Convolutions start
    as He et al. (2015) by fan out.

    Args:
        block: BasicBlock or Bottleneck.
        layers: blocks in each of the four stages.
        zero_init_residual: the last batch norm of each block starts at 0, so that blocks start as identities (Goyal et
            al., "Accurate, large minibatch SGD", 2017).
        groups, width_per_group: of the bottlenecks' 3x3 convolutions; 32 and 4 make a ResNeXt, 1 and 128 a wide ResNet.
        replace_stride_with_dilation: for each of the last three stages, whether its convolutions are dilated instead of
            its maps halved.
        width: factor on all numbers of channels.

    Raises:
        ValueError: groups, another width_per_group or dilation with basic blocks; a width that is not positive.
    """

    conv_norms = (("conv1", "bn1"),)

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        *,
        in_channels: int = 3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        dilated = (False, False, False) if replace_stride_with_dilation is None else replace_stride_with_dilation
        if len(dilated) != 3:
            raise ValueError(f"replace_stride_with_dilation takes three bools, one a stage from layer2, got {dilated}")
        channels = scaled(64, width)
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        dilation = 1
        for number, (depth, dilate) in enumerate(zip(layers, (False, *dilated), strict=True)):
            planes, stride = scaled(64 * 2**number, width), 1 if number == 0 else 2
            # The first block is the last one with the dilation of the stage before.
            blocks = [block(channels, planes, 1 if dilate else stride, groups, width_per_group, dilation)]
            channels, dilation = planes * block.expansion, dilation * stride if dilate else dilation
            blocks += [block(channels, planes, 1, groups, width_per_group, dilation) for _ in range(1, depth)]
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
                last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
                if last.weight is not None:
                    init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(nn.conv_norm_relu(self.conv1, self.bn1, self.relu, x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.fc(F.flatten(self.avgpool(x), 1))
        return x


def resnet18(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-18 of "Deep residual learning for image recognition" (arXiv:1512.03385)."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, **options)


def resnet34(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-34 of "Deep residual learning for image recognition" (arXiv:1512.03385)."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, **options)


def resnet50(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-50 (v1.5) of "Deep residual learning for image recognition" (arXiv:1512.03385)."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, **options)


def resnet101(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-101 (v1.5) of "Deep residual learning for image recognition" (arXiv:1512.03385)."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, **options)


def resnet152(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-152 (v1.5) of "Deep residual learning for image recognition" (arXiv:1512.03385)."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, **options)


def wide_resnet50_2(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-50 with twice the channels in its 3x3 convolutions, of "Wide residual networks" (arXiv:1605.07146)."""
    return resnet50(num_classes, **{"width_per_group": 128, **options})


def resnext50_32x4d(num_classes: int = 1000, **options: Any) -> ResNet:
    """ResNeXt-50 32x4d of "Aggregated residual transformations for deep neural networks" (arXiv:1611.05431)."""
    return resnet50(num_classes, **{"groups": 32, "width_per_group": 4, **options})
