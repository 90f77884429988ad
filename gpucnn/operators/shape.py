"""Other shapes, other orders of axes, parts, repetitions."""

from __future__ import annotations

from typing import Any, TypeVar

from gpucnn import arguments
from gpucnn.arguments import normalize_axis, several, whole
from gpucnn.operators.base import Recorded
from gpucnn.ops import shape

T = TypeVar("T", bound="Shapes")


class Shapes(Recorded):
    """Shapes are logical, (N,C,H,W) for images; what is copied keeps the order that memory has."""

    __slots__ = ()

    def reshape(self: T, *sizes: Any) -> T:
        """The same elements in logical order under another shape; one size may be -1."""
        return self._call(shape.Reshape, shape=arguments.new_shape(self.data.shape, sizes))

    view = reshape

    def flatten(self: T, start_dim: int = 0, end_dim: int = -1) -> T:
        """Axes start_dim to end_dim as one, in logical order."""
        return self._call(shape.Reshape, shape=arguments.flat_shape(self.data.shape, start_dim, end_dim))

    def unflatten(self: T, dim: int, sizes: Any) -> T:
        """The axis `dim` as several of the given sizes, of which one may be -1."""
        return self._call(shape.Reshape, shape=arguments.unflat_shape(self.data.shape, dim, sizes))

    def unsqueeze(self: T, dim: int) -> T:
        """With a new axis of size 1 at `dim`."""
        old, at = self.data.shape, normalize_axis(dim, self.data.ndim + 1)
        return self._call(shape.Reshape, shape=(*old[:at], 1, *old[at:]))

    def squeeze(self: T, dim: int | None = None) -> T:
        """Without the axis `dim` if its size is 1; without all such axes for None."""
        axes = arguments.reduced_axes(dim, self.data.ndim)
        kept = tuple([size for axis, size in enumerate(self.data.shape) if size != 1 or axis not in axes])
        return self._call(shape.Reshape, shape=kept)

    # -- order of axes

    def permute(self: T, *dims: Any) -> T:
        """Axes in another order: permute(0, 2, 3, 1). Always a view."""
        return self._call(shape.Permute, axes=arguments.permutation(dims, self.data.ndim))

    def transpose(self: T, dim0: int, dim1: int) -> T:
        """Two axes exchanged. Always a view."""
        axes = list(range(self.data.ndim))
        a, b = (normalize_axis(dim, self.data.ndim) for dim in (dim0, dim1))
        axes[a], axes[b] = axes[b], axes[a]
        return self._call(shape.Permute, axes=tuple(axes))

    def movedim(self: T, source: Any, destination: Any) -> T:
        """The axes `source` at the places `destination`, the others in their order. Always a view."""
        ndim = self.data.ndim
        if isinstance(source, (tuple, list)) != isinstance(destination, (tuple, list)):
            raise ValueError(f"movedim: as many sources as destinations are needed, got {source} and {destination}")
        moved, places = arguments.reduced_axes(source, ndim), arguments.reduced_axes(destination, ndim)
        if len(moved) != len(places):
            raise ValueError(f"movedim: as many sources as destinations are needed, got {source} and {destination}")
        going = dict(zip(places, moved, strict=True))
        staying = iter([axis for axis in range(ndim) if axis not in moved])
        return self._call(shape.Permute, axes=tuple([going[i] if i in going else next(staying) for i in range(ndim)]))

    # -- parts

    def __getitem__(self: T, index: Any) -> T:
        kept = tuple(map(_kept_index, index)) if isinstance(index, tuple) else _kept_index(index)
        return self._call(shape.GetItem, index=kept)

    def narrow(self: T, dim: int, start: int, length: int) -> T:
        """Elements [start, start + length) of an axis, as a view; a negative start counts from the end."""
        axis = normalize_axis(dim, self.data.ndim)
        size, count, first = self.data.shape[axis], whole(length, "narrow: length"), whole(start, "narrow: start")
        first += size if first < 0 else 0
        if not (0 <= first <= size and 0 <= count <= size - first):
            raise ValueError(f"narrow: {length} elements from {start} on leave the axis {axis} of size {size}")
        return self._call(shape.GetItem, index=(slice(None),) * axis + (slice(first, first + count),))

    def split(self: T, split_size: Any, dim: int = 0) -> tuple[T, ...]:
        """Views of consecutive parts of an axis, of `split_size` each (the last what is left) or of listed sizes."""
        axis = normalize_axis(dim, self.data.ndim)
        return self._parts(axis, arguments.part_sizes("split", self.data.shape[axis], split_size))

    def chunk(self: T, chunks: int, dim: int = 0) -> tuple[T, ...]:
        """Views of at most `chunks` parts of an axis, all but the last of one size."""
        axis = normalize_axis(dim, self.data.ndim)
        count, size = whole(chunks, "chunk: chunks"), self.data.shape[axis]
        if count < 1:
            raise ValueError(f"chunk: chunks must be at least 1, got {chunks}")
        if not size:
            return self._parts(axis, (0,) * count)
        return self._parts(axis, arguments.part_sizes("chunk", size, -(-size // count)))

    def unbind(self: T, dim: int = 0) -> tuple[T, ...]:
        """Views of what lies along an axis, without that axis."""
        axis = normalize_axis(dim, self.data.ndim)
        if not self.data.shape[axis]:
            return ()
        return tuple([part.squeeze(axis) for part in self._parts(axis, (1,) * self.data.shape[axis])])

    def _parts(self: T, axis: int, sizes: tuple[int, ...]) -> tuple[T, ...]:
        return self.__record__(shape.Split, (self,), {"axis": axis, "sizes": sizes})  # type: ignore[no-any-return]

    # -- repetitions and moves

    def expand(self: T, *sizes: Any) -> T:
        """Repeated along new axes in front and along axes of size 1, as a view; -1 leaves a size as it is."""
        return self._call(shape.Expand, shape=arguments.expanded(self.data.shape, sizes))

    def broadcast_to(self: T, size: Any) -> T:
        """expand(size)."""
        return self.expand(tuple(size))

    def repeat(self: T, *repeats: Any) -> T:
        """Copies in a row, so many along each axis; more numbers than axes make new axes in front."""
        counts = tuple([whole(count, "repeat: a count") for count in several(repeats)])
        new = len(counts) - self.data.ndim
        if new < 0 or min(counts, default=0) < 0:
            raise ValueError(f"repeat: takes a count of 0 or more for each axis of {self.data.shape}, got {counts}")
        seen = self._call(shape.Reshape, shape=(1,) * new + self.data.shape) if new else self
        return seen._call(shape.Repeat, counts=counts)

    def flip(self: T, *dims: Any) -> T:
        """A copy with the given axes in reverse."""
        return self._call(shape.Flip, axes=arguments.reduced_axes(several(dims), self.data.ndim))

    def roll(self: T, shifts: Any, dims: Any = None) -> T:
        """A copy with elements moved on along axes, those that leave one end coming in at the other.

        `shifts` and `dims` are numbers, or tuples of as many; without `dims` the elements move in logical order as if
        they had one axis.
        """
        counts = tuple([whole(shift, "roll: a shift") for shift in several((shifts,))])
        if dims is None:
            if len(counts) != 1:
                raise ValueError(f"roll: without dims there is one shift, got {shifts}")
            return self.reshape(-1).roll(counts, 0).reshape(self.data.shape) if self.data.size else self
        axes = tuple([normalize_axis(dim, self.data.ndim) for dim in several((dims,))])
        if len(axes) != len(counts):
            raise ValueError(f"roll: shifts and dims must be as many, got {shifts} and {dims}")
        return self._call(shape.Roll, shifts=counts, axes=axes)


def _kept_index(part: Any) -> Any:
    """An index for backward to find as it was: arrays and lists are copied, for their owner may write into them."""
    array = part.data if isinstance(part, Recorded) else part
    return array.copy() if hasattr(array, "copy") else array
