"""Tensors: arrays that remember how they were computed.

A Tensor with 4 axes is an image batch or a filter bank: users see N,C,H,W (or K,C,R,S), and the array inside is
normally the transposed view of a channels-last one, which is what ops work on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from gpucnn import arguments, backend, flags
from gpucnn.autograd import Context, Function, grad_mode, observers
from gpucnn.backend import Array, array_types
from gpucnn.graph import Edge, Node, backpropagate, own, wrote
from gpucnn.operators import Operators
from gpucnn.ops import elementwise, shape

_accumulating = threading.Lock()
"""Two threads, each with a graph of its own, may end in the same leaf."""


class Tensor(Operators):
    """An array with a gradient.

    Args:
        data: numpy or cupy array (not copied), number or nested list (Python floats become float32).
        requires_grad: gradients of this tensor are collected in `.grad`; floating dtypes only.

    Raises:
        TypeError: data of a dtype that tensors can't hold.
        ValueError: `requires_grad` for integers.
    """

    __slots__ = ("__weakref__", "_requires_grad", "data", "grad", "node")

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data: Array = as_array(data)
        self.grad: Tensor | None = None
        self.node: tuple[Node, int] | None = None
        """The recorded call that made this tensor, and which of its outputs it is; None for a leaf."""
        self._requires_grad = False
        if requires_grad:
            self.requires_grad_()

    # -- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes in logical order: (N,C,H,W) for images."""
        return self.data.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        """numpy's dtype of the elements."""
        return self.data.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> str:
        """'cpu' or 'cuda:<index>'."""
        return backend.device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded call made this tensor."""
        return self.node is None

    @property
    def requires_grad(self) -> bool:
        """Whether backward() reaches this tensor. Assigning is calling `requires_grad_`."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        self.requires_grad_(requires_grad)

    def numel(self) -> int:
        """Number of elements."""
        return int(self.data.size)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        return self.shape if dim is None else self.shape[arguments.normalize_axis(dim, self.ndim)]

    def dim(self) -> int:
        """Number of axes."""
        return self.ndim

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.__getitem__, range(len(self)))

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=100, precision=4)
        extras = "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        extras += "" if self.device == "cpu" else f", device={self.device!r}"
        extras += ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({text}{extras})"

    def __format__(self, spec: str) -> str:
        return format(str(self) if self.ndim or not spec else self.item(), spec)

    # -- getting the data out and across

    def numpy(self) -> np.ndarray[Any, Any]:
        """The data as a numpy array: shared memory on the CPU, a copy from a GPU.

        A write into it escapes backward(), which notices those of `copy_`, `x += y` and the optimisers.
        """
        return cast("np.ndarray[Any, Any]", backend.to_device(self.data, "cpu"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """The only element, as a Python number.

        Raises:
            ValueError: there are more elements, or none.
            flags.FlagError: a kernel met a bad label, or a loss that is not finite, in an earlier step (gpucnn.flags).
        """
        if self.data.size != 1:
            raise ValueError(f"item() needs a tensor with one element, this has shape {self.shape}")
        value = self.data.item()
        flags.check(self.data)
        return value

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self.data.tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(f"a tensor of shape {self.shape} is neither true nor false: only one element would be")
        return bool(self.item())

    def __dlpack__(self, **options: Any) -> Any:
        """DLPack export without a copy; refused (BufferError) while gradients are required, as PyTorch does."""
        if self.requires_grad:
            raise BufferError("a tensor that requires gradients is not exported by DLPack: export detach() of it")
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        """What `copy` and `pickle` take of a leaf: array, order of its axes in memory, requires_grad."""
        if not self.is_leaf:
            raise RuntimeError("only leaves can be pickled or copied by `copy`: take detach() of this tensor")
        order = backend.memory_order(self.data)
        return _rebuilt, (type(self), self.data.transpose(order) if order else self.data, order, self.requires_grad)

    def detach(self) -> Tensor:
        """The same memory without history."""
        return _wrapped(self.data)

    def clone(self) -> Tensor:
        """A copy in memory of its own, through which gradients pass."""
        return self._call(shape.Convert, dtype=self.dtype, device=self.device, copy=True)

    def to(self, *targets: Any, dtype: Any = None, device: str | None = None) -> Tensor:
        """The tensor in another dtype or on another device, itself if it is so already: to('cuda'), to('float16')."""
        wanted, place = arguments.conversion(targets, dtype, device)
        wanted, place = wanted or self.dtype, place or self.device
        if wanted == self.dtype and place == self.device:
            return self
        return self._call(shape.Convert, dtype=wanted, device=place)

    def cpu(self) -> Tensor:
        """to('cpu')."""
        return self.to("cpu")

    def cuda(self) -> Tensor:
        """to('cuda')."""
        return self.to("cuda")

    def copy_(self, source: Any) -> Tensor:
        """Writes `source` (same shape) into this tensor's memory. Refused where that would change recorded history."""
        values = as_array(source)
        if values.shape != self.shape:
            raise ValueError(f"copy_: source has shape {values.shape}, the tensor {self.shape}")
        if grad_mode.enabled and (self.requires_grad or (isinstance(source, Tensor) and source.requires_grad)):
            raise RuntimeError("copy_ between tensors that take part in gradients: do it inside gpucnn.no_grad()")
        self.data[...] = backend.to_device(values, self.device)
        wrote(self.data)
        return self

    # -- in place: `x += y` writes into x's memory; where history is recorded, x means another tensor from then on

    def __iadd__(self, other: Any) -> Tensor:
        return self._become(self + other)

    def __isub__(self, other: Any) -> Tensor:
        return self._become(self - other)

    def __imul__(self, other: Any) -> Tensor:
        return self._become(self * other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._become(self / other)

    def _become(self, result: Tensor) -> Tensor:
        if self.is_leaf and self.requires_grad and grad_mode.enabled:
            raise RuntimeError("a leaf that requires gradients changes in place only inside gpucnn.no_grad()")
        if result.requires_grad:
            return result
        if not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise TypeError(f"a tensor of {self.dtype} can't take the {result.dtype} result in place; write x = x + y")
        return self.copy_(result)

    # -- gradients

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switches collecting of gradients for a leaf.

        Raises:
            RuntimeError: switching it off for what was computed; detach() cuts the history.
            ValueError: switching it on for integers.
        """
        if not self.is_leaf and not requires_grad:
            raise RuntimeError("requires_grad can be switched off for leaves only; use detach() to cut the history")
        if requires_grad and self.dtype.kind not in backend.FLOAT_KINDS:
            raise ValueError(f"only tensors of a floating dtype can require gradients, got {self.dtype}")
        self._requires_grad = bool(requires_grad)
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
            raise NotImplementedError("create_graph=True: gradients are not recorded, so none can be taken of them")
        if not self.requires_grad:
            raise RuntimeError("backward() on a tensor that requires no gradient: no input of it does")
        if gradient is None:
            if self.data.size != 1:
                raise ValueError(f"backward() without a gradient needs one element, this tensor has shape {self.shape}")
            seed = backend.namespace(self.data).ones(self.shape, self.dtype)
        else:
            seed = backend.to_device(as_array(gradient), self.device).astype(self.dtype, copy=False)
            if seed.shape != self.shape:
                raise ValueError(f"backward: gradient has shape {seed.shape}, the tensor {self.shape}")
        backpropagate(self.edge, seed, retain_graph)

    # -- the graph

    @staticmethod
    def __record__(function: type[Function], inputs: tuple[Any, ...], parameters: dict[str, Any]) -> Any:
        arrays: list[Any] = []
        edges: list[Edge | None] = []
        needs: list[bool] = []
        enabled = grad_mode.enabled
        for x in inputs:
            if isinstance(x, Tensor):
                arrays.append(x.data)
                if enabled and x._requires_grad:
                    edges.append(x.node or x)
                    needs.append(True)
                    continue
            else:
                arrays.append(x)
            edges.append(None)
            needs.append(False)
        context, is_needed = Context(tuple(needs)), True in needs
        result = function.forward(context, *arrays, **parameters)
        if type(result) in array_types and (kind := result.dtype.kind) in "fiub":  # one array, as mostly: a short way
            outputs: Any = _wrapped(result)
            if is_needed and kind == "f":
                outputs.node = (Node(function, context, edges, [(result.shape, result.dtype)]), 0)
                outputs._requires_grad = True
        else:
            outputs = _outputs(function, context, edges if is_needed else None, result)
        if observers and (observer := observers.get(threading.get_ident())):
            each = list(outputs) if isinstance(outputs, tuple) else [outputs]
            observer.function(function, inputs, parameters, context, each)
        return outputs

    @property
    def edge(self) -> Edge:
        """Where a gradient of this tensor is to be delivered: the node that made it, or the leaf itself."""
        return self.node or self

    def accumulate(self, gradient: Array, given_out: dict[int, Array]) -> None:
        """Adds to .grad; `given_out` holds the memories that leaves have been given already in this walk."""
        with _accumulating:
            if self.grad is None:
                self.grad = _wrapped(own(gradient, self.data, given_out))
            else:
                self.grad = _wrapped(elementwise.in_memory_order(elementwise.add, None, self.grad.data, gradient))


def as_array(data: Any) -> Array:
    """The array of a tensor, or what backend.as_array makes of anything else."""
    return data.data if isinstance(data, Tensor) else backend.as_array(data)


_new = object.__new__


def _wrapped(array: Array) -> Tensor:
    """A leaf over an array that is known to be one that tensors hold."""
    tensor = _new(Tensor)
    tensor.data = array
    tensor.grad = tensor.node = None
    tensor._requires_grad = False
    return tensor


def _rebuilt(kind: type[Tensor], laid_out: Array, order: tuple[int, ...] | None, requires_grad: bool) -> Tensor:
    return kind(backend.from_nhwc(laid_out) if order else laid_out, requires_grad)


def _outputs(function: type[Function], context: Context, edges: list[Edge | None] | None, result: Any) -> Any:
    """What forward returned as a tensor or a tuple of them, recorded where there are edges."""
    several = isinstance(result, tuple)
    outputs = [_wrapped(_as_output(function, array)) for array in (result if several else (result,))]
    if edges is not None:
        node = Node(function, context, edges, [(output.data.shape, output.data.dtype) for output in outputs])
        for number, output in enumerate(outputs):
            if output.data.dtype.kind in backend.FLOAT_KINDS:
                output._requires_grad, output.node = True, (node, number)
    return tuple(outputs) if several else outputs[0]


def _as_output(function: type[Function], output: Any) -> Array:
    """One array of what forward returned: numpy makes scalars of arrays without axes, say."""
    if type(output) in array_types and output.dtype.kind in "fiub":
        return output
    try:
        if isinstance(output, (list, Tensor)) or output is None:
            raise TypeError(f"expected an array or a tuple of arrays, got {type(output).__name__}")
        return backend.as_array(output)
    except TypeError as error:
        raise TypeError(f"{function.__name__}.forward: {error}") from None


record = Tensor.__record__
