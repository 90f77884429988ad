"""AlexNet: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks" (2012).

Here in the form for one GPU of Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014),
arXiv:1404.5997: 64, 192, 384, 256 and 256 maps, and no local response normalisation.
"""

from __future__ import annotations

from typing import Any

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.channels import scaled
from gpucnn.tensor import Tensor


class AlexNet(nn.Module):
    """AlexNet with torchvision's parameters: 61,100,840 for 1000 classes.

    Input (N, in_channels, H, W), in the papers 224x224, at least 63x63; output (N, num_classes) logits.

    Args:
        dropout: probability in front of the first two linear layers.
        width: factor on the numbers of channels and hidden features.
    """

    def __init__(
        self, num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3, width: float = 1.0
    ) -> None:
        super().__init__()
        maps = [scaled(channels, width) for channels in (64, 192, 384, 256, 256)]
        hidden = scaled(4096, width)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, maps[0], kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(maps[0], maps[1], kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(maps[1], maps[2], kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(maps[2], maps[3], kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(maps[3], maps[4], kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(maps[4] * 6 * 6, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        x = self.classifier(F.flatten(x, 1))
        return x


def alexnet(num_classes: int = 1000, **options: Any) -> AlexNet:
    """AlexNet for one GPU, from "One weird trick for parallelizing convolutional neural networks" (arXiv:1404.5997)."""
    return AlexNet(num_classes, **options)
