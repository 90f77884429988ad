"""Pooling layers; arguments as in the functions of the same names."""

from __future__ import annotations

from typing import Any

from gpucnn import functional as F
from gpucnn.functional.pooling import AdaptiveSize
from gpucnn.nn.module import Module
from gpucnn.problem import IntPair, pair
from gpucnn.tensor import Tensor


class MaxPool2d(Module):
    """Each window's maximum, (N,C,H,W) -> (N,C,P,Q), or unbatched; see F.max_pool2d."""

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        stride = self.kernel_size if self.stride is None else self.stride
        return f"kernel_size={self.kernel_size}, stride={stride}, padding={self.padding}, dilation={self.dilation}"


class AvgPool2d(Module):
    """Each window's average, (N,C,H,W) -> (N,C,P,Q), or unbatched; see F.avg_pool2d."""

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        stride = self.kernel_size if self.stride is None else self.stride
        return f"kernel_size={self.kernel_size}, stride={stride}, padding={self.padding}"


class LPPool2d(Module):
    """Each window's (sum of x**norm_type)**(1/norm_type), (N,C,H,W) -> (N,C,P,Q), or unbatched; see F.lp_pool2d."""

    def __init__(
        self, norm_type: float, kernel_size: IntPair, stride: IntPair | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool2d(input, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class AdaptiveAvgPool2d(Module):
    """Averages over windows that cover the image, as many as `output_size` asks for.

    (N,C,H,W) -> (N,C,P,Q), or unbatched; see F.adaptive_avg_pool2d.
    """

    def __init__(self, output_size: AdaptiveSize) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class GlobalAvgPool2d(Module):
    """The average of each channel: (N,C,H,W) -> (N,C,1,1), or (C,H,W) -> (C,1,1); see F.adaptive_avg_pool2d.

    Lin, Chen and Yan, "Network in network" (2013).
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, 1)


class AdaptiveMaxPool2d(Module):
    """Maxima over windows that cover the image, as many as `output_size` asks for.

    (N,C,H,W) -> (N,C,P,Q), or unbatched; see F.adaptive_max_pool2d.
    """

    def __init__(self, output_size: AdaptiveSize, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class MaxUnpool2d(Module):
    """Puts pooled values back where MaxPool2d found them, zeros elsewhere; (N,C,P,Q) -> (N,C,H,W), or unbatched.

    See F.max_unpool2d.

    Raises:
        ValueError, TypeError: arguments out of range; on calls what F.max_unpool2d raises.
    """

    def __init__(self, kernel_size: IntPair, stride: IntPair | None = None, padding: IntPair = 0) -> None:
        super().__init__()
        self.kernel_size = pair(kernel_size, "MaxUnpool2d: kernel_size", minimum=1)
        self.stride = self.kernel_size if stride is None else pair(stride, "MaxUnpool2d: stride", minimum=1)
        self.padding = pair(padding, "MaxUnpool2d: padding", minimum=0)

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
