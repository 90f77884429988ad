"""VGG: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (2015).

arXiv:1409.1556, configurations A, B, D and E of its table 1; the forms with batch normalisation came later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.channels import scaled
from gpucnn.nn import init
from gpucnn.tensor import Tensor

STAGE_CHANNELS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each closed by 2x2 max pooling, and three linear layers.

    Input (N, in_channels, H, W), in the paper 224x224, at least 32x32; output (N, num_classes) logits. Convolutions
    start as He et al. (2015) by fan out, linear layers normal with standard deviation 0.01.

    Args:
        depths: convolutions in each of the five stages.
        batch_norm: a batch norm after every convolution.
        init_weights: False leaves the layers' own initial weights.
        dropout: probability behind the first two linear layers.
        width: factor on the numbers of channels and hidden features.
    """

    def __init__(
        self,
        depths: Sequence[int],
        num_classes: int = 1000,
        init_weights: bool = True,
        dropout: float = 0.5,
        *,
        batch_norm: bool = False,
        in_channels: int = 3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.features = vgg_features(depths, in_channels, batch_norm, width)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        hidden = scaled(4096, width)
        self.classifier = nn.Sequential(
            nn.Linear(scaled(STAGE_CHANNELS[-1], width) * 7 * 7, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        if init_weights:
            self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        x = self.classifier(F.flatten(x, 1))
        return x


def vgg_features(
    depths: Sequence[int], in_channels: int = 3, batch_norm: bool = False, width: float = 1.0
) -> nn.Sequential:
    """The convolutional part: (N, in_channels, H, W) -> (N, 512 * width, H // 32, W // 32)."""
    layers: list[nn.Module] = []
    for depth, stage_channels in zip(depths, STAGE_CHANNELS, strict=True):
        channels = scaled(stage_channels, width)
        for _ in range(depth):
            layers.append(nn.Conv2d(in_channels, channels, kernel_size=3, padding=1))
            layers += [nn.BatchNorm2d(channels)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            in_channels = channels
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        init.normal_(module.weight, 0, 0.01)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        init.zeros_(module.bias)


def vgg11(num_classes: int = 1000, **options: Any) -> VGG:
    """VGG-11, configuration A of "Very deep convolutional networks for large-scale image recognition"."""
    return VGG((1, 1, 2, 2, 2), num_classes, **options)


def vgg11_bn(num_classes: int = 1000, **options: Any) -> VGG:
    """VGG-11 with batch normalisation."""
    return vgg11(num_classes, batch_norm=True, **options)


def vgg13(num_classes: int = 1000, **options: Any) -> VGG:
    """VGG-13, configuration B of "Very deep convolutional networks for large-scale image recognition"."""
    return VGG((2, 2, 2, 2, 2), num_classes, **options)


def vgg13_bn(num_classes: int = 1000, **options: Any) -> VGG:
    """VGG-13 with batch normalisation."""
    return vgg13(num_classes, batch_norm=True, **options)


def vgg16(num_classes: int = 1000, **options: Any) -> VGG:
    """VGG-16, configuration D of "Very deep convolutional networks for large-scale image recognition"."""
    return VGG((2, 2, 3, 3, 3), num_classes, **options)


def vgg16_bn(num_classes: int = 1000, **options: Any) -> VGG:
    """VGG-16 with batch normalisation."""
    return vgg16(num_classes, batch_norm=True, **options)


def vgg19(num_classes: int = 1000, **options: Any) -> VGG:
    """VGG-19, configuration E of "Very deep convolutional networks for large-scale image recognition"."""
    return VGG((2, 2, 4, 4, 4), num_classes, **options)


def vgg19_bn(num_classes: int = 1000, **options: Any) -> VGG:
    """VGG-19 with batch normalisation."""
    return vgg19(num_classes, batch_norm=True, **options)
