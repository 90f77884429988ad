"""GoogLeNet (Inception v1): Szegedy et al., "Going deeper with convolutions" (2015), arXiv:1409.4842.

As torchvision has it: with batch normalisation, and 3x3 filters where the paper's modules have 5x5 ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gpucnn import creation, nn
from gpucnn import functional as F
from gpucnn.functional.shape import cat
from gpucnn.models.channels import scaled
from gpucnn.nn import init
from gpucnn.tensor import Tensor


class GoogLeNetOutputs(NamedTuple):
    """What GoogLeNet returns in training: logits (N, num_classes), and those of the auxiliary classifiers.

    The paper adds the losses of the auxiliary ones, times 0.3, to the main one.
    """

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class BasicConv2d(nn.Module):
    """Convolution, batch norm, ReLU; `options` are Conv2d's."""

    conv_norms = (("conv", "bn"),)

    def __init__(self, in_channels: int, out_channels: int, **options: Any) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **options)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.conv_norm_relu(self.conv, self.bn, F.relu, x)
        return x


class Inception(nn.Module):
    """Four views of the same maps side by side: 1x1; 1x1 then 3x3; 1x1 then the "5x5", which is 3x3; pooling then 1x1.

    (N, in_channels, H, W) -> (N, ch1x1 + ch3x3 + ch5x5 + pool_proj, H, W).
    """

    def __init__(
        self, in_channels: int, ch1x1: int, ch3x3red: int, ch3x3: int, ch5x5red: int, ch5x5: int, pool_proj: int
    ) -> None:
        super().__init__()
        self.out_channels = ch1x1 + ch3x3 + ch5x5 + pool_proj
        self.branch1 = BasicConv2d(in_channels, ch1x1, kernel_size=1)
        self.branch2 = nn.Sequential(
            BasicConv2d(in_channels, ch3x3red, kernel_size=1), BasicConv2d(ch3x3red, ch3x3, kernel_size=3, padding=1)
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(in_channels, ch5x5red, kernel_size=1), BasicConv2d(ch5x5red, ch5x5, kernel_size=3, padding=1)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1, ceil_mode=True),
            BasicConv2d(in_channels, pool_proj, kernel_size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(nn.Module):
    """A classifier on maps half way through, whose gradient reaches the early layers."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float, width: float) -> None:
        super().__init__()
        maps, hidden = scaled(128, width), scaled(1024, width)
        self.avgpool = nn.AdaptiveAvgPool2d((4, 4))
        self.conv = BasicConv2d(in_channels, maps, kernel_size=1)
        self.fc1 = nn.Linear(maps * 4 * 4, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = F.flatten(self.conv(self.avgpool(x)), 1)
        x = self.dropout(F.relu(self.fc1(x), inplace=True))
        x = self.fc2(x)
        return x


class GoogLeNet(nn.Module):
    """Nine Inception modules between convolutions and global average pooling.

    Input (N, in_channels, H, W), in the paper 224x224, at least 15x15; output (N, num_classes) logits, in training with
    `aux_logits` a GoogLeNetOutputs.

    Args:
        aux_logits: have the two auxiliary classifiers, which run in training only.
        transform_input: take images normalised by ImageNet's means and deviations and bring them to [-1, 1], for which
            the published weights were trained; three channels.
        init_weights: weights start normal with standard deviation 0.01, truncated at +-2; False leaves the layers' own.
        dropout, dropout_aux: probability in front of the last layer, of the main and of the auxiliary classifiers.
        width: factor on the numbers of channels.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        init_weights: bool = True,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
        *,
        in_channels: int = 3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if transform_input and in_channels != 3:
            raise ValueError(f"transform_input is for images of three colours, got in_channels={in_channels}")
        self.aux_logits, self.transform_input = aux_logits, transform_input

        def inception(before: BasicConv2d | Inception, *channels: int) -> Inception:
            return Inception(before.out_channels, *(scaled(c, width) for c in channels))

        stem, stem_out = scaled(64, width), scaled(192, width)
        self.conv1 = BasicConv2d(in_channels, stem, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = BasicConv2d(stem, stem, kernel_size=1)
        self.conv3 = BasicConv2d(stem, stem_out, kernel_size=3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = inception(self.conv3, 64, 96, 128, 16, 32, 32)
        self.inception3b = inception(self.inception3a, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = inception(self.inception3b, 192, 96, 208, 16, 48, 64)
        self.inception4b = inception(self.inception4a, 160, 112, 224, 24, 64, 64)
        self.inception4c = inception(self.inception4b, 128, 128, 256, 24, 64, 64)
        self.inception4d = inception(self.inception4c, 112, 144, 288, 32, 64, 64)
        self.inception4e = inception(self.inception4d, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = inception(self.inception4e, 256, 160, 320, 32, 128, 128)
        self.inception5b = inception(self.inception5a, 384, 192, 384, 48, 128, 128)
        if aux_logits:
            self.aux1 = InceptionAux(self.inception4a.out_channels, num_classes, dropout_aux, width)
            self.aux2 = InceptionAux(self.inception4d.out_channels, num_classes, dropout_aux, width)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.inception5b.out_channels, num_classes)
        if init_weights:
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    init.trunc_normal_(module.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        if self.transform_input:
            x = _from_imagenet_normalised(x)
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        first = x = self.inception4a(x)
        second = x = self.inception4d(self.inception4c(self.inception4b(x)))
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        x = self.fc(self.dropout(F.flatten(self.avgpool(x), 1)))
        if self.training and self.aux_logits:
            return GoogLeNetOutputs(x, self.aux2(second), self.aux1(first))
        return x


def _from_imagenet_normalised(x: Tensor) -> Tensor:
    """(pixel - mean) / deviation, for ImageNet's of each colour -> (pixel - 0.5) / 0.5."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    factor = creation.tensor([[[[d / 0.5]] for d in deviation]], dtype=x.dtype, device=x.device)
    shift = creation.tensor([[[[(m - 0.5) / 0.5]] for m in mean]], dtype=x.dtype, device=x.device)
    return x * factor + shift


def googlenet(num_classes: int = 1000, **options: Any) -> GoogLeNet:
    """GoogLeNet of "Going deeper with convolutions" (arXiv:1409.4842)."""
    return GoogLeNet(num_classes, **options)
