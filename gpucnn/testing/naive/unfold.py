"""Unfold and fold by their definitions, in float64.

    columns[n, (c*R + r)*S + s, p*Q + q] = x[n, c, p*stride - padding + r*dilation, q*stride - padding + s*dilation]

where x counts as zero outside the image; fold adds each number of the columns to the element that unfold would have
read it from. Each is the other's gradient.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.testing.naive.sizes import IntPair, Meetings, conv_output_size, meetings, pair


def unfold(
    x: ArrayLike, kernel_size: IntPair, dilation: IntPair = 1, padding: IntPair = 0, stride: IntPair = 1
) -> NDArray[np.float64]:
    """As `torch.nn.functional.unfold`: x (N, C, H, W) -> (N, C*R*S, L)."""
    x = np.asarray(x, np.float64)
    (R, S), (P, Q), places = _places(x.shape[2:], kernel_size, dilation, padding, stride)
    N, C = x.shape[:2]
    columns = np.zeros((N, C * R * S, P * Q))
    for c, (p, r, h), (q, s, w) in product(range(C), *places):
        columns[:, (c * R + r) * S + s, p * Q + q] = x[:, c, h, w]
    return columns


def fold(
    columns: ArrayLike,
    output_size: IntPair,
    kernel_size: IntPair,
    dilation: IntPair = 1,
    padding: IntPair = 0,
    stride: IntPair = 1,
) -> NDArray[np.float64]:
    """As `torch.nn.functional.fold`: columns (N, C*R*S, L) -> (N, C, H, W) with (H, W) = output_size."""
    columns = np.asarray(columns, np.float64)
    (R, S), (_, Q), places = _places(pair(output_size), kernel_size, dilation, padding, stride)
    N, C = columns.shape[0], columns.shape[1] // (R * S)
    x = np.zeros((N, C, *pair(output_size)))
    for c, (p, r, h), (q, s, w) in product(range(C), *places):
        x[:, c, h, w] += columns[:, (c * R + r) * S + s, p * Q + q]
    return x


def _places(
    image: tuple[int, ...], kernel_size: IntPair, dilation: IntPair, padding: IntPair, stride: IntPair
) -> tuple[tuple[int, int], tuple[int, int], tuple[Meetings, Meetings]]:
    """The kernel (R, S), the windows (P, Q), and all (p, r, h) and all (q, s, w) that meet inside the image."""
    vertical, horizontal = zip(image, pair(kernel_size), pair(stride), pair(padding), pair(dilation), strict=True)
    P, Q = conv_output_size(*vertical), conv_output_size(*horizontal)
    return pair(kernel_size), (P, Q), (meetings(P, *vertical), meetings(Q, *horizontal))
