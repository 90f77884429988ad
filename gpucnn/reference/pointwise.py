"""Formulas of single elements, run over blocks that stay in a core's cache; large arrays on several threads.

A formula fills `out` by few calls of the array library. Where a condition chooses it works on bit patterns (`select`,
`blend`): a masked copy mispredicts a branch for every other element and takes twenty times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, workspace, zeros
from gpucnn.reference.common import block_bytes, blocks, is_large
from gpucnn.reference.parallel import for_each

_BITS = {4: np.uint32, 8: np.uint64}


Formula = Callable[..., None]
Kernel = Callable[..., Array]


def pointwise(formula: Formula) -> Kernel:
    """The kernel `run(problem, *arrays)` of `formula(problem, *blocks, out)` for single elements.

    The result has the first array's shape and dtype; the others broadcast to it, and those of one element are given to
    the formula without axes. It gets float32 for float16, so that only the result is rounded, and writes into `out`
    and `scratch` alone.
    """

    def run(problem: Any, *arrays: Array) -> Array:
        out = empty(arrays[0].shape, arrays[0].dtype, arrays[0])
        if _are_one_block(arrays):
            formula(problem, *arrays, out=out)
            return out
        every, is_flat = _together(arrays)
        _fill_blocks(formula, problem, out.reshape(-1) if is_flat else out, every)
        return out

    return _named_as(formula, run)


def rowwise(formula: Formula) -> Kernel:
    """As `pointwise`, for formulas of whole rows: blocks are (rows, size of the last axis).

    The other arrays have as many rows as the first, of its size or of one element.
    """

    def run(problem: Any, *arrays: Array) -> Array:
        out = empty(arrays[0].shape, arrays[0].dtype, arrays[0])
        if out.size:
            _fill_blocks(formula, problem, _rows(out), [_rows(array) for array in arrays])
        return out

    return _named_as(formula, run)


def summed(formula: Formula) -> Kernel:
    """The kernel that adds up what `formula`, one as of `pointwise`, computes: () in the dtype of accumulation."""

    def run(problem: Any, *arrays: Array) -> Array:
        like = arrays[0]
        every, _ = _together(arrays)
        todo = _cut(every[0], len(every) + 1)
        sums = zeros((len(todo),), accumulator(like.dtype), like)

        def add_up(number: int) -> None:
            pieces = _pieces(every, todo[number])
            values = empty(pieces[0].shape, pieces[0].dtype, like)
            formula(problem, *pieces, out=values)
            sums[number] = values.sum()

        for_each(add_up, range(len(todo)), like, share=is_large(like.nbytes))
        return sums.sum()

    return _named_as(formula, run)


def _named_as(formula: Formula, run: Kernel) -> Kernel:
    run.__name__, run.__qualname__, run.__doc__ = formula.__name__, formula.__qualname__, formula.__doc__
    return run


def _together(arrays: tuple[Array, ...]) -> tuple[list[Array], bool]:
    """The arrays as broadcast to the first, and whether all of them lie so that they could be made flat."""
    like, *others = arrays
    every = [like]
    for array in others:
        if array.size == 1 and like.size > 1:
            every.append(array.reshape(()))
        else:
            every.append(array if array.shape == like.shape else namespace(array).broadcast_to(array, like.shape))
    is_flat = all([array.flags.c_contiguous for array in every])
    return [array.reshape(-1) if is_flat and array.size == like.size else array for array in every], is_flat


def _are_one_block(arrays: tuple[Array, ...]) -> bool:
    """Whether a formula can be given the arrays as they are: with small ones it takes less time than all else."""
    shape, scratch = arrays[0].shape, arrays[0].nbytes * (len(arrays) + 1)
    if not shape or not 0 < scratch <= block_bytes(scratch):
        return False
    return all([array.shape == shape and array.itemsize >= 4 and array.flags.c_contiguous for array in arrays])


def _rows(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def _cut(like: Array, arrays: int) -> list[slice]:
    """Blocks of the first axis of which so many arrays together stay in a core's cache; on a GPU one."""
    count = len(like)
    if not isinstance(like, np.ndarray):
        return [slice(0, count)]
    return blocks(count, arrays * accumulator(like.dtype).itemsize * (like.size // max(1, count)))


def _pieces(arrays: list[Array], block: slice) -> list[Array]:
    work = accumulator(arrays[0].dtype)
    return [(array[block] if array.ndim else array).astype(work, copy=False) for array in arrays]


def _fill_blocks(formula: Formula, problem: Any, out: Array, arrays: list[Array]) -> None:
    def fill(block: slice) -> None:
        pieces, target = _pieces(arrays, block), out[block]
        if pieces[0].dtype == out.dtype:
            formula(problem, *pieces, out=target)
        else:
            wide = empty(target.shape, pieces[0].dtype, out)
            formula(problem, *pieces, out=wide)
            target[...] = wide

    todo = _cut(out, len(arrays) + 1)
    if len(todo) == 1:
        fill(todo[0])
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
