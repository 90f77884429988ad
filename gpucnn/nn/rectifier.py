"""Rectifiers as modules: piecewise linear activations and exponential linear units.

`inplace`, where PyTorch has it, is a hint that changes no result: the engine decides which memory it uses again.
"""

from __future__ import annotations

from gpucnn import creation
from gpucnn import functional as F
from gpucnn.nn import init
from gpucnn.nn.activation import InplaceHint
from gpucnn.nn.module import Module
from gpucnn.nn.parameter import Parameter
from gpucnn.tensor import Tensor


class ReLU(InplaceHint):
    """max(x, 0), as F.relu."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)


class ReLU6(InplaceHint):
    """min(max(x, 0), 6), as F.relu6."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input)


class SELU(InplaceHint):
    """1.0507 * elu(x, alpha=1.6733), as F.selu."""

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input)


class LeakyReLU(InplaceHint):
    """x where positive, else negative_slope * x, as F.leaky_relu."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        return _with_hint(f"negative_slope={self.negative_slope}", self)


class PReLU(Module):
    """x where positive, else weight * x, as F.prelu; `weight` is learnt, one number or one a channel.

    Args:
        num_parameters: 1, or the number of channels.
        init: what the weights start from.

    Raises:
        ValueError: num_parameters below 1; on calls what F.prelu raises.
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        if num_parameters < 1:
            raise ValueError(f"PReLU: num_parameters must be at least 1, got {num_parameters}")
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(creation.zeros(num_parameters))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets every weight to `init`."""
        init.constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(InplaceHint):
    """x where positive, else x times a random number in training and a fixed one in evaluation, as F.rrelu."""

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.lower, self.upper = lower, upper

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training)

    def extra_repr(self) -> str:
        return _with_hint(f"lower={self.lower}, upper={self.upper}", self)


class ELU(InplaceHint):
    """x where positive, else alpha * (exp(x) - 1), as F.elu."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        return _with_hint(f"alpha={self.alpha}", self)


class CELU(InplaceHint):
    """x where positive, else alpha * (exp(x / alpha) - 1), as F.celu."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha)

    def extra_repr(self) -> str:
        return _with_hint(f"alpha={self.alpha}", self)


class Hardtanh(InplaceHint):
    """x limited to [min_val, max_val], as F.hardtanh; ValueError unless min_val is less than max_val."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        if not min_val < max_val:
            raise ValueError(f"Hardtanh: min_val must be less than max_val, got {min_val} and {max_val}")
        self.min_val, self.max_val = min_val, max_val

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return _with_hint(f"min_val={self.min_val}, max_val={self.max_val}", self)


class Threshold(InplaceHint):
    """x where greater than `threshold`, else `value`, as F.threshold."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.threshold, self.value = threshold, value

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value)

    def extra_repr(self) -> str:
        return _with_hint(f"threshold={self.threshold}, value={self.value}", self)


class Hardshrink(Module):
    """x where |x| > lambd, else 0, as F.hardshrink."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Softshrink(Module):
    """x less `lambd` towards 0, as F.softshrink."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return F.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


def _with_hint(text: str, module: InplaceHint) -> str:
    return f"{text}, inplace=True" if module.inplace else text
