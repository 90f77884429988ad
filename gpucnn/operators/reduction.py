"""Sums, extrema, norms, orders: what is one number, or fewer, of many."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple, TypeVar

from gpucnn import arguments, backend
from gpucnn.arguments import normalize_axis
from gpucnn.autograd import Function
from gpucnn.operators.base import Recorded
from gpucnn.operators.casts import widened
from gpucnn.operators.logic import Logic
from gpucnn.ops import elementwise, ordering, reduction, shape

T = TypeVar("T", bound="Reductions")


class ValuesAndIndices(NamedTuple):
    """What max, min, sort and topk along an axis return; the indices are int64 positions along it."""

    values: Any
    indices: Any


class Reductions(Logic):
    """`dim` names an axis, several, or for None all of them; with `keepdim` they stay with size 1."""

    __slots__ = ()

    def sum(self: T, dim: Any = None, keepdim: bool = False) -> T:
        """Sum over all axes, or over those named; integers and bools are summed in int64."""
        return widened(self)._reduced(reduction.Sum, dim, keepdim)

    def mean(self: T, dim: Any = None, keepdim: bool = False) -> T:
        """Mean over all axes, or over those named; TypeError for integers."""
        _check_floating("mean", self)
        return widened(self)._reduced(reduction.Mean, dim, keepdim)

    def var(
        self: T, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float = 1
    ) -> T:
        """Variance: the sum of squared deviations from the mean, over the number of elements less `correction`.

        `unbiased` is another way to say correction 1 or 0.
        """
        _check_floating("var", self)
        less = correction if unbiased is None else int(unbiased)
        return widened(self)._reduced(reduction.Var, dim, keepdim, correction=less, root=False)

    def std(
        self: T, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float = 1
    ) -> T:
        """Standard deviation, the root of `var`; where it is 0 its gradient is 0."""
        _check_floating("std", self)
        less = correction if unbiased is None else int(unbiased)
        return widened(self)._reduced(reduction.Var, dim, keepdim, correction=less, root=True)

    def prod(self: T, dim: int | None = None, keepdim: bool = False) -> T:
        """Product of all elements, or along an axis; integers and bools are multiplied in int64."""
        return widened(self)._reduced(reduction.Prod, dim, keepdim)

    def logsumexp(self: T, dim: Any, keepdim: bool = False) -> T:
        """log(sum(exp(x))) without overflow."""
        return widened(self._floating())._reduced(reduction.LogSumExp, dim, keepdim)

    def norm(self: T, p: Any = "fro", dim: Any = None, keepdim: bool = False) -> T:
        """(sum |x|**p) ** (1/p) over all axes, or over those named.

        Args:
            p: a number; 'fro' and 2 are the Euclidean norm, inf the greatest |x|, -inf the least, 0 the number of
                elements that are not 0.
        """
        _check_floating("norm", self)
        number = 2.0 if p == "fro" else p
        x = widened(self)
        if not isinstance(number, (int, float)):
            raise ValueError(f"norm: p must be a number or 'fro', got {p!r}")
        if math.isinf(number):
            size = x._call(elementwise.Absolute)
            return size.amax(dim, keepdim) if number > 0 else size.amin(dim, keepdim)
        return x._reduced(reduction.Norm, dim, keepdim, p=float(number))

    def _reduced(self: T, function: type[Function], dim: Any, keepdim: bool, **parameters: Any) -> T:
        axes = arguments.reduced_axes(dim, self.data.ndim)
        if not self.data.ndim:
            return self._call(shape.Reshape, shape=(1,))._call(function, axes=(0,), keepdims=False, **parameters)
        return self._call(function, axes=axes, keepdims=bool(keepdim), **parameters)

    # -- extrema

    def amax(self: T, dim: Any = None, keepdim: bool = False) -> T:
        """The greatest element over all axes or those named; its gradient is shared by all that are equal."""
        _check_elements("amax", self, dim)
        return self._reduced(reduction.Amax, None if dim == () else dim, keepdim)

    def amin(self: T, dim: Any = None, keepdim: bool = False) -> T:
        """The least element over all axes or those named; its gradient is shared by all that are equal."""
        _check_elements("amin", self, dim)
        return self._reduced(reduction.Amin, None if dim == () else dim, keepdim)

    def max(self: T, dim: Any = None, keepdim: bool = False) -> Any:
        """max(): the greatest element. max(dim): (values, indices) along an axis. max(other): as `maximum`.

        Of equal elements along an axis the first is taken, and the gradient goes to it alone; without an axis all
        that are equal share it. A NaN is greater than any number.
        """
        return self._extremum("max", dim, keepdim)

    def min(self: T, dim: Any = None, keepdim: bool = False) -> Any:
        """min(): the least element. min(dim): (values, indices) along an axis. min(other): as `minimum`.

        Ties and gradients as in `max`; a NaN is less than any number.
        """
        return self._extremum("min", dim, keepdim)

    def _extremum(self: T, name: str, dim: Any, keepdim: bool) -> Any:
        if dim is None:
            return getattr(self, f"a{name}")()
        if isinstance(dim, Recorded):
            return getattr(self, f"{name}imum")(dim)
        indices = getattr(self, f"arg{name}")(dim, keepdim=True)
        values = self._taken(indices, dim)
        if keepdim or not self.data.ndim:
            return ValuesAndIndices(values, indices)
        return ValuesAndIndices(values._without_axis(dim), indices._without_axis(dim))

    def argmax(self: T, dim: int | None = None, keepdim: bool = False) -> T:
        """int64 position of the first maximum: over all elements in logical order, or along one axis."""
        return self._position("argmax", dim, keepdim)

    def argmin(self: T, dim: int | None = None, keepdim: bool = False) -> T:
        """int64 position of the first minimum: over all elements in logical order, or along one axis."""
        return self._position("argmin", dim, keepdim)

    def _position(self: T, name: str, dim: int | None, keepdim: bool) -> T:
        _check_elements(name, self, dim)
        flat = self if dim is not None and self.data.ndim else self._call(shape.Reshape, shape=(self.data.size,))
        axis = 0 if flat is not self else normalize_axis(dim, self.data.ndim)
        found = flat._call(ordering.ArgExtremum, axis=axis, largest=name == "argmax")
        old = self.data.shape
        if dim is None or not old:
            return found._call(shape.Reshape, shape=(1,) * len(old) if keepdim else ())
        return found if keepdim else found._without_axis(axis)

    def _without_axis(self: T, dim: int) -> T:
        """Without the axis `dim` of size 1."""
        old, axis = self.data.shape, normalize_axis(dim, self.data.ndim)
        return self._call(shape.Reshape, shape=(*old[:axis], *old[axis + 1 :]))

    def any(self: T, dim: Any = None, keepdim: bool = False) -> T:
        """Whether one element at least is not 0: a bool tensor."""
        return self._compared(operator.ne, 0).sum(dim, keepdim) > 0

    def all(self: T, dim: Any = None, keepdim: bool = False) -> T:
        """Whether no element is 0: a bool tensor."""
        return self._compared(operator.eq, 0).sum(dim, keepdim)._compared(operator.eq, 0)

    # -- along an axis

    def cumsum(self: T, dim: int) -> T:
        """Running sums along an axis; those of integers and bools in int64."""
        return widened(self)._along(ordering.Cumsum, dim)

    def sort(self: T, dim: int = -1, descending: bool = False, stable: bool = True) -> ValuesAndIndices:
        """(values, indices) in order along an axis; equal elements keep theirs, a NaN is greater than any number."""
        indices = self.argsort(dim, descending, stable)
        return ValuesAndIndices(self._taken(indices, dim), indices)

    def argsort(self: T, dim: int = -1, descending: bool = False, stable: bool = True) -> T:
        """int64 positions that sort along an axis, always stably."""
        return self._along(ordering.Argsort, dim, descending=bool(descending))

    def topk(self: T, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesAndIndices:
        """(values, indices) of the k greatest (least) elements along an axis, in order; of equal ones the first.

        Raises ValueError unless 0 <= k <= the size of the axis.
        """
        axis = normalize_axis(dim, max(1, self.data.ndim))
        size = self.data.shape[axis] if self.data.ndim else 1
        if not 0 <= arguments.whole(k, "topk: k") <= size:
            raise ValueError(f"topk: k must lie between 0 and the size {size} of axis {axis}, got {k}")
        indices = self.argsort(dim, largest)
        if self.data.ndim:
            indices = indices._call(shape.GetItem, index=(slice(None),) * axis + (slice(0, k),))
        return ValuesAndIndices(self._taken(indices, dim), indices)

    def _along(self: T, function: type[Function], dim: int, **parameters: Any) -> T:
        """Of a tensor without axes as if it had one."""
        if self.data.ndim:
            return self._call(function, axis=normalize_axis(dim, self.data.ndim), **parameters)
        normalize_axis(dim, 1)
        row = self._call(shape.Reshape, shape=(1,))._call(function, axis=0, **parameters)
        return row._call(shape.Reshape, shape=())

    def _taken(self: T, indices: T, dim: int) -> T:
        """The elements at the positions along an axis."""
        if not self.data.ndim:
            return self._call(shape.Reshape, shape=())
        parameters = {"axis": normalize_axis(dim, self.data.ndim)}
        return self.__record__(ordering.Take, (self, indices.data), parameters)  # type: ignore[no-any-return]


def _check_floating(op: str, tensor: Recorded) -> None:
    if tensor.data.dtype.kind not in backend.FLOAT_KINDS:
        raise TypeError(f"{op} needs a floating dtype, got {tensor.data.dtype}; to('float32') gives one")


def _check_elements(op: str, tensor: Recorded, dim: Any) -> None:
    """ValueError where there is nothing to choose from."""
    sizes = tensor.data.shape
    if any(sizes[axis] == 0 for axis in arguments.reduced_axes(None if dim == () else dim, len(sizes))):
        kind = "largest" if op.endswith("max") else "smallest"
        raise ValueError(f"{op}: a tensor of shape {sizes} has no {kind} element")
