"""Transposed convolution by its definition, in float64.

Each element of x times a filter is laid down in y around the element's place. With G groups, C/G input and K/G output
channels in each, and

    p = h*stride - padding + r*dilation,    q = w*stride - padding + s*dilation    (each axis with its own numbers),

    y[n,g,k,p,q] = bias[g,k] + sum over c and h, r, w, s that reach p, q of  x[n,g,c,h,w] * weight[g,c,k,r,s]

What falls outside y is lost. The gradients are the same sum read from its other ends, and that of the bias is
`conv2d_bias_grad`. Loops run over the elements h, w
and the taps r, s; the channels of one tap are an einsum that spells out its indices.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.testing.naive.conv2d import by_group
from gpucnn.testing.naive.sizes import IntPair, Meetings, meetings, pair


def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
) -> NDArray[np.float64]:
    """As `torch.nn.functional.conv_transpose2d`.

    Args:
        x: images (N, C, H, W).
        weight: filters (C, K/groups, R, S).
        bias: (K,) or None.

    Returns:
        (N, K, P, Q), float64: what all filters cover, cropped by `padding` at each side, and `output_padding` more
        rows and columns at the end.
    """
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    rows, columns, (P, Q) = _relations(x.shape, weight.shape, stride, padding, output_padding, dilation)
    N, K_group = x.shape[0], weight.shape[1]
    x_, weight_ = by_group(x, 1, groups), by_group(weight, 0, groups)
    y_ = np.zeros((N, groups, K_group, P, Q))
    if bias is not None:
        y_ += np.asarray(bias, np.float64).reshape(1, groups, K_group, 1, 1)
    for (h, r, p), (w, s, q) in product(rows, columns):
        y_[:, :, :, p, q] += np.einsum("ngc,gck->ngk", x_[:, :, :, h, w], weight_[:, :, :, r, s])
    return y_.reshape(N, groups * K_group, P, Q)


def conv_transpose2d_input_grad(
    dy: ArrayLike,
    weight: ArrayLike,
    x_shape: tuple[int, int, int, int],
    stride: IntPair = 1,
    padding: IntPair = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
) -> NDArray[np.float64]:
    """Gradient with respect to x of sum(conv_transpose2d(x, weight) * dy), of shape x_shape (N, C, H, W).

    dx[n, g, c, h, w] = sum over k, r, s of  dy[n, g, k, p, q] * weight[g,c,k,r,s]
    """
    dy, weight = np.asarray(dy, np.float64), np.asarray(weight, np.float64)
    rows, columns, _ = _relations(x_shape, weight.shape, stride, padding, output_padding, dilation)
    dy_, weight_ = by_group(dy, 1, groups), by_group(weight, 0, groups)
    dx_ = by_group(np.zeros(x_shape), 1, groups)
    for (h, r, p), (w, s, q) in product(rows, columns):
        dx_[:, :, :, h, w] += np.einsum("ngk,gck->ngc", dy_[:, :, :, p, q], weight_[:, :, :, r, s])
    return dx_.reshape(x_shape)


def conv_transpose2d_weight_grad(
    dy: ArrayLike,
    x: ArrayLike,
    weight_shape: tuple[int, int, int, int],
    stride: IntPair = 1,
    padding: IntPair = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
) -> NDArray[np.float64]:
    """Gradient with respect to weight of sum(conv_transpose2d(x, weight) * dy), of shape weight_shape.

    dweight[g, c, k, r, s] = sum over n, h, w of  x[n, g, c, h, w] * dy[n, g, k, p, q]
    """
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    rows, columns, _ = _relations(x.shape, weight_shape, stride, padding, output_padding, dilation)
    dy_, x_ = by_group(dy, 1, groups), by_group(x, 1, groups)
    dweight_ = by_group(np.zeros(weight_shape), 0, groups)
    for (h, r, p), (w, s, q) in product(rows, columns):
        dweight_[:, :, :, r, s] += np.einsum("ngc,ngk->gck", x_[:, :, :, h, w], dy_[:, :, :, p, q])
    return dweight_.reshape(weight_shape)


def _relations(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: IntPair,
    padding: IntPair,
    output_padding: IntPair,
    dilation: IntPair,
) -> tuple[Meetings, Meetings, tuple[int, int]]:
    """All (h, r, p) and all (w, s, q) that meet inside the output, and the output's size (P, Q)."""
    arguments = (pair(stride), pair(padding), pair(output_padding), pair(dilation))
    (rows, P), (columns, Q) = (_along(*axis) for axis in zip(x_shape[2:], weight_shape[2:], *arguments, strict=True))
    return rows, columns, (P, Q)


def _along(
    size: int, kernel: int, stride: int, padding: int, output_padding: int, dilation: int
) -> tuple[Meetings, int]:
    covered = (size - 1) * stride + (kernel - 1) * dilation + 1
    outputs = covered - 2 * padding + output_padding
    if outputs < 1:
        raise ValueError(f"nothing is left of {covered} cells, cropped by {padding} at both ends")
    return meetings(size, outputs, kernel, stride, padding, dilation), outputs
