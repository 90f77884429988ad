"""Interpolation, bed of nails and pixel shuffle on the CPU: every kernel and configuration against the truth, in any
order of threads, and what their bindings refuse."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, askew, sample
from op_checks import NCHW, SEED, compare, draw, nhwc
from upsample_cases import CASES, MODES, Case, problem, truth

from gpucnn.ops import upsample as ops
from gpucnn.ops.compiled import FLOATS
from gpucnn.reference import upsample as reference
from gpucnn.reference.upsample import InterpolateProblem, NailsProblem, ShuffleProblem
from gpucnn.testing import assert_equal, naive

WIDE: list[Case] = [  # packs of 16 bytes: 4 float32, 8 of 16 bits
    (2, 8, 4, 5, 8, 10, None),
    (1, 16, 5, 6, 5, 3, None),
    (1, 12, 3, 2, 7, 5, (2.5, 2.5)),  # 12: no packs of 8
    (1, 8, 9, 7, 4, 3, None),
    (0, 8, 4, 5, 8, 10, None),
]


def check(module: Any, case: Case, mode: str, dtype: str) -> None:
    """Both passes: nothing unwritten, nothing else written, every element right, what is only moved exactly."""
    __tracebackhide__ = True
    t = dict(zip(("x", "y", "dy", "dx"), truth(case, **MODES[mode]), strict=True))
    p, memory, call = problem(case, **MODES[mode]), Memory(), f"{case} {mode} {dtype}"
    x, dy = memory.given("x", t["x"], dtype), memory.given("dy", t["dy"], dtype)
    y, dx = memory.wanted("y", dy.shape, dtype), memory.wanted("dx", x.shape, dtype)
    module.interpolate_fprop(p, dtype, x, y, 0)
    module.interpolate_dgrad(p, dtype, dy, dx, 0)
    memory.check(call)
    gathered = 4 + 4 * -(-p.P // p.H) * -(-p.Q // p.W)  # gradients of so many outputs come together in an input
    if p.mode != "bilinear":
        assert_equal(y.transpose(NCHW), t["y"].astype(dtype), signed_zeros=False, name=f"{call}: y")
    compare(y.transpose(NCHW), t["y"], 4, f"{call}: y")
    compare(dx.transpose(NCHW), t["dx"], gathered, f"{call}: dx")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
def test_interpolation(simt: ModuleType, order: str, mode: str) -> None:
    simt.set_order(order)
    start = ORDERS.index(order) + list(MODES).index(mode)
    cases = [case for case in CASES if case[1] < 100]
    for number, case in enumerate(sample(simt.flavour, cases[start % 2 :: 2]), start):
        check(simt, case, mode, FLOATS[number % 3])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_interpolation_of_packs_of_channels(simt: ModuleType, dtype: str, mode: str) -> None:
    for case in WIDE if simt.flavour == "plain" else WIDE[1:3]:
        check(simt, case, mode, dtype)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_that_is_not_aligned_to_16_bytes_takes_the_narrow_path(simt: ModuleType, dtype: str, mode: str) -> None:
    p = problem(WIDE[0], **MODES[mode])
    x, _, dy, _ = (nhwc(array, dtype) for array in truth(WIDE[0], **MODES[mode]))
    for table, run, given in (
        (ops.interpolate_fprop, simt.interpolate_fprop, x),
        (ops.interpolate_dgrad, simt.interpolate_dgrad, dy),
    ):
        expected = table(p, given, like=given)
        found = askew(np.zeros_like(expected))
        run(p, dtype, askew(given), found, 0)
        assert_equal(found, expected, name=str(table))
        assert found.base is not None
        assert np.count_nonzero(found.base) == np.count_nonzero(found)


@pytest.mark.parametrize("mode", MODES)
def test_every_size_to_every_size(simt: ModuleType, mode: str) -> None:
    """Along one axis, with a scale and without; weights of the reference, which are float64's."""
    sizes = (1, 2, 3, 7, 31, 32, 33) if simt.flavour == "plain" else (1, 3, 32)
    factors = (None, 0.3, 1 / 3, 0.7, 1.0, 1.1, 1.7, 2.0, 2.3333, 3.0)
    for size in sizes:
        for count in sizes:
            for factor in (None,) if size * count > 200 else factors:
                P = count if factor is None else math.floor(size * factor)
                if P < 1:
                    continue
                scale = None if factor is None else (factor, 1.0)
                p = InterpolateProblem(1, size, 1, 1, P, 1, scale=scale, **{"align_corners": False} | MODES[mode])
                x, dy = (draw("normal", (1, n, 1, 1)).astype(np.float32) for n in (size, P))
                name = f"{mode} {size} -> {P} {factor}"
                y, expected = ops.interpolate_fprop(p, x, like=x), reference.interpolate_fprop(p, x.astype(np.float64))
                dx, gathered = ops.interpolate_dgrad(p, dy, like=x), reference.interpolate_dgrad(p, dy.astype("f8"))
                compare(y, expected, 8, name, exact="nearest" in mode)
                compare(dx, gathered, 8 * (1 + P // size), f"{name}, gradient")


@pytest.mark.parametrize("mode", MODES)
def test_infinities_and_nan_reach_what_the_references_reach(simt: ModuleType, mode: str) -> None:
    """A weight of 0 makes NaN of an infinity; a pixel that is not read makes nothing."""
    for H, W, P, Q in ((3, 4, 6, 8), (3, 3, 3, 5), (4, 4, 2, 2), (5, 3, 2, 3), (2, 2, 4, 5)):
        p = InterpolateProblem(1, H, W, 2, P, Q, scale=None, **{"align_corners": False} | MODES[mode])
        x, dy = (np.ones((1, *shape, 2), np.float32) for shape in ((H, W), (P, Q)))
        x[0, 1, 1] = dy[0, -1, 0] = math.inf, math.nan
        x[0, 0, 0, 0] = dy[0, 0, 1, 0] = -math.inf
        assert_close_but_for_nan(ops.interpolate_fprop(p, x, like=x), reference.interpolate_fprop(p, x))
        assert_close_but_for_nan(ops.interpolate_dgrad(p, dy, like=x), reference.interpolate_dgrad(p, dy))


def assert_close_but_for_nan(found: np.ndarray, expected: np.ndarray) -> None:
    __tracebackhide__ = True
    assert_equal(np.isnan(found), np.isnan(expected), name="NaN")
    assert_equal(np.where(np.isinf(found), found, 0), np.where(np.isinf(expected), expected, 0), name="infinities")
    finite = np.isfinite(expected)
    compare(found[finite], expected[finite].astype(np.float64), 16)


# --------------------------------------------------------------------------------------------- what only moves elements

NAILS: list[tuple[int, int, int, int, tuple[int, int]]] = [
    (2, 3, 4, 5, (2, 2)),
    (1, 1, 1, 1, (3, 2)),
    (2, 8, 3, 4, (2, 3)),  # words of 16 bytes
    (1, 33, 2, 3, (1, 4)),
    (0, 8, 3, 3, (2, 2)),
    (1, 4, 0, 3, (2, 2)),
]
SHUFFLES: list[tuple[int, int, int, int, int]] = [  # N, C of the larger image, H and W of the smaller, factor
    *((2, 3, 4, 5, 2), (1, 1, 1, 1, 3), (0, 2, 3, 3, 2), (3, 7, 2, 3, 3), (1, 33, 3, 2, 2), (2, 4, 5, 3, 1)),
    *((2, 16, 3, 5, 2), (1, 32, 2, 4, 4), (1, 16, 2, 3, 3), (1, 5, 1, 2, 7)),
    (1, 16, 2, 300, 2),  # several tiles of a line
    (1, 1040, 1, 2, 4),  # and of a pixel's channels: 1040 * 16 elements
    (1, 3, 1, 1, 32),
    (1, 16, 1, 2, 32),
]


@functools.cache
def moved(kind: str, case: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    N, C, H, W, factor = case
    if kind == "nails":
        x = draw("integers", (N, C, H, W))
        dy = draw("integers", (N, C, H * factor[0], W * factor[1]), 1)
        return x, naive.bed_of_nails(x, factor), dy, naive.bed_of_nails_grad(dy, factor)
    f = factor
    y = np.random.default_rng([SEED, *case]).integers(0, 100, (N, C, H * f, W * f)).astype(np.float64)
    channels_first = y.reshape(N, C, H, f, W, f).transpose(0, 1, 3, 5, 2, 4).reshape(N, C * f * f, H, W)
    return channels_first, y


def check_nails(module: Any, case: tuple[Any, ...], dtype: str) -> None:
    __tracebackhide__ = True
    N, C, H, W, factor = case
    x, y, dy, dx = moved("nails", case)
    p, memory, call = NailsProblem(N, H, W, C, factor), Memory(), f"{case} {dtype}"
    found_y, found_dx = (memory.wanted("out", nhwc(a).shape, dtype) for a in (y, dx))
    module.bed_of_nails_fprop(p, dtype, memory.given("x", x, dtype), found_y, 0)
    module.bed_of_nails_dgrad(p, dtype, memory.given("dy", dy, dtype), found_dx, 0)
    memory.check(call)
    assert_equal(found_y.transpose(NCHW), y.astype(dtype), signed_zeros=False, name=f"{call}: y")
    assert_equal(found_dx.transpose(NCHW), dx.astype(dtype), name=f"{call}: dx")


ELEMENTS = {1: np.uint8, 2: np.float16, 4: np.int32, 8: np.int64}


def check_shuffle(module: Any, case: tuple[int, ...], size: int) -> None:
    __tracebackhide__ = True
    N, C, H, W, factor = case
    x, y = moved("shuffle", case)
    p, memory, dtype, call = ShuffleProblem(N, H, W, C, factor), Memory(), ELEMENTS[size], f"{case} of {size} bytes"
    found_y, found_x = (memory.wanted("out", nhwc(a).shape, dtype, some_are_poison=True) for a in (y, x))
    module.pixel_shuffle(p, size, memory.given("x", x, dtype), found_y, 0)
    module.pixel_unshuffle(p, size, memory.given("y", y, dtype), found_x, 0)
    memory.check(call)
    assert_equal(found_y.transpose(NCHW), y.astype(dtype), name=f"{call}: y")
    assert_equal(found_x.transpose(NCHW), x.astype(dtype), name=f"{call}: x")


def test_these_pixels_are_shuffled_as_the_definition_has_it() -> None:
    for case in SHUFFLES[:10]:
        x, y = moved("shuffle", case)
        assert_equal(naive.pixel_shuffle(x, case[-1]), y)


@pytest.mark.parametrize("order", ORDERS)
def test_beds_of_nails(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for number, case in enumerate(NAILS, ORDERS.index(order)):
        check_nails(simt, case, FLOATS[number % 3])


@pytest.mark.parametrize("size", ELEMENTS)
@pytest.mark.parametrize("order", ORDERS)
def test_pixel_shuffles(simt: ModuleType, order: str, size: int) -> None:
    simt.set_order(order)
    cases = SHUFFLES if simt.flavour == "plain" else [*sample(simt.flavour, SHUFFLES[:10]), SHUFFLES[6], SHUFFLES[10]]
    for case in cases:
        check_shuffle(simt, case, size)


@pytest.mark.parametrize("size", ELEMENTS)
def test_pixels_that_lie_askew_are_shuffled_one_by_one(simt: ModuleType, size: int) -> None:
    for case in SHUFFLES[6:8]:
        N, C, H, W, factor = case
        x, y = (askew(nhwc(array, ELEMENTS[size])) for array in moved("shuffle", case))
        p, found_x, found_y = ShuffleProblem(N, H, W, C, factor), askew(np.zeros_like(x)), askew(np.zeros_like(y))
        simt.pixel_shuffle(p, size, x, found_y, 0)
        simt.pixel_unshuffle(p, size, y, found_x, 0)
        assert_equal(found_y, y)
        assert_equal(found_x, x)
        for array in (found_x, found_y):
            assert array.base is not None
            assert np.count_nonzero(array.base) == np.count_nonzero(array)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nails_that_lie_askew(simt: ModuleType, dtype: str) -> None:
    x, y, dy, dx = (nhwc(array, dtype) for array in moved("nails", NAILS[2]))
    p = NailsProblem(2, 3, 4, 8, (2, 3))
    found_y, found_dx = askew(np.zeros_like(y)), askew(np.zeros_like(dx))
    simt.bed_of_nails_fprop(p, dtype, x, found_y, 0)
    simt.bed_of_nails_dgrad(p, dtype, dy, found_dx, 0)
    assert_equal(found_y, y, signed_zeros=False)
    assert_equal(found_dx, dx)


# ---------------------------------------------------------------------------------------------- what must be caught

WRONG: dict[str, tuple[str, Any]] = {
    "corners": ("interpolate_fprop", lambda run, p, *a: run(replace(p, align_corners=True), *a)),
    "fprop: unwritten": (
        "interpolate_fprop",
        lambda run, p, dtype, x, y, s: (run(p, dtype, x, y, s), y.reshape(-1)[-1:].fill(math.nan)),
    ),
    "dgrad: a line too few": (
        "interpolate_dgrad",
        lambda run, p, dtype, dy, dx, s: run(p, dtype, np.where(np.arange(p.P)[:, None, None] < 1, 0, dy), dx, s),
    ),
    "dgrad: no antialias": ("interpolate_dgrad", lambda run, p, *a: run(replace(p, antialias=not p.antialias), *a)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    name, run = WRONG[wrong]
    case, mode = (1, 3, 7, 6, 4, 4, None), "bilinear"
    check(simt, case, mode, "float32")
    with pytest.raises(AssertionError, match="elements are wrong"):
        check(Planted(simt, **{name: run}), case, mode, "float32")


@pytest.mark.parametrize("name", ["pixel_shuffle", "pixel_unshuffle"])
def test_a_wrong_shuffle_is_caught(simt: ModuleType, name: str) -> None:
    def transposed(run: Any, p: Any, size: int, given: Any, out: Any, stream: int) -> None:
        run(p, size, given, out, stream)
        np.copyto(out, out[..., ::-1])

    with pytest.raises(AssertionError, match="elements are wrong"):
        check_shuffle(Planted(simt, **{name: transposed}), SHUFFLES[0], 4)


def test_what_does_not_fit_is_refused_and_nothing_is_written(simt: ModuleType) -> None:
    p = InterpolateProblem(2, 3, 4, 5, 6, 8, "bilinear", False, None)
    n, s = NailsProblem(2, 3, 4, 5, (2, 2)), ShuffleProblem(2, 3, 4, 5, 2)
    x, y, f32 = np.zeros((2, 3, 4, 5), np.float32), np.full((2, 6, 8, 5), 7, np.float32), "float32"
    whole = np.zeros((2, 3, 4, 20), np.int32)
    calls: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
        ("interpolate_fprop", (p, f32, x[:1], y), ValueError, "'x' .*what the problem says"),
        ("interpolate_fprop", (p, f32, x, x), ValueError, "'y' .*what the problem says"),
        ("interpolate_fprop", (p, "int32", x, y), ValueError, "dtype must be float32, float16 or bfloat16"),
        ("interpolate_fprop", (replace(p, mode="cubic"), f32, x, y), ValueError, "mode must be nearest"),
        ("interpolate_fprop", (replace(p, P=(1 << 29) + 1, N=0), f32, x, y), ValueError, r"at most 2\^29 pixels"),
        ("interpolate_fprop", (replace(p, scale=(1.2, 2.0)), f32, x, y), ValueError, "3 pixels do not grow to 6"),
        ("interpolate_fprop", (replace(p, scale=(math.nan, 2.0)), f32, x, y), ValueError, "scale must be finite"),
        ("interpolate_fprop", (replace(p, scale=(0.0, 2.0)), f32, x, y), ValueError, "scale must be finite"),
        ("interpolate_fprop", (replace(p, scale=2.0), f32, x, y), TypeError, "scale must be .vertical, horizontal"),
        ("interpolate_fprop", (replace(p, C=0), f32, x, y), ValueError, r"C must be in \[1, 2\^31\)"),
        ("interpolate_dgrad", (p, "float16", y, x), TypeError, "'dy' .*must be float16"),
        ("interpolate_dgrad", (p, f32, y, y[:, ::2, ::2]), ValueError, "'dx' .*C-contiguous"),
        ("bed_of_nails_fprop", (replace(n, factor=(0, 2)), f32, x, y), ValueError, "factor must be in"),
        ("bed_of_nails_fprop", (n, f32, y.reshape(-1)[:120].reshape(x.shape), y), ValueError, "overlap"),
        ("bed_of_nails_dgrad", (n, f32, x, x), ValueError, "'dy' .*what the problem says"),
        ("pixel_shuffle", (s, 4, x.view(np.int32), y.view(np.int32)), ValueError, "'x' .*what the problem says"),
        ("pixel_shuffle", (s, 3, whole, y), ValueError, "elements must have 1, 2, 4 or 8 bytes, got 3"),
        ("pixel_shuffle", (s, 4, whole, y), TypeError, "'y' .*must be int32"),
        ("pixel_unshuffle", (replace(s, factor=33), 4, y, x), ValueError, "factor must be at most 32"),
        ("pixel_unshuffle", (s, 8, y, whole), TypeError, "'y' .*must be int64"),
    ]
    for name, arguments, error, message in calls:
        op = name.removesuffix("_fprop").removesuffix("_dgrad")
        with pytest.raises(error, match=f"{op}: .*{message}"):
            getattr(simt, name)(*arguments, 0)
        assert (y == 7).all(), message
        assert not x.any(), message
        assert not whole.any(), message


def test_what_kernels_cannot_do_falls_to_the_reference_with_a_reason(simt: ModuleType) -> None:
    like = np.empty(0, np.float32)
    with pytest.raises(ValueError, match="needs a factor of at most 32, got 33"):
        ops.shuffle.pick(ShuffleProblem(1, 1, 1, 1, 33), like, kernel="tiles")
    problem_of_a_line = InterpolateProblem(1, 1, 1, 1, 1, 1 << 30, "nearest", False, None)
    with pytest.raises(ValueError, match=r"needs axes of at most 2\^29 pixels, got one of 1073741824"):
        ops.interpolate_fprop.pick(problem_of_a_line, like, kernel="direct")
