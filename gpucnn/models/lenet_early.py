"""The LeNets before ReLU and max pooling: trainable subsampling, squashing by a scaled tanh, maps partly connected.

LeCun et al., "Handwritten digit recognition with a back-propagation network" (1990) for LeNet-1; LeCun et al.,
"Comparison of learning algorithms for handwritten digit recognition" (1995) for LeNet-4; LeCun, Bottou, Bengio and
Haffner, "Gradient-based learning applied to document recognition" (1998) for LeNet-5, all of the layers here and how
weights start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gpucnn import creation, nn
from gpucnn import functional as F
from gpucnn.functional.shape import cat
from gpucnn.models.digit_codes import digit_codes
from gpucnn.nn import init
from gpucnn.tensor import Tensor

# Table 1 of the 1990 paper: which of the four maps of H2 each of the twelve maps of H3 reads. Two halves, kept apart.
LENET1_TABLE = tuple(
    tuple(first + place for place in places)
    for first in (0, 2)
    for places in ((0,), (0, 1), (0, 1), (1,), (0, 1), (0, 1))
)
# Table I of the 1998 paper: which of the six maps of S2 each of the sixteen maps of C3 reads.
LENET5_TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)


def squash(x: Tensor) -> Tensor:
    """1.7159 tanh(2/3 x): +-1 at +-1, where its curvature is largest (appendix A of the 1998 paper)."""
    return 1.7159 * F.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The sum of each 2x2 window times a coefficient plus a bias, one of each a map: two parameters a map.

    (N, C, H, W) -> (N, C, H // 2, W // 2). Starts as the average.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(creation.zeros(channels, 1, 1))
        self.bias = nn.Parameter(creation.zeros(channels, 1, 1))
        init.constant_(self.weight, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2, divisor_override=1) * self.weight + self.bias

    def extra_repr(self) -> str:
        return str(len(self.weight))


class TableConv2d(nn.Module):
    """A convolution in which each output map reads some of the input maps only, with weights for these alone.

    Args:
        table: for each output map the input maps that it reads.
    """

    def __init__(self, in_channels: int, table: Sequence[Sequence[int]], kernel_size: int) -> None:
        super().__init__()
        self.table = table
        connections = sum(map(len, table))
        self.weight = nn.Parameter(creation.zeros(connections, kernel_size, kernel_size))
        self.bias = nn.Parameter(creation.zeros(len(table)))
        self._places = np.full((len(table), in_channels), connections)  # of the zeros behind the weights
        numbers = iter(range(connections))
        for output, inputs in enumerate(table):
            self._places[output, list(inputs)] = [next(numbers) for _ in inputs]

    def forward(self, x: Tensor) -> Tensor:
        # Weights and zeros side by side, then one look-up: (K, C, R, S) with zeros where the table has no connection.
        filters = F.pad(self.weight, (0, 0, 0, 0, 0, 1))[self._places]
        return F.conv2d(x, filters, self.bias)

    def extra_repr(self) -> str:
        K, C = self._places.shape
        return f"{C}, {K}, connections={self.weight.shape[0]}, kernel_size={self.weight.shape[1:]}"


def _initialise(module: nn.Module) -> None:
    """Uniform on +-2.4 / fan in, the paper's rule, and biases 0."""
    if isinstance(module, TableConv2d):
        window, start = module.weight.shape[1:], 0
        for inputs in module.table:  # each map has a fan in of its own
            end = start + len(inputs)
            bound = 2.4 / (len(inputs) * math.prod(window))
            init.uniform_(module.weight.detach()[start:end], -bound, bound)
            start = end
        init.zeros_(module.bias)
    elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        bound = 2.4 / math.prod(module.weight.shape[1:])
        init.uniform_(module.weight, -bound, bound)
        init.zeros_(module.bias)


class LeNet1(nn.Module):
    """Input (N, in_channels, 28, 28), output (N, num_classes) logits; the paper's 2,578 parameters for 10 grey digits.

    4 maps of 5x5, subsampling, 12 maps of 5x5 that each read one or two of the 4, subsampling, all connected to the
    outputs, which the paper squashes too.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 4, kernel_size=5)
        self.pool1 = Subsampling(4)
        self.conv2 = TableConv2d(4, LENET1_TABLE, kernel_size=5)
        self.pool2 = Subsampling(12)
        self.fc = nn.Linear(12 * 4 * 4, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = squash(self.pool1(squash(self.conv1(x))))
        x = squash(self.pool2(squash(self.conv2(x))))
        x = self.fc(F.flatten(x, 1))
        return x


class LeNet4(nn.Module):
    """Input (N, in_channels, image_size, image_size), padded to 32x32; output (N, num_classes) logits.

    4 maps of 5x5, 8 maps of subsampling, which read the 4 in pairs, 16 maps of 5x5, subsampling, 120 units, outputs;
    52,698 parameters for 10 grey digits. The paper names about 17,000, without saying which connections it leaves out;
    here every map and unit behind the pairs is connected.

    Raises:
        ValueError: an image size that can't be padded evenly to 32.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 4, kernel_size=5, padding=_to_32("LeNet-4", image_size))
        self.pool1 = Subsampling(8)
        self.conv2 = nn.Conv2d(8, 16, kernel_size=5)
        self.pool2 = Subsampling(16)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = squash(self.conv1(x))
        x = squash(self.pool1(cat([x, x], 1)))
        x = squash(self.pool2(squash(self.conv2(x))))
        x = self.fc2(squash(self.fc1(F.flatten(x, 1))))
        return x


class LeNet51998(nn.Module):
    """LeNet-5 as published: 60,000 trainable parameters for 10 grey digits.

    Input (N, in_channels, image_size, image_size), padded to 32x32; output (N, num_classes): minus the squared distance
    between the 84 units of F6 and each class's code, so that `F.cross_entropy` of it is the paper's criterion (its
    equation 9, without the rubbish class). The codes are fixed: drawings of the digits in 7x12 pixels of +-1.

    Raises:
        ValueError: an image size that can't be padded evenly to 32; more classes than there are codes.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(in_channels, 6, kernel_size=5, padding=_to_32("LeNet-5", image_size))
        self.s2 = Subsampling(6)
        self.c3 = TableConv2d(6, LENET5_TABLE, kernel_size=5)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, kernel_size=5)
        self.f6 = nn.Linear(120, 84)
        self.register_buffer("codes", Tensor(digit_codes(num_classes)))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = squash(self.s2(squash(self.c1(x))))
        x = squash(self.s4(squash(self.c3(x))))
        x = squash(self.f6(F.flatten(squash(self.c5(x)), 1)))
        return -((x.unsqueeze(1) - self.codes) ** 2).sum(2)  # type: ignore[no-any-return]


def _to_32(name: str, image_size: int) -> int:
    if image_size not in range(2, 33, 2):
        raise ValueError(f"{name} takes images of 32x32 or evenly padded to it (28x28), not of size {image_size}")
    return (32 - image_size) // 2


def lenet1(num_classes: int = 10, in_channels: int = 1) -> LeNet1:
    """LeNet-1 of "Handwritten digit recognition with a back-propagation network" (1990), for 28x28 images."""
    return LeNet1(num_classes, in_channels)


def lenet4(num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> LeNet4:
    """LeNet-4 of "Comparison of learning algorithms for handwritten digit recognition" (1995)."""
    return LeNet4(num_classes, in_channels, image_size)


def lenet5_1998(num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> LeNet51998:
    """LeNet-5 of "Gradient-based learning applied to document recognition" (1998): tanh, subsampling, RBF outputs."""
    return LeNet51998(num_classes, in_channels, image_size)
