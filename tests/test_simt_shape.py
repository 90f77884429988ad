"""Copies, conversions and padding on the CPU: every kernel, word and order, and what is refused."""

from __future__ import annotations

import itertools
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from op_checks import NCHW, NHWC, SEED, draw, frozen

import gpucnn
from gpucnn import functional as F
from gpucnn.backend import supported_dtype
from gpucnn.ops import elementwise, memory
from gpucnn.ops import shape as ops
from gpucnn.reference import shape as reference
from gpucnn.reference.shape import PadProblem, RollProblem, SplitProblem
from gpucnn.testing import assert_close, assert_equal, guarded, naive

DTYPES = ("float32", "float16", "bfloat16")
HELD = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool")
EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def numbers(shape: tuple[int, ...], dtype: str, stream: int = 0) -> np.ndarray:
    """Different enough for a misplaced element to show, of any dtype."""
    rng = np.random.default_rng([SEED, stream, *shape])
    return rng.integers(0, 100, shape).astype(supported_dtype(dtype))


def same(found: Any, expected: np.ndarray, name: str) -> None:
    __tracebackhide__ = True
    assert found.dtype == expected.dtype, name
    assert_equal(found.astype(np.float64), expected.astype(np.float64), name=name)


# --------------------------------------------------------------------------------------------------------- copies

VIEWS: dict[str, Any] = {  # a shape, and what is seen of it
    "flat": ((4099,), lambda x: x),
    "one": ((1,), lambda x: x),
    "no axes": ((), lambda x: x),
    "rows of whole packs": ((5, 3, 32), lambda x: x[:, :, :16]),
    "rows of no packs": ((5, 3, 9), lambda x: x[:, 1:, 2:7]),
    "rows of half packs": ((5, 8, 6), lambda x: x[:, :, 2:]),
    "every other": ((7, 40), lambda x: x[::2, 1::3]),
    "backwards": ((3, 5, 24), lambda x: x[::-1, :, ::-1]),
    "rows backwards": ((3, 5, 16), lambda x: x[::-1, ::-1]),
    "repeated": ((4, 1, 8), lambda x: np.broadcast_to(x, (3, 4, 5, 8))),
    "elements repeated": ((4, 3, 1), lambda x: np.broadcast_to(x, (4, 3, 8))),
    **{
        f"transposed {n} x {m}": ((n, m), lambda x: x.T)
        for n, m in ((2, 33), (4, 4), (7, 31), (31, 32), (32, 32), (33, 33), (64, 65), (127, 5), (129, 40), (1, 9))
    },
    "to nhwc": ((2, 33, 5, 7), lambda x: x.transpose(NHWC)),
    "to nchw": ((2, 5, 7, 33), lambda x: x.transpose(NCHW)),
    "to nhwc of few": ((2, 3, 9, 9), lambda x: x.transpose(NHWC)),
    "a part to nhwc": ((2, 40, 5, 9), lambda x: x[:, 1:36, :, 2:].transpose(NHWC)),
    "all axes turned": ((4, 5, 6, 7), lambda x: x.transpose(3, 2, 1, 0)),
    "batch last": ((6, 4, 8, 5), lambda x: x.transpose(1, 2, 3, 0)),
    "nothing": ((3, 0, 2), lambda x: x.transpose(2, 0, 1)),
}


def check_copy(module: Any, name: str, dtype: str, into: str = "all") -> None:
    """Into contiguous memory, and into a part of some, of which the rest stays as it was."""
    __tracebackhide__ = True
    shape, view = VIEWS[name]
    watched = Memory()
    whole = watched.given("x", numbers(shape, dtype).reshape((1, *shape)), supported_dtype(dtype)).reshape(shape)
    x = view(whole)
    if into == "all":
        y = watched.wanted("y", x.shape, supported_dtype(dtype), some_are_poison=dtype in ("uint8", "bool"))
        module.copy(x, y, 0)
        watched.check(f"copy {name} {dtype}")
    else:
        guard = guarded((*x.shape[:-1], 2 * x.shape[-1] + 3), supported_dtype(dtype))
        y, before = guard.array[..., 2 : 2 + x.shape[-1]], guard.array.copy()
        module.copy(x, y, 0)
        guard.check(name=name)
        before[..., 2 : 2 + x.shape[-1]] = y
        assert before.tobytes() == guard.array.tobytes(), f"copy {name} {dtype}: beside y"
    same(y, np.ascontiguousarray(x).reshape(x.shape), f"copy {name} {dtype} into {into}")


@pytest.mark.parametrize("dtype", HELD)
def test_copies_of_every_order(simt: ModuleType, dtype: str) -> None:
    names = list(VIEWS) if dtype in ("float32", "float16") else list(VIEWS)[:: 2 if simt.flavour == "plain" else 3]
    for number, name in enumerate(names):
        simt.set_order(ORDERS[number % len(ORDERS)])
        check_copy(simt, name, dtype)
        if VIEWS[name][0]:
            check_copy(simt, name, dtype, "a part")


def test_copies_between_addresses_of_every_kind(simt: ModuleType) -> None:
    """Words of 16, 8, 4, 2 and 1 bytes."""
    x = np.arange(512, dtype=np.uint8)
    for start, size in itertools.product((0, 1, 2, 4, 8, 16), (16, 24, 28, 30, 31, 160)):
        guard = guarded((256,), np.uint8)
        before = guard.array.copy()
        simt.copy(x[start : start + size], guard.array[start : start + size], 0)
        guard.check()
        before[start : start + size] = x[start : start + size]
        assert (guard.array == before).all(), (start, size)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "float64"])
def test_narrow_matrices_are_turned_in_tiles_of_their_own(simt: ModuleType, dtype: str) -> None:
    """Every width of a tile, with as many on the other side as fill several and one more."""
    for narrow in sample(simt.flavour, list(range(2, 34))):
        length = 1024 // min(narrow, 32) // 32 * 32
        for more in (-1, 0, length + 1):
            x = numbers((2, narrow, length + more), dtype)
            for turned in (x.transpose(0, 2, 1), np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1)):
                y = np.empty(turned.shape, x.dtype)
                simt.copy(turned, y, 0)
                same(y, np.ascontiguousarray(turned), f"{turned.shape} {dtype}")


@pytest.mark.parametrize("into", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_conversions(simt: ModuleType, dtype: str, into: str) -> None:
    """As numpy rounds, infinities and NaN among the numbers."""
    source, target = supported_dtype(dtype), supported_dtype(into)
    if dtype == into:
        x = np.ones(3, source)
        with pytest.raises(ValueError, match=f"convert: from {dtype} to itself"):
            simt.convert(dtype, into, x, x.copy(), 0)
        return
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 65519.0, 65520.0, 1e-8, 3e38, 1 + 2**-11, 1 + 3 * 2**-11]
    for number, (name, (shape, view)) in enumerate(sample(simt.flavour, list(VIEWS.items()))):
        simt.set_order(ORDERS[number % len(ORDERS)])
        with np.errstate(all="ignore"):
            x = draw("normal", (max(1, math.prod(shape)),))
            x[: len(special)] = special[: x.size]
            x = view(x[: math.prod(shape)].reshape(shape).astype(np.float32).astype(source))
            expected = np.ascontiguousarray(x).reshape(x.shape).astype(np.float32).astype(target)
        for start in (0, 1):
            guard = guarded((x.size + 1,), target)
            y = guard.array[start : start + x.size].reshape(x.shape)
            simt.convert(dtype, into, x, y, 0)
            guard.check(name=name)
            same(y, expected, f"{name} {dtype} to {into}")


@pytest.mark.parametrize("dtype", HELD)
def test_selection(simt: ModuleType, dtype: str) -> None:
    shapes = [((3, 5, 16),) * 3, ((5, 16), (3, 1, 16), (3, 5, 1)), ((7,), (3, 7), ()), ((3, 1), (1, 9), (3, 9))]
    for shape, swapped in itertools.product([*shapes, ((0, 3), (3,), ())], (False, True)):
        a, b = (numbers(s, dtype, i) for i, s in enumerate(shape[1:]))
        condition = numbers(shape[0], "bool", 3) if swapped else draw("normal", shape[0]) > 0
        expected = np.where(condition, a, b)
        watched = Memory()
        y = watched.wanted("y", expected.shape, expected.dtype, some_are_poison=dtype in ("uint8", "bool"))
        simt.select(np.asarray(condition), a, b, y, 0)
        watched.check(f"select {shape} {dtype}")
        same(y, expected, f"select {shape} {dtype}")
        same(elementwise.where(None, np.asarray(condition), a, b, like=a), expected, "where")
    x = np.repeat(numbers((6, 40), dtype), 2, axis=1)[:, ::2]
    y = np.empty((6, 40), x.dtype)
    simt.select(np.asfortranarray(x > x[0]), x, x[:1], y, 0)
    same(y, np.where(x > x[0], x, x[:1]), "strided")


# --------------------------------------------------------------------------------------------------------- padding

PADS: list[Any] = [
    ((2, 5, 6, 8), ((0, 0), (1, 1), (2, 1), (0, 0))),
    ((2, 5, 6, 3), ((0, 0), (4, 0), (0, 5), (0, 0))),
    ((3, 4, 33), ((0, 0), (1, 2), (3, 1))),
    ((7,), ((6, 6),)),
    ((2, 3, 4, 5, 4), ((0, 0), (1, 2), (3, 0), (0, 4), (0, 0))),
    ((2, 1, 3, 1, 5), ((0, 0), (0, 0), (2, 2), (0, 0), (0, 0))),
    ((2, 3, 4), ((0, 0), (0, 0), (0, 0))),
]
CROPS: list[Any] = [
    ((2, 5, 6, 8), ((0, 0), (-1, 1), (2, -3), (0, 0))),
    ((4, 5, 6), ((-1, -2), (3, 0), (0, -6))),
    ((4, 5), ((2, 1), (-5, 5))),
    ((0, 3), ((1, 1), (0, 2))),
]


def check_pad(module: Any, shape: Any, amounts: Any, mode: str, dtype: str) -> None:
    __tracebackhide__ = True
    held, watched = supported_dtype(dtype), Memory()
    before, after = [a for a, _ in amounts], [b for _, b in amounts]
    values = numbers(shape, dtype)
    expected = reference.pad(PadProblem(amounts, mode, 1.0), values)
    x = watched.given("x", values.reshape((1, *shape)), held).reshape(shape) if len(shape) != 3 else values
    y = watched.wanted("y", expected.shape, held, some_are_poison=dtype in ("uint8", "bool"))
    value = np.asarray(1.0).astype(held).tobytes()
    module.pad(x, y, before, after, mode, value, 0)
    watched.check(f"pad {shape} {amounts} {mode} {dtype}")
    same(y, expected, f"pad {shape} {amounts} {mode} {dtype}")
    wide = np.repeat(values, 2, axis=-1)[..., ::2]
    module.pad(wide, y, before, after, mode, value, 0)
    same(y, expected, f"pad {shape} {amounts} {mode} {dtype} of every other")


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_padding(simt: ModuleType, mode: str) -> None:
    cases = [case for case in PADS if mode != "circular" or all(max(a) <= n for n, a in zip(*case, strict=True))]
    if mode == "reflect":
        cases = [case for case in cases if all(max(a) < n or max(a) == 0 for n, a in zip(*case, strict=True))]
    for number, ((shape, amounts), dtype) in enumerate(itertools.product(cases, HELD)):
        if number % {"plain": 1, "cuda": 1, "race": 3, "asan": 5}[simt.flavour] == 0:
            simt.set_order(ORDERS[number % len(ORDERS)])
            check_pad(simt, shape, amounts, mode, dtype)
    for shape, amounts in CROPS if mode == "constant" else []:
        for dtype in ("float32", "float16", "uint8"):
            check_pad(simt, shape, amounts, mode, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_gradients_of_padding(simt: ModuleType, mode: str, dtype: str) -> None:
    held = supported_dtype(dtype)
    for number, (shape, amounts) in enumerate(sample(simt.flavour, PADS)):
        simt.set_order(ORDERS[number % len(ORDERS)])
        if mode != "replicate" and any(
            max(a) >= n > 1 or (max(a) and n == 1) for n, a in zip(shape, amounts, strict=True)
        ):
            continue
        before, after = [a for a, _ in amounts], [b for _, b in amounts]
        padded = tuple(n + a + b for n, a, b in zip(shape, before, after, strict=True))
        for kind in ("integers", "normal"):
            dy, watched = draw(kind, padded).astype(held), Memory()
            expected = naive.pad_grad(dy.astype(np.float64), shape, amounts, mode)
            dx = watched.wanted("dx", shape, held)
            simt.pad_grad(dtype, dy, dx, before, after, mode, 0)
            watched.check(f"pad_grad {shape} {amounts} {mode}")
            allowed = 0 if kind == "integers" and dtype != "bfloat16" else 16 * EPS[dtype]
            assert_close(dx, expected, rtol=allowed, atol=allowed, name=f"{shape} {amounts} {mode} {dtype} {kind}")
            problem = PadProblem(amounts, mode)
            assert ops.pad_grad(problem, frozen(dy), like=dy).tobytes() == dx.tobytes()


# --------------------------------------------------------------------------------------------------------- the ops


@pytest.mark.parametrize("dtype", HELD)
def test_ops_that_move_memory(simt: ModuleType, dtype: str) -> None:
    """Strict: what falls to the reference raises."""
    a, b, c = (numbers((2, n, 5), dtype, n) for n in (3, 1, 4))
    same(ops.concatenate(1, a, b, c[:, ::-1], like=a), np.concatenate([a, b, c[:, ::-1]], 1), "cat")
    parts = ops.split(SplitProblem(1, (1, 0, 2), (True, True, False)), a, like=a)
    assert parts[2] is None
    same(parts[0], a[:, :1], "split")
    assert parts[1].shape == (2, 0, 5)
    x = numbers((4, 3, 6, 5), dtype)
    same(ops.flip((0, 3), x, like=x), x[::-1, :, :, ::-1], "flip")
    for shifts, axes in (((2,), (1,)), ((1, -7), (2, 3)), ((1, 1, 4), (2, 2, 0)), ((0,), (0,)), ((6, 3), (2, 1))):
        same(ops.roll(RollProblem(shifts, axes), x, like=x), np.roll(x, shifts, axes), f"roll {shifts}")
    for counts in ((1, 2, 1, 3), (2, 2, 2, 2), (1, 0, 1, 1), (1, 1, 1, 1)):
        same(ops.repeat(counts, x, like=x), np.tile(x, counts), f"repeat {counts}")
    problem = PadProblem(((0, 0), (0, 0), (1, 2), (0, 1)), "constant", 1.0)
    same(ops.pad(problem, x, like=x), reference.pad(problem, x), "pad")
    same(memory.contiguous(x.T), np.ascontiguousarray(x.T), "contiguous")
    empty = np.empty((0, 3), x.dtype)
    same(ops.roll(RollProblem((1,), (0,)), empty, like=empty), empty, "roll of nothing")


def test_tensors_move_on_the_kernels(simt: ModuleType) -> None:
    """And their gradients come back."""
    values = draw("integers", (2, 4, 3, 5)).astype(np.float32)
    x = gpucnn.tensor(values, requires_grad=True)
    y = gpucnn.cat([x.flip(1), x.roll(1, 3)], 1).repeat(1, 1, 2, 1)
    y = F.pad(y, (1, 1, 2, 2), "reflect").flatten(1).to("float16").to("float32")
    y.sum().backward()
    joined = np.tile(np.concatenate([values[:, ::-1], np.roll(values, 1, 3)], 1), (1, 1, 2, 1))
    padded = np.pad(joined, ((0, 0), (0, 0), (2, 2), (1, 1)), "reflect")
    assert_equal(y, padded.reshape(2, -1))
    assert x.grad.numpy().sum() == padded.size


# ------------------------------------------------------------------------------------------------ what goes wrong

WRONG: dict[str, Any] = {
    "unwritten": lambda run, x, y, *a: run(x, y.copy(), *a),
    "the last element": lambda run, x, y, *a: (run(x, y, *a), y.reshape(-1)[-1:].fill(y.flat[0] + 1)),
    "another order": lambda run, x, y, *a: run(x[::-1], y, *a),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    check_copy(simt, "to nhwc", "float32")
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check_copy(Planted(simt, copy=WRONG[wrong]), "to nhwc", "float32")


X, Y = np.ones((2, 3), np.float32), np.full((2, 3), 7, np.float32)
BYTES, ONES = np.ones((1, 2, 2, 3), np.uint8), np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, y: m.copy(X.astype(np.int32), y, 0), TypeError, "copy: 'x' is '<i4' and 'y' is '<f4'"),
        (lambda m, y: m.copy(X[:, :2], y, 0), ValueError, r"copy: the shapes do not broadcast to \(2, 3\)"),
        (lambda m, y: m.copy(y[::-1], y, 0), ValueError, "copy: 'x' .* and 'y' .* overlap in memory"),
        (lambda m, y: m.copy(y, y, 0), ValueError, "copy: 'x' and 'y' overlap in memory"),
        (lambda m, y: m.copy(X.astype(np.complex128), y, 0), TypeError, "must have elements of 1, 2, 4 or 8 bytes"),
        (lambda m, y: m.copy(np.zeros((2,) * 9)[(slice(None, None, -1),) * 9], np.zeros((2,) * 9), 0), None, ""),
        (lambda m, y: m.copy(np.zeros((2,) * 9).T, np.zeros((2,) * 9), 0), ValueError, "copy: .*more than 8 axes"),
        (lambda m, y: m.convert("float32", "float64", X, y, 0), ValueError, "convert: dtype must be"),
        (lambda m, y: m.convert("float16", "float32", X, y, 0), TypeError, "convert: .*'x' .*must be float16"),
        (lambda m, y: m.select(X, X, X, y, 0), TypeError, "select: 'condition' must be bool and is '<f4'"),
        (lambda m, y: m.select(X > 0, X, X.astype(np.float64), y, 0), TypeError, "select: 'b' is '<f8'"),
        (lambda m, y: m.pad(X, y, [0, 0], [0, 1], "constant", b"0000", 0), ValueError, "pad: .*has not the shape"),
        (lambda m, y: m.pad(X, y, [0], [0], "constant", b"0000", 0), ValueError, "as many amounts .* as axes, 2"),
        (lambda m, y: m.pad(X, y, [0, 0], [0, 0], "edge", b"0000", 0), ValueError, "pad: no mode 'edge'; there are"),
        (
            lambda m, y: m.pad(X[:, :0], y, [0, 3], [0, 0], "replicate", b"0000", 0),
            ValueError,
            "can't add 3 cells to 0",
        ),
        (lambda m, y: m.pad(X[:1], y, [1, 0], [0, 0], "reflect", b"0000", 0), ValueError, "can't add 1 cells to 1"),
        (lambda m, y: m.pad(X, y, [0, 0], [0, 0], "constant", b"00", 0), ValueError, "must be the 4 bytes"),
        (
            lambda m, y: m.pad_grad("float32", X, y, [0, 0], [0, 0], "constant", 0),
            ValueError,
            "pad_grad: mode constant",
        ),
        (lambda m, y: m.pad_grad("float32", X, y, [1, 0], [0, 0], "circular", 0), ValueError, "has not the shape"),
        (
            lambda m, y: m.pad_grad("float32", *2 * [np.ones((5,) * 4, np.float32)], [1] * 4, [1] * 4, "reflect", 0),
            ValueError,
            "pad_grad: .*overlap",
        ),
        (
            lambda m, y: m.pad_grad(
                "float32", np.ones((5,) * 4, np.float32), np.ones((3,) * 4, np.float32), [1] * 4, [1] * 4, "reflect", 0
            ),
            ValueError,
            "pad_grad: pads more than 3 axes",
        ),
        (
            lambda m, y: m.normalize_images("float32", BYTES, ONES, ONES, y, False, 0),
            ValueError,
            r"y must be \(N,H,W,C\)",
        ),
        (
            lambda m, y: m.normalize_images("float32", BYTES, ONES, ONES, np.ones((1, 2, 2, 3), np.float32), True, 0),
            ValueError,
            r"'x' of shape \(1, 2, 2, 3\) must have shape \(1, 3, 2, 2\)",
        ),
        (
            lambda m, y: m.normalize_images(
                "float32", BYTES, ONES, ONES[:2], np.ones(BYTES.shape, np.float32), False, 0
            ),
            ValueError,
            r"'shift' of shape \(2,\) must have shape \(3,\)",
        ),
    ],
)
def test_what_they_cannot_do_is_refused(simt: ModuleType, call: Any, error: Any, message: str) -> None:
    y = Y.copy()
    if error is None:
        call(simt, y)
    else:
        with pytest.raises(error, match=message):
            call(simt, y)
    assert (y == 7).all()
