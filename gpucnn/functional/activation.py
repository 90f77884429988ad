"""Smooth activations, sigmoids and self-gated units; gated linear units.

`inplace`, where PyTorch has it, is a hint that changes no result: the engine decides which memory it uses again.
"""

from __future__ import annotations

from typing import Any

from gpucnn.arguments import normalize_axis
from gpucnn.functional.checks import a_floating, axis_last, floats_together
from gpucnn.operators.casts import widened
from gpucnn.ops import activation
from gpucnn.reference.activation import SoftplusProblem
from gpucnn.tensor import Tensor, record


def apply(op: str, function: Any, input: Tensor, problem: Any = None) -> Tensor:
    """`function` of one floating tensor."""
    a_floating(input, "input", op)
    return record(function, (input,), {"problem": problem})  # type: ignore[no-any-return]


def real(value: Any, what: str) -> float:
    """`value` as a Python float; TypeError for what is no number."""
    if isinstance(value, (str, bytes, Tensor)):
        raise TypeError(f"{what} must be a number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a number, got {value!r}") from None


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)).

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("sigmoid", activation.Sigmoid, input)


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent.

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("tanh", activation.Tanh, input)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x).

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("tanhshrink", activation.Tanhshrink, input)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|) (Bergstra et al., "Quadratic polynomials learn better image features", 2009).

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("softsign", activation.Softsign, input)


def logsigmoid(input: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), without overflow.

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("logsigmoid", activation.LogSigmoid, input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """x / 6 + 1/2, limited to [0, 1]; the gradient at -3 and 3 is 0 (Courbariaux et al., "BinaryConnect", 2015).

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("hardsigmoid", activation.Hardsigmoid, input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x exceeds `threshold` (Dugas et al., "Incorporating
    second-order functional knowledge for better option pricing", 2000).

    Any shape, element by element. TypeError: not a floating tensor, beta or threshold no number.
    """
    problem = SoftplusProblem(real(beta, "softplus: beta"), real(threshold, "softplus: threshold"))
    return apply("softplus", activation.Softplus, widened(input), problem)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x / (1 + exp(-x)), also called swish (Hendrycks and Gimpel 2016; Elfwing, Uchibe and Doya 2017).

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("silu", activation.SiLU, input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x times hardsigmoid(x) (Howard et al., "Searching for MobileNetV3", 2019).

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("hardswish", activation.Hardswish, input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)) (Misra, "Mish: a self regularized non-monotonic activation function", 2019).

    Any shape, element by element. TypeError: not a floating tensor.
    """
    return apply("mish", activation.Mish, input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function (Hendrycks and Gimpel, "Gaussian error linear units", 2016).

    Args:
        approximate: 'none' for x / 2 * (1 + erf(x / sqrt(2))), or 'tanh' for the paper's
            x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))).

    Any shape, element by element.

    Raises:
        ValueError: another `approximate`.
        TypeError: not a floating tensor.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return apply("gelu", activation.GELU if approximate == "none" else activation.GELUTanh, input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of the axis `dim` times the sigmoid of the second half.

    Shapes: (..., 2 * n, ...) to (..., n, ...). Dauphin et al., "Language modeling with gated convolutional networks",
    2017.

    Raises:
        ValueError: there is no axis `dim`, or its size is odd.
        TypeError: not a floating tensor.
    """
    floats_together("glu", input=input)
    axis = normalize_axis(dim, input.ndim)
    if input.shape[axis] % 2:
        raise ValueError(f"glu: axis {axis} is cut into halves, but its size in {input.shape} is odd")
    return axis_back(record(activation.GLU, (axis_last(input, axis),), {}), axis)


def axis_back(rows: Tensor, axis: int) -> Tensor:
    """Undoes `axis_last`: a view with the last axis in the place `axis`."""
    last = rows.ndim - 1
    return rows if axis == last else rows.permute(*range(axis), last, *range(axis, last))
