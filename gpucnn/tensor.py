"""Tensors: arrays that remember how they were computed.

A Tensor with 4 axes is an image batch or a filter bank: users see N,C,H,W (or K,C,R,S), and the array inside is
normally the transposed view of a channels-last one, which is what ops work on.
"""

from __future__ import annotations

from typing import Any, SupportsFloat, cast

import numpy as np

from gpucnn import backend
from gpucnn.autograd import Context, Function, is_grad_enabled
from gpucnn.backend import FLOAT_DTYPES, Array
from gpucnn.graph import Edge, Node, backpropagate, own
from gpucnn.ops import elementwise, reduction, shape

class Tensor:
    """An array with a gradient.

    Args:
        data: numpy or cupy array (not copied), number or nested list (Python floats become float32).
        requires_grad: gradients of this tensor are collected in `.grad`; floating dtypes only.

    Raises:
        TypeError: data of a dtype that tensors can't hold.
        ValueError: `requires_grad` for integers.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad", "version")
    __array_priority__ = 1000  # numpy_array * Tensor is the Tensor's to compute

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data = as_array(data)
        if requires_grad and self.data.dtype.kind != "f":
            raise ValueError(f"only tensors of a floating dtype can require gradients, got {self.data.dtype}")
        self.requires_grad = requires_grad
        self.grad: Tensor | None = None
        self.node: tuple[Node, int] | None = None
        self.version = 0
        """Counts writes into the array, so that backward() can tell that what it saved has changed."""

    # -- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return self.data.ndim  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> str:
        """'cpu' or 'cuda:<index>'."""
        return backend.device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        return self.node is None

    def numel(self) -> int:
        return int(self.data.size)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=100, precision=4)
        extras = "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        extras += "" if self.device == "cpu" else f", device={self.device!r}"
        extras += ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({text}{extras})"

    # -- getting the data out and across

    def numpy(self) -> np.ndarray[Any, Any]:
        """The data as a numpy array: shared memory on the CPU, a copy from a GPU."""
        return cast("np.ndarray[Any, Any]", backend.to_device(self.data, "cpu"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """The only element, as a Python number."""
        if self.numel() != 1:
            raise ValueError(f"item() needs a tensor with one element, this has shape {self.shape}")
        return self.data.item()

    def tolist(self) -> Any:
        return self.data.tolist()

    def __float__(self) -> float:
        return float(cast(SupportsFloat, self.item()))

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __dlpack__(self, **options: Any) -> Any:
        """DLPack export without a copy; refused (BufferError) while gradients are required, as PyTorch does."""
        if self.requires_grad:
            raise BufferError("a tensor that requires gradients is not exported by DLPack: export detach() of it")
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()  # type: ignore[no-any-return]

    def detach(self) -> Tensor:
        """The same memory without history."""
        return Tensor(self.data)

    def clone(self) -> Tensor:
        """A copy in memory of its own, through which gradients pass."""
        return record(shape.Convert, (self,), {"dtype": self.dtype, "device": self.device, "copy": True})

    def to(self, *targets: Any, dtype: Any = None, device: str | None = None) -> Tensor:
        """The tensor in another dtype or on another device, itself if it is so already: to('cuda'), to('float16')."""
        for target in targets:
            if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
                device = target
            else:
                dtype = target
        wanted = self.dtype if dtype is None else np.dtype(dtype)
        place = self.device if device is None else device
        kind, index = backend.parse_device(place)
        if wanted == self.dtype and self.device == ("cpu" if kind == "cpu" else f"cuda:{index}"):
            return self
        return record(shape.Convert, (self,), {"dtype": wanted, "device": place})

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def cuda(self) -> Tensor:
        return self.to("cuda")

    def copy_(self, source: Any) -> Tensor:
        """Writes `source` (same shape) into this tensor's memory. Refused where that would change recorded history."""
        values = source.data if isinstance(source, Tensor) else as_array(source)
        if values.shape != self.shape:
            raise ValueError(f"copy_: source has shape {values.shape}, the tensor {self.shape}")
        if is_grad_enabled() and (self.requires_grad or not self.is_leaf):
            raise RuntimeError("copy_ into a tensor that takes part in gradients: do it inside gpucnn.no_grad()")
        self.data[...] = backend.to_device(values, self.device)
        self.version += 1
        return self

    # -- arithmetic

    def __add__(self, other: Any) -> Tensor:
        return binary(elementwise.Add, self, other)

    def __sub__(self, other: Any) -> Tensor:
        return binary(elementwise.Subtract, self, other)

    def __mul__(self, other: Any) -> Tensor:
        return binary(elementwise.Multiply, self, other)

    def __truediv__(self, other: Any) -> Tensor:
        return binary(elementwise.Divide, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return binary(elementwise.Add, other, self)

    def __rsub__(self, other: Any) -> Tensor:
        return binary(elementwise.Subtract, other, self)

    def __rmul__(self, other: Any) -> Tensor:
        return binary(elementwise.Multiply, other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return binary(elementwise.Divide, other, self)

    def __neg__(self) -> Tensor:
        return record(elementwise.Negative, (self,), {})

    def __pow__(self, exponent: Any) -> Tensor:
        if not isinstance(exponent, (int, float)):
            return NotImplemented
        return record(elementwise.Power, (self,), {"exponent": exponent})

    def exp(self) -> Tensor:
        return record(elementwise.Exp, (self,), {})

    def log(self) -> Tensor:
        return record(elementwise.Log, (self,), {})

    def relu(self) -> Tensor:
        return record(elementwise.ReLU, (self,), {})

    def sum(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        return record(reduction.Sum, (self,), {"axes": self._axes(dim), "keepdims": keepdim})

    def mean(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        if self.dtype.kind != "f":
            raise TypeError(f"mean needs a floating dtype, got {self.dtype}")
        return record(reduction.Mean, (self,), {"axes": self._axes(dim), "keepdims": keepdim})

    def argmax(self, dim: int | None = None) -> Tensor:
        return Tensor(self.data.argmax(axis=dim))

    def _axes(self, dim: int | tuple[int, ...] | None) -> tuple[int, ...]:
        if dim is None:
            return tuple(range(self.ndim))
        axes = tuple(normalize_axis(d, self.ndim) for d in (dim if isinstance(dim, tuple) else (dim,)))
        if len(set(axes)) < len(axes):
            raise ValueError(f"dim={dim!r} names an axis twice")
        return axes

    # -- comparisons: plain bool tensors

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return Tensor(self.data == _plain(other))

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return Tensor(self.data != _plain(other))

    def __lt__(self, other: Any) -> Tensor:
        return Tensor(self.data < _plain(other))

    def __le__(self, other: Any) -> Tensor:
        return Tensor(self.data <= _plain(other))

    def __gt__(self, other: Any) -> Tensor:
        return Tensor(self.data > _plain(other))

    def __ge__(self, other: Any) -> Tensor:
        return Tensor(self.data >= _plain(other))

    __hash__ = object.__hash__

    # -- shape

    def reshape(self, *sizes: Any) -> Tensor:
        """The same elements in logical order under another shape; one size may be -1."""
        wanted = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
        known = int(np.prod([size for size in wanted if size != -1], dtype=np.int64))
        unknown = sum(size == -1 for size in wanted)
        if unknown > 1 or any(size < -1 for size in wanted):
            raise ValueError(f"reshape: sizes must be 0 or more, and one at most -1, got {wanted}")
        if (self.numel() % known if known else self.numel()) if unknown else known != self.numel():
            raise ValueError(f"reshape: shape {self.shape} has {self.numel()} elements, {wanted} does not")
        if unknown and not known:
            raise ValueError(f"reshape: -1 in {wanted} is ambiguous for a tensor without elements")
        full = tuple(self.numel() // known if size == -1 else size for size in wanted)
        return record(shape.Reshape, (self,), {"shape": full})

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        if not self.ndim:
            return self.reshape(1)
        start, end = normalize_axis(start_dim, self.ndim), normalize_axis(end_dim, self.ndim)
        if start > end:
            raise ValueError(f"flatten: start_dim={start_dim} comes after end_dim={end_dim}")
        merged = int(np.prod(self.shape[start : end + 1], dtype=np.int64))
        return self.reshape(*self.shape[:start], merged, *self.shape[end + 1 :])

    def unsqueeze(self, dim: int) -> Tensor:
        at = normalize_axis(dim, self.ndim + 1)
        return self.reshape(*self.shape[:at], 1, *self.shape[at:])

    def squeeze(self, dim: int) -> Tensor:
        at = normalize_axis(dim, self.ndim)
        return self.reshape(*self.shape[:at], *self.shape[at + 1 :]) if self.shape[at] == 1 else self

    def permute(self, *dims: int) -> Tensor:
        axes = tuple(normalize_axis(d, self.ndim) for d in dims)
        if sorted(axes) != list(range(self.ndim)):
            raise ValueError(f"permute: {dims} is no permutation of the {self.ndim} axes")
        return record(shape.Permute, (self,), {"axes": axes})

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        axes = list(range(self.ndim))
        a, b = normalize_axis(dim0, self.ndim), normalize_axis(dim1, self.ndim)
        axes[a], axes[b] = axes[b], axes[a]
        return self.permute(*axes)

    def __getitem__(self, index: Any) -> Tensor:
        parts = index if isinstance(index, tuple) else (index,)
        plain = tuple(part.data if isinstance(part, Tensor) else part for part in parts)
        return record(shape.GetItem, (self,), {"index": plain if isinstance(index, tuple) else plain[0]})

    # -- gradients

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switches collecting of gradients for a leaf."""
        if not self.is_leaf:
            raise RuntimeError("requires_grad can be changed on leaves only; use detach() to cut the history")
        if requires_grad and self.dtype.kind != "f":
            raise ValueError(f"only tensors of a floating dtype can require gradients, got {self.dtype}")
        self.requires_grad = requires_grad
        return self

    def backward(self, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Adds d(self)/d(leaf), contracted with `gradient`, to `.grad` of every leaf that requires it.

        Args:
            gradient: array or tensor of this tensor's shape; may be left out where it has one element (then 1).
            retain_graph: keep what the forward pass saved, so that backward can run again.
            create_graph: not supported; gradients are not recorded themselves.

        Raises:
            RuntimeError: nothing here requires a gradient, or the graph was freed by an earlier call.
            ValueError: `gradient` is missing or misshapen.
            NotImplementedError: `create_graph=True`.
        """
        if create_graph:
            raise NotImplementedError("create_graph=True: gpucnn does not record gradients, so it has none of gradients")
        if not self.requires_grad:
            raise RuntimeError("backward() on a tensor that requires no gradient: no input of it had requires_grad=True")
        backpropagate(self.edge, _seed(self, gradient), retain_graph)

    @property
    def edge(self) -> Edge:
        """Where a gradient of this tensor is to be delivered: the node that made it, or the leaf itself."""
        return self.node or self

    def accumulate(self, gradient: Array, owners: dict[int, Array]) -> None:
        """Adds to .grad; `owners` are the memories already given out in this walk."""
        if self.grad is None:
            self.grad = Tensor(own(gradient, owners))
        else:
            self.grad = Tensor(elementwise.in_memory_order(elementwise.add, None, self.grad.data, gradient))


def _seed(root: Tensor, gradient: Any) -> Array:
    if gradient is None:
        if root.numel() != 1:
            raise ValueError(f"backward() without a gradient needs a tensor with one element, this has {root.shape}")
        return backend.namespace(root.data).ones_like(root.data)
    values = gradient.data if isinstance(gradient, Tensor) else as_array(gradient)
    if values.shape != root.shape:
        raise ValueError(f"backward: gradient has shape {values.shape}, the tensor {root.shape}")
    return backend.to_device(values, root.device).astype(root.dtype, copy=False)


def record(function: type[Function], inputs: tuple[Any, ...], parameters: dict[str, Any]) -> Any:
    """Runs a Function on the arrays of `inputs` and notes it in the graph if any of them needs a gradient."""
    enabled = is_grad_enabled()
    needs = tuple([enabled and isinstance(x, Tensor) and x.requires_grad for x in inputs])
    context = Context(needs)
    result = function.forward(context, *[x.data if isinstance(x, Tensor) else x for x in inputs], **parameters)
    results = result if isinstance(result, tuple) else (result,)
    outputs = tuple([Tensor(array) for array in results])
    if True in needs:
        edges = tuple([x.edge if need else None for x, need in zip(inputs, needs, strict=True)])
        leaves = [x for x in inputs if isinstance(x, Tensor) and x.node is None]
        node = Node(function, context, edges, leaves, outputs)
        for number, tensor in enumerate(outputs):
            if tensor.dtype.kind == "f":
                tensor.requires_grad, tensor.node = True, (node, number)
    return outputs if isinstance(result, tuple) else outputs[0]


Tensor.__record__ = staticmethod(record)  # type: ignore[attr-defined]


def binary(function: type[Function], a: Any, b: Any) -> Tensor:
    """`function` of two operands of which one is a Tensor; numbers and arrays join it on its device."""
    tensor = a if isinstance(a, Tensor) else b
    operands = tuple(_operand(x, tensor) for x in (a, b))
    left, right = operands
    if left.device != right.device:
        raise ValueError(f"{function.__name__}: operands are on {left.device} and {right.device}; move one with to()")
    try:
        np.broadcast_shapes(left.shape, right.shape)
    except ValueError:
        raise ValueError(f"{function.__name__}: shapes {left.shape} and {right.shape} do not broadcast") from None
    return record(function, operands, {})  # type: ignore[no-any-return]


def _operand(value: Any, beside: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (bool, int, float)):
        keeps = beside.dtype.kind == "f" or not isinstance(value, float)
        dtype = beside.dtype if keeps else np.dtype(np.float32)
        return Tensor(backend.namespace(beside.data).asarray(value, dtype=dtype))
    return Tensor(backend.to_device(as_array(value), beside.device))


def _plain(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value


def as_array(data: Any) -> Array:
    if isinstance(data, Tensor):
        data = data.data
    if not isinstance(data, np.ndarray):
        try:
            backend.namespace(data)
        except TypeError:
            values = np.asarray(data)
            is_numpy = isinstance(data, np.generic)
            data = values if is_numpy or values.dtype != np.float64 else values.astype(np.float32)
    dtype = data.dtype
    if not (dtype in FLOAT_DTYPES or dtype.kind in "biu"):
        raise TypeError(f"a tensor holds floats (float32, float64, float16), integers or bools, not {dtype}")
    return data if dtype.isnative else data.astype(dtype.newbyteorder("="))


def normalize_axis(axis: int, ndim: int) -> int:
    """A negative axis counted from the end; ValueError if there is no such axis."""
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis {axis} is out of range for {ndim} axes")
    return axis % ndim
