"""What a transposed convolution adds to the passes of the convolution that it transposes: its bias."""

from __future__ import annotations

from gpucnn.backend import Array
from gpucnn.problem import Conv2dProblem
from gpucnn.reference.common import add_channels, blocks, is_large
from gpucnn.reference.parallel import for_each


def add_bias(p: Conv2dProblem, y: Array, bias: Array) -> Array:
    """y (N,H,W,C) + bias (C,), in y's memory; H, W, C are the problem's, whose input is this op's output."""

    def run(block: slice) -> None:
        add_channels(y[block], bias)

    for_each(run, blocks(p.N, p.H * p.W * p.C * int(y.itemsize)), y, share=is_large(y.nbytes))
    return y
