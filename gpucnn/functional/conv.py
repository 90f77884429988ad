"""Convolutions, and the windows that they see."""

from __future__ import annotations

from typing import Any

from gpucnn.autograd import Function
from gpucnn.functional.checks import batched, bias_fits, floats_together, hashable
from gpucnn.operators.casts import lowered
from gpucnn.ops import conv2d as conv2d_ops
from gpucnn.ops.conv_transpose2d import ConvTranspose2d
from gpucnn.ops.unfold import Fold, Unfold
from gpucnn.precision import checked_precision
from gpucnn.problem import (
    IntPair,
    conv1d_problem,
    conv2d_problem,
    conv_transpose2d_problem,
    fold_problem,
    unfold_problem,
)
from gpucnn.tensor import Tensor, record


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair | str = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    kernel: str | None = None,
    precision: str | None = None,
) -> Tensor:
    """2-D cross-correlation of (N,C,H,W) or (C,H,W) with filters (K, C/groups, R, S): (N,K,P,Q) or (K,P,Q).

    P = floor((H + 2*padding - dilation*(R-1) - 1) / stride) + 1, Q likewise. Depthwise with groups=C.

    LeCun et al., "Gradient-based learning applied to document recognition" (1998); groups: Krizhevsky, Sutskever and
    Hinton (2012); dilation: Yu and Koltun, "Multi-scale context aggregation by dilated convolutions" (2016).

    Args:
        bias: (K,) added to every position, or None.
        stride, dilation: int or (vertical, horizontal), at least 1.
        padding: zeros at each side: int or (vertical, horizontal), 'valid' (none) or 'same' (P=H, Q=W; stride 1).
        groups: input and output channels fall into that many groups which do not see each other.
        kernel: name of the forward kernel to force; default the registry's choice.
        precision: of float32, in the gradients too: "highest" or "high" (TF32); default what `set_float32_precision`
            said.

    Raises:
        ValueError: shapes or arguments that do not fit together, or `kernel` can't run this.
        TypeError: not tensors, not of one floating dtype.
    """
    arguments = hashable("conv2d", stride=stride, padding=padding, dilation=dilation, groups=groups)
    return _conv2d("conv2d", conv2d_ops.Conv2d, input, weight, bias, arguments, kernel, precision)


def conv2d_relu(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair | str = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    kernel: str | None = None,
    precision: str | None = None,
) -> Tensor:
    """relu(conv2d(...)) in one pass over memory: arguments, shapes and errors are those of `conv2d`.

    Gradients are those of the two: that of y is masked where y is 0.
    """
    arguments = hashable("conv2d_relu", stride=stride, padding=padding, dilation=dilation, groups=groups)
    return _conv2d("conv2d_relu", conv2d_ops.Conv2dReLU, input, weight, bias, arguments, kernel, precision)


def _conv2d(
    op: str,
    function: type[Function],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    arguments: list[Any],
    kernel: str | None,
    precision: str | None,
) -> Tensor:
    input, weight, bias = lowered(input, weight, bias)
    floats_together(op, "bias", input=input, weight=weight, bias=bias)
    precision = checked_precision(precision, op)

    def run(x: Tensor) -> Tensor:
        problem = conv2d_problem(x.shape, weight.shape, *arguments, precision)
        bias_fits(op, bias, problem.K)
        return record(function, (x, weight, bias), {"problem": problem, "kernel": kernel})  # type: ignore[no-any-return]

    return batched(input, run)  # type: ignore[no-any-return]


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] | str = 0,
    dilation: int | tuple[int] = 1,
    groups: int = 1,
    *,
    kernel: str | None = None,
    precision: str | None = None,
) -> Tensor:
    """1-D cross-correlation of (N,C,L) or (C,L) with filters (K, C/groups, S): (N,K,Q) or (K,Q).

    Runs as a conv2d of images of one row, and its arguments mean what they mean there. Waibel et al., "Phoneme
    recognition using time-delay neural networks" (1989).

    Raises:
        ValueError: shapes or arguments that do not fit together, or `kernel` can't run this.
        TypeError: not tensors, not of one floating dtype.
    """
    input, weight, bias = lowered(input, weight, bias)
    floats_together("conv1d", "bias", input=input, weight=weight, bias=bias)
    arguments = hashable("conv1d", stride=stride, padding=padding, dilation=dilation, groups=groups)
    x = input.unsqueeze(0) if input.ndim == 2 else input
    problem = conv1d_problem(x.shape, weight.shape, *arguments, checked_precision(precision, "conv1d"))
    bias_fits("conv1d", bias, problem.K)
    row: Tensor = record(
        conv2d_ops.Conv2d, (x.unsqueeze(2), weight.unsqueeze(2), bias), {"problem": problem, "kernel": kernel}
    )
    y = row.squeeze(2)
    return y.squeeze(0) if input.ndim == 2 else y


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    *,
    kernel: str | None = None,
    precision: str | None = None,
) -> Tensor:
    """Transposed 2-D convolution of (N,C,H,W) or (C,H,W) with filters (C, K/groups, R, S): (N,K,P,Q) or (K,P,Q).

    P = (H-1)*stride - 2*padding + dilation*(R-1) + 1 + output_padding, Q likewise: the linear map is the transpose of
    the conv2d with the same stride, padding, dilation and groups that leads from (N,K,P,Q) to (N,C,H,W), hence its
    other names, fractionally strided convolution and (a misnomer) deconvolution. Zeiler et al., "Deconvolutional
    networks" (2010); Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).

    Args:
        bias: (K,) added to every position, or None.
        stride, dilation: int or (vertical, horizontal), at least 1.
        padding: rows and columns cropped at each side: int or (vertical, horizontal).
        output_padding: rows below and columns right that are added to the output, smaller than stride or dilation:
            with a stride there are several image sizes that a conv2d takes to H x W.
        groups: input and output channels fall into that many groups which do not see each other.
        kernel: name of the kernel of conv2d's input gradient to force; default the registry's choice.
        precision: as of conv2d.

    Raises:
        ValueError: shapes or arguments that do not fit together, or `kernel` can't run this.
        TypeError: not tensors, not of one floating dtype, an argument that is not an integer.
    """
    op = "conv_transpose2d"
    input, weight, bias = lowered(input, weight, bias)
    floats_together(op, "bias", input=input, weight=weight, bias=bias)
    arguments = hashable(
        op, stride=stride, padding=padding, output_padding=output_padding, groups=groups, dilation=dilation
    )
    precision = checked_precision(precision, op)

    def run(x: Tensor) -> Tensor:
        problem = conv_transpose2d_problem(x.shape, weight.shape, *arguments, precision)
        bias_fits(op, bias, problem.C)
        return record(  # type: ignore[no-any-return]
            ConvTranspose2d, (x, weight, bias), {"problem": problem, "kernel": kernel}
        )

    return batched(input, run)  # type: ignore[no-any-return]


def unfold(
    input: Tensor, kernel_size: IntPair, dilation: IntPair = 1, padding: IntPair = 0, stride: IntPair = 1
) -> Tensor:
    """The windows of images as columns: (N,C,H,W) -> (N, C*R*S, L), or (C,H,W) -> (C*R*S, L).

    L = P * Q windows in row-major order, as many as conv2d has outputs with these arguments; in a column the cells of
    the window, channel by channel, zeros outside the image. A conv2d is weight.reshape(K, -1) times the columns.
    Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing" (2006).

    Raises:
        ValueError: arguments out of range, a window larger than the padded image.
        TypeError: not a tensor, not of a floating dtype, an argument that is not an integer.
    """
    floats_together("unfold", input=input)
    arguments = hashable("unfold", kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)

    def run(x: Tensor) -> Tensor:
        return record(Unfold, (x,), {"problem": unfold_problem("unfold", x.shape, *arguments)})  # type: ignore[no-any-return]

    return batched(input, run)  # type: ignore[no-any-return]


def fold(
    input: Tensor,
    output_size: IntPair,
    kernel_size: IntPair,
    dilation: IntPair = 1,
    padding: IntPair = 0,
    stride: IntPair = 1,
) -> Tensor:
    """Columns summed into the images whose windows they are: (N, C*R*S, L) -> (N,C,H,W), or (C*R*S, L) -> (C,H,W).

    Each element of the image is the sum of what all windows that see it have for it, so fold(unfold(x)) is x times the
    number of windows that see it. (H, W) is `output_size`; the other arguments are unfold's.

    Raises:
        ValueError: columns that are not as long or as many as such windows, arguments out of range.
        TypeError: not a tensor, not of a floating dtype, an argument that is not an integer.
    """
    floats_together("fold", input=input)
    arguments = hashable(
        "fold", output_size=output_size, kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride
    )
    x = input.unsqueeze(0) if input.ndim == 2 else input
    image: Tensor = record(Fold, (x,), {"problem": fold_problem(x.shape, *arguments)})
    return image.squeeze(0) if input.ndim == 2 else image
