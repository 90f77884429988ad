"""Fully convolutional networks for segmentation, on a dilated ResNet-50 as torchvision has it.

Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation" (2015), arXiv:1411.4038.
"""

from __future__ import annotations

from typing import Any

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.models.resnet import resnet50
from gpucnn.tensor import Tensor


class FCN(nn.Module):
    """A label for every pixel: a ResNet-50 whose last two stages are dilated, so that its maps are an eighth in size.

    Input (N, in_channels, H, W) of any size; output {"out": (N, num_classes, H, W)} and, with `aux_loss`, "aux" of the
    same shape: logits, enlarged bilinearly from (H / 8, W / 8). "aux" is of a second classifier on the stage before the
    last, whose loss helps in training.

    Args:
        aux_loss: have the second classifier; published weights have it.
        width: factor on the numbers of channels.
    """

    def __init__(
        self, num_classes: int = 21, aux_loss: bool = False, *, in_channels: int = 3, width: float = 1.0
    ) -> None:
        super().__init__()
        resnet = resnet50(1, replace_stride_with_dilation=(False, True, True), in_channels=in_channels, width=width)
        *stages, _avgpool, _fc = resnet.named_children()
        self.backbone = nn.Sequential(dict(stages))
        channels = resnet.fc.in_features
        self.classifier = _head(channels, num_classes)
        self.aux_classifier = _head(channels // 2, num_classes) if aux_loss else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        third = self.backbone[:-1](x)
        fourth = self.backbone[-1](third)
        logits = {"out": self.classifier(fourth)}
        if self.aux_classifier is not None:
            logits["aux"] = self.aux_classifier(third)
        size = (x.shape[-2], x.shape[-1])
        return {name: F.interpolate(maps, size, mode="bilinear", align_corners=False) for name, maps in logits.items()}


def _head(in_channels: int, num_classes: int) -> nn.Sequential:
    hidden = max(1, in_channels // 4)
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Conv2d(hidden, num_classes, kernel_size=1),
    )


def fcn_resnet50(num_classes: int = 21, **options: Any) -> FCN:
    """FCN of "Fully convolutional networks for semantic segmentation" (arXiv:1411.4038) on a dilated ResNet-50."""
    return FCN(num_classes, **options)
