"""A stand-in for cupy that computes, and is as strict as cupy is where numpy is not.

`StrictArray` has the methods of cupy.ndarray, `strict_cupy()` the functions of cupy, each with cupy's parameters and no
others (tests/facts/cupy.json, read from cupy itself). Numbers come from numpy, so results can be compared bit by bit
with those of numpy's arrays. As with cupy: a numpy array beside one of these is a TypeError, also in an index; nothing
turns into a numpy array unasked; sums and elements are arrays without axes, no scalars; and results of arithmetic lie
in C order whatever the operands' order.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

FACTS: dict[str, Any] = json.loads(Path(__file__).with_name("facts").joinpath("cupy.json").read_text())
_TAKES_NUMPY = {"array", "asarray"}
_CONSTANTS = ("inf", "nan", "pi", "newaxis", "float16", "float32", "float64", "int32", "int64", "uint8", "bool_")
_METADATA = {"shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides"}


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
        result = getattr(self.values, name)(*_plain(arguments), **_plain(options))
        if result is self.values:
            return self
        return result if name in ("item", "tolist", "tobytes") else _wrapped(result, self)

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

    def __index__(self) -> int:
        return operator.index(self.values)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> StrictArray:
        return _wrapped(self.values[_plain(index)], self)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.values[_plain(index)] = _plain(value)


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


def _wrapped(result: Any, owner: StrictArray | None = None) -> Any:
    if isinstance(result, tuple):
        return tuple(_wrapped(part) for part in result)
    if isinstance(result, list):
        return [_wrapped(part) for part in result]
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    array = np.asarray(result)
    if owner is None or array.base is None or not np.may_share_memory(array, owner.values):
        return StrictArray(array)
    return StrictArray(array, owner if owner.base is None else owner.base)


def _operator(name: str) -> Callable[..., Any]:
    def run(self: StrictArray, *others: Any) -> Any:
        operands = [_plain(other) for other in others]
        if not all(isinstance(operand, (np.ndarray, np.generic, bool, int, float)) for operand in operands):
            return NotImplemented
        result = getattr(self.values, name)(*operands)
        if result is NotImplemented:
            return result
        return _wrapped(np.array(result, order="C"))

    return run


def _in_place(name: str) -> Callable[..., Any]:
    def run(self: StrictArray, other: Any) -> StrictArray:
        getattr(self.values, name)(_plain(other))
        return self

    return run


for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
    "matmul",
):
    for _prefix in ("", "r"):
        setattr(StrictArray, f"__{_prefix}{_name}__", _operator(f"__{_prefix}{_name}__"))
    setattr(StrictArray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in ("neg", "pos", "abs", "invert", "lt", "le", "eq", "ne", "gt", "ge"):
    setattr(StrictArray, f"__{_name}__", _operator(f"__{_name}__"))


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
        if self.name in _TAKES_NUMPY:
            first = arguments[0].values if isinstance(arguments[0], StrictArray) else arguments[0]
            result = self.run(first, *arguments[1:], **options)
            return arguments[0] if isinstance(arguments[0], StrictArray) and result is first else StrictArray(result)
        out = options.get("out")
        result = self.run(*_plain(arguments), **_plain(options))
        if out is not None:
            return out
        if isinstance(self.run, np.ufunc) and not isinstance(result, tuple):
            return StrictArray(np.array(result, order="C"))
        owner = next((argument for argument in arguments if isinstance(argument, StrictArray)), None)
        return _wrapped(result, owner)

    def __getattr__(self, name: str) -> _Function:
        if not isinstance(self.run, np.ufunc) or f"add.{name}" not in FACTS["functions"]:
            raise AttributeError(f"cupy.{self.name} has no attribute {name!r}")
        method = _Function(f"add.{name}", getattr(self.run, name))
        return method


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
        Device=_Device, is_available=lambda: True, runtime=SimpleNamespace(getDeviceCount=lambda: 1)
    )
    return module  # type: ignore[no-any-return]
