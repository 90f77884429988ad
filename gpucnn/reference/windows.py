"""Windows over images as matrices, a tile at a time: what convolutions multiply with their filters.

Unfolding images into a matrix of one row a window is "im2col" (Chellapilla, Puri and Simard, "High performance
convolutional neural networks for document processing", 2006); here of a few images or a band of rows at a time.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from gpucnn.backend import Array, namespace
from gpucnn.problem import Conv2dProblem
from gpucnn.reference.common import block_bytes, blocks, workspaces
from gpucnn.reference.common import tiles as image_tiles

Place = tuple[slice, slice]
"""Images; rows of windows in each, all of them if there are several images."""
Tile = tuple[slice, slice, slice]
"""A place, and groups of channels."""

NARROW = 2  # up to this many channels, a window's runs in memory are too short to copy one by one
_FEW_WINDOWS = 512  # of one group are multiplied as fast as more of them: the rest of a tile is for other groups


def tile_blocks(share: bool) -> int:
    """How many blocks' size of scratch memory a tile may take."""
    return 4 if share else 2


def tiles(p: Conv2dProblem, groups: int, work: np.dtype[Any], share: bool) -> tuple[list[Place], list[slice]]:
    """Cuts p, in so many groups, into places and parts of the groups; a tile is one of each.

    A tile's unfolded windows of dtype `work` take some blocks' size, more of them where threads share the tiles: those
    that take turns at the interpreter often lose more than the cache brings (16 channels of 32 x 32, batch 128, two
    threads: 12.5 ms in tiles of 1 MiB, 5.7 ms in tiles of 4 MiB).
    """
    row_bytes = p.Q * p.R * p.S * (p.C // groups) * work.itemsize
    limit = block_bytes(p.N * p.P * row_bytes * groups) * tile_blocks(share)
    enough = min(limit, max(limit // groups, _FEW_WINDOWS * row_bytes // p.Q))
    places = image_tiles(p.N, p.P, row_bytes, enough)
    images, rows = places[0] if places else (slice(0, 0), slice(0, 0))
    return places, blocks(groups, (images.stop - images.start) * (rows.stop - rows.start) * row_bytes, limit)


def unfolded(p: Conv2dProblem, x: Array, tile: Tile, groups: int, work: np.dtype[Any]) -> Array:
    """The tile's windows: (its groups, n*P*Q, R*S*C/groups) of dtype `work`, mostly in the thread's workspace."""
    images, rows, some = tile
    n, P, G, C = images.stop - images.start, rows.stop - rows.start, some.stop - some.start, p.C // groups
    by_window = (G, n, P, p.Q, p.R, p.S, C)
    # One column a tap, each filled along rows of the image; a matrix product reads a transposed matrix as well.
    by_tap = (G, p.R, p.S, C, n, P, p.Q)
    cells, columns = _covered(p, x, tile, groups, work, by_tap if C <= NARROW else by_window)
    if (p.R, p.S, p.stride) == (1, 1, (1, 1)):
        return cells.reshape(G, n * P * p.Q, C)
    view = windows(cells, p, P)
    if C <= NARROW:
        columns[...] = view.transpose(0, 4, 5, 6, 1, 2, 3)
        return columns.reshape(G, p.R * p.S * C, n * P * p.Q).transpose(0, 2, 1)
    columns[...] = view
    return columns.reshape(G, n * P * p.Q, p.R * p.S * C)


def covered(p: Conv2dProblem, x: Array, tile: Tile, work: np.dtype[Any]) -> Array:
    """What the tile's windows read of x (N,H,W,C): (n, rows, columns, C) of dtype `work`, 0 outside the image.

    A view of x where that will do, else in the thread's workspace.
    """
    return _covered(p, x, tile, 1, work, (0,))[0][0]


def windows(cells: Array, p: Conv2dProblem, P: int) -> Array:
    """The view (..., P,Q,R,S,C) of the windows over cells (..., rows, columns, C), without a copy."""
    *outer, h, w, c = cells.strides
    return namespace(cells).lib.stride_tricks.as_strided(
        cells,
        (*cells.shape[:-3], P, p.Q, p.R, p.S, cells.shape[-1]),
        (*outer, h * p.stride[0], w * p.stride[1], h * p.dilation[0], w * p.dilation[1], c),
    )


def _covered(
    p: Conv2dProblem, x: Array, tile: Tile, groups: int, work: np.dtype[Any], beside: tuple[int, ...]
) -> tuple[Array, Array]:
    """The tile's cells (its groups, n, rows, columns, C/groups), and scratch memory of shape `beside` next to them."""
    images, rows, some = tile
    C = p.C // groups
    top, height = rows.start * p.stride[0] - p.padding[0], _span(rows.stop - rows.start, 0, p)
    left, width = -p.padding[1], _span(p.Q, 1, p)
    first, last = max(top, 0), min(top + height, p.H)
    west, east = max(left, 0), min(left + width, p.W)
    inner = x[images, first : max(first, last), west : max(west, east), some.start * C : some.stop * C]
    n, h, w, _ = inner.shape
    shape = (some.stop - some.start, n, height, width, C)
    if (groups, h, w, x.dtype) == (1, height, width, work):
        return inner[None], workspaces(work, x, beside)[0]
    cells, memory = workspaces(work, x, shape, beside)
    above, before = first - top, west - left
    if (h, w) != (height, width):
        cells[...] = 0
    if h and w:
        by_group = inner.reshape(n, h, w, shape[0], C).transpose(3, 0, 1, 2, 4)
        cells[:, :, above : above + h, before : before + w] = by_group
    return cells, memory


def _span(count: int, axis: int, p: Conv2dProblem) -> int:
    """Cells from the first one of the first of `count` windows to the last one of the last."""
    return (count - 1) * p.stride[axis] + p.dilation[axis] * ((p.R, p.S)[axis] - 1) + 1


# ---------------------------------------------------------------------------------------------------- input gradient


class Phase(NamedTuple):
    """Every stride-th row and column of an input gradient: a convolution of dy, at stride 1, with some of the taps.

    The problem's x is dy and its K is C; a padding may be negative. It is None where no tap reaches these cells.
    """

    rows: slice
    columns: slice
    taps: tuple[slice, slice]  # of the filter, last first
    problem: Conv2dProblem | None


@functools.lru_cache(maxsize=1024)
def phases(p: Conv2dProblem) -> list[Phase]:
    """The parts of dx (N,H,W,C): one at stride 1, else stride by stride of them, or fewer for a small image."""
    found = []
    for y in _axis_phases(p, 0):
        for x in _axis_phases(p, 1):
            turned = None
            if y.taps and x.taps:
                (R, S), padding, dilation = (y.taps, x.taps), (y.padding, x.padding), (y.dilation, x.dilation)
                turned = Conv2dProblem(
                    *(p.N, p.P, p.Q, p.K, R, S, y.cells, x.cells, (1, 1), padding, dilation, p.C, p.groups)
                )
            found.append(Phase(y.target, x.target, (y.taken, x.taken), turned))
    return found


class _AxisPhase(NamedTuple):
    target: slice
    cells: int
    taken: slice
    taps: int
    padding: int
    dilation: int


def _axis_phases(p: Conv2dProblem, axis: int) -> list[_AxisPhase]:
    """Cell h meets tap r of output (h + padding - r * dilation) / stride, where that divides.

    So the cells start, start + stride, ... share their taps, one in `step`, and of output o + i - j * dilation' the
    i-th cell meets the j-th of these.
    """
    size, taps = (p.H, p.W)[axis], (p.R, p.S)[axis]
    stride, padding, dilation = p.stride[axis], p.padding[axis], p.dilation[axis]
    common = np.gcd(stride, dilation).item()
    step = stride // common
    found = []
    for start in range(min(stride, size)):
        target = slice(start, size, stride)
        offset = start + padding
        first = next((r for r in range(min(step, taps)) if (offset - r * dilation) % stride == 0), None)
        if first is None:
            found.append(_AxisPhase(target, len(range(start, size, stride)), slice(0, 0), 0, 0, 1))
            continue
        count = len(range(first, taps, step))
        last = first + (count - 1) * step
        taken = slice(last, first - 1 if first else None, -step)
        before = (count - 1) * (dilation // common) - (offset - first * dilation) // stride
        found.append(_AxisPhase(target, len(range(start, size, stride)), taken, count, before, dilation // common))
    return found
