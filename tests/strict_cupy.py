"""A stand-in for cupy that computes, and is as strict as cupy is where numpy is not.

`StrictArray` has the methods of cupy.ndarray, `strict_cupy()` the functions of cupy, each with cupy's parameters and no
others (tests/facts/cupy.json, read from cupy itself). Numbers come from numpy, so results can be compared bit by bit
with those of numpy's arrays. As with cupy:

- a numpy array beside one of these is a TypeError, also in an index; nothing turns into a numpy array unasked, and no
  array is an index or a size of something else;
- a ufunc has the dtypes, and beside its call the methods, that cupy's has;
- sums and elements are arrays without axes, no scalars; comparing with None compares elements;
- results lie in C order whatever the operands' order, but for what keeps it (KEEPS_ORDER), and einsum's in any order;
- what an assignment would write in an order that only numpy promises is an error: several values to one place, or
  values that lie where they are to go. Fresh memory is full of NaN.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

FACTS: dict[str, Any] = json.loads(Path(__file__).with_name("facts").joinpath("cupy.json").read_text())
KEEPS_ORDER = {"array", "asarray", "astype", "copy", "empty_like", "full_like", "ones_like", "zeros_like"}
_TAKES_NUMPY = {"array", "asarray"}
_CONSTANTS = ("inf", "nan", "pi", "newaxis", "float16", "float32", "float64", "int32", "int64", "uint8", "bool_")
_METADATA = {"shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides"}
_ATOMIC = ("int32", "int64", "uint32", "uint64", "float32", "float64")
_AT_DTYPES = {"add.at": (*_ATOMIC, "float16"), "maximum.at": _ATOMIC, "minimum.at": _ATOMIC, "subtract.at": ("int32",)}
_SCALARS = (bool, int, float, np.generic)


class StrictArray:
    """cupy.ndarray's face on a numpy array."""

    __array_ufunc__ = None  # numpy_array * this is a TypeError, as with cupy
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: np.ndarray, base: StrictArray | None = None) -> None:
        self.values = values
        self.base = base

    def __getattr__(self, name: str) -> Any:
        if name in _METADATA:
            return getattr(self.values, name)
        if name not in FACTS["methods"]:
            raise AttributeError(f"cupy.ndarray has no attribute {name!r}")
        if name == "T":
            return self.transpose()
        return functools.partial(self._method, name)

    def _method(self, name: str, *arguments: Any, **options: Any) -> Any:
        check_call(f"ndarray.{name}", FACTS["methods"][name], arguments, options)
        check_values(name, options)
        result = getattr(self.values, name)(*_plain(arguments), **_plain(options))
        if result is self.values:
            return self
        return result if name in ("item", "tolist", "tobytes") else _wrapped(result, self, name)

    @property
    def device(self) -> Any:
        return SimpleNamespace(id=0)

    @property
    def flags(self) -> Any:
        return SimpleNamespace(c_contiguous=self.values.flags.c_contiguous, f_contiguous=self.values.flags.f_contiguous)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.values.__array_interface__["data"][0])

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __len__(self) -> int:
        return len(self.values)

    def __bool__(self) -> bool:
        return bool(self.values)

    def __int__(self) -> int:
        return int(self.values)

    def __float__(self) -> float:
        return float(self.values)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> StrictArray:
        return _wrapped(self.values[_plain(_checked(index))], self, "getitem")

    def __setitem__(self, index: Any, value: Any) -> None:
        places = _plain(_checked(index))
        if not isinstance(value, (StrictArray, *_SCALARS)):
            raise TypeError(f"cupy assigns an array of its own or a number, not {type(value)}")
        values = _plain(value)
        target = self.values[places]
        if isinstance(values, np.ndarray) and values.ndim:
            if np.shares_memory(target, values) and _place(target) != _place(values):
                raise AssertionError("cupy copies in any order: the values lie where they are to go")
            numbers = np.arange(self.values.size).reshape(self.values.shape)[places]
            if np.unique(numbers).size < numbers.size:
                raise AssertionError("cupy assigns in any order: several values go to the same place")
        _check_target(target)
        self.values[places] = values


def _checked(index: Any) -> Any:
    """TypeError for what cupy can't take as an index, or what it would have to bring to the GPU each time."""
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if isinstance(part, (list, tuple)):
            raise TypeError("a list as an index is a numpy array to cupy")
        if isinstance(part, slice) and any(isinstance(bound, StrictArray) for bound in (part.start, part.stop)):
            raise TypeError("cupy's arrays are no integers")
    if sum(isinstance(part, StrictArray) and part.dtype == np.bool_ for part in parts) > 1:
        raise TypeError("cupy takes one boolean array in an index")
    return index


def _place(array: np.ndarray) -> Any:
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype


def _check_target(array: np.ndarray) -> None:
    """AssertionError if two elements of what is to be written are the same memory."""
    steps = [(abs(step), size) for step, size in zip(array.strides, array.shape, strict=True) if size > 1]
    extent = array.itemsize
    for step, size in sorted(steps):
        if step < extent:
            raise AssertionError("cupy writes in any order: the target overlaps with itself")
        extent = step * (size - 1) + extent


def _plain(value: Any) -> Any:
    """Arguments with the arrays in them as numpy's; TypeError for one that is numpy's already."""
    if isinstance(value, StrictArray):
        return value.values
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a numpy array of shape {value.shape} among cupy's")
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(part) for part in value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value


def _wrapped(result: Any, owner: StrictArray | None = None, name: str = "") -> Any:
    if isinstance(result, (tuple, list)):
        return type(result)(_wrapped(part, owner, name) for part in result)
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    array = np.asarray(result)
    if name == "einsum":
        return StrictArray(np.array(array, order="F"))
    if owner is None or array.base is None or not np.may_share_memory(array, owner.values):
        return StrictArray(array if name in KEEPS_ORDER else np.asarray(array, order="C"))
    return StrictArray(array, owner if owner.base is None else owner.base)


def _operator(name: str) -> Callable[..., Any]:
    ufunc = _UFUNCS.get(name.strip("_"), _UFUNCS.get(name.strip("_")[1:]))

    def run(self: StrictArray, *others: Any) -> Any:
        if name in ("__eq__", "__ne__") and others[0] is None:
            return StrictArray(np.full(self.shape, name == "__ne__"))
        if not all(isinstance(other, (StrictArray, np.ndarray, *_SCALARS)) for other in others):
            return NotImplemented
        operands = [_plain(other) for other in others]
        result = getattr(self.values, name)(*operands)
        if result is NotImplemented:
            return result
        if ufunc:
            check_loop(ufunc, [self.values, *operands], result.dtype)
        return _wrapped(np.array(result, order="C"))

    return run


def _in_place(name: str) -> Callable[..., Any]:
    def run(self: StrictArray, other: Any) -> StrictArray:
        _check_target(self.values)
        getattr(self.values, name)(_plain(other))
        return self

    return run


_UFUNCS = {
    **{"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide"},
    **{"mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"},
    **{"lshift": "left_shift", "rshift": "right_shift", "neg": "negative", "pos": "positive", "abs": "absolute"},
    **{"invert": "invert", "lt": "less", "le": "less_equal", "eq": "equal", "ne": "not_equal"},
    **{"gt": "greater", "ge": "greater_equal"},
}
"""The ufunc of an operator."""
_UNARY = ("neg", "pos", "abs", "invert")
_COMPARISONS = ("lt", "le", "eq", "ne", "gt", "ge")
for _name in (*_UFUNCS, "matmul"):
    setattr(StrictArray, f"__{_name}__", _operator(f"__{_name}__"))
    if _name not in (*_UNARY, *_COMPARISONS):
        setattr(StrictArray, f"__r{_name}__", _operator(f"__r{_name}__"))
        if _name != "matmul":  # which cupy's arrays do not do in place
            setattr(StrictArray, f"__i{_name}__", _in_place(f"__i{_name}__"))


def check_loop(name: str, operands: list[Any], result: np.dtype[Any]) -> None:
    """TypeError if cupy's ufunc has no loop for these operands; AssertionError if its result has another dtype.

    cupy takes the first loop that all operands fit into. Python's numbers fit where numbers of their kind do, if an
    array is of that kind or a higher one; else they are int64 and float64.
    """
    highest = max((_kind(operand.dtype) for operand in operands if hasattr(operand, "dtype")), default=0)
    for loop in FACTS["loops"][name]:
        inputs, outputs = loop.split("->")
        if all(_fits(operand, np.dtype(char), highest) for operand, char in zip(operands, inputs, strict=True)):
            if np.dtype(outputs) != result:
                raise AssertionError(f"cupy: {name} gives {np.dtype(outputs)} where numpy gives {result}")
            return
    raise TypeError(f"cupy: {name} takes no {', '.join(str(getattr(x, 'dtype', type(x))) for x in operands)}")


def _kind(dtype: np.dtype[Any]) -> int:
    return {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}[dtype.kind]


def _fits(operand: Any, dtype: np.dtype[Any], highest: int) -> bool:
    if hasattr(operand, "dtype"):
        return np.can_cast(operand.dtype, dtype)
    own = np.dtype(type(operand))
    return np.can_cast(own, dtype) or (_kind(own) <= highest and np.result_type(type(operand)(0), dtype) == dtype)


def check_values(name: str, options: dict[str, Any]) -> None:
    """TypeError or ValueError for arguments that cupy has, but with fewer values than numpy's."""
    for option in ("casting", "subok"):
        if name == "astype" and options.get(option) is not None:
            raise TypeError(f"{option} is not supported yet")
    if name in ("sort", "argsort") and options.get("kind") not in (None, "stable"):
        raise ValueError("kind can only be None or 'stable'")


def check_call(name: str, parameters: list[str] | None, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    """TypeError if cupy's function does not take these arguments."""
    if parameters is None:
        raise TypeError(f"cupy: {name} can't be called")
    positional, only_by_name, rest = [], [], False
    for parameter in parameters:
        if parameter.startswith("*"):
            rest = rest or len(parameter) > 1
            only_by_name.append("")
        else:
            (only_by_name if only_by_name else positional).append(parameter)
    names = {parameter.rstrip("=") for parameter in (*positional, *only_by_name)} - {""}
    if unknown := set(options) - names:
        raise TypeError(f"cupy: {name} has no argument {', '.join(sorted(unknown))}")
    if len(arguments) > len(positional) and not rest:
        raise TypeError(f"cupy: {name} takes {len(positional)} positional arguments, got {len(arguments)}")
    missing = [p for p in positional[len(arguments) :] if not p.endswith("=") and p not in options]
    if missing:
        raise TypeError(f"cupy: {name} needs {', '.join(missing)}")


class _Function:
    """One function of cupy, computed by numpy's of the same name."""

    def __init__(self, name: str, run: Callable[..., Any]) -> None:
        self.name, self.run = name, run

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        check_call(self.name, FACTS["functions"][self.name], arguments, options)
        check_values(self.name, options)
        if self.name in _TAKES_NUMPY:
            first = arguments[0].values if isinstance(arguments[0], StrictArray) else arguments[0]
            result = self.run(first, *arguments[1:], **options)
            return arguments[0] if isinstance(arguments[0], StrictArray) and result is first else StrictArray(result)
        self._check_operands(arguments)
        out = options.get("out")
        if out is not None:
            _check_target(_plain(out))
        result = self.run(*_plain(arguments), **_plain(options))
        if isinstance(self.run, np.ufunc) and self.run.signature is None and not isinstance(result, tuple):
            if "dtype" not in options:
                loop = self.run.resolve_dtypes((*map(_described, arguments[: self.run.nin]), None))
                check_loop(self.name, list(_plain(arguments[: self.run.nin])), loop[-1])
            result = np.asarray(result, order="C") if out is None else result
        if out is not None:
            return out
        if self.name in ("empty", "empty_like"):
            result[...] = float("nan") if result.dtype.kind in "fV" else 0x5A
        owner = next((argument for argument in arguments if isinstance(argument, StrictArray)), None)
        return _wrapped(result, owner, self.name)

    def _check_operands(self, arguments: tuple[Any, ...]) -> None:
        if self.name == "where" and not isinstance(arguments[0], (StrictArray, np.bool_)):
            raise AttributeError(f"{type(arguments[0]).__name__!r} object has no attribute 'astype'")
        if self.name in ("concatenate", "stack") and not all(isinstance(part, StrictArray) for part in arguments[0]):
            raise TypeError("Only cupy arrays can be concatenated")
        if self.name in _AT_DTYPES and arguments[0].dtype not in _AT_DTYPES[self.name]:
            raise TypeError(f"cupy: {self.name} does not support {arguments[0].dtype}")

    def __getattr__(self, name: str) -> _Function:
        whole = f"{self.name}.{name}"
        if whole not in FACTS["functions"]:
            raise AttributeError(f"cupy.{self.name} has no {name!r}, or raises NotImplementedError")
        return _Function(whole, getattr(self.run, name))


def _described(operand: Any) -> Any:
    return operand.dtype if isinstance(operand, (StrictArray, np.generic)) else type(operand)


class _Place:
    """A module of cupy: its functions, and nothing that cupy lacks."""

    def __init__(self, prefix: str, numpys: Any) -> None:
        self._prefix, self._numpys = prefix, numpys

    def __getattr__(self, name: str) -> Any:
        whole = self._prefix + name
        if whole in FACTS["functions"]:
            return _Function(whole, getattr(self._numpys, name))
        if any(function.startswith(f"{whole}.") for function in FACTS["functions"]):
            return _Place(f"{whole}.", getattr(self._numpys, name))
        raise AttributeError(f"module 'cupy' has no attribute {whole!r}")


class _Device:
    def __init__(self, index: int) -> None:
        self.index = index

    def __enter__(self) -> None:
        assert self.index == 0

    def __exit__(self, *_: object) -> None:
        pass

    def use(self) -> None:
        assert self.index == 0


def strict_cupy() -> ModuleType:
    """A module that can stand in sys.modules as 'cupy', with one GPU."""
    place = _Place("", np)
    module: Any = ModuleType("cupy")
    module.__getattr__ = lambda name: getattr(place, name)
    module.ndarray = StrictArray
    module.asnumpy = lambda array: array.values.copy(order="C")
    for constant in _CONSTANTS:
        setattr(module, constant, getattr(np, constant))
    module.cuda = SimpleNamespace(
        Device=_Device,
        get_current_stream=lambda: SimpleNamespace(ptr=0),
        is_available=lambda: True,
        runtime=SimpleNamespace(getDeviceCount=lambda: 1),
    )
    return module  # type: ignore[no-any-return]
