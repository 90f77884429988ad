"""Products of matrices: a (..., M, K) and b (..., K, N) to (..., M, N). Half precision is multiplied in float32."""

from __future__ import annotations

import math

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace
from gpucnn.reference.common import blocks, is_large
from gpucnn.reference.parallel import for_each
from gpucnn.reference.parallel import matmul as product

_PIECE_BYTES = 1 << 20
"""Of the matrices that one call of the BLAS library is given."""


def matmul(problem: None, a: Array, b: Array) -> Array:
    """The axes before the last two broadcast. Arrays may lie in memory in any way."""
    if a.dtype.kind != "f":
        return namespace(a).matmul(a, b)
    work = accumulator(a.dtype)
    wide_a, wide_b = (_for_blas(array.astype(work, copy=False)) for array in (a, b))
    result = _batched(wide_a, wide_b) if b.ndim > 2 else _one_right_side(wide_a, wide_b)
    return result.astype(a.dtype, copy=False)


def _for_blas(array: Array) -> Array:
    """A copy where neither rows nor columns are next to each other, for which numpy has a plain loop only."""
    steps = [step for step, size in zip(array.strides[-2:], array.shape[-2:], strict=True) if size > 1]
    plain = not steps or (array.itemsize in steps and min(steps) > 0)
    return array if plain else namespace(array).ascontiguousarray(array)


def _one_right_side(a: Array, b: Array) -> Array:
    """All rows of a (..., M, K) times one b (K,N) is one product of matrices."""
    if a.ndim == 2:
        return product(a, b)
    rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    return product(rows, b).reshape(*a.shape[:-1], b.shape[-1])


def _batched(a: Array, b: Array) -> Array:
    xp = namespace(a)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (xp.broadcast_to(array, (*batch, *array.shape[-2:])) for array in (a, b))
    (M, K), N = a.shape[-2:], b.shape[-1]
    matrices = math.prod(batch)
    if not (isinstance(a, np.ndarray) and is_large(0, matrices * M * K * N)):
        return xp.matmul(a, b)
    out = empty((*batch, M, N), a.dtype, a)

    def run(block: slice) -> None:
        np.matmul(a[block], b[block], out=out[block])

    bytes_each = matrices // batch[0] * (M * K + K * N + M * N) * a.itemsize
    for_each(run, blocks(batch[0], bytes_each, _PIECE_BYTES), a)
    return out
