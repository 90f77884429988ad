"""Convolution as matrix products over blocks of images.

x (N,H,W,C), w (K,R,S,C/groups), bias (K,), y and dy (N,P,Q,K). Every function takes the problem first. A block of
images is unfolded into a matrix of one row a window ("im2col"; Chellapilla, Puri and Simard, "High performance
convolutional neural networks for document processing", 2006), small enough to stay in the cache, and blocks are shared
out among threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, workspace, zeros
from gpucnn.problem import Conv2dProblem
from gpucnn.reference.common import (
    add_channels,
    add_up,
    blocks,
    is_large,
    padded,
    padded_zeros,
    sum_channels,
    tap,
    taps,
    tiles,
    windows,
)
from gpucnn.reference.parallel import for_each

_LANES = 8  # partial sums of a weight gradient, whatever the number of threads
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
    K_group = p.K // p.groups
    y = empty((p.N, p.P, p.Q, p.K), x.dtype, x)
    filters = w.reshape(p.groups, K_group, -1).astype(work, copy=False)
    offsets = None if bias is None else bias.astype(work, copy=False)
    view = windows(padded(x, p), p)

    def run(tile: tuple[slice, slice]) -> None:
        total = y[tile] if work == y.dtype else empty(y[tile].shape, work, x)
        rows = total.reshape(-1, p.K)
        for group in range(p.groups):
            columns = _unfold(p, view[tile], group, work)
            if p.groups == 1:
                xp.matmul(columns, filters[0].T, out=rows)
            else:
                rows[:, group * K_group : (group + 1) * K_group] = xp.matmul(columns, filters[group].T)
        if offsets is not None:
            add_channels(total, offsets)
        if work != y.dtype:
            y[tile] = total

    for_each(run, tiles(p.N, p.P, _unfolded_row_bytes(p, work)), x, share=_is_large(p, work))
    return y


def fprop_depthwise(p: Conv2dProblem, x: Array, w: Array, bias: Array | None) -> Array:
    """y (N,P,Q,K), each input channel alone with its K/C filters."""
    work = accumulator(x.dtype)
    multiplier = p.K // p.C
    y = empty((p.N, p.P, p.Q, p.K), x.dtype, x)
    filters = w.reshape(p.C, multiplier, p.R, p.S).astype(work, copy=False)
    offsets = None if bias is None else bias.astype(work, copy=False)

    def run(block: slice) -> None:
        images = padded(x[block], p)
        total = zeros((len(images), p.P, p.Q, p.C, multiplier), work, x)
        for r, s, cells in taps(images, p):
            total += cells[..., None] * filters[:, :, r, s]
        if offsets is not None:
            add_channels(total.reshape(-1, p.Q, p.K), offsets)
        y[block] = total.reshape(-1, p.P, p.Q, p.K)

    image_bytes = 2 * p.P * p.Q * p.K * work.itemsize
    for_each(run, blocks(p.N, image_bytes), x, share=is_large(p.N * image_bytes))
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
    (top, left) = p.padding

    def run(block: slice) -> None:
        gradient = dy[block].astype(work, copy=False)
        full = padded_zeros(p, len(gradient), work, dy)
        for r in range(p.R):
            for s in range(p.S):
                _add_tap(tap(full, p, r, s), gradient, by_tap[r, s])
        dx[block] = full[:, top : top + p.H, left : left + p.W]

    for_each(run, blocks(p.N, 2 * (p.P * p.Q + p.H * p.W) * p.C * work.itemsize), dy, share=_is_large(p, work))
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
    """dw (K,R,S,C/groups): each tile's unfolded windows, transposed, times its dy.

    Tiles are dealt out to at most _LANES sums, and these are added in order: the same bits whoever computes them.
    """
    xp = namespace(x)
    work = accumulator(x.dtype)
    K_group = p.K // p.groups
    view = windows(padded(x, p), p)
    todo = tiles(p.N, p.P, _unfolded_row_bytes(p, work))
    lanes = max(1, min(_LANES, len(todo)))
    sums = zeros((lanes, p.groups, p.R * p.S * (p.C // p.groups), K_group), work, x)

    def run(lane: int) -> None:
        for tile in todo[lane::lanes]:
            rows = dy[tile].reshape(-1, p.groups, K_group).astype(work, copy=False)
            for group in range(p.groups):
                sums[lane, group] += xp.matmul(_unfold(p, view[tile], group, work).T, rows[:, group])

    for_each(run, range(lanes), x, share=_is_large(p, work))
    total = sums.sum(axis=0)
    return total.transpose(0, 2, 1).reshape(p.K, p.R, p.S, -1).astype(x.dtype, order="C")


def wgrad_depthwise(p: Conv2dProblem, x: Array, dy: Array) -> Array:
    """dw (K,R,S,1): for each tap, what it met times dy, summed over images and positions."""
    work = accumulator(x.dtype)
    multiplier = p.K // p.C
    image_bytes = 2 * p.P * p.Q * p.K * work.itemsize
    todo = blocks(p.N, image_bytes)
    lanes = max(1, min(_LANES, len(todo)))
    sums = zeros((lanes, p.R, p.S, p.K), work, x)

    def run(lane: int) -> None:
        for block in todo[lane::lanes]:
            gradient = dy[block].astype(work, copy=False).reshape(-1, p.P, p.Q, p.C, multiplier)
            for r, s, cells in taps(padded(x[block], p), p):
                product = (cells[..., None] * gradient).reshape(-1, p.Q * p.K)
                sums[lane, r, s] += add_up(product).reshape(p.Q, p.K).sum(axis=0)

    for_each(run, range(lanes), x, share=is_large(p.N * image_bytes))
    return sums.sum(axis=0).transpose(2, 0, 1)[..., None].astype(x.dtype, order="C")


def bgrad(p: Conv2dProblem, dy: Array) -> Array:
    """db (K,)."""
    return sum_channels(dy)


# ----------------------------------------------------------------------------------------------------------- helpers


def _is_large(p: Conv2dProblem, work: np.dtype[Any]) -> bool:
    unfolded = p.N * p.P * _unfolded_row_bytes(p, work) * p.groups
    return is_large(unfolded, unfolded // work.itemsize * (p.K // p.groups))


def _unfolded_row_bytes(p: Conv2dProblem, work: np.dtype[Any]) -> int:
    return p.Q * p.R * p.S * (p.C // p.groups) * work.itemsize


def _unfold(p: Conv2dProblem, view: Array, group: int, work: np.dtype[Any]) -> Array:
    """The windows (n,P,Q,R,S,C) of one group as a matrix (n*P*Q, R*S*C/groups) of dtype `work`.

    The matrix may lie in the thread's workspace: the next call overwrites it.
    """
    C = p.C // p.groups
    view = view[..., group * C : (group + 1) * C]
    n, P, Q, R, S, _ = view.shape
    if (R, S, p.stride) == (1, 1, (1, 1)) and p.groups == 1:
        return view.reshape(-1, C).astype(work, copy=False)
    if C <= _NARROW:
        # One column a tap, each filled along rows of the image; a matrix product reads a transposed matrix as well.
        columns = workspace((R, S, C, n, P, Q), work, view)
        columns.transpose(3, 4, 5, 0, 1, 2)[...] = view
        return columns.reshape(R * S * C, -1).T
    columns = workspace((n, P, Q, R, S, C), work, view)
    columns[...] = view
    return columns.reshape(n * P * Q, -1)
