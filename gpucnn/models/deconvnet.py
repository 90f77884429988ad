"""DeconvNet: Noh, Hong and Han, "Learning deconvolution network for semantic segmentation" (2015), arXiv:1505.04366."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.channels import scaled
from gpucnn.models.vgg import STAGE_CHANNELS
from gpucnn.nn import init
from gpucnn.tensor import Tensor

_DEPTHS = (2, 2, 3, 3, 3)


def _conv(in_channels: int, out_channels: int, window: int = 3, padding: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=window, padding=padding)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _deconv(in_channels: int, out_channels: int, window: int = 3, padding: int = 1) -> list[nn.Module]:
    conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=window, padding=padding)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


class DeconvNet(nn.Module):
    """VGG-16 as convolutions, and its mirror image: max-unpooling by the places of the maxima, transposed convolutions.

    Input (N, in_channels, H, W), sides multiples of 32, in the paper 224x224; output (N, num_classes, H, W) logits.
    About 252 million parameters. Convolutions start as He et al. (2015) by fan in.

    Args:
        window: side of fc6's window: H / 32 of the images that it shrinks to one vector, 7 for the paper's 224x224.
        width: factor on the numbers of channels.
    """

    def __init__(self, num_classes: int = 21, window: int = 7, *, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        stages = [scaled(channels, width) for channels in STAGE_CHANNELS]
        hidden = scaled(4096, width)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for depth, channels in zip(_DEPTHS, stages, strict=True):
            layers = [layer for i in range(depth) for layer in _conv(channels if i else in_channels, channels)]
            self.encoder.append(nn.Sequential(*layers))
            in_channels = channels
        self.middle = nn.Sequential(
            *_conv(in_channels, hidden, window, padding=0),
            *_conv(hidden, hidden, 1, padding=0),
            *_deconv(hidden, in_channels, window, padding=0),
        )
        for depth, channels, below in zip(_DEPTHS[::-1], stages[::-1], [*stages[-2::-1], stages[0]], strict=True):
            outputs = [channels] * (depth - 1) + [below]
            self.decoder.append(nn.Sequential(*[layer for maps in outputs for layer in _deconv(channels, maps)]))
        self.score = nn.Conv2d(stages[0], num_classes, kernel_size=1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"DeconvNet takes images whose sides are multiples of 32, got {height}x{width}")
        places = []
        for stage in self.encoder:
            x, indices = F.max_pool2d(stage(x), 2, return_indices=True)
            places.append(indices)
        x = self.middle(x)
        for stage, indices in zip(self.decoder, reversed(places), strict=True):
            x = stage(F.max_unpool2d(x, indices, 2))
        x = self.score(x)
        return x


def deconvnet(num_classes: int = 21, window: int = 7, *, in_channels: int = 3, width: float = 1.0) -> DeconvNet:
    """DeconvNet of "Learning deconvolution network for semantic segmentation" (arXiv:1505.04366)."""
    return DeconvNet(num_classes, window, in_channels=in_channels, width=width)
