"""What `autocast` does to operands: some go to 16 bits, some to float32. Without it all of this is one look."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np

from gpucnn.arguments import common_dtype
from gpucnn.autograd import grad_mode
from gpucnn.backend import FLOAT_KINDS, Array
from gpucnn.graph import last_write
from gpucnn.operators.base import Recorded, converted
from gpucnn.precision import autocasting

V = TypeVar("V")


def lowered(*operands: Any) -> tuple[Any, ...]:
    """Operands of a product: tensors and arrays of 16 or 32 bits in autocast's dtype where it is in force; others as
    they are."""
    dtype = autocasting.dtype
    return operands if dtype is None else tuple([_cast(operand, dtype) for operand in operands])


def widened(operand: V) -> V:
    """An operand of what autocast has done in float32: a 16-bit tensor as one of float32 where it is in force."""
    if autocasting.dtype is None or not isinstance(operand, Recorded):
        return operand
    dtype = operand.data.dtype
    if dtype.kind not in FLOAT_KINDS or dtype.itemsize != 2:
        return operand
    return converted(operand, np.dtype(np.float32))  # type: ignore[no-any-return]


def brought_together(a: Any, b: Any) -> tuple[Any, Any]:
    """Two tensors of different floating dtypes in the wider one where autocast is in force, which makes such pairs."""
    if autocasting.dtype is None or not (isinstance(a, Recorded) and isinstance(b, Recorded)):
        return a, b
    m, n = a.data.dtype, b.data.dtype
    if m == n or m.kind not in FLOAT_KINDS or n.kind not in FLOAT_KINDS:
        return a, b
    dtype = common_dtype(m, 1, n, 1)
    return converted(a, dtype), converted(b, dtype)


class _Kept(NamedTuple):
    """A parameter, the array and the write that it was cast from, and the cast tensor."""

    parameter: Recorded
    array: Array
    write: int
    cast: Any


def _cast(operand: Any, dtype: np.dtype[Any]) -> Any:
    array = operand.data if isinstance(operand, Recorded) else operand
    held = getattr(array, "dtype", dtype)
    if held == dtype or held.kind not in FLOAT_KINDS or held.itemsize > 4:
        return operand
    if not isinstance(operand, Recorded) or not operand._requires_grad or operand.node is not None:
        return converted(operand, dtype)
    key, write = (id(operand), dtype.name), last_write(array)
    kept = autocasting.casts.get(key)
    # A cast that was made where nothing is recorded has no way back for gradients.
    if kept is None or kept.array is not array or kept.write != write or (kept.cast.node is None and grad_mode.enabled):
        kept = autocasting.casts[key] = _Kept(operand, array, write, converted(operand, dtype))
        if kept.cast.node is not None:
            kept.cast.node[0].lasting = True  # several losses may go back through it, one after another
    return kept.cast
