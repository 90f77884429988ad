"""Convolutions, and the windows that they see."""

from __future__ import annotations

from typing import Any, Literal, overload

from gpucnn.autograd import Function
from gpucnn.functional.checks import batched, bias_fits, channels_fit, floats_together, hashable
from gpucnn.operators.casts import lowered
from gpucnn.ops import conv2d as conv2d_ops
from gpucnn.ops.conv_transpose2d import ConvTranspose2d
from gpucnn.ops.unfold import Fold, Unfold
from gpucnn.precision import checked_precision
from gpucnn.problem import (
    Conv2dProblem,
    IntPair,
    conv1d_problem,
    conv2d_problem,
    conv_transpose2d_problem,
    fold_problem,
    unfold_problem,
)
from gpucnn.reference.norm_problem import Moments
from gpucnn.tensor import Tensor, record


@overload
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
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    return_moments: Literal[False] = False,
) -> Tensor: ...
@overload
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
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    return_moments: Literal[True],
) -> tuple[Tensor, Moments | None]: ...
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
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    return_moments: bool = False,
) -> Tensor | tuple[Tensor, Moments | None]:
    """2-D cross-correlation of (N,C,H,W) or (C,H,W) with filters (K, C/groups, R, S): (N,K,P,Q) or (K,P,Q).

    P = floor((H + 2*padding - dilation*(R-1) - 1) / stride) + 1, Q likewise. Depthwise with groups=C.

    LeCun et al., "Gradient-based learning applied to document recognition" (1998); groups: Krizhevsky, Sutskever and
    Hinton (2012); dilation: Yu and Koltun, "Multi-scale context aggregation by dilated convolutions" (2016).

    What `scale`, `shift` and `residual` ask for, (conv + bias) * scale + shift + residual, a kernel that can do it does
    in float32 before it rounds and stores; behind one that can't it takes another pass over the result.

    Args:
        bias: (K,) added to every position, or None.
        stride, dilation: int or (vertical, horizontal), at least 1.
        padding: zeros at each side: int or (vertical, horizontal), 'valid' (none) or 'same' (P=H, Q=W; stride 1).
        groups: input and output channels fall into that many groups which do not see each other.
        kernel: name of the forward kernel to force; default the registry's choice.
        precision: of float32, in the gradients too: "highest" or "high" (TF32); default what `set_float32_precision`
            said.
        scale, shift: (K,), both or neither, of input's dtype or, beside 16 bits, of float32: a batch norm of which
            nothing is trained any more. They are constants, which get no gradients.
        residual: added at last: of the result's shape and input's dtype. Its gradient is the result's.
        return_moments: return (result, moments) for the batch norm that the result is given to, `F.batch_norm(...,
            moments=...)`, which then need not read it for its statistics; moments is None where the kernel that runs
            does not take them.

    Raises:
        ValueError: shapes or arguments that do not fit together, a scale or shift that requires a gradient, or
            `kernel` can't run this.
        TypeError: not tensors, not of one floating dtype.
    """
    arguments = hashable("conv2d", stride=stride, padding=padding, dilation=dilation, groups=groups)
    return _conv2d(
        "conv2d", conv2d_ops.Conv2d, input, weight, bias, arguments, kernel, precision, scale, shift, residual,
        return_moments,
    )  # fmt: skip


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
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """relu(conv2d(...)) in one pass over memory: arguments, shapes and errors are those of `conv2d`.

    Gradients are those of the two: that of y, also as the residual gets it, is masked where y is 0. The mask is y
    itself, which is kept; no other is written.
    """
    arguments = hashable("conv2d_relu", stride=stride, padding=padding, dilation=dilation, groups=groups)
    return _conv2d(  # type: ignore[return-value]
        *("conv2d_relu", conv2d_ops.Conv2dReLU, input, weight, bias, arguments, kernel, precision),
        *(scale, shift, residual, False),
    )


def _conv2d(
    op: str,
    function: type[Function],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    arguments: tuple[Any, ...],
    kernel: str | None,
    precision: str | None,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    return_moments: bool,
) -> Tensor | tuple[Tensor, Moments | None]:
    input, weight, bias, residual = lowered(input, weight, bias, residual)
    floats_together(op, "bias", "residual", input=input, weight=weight, bias=bias, residual=residual)
    precision = checked_precision(precision, op)
    if scale is not None or shift is not None:
        _constants(op, input, weight.shape[:1], scale, shift)
    moments: list[Moments] | None = [] if return_moments else None

    def run(x: Tensor) -> Tensor:
        problem = conv2d_problem(x.data.shape, weight.data.shape, *arguments, precision)
        bias_fits(op, bias, problem.K)
        options: dict[str, Any] = {"problem": problem, "kernel": kernel}
        if scale is not None and shift is not None:
            options |= {"scale": scale.data, "shift": shift.data}
        if moments is not None:
            options["moments"] = moments
        if residual is None:
            return record(function, (x, weight, bias), options)  # type: ignore[no-any-return]
        return record(function, (x, weight, bias, _residual(op, residual, x, input, problem)), options)  # type: ignore[no-any-return]

    y: Tensor = batched(input, run)
    return y if moments is None else (y, moments[0] if moments else None)


def _constants(op: str, input: Tensor, channels: tuple[int, ...], scale: Tensor | None, shift: Tensor | None) -> None:
    """scale and shift are there, constant, and numbers of channels."""
    if scale is None or shift is None:
        raise ValueError(f"{op}: scale and shift go together: one is None, the other not")
    channels_fit(op, input, channels, "one number an output channel", scale=scale, shift=shift)
    for name, constant in (("scale", scale), ("shift", shift)):
        if constant.requires_grad:
            raise ValueError(
                f"{op}: {name} requires a gradient, and gets none: it is a constant, of a batch norm that is trained "
                "no more; to train one, call F.batch_norm on the result"
            )


def _residual(op: str, residual: Tensor, x: Tensor, input: Tensor, problem: Conv2dProblem) -> Tensor:
    """As a batch, if it is what can be added to the result."""
    shape = (problem.N, problem.K, problem.P, problem.Q)[x.ndim - input.ndim :]
    if residual.shape != shape:
        raise ValueError(f"{op}: residual must have the result's shape {shape}, got {residual.shape}")
    return residual.unsqueeze(0) if x is not input else residual


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
