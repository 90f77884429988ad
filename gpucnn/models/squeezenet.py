"""SqueezeNet: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016), arXiv:1602.07360.

Version 1.1, from the authors' repository, needs 2.4 times fewer operations than the paper's 1.0.
"""

from __future__ import annotations

from typing import Any

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.functional.shape import cat
from gpucnn.models.channels import scaled
from gpucnn.nn import init
from gpucnn.tensor import Tensor

_STEMS = {"1_0": (96, 7), "1_1": (64, 3)}
"""Channels and window of the first convolution."""

_POOL = None
_FIRES: dict[str, tuple[tuple[int, int] | None, ...]] = {
    "1_0": (
        *(_POOL, (16, 64), (16, 64), (32, 128)),
        *(_POOL, (32, 128), (48, 192), (48, 192), (64, 256)),
        *(_POOL, (64, 256)),
    ),
    "1_1": (
        *(_POOL, (16, 64), (16, 64)),
        *(_POOL, (32, 128), (32, 128)),
        *(_POOL, (48, 192), (48, 192), (64, 256), (64, 256)),
    ),
}
"""(squeezed channels, channels of each of the two expansions) of the Fire modules, and where max pooling goes."""


class Fire(nn.Module):
    """A 1x1 convolution to few maps, and 1x1 and 3x3 ones side by side from there: in_channels -> 2 * expanded."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, kernel_size=1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, kernel_size=1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, kernel_size=3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.conv_norm_relu(self.squeeze, None, self.squeeze_activation, x)
        narrow = nn.conv_norm_relu(self.expand1x1, None, self.expand1x1_activation, x)
        wide = nn.conv_norm_relu(self.expand3x3, None, self.expand3x3_activation, x)
        return cat([narrow, wide], 1)


class SqueezeNet(nn.Module):
    """Eight Fire modules between a convolution and a 1x1 convolution to the classes, averaged over the image.

    Input (N, in_channels, H, W), in the paper 224x224, at least 21x21 (1.0) or 17x17 (1.1); output (N, num_classes)
    logits. Convolutions start as He et al. (2015), the last one normal with standard deviation 0.01.

    Args:
        version: "1_0" or "1_1".
        dropout: probability in front of the last convolution.
        width: factor on the numbers of channels.
    """

    def __init__(
        self,
        version: str = "1_0",
        num_classes: int = 1000,
        dropout: float = 0.5,
        *,
        in_channels: int = 3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if version not in _FIRES:
            raise ValueError(f"SqueezeNet: version must be '1_0' or '1_1', got {version!r}")
        stem, window = _STEMS[version]
        channels = scaled(stem, width)
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, kernel_size=window, stride=2),
            nn.ReLU(inplace=True),
        ]
        for fire in _FIRES[version]:
            if fire is None:
                layers.append(nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True))
                continue
            squeezed, expanded = (scaled(c, width) for c in fire)
            layers.append(Fire(channels, squeezed, expanded))
            channels = 2 * expanded
        self.features = nn.Sequential(*layers)
        last = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), last, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module is last:
                    init.normal_(module.weight, 0, 0.01)
                else:
                    init.kaiming_uniform_(module.weight)
                if module.bias is not None:
                    init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(self.classifier(self.features(x)), 1)


def squeezenet1_0(num_classes: int = 1000, **options: Any) -> SqueezeNet:
    """SqueezeNet 1.0 of "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (arXiv:1602.07360)."""
    return SqueezeNet("1_0", num_classes, **options)


def squeezenet1_1(num_classes: int = 1000, **options: Any) -> SqueezeNet:
    """SqueezeNet 1.1, the authors' later version of the network of arXiv:1602.07360: 2.4 times fewer operations."""
    return SqueezeNet("1_1", num_classes, **options)
