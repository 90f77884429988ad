"""Rectifiers: piecewise linear activations and exponential linear units.

`inplace`, where PyTorch has it, is a hint that changes no result: the engine decides which memory it uses again.
"""

from __future__ import annotations

import math

from gpucnn import random
from gpucnn.functional.activation import apply, real
from gpucnn.functional.checks import floats_together
from gpucnn.operators.casts import lowered
from gpucnn.ops import rectifier
from gpucnn.reference.rectifier import EluProblem, HardtanhProblem, RReluProblem, ThresholdProblem
from gpucnn.tensor import Tensor, record

_SELU = EluProblem(alpha=1.6732632423543772848, scale=1.0507009873554804934)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); the gradient at 0 is 0 (Nair and Hinton, "Rectified linear units improve restricted Boltzmann
    machines", 2010).

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("relu", rectifier.ReLU, input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6); the gradient at 0 and 6 is 0 (Krizhevsky, "Convolutional deep belief networks on CIFAR-10",
    2010).

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("relu6", rectifier.Hardtanh, input, HardtanhProblem(0.0, 6.0))


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x limited to [min_val, max_val]; the gradient at both is 0 (Collobert, "Large scale machine learning", 2004).

    Any shape, element by element.

    Raises:
        ValueError: min_val is greater than max_val.
        TypeError: not a floating tensor, bounds that are no numbers.
    """
    floats_together("hardtanh", input=input)
    low, high = real(min_val, "hardtanh: min_val"), real(max_val, "hardtanh: max_val")
    if low > high:
        raise ValueError(f"hardtanh: min_val={min_val} is greater than max_val={max_val}")
    held = input.dtype.type
    return apply("hardtanh", rectifier.Hardtanh, input, HardtanhProblem(float(held(low)), float(held(high))))


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, else negative_slope * x, which is the slope at 0 too (Maas, Hannun and Ng, "Rectifier
    nonlinearities improve neural network acoustic models", 2013).

    Any shape, element by element. TypeError: not a floating tensor, negative_slope no number.
    """
    return apply("leaky_relu", rectifier.LeakyReLU, input, real(negative_slope, "leaky_relu: negative_slope"))


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where positive, else weight * x (He et al., "Delving deep into rectifiers", 2015).

    Args:
        input: any shape; with a weight a channel (N,C,...).
        weight: one number (shape (1,) or ()), or (C,), one a channel of axis 1.

    Raises:
        ValueError: a weight of another shape.
        TypeError: not tensors of one floating dtype.
    """
    input, weight = lowered(input, weight)
    floats_together("prelu", input=input, weight=weight)
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, channels):
        raise ValueError(
            f"prelu: weight must have shape (1,), or ({channels},) for the channels of input {input.shape}, "
            f"got {weight.shape}"
        )
    shaped = weight.reshape(-1, *(1,) * (input.ndim - 2)) if input.ndim else weight.reshape()
    return record(rectifier.PReLU, (input, shaped), {})  # type: ignore[no-any-return]


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """x where positive, else x times a number between `lower` and `upper`: in training one drawn for each element,
    else their mean (Xu et al., "Empirical evaluation of rectified activations in convolutional network", 2015).

    What is drawn is a function of the seed (`gpucnn.manual_seed`), of how often numbers were drawn since, and of the
    element's place in (N,C,H,W) order: the same on every backend. Any shape.

    Raises:
        ValueError: lower is greater than upper, or one of them not finite.
        TypeError: not a floating tensor, bounds that are no numbers.
    """
    low, high = real(lower, "rrelu: lower"), real(upper, "rrelu: upper")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"rrelu: lower must not exceed upper, and both be finite, got {lower} and {upper}")
    if not training:
        return apply("rrelu", rectifier.LeakyReLU, input, (low + high) / 2)
    floats_together("rrelu", input=input)
    return apply("rrelu", rectifier.RReLU, input, RReluProblem(input.shape, low, high, *random.next_call()))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else alpha * (exp(x) - 1) (Clevert et al., "Fast and accurate deep network learning by
    exponential linear units", 2015).

    Any shape, element by element. TypeError: not a floating tensor, alpha no number.
    """
    return apply("elu", rectifier.ELU, input, EluProblem(real(alpha, "elu: alpha")))


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """1.0507 * elu(x, alpha=1.6733), with the digits of Klambauer et al., "Self-normalizing neural networks", 2017.

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("selu", rectifier.ELU, input, _SELU)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else alpha * (exp(x / alpha) - 1) (Barron, "Continuously differentiable exponential linear
    units", 2017).

    Any shape, element by element.

    Raises:
        ValueError: alpha is 0.
        TypeError: not a floating tensor, alpha no number.
    """
    value = real(alpha, "celu: alpha")
    if value == 0:
        raise ValueError("celu: alpha must not be 0")
    return apply("celu", rectifier.ELU, input, EluProblem(value, input_scale=1 / value))


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where greater than `threshold`, else `value`.

    Any shape, element by element. TypeError: not a floating tensor, threshold or value no number.
    """
    problem = ThresholdProblem(real(threshold, "threshold: threshold"), real(value, "threshold: value"))
    return apply("threshold", rectifier.Threshold, input, problem)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, else 0: hard thresholding (Donoho and Johnstone, "Ideal spatial adaptation by wavelet
    shrinkage", 1994).

    Any shape, element by element. TypeError: not a floating tensor, lambd no number.
    """
    return apply("hardshrink", rectifier.Hardshrink, input, real(lambd, "hardshrink: lambd"))


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x less `lambd` towards 0, and 0 where |x| <= lambd: soft thresholding (see `hardshrink`).

    Any shape, element by element.

    Raises:
        ValueError: lambd is negative.
        TypeError: not a floating tensor, lambd no number.
    """
    width = real(lambd, "softshrink: lambd")
    if not width >= 0:
        raise ValueError(f"softshrink: lambd must be at least 0, got {lambd}")
    return apply("softshrink", rectifier.Softshrink, input, width)
