"""The residual networks for CIFAR, and the same networks without shortcuts, which they were invented to beat.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016), arXiv:1512.03385, section 4.2.
"""

from __future__ import annotations

from typing import Any

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.channels import scaled
from gpucnn.nn import init
from gpucnn.tensor import Tensor


class CifarBlock(nn.Module):
    """Two 3x3 convolutions: (N, in_channels, H, W) -> (N, channels, H / stride, W / stride).

    The shortcut has no parameters (the paper's option A): every other pixel where the stride is 2, and maps of zeros
    on both sides of those that there are.
    """

    conv_norms = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.shortcut = stride, shortcut
        before = (channels - in_channels) // 2
        self.new_maps = (before, channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.conv_norm_relu(self.conv1, self.bn1, F.relu, x)
        return nn.conv_norm_relu(self.conv2, self.bn2, F.relu, y, self._carried(x) if self.shortcut else None)

    def _carried(self, x: Tensor) -> Tensor:
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, *self.new_maps)) if any(self.new_maps) else x


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of `blocks` blocks with 16, 32 and 64 maps, global average, a linear layer.

    Input (N, in_channels, H, W), in the paper 32x32, of any size; output (N, num_classes) logits. 6 * blocks + 2 layers
    with weights, which start as He et al. (2015) by fan in.

    Args:
        blocks: in each stage.
        shortcuts: False for the plain network of the same depth.
        width: factor on the numbers of channels.

    Raises:
        ValueError: no block at all in a stage.
    """

    conv_norms = (("conv1", "bn1"),)

    def __init__(
        self, blocks: int, num_classes: int = 10, shortcuts: bool = True, *, in_channels: int = 3, width: float = 1.0
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"a CIFAR ResNet has at least 1 block in each stage, not {blocks}")
        channels = scaled(16, width)
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for number in range(3):
            stage = nn.Sequential()
            for index in range(blocks):
                stride = 2 if number and not index else 1
                stage.append(CifarBlock(channels, scaled(16 * 2**number, width), stride, shortcuts))
                channels = scaled(16 * 2**number, width)
            self.add_module(f"layer{number + 1}", stage)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = nn.conv_norm_relu(self.conv1, self.bn1, F.relu, x)
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.fc(F.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return x


def resnet20(num_classes: int = 10, **options: Any) -> CifarResNet:
    """ResNet-20 for CIFAR, of "Deep residual learning for image recognition" (arXiv:1512.03385): 269,722 parameters."""
    return CifarResNet(3, num_classes, **options)


def resnet32(num_classes: int = 10, **options: Any) -> CifarResNet:
    """ResNet-32 for CIFAR, of "Deep residual learning for image recognition" (arXiv:1512.03385)."""
    return CifarResNet(5, num_classes, **options)


def resnet44(num_classes: int = 10, **options: Any) -> CifarResNet:
    """ResNet-44 for CIFAR, of "Deep residual learning for image recognition" (arXiv:1512.03385)."""
    return CifarResNet(7, num_classes, **options)


def resnet56(num_classes: int = 10, **options: Any) -> CifarResNet:
    """ResNet-56 for CIFAR, of "Deep residual learning for image recognition" (arXiv:1512.03385)."""
    return CifarResNet(9, num_classes, **options)


def resnet110(num_classes: int = 10, **options: Any) -> CifarResNet:
    """ResNet-110 for CIFAR, of "Deep residual learning for image recognition" (arXiv:1512.03385)."""
    return CifarResNet(18, num_classes, **options)


def plain20(num_classes: int = 10, **options: Any) -> CifarResNet:
    """ResNet-20 for CIFAR without its shortcuts."""
    return resnet20(num_classes, shortcuts=False, **options)


def plain32(num_classes: int = 10, **options: Any) -> CifarResNet:
    """ResNet-32 for CIFAR without its shortcuts."""
    return resnet32(num_classes, shortcuts=False, **options)


def plain44(num_classes: int = 10, **options: Any) -> CifarResNet:
    """ResNet-44 for CIFAR without its shortcuts."""
    return resnet44(num_classes, shortcuts=False, **options)


def plain56(num_classes: int = 10, **options: Any) -> CifarResNet:
    """ResNet-56 for CIFAR without its shortcuts: the network that trains worse than the plain one of 20 layers."""
    return resnet56(num_classes, shortcuts=False, **options)


def plain110(num_classes: int = 10, **options: Any) -> CifarResNet:
    """ResNet-110 for CIFAR without its shortcuts."""
    return resnet110(num_classes, shortcuts=False, **options)
