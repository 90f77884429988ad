"""Windows of images as columns of a matrix, and the sum of such columns where they came from.

x (N,H,W,C), columns (N, C*R*S, P*Q). Images are turned to planes (C,H,W) first, a block at a time: along their rows
windows are runs in memory, as they are in the columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backend import NCHW, NHWC, Array, accumulator, empty, namespace, zeros
from gpucnn.problem import Pool2dProblem
from gpucnn.reference.common import blocks, is_large
from gpucnn.reference.parallel import for_each


def unfold(p: Pool2dProblem, x: Array) -> Array:
    """columns: what each window sees, zeros outside the image; rows in the order c, r, s."""
    columns = empty((p.N, p.C, p.R, p.S, p.P, p.Q), x.dtype, x)

    def run(block: slice) -> None:
        planes, inside = _planes(p, block, x.dtype, x)
        planes[inside] = x[block].transpose(NCHW)
        columns[block] = _windows(p, planes)

    _for_each_block(p, x, run)
    return columns.reshape(p.N, p.C * p.R * p.S, p.P * p.Q)


def fold(p: Pool2dProblem, columns: Array) -> Array:
    """x: each element the sum of what the windows that see it have for it."""
    x = empty((p.N, p.H, p.W, p.C), columns.dtype, columns)
    by_tap = columns.reshape(p.N, p.C, p.R, p.S, p.P, p.Q)

    def run(block: slice) -> None:
        planes, inside = _planes(p, block, accumulator(columns.dtype), columns)
        places = _windows(p, planes)
        for r in range(p.R):
            for s in range(p.S):
                target = places[:, :, r, s]  # a view of the planes, in which no element comes twice
                target += by_tap[block, :, r, s]
        x[block] = planes[inside].transpose(NHWC)

    _for_each_block(p, columns, run)
    return x


def _planes(p: Pool2dProblem, block: slice, dtype: np.dtype[Any], like: Array) -> tuple[Array, tuple[slice, ...]]:
    """Zeros (n, C, height, width) with room for all that the windows reach, and where in them the images lie."""
    (top, left), (below, right) = p.padding, p.padding_after
    planes = zeros((block.stop - block.start, p.C, top + p.H + below, left + p.W + right), dtype, like)
    return planes, (slice(None), slice(None), slice(top, top + p.H), slice(left, left + p.W))


def _windows(p: Pool2dProblem, planes: Array) -> Array:
    """The view (n,C,R,S,P,Q) of every window of planes (n,C,height,width)."""
    n, c, h, w = planes.strides
    return namespace(planes).lib.stride_tricks.as_strided(
        planes,
        (*planes.shape[:2], p.R, p.S, p.P, p.Q),
        (n, c, h * p.dilation[0], w * p.dilation[1], h * p.stride[0], w * p.stride[1]),
    )


def _for_each_block(p: Pool2dProblem, like: Array, run: Any) -> None:
    image_bytes = p.C * p.R * p.S * p.P * p.Q * int(like.itemsize)
    for_each(run, blocks(p.N, image_bytes), like, share=is_large(p.N * image_bytes))
