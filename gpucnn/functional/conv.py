"""Convolutions."""

from __future__ import annotations

from gpucnn.functional.checks import batched, bias_fits, floats_together, hashable
from gpucnn.ops import conv2d as conv2d_ops
from gpucnn.problem import IntPair, conv2d_problem
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
) -> Tensor:
    """2-D cross-correlation of (N,C,H,W) or (C,H,W) with filters (K, C/groups, R, S): (N,K,P,Q) or (K,P,Q).

    P = floor((H + 2*padding - dilation*(R-1) - 1) / stride) + 1, Q likewise. Depthwise with groups=C.

    Args:
        bias: (K,) added to every position, or None.
        stride, dilation: int or (vertical, horizontal), at least 1.
        padding: zeros at each side: int or (vertical, horizontal), 'valid' (none) or 'same' (P=H, Q=W; stride 1).
        groups: input and output channels fall into that many groups which do not see each other.
        kernel: name of the forward kernel to force; default the registry's choice.

    Raises:
        ValueError: shapes or arguments that do not fit together, or `kernel` can't run this.
        TypeError: not tensors, not of one floating dtype.
    """
    floats_together("conv2d", "bias", input=input, weight=weight, bias=bias)
    arguments = hashable("conv2d", stride=stride, padding=padding, dilation=dilation, groups=groups)

    def run(x: Tensor) -> Tensor:
        problem = conv2d_problem(x.shape, weight.shape, *arguments)
        bias_fits("conv2d", bias, problem.K)
        return record(  # type: ignore[no-any-return]
            conv2d_ops.Conv2d, (x, weight, bias), {"problem": problem, "kernel": kernel}
        )

    return batched(input, run)  # type: ignore[no-any-return]
