"""Network in network: Lin, Chen and Yan, "Network in network" (2014), arXiv:1312.4400, in its form for CIFAR-10."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.channels import scaled
from gpucnn.nn import init
from gpucnn.tensor import Tensor


def _mlpconv(in_channels: int, channels: tuple[int, int, int], window: int) -> list[nn.Module]:
    """A convolution and two of 1x1: a small network slid over the image."""
    layers: list[nn.Module] = []
    for out_channels, size in zip(channels, (window, 1, 1), strict=True):
        layers += [nn.Conv2d(in_channels, out_channels, size, padding=size // 2), nn.ReLU(inplace=True)]
        in_channels = out_channels
    return layers


class NiN(nn.Module):
    """Three mlpconv blocks; the last has one map a class, whose mean is the class's logit. 966,986 parameters.

    Input (N, in_channels, H, W), in the paper 32x32, at least 4x4; output (N, num_classes) logits. Weights start as He
    et al. (2015) by fan in.

    Args:
        dropout: probability behind the first two blocks.
        width: factor on the numbers of channels.
    """

    def __init__(
        self, num_classes: int = 10, dropout: float = 0.5, *, in_channels: int = 3, width: float = 1.0
    ) -> None:
        super().__init__()
        wide, middle, narrow = (scaled(channels, width) for channels in (192, 160, 96))
        self.features = nn.Sequential(
            *_mlpconv(in_channels, (wide, middle, narrow), 5),
            nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
            nn.Dropout(dropout),
            *_mlpconv(narrow, (wide, wide, wide), 5),
            nn.AvgPool2d(kernel_size=3, stride=2, ceil_mode=True),
            nn.Dropout(dropout),
            *_mlpconv(wide, (wide, wide, num_classes), 3),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                init.kaiming_normal_(module.weight, nonlinearity="relu")
                init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(F.adaptive_avg_pool2d(self.features(x), 1), -3)


def nin(num_classes: int = 10, dropout: float = 0.5, *, in_channels: int = 3, width: float = 1.0) -> NiN:
    """The CIFAR-10 network of "Network in network" (arXiv:1312.4400)."""
    return NiN(num_classes, dropout, in_channels=in_channels, width=width)
