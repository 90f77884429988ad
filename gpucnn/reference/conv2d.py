"""Convolution as matrix products over blocks of images.

x (N,H,W,C), w (K,R,S,C/groups), bias (K,), y and dy (N,P,Q,K). Every function takes the problem first. A block of
images is unfolded into a matrix of one row a window ("im2col"; Chellapilla, Puri and Simard, "High performance
convolutional neural networks for document processing", 2006), small enough to stay in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, workspace, zeros
from gpucnn.problem import Conv2dProblem
from gpucnn.reference.common import add_channels, blocks, padded, sum_channels, tap, taps, windows

_NARROW = 2  # up to this many channels, a window's runs in memory are too short to copy one by one


# ------------------------------------------------------------------------------------- which problems a kernel takes


def dense_only(p: Conv2dProblem) -> str | None:
    return None if p.groups == 1 else f"needs groups=1, got {p.groups}"


def depthwise_only(p: Conv2dProblem) -> str | None:
    return None if p.groups == p.C > 1 else f"needs groups=C of 2 or more, got groups={p.groups} for C={p.C}"


def flippable(p: Conv2dProblem) -> str | None:
    """Whether the input gradient is a forward convolution of dy that costs no more than adding up taps."""
    if p.groups != 1 or p.stride != (1, 1):
        return f"needs groups=1 and stride 1, got groups={p.groups}, stride={p.stride}"
    if p.padding[0] > p.dilation[0] * (p.R - 1) or p.padding[1] > p.dilation[1] * (p.S - 1):
        return f"needs a padding smaller than the kernel's span, got {p.padding}"
    if p.K > 2 * p.C:
        return f"unfolds K={p.K} channels to produce C={p.C}: dearer than adding up taps"
    return None


# ----------------------------------------------------------------------------------------------------------- forward


def fprop_im2col(p: Conv2dProblem, x: Array, w: Array, bias: Array | None) -> Array:
    """y (N,P,Q,K)."""
    xp = namespace(x)
    work = accumulator(x.dtype)
    y = empty((p.N, p.P, p.Q, p.K), x.dtype, x)
    filters = w.reshape(p.groups, p.K // p.groups, -1).astype(work, copy=False)
    for block in blocks(p.N, _unfolded_bytes(p, work)):
        images = padded(x[block], p)
        rows = y[block].reshape(-1, p.K)
        for group in range(p.groups):
            columns = _unfold(p, images, group, work)
            part = slice(group * (p.K // p.groups), (group + 1) * (p.K // p.groups))
            if p.groups == 1 and work == y.dtype:
                xp.matmul(columns, filters[0].T, out=rows)
            else:
                rows[:, part] = xp.matmul(columns, filters[group].T)
    if bias is not None:
        add_channels(y, bias)
    return y


def fprop_depthwise(p: Conv2dProblem, x: Array, w: Array, bias: Array | None) -> Array:
    """y (N,P,Q,K), each input channel alone with its K/C filters."""
    work = accumulator(x.dtype)
    multiplier = p.K // p.C
    y = empty((p.N, p.P, p.Q, p.K), x.dtype, x)
    filters = w.reshape(p.C, multiplier, p.R, p.S).astype(work, copy=False)
    for block in blocks(p.N, 2 * p.P * p.Q * p.K * work.itemsize):
        images = padded(x[block], p)
        total = zeros((len(images), p.P, p.Q, p.C, multiplier), work, x)
        for r, s, cells in taps(images, p):
            total += cells[..., None] * filters[:, :, r, s]
        y[block] = total.reshape(-1, p.P, p.Q, p.K)
    if bias is not None:
        add_channels(y, bias)
    return y


# ---------------------------------------------------------------------------------------------------- input gradient


def dgrad_flipped(p: Conv2dProblem, dy: Array, w: Array) -> Array:
    """dx (N,H,W,C) at stride 1: the forward convolution of dy with the filters turned by 180 degrees."""
    flipped = namespace(w).ascontiguousarray(w[:, ::-1, ::-1].transpose(3, 1, 2, 0))
    before = (p.dilation[0] * (p.R - 1) - p.padding[0], p.dilation[1] * (p.S - 1) - p.padding[1])
    turned = Conv2dProblem(p.N, p.P, p.Q, p.K, p.R, p.S, p.H, p.W, (1, 1), before, p.dilation, p.C, 1)
    return fprop_im2col(turned, dy, flipped, None)


def dgrad_taps(p: Conv2dProblem, dy: Array, w: Array) -> Array:
    """dx (N,H,W,C) of any problem: for each tap, dy times that tap's weights, added where the tap had read."""
    work = accumulator(dy.dtype)
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    by_tap = w.reshape(p.groups, p.K // p.groups, p.R, p.S, -1).transpose(2, 3, 0, 1, 4).astype(work)  # R,S,G,K/G,C/G
    for block in blocks(p.N, 2 * (p.P * p.Q + p.H * p.W) * p.C * work.itemsize):
        gradient = dy[block].astype(work, copy=False)
        full = _padded_zeros(p, len(gradient), work, dy)
        for r in range(p.R):
            for s in range(p.S):
                _add_tap(tap(full, p, r, s), gradient, by_tap[r, s])
        (top, left) = p.padding
        dx[block] = full[:, top : top + p.H, left : left + p.W]
    return dx


def _add_tap(target: Array, dy: Array, weights: Array) -> None:
    """target (n,P,Q,C) += dy (n,P,Q,K) times weights (G,K/G,C/G), group by group."""
    xp = namespace(dy)
    n, P, Q, K = dy.shape
    groups, K_group, C_group = weights.shape
    if groups == 1:
        target += xp.matmul(dy.reshape(-1, K), weights[0]).reshape(n, P, Q, -1)
    elif C_group == 1:  # depthwise: no product of matrices, and a loop over groups would be one over channels
        spread = dy.reshape(n, P, Q, groups, K_group) * weights[:, :, 0]
        target += spread[..., 0] if K_group == 1 else spread.sum(axis=-1)
    else:
        for group in range(groups):
            mine = dy[..., group * K_group : (group + 1) * K_group]
            target[..., group * C_group : (group + 1) * C_group] += xp.matmul(mine, weights[group])


# --------------------------------------------------------------------------------------------------- weight gradient


def wgrad_im2col(p: Conv2dProblem, x: Array, dy: Array) -> Array:
    """dw (K,R,S,C/groups): each block's unfolded images, transposed, times its dy; blocks added in order."""
    xp = namespace(x)
    work = accumulator(x.dtype)
    K_group = p.K // p.groups
    total = zeros((p.groups, p.R * p.S * (p.C // p.groups), K_group), work, x)
    for block in blocks(p.N, _unfolded_bytes(p, work)):
        images = padded(x[block], p)
        rows = dy[block].reshape(-1, p.groups, K_group).astype(work, copy=False)
        for group in range(p.groups):
            total[group] += xp.matmul(_unfold(p, images, group, work).T, rows[:, group])
    return total.transpose(0, 2, 1).reshape(p.K, p.R, p.S, -1).astype(x.dtype, order="C")


def wgrad_depthwise(p: Conv2dProblem, x: Array, dy: Array) -> Array:
    """dw (K,R,S,1): for each tap, what it met times dy, summed over images and positions."""
    work = accumulator(x.dtype)
    multiplier = p.K // p.C
    total = zeros((p.R, p.S, p.K), work, x)
    for block in blocks(p.N, 2 * p.P * p.Q * p.K * work.itemsize):
        gradient = dy[block].astype(work, copy=False).reshape(-1, p.P, p.Q, p.C, multiplier)
        for r, s, cells in taps(padded(x[block], p), p):
            product = (cells[..., None] * gradient).reshape(-1, p.P, p.Q, p.K)
            total[r, s] += sum_channels(product)
    return total.transpose(2, 0, 1)[..., None].astype(x.dtype, order="C")


def bgrad(p: Conv2dProblem, dy: Array) -> Array:
    """db (K,)."""
    return sum_channels(dy)


# ----------------------------------------------------------------------------------------------------------- helpers


def _unfolded_bytes(p: Conv2dProblem, work: np.dtype[Any]) -> int:
    return p.P * p.Q * p.R * p.S * (p.C // p.groups) * work.itemsize


def _unfold(p: Conv2dProblem, images: Array, group: int, work: np.dtype[Any]) -> Array:
    """The windows of one group as a matrix (n*P*Q, R*S*C/groups) of dtype `work`; images are padded already.

    The matrix may lie in the thread's workspace: the next call overwrites it.
    """
    C = p.C // p.groups
    if (p.R, p.S, p.stride) == (1, 1, (1, 1)) and p.groups == 1:
        return images[:, : p.P, : p.Q].reshape(-1, C).astype(work, copy=False)
    view = windows(images[..., group * C : (group + 1) * C], p)
    n = len(images)
    if C <= _NARROW:
        # One column a tap, each filled along rows of the image; a matrix product reads a transposed matrix as well.
        columns = workspace((p.R, p.S, C, n, p.P, p.Q), work, images)
        columns.transpose(3, 4, 5, 0, 1, 2)[...] = view
        return columns.reshape(p.R * p.S * C, -1).T
    columns = workspace((n, p.P, p.Q, p.R, p.S, C), work, images)
    columns[...] = view
    return columns.reshape(n * p.P * p.Q, -1)


def _padded_zeros(p: Conv2dProblem, count: int, dtype: np.dtype[Any], like: Array) -> Array:
    (top, left), (below, right) = p.padding, p.padding_after
    return zeros((count, top + p.H + below, left + p.W + right, p.C), dtype, like)
