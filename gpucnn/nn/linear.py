"""Fully connected layers."""

from __future__ import annotations

import math

from gpucnn import creation
from gpucnn import functional as F
from gpucnn.nn import init
from gpucnn.nn.module import Module
from gpucnn.nn.parameter import Parameter
from gpucnn.tensor import Tensor


class Linear(Module):
    """(..., in_features) -> (..., out_features): x W^T + b with weight (out_features, in_features); see F.linear.

    Both start uniform on +-1/sqrt(in_features), PyTorch's default (He et al. 2015 with a = sqrt(5)).

    Raises:
        ValueError: features below 1; on calls what F.linear raises.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(f"Linear: features must be at least 1, got {in_features} and {out_features}")
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(creation.zeros(out_features, in_features))
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias: Parameter | None
        if bias:
            self.bias = Parameter(creation.zeros(out_features))
            init.uniform_(self.bias, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features))
        else:
            self.register_parameter("bias", None)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
