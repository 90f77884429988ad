"""MobileNet v2: Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks" (2018), arXiv:1801.04381."""

from __future__ import annotations

from typing import Any

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.channels import make_divisible
from gpucnn.nn import init
from gpucnn.tensor import Tensor

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Table 2 of the paper: expansion, channels, blocks, stride of the first block."""


def _conv_bn_relu6(in_channels: int, out_channels: int, window: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, window, stride, padding=window // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the maps, 3x3 in each map, 1x1 back without activation; a shortcut where shapes agree.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.shortcut = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *([_conv_bn_relu6(in_channels, hidden, 1)] if expansion != 1 else []),
            _conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        *layers, conv, norm = self.conv
        y = x
        for layer in layers:
            y = layer(y)
        return nn.conv_norm_relu(conv, norm, None, y, x if self.shortcut else None)


class MobileNetV2(nn.Module):
    """Seventeen inverted residuals, global average pooling and a linear layer.

    Input (N, in_channels, H, W) of any size, in the paper 224x224; output (N, num_classes) logits. Convolutions start
    as He et al. (2015) by fan out, the linear layer normal with standard deviation 0.01.

    Args:
        width_mult: factor on the numbers of channels; those of the last convolution never shrink.
        round_nearest: channels are multiples of this.
        dropout: probability in front of the linear layer.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        round_nearest: int = 8,
        dropout: float = 0.2,
        *,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        channels = make_divisible(32 * width_mult, round_nearest)
        layers: list[nn.Module] = [_conv_bn_relu6(in_channels, channels, 3, stride=2)]
        for expansion, stage_channels, blocks, stride in _STAGES:
            out_channels = make_divisible(stage_channels * width_mult, round_nearest)
            for index in range(blocks):
                layers.append(InvertedResidual(channels, out_channels, stride if index == 0 else 1, expansion))
                channels = out_channels
        last = make_divisible(1280 * max(1.0, width_mult), round_nearest)
        layers.append(_conv_bn_relu6(channels, last, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                init.normal_(module.weight, 0, 0.01)
                if module.bias is not None:
                    init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        x = self.classifier(F.flatten(x, 1))
        return x


def mobilenet_v2(num_classes: int = 1000, **options: Any) -> MobileNetV2:
    """MobileNet v2 of "MobileNetV2: Inverted residuals and linear bottlenecks" (arXiv:1801.04381)."""
    return MobileNetV2(num_classes, **options)
