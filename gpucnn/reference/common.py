"""What several reference kernels share: windows over images, blocks that fit the cache, selection without branches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, workspace, zeros
from gpucnn.problem import Conv2dProblem, Pool2dProblem
from gpucnn.reference.parallel import for_each

BLOCK_BYTES = 1 << 19
"""Scratch memory that a kernel fills and reads back at a time: it should stay in a core's second-level cache."""

LARGE_BYTES, LARGE_OPERATIONS = 1 << 23, 1 << 26
"""Scratch in all, or multiply-adds in all, beyond which a pass is shared out among threads, in blocks twice as large.

Below, handing the interpreter over between numpy's short calls costs more than a second thread brings (LeNet-5 at batch
64: 9.4 ms a step on one thread, 12.4 on two; at batch 256 the other way round, 35.6 and 31.5).
"""

_SUMMED_ROWS = 4096  # at most so many are added up in one sum
_FEW_ROWS = 256  # a running sum of so few is quick and loses nothing
_SUMMED_BYTES = 1 << 22  # what is worth a thread of its own where each number is read once

_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def is_large(scratch: int, operations: int = 0) -> bool:
    """Whether a pass is worth several threads, by the bytes it unfolds in all and its multiply-adds."""
    return scratch > LARGE_BYTES or operations > LARGE_OPERATIONS


def block_bytes(scratch: int) -> int:
    """What a block of a pass that needs so much scratch memory in all may take."""
    return 2 * BLOCK_BYTES if scratch > LARGE_BYTES else BLOCK_BYTES


def blocks(count: int, bytes_each: int, limit: int | None = None) -> list[slice]:
    """Cuts `count` items into slices whose scratch of `bytes_each` an item stays within `limit`, or a block's size.

    Slices are about equal and an even number of them, or one, so that two threads have as much to do.
    """
    most = max(1, (limit or block_bytes(count * bytes_each)) // max(1, bytes_each))
    number = -(-count // most)
    step = -(-count // (number + number % 2)) if number > 1 else max(1, count)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def tiles(images: int, rows: int, bytes_a_row: int, limit: int | None = None) -> list[tuple[slice, slice]]:
    """Cuts (images, rows of each) into tiles of at most `limit` bytes, or a block's: whole images, or bands of one."""
    limit = limit or block_bytes(images * rows * bytes_a_row)
    if rows * bytes_a_row <= limit:
        return [(block, slice(0, rows)) for block in blocks(images, rows * bytes_a_row, limit)]
    bands = blocks(rows, bytes_a_row, limit)
    return [(slice(image, image + 1), band) for image in range(images) for band in bands]


def workspaces(dtype: np.dtype[Any], like: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Several arrays that lie side by side in the thread's workspace."""
    sizes = [math.prod(shape) for shape in shapes]
    memory = workspace((sum(sizes),), dtype, like)
    ends = list(itertools.accumulate(sizes))
    return [memory[end - size : end].reshape(shape) for size, end, shape in zip(sizes, ends, shapes, strict=True)]


def padded(x: Array, p: Conv2dProblem | Pool2dProblem, fill: float = 0.0) -> Array:
    """x (N,H,W,C) with `fill` around it as far as p's windows reach; x itself where they reach nowhere."""
    (top, left), (below, right) = p.padding, p.padding_after
    if not (top or left or below or right):
        return x
    N, H, W, C = x.shape
    shape = (N, top + H + below, left + W + right, C)
    out = namespace(x).full(shape, fill, x.dtype) if fill else zeros(shape, x.dtype, x)
    out[:, top : top + H, left : left + W] = x
    return out


def padded_zeros(p: Conv2dProblem | Pool2dProblem, count: int, dtype: np.dtype[Any], like: Array) -> Array:
    """Zeros for `count` images with room for what the windows reach beyond them."""
    (top, left), (below, right) = p.padding, p.padding_after
    return zeros((count, top + p.H + below, left + p.W + right, p.C), dtype, like)


def taps(padded_x: Array, p: Conv2dProblem | Pool2dProblem) -> Iterator[tuple[int, int, Array]]:
    """For each tap (r, s) in row-major order: the view (N,P,Q,C) of the cells that it meets."""
    for r in range(p.R):
        for s in range(p.S):
            yield r, s, tap(padded_x, p, r, s)


def tap(padded_x: Array, p: Conv2dProblem | Pool2dProblem, r: int, s: int) -> Array:
    top, left = r * p.dilation[0], s * p.dilation[1]
    return padded_x[
        :,
        top : top + (p.P - 1) * p.stride[0] + 1 : p.stride[0],
        left : left + (p.Q - 1) * p.stride[1] + 1 : p.stride[1],
    ]


def select(values: Array, keep: Array, out: Array | None = None) -> Array:
    """`values` where `keep` (bool, same shape) is true, else +0.

    Multiplies bit patterns, not numbers: no branch to mispredict, and an infinity that is not kept becomes 0, not NaN.
    """
    bits = _BITS[values.dtype.itemsize]
    xp = namespace(values)
    product = xp.multiply(values.view(bits), keep, out=None if out is None else out.view(bits))
    return product.view(values.dtype)


def add_channels(y: Array, bias: Array) -> None:
    """y (..., Q, K) += bias (K,), in place.

    The bias is repeated along Q first: rows of Q*K numbers are worth a vector loop, K of 6 are not.
    """
    if not y.flags.c_contiguous:
        y += bias
        return
    Q, K = y.shape[-2:]
    rows = y.reshape(-1, Q * K)
    rows += namespace(y).tile(bias, Q)


def rectified(y: Array) -> Array:
    """max(y, 0), in y's memory, which is C-contiguous: a pass of its own over what is just being written."""
    flat = y.reshape(-1)

    def run(block: slice) -> None:
        namespace(y).maximum(flat[block], 0, out=flat[block])

    for_each(run, blocks(flat.size, int(y.itemsize)), y, share=is_large(y.nbytes))
    return y


def sum_channels(y: Array) -> Array:
    """Sums y (..., Q, K) over everything but the last axis."""
    Q, K = y.shape[-2:]
    total = sum_rows(y.reshape(-1, Q * K)).reshape(Q, K).sum(axis=0)  # as in add_channels, wide rows are quicker
    return total.astype(y.dtype, copy=False)


def sum_rows(a: Array) -> Array:
    """a (M,N) summed over its rows, on several threads: (N,) in the dtype that sums are kept in."""
    work = accumulator(a.dtype)
    M, N = a.shape
    if M <= _FEW_ROWS:
        return a.sum(axis=0, dtype=work)
    todo = blocks(M, N * work.itemsize, _SUMMED_BYTES)
    sums = empty((len(todo), N), work, a)

    def run(number: int) -> None:
        sums[number] = add_up(a[todo[number]].astype(work, copy=False))

    for_each(run, range(len(todo)), a)
    return sums.sum(axis=0)


def add_up(rows: Array) -> Array:
    """rows (M,N) summed: (N,), by products with a vector of ones, some thousand rows at a time.

    numpy's sum over a first axis is slower, and one running sum: its rounding errors grow with M.
    """
    xp = namespace(rows)
    M, N = rows.shape
    ones = xp.ones(min(M, _SUMMED_ROWS), rows.dtype)
    total = zeros((N,), rows.dtype, rows)
    for start in range(0, M, _SUMMED_ROWS):
        part = rows[start : start + _SUMMED_ROWS]
        total += xp.matmul(ones[: len(part)], part)
    return total
