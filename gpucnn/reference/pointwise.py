"""Formulas of single elements, run over blocks that stay in a core's cache; large arrays on several threads.

A formula fills `out` by few calls of the array library. Where a condition chooses it works on bit patterns (`select`,
`blend`): a masked copy mispredicts a branch for every other element and takes twenty times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, workspace
from gpucnn.reference.common import blocks, is_large
from gpucnn.reference.parallel import for_each

_BITS = {4: np.uint32, 8: np.uint64}


Formula = Callable[..., None]
Kernel = Callable[..., Array]


def pointwise(formula: Formula) -> Kernel:
    """The kernel `run(problem, *arrays)` of `formula(problem, *blocks, out)` for single elements.

    The result has the first array's shape and dtype; the others broadcast to it, and those without axes are given to
    the formula as they are. It gets float32 for float16, so that only the result is rounded, and writes into `out` and
    `scratch` alone.
    """

    def run(problem: Any, *arrays: Array) -> Array:
        like = arrays[0]
        out = empty(like.shape, like.dtype, like)
        every = [a if a.shape in ((), like.shape) else namespace(a).broadcast_to(a, like.shape) for a in arrays]
        if all([array.flags.c_contiguous for array in every]):
            every = [array.reshape(-1) if array.ndim or not like.ndim else array for array in every]
            _over_blocks(formula, problem, out.reshape(-1), every)
        else:
            _over_blocks(formula, problem, out, every)
        return out

    return _named_as(formula, run)


def rowwise(formula: Formula) -> Kernel:
    """As `pointwise`, for formulas of whole rows: blocks are (rows, size of the last axis)."""

    def run(problem: Any, *arrays: Array) -> Array:
        like = arrays[0]
        out = empty(like.shape, like.dtype, like)
        if like.size:
            rows = [array.reshape(-1, like.shape[-1]) for array in (out, *arrays)]
            _over_blocks(formula, problem, rows[0], rows[1:])
        return out

    return _named_as(formula, run)


def _named_as(formula: Formula, run: Kernel) -> Kernel:
    run.__name__, run.__qualname__, run.__doc__ = formula.__name__, formula.__qualname__, formula.__doc__
    return run


def _over_blocks(formula: Formula, problem: Any, out: Array, arrays: list[Array]) -> None:
    """Fills `out` block by block along its first axis; on a GPU in one go."""
    work = accumulator(out.dtype)

    def fill(block: slice) -> None:
        pieces = [(array[block] if array.ndim else array).astype(work, copy=False) for array in arrays]
        target = out[block]
        if out.dtype == work:
            formula(problem, *pieces, out=target)
        else:
            wide = empty(target.shape, work, out)
            formula(problem, *pieces, out=wide)
            target[...] = wide

    count = len(out)
    todo = blocks(count, (len(arrays) + 1) * work.itemsize * (out.size // max(1, count)))
    if len(todo) == 1 or not isinstance(out, np.ndarray):
        fill(slice(None))
    else:
        for_each(fill, todo, out, share=is_large(out.nbytes))


def scratch(count: int, like: Array) -> Array:
    """`count` uninitialised arrays as `like`, for one formula: the next one on this thread is given the same memory."""
    return workspace((count, *like.shape), like.dtype, like)


def blend(keep: Array, a: Array, b: Array, out: Array) -> None:
    """out = a where `keep` (bool), else b, bit by bit; `out` may be a, but not b."""
    xp = namespace(out)
    bits = out.view(_BITS[out.dtype.itemsize])
    other = b.view(bits.dtype)
    xp.bitwise_xor(a.view(bits.dtype), other, out=bits)
    xp.multiply(bits, keep, out=bits)
    xp.bitwise_xor(bits, other, out=bits)
