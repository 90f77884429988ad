"""Convolution by its definition, in float64.

With G groups, C/G input and K/G output channels in each, and

    h = p*stride - padding + r*dilation,    w = q*stride - padding + s*dilation    (each axis with its own numbers),

    y[n, g, k, p, q] = bias[g, k] + sum over c, r, s of  x[n, g, c, h, w] * weight[g, k, c, r, s]

where x counts as zero outside the image. The three gradients are the same sum read from its other ends. Loops run
over the positions p, q and the taps r, s; the channels of one tap are an einsum that spells out its indices.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.testing.naive.sizes import IntPair, Meetings, conv_output_size, meetings, pair


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
) -> NDArray[np.float64]:
    """Cross-correlation of images with filters, as `torch.nn.functional.conv2d`.

    Args:
        x: images (N, C, H, W).
        weight: filters (K, C/groups, R, S).
        bias: (K,) or None.

    Returns:
        (N, K, P, Q), float64.

    Raises:
        ValueError: shapes that do not fit each other, or a kernel larger than the padded input.
    """
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    rows, columns, (P, Q) = _relations(x.shape, weight.shape, stride, padding, dilation, groups)
    N, K = x.shape[0], weight.shape[0]
    x_, weight_ = by_group(x, 1, groups), by_group(weight, 0, groups)
    y_ = np.zeros((N, groups, K // groups, P, Q))
    if bias is not None:
        bias = np.asarray(bias, np.float64)
        if bias.shape != (K,):
            raise ValueError(f"bias must have shape ({K},), one number a filter, got {bias.shape}")
        y_ += bias.reshape(1, groups, K // groups, 1, 1)
    for (p, r, h), (q, s, w) in product(rows, columns):
        y_[:, :, :, p, q] += np.einsum("ngc,gkc->ngk", x_[:, :, :, h, w], weight_[:, :, :, r, s])
    return y_.reshape(N, K, P, Q)


def conv2d_input_grad(
    dy: ArrayLike,
    weight: ArrayLike,
    x_shape: tuple[int, int, int, int],
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
) -> NDArray[np.float64]:
    """Gradient with respect to x of sum(conv2d(x, weight) * dy), of shape x_shape (N, C, H, W).

    dx[n, g, c, h, w] = sum over all k, p, q, r, s that reach (h, w) of  dy[n, g, k, p, q] * weight[g, k, c, r, s]
    """
    dy, weight = np.asarray(dy, np.float64), np.asarray(weight, np.float64)
    rows, columns, output = _relations(x_shape, weight.shape, stride, padding, dilation, groups)
    _check_cotangent(dy, (x_shape[0], weight.shape[0], *output))
    dy_, weight_ = by_group(dy, 1, groups), by_group(weight, 0, groups)
    N, C, H, W = x_shape
    dx_ = np.zeros((N, groups, C // groups, H, W))
    for (p, r, h), (q, s, w) in product(rows, columns):
        dx_[:, :, :, h, w] += np.einsum("ngk,gkc->ngc", dy_[:, :, :, p, q], weight_[:, :, :, r, s])
    return dx_.reshape(x_shape)


def conv2d_weight_grad(
    dy: ArrayLike,
    x: ArrayLike,
    weight_shape: tuple[int, int, int, int],
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
) -> NDArray[np.float64]:
    """Gradient with respect to weight of sum(conv2d(x, weight) * dy), of shape weight_shape (K, C/groups, R, S).

    dweight[g, k, c, r, s] = sum over n, p, q of  dy[n, g, k, p, q] * x[n, g, c, h, w]
    """
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    rows, columns, output = _relations(x.shape, weight_shape, stride, padding, dilation, groups)
    _check_cotangent(dy, (x.shape[0], weight_shape[0], *output))
    dy_, x_ = by_group(dy, 1, groups), by_group(x, 1, groups)
    dweight_ = by_group(np.zeros(weight_shape), 0, groups)
    for (p, r, h), (q, s, w) in product(rows, columns):
        dweight_[:, :, :, r, s] += np.einsum("ngk,ngc->gkc", dy_[:, :, :, p, q], x_[:, :, :, h, w])
    return dweight_.reshape(weight_shape)


def conv2d_bias_grad(dy: ArrayLike) -> NDArray[np.float64]:
    """Gradient with respect to bias, (K,): dbias[k] = sum over n, p, q of dy[n, k, p, q]."""
    dbias: NDArray[np.float64] = np.einsum("nkpq->k", np.asarray(dy, np.float64))
    return dbias


def conv2d_epilogue(
    sums: ArrayLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    relu: bool = False,
) -> NDArray[np.float64]:
    """y[n, k, p, q] = sums[n, k, p, q] * scale[k] + shift[k] + residual[n, k, p, q], and with `relu` max(y, 0).

    scale and shift (K,), or None for 1 and 0; residual (N, K, P, Q), or None for 0.
    """
    y = np.array(sums, np.float64)
    for k in range(y.shape[1]):
        if scale is not None:
            y[:, k] *= np.asarray(scale, np.float64)[k]
        if shift is not None:
            y[:, k] += np.asarray(shift, np.float64)[k]
    if residual is not None:
        y += np.asarray(residual, np.float64)
    return np.maximum(y, 0) if relu else y


def conv2d_moments(y: ArrayLike, rows: int) -> NDArray[np.float64]:
    """(2 * splits, K): for each split of `rows` windows, in the order n, p, q, a line of means, and one of the sums of
    squared differences from them; the last split has the windows that are left."""
    windows = [image[:, p, q] for image in np.asarray(y, np.float64) for p, q in np.ndindex(image.shape[1:])]
    lines = []
    for start in range(0, len(windows), rows):
        split = np.array(windows[start : start + rows])
        mean = split.sum(axis=0) / len(split)
        lines += [mean, ((split - mean) ** 2).sum(axis=0)]
    return np.array(lines)


def _relations(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: IntPair,
    padding: IntPair,
    dilation: IntPair,
    groups: int,
) -> tuple[Meetings, Meetings, tuple[int, int]]:
    """All (p, r, h) and all (q, s, w) that meet inside the image, and the output size (P, Q)."""
    if len(x_shape) != 4 or len(weight_shape) != 4:
        raise ValueError(f"x (N, C, H, W) and weight (K, C/groups, R, S) must be 4-D, got {x_shape} and {weight_shape}")
    C, K = x_shape[1], weight_shape[0]
    if groups < 1 or C % groups or K % groups:
        raise ValueError(f"groups of {groups} must divide the {C} channels of x and the {K} filters of weight")
    if weight_shape[1] != C // groups:
        raise ValueError(f"weight needs {C // groups} channels ({C} of x / {groups} groups), got shape {weight_shape}")
    axes = list(zip(x_shape[2:], weight_shape[2:], pair(stride), pair(padding), pair(dilation), strict=True))
    P, Q = (conv_output_size(*axis) for axis in axes)
    return meetings(P, *axes[0]), meetings(Q, *axes[1]), (P, Q)


def by_group(array: NDArray[np.float64], axis: int, groups: int) -> NDArray[np.float64]:
    """`array` with the channels of its axis `axis` as two axes: groups, and channels of each."""
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


def _check_cotangent(dy: NDArray[np.float64], expected: tuple[int, ...]) -> None:
    if dy.shape != expected:
        raise ValueError(f"dy must have the output's shape {expected}, got {dy.shape}")
