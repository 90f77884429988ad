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


def pointwise(formula: Callable[..., None]) -> Callable[..., Array]:
    """The kernel `run(problem, *arrays)` of `formula(problem, *blocks, out)`, for arrays of one dtype.

    The arrays have the first one's shape or broadcast to it.
    The formula gets float32 for float16, so that only the result is rounded; it writes into `out` and `scratch` alone.
    """

    def fill(problem: Any, out: Array, *arrays: Array) -> None:
        work = accumulator(out.dtype)
        if out.dtype == work:
            formula(problem, *arrays, out=out)
        else:
            wide = empty(out.shape, work, out)
            formula(problem, *[array.astype(work) for array in arrays], out=wide)
            out[...] = wide

    def run(problem: Any, *arrays: Array) -> Array:
        like = arrays[0]
        out = empty(like.shape, like.dtype, like)
        every = [out, *[a if a.shape == like.shape else namespace(a).broadcast_to(a, like.shape) for a in arrays]]
        if all([array.flags.c_contiguous for array in every]):
            every = [array.reshape(-1) for array in every]
        count = len(every[0])
        todo = blocks(count, len(every) * accumulator(like.dtype).itemsize * (like.size // max(1, count)))
        if len(todo) <= 1 or not isinstance(like, np.ndarray):
            fill(problem, *every)
        else:
            for_each(
                lambda block: fill(problem, *[array[block] for array in every]), todo, like, share=is_large(like.nbytes)
            )
        return out

    run.__name__, run.__doc__ = formula.__name__, formula.__doc__
    return run


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
