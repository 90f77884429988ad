"""A call of an op that is described by shapes: what `explain` asks about, `profile` counts and a benchmark times."""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpucnn.functional as functions
from gpucnn import backend as backends
from gpucnn import creation
from gpucnn.autograd import enable_grad
from gpucnn.nn import Module
from gpucnn.nn.parameter import Parameter
from gpucnn.operators import Operators
from gpucnn.optim import Optimizer
from gpucnn.tensor import Tensor

_SIGNS: dict[str, Callable[..., Any]] = {
    **{"add": Operators.__add__, "subtract": Operators.__sub__, "multiply": Operators.__mul__},
    **{"divide": Operators.__truediv__, "negative": Operators.__neg__, "power": Operators.pow},
}
_NO_FLOATS = {"indices": "int64", "index": "int64", "mask": "bool", "condition": "bool"}
_OF_BYTES = {"normalize_images"}
"""Functions whose input is uint8 and that are told the dtype of what they return."""
_TENSORS = {"self", "target", "other", *_NO_FLOATS}
"""Names of arguments for which a tuple of sizes stands for a tensor, whatever their annotation says."""
_NO_GRADIENTS = {"running_mean", "running_var", "scale", "shift"}


Fill = Callable[[tuple[int, ...], "np.dtype[Any]"], Tensor]
"""(shape, dtype) -> the tensor that stands for a shape."""


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """Which a system gives out without touching their memory."""
    return creation.zeros(shape, dtype=dtype)


def normals(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """Standard normals, the same for a shape every time; integers and bools are zeros."""
    if dtype.kind not in backends.FLOAT_KINDS:
        return zeros(shape, dtype)
    return creation.tensor(np.random.default_rng([*shape]).standard_normal(shape, np.float32), dtype)


def probabilities(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """As `normals`, uniform in [0.1, 0.9)."""
    if dtype.kind not in backends.FLOAT_KINDS:
        return zeros(shape, dtype)
    return creation.tensor(np.random.default_rng([*shape]).uniform(0.1, 0.9, shape).astype(np.float32), dtype)


def numbers_for(op: str) -> Fill:
    """What an op is tried with: what it refuses, or makes NaN of, takes another way through its kernels."""
    return probabilities if op in ("binary_cross_entropy", "kl_div") else normals


@dataclass(frozen=True)
class Call:
    """An op and what it is called with.

    Attributes:
        words: the call as a user would write it.
        function, arguments, options: function(*arguments, **options) makes it.
    """

    words: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    @staticmethod
    def of(
        op: str | Callable[..., Any], *inputs: Any, dtype: Any = "float32", fill: Fill = zeros, **parameters: Any
    ) -> Call:
        """The call of `op` with `inputs` and `parameters`, where a shape stands for a tensor of `dtype`.

        Args:
            op: the name of a function of `gpucnn.functional` or `gpucnn` or of a tensor's method, or "add" and its
                like; or what is called itself: a function, a module, a class of optimisers.
            inputs, parameters: tensors, shapes and options; an int is the shape of a vector where a call takes tensors
                alone. Labels, indices and conditions get the dtype they need.
            dtype: of the tensors that are given as shapes.
            fill: makes these.

        Raises:
            ValueError: no such op or dtype.
            TypeError: an argument that the op can't do without is missing.
        """
        function, name = _resolve(op)
        held = backends.supported_dtype(dtype)
        if name in _OF_BYTES:
            parameters = {"dtype": held.name, **parameters}
            held = np.dtype(np.uint8)
        arguments, options = _arguments(function, name, inputs, parameters, held, fill)
        return Call(_in_words(name, inputs, parameters), function, tuple(arguments), options)

    def run(self, backward: bool = True) -> None:
        """Makes the call and, with `backward`, the gradients of all floating tensors that stand for shapes."""
        with enable_grad():
            results = self.function(*self.arguments, **self.options)
            for result in (results if isinstance(results, tuple) else (results,)) if backward else ():
                if isinstance(result, Tensor) and result.requires_grad:
                    result.backward(creation.zeros_like(result), retain_graph=True)


def first_argument(op: str) -> str:
    """What the op calls the tensor that it is a function of: "input", or "self" for a tensor's method.

    Raises ValueError for an op that there is not.
    """
    return next(iter(inspect.signature(_resolve(op)[0]).parameters))


def _resolve(op: str | Callable[..., Any]) -> tuple[Callable[..., Any], str]:
    if isinstance(op, Module):
        return copy.deepcopy(op), type(op).__name__  # whose running statistics may move
    if isinstance(op, type) and issubclass(op, Optimizer):
        return functools.partial(_step, op), f"{op.__name__}.step"
    if not isinstance(op, str):
        return op, getattr(op, "__name__", str(op))
    if op in _SIGNS:
        sign: Callable[..., Any] = _SIGNS[op]
        return sign, op
    for place in (functions, Operators):
        if not op.startswith("_") and callable(found := getattr(place, op, None)):
            return found, op
    there = [*_SIGNS, *[name for place in (functions, Operators) for name in vars(place) if not name.startswith("_")]]
    near = difflib.get_close_matches(op, there, n=3)
    raise ValueError(f"there is no op {op!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""))


def _step(kind: type[Optimizer], param: Tensor, **options: Any) -> None:
    """The second step, since the first may make its state."""
    parameter = Parameter(param.data)
    optimizer = kind([parameter], **options)
    for _ in range(2):
        parameter.grad = creation.zeros_like(parameter)
        optimizer.step()


def _arguments(
    run: Callable[..., Any],
    op: str,
    inputs: tuple[Any, ...],
    parameters: dict[str, Any],
    dtype: np.dtype[Any],
    fill: Fill,
) -> tuple[list[Any], dict[str, Any]]:
    """What `run` is called with: tensors where shapes stand for them."""
    try:
        signature = inspect.signature(run)
        bound = signature.bind_partial(*inputs, **parameters)
    except (ValueError, TypeError):  # no signature, or one that these do not fit, as the call itself will say
        return [_tensor(value, dtype, True, fill) if _is_shape(value) else value for value in inputs], parameters
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in optional
        and name not in bound.arguments
    ]
    if missing:
        raise TypeError(f"{op} needs {' and '.join(missing)}")
    takes = {name: str(parameter.annotation) for name, parameter in signature.parameters.items()}
    is_loss = "target" in takes
    given = dict(bound.arguments)

    def made(name: str, value: Any, annotation: str) -> Any:
        if "Sequence[Tensor]" in annotation and isinstance(value, (tuple, list)) and all(map(_is_shape, value)):
            return [made(name, each, "Tensor") for each in value]
        if annotation in ("Tensor", "Tensor | None") and type(value) is int:
            value = (value,)
        untold = annotation in ("Any", str(inspect.Parameter.empty)) and any(value is each for each in inputs)
        if not (_is_shape(value) and ("Tensor" in annotation or name in _TENSORS or untold)):
            return value
        of_input = given.get("input", ())
        labels = name == "target" and _is_shape(of_input) and len(value) < len(of_input)
        kind = np.dtype("int64") if labels else np.dtype(_NO_FLOATS.get(name, dtype))
        return _tensor(value, kind, name not in _NO_GRADIENTS and (not is_loss or name == "input"), fill)

    for name, value in given.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[name] = tuple([made("", each, "Any") for each in value])
        elif kind is not inspect.Parameter.VAR_KEYWORD:
            bound.arguments[name] = made(name, value, takes[name])
    return list(bound.args), bound.kwargs


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(size, int) and not isinstance(size, bool) for size in value)


def _tensor(shape: tuple[int, ...], dtype: np.dtype[Any], differentiable: bool, fill: Fill) -> Tensor:
    tensor = fill(shape, dtype)
    return tensor.requires_grad_() if differentiable and dtype.kind in backends.FLOAT_KINDS else tensor


def _in_words(name: str, inputs: tuple[Any, ...], parameters: dict[str, Any]) -> str:
    def plain(value: Any) -> Any:
        return f"{value.dtype} {value.shape}" if isinstance(value, Tensor) else repr(value)

    given: Iterator[str] = iter([plain(value) for value in inputs])
    return f"{name}({', '.join([*given, *[f'{key}={plain(value)}' for key, value in parameters.items()]])})"
