"""AlexNet as published, for two GPUs: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep
convolutional neural networks" (2012).

The halves of conv2, conv4 and conv5 that lay on different GPUs are groups; local response normalisation follows conv1
and conv2.
"""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.channels import scaled
from gpucnn.nn import init
from gpucnn.tensor import Tensor


class AlexNetGrouped(nn.Module):
    """The original AlexNet: 60,965,224 parameters for 1000 classes.

    Input (N, in_channels, H, W), in the paper 224x224, at least 63x63; output (N, num_classes) logits. Weights start
    normal with standard deviation 0.01; the biases of conv2, conv4, conv5 and of the hidden linear layers at 1.

    Args:
        dropout: probability behind the first two linear layers, as in the paper; torchvision's is in front of them.
        width: factor on the numbers of channels and hidden features.
    """

    def __init__(
        self, num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3, width: float = 1.0
    ) -> None:
        super().__init__()
        maps = [2 * scaled(channels // 2, width) for channels in (96, 256, 384, 384, 256)]
        hidden = scaled(4096, width)
        self.conv1 = nn.Conv2d(in_channels, maps[0], kernel_size=11, stride=4, padding=2)
        self.conv2 = nn.Conv2d(maps[0], maps[1], kernel_size=5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(maps[1], maps[2], kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(maps[2], maps[3], kernel_size=3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(maps[3], maps[4], kernel_size=3, padding=1, groups=2)
        # Each map over its neighbourhood of five; the paper's alpha of 1e-4 is not divided by the five, ours is.
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.dropout = nn.Dropout(dropout)
        self.fc6 = nn.Linear(maps[4] * 6 * 6, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        for name, layer in self.named_children():
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
                init.normal_(layer.weight, 0, 0.01)
                init.constant_(layer.bias, 1.0 if name in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(F.relu(self.conv1(x))))
        x = self.pool(self.norm(F.relu(self.conv2(x))))
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = self.avgpool(self.pool(F.relu(self.conv5(x))))
        x = self.dropout(F.relu(self.fc6(F.flatten(x, 1))))
        x = self.dropout(F.relu(self.fc7(x)))
        x = self.fc8(x)
        return x


def alexnet_grouped(
    num_classes: int = 1000, dropout: float = 0.5, *, in_channels: int = 3, width: float = 1.0
) -> AlexNetGrouped:
    """The two-GPU AlexNet of "ImageNet classification with deep convolutional neural networks" (2012)."""
    return AlexNetGrouped(num_classes, dropout, in_channels=in_channels, width=width)
