"""The fully convolutional networks on VGG-16, in strides of 32, 16 and 8.

Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation" (2015), arXiv:1411.4038. As in
the authors' networks the image is padded by 100 pixels, so that a map is left of the smallest one, and what the
transposed convolutions bring back is cropped to the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.autograd import no_grad
from gpucnn.models.channels import scaled
from gpucnn.models.vgg import STAGE_CHANNELS, vgg_features
from gpucnn.nn import init
from gpucnn.tensor import Tensor, as_array

_PADDING = 100
_POOL3, _POOL4 = 16, 23
"""The last layers of the third and fourth stage within vgg_features."""


def bilinear_filters(channels: int, size: int) -> np.ndarray[Any, Any]:
    """(channels, channels, size, size) for a transposed convolution of stride size / 2 that interpolates bilinearly.

    Each map is enlarged by itself: filters between different maps are 0.
    """
    centre = (size - 1) / 2 if size % 2 else size / 2 - 0.5
    tent = 1 - np.abs(np.arange(size) - centre) / ((size + 1) // 2)
    return (np.eye(channels)[:, :, None, None] * np.outer(tent, tent)).astype(np.float32)


class FCNVGG16(nn.Module):
    """VGG-16 with its linear layers as convolutions, and scores for every pixel.

    Input (N, in_channels, H, W) of any size; output (N, num_classes, H, W) logits. The score layers start at 0 and the
    transposed convolutions as bilinear interpolation, of which the last one is not trained.

    Args:
        stride: 32, 16 or 8: the step at which scores are computed; below 32 those of earlier stages are added.
        dropout: probability behind fc6 and fc7.
        width: factor on the numbers of channels.

    Raises:
        ValueError: another stride.
    """

    def __init__(
        self, stride: int, num_classes: int = 21, dropout: float = 0.5, *, in_channels: int = 3, width: float = 1.0
    ) -> None:
        super().__init__()
        if stride not in (8, 16, 32):
            raise ValueError(f"an FCN on VGG-16 has a stride of 8, 16 or 32, not {stride}")
        self.stride = stride
        self.features = vgg_features((2, 2, 3, 3, 3), in_channels, width=width)
        self.features[0].padding = (_PADDING, _PADDING)
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        third, fourth, fifth = (scaled(channels, width) for channels in STAGE_CHANNELS[2:])
        hidden = scaled(4096, width)
        self.fc6 = nn.Conv2d(fifth, hidden, kernel_size=7)
        self.fc7 = nn.Conv2d(hidden, hidden, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.score_fr = nn.Conv2d(hidden, num_classes, kernel_size=1)
        if stride <= 16:
            self.score_pool4 = nn.Conv2d(fourth, num_classes, kernel_size=1)
            self.upscore2 = nn.ConvTranspose2d(num_classes, num_classes, kernel_size=4, stride=2, bias=False)
        if stride == 8:
            self.score_pool3 = nn.Conv2d(third, num_classes, kernel_size=1)
            self.upscore_pool4 = nn.ConvTranspose2d(num_classes, num_classes, kernel_size=4, stride=2, bias=False)
        self.upscore = nn.ConvTranspose2d(num_classes, num_classes, kernel_size=2 * stride, stride=stride, bias=False)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                start = init.zeros_ if name.startswith("score") else init.kaiming_normal_
                start(module.weight)
                init.zeros_(module.bias)
            elif isinstance(module, nn.ConvTranspose2d):
                with no_grad():
                    module.weight.copy_(bilinear_filters(num_classes, module.kernel_size[0]))
        self.upscore.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        pooled, y = {}, x
        for number, layer in enumerate(self.features):
            y = layer(y)
            if number in (_POOL3, _POOL4):
                pooled[number] = y
        y = self.dropout(F.relu(self.fc6(y)))
        y = self.score_fr(self.dropout(F.relu(self.fc7(y))))
        # Where the scores of a stage begin within its maps follows from the padding: 5 and 9 cells, then 19, 27, 31.
        if self.stride <= 16:
            y = _added(self.upscore2(y), self.score_pool4(pooled[_POOL4]), 5)
        if self.stride == 8:
            y = _added(self.upscore_pool4(y), self.score_pool3(pooled[_POOL3]), 9)
        start = {32: 19, 16: 27, 8: 31}[self.stride]
        return self.upscore(y)[..., start : start + height, start : start + width]  # type: ignore[no-any-return]

    def load_vgg16(self, state: Mapping[str, Any]) -> None:
        """Takes over the weights of `vgg16()`, its first two linear layers as the convolutions that they amount to.

        Args:
            state: `vgg16().state_dict()` or the arrays of a published one.

        Raises:
            ValueError: keys or shapes that are not those of this width's VGG-16; nothing has been loaded then.
        """
        mine = self.state_dict()
        taken = {name: state[name] for name in state if name.startswith("features.")}
        for layer, key in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
            for part in ("weight", "bias"):
                if f"{key}.{part}" in state:
                    array, shape = as_array(state[f"{key}.{part}"]), mine[f"{layer}.{part}"].shape
                    fits = array.size == np.prod(shape)
                    taken[f"{layer}.{part}"] = array.reshape(shape) if fits else array
        kept = {name: value for name, value in mine.items() if name.startswith(("score", "upscore"))}
        self.load_state_dict({**kept, **taken})


def _added(y: Tensor, scores: Tensor, start: int) -> Tensor:
    height, width = y.shape[-2:]
    return y + scores[..., start : start + height, start : start + width]


def fcn32s(num_classes: int = 21, **options: Any) -> FCNVGG16:
    """FCN-32s of "Fully convolutional networks for semantic segmentation" (arXiv:1411.4038) on VGG-16."""
    return FCNVGG16(32, num_classes, **options)


def fcn16s(num_classes: int = 21, **options: Any) -> FCNVGG16:
    """FCN-16s of "Fully convolutional networks for semantic segmentation" (arXiv:1411.4038) on VGG-16."""
    return FCNVGG16(16, num_classes, **options)


def fcn8s(num_classes: int = 21, **options: Any) -> FCNVGG16:
    """FCN-8s of "Fully convolutional networks for semantic segmentation" (arXiv:1411.4038) on VGG-16."""
    return FCNVGG16(8, num_classes, **options)
