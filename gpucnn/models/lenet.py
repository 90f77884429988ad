"""LeNet: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998)."""

from __future__ import annotations

from gpucnn import functional as F
from gpucnn import nn
from gpucnn.tensor import Tensor


class LeNet5(nn.Module):
    """LeNet-5 as it is taught today: ReLU, max pooling, every map connected; 61,706 parameters for 10 grey digits.

    Input (N, in_channels, image_size, image_size), which the first convolution pads to the paper's 32x32; output
    (N, num_classes) logits.

    Raises:
        ValueError: an image size that can't be padded evenly to 32.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        super().__init__()
        if image_size not in range(2, 33, 2):
            raise ValueError(f"LeNet-5 takes images of 32x32 or evenly padded to it (28x28), not of size {image_size}")
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5, padding=(32 - image_size) // 2)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(F.flatten(x, 1)))
        x = F.relu(self.fc2(x))
        return self.fc3(x)  # type: ignore[no-any-return]


def lenet5(num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> LeNet5:
    """LeNet5 with fresh weights."""
    return LeNet5(num_classes, in_channels, image_size)
