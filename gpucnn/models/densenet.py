"""DenseNet: Huang, Liu, van der Maaten and Weinberger, "Densely connected convolutional networks" (2017).

arXiv:1608.06993, the form with bottlenecks and compression (DenseNet-BC).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.functional.shape import cat
from gpucnn.nn import init
from gpucnn.tensor import Tensor

_PUBLISHED_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
"""Published weights say "denselayer1.norm.1.weight" where torchvision's network has "denselayer1.norm1.weight"."""


class DenseLayer(nn.Module):
    """Adds `growth_rate` maps, made of all there are, to them: (N,C,H,W) -> (N, C + growth_rate, H, W)."""

    conv_norms = (("conv1", "norm2"),)

    def __init__(self, in_channels: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, bn_size * growth_rate, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(bn_size * growth_rate)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bn_size * growth_rate, growth_rate, kernel_size=3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x: Tensor) -> Tensor:
        new = nn.norm_relu(self.norm1, self.relu1, x)
        new = self.conv2(nn.conv_norm_relu(self.conv1, self.norm2, self.relu2, new))
        if self.drop_rate:
            new = F.dropout(new, self.drop_rate, self.training)
        return cat([x, new], 1)


class DenseNet(nn.Module):
    """Four blocks of dense layers; between them a 1x1 convolution halves the maps, and pooling the image.

    Input (N, in_channels, H, W), in the paper 224x224, at least 29x29; output (N, num_classes) logits. Convolutions
    start as He et al. (2015).

    Args:
        growth_rate: maps that each layer adds, the paper's k.
        block_config: layers in each of the four blocks.
        num_init_features: maps of the first convolution.
        bn_size: a layer's bottleneck has bn_size * growth_rate maps.
        drop_rate: dropout of what each layer adds.
    """

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        channels = num_init_features
        layers: dict[str, nn.Module] = {
            "conv0": nn.Conv2d(in_channels, channels, kernel_size=7, stride=2, padding=3, bias=False),
            "norm0": nn.BatchNorm2d(channels),
            "relu0": nn.ReLU(inplace=True),
            "pool0": nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        }
        for number, depth in enumerate(block_config, start=1):
            block: dict[str, nn.Module] = {}
            for index in range(1, depth + 1):
                block[f"denselayer{index}"] = DenseLayer(channels, growth_rate, bn_size, drop_rate)
                channels += growth_rate
            layers[f"denseblock{number}"] = nn.Sequential(block)
            if number < len(block_config):
                layers[f"transition{number}"] = _transition(channels)
                channels //= 2
        layers["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(x), inplace=True)
        x = F.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1)
        x = self.classifier(x)
        return x

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """As Module's; takes the keys of the published weights as well ("denselayer1.norm.1.weight")."""
        if isinstance(state, Mapping):
            state = {_PUBLISHED_KEY.sub(r"\1\2", name): value for name, value in state.items()}
        return super().load_state_dict(state, strict)


def _transition(channels: int) -> nn.Sequential:
    return nn.Sequential(
        {
            "norm": nn.BatchNorm2d(channels),
            "relu": nn.ReLU(inplace=True),
            "conv": nn.Conv2d(channels, channels // 2, kernel_size=1, bias=False),
            "pool": nn.AvgPool2d(kernel_size=2, stride=2),
        }
    )


def densenet121(num_classes: int = 1000, **options: Any) -> DenseNet:
    """DenseNet-121 of "Densely connected convolutional networks" (arXiv:1608.06993)."""
    return DenseNet(num_classes=num_classes, **options)


def densenet161(num_classes: int = 1000, **options: Any) -> DenseNet:
    """DenseNet-161 (growth rate 48) of "Densely connected convolutional networks" (arXiv:1608.06993)."""
    plan = {"growth_rate": 48, "block_config": (6, 12, 36, 24), "num_init_features": 96}
    return DenseNet(num_classes=num_classes, **{**plan, **options})


def densenet169(num_classes: int = 1000, **options: Any) -> DenseNet:
    """DenseNet-169 of "Densely connected convolutional networks" (arXiv:1608.06993)."""
    return DenseNet(num_classes=num_classes, **{"block_config": (6, 12, 32, 32), **options})


def densenet201(num_classes: int = 1000, **options: Any) -> DenseNet:
    """DenseNet-201 of "Densely connected convolutional networks" (arXiv:1608.06993)."""
    return DenseNet(num_classes=num_classes, **{"block_config": (6, 12, 48, 32), **options})
