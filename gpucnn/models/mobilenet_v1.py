"""MobileNet: Howard et al., "MobileNets: Efficient convolutional neural networks for mobile vision applications"
(2017), arXiv:1704.04861."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.channels import scaled
from gpucnn.nn import init
from gpucnn.tensor import Tensor

_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Table 1 of the paper: channels behind each depthwise separable convolution, and its stride."""


def _conv_bn_relu(in_channels: int, out_channels: int, window: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, window, stride, padding=window // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class MobileNetV1(nn.Module):
    """Thirteen depthwise separable convolutions, global average pooling and a linear layer: 4,231,976 parameters.

    Input (N, in_channels, H, W) of any size, in the paper 224x224; output (N, num_classes) logits.

    Args:
        width_mult: the paper's alpha, factor on the numbers of channels.
        dropout: probability in front of the linear layer.
    """

    def __init__(
        self, num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.001, *, in_channels: int = 3
    ) -> None:
        super().__init__()
        channels = scaled(32, width_mult)
        layers = [_conv_bn_relu(in_channels, channels, 3, stride=2)]
        for out_channels, stride in _BLOCKS:
            depthwise = _conv_bn_relu(channels, channels, 3, stride, groups=channels)
            pointwise = _conv_bn_relu(channels, scaled(out_channels, width_mult), 1)
            layers.append(nn.Sequential({"depthwise": depthwise, "pointwise": pointwise}))
            channels = scaled(out_channels, width_mult)
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1)
        x = self.fc(self.dropout(x))
        return x


def mobilenet_v1(
    num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.001, *, in_channels: int = 3
) -> MobileNetV1:
    """MobileNet of "MobileNets: Efficient convolutional neural networks for mobile vision applications" (2017)."""
    return MobileNetV1(num_classes, width_mult, dropout, in_channels=in_channels)
