"""What a Tensor can be asked for in one recorded call: arithmetic, comparisons, sums, order, other shapes.

`Operators` is the half of Tensor that needs no more of it than its array and `__record__`; one file a family.
"""

from __future__ import annotations

from gpucnn.operators.arithmetic import Arithmetic
from gpucnn.operators.reduction import Reductions
from gpucnn.operators.shape import Shapes


class Operators(Arithmetic, Reductions, Shapes):
    """The operators of a Tensor. Dtypes of arithmetic follow PyTorch's rule, see `arguments.common_dtype`."""

    __slots__ = ()
    __array_priority__ = 1000  # numpy_array * Tensor is the Tensor's to compute


__all__ = ["Operators"]
