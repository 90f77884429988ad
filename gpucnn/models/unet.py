"""U-Net: Ronneberger, Fischer and Brox, "U-Net: Convolutional networks for biomedical image segmentation" (2015),
arXiv:1505.04597."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.functional.shape import cat
from gpucnn.models.channels import scaled
from gpucnn.nn import init
from gpucnn.tensor import Tensor


def _double_conv(in_channels: int, channels: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size=3, padding=padding),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, kernel_size=3, padding=padding),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Five levels down, each of two 3x3 convolutions, and four up, each joined with the maps of its level.

    Input (N, in_channels, H, W); output (N, num_classes, P, Q) logits: the paper's 572x572 give 388x388. 31,030,658
    parameters with one channel in and two classes. Convolutions start as He et al. (2015) by fan in.

    Args:
        padding: 0 as in the paper (each level's maps are cropped to fit, and the output is 184 smaller than the input),
            or 1 for an output of the input's size, whose sides must be multiples of 16.
        dropout: probability behind the two lowest levels.
        width: factor on the numbers of channels.

    Raises:
        ValueError: another padding; in a call, an image that the levels do not divide evenly.
    """

    def __init__(
        self,
        num_classes: int = 2,
        padding: int = 0,
        dropout: float = 0.5,
        *,
        in_channels: int = 1,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if padding not in (0, 1):
            raise ValueError(f"U-Net: padding is 0 (the paper's) or 1 (output of the input's size), got {padding}")
        self.padding = padding
        levels = [scaled(channels, width) for channels in (64, 128, 256, 512, 1024)]
        self.down = nn.ModuleList()
        for channels in levels:
            self.down.append(_double_conv(in_channels, channels, padding))
            in_channels = channels
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        for channels in levels[-2::-1]:
            self.up.append(nn.ConvTranspose2d(in_channels, channels, kernel_size=2, stride=2))
            self.merge.append(_double_conv(2 * channels, channels, padding))
            in_channels = channels
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(in_channels, num_classes, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        levels = []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else F.max_pool2d(x, 2))
            x = self.dropout(x) if number >= 3 else x
            levels.append(x)
        for up, merge, level in zip(self.up, self.merge, reversed(levels[:-1]), strict=True):
            x = up(x)
            x = merge(cat([_cropped(level, x), x], 1))
        x = self.head(x)
        return x

    def _check(self, x: Tensor) -> None:
        height, width = x.shape[-2:]
        smallest, sizes = (16, "multiples of 16") if self.padding else (188, "188, 204, 220, ..., 572, ...")
        if min(height, width) < smallest or (height - smallest) % 16 or (width - smallest) % 16:
            raise ValueError(
                f"U-Net with padding={self.padding} takes images whose sides are {sizes}: not {height}x{width}"
            )


def _cropped(level: Tensor, to: Tensor) -> Tensor:
    """The middle of `level`, as large as `to`."""
    (height, width), (rows, columns) = level.shape[-2:], to.shape[-2:]
    if (height, width) == (rows, columns):
        return level
    top, left = (height - rows) // 2, (width - columns) // 2
    return level[..., top : top + rows, left : left + columns]


def unet(
    num_classes: int = 2, padding: int = 0, dropout: float = 0.5, *, in_channels: int = 1, width: float = 1.0
) -> UNet:
    """U-Net of "U-Net: Convolutional networks for biomedical image segmentation" (arXiv:1505.04597)."""
    return UNet(num_classes, padding, dropout, in_channels=in_channels, width=width)
