"""Convolution as matrix products.

x (N,H,W,C), w (K,R,S,C/groups), bias (K,), y and dy (N,P,Q,K). Every function takes the problem first. The windows of a
tile of images are unfolded into a matrix (windows.py) and multiplied with the filters; tiles are shared out among
threads. The bound is the speed of the products, 100 to 150 GFLOP/s a core with AVX-512; unfolding takes another tenth
of their time for 256 filters, and two thirds of it for 16.

Winograd's transforms would save products, but spread an infinity or NaN to outputs whose windows it is not in, and for
a batch of one transforming the filters costs what is saved.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, zeros
from gpucnn.problem import Conv2dProblem
from gpucnn.reference.common import add_channels, blocks, is_large, padded_zeros, rectified, sum_channels, taps
from gpucnn.reference.parallel import for_each
from gpucnn.reference.products import is_cut, multiply, multiply_shared, summed_products
from gpucnn.reference.windows import NARROW, Tile, phases, tiles, unfolded

_LANES = 8  # partial sums of a weight gradient, whatever the number of threads
_LANE_BYTES = 1 << 18  # that these sums may take each
_LONG_RUN = 32  # numbers that are as quickly copied as more of them
_LONG_SUM = 128  # products that an image's part of a weight gradient is a sum of, for images to be summed one by one
_PIECES, _FEWEST_FILTERS = 4, 128  # that the weight gradient of a 1x1 convolution is cut into, and what each has
_JOINED = 16  # channels that narrow groups are joined to
_MANY_TIMES = 2.5  # as many numbers in dy's windows as in the input's: dearer to unfold than the taps to add up
_MANY_ROWS, _MANY_ROWS_UNCUT = 256, 1024  # of a product that are worth laying the filters out for it
_WHOLE_BYTES = 1 << 21  # up to so many are unfolded at once, to be shared out by filters


# ------------------------------------------------------------------------------------- which problems a kernel takes


def pointwise_only(p: Conv2dProblem) -> str | None:
    one_to_one = (p.stride, p.padding, p.P, p.Q) == ((1, 1), (0, 0), p.H, p.W)
    if p.groups == 1 and (p.R, p.S) == (1, 1) and one_to_one:
        return None
    return (
        f"needs 1x1 filters, stride 1, no padding and groups=1, got {p.R}x{p.S}, stride={p.stride}, "
        f"padding={p.padding}, groups={p.groups}"
    )


def narrow_only(p: Conv2dProblem) -> str | None:
    """Whether a weight gradient is small enough for partial sums of it."""
    size = p.K * p.R * p.S * (p.C // p.groups) * 4
    if p.groups > 1 or size <= _LANE_BYTES:
        return None
    return f"keeps {_LANES} partial sums, of {_LANE_BYTES} bytes at most; those of float32 here take {size}"


def dense_only(p: Conv2dProblem) -> str | None:
    return None if p.groups == 1 else f"needs groups=1, got {p.groups}"


def few_channels_only(p: Conv2dProblem) -> str | None:
    """Whether adding up what each tap sends back is cheaper than unfolding dy, of many more numbers than dx."""
    if p.groups == 1 and p.stride == (1, 1) and p.H * p.W * p.K > _MANY_TIMES * p.P * p.Q * p.C:
        return None
    return (
        f"needs groups=1, stride 1 and H*W*K above {_MANY_TIMES} * P*Q*C, else unfolding dy is cheaper; got "
        f"groups={p.groups}, stride={p.stride}, {p.H * p.W * p.K} and {p.P * p.Q * p.C}"
    )


# ----------------------------------------------------------------------------------------------------------- forward


def fprop_pointwise(p: Conv2dProblem, x: Array, w: Array, bias: Array | None, relu: bool = False) -> Array:
    """y (N,P,Q,K): one product, all pixels times the filters. `relu`: max(y, 0)."""
    work = accumulator(x.dtype)
    y = empty((p.N, p.P, p.Q, p.K), x.dtype, x)
    filters = _columns(w.reshape(1, p.K, 1, 1, p.C).astype(work, copy=False), p.N * p.P * p.Q)[0]
    multiply_shared(x.reshape(-1, p.C), filters, _offsets(bias, work), y.reshape(-1, p.K))
    return rectified(y) if relu else y


def fprop_im2col(p: Conv2dProblem, x: Array, w: Array, bias: Array | None, relu: bool = False) -> Array:
    """y (N,P,Q,K). `relu`: max(y, 0)."""
    work = accumulator(x.dtype)
    y = empty((p.N, p.P, p.Q, p.K), x.dtype, x)
    filters = w.reshape(p.groups, p.K // p.groups, p.R, p.S, -1).astype(work, copy=False)
    _correlate(p, x, filters, _offsets(bias, work), y)
    return rectified(y) if relu else y


def _correlate(p: Conv2dProblem, x: Array, filters: Array, offsets: Array | None, y: Array) -> None:
    """y (N,P,Q,K), in any memory, from x (N,H,W,C) and filters (groups,K/groups,R,S,C/groups), in any memory."""
    work = filters.dtype
    count = p.N * p.P * p.Q
    in_place = y.dtype == work and y.flags.c_contiguous
    matrices = _columns(_joined(p, filters), count)
    groups, depth, width = matrices.shape
    if groups == 1 and count <= p.K and count * depth * work.itemsize <= _WHOLE_BYTES:
        whole = y if in_place else empty((p.N, p.P, p.Q, p.K), work, x)
        everything = (slice(0, p.N), slice(0, p.P), slice(0, 1))
        multiply_shared(unfolded(p, x, everything, 1, work)[0], matrices[0], offsets, whole.reshape(count, p.K))
        if not in_place:
            y[...] = whole
        return

    def run(tile: Tile) -> None:
        images, rows, some = tile
        columns = unfolded(p, x, tile, groups, work)
        mine = slice(some.start * width, some.stop * width)
        place = y[images, rows, :, mine]
        total = place if in_place else empty(place.shape, work, x)
        multiply(columns, matrices[some], total.reshape(-1, len(columns), width).transpose(1, 0, 2))
        if offsets is not None:
            add_channels(total, offsets[mine])
        if not in_place:
            place[...] = total

    share = _is_large(p, work)
    places, parts = tiles(p, groups, work, share)
    for_each(run, [(*place, some) for some in parts for place in places], x, share=share)


def _joined(p: Conv2dProblem, filters: Array) -> Array:
    """Filters of narrow groups as those of fewer, wider ones, with zeros between: (groups',K/groups',R,S,C/groups').

    A product with few columns takes as long as one with _JOINED, and so does copying short runs of channels.
    """
    many = _groups_joined(p)
    if many == 1:
        return filters
    groups, K, R, S, C = filters.shape
    joined = zeros((groups // many, many, K, R, S, many, C), filters.dtype, filters)
    apart = filters.reshape(groups // many, many, K, R, S, C)
    for group in range(many):
        joined[:, group, :, :, :, group] = apart[:, group]
    return joined.reshape(groups // many, many * K, R, S, many * C)


def _groups_joined(p: Conv2dProblem) -> int:
    """How many groups make one: a divisor of the groups."""
    most = _JOINED * p.groups // max(p.C, p.K)
    return max(n for n in range(1, max(1, most) + 1) if p.groups % n == 0)


def _columns(filters: Array, rows: int) -> Array:
    """filters (groups,K,R,S,C) as matrices (groups, R*S*C, K)."""
    groups, K, R, S, C = filters.shape
    many = _MANY_ROWS if is_cut(R * S * C * K) else _MANY_ROWS_UNCUT
    if (rows < many or C <= NARROW) and filters.flags.c_contiguous:
        return filters.reshape(groups, K, -1).transpose(0, 2, 1)
    turned = namespace(filters).ascontiguousarray(filters.transpose(0, 2, 3, 4, 1))
    return turned.reshape(groups, -1, K)


# ---------------------------------------------------------------------------------------------------- input gradient


def dgrad_pointwise(p: Conv2dProblem, dy: Array, w: Array) -> Array:
    """dx (N,H,W,C)."""
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    filters = w.reshape(p.K, p.C).astype(accumulator(dy.dtype), copy=False)
    multiply_shared(dy.reshape(-1, p.K), filters, None, dx.reshape(-1, p.C))
    return dx


def dgrad_im2col(p: Conv2dProblem, dy: Array, w: Array) -> Array:
    """dx (N,H,W,C): phase by phase of the stride, dy convolved with the taps that meet it, turned by 180 degrees."""
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    filters = w.reshape(p.groups, p.K // p.groups, p.R, p.S, -1).astype(accumulator(dy.dtype), copy=False)
    for phase in phases(p):
        target = dx[:, phase.rows, phase.columns]
        if phase.problem is None:
            target[...] = 0
        else:
            turned = filters[:, :, phase.taps[0], phase.taps[1]].transpose(0, 4, 2, 3, 1)
            _correlate(phase.problem, dy, turned, None, target)
    return dx


def dgrad_taps(p: Conv2dProblem, dy: Array, w: Array) -> Array:
    """dx (N,H,W,C) at groups=1: for each tap, dy times that tap's weights, added where the tap had read."""
    work = accumulator(dy.dtype)
    dx = empty((p.N, p.H, p.W, p.C), dy.dtype, dy)
    by_tap = namespace(w).ascontiguousarray(w.transpose(1, 2, 0, 3).astype(work, copy=False))  # (R,S,K,C)
    (top, left) = p.padding

    def run(block: slice) -> None:
        rows = dy[block].reshape(-1, p.K).astype(work, copy=False)
        full = padded_zeros(p, block.stop - block.start, work, dy)
        for r, s, target in taps(full, p):
            target += namespace(w).matmul(rows, by_tap[r, s]).reshape(target.shape)
        dx[block] = full[:, top : top + p.H, left : left + p.W]

    for_each(run, blocks(p.N, 2 * (p.P * p.Q + p.H * p.W) * p.C * work.itemsize), dy, share=_is_large(p, work))
    return dx


# --------------------------------------------------------------------------------------------------- weight gradient


def wgrad_im2col(p: Conv2dProblem, x: Array, dy: Array) -> Array:
    """dw (K,R,S,C/groups): dy of each tile, transposed, times its unfolded windows.

    Of each group, tiles are dealt out to at most _LANES sums, which are added in order: the same bits whoever computes
    them.
    """
    work = accumulator(x.dtype)
    many = _groups_joined(p)
    groups = p.groups // many
    K, C = p.K // groups, p.C // groups
    # At stride 1 a row of windows meets what the row below meets one tap further up: unfolded along rows alone, the
    # matrix is R times smaller, and each row of taps is a product with a part of it.
    apart = p.stride[0] == 1 and p.S * C >= _LONG_RUN and p.P * p.Q >= _LONG_SUM
    outer, inner = (p.R, 1) if apart else (1, p.R)
    beyond = (outer - 1) * p.dilation[0]
    source = replace(p, R=inner, P=p.P + beyond)
    share = _is_large(p, work)
    places, parts = tiles(replace(p, R=inner), groups, work, share)
    lanes = max(1, min(_LANES, len(places)))
    sums = zeros((lanes, outer, groups, K, inner * p.S * C), work, x)

    def run(item: tuple[slice, int]) -> None:
        some, lane = item
        for images, rows in places[lane::lanes]:
            gradient = dy[images, rows, :, some.start * K : some.stop * K].astype(work, copy=False)
            n = len(gradient) if apart else 1  # else images follow each other in the matrix: one product
            gradient = gradient.reshape(n, -1, some.stop - some.start, K).transpose(2, 0, 3, 1)
            met = unfolded(source, x, (images, slice(rows.start, rows.stop + beyond), some), groups, work)
            met = met.reshape(len(met), n, -1, met.shape[-1])
            met = _shifted(met, outer, p.dilation[0] * p.Q, gradient.shape[-1]) if apart else met[None]
            sums[lane, :, some] += summed_products(gradient, met)

    for_each(run, [(some, lane) for some in parts for lane in range(lanes)], x, share=share)
    total = sums.sum(axis=0).reshape(outer, groups, many, K // many, inner, p.S, many, -1)
    own = [total[:, :, group, :, :, :, group] for group in range(many)]  # what other groups' channels met is of no use
    dw = namespace(x).stack(own, axis=2).transpose(1, 2, 3, 0, 4, 5, 6).reshape(p.K, p.R, p.S, -1)
    return namespace(x).ascontiguousarray(dw.astype(x.dtype, copy=False))


def _shifted(matrices: Array, count: int, step: int, rows: int) -> Array:
    """The view (count,...,rows,N) of matrices (...,M,N): `rows` rows of each, every time from `step` rows below."""
    *outer, row, column = matrices.strides
    return namespace(matrices).lib.stride_tricks.as_strided(
        matrices, (count, *matrices.shape[:-2], rows, matrices.shape[-1]), (step * row, *outer, row, column)
    )


def wgrad_taps(p: Conv2dProblem, x: Array, dy: Array) -> Array:
    """dw (K,R,S,C) of wide layers: for each tap and some filters a product, dy transposed times what the tap met."""
    work = accumulator(x.dtype)
    dw = empty((p.K, p.R, p.S, p.C), x.dtype, x)
    share = _is_large(p, work)
    some_filters = blocks(p.K, 1, max(_FEWEST_FILTERS, p.K * p.R * p.S // _PIECES))

    def run(piece: tuple[int, int, slice]) -> None:
        r, s, some = piece
        padding = (p.padding[0] - r * p.dilation[0], p.padding[1] - s * p.dilation[1])
        one_tap = replace(p, R=1, S=1, padding=padding)
        total = zeros((some.stop - some.start, p.C), work, x)
        for images, rows in tiles(one_tap, 1, work, share)[0]:
            gradient = dy[images, rows].reshape(-1, p.K)[:, some].astype(work, copy=False)
            met = unfolded(one_tap, x, (images, rows, slice(0, 1)), 1, work)
            total += summed_products(gradient.T[None], met)
        dw[some, r, s] = total

    for_each(run, [(r, s, some) for r in range(p.R) for s in range(p.S) for some in some_filters], x, share=share)
    return dw


def bgrad(p: Conv2dProblem, dy: Array) -> Array:
    """db (K,)."""
    return sum_channels(dy)


# ----------------------------------------------------------------------------------------------------------- helpers


def _offsets(bias: Array | None, work: np.dtype[Any]) -> Array | None:
    return None if bias is None else bias.astype(work, copy=False)


def _is_large(p: Conv2dProblem, work: np.dtype[Any]) -> bool:
    unfolded_numbers = p.N * p.P * p.Q * p.R * p.S * p.C
    return is_large(unfolded_numbers * work.itemsize, unfolded_numbers * (p.K // p.groups))
