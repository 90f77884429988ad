"""What the tests of compiled functions of single elements share: each function's truth, every size, alignment, memory
order and order of threads, and what the bindings refuse."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from kernel_checks import ORDERS, Memory, sample
from op_checks import draw

from gpucnn.backend import supported_dtype
from gpucnn.testing import assert_close, assert_equal

DTYPES = ("float32", "float16", "bfloat16")
EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 127, 128, 129, 255, 1023, 1025, 2049]
"""Elements: across a pack of 4 or 8 and a block's 1,024 or 2,048."""
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 88.0, -88.0, 104.0, -104.0, 6e4, -6e4, 0.5, -3.0])


@dataclass(frozen=True)
class Function:
    """A compiled function: its truth over float64 arrays, and the parameters it is tried with."""

    truth: Callable[..., Any]
    parameters: tuple[float, ...] = ()
    domain: Callable[[np.ndarray], np.ndarray] = lambda x: x
    """Makes numbers that it takes of any."""
    ulps: float = 4
    undefined_at_infinity: bool = False
    """Definitions then say infinity less infinity, or times 0."""


def drawn(function: Function, count: int, shape: tuple[int, ...], dtype: str) -> list[np.ndarray]:
    """Its inputs, as `dtype` holds them, in float64."""
    held = supported_dtype(dtype)
    return [function.domain(draw("normal", shape, i)).astype(held).astype(np.float64) for i in range(count)]


def call(
    module: Any, binding: str, name: str, function: Function, arrays: Sequence[np.ndarray], y: np.ndarray, dtype: str
) -> None:
    getattr(module, binding)(name, dtype, tuple(arrays), y, function.parameters, 0)


def check_values(module: Any, binding: str, name: str, function: Function, inputs: int, dtype: str) -> None:
    """Of normal numbers, and with infinities, NaN and the ends of the exponential's range among them."""
    __tracebackhide__ = True
    held = supported_dtype(dtype)
    for kind in ("normal", "special"):
        arrays = drawn(function, inputs, (len(SPECIAL) * 9 + 3,), dtype)
        if kind == "special":
            for i, array in enumerate(arrays):
                array[: len(SPECIAL) * 3] = np.tile(np.roll(SPECIAL, 5 * i), 3).astype(held)
        memory = Memory()
        given = [memory.given(f"input {i}", array, held) for i, array in enumerate(arrays)]
        y = memory.wanted("y", arrays[0].shape, held)
        call(module, binding, name, function, given, y, dtype)
        memory.check(f"{name} {dtype} {kind}")
        with np.errstate(all="ignore"):
            truth = np.asarray(function.truth(*arrays), np.float64)
            truth = np.where(np.abs(truth) > float(largest(held)), truth.astype(held).astype(np.float64), truth)
            if function.undefined_at_infinity:
                infinite = np.any([np.isinf(array) for array in arrays], axis=0)
                truth = np.where(infinite & np.isnan(truth), y.astype(np.float64), truth)
        allowed = function.ulps * EPS[dtype]
        assert_close(y, truth, rtol=allowed, atol=allowed, equal_nan=True, name=f"{name} {dtype} {kind}")


def largest(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).max) if dtype.kind == "f" else float(np.finfo(np.float32).max)


def check_sizes(module: ModuleType, binding: str, name: str, function: Function, inputs: int, dtype: str) -> None:
    """Every size, at an aligned address and beside one, in place, with one element for each of the inputs: the bits
    that the first call gave, and nothing else written."""
    __tracebackhide__ = True
    held = supported_dtype(dtype)
    whole = [array.astype(held) for array in drawn(function, inputs, (max(SIZES),), dtype)]
    expected = np.empty(max(SIZES), held)
    call(module, binding, name, function, whole, expected, dtype)
    for number, size in enumerate(sample(module.flavour, SIZES)):
        module.set_order(ORDERS[number % len(ORDERS)])
        for start in (0, 1):
            memory = Memory()
            given = [memory.given(f"input {i}", array[: size + 1], held)[start:size] for i, array in enumerate(whole)]
            y = memory.wanted("y", (size - start,), held)
            call(module, binding, name, function, given, y, dtype)
            memory.check(f"{name} {dtype} {size}")
            assert_equal(y, expected[start:size], name=f"{name} {dtype}: {size} elements from {start} on")
    if inputs > 1:
        y = whole[0].copy()
        call(module, binding, name, function, [y, *whole[1:]], y, dtype)
        assert y.tobytes() == expected.tobytes(), f"{name} {dtype} in place"
    for single in range(inputs if inputs > 1 else 0):
        given = [array[:1] if i == single else array for i, array in enumerate(whole)]
        repeated = [np.repeat(array[:1], max(SIZES)) if i == single else array for i, array in enumerate(whole)]
        outputs = [np.empty_like(expected), np.empty_like(expected)]
        for arrays, y in zip((given, repeated), outputs, strict=True):
            call(module, binding, name, function, arrays, y, dtype)
        assert outputs[0].tobytes() == outputs[1].tobytes(), f"{name} {dtype}: input {single} of one element"


SHAPES: list[tuple[tuple[int, ...], ...]] = [
    ((3, 5, 16), (16,)),
    ((3, 5, 16), (3, 1, 16)),
    ((3, 5, 16), (5, 1)),
    ((7, 24), (7, 1)),
    ((2, 3, 5), (3, 1)),
    ((3, 1, 7), (1, 33, 1)),
    ((1, 8), (129, 1)),
    ((2, 1, 3, 1, 8), (1, 4, 1, 5, 8)),
    ((2, 1, 2, 1, 2, 1, 2, 1), (2, 2, 1, 2, 1, 2, 1, 2)),
    ((40, 1, 64), (4, 64)),
]
"""Two operands each, of which packs go through the first ones; the last fills the whole grid more than once."""


def views(array: np.ndarray, how: str) -> np.ndarray:
    """`array` in another order of memory."""
    if how == "contiguous":
        return array
    if how == "gaps":
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1] + 8), array.dtype)
        view = wide[..., : array.shape[-1]]
        view[...] = array
        return view
    if how == "steps":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if how == "reversed":
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    return np.asfortranarray(array)


def check_broadcasting(
    module: ModuleType, binding: str, name: str, function: Function, inputs: int, dtype: str
) -> None:
    """Operands that broadcast and lie in any order, into a result that may have gaps too: the bits of flat ones."""
    __tracebackhide__ = True
    held = supported_dtype(dtype)
    cases = list(itertools.product(SHAPES, ("contiguous", "gaps", "steps", "reversed", "fortran"), (False, True)))
    for number, (shapes, how, swapped) in enumerate(sample(module.flavour, cases)):
        module.set_order(ORDERS[number % len(ORDERS)])
        chosen = [*shapes[:: -1 if swapped else 1], *[shapes[0]] * inputs][:inputs]
        arrays = [drawn(function, 1, shape, dtype)[0].astype(held) for shape in chosen]
        shape = np.broadcast_shapes(*chosen)
        expected, y = np.empty(shape, held), views(np.empty(shape, held), "gaps" if swapped else "contiguous")
        copies = [np.ascontiguousarray(np.broadcast_to(array, shape)) for array in arrays]
        call(module, binding, name, function, copies, expected, dtype)
        call(module, binding, name, function, [views(array, how) for array in arrays], y, dtype)
        assert_equal(y, expected, name=f"{name} {dtype} {chosen} {how}")


def check_all_are_known(module: Any, binding: str, functions: Mapping[str, Function]) -> None:
    """The tests' functions are the module's, each with as many parameters."""
    found = {name: parameters for name, _, parameters in getattr(module, f"{binding}_functions")()}
    assert found == {name: len(function.parameters) for name, function in functions.items()}


def inputs_of(module: Any, binding: str) -> dict[str, int]:
    return {name: inputs for name, inputs, _ in getattr(module, f"{binding}_functions")()}
