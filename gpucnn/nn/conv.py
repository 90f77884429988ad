"""Convolution layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from gpucnn import creation
from gpucnn import functional as F
from gpucnn.backend import Array, from_nhwc, to_nhwc
from gpucnn.nn import init
from gpucnn.nn.module import Module, changed
from gpucnn.nn.norm import BatchNorm2d
from gpucnn.nn.parameter import Parameter
from gpucnn.nn.shape import Identity
from gpucnn.problem import IntPair, conv_padding, each_axis, pair
from gpucnn.tensor import Tensor

R = TypeVar("R")

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What the convolution layers share: their arguments, checked, and weight and bias as they start."""

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    output_padding: tuple[int, ...] = ()
    dilation: tuple[int, ...]
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        stride: IntPair,
        padding: IntPair | str,
        dilation: IntPair,
        groups: int,
        bias: bool,
        padding_mode: str,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        name, axes = type(self).__name__, len(kernel_size)
        if groups < 1 or in_channels < 1 or out_channels < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}, "
                "all at least 1"
            )
        if padding_mode not in _PADDING_MODES:
            raise ValueError(f"{name}: padding_mode must be one of {', '.join(_PADDING_MODES)}, got {padding_mode!r}")
        before, total = conv_padding(name, kernel_size, stride, padding, dilation)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = kernel_size
        self.stride = each_axis(stride, axes, "stride", minimum=1)
        self.padding = padding if isinstance(padding, str) else before
        self.dilation = each_axis(dilation, axes, "dilation", minimum=1)
        self.padding_mode = padding_mode
        self._pads = tuple([n for b, t in zip(before[::-1], total[::-1], strict=True) for n in (b, t - b)])
        """Cells at both ends of each axis, the last axis first, as F.pad takes them."""
        channels = (in_channels, out_channels // groups) if transposed else (out_channels, in_channels // groups)
        # Memory is laid out channels-last; of filters with one axis, as of a row of taps.
        weight = creation.zeros(*channels, *(1,) * (2 - axes), *kernel_size)
        self.weight = Parameter(weight.squeeze(2) if axes == 1 else weight)
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if bias:
            bound = 1 / math.sqrt(init.fans(self.weight)[0])
            self.bias = Parameter(creation.zeros(out_channels))
            init.uniform_(self.bias, -bound, bound)
        else:
            self.register_parameter("bias", None)

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """(input, the padding that is left to the convolution, which pads with zeros alone)."""
        if self.padding_mode == "zeros":
            return input, self.padding
        return F.pad(input, self._pads, self.padding_mode), 0

    def extra_repr(self) -> str:
        zeros, ones = (0,) * len(self.kernel_size), (1,) * len(self.kernel_size)
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", padding={self.padding!r}" if self.padding != zeros else ""
        text += f", dilation={self.dilation}" if self.dilation != ones else ""
        text += f", output_padding={self.output_padding}" if any(self.output_padding) else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        text += ", bias=False" if self.bias is None else ""
        return text + (f", padding_mode={self.padding_mode!r}" if self.padding_mode != "zeros" else "")


class Conv1d(_Convolution):
    """1-D convolution of (N,C,L) or (C,L), weight (out_channels, in_channels/groups, S), bias (out_channels,).

    Starts and takes arguments as Conv2d does; see F.conv1d.
    """

    stride: tuple[int]
    padding: tuple[int] | str
    dilation: tuple[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: int | tuple[int] | str = 0,
        dilation: int | tuple[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        kernel = each_axis(kernel_size, 1, "kernel_size", minimum=1)
        super().__init__(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias, padding_mode)

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._padded(input)
        return F.conv1d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv2d(_Convolution):
    """2-D convolution of (N,C,H,W) or (C,H,W), weight (out_channels, in_channels/groups, R, S), bias (out_channels,).

    Both start uniform on +-1/sqrt(fan in), PyTorch's default (He et al. 2015 with a = sqrt(5)). See F.conv2d for the
    arguments and what they raise; `padding_mode`, one of zeros, reflect, replicate and circular, says what is padded
    with, see F.pad.
    """

    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        kernel = pair(kernel_size, "kernel_size", minimum=1)
        super().__init__(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias, padding_mode)

    def forward(self, input: Tensor) -> Tensor:
        return self.convolve(input, F.conv2d)

    def convolve(self, input: Tensor, function: Callable[..., R], **options: Any) -> R:
        """`function`, F.conv2d or F.conv2d_relu, with this layer's state and arguments."""
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = self._padded(input)
        return function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups, **options)

    def joined(self, following: Module) -> tuple[Module, Module] | None:
        """With a BatchNorm2d as they come: (FusedConv2d, Identity)."""
        if type(self) is not Conv2d or type(following) is not BatchNorm2d or changed(self) or changed(following):
            return None
        coefficients = following.scale_shift()
        if coefficients is None or following.num_features != self.out_channels:
            return None
        nothing = Identity()
        nothing.training, nothing.frozen = False, following.frozen
        return FusedConv2d(self, *coefficients), nothing


class FusedConv2d(Conv2d):
    """A Conv2d and the batch norm behind it in evaluation, as `Module.fuse` puts them in the place of the Conv2d.

    (conv(x) + bias) * scale + shift, with the batch norm's scale = weight / sqrt(running_var + eps) and
    shift = bias - running_mean * scale. Of float32 and float64 the scale is multiplied into `weight` and what is added
    lies in `bias`, so that any kernel for convolutions does it all (Jacob et al., "Quantization and training of neural
    networks for efficient integer-arithmetic-only inference", 2018, section 3.2). Products of 16 bits would be rounded
    once more than they need be: there `weight` is the Conv2d's, and `scale` and `shift` are float32 (out_channels,),
    see F.conv2d.
    """

    evaluates_only = True
    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, conv: Conv2d, scale: Array, shift: Array) -> None:
        """`scale`, `shift`: (out_channels,), float64."""
        Module.__init__(self)
        for name, value in vars(conv).items():
            if name not in vars(self):
                setattr(self, name, value)
        weight, bias = conv.weight, conv.bias
        shift = shift if bias is None else shift + bias.data.astype(np.float64) * scale
        folds = weight.dtype.itemsize > 2
        if folds:
            in_memory = to_nhwc(weight.data).astype(np.float64) * scale[:, None, None, None]
            weight = Parameter(from_nhwc(in_memory.astype(weight.dtype)))
        self.weight = Parameter(weight.data, requires_grad=False)
        self.register_parameter("bias", Parameter(shift.astype(weight.dtype), requires_grad=False) if folds else None)
        for name, array in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, None if folds else Tensor(array.astype(np.float32)))
        self.training = False

    def convolve(self, input: Tensor, function: Callable[..., R], **options: Any) -> R:
        """`function`, F.conv2d or F.conv2d_relu, with this layer's state and arguments."""
        return super().convolve(input, function, scale=self.scale, shift=self.shift, **options)

    def extra_repr(self) -> str:
        return super().extra_repr() + (", scale and shift" if self.scale is not None else "")


class ConvTranspose2d(_Convolution):
    """Transposed 2-D convolution of (N,C,H,W) or (C,H,W), which may make larger images of them.

    The weight is (in_channels, out_channels/groups, R, S), the bias (out_channels,).

    Both start as in PyTorch, uniform on +-1/sqrt(out_channels/groups * R * S). See F.conv_transpose2d for the
    arguments and what they raise; padding_mode is 'zeros'.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    dilation: tuple[int, int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        output_padding: IntPair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntPair = 1,
        padding_mode: str = "zeros",
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f"ConvTranspose2d: padding_mode must be 'zeros', got {padding_mode!r}")
        kernel = pair(kernel_size, "kernel_size", minimum=1)
        cropped = pair(padding, "padding", minimum=0)
        super().__init__(
            in_channels, out_channels, kernel, stride, cropped, dilation, groups, bias, padding_mode, transposed=True
        )
        self.output_padding = pair(output_padding, "output_padding", minimum=0)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """`output_size` (H, W), or a whole shape that ends so, chooses output_padding instead of the layer's own.

        Raises:
            ValueError: a size that no output_padding below the stride leads to.
        """
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        return F.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _extra(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, int]:
        """The output_padding that leads to `output_size`."""
        wanted = tuple(output_size)
        if len(wanted) not in (2, input.ndim):
            raise ValueError(f"ConvTranspose2d: output_size must be (H, W) or a whole output shape, got {output_size}")
        geometry = zip(input.shape[-2:], self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        least = [(size - 1) * s - 2 * pad + d * (taps - 1) + 1 for size, taps, s, pad, d in geometry]
        most = [size + s - 1 for size, s in zip(least, self.stride, strict=True)]
        P, Q = wanted[-2:]
        if not (least[0] <= P <= most[0] and least[1] <= Q <= most[1]):
            raise ValueError(
                f"ConvTranspose2d: output_size must lie between {tuple(least)} and {tuple(most)} for an input of "
                f"{input.shape[-2:]}, got {output_size}"
            )
        return P - least[0], Q - least[1]


class DepthwiseSeparableConv2d(Module):
    """A filter for each channel alone (`depthwise`), then a 1x1 convolution across channels (`pointwise`).

    Costs about 1/out_channels + 1/(R*S) of a Conv2d of the same shape (Sifre, "Rigid-motion scattering for image
    classification", 2014; Howard et al., "MobileNets", 2017). (N, in_channels, H, W) -> (N, out_channels, P, Q).

    Args:
        depth_multiplier: filters for each input channel: in_channels * depth_multiplier lie between the two steps.
        kernel_size, stride, padding, dilation: of the depthwise step, see F.conv2d.
        bias: of both steps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        bias: bool = True,
        depth_multiplier: int = 1,
    ) -> None:
        super().__init__()
        between = in_channels * depth_multiplier
        self.depthwise = Conv2d(in_channels, between, kernel_size, stride, padding, dilation, in_channels, bias)
        self.pointwise = Conv2d(between, out_channels, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = self.pointwise(self.depthwise(input))
        return y
