"""Average and power-average pooling on the CPU: every kernel and configuration against the truth, in any order of
threads, and what its bindings refuse."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, askew, sample
from op_checks import NCHW, SEED, compare, draw, frozen, nhwc

from gpucnn.ops import pool2d
from gpucnn.ops.compiled import FLOATS
from gpucnn.problem import Pool2dProblem, pool2d_problem
from gpucnn.reference import lp_pool2d as lp_reference
from gpucnn.reference import pool2d as reference
from gpucnn.reference.lp_pool2d import LpPool2dProblem
from gpucnn.reference.pool2d import AveragePool2dProblem
from gpucnn.testing import PoolCase, assert_equal, naive, pool_cases

CASES = [
    *pool_cases("avg", SEED, 30, max_taps=1024),
    PoolCase(3, 8, 8, 6, (2, 2), (2, 2)),  # packs of channels, and the unrolled windows: a cell in one of them
    PoolCase(2, 8, 7, 9, (3, 3), (2, 2), padding=(1, 1)),  # in two
    PoolCase(1, 16, 6, 7, (3, 3), (1, 1), padding=(1, 1), count_include_pad=False),  # in three
    PoolCase(1, 12, 7, 5, (2, 2), (3, 3), ceil_mode=True),  # or none; 12: no packs of 8
    PoolCase(1, 40, 9, 5, (5, 4), (2, 2), padding=(2, 2), ceil_mode=True, divisor_override=-3),
    PoolCase(0, 8, 8, 8, (3, 3), (2, 2)),
]


def problem_of(case: PoolCase) -> AveragePool2dProblem:
    p = pool2d_problem("avg_pool2d", case.x_shape, case.kernel, case.stride, case.padding, 1, case.ceil_mode)
    return AveragePool2dProblem(p, case.count_include_pad, case.divisor_override)


@functools.cache
def truth(case: PoolCase) -> dict[str, np.ndarray]:
    """In logical order."""
    x, dy = draw("normal", case.x_shape), draw("normal", case.y_shape, 1)
    y = naive.avg_pool2d(x, case.kernel, **case.avg_arguments)
    return {"x": x, "dy": dy, "y": y, "dx": naive.avg_pool2d_grad(dy, x.shape, case.kernel, **case.avg_arguments)}


def results(
    module: Any, problem: AveragePool2dProblem, t: dict[str, np.ndarray], dtype: str, call: str = ""
) -> dict[str, Any]:
    """What the bindings make of x and dy, in memory order; no other memory is touched."""
    __tracebackhide__ = True
    memory, p = Memory(), problem.windows
    divided = problem.count_include_pad, problem.divisor_override
    x, dy = memory.given("x", t["x"], dtype), memory.given("dy", t["dy"], dtype)
    y, dx = memory.wanted("y", dy.shape, dtype), memory.wanted("dx", x.shape, dtype)
    module.avg_pool2d_direct_fprop(p, dtype, *divided, x, y, 0)
    module.avg_pool2d_direct_dgrad(p, dtype, *divided, dy, dx, 0)
    memory.check(call)
    return {"y": y, "dx": dx}


def check(module: Any, case: PoolCase, dtype: str) -> None:
    """Both passes: nothing unwritten, nothing else written, and the reference's bits, whose order of sums they have."""
    __tracebackhide__ = True
    t, p, call = truth(case), problem_of(case), f"{case} {dtype}"
    found = results(module, p, t, dtype, call)
    for name, array in found.items():
        compare(array.transpose(NCHW), t[name], case.kernel[0] * case.kernel[1], f"{call}: {name}")
    assert_equal(found["y"], reference.average_fprop(p, nhwc(t["x"], dtype)), signed_zeros=False, name=f"{call}: y")
    assert_equal(found["dx"], reference.average_dgrad(p, nhwc(t["dy"], dtype)), signed_zeros=False, name=f"{call}: dx")


@pytest.mark.parametrize("order", ORDERS)
def test_averages(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for number, case in enumerate(sample(simt.flavour, CASES), ORDERS.index(order)):
        check(simt, case, FLOATS[number % 3])


@pytest.mark.parametrize("dtype", FLOATS)
def test_averages_of_packs_of_channels(simt: ModuleType, dtype: str) -> None:
    for case in CASES[-6:]:
        check(simt, case, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_that_is_not_aligned_to_16_bytes_takes_the_narrow_path(simt: ModuleType, dtype: str) -> None:
    case = CASES[-5]
    t, p = truth(case), problem_of(case)
    aligned = results(simt, p, t, dtype)
    x, dy = askew(nhwc(t["x"], dtype)), askew(nhwc(t["dy"], dtype))
    y, dx = askew(np.zeros_like(dy)), askew(np.zeros_like(x))
    simt.avg_pool2d_direct_fprop(p.windows, dtype, True, None, x, y, 0)
    simt.avg_pool2d_direct_dgrad(p.windows, dtype, True, None, dy, dx, 0)
    for name, array in {"y": y, "dx": dx}.items():
        assert_equal(array, aligned[name], name=name)
        assert array.base is not None
        assert np.count_nonzero(array.base) == np.count_nonzero(array)


def test_infinities_and_nan_reach_what_the_references_reach(simt: ModuleType) -> None:
    rng = np.random.default_rng(SEED)
    for case in CASES[-6:-1]:
        t, p = dict(truth(case)), problem_of(case)
        for name in ("x", "dy"):
            t[name] = rng.choice([-math.inf, 0, 0, 1, 1, 1, 2, math.inf, math.nan], t[name].shape)
        found = results(simt, p, t, "float32")
        with np.errstate(all="ignore"):
            assert_equal(found["y"], reference.average_fprop(p, nhwc(t["x"], "float32")), signed_zeros=False)
            assert_equal(found["dx"], reference.average_dgrad(p, nhwc(t["dy"], "float32")), signed_zeros=False)


# ------------------------------------------------------------------------------------------------------ global average

GLOBAL = [  # N, C, H, W: parts of 1,024 cells, rounds of 64, slabs of 8 packs of 4 or 8 channels
    *((1, 1, 1, 1), (2, 3, 1, 2), (3, 8, 7, 7), (2, 33, 4, 4), (1, 64, 3, 5), (2, 129, 3, 3), (1, 72, 9, 7)),
    *((2, 12, 13, 5), (1, 1, 32, 32), (2, 8, 25, 41), (1, 5, 33, 65), (2, 40, 2, 1), (0, 8, 4, 4), (1, 4, 1, 2049)),
]


def whole(N: int, C: int, H: int, W: int, override: int | None = None) -> AveragePool2dProblem:
    return AveragePool2dProblem(Pool2dProblem(N, H, W, C, H, W, 1, 1, (H, W), (0, 0), (1, 1)), True, override)


@pytest.mark.parametrize("kind", ["integers", "normal"])
@pytest.mark.parametrize("order", ORDERS)
def test_global_averages(simt: ModuleType, order: str, kind: str) -> None:
    simt.set_order(order)
    start = ORDERS.index(order) + len(kind)
    for number, (N, C, H, W) in enumerate(sample(simt.flavour, GLOBAL), start):
        dtype, memory = FLOATS[number % 3], Memory()
        call = f"{N, C, H, W} {dtype}"
        p = whole(N, C, H, W)
        x = draw(kind, (N, C, H, W))
        y = memory.wanted("y", (N, 1, 1, C), dtype)
        count = simt.avg_pool2d_global_parts(p.windows)
        assert count == -(-H * W // 1024)
        parts = memory.wanted("parts", (N, count, C)) if count > 1 else None
        given = memory.given("x", x, dtype)
        simt.avg_pool2d_global_fprop(p.windows, dtype, 4 if kind == "integers" else None, given, parts, y, 0)
        memory.check(call)
        if kind == "integers":  # the sums are exact, and quarters of them in float32
            expected = (x.sum(axis=(2, 3), keepdims=True) / 4).astype(np.float32).astype(dtype)
            assert_equal(y.transpose(NCHW), expected, signed_zeros=False, name=call)
        else:
            compare(y.transpose(NCHW), x.mean(axis=(2, 3), keepdims=True), H * W, call)


@pytest.mark.parametrize("dtype", FLOATS)
def test_an_image_s_global_average_depends_on_the_image_alone(simt: ModuleType, dtype: str) -> None:
    x = nhwc(draw("normal", (3, 8, 33, 35)), dtype)
    p = whole(3, 8, 33, 35)
    together = pool2d.average_fprop(p, x, kernel="global", like=x)
    for number in range(3):
        alone = pool2d.average_fprop(whole(1, 8, 33, 35), x[number : number + 1].copy(), kernel="global", like=x)
        assert_equal(alone[0], together[number])
    lying_askew = pool2d.average_fprop(p, askew(x), kernel="global", like=x)
    assert_equal(lying_askew, together)


def test_which_kernel_averages(simt: ModuleType) -> None:
    x = np.empty(0, np.float32)
    assert pool2d.average_fprop.pick(whole(2, 8, 7, 7), x).name == "global"
    part = problem_of(CASES[0 if CASES[0].H > 1 else 1])
    assert pool2d.average_fprop.pick(part, x).name == "direct"
    with pytest.raises(ValueError, match="'global' can't run this: needs one window that is the image"):
        pool2d.average_fprop.pick(part, x, kernel="global")
    with pytest.raises(ValueError, match="its partial sums would take more than 64 MiB"):
        pool2d.average_fprop.pick(whole(1 << 14, 1 << 10, 64, 64), x, kernel="global")
    assert pool2d.average_fprop.pick(whole(1 << 14, 1 << 10, 64, 64), x).name == "direct"


# ------------------------------------------------------------------------------------------------------- power average

NORMS = [1, 2, 3, 1.5, 0.5, -1, -2.5, math.inf, -math.inf]
LP_WINDOWS: list[tuple[Any, ...]] = [
    ((2, 3, 7, 9), (3, 2), (2, 1), False),
    ((1, 8, 7, 6), 2, 2, True),  # packs of channels; windows cut short
    ((1, 12, 5, 8), (3, 4), (2, 3), True),
    ((1, 8, 17, 16), (17, 16), None, False),  # winners of four bytes
    ((0, 8, 4, 4), 2, None, False),
]


@functools.cache
def lp_truth(norm: float, windows: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """In logical order; magnitudes from 1/4 on, where all powers are tame."""
    shape, kernel, stride, ceil_mode = windows
    x = np.abs(draw("integers", shape)) / 4 + 0.25
    if norm in (2, math.inf, -math.inf):
        x *= np.where(draw("integers", shape, 2) < 0, -1, 1)
    y = naive.lp_pool2d(x, norm, kernel, stride, ceil_mode)
    t = {"x": x, "y": y, "dy": draw("normal", y.shape, 1)}
    if math.isfinite(norm):
        t["dx"] = naive.lp_pool2d_grad(t["dy"], x, norm, kernel, stride)
    return t


def lp_problem(norm: float, windows: tuple[Any, ...]) -> LpPool2dProblem:
    shape, kernel, stride, ceil_mode = windows
    return LpPool2dProblem(pool2d_problem("lp_pool2d", shape, kernel, stride, 0, 1, ceil_mode), norm)


def check_lp(module: Any, norm: float, windows: tuple[Any, ...], dtype: str) -> None:
    __tracebackhide__ = True
    t, problem = lp_truth(norm, windows), lp_problem(norm, windows)
    p, memory, call = problem.windows, Memory(), f"norm {norm} {windows} {dtype}"
    x, dy = memory.given("x", t["x"], dtype), memory.given("dy", t["dy"], dtype)
    y, dx = memory.wanted("y", dy.shape, dtype), memory.wanted("dx", x.shape, dtype)
    if math.isfinite(norm):
        sums = memory.wanted("sums", dy.shape)
        module.lp_pool2d_direct_fprop(p, dtype, norm, x, y, sums, 0)
        sums.flags.writeable = False
        module.lp_pool2d_direct_dgrad(p, dtype, norm, dy, x, sums, dx, 0)
        compare(y.transpose(NCHW), t["y"], 16 * p.R * p.S, f"{call}: y")  # powers and roots round as well
        compare(dx.transpose(NCHW), t["dx"], 16 * p.R * p.S, f"{call}: dx")
    else:
        small = p.R * p.S <= 256
        winners = memory.wanted("winners", dy.shape, np.uint8 if small else np.int32, some_are_poison=True)
        module.lp_pool2d_magnitude_fprop(p, dtype, norm > 0, x, y, winners, 0)
        module.lp_pool2d_magnitude_dgrad(p, dtype, dy, x, winners, dx, 0)
        expected, theirs = lp_reference.magnitude_fprop(problem, x)
        assert_equal(y.transpose(NCHW), t["y"].astype(dtype), name=f"{call}: y")
        assert_equal(winners, theirs, name=f"{call}: winners")
        expected = lp_reference.magnitude_dgrad(problem, dy, x, theirs)
        assert_equal(dx, expected, signed_zeros=False, name=f"{call}: dx")
    memory.check(call)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("order", ORDERS)
def test_power_averages(simt: ModuleType, order: str, norm: float) -> None:
    simt.set_order(order)
    start = ORDERS.index(order) + NORMS.index(norm)
    for number, windows in enumerate(sample(simt.flavour, LP_WINDOWS), start):
        check_lp(simt, norm, windows, FLOATS[number % 3])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("norm", [2, 3, math.inf])
def test_power_averages_of_packs_of_channels(simt: ModuleType, norm: float, dtype: str) -> None:
    for windows in LP_WINDOWS[1:4]:
        check_lp(simt, norm, windows, dtype)


def test_a_window_of_zeros_passes_nothing_on_and_powers_of_infinities_are_ieee_754_s(simt: ModuleType) -> None:
    problem = LpPool2dProblem(pool2d_problem("lp_pool2d", (1, 4, 2, 4), 2, None, 0, 1, False), 3.0)
    x = np.zeros((1, 2, 4, 4), np.float32)
    x[0, 0, 2:, 0], x[0, 1, 3, 1], x[0, 0, 2, 2] = math.inf, math.nan, -2
    y, sums = pool2d.lp_fprop(problem, frozen(x), like=x)
    dx = pool2d.lp_dgrad(problem, np.ones_like(y), frozen(x), sums, like=x)
    with np.errstate(all="ignore"):
        expected, their_sums = lp_reference.lp_fprop(problem, x)
        assert_equal(y, expected)
        assert_equal(sums, their_sums)
        assert_equal(dx, lp_reference.lp_dgrad(problem, np.ones_like(y), x, their_sums), signed_zeros=False)


# ---------------------------------------------------------------------------------------------- what must be caught

WRONG: dict[str, Any] = {
    "avg_pool2d_direct_fprop": [
        lambda run, p, dtype, include, every, *a: run(p, dtype, True, every, *a),
        lambda run, p, dtype, include, every, x, y, s: (run(p, dtype, include, every, x, y, s), y[..., -1].fill(0)),
    ],
    "avg_pool2d_direct_dgrad": [
        lambda run, p, dtype, include, every, *a: run(p, dtype, include, 9, *a),
        lambda run, p, dtype, include, every, dy, dx, s: (
            run(p, dtype, include, every, dy, dx, s),
            dx[:, -1, -1].fill(math.nan),
        ),
    ],
}


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in WRONG for number in (0, 1)])
def test_a_wrong_kernel_is_caught(simt: ModuleType, name: str, number: int) -> None:
    case = PoolCase(1, 8, 6, 7, (3, 3), (1, 1), padding=(1, 1), count_include_pad=False)
    with pytest.raises(AssertionError, match="elements are wrong"):
        check(Planted(simt, **{name: WRONG[name][number]}), case, "float32")


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    p = pool2d_problem("avg_pool2d", (2, 3, 6, 8), 2, 2, 0, 1, False)
    all_of_it = whole(2, 3, 64, 32).windows
    x, y, sums = np.zeros((2, 6, 8, 3), np.float32), np.full((2, 3, 4, 3), 7, np.float32), np.zeros((2, 3, 4, 3), "f4")
    large, small, parts = np.zeros((2, 64, 32, 3), "f4"), np.zeros((2, 1, 1, 3), "f4"), np.zeros((2, 2, 3), "f4")
    f32 = "float32"
    calls: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
        ("avg_pool2d_direct_fprop", (p, f32, True, None, x[:1], y), ValueError, r"'x' .*\(N,H,W,C\)"),
        ("avg_pool2d_direct_fprop", (p, f32, True, 0, x, y), ValueError, "divisor_override must not be 0"),
        ("avg_pool2d_direct_fprop", (p, "int8", True, 0, x, y), ValueError, "must not be 0|dtype must be"),
        ("avg_pool2d_direct_fprop", (p, f32, True, None, x, x[:, ::2, ::2]), ValueError, "'y' .*C-contiguous"),
        ("avg_pool2d_direct_fprop", (replace(p, dilation=(1, 2), Q=3), f32, True, None, x, y), ValueError, "dilation"),
        ("avg_pool2d_direct_dgrad", (p, f32, True, None, y, y), ValueError, r"'dx' .*\(N,H,W,C\)"),
        ("avg_pool2d_direct_dgrad", (p, "float16", True, None, y, x), TypeError, "'dy' .*must be float16"),
        ("avg_pool2d_global_fprop", (p, f32, None, x, None, y), ValueError, "needs one window that is the image"),
        ("avg_pool2d_global_fprop", (all_of_it, f32, None, large, None, small), TypeError, "'parts' must be an array"),
        ("avg_pool2d_global_fprop", (all_of_it, f32, None, large, parts[:1], small), ValueError, r"\(N,parts,C\)"),
        ("avg_pool2d_global_fprop", (all_of_it, f32, None, large, large[:, :2, 0], small), ValueError, "contiguous"),
        ("lp_pool2d_direct_fprop", (p, f32, 0, x, y, sums), ValueError, "norm must be finite and not 0"),
        ("lp_pool2d_direct_fprop", (p, f32, math.inf, x, y, sums), ValueError, "norm must be finite and not 0"),
        ("lp_pool2d_direct_fprop", (p, f32, 2, x, y, y), ValueError, "'y' .* and 'sums' .*overlap"),
        ("lp_pool2d_direct_dgrad", (p, f32, 2, y, x, sums.astype("f8"), x), TypeError, "'sums' .*must be float32"),
        ("lp_pool2d_magnitude_dgrad", (p, f32, y, None, np.zeros(y.shape, "u1"), x), TypeError, "'x' must be an array"),
    ]
    for name, arguments, error, message in calls:
        with pytest.raises(error, match=f"{name.split('_pool')[0]}_pool2d: .*({message})"):
            getattr(simt, name)(*arguments, 0)
        assert (y == 7).all(), message
        assert not any(array.any() for array in (x, small, parts)), message
