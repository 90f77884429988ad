"""Max pooling on the CPU: every pass against the truth, in any order of threads, and what its bindings refuse."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, askew, sample
from op_checks import NCHW, NHWC, SEED, draw, nhwc

from gpucnn.ops.compiled import FLOATS
from gpucnn.problem import Pool2dProblem, pool2d_problem
from gpucnn.reference import pool2d as reference
from gpucnn.testing import PoolCase, assert_equal, naive, pool_cases

CASES = [
    *pool_cases("max", SEED, 40, max_taps=1024),
    PoolCase(1, 2, 20, 19, (16, 16), (3, 2), padding=(8, 8)),  # as many taps as a byte counts
    PoolCase(1, 2, 20, 19, (17, 16), (3, 2), padding=(8, 8)),  # and more
    PoolCase(1, 3, 20, 19, (17, 16), (3, 2), padding=(8, 8)),
    PoolCase(2, 3, 7, 4, (2, 2), (1, 1), padding=(1, 1), dilation=(6, 5)),  # windows that step over the image
    PoolCase(1, 70, 9, 9, (3, 3), (2, 2), padding=(1, 1)),
    PoolCase(0, 3, 8, 8, (2, 2), (2, 2)),
]
WIDE = [  # packs of 16 bytes: 4 float32, 8 of 16 bits
    PoolCase(2, 8, 7, 9, (3, 3), (2, 2), padding=(1, 1)),  # a cell is in two windows an axis
    PoolCase(1, 24, 6, 7, (3, 3), (1, 1), padding=(1, 1)),  # in three
    PoolCase(3, 16, 8, 6, (2, 2), (2, 2)),  # in one
    PoolCase(1, 8, 7, 5, (2, 2), (3, 3), ceil_mode=True),  # or none
    PoolCase(2, 8, 5, 6, (2, 2), (1, 2), padding=(1, 1)),
    PoolCase(1, 12, 9, 8, (2, 3), (1, 2), padding=(1, 1), dilation=(2, 1)),  # 12: no packs of 8
    PoolCase(1, 40, 13, 5, (5, 4), (2, 2), padding=(2, 2), ceil_mode=True),
    PoolCase(1, 8, 7, 6, (3, 3), (2, 2), padding=(1, 1), dilation=(3, 2)),  # not the unrolled ones
    PoolCase(1, 8, 20, 19, (17, 16), (3, 2), padding=(8, 8)),  # winners of four bytes
    PoolCase(0, 8, 8, 8, (3, 3), (2, 2)),
]
KINDS = ("ties", "special")


def images(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """So few values that most windows hold their maximum twice; or windows of -inf alone, NaN beside infinities."""
    rng = np.random.default_rng([SEED, *shape])
    if kind == "ties":
        return rng.integers(-2, 3, shape).astype(np.float64)
    return rng.choice([-math.inf, -math.inf, -math.inf, -1, 0, 1, math.inf, math.nan], shape)


def problem_of(case: PoolCase) -> Pool2dProblem:
    return pool2d_problem(
        "max_pool2d", case.x_shape, case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode
    )


@functools.cache
def truth(case: PoolCase, kind: str) -> dict[str, np.ndarray]:
    """In logical order; winners as the reference has them. Numbers that every dtype holds."""
    x = images(kind, case.x_shape)
    y, indices = naive.max_pool2d(x, case.kernel, **case.max_arguments)
    dy = draw("integers", y.shape)
    laid_out = np.ascontiguousarray(x.transpose(NHWC), np.float32)
    winners = reference.max_fprop_winners(problem_of(case), laid_out)[1].transpose(NCHW)
    dx = naive.max_pool2d_grad(dy, indices, case.x_shape)
    return {"x": x, "dy": dy, "y": y, "winners": winners, "indices": indices, "dx": dx}


def results(
    module: Any, p: Pool2dProblem, t: dict[str, np.ndarray], dtype: str = "float32", call: str = ""
) -> dict[str, Any]:
    """What the bindings make of x and dy, in memory order; no other memory is touched."""
    __tracebackhide__ = True
    memory = Memory()
    outputs, number = (p.N, p.P, p.Q, p.C), t["winners"].dtype
    x, dy = memory.given("x", t["x"], dtype), memory.given("dy", t["dy"], dtype)
    y, alone = memory.wanted("y", outputs, dtype), memory.wanted("y without winners", outputs, dtype)
    module.max_pool2d_direct_fprop(p, dtype, x, alone, None, 0)
    found = memory.wanted("winners", outputs, number, some_are_poison=p.R * p.S > 0x5A)
    module.max_pool2d_direct_fprop(p, dtype, x, y, found, 0)
    assert alone.tobytes() == y.tobytes(), f"{call}: y without winners"
    winners = memory.given("winners", t["winners"], number)
    indices, dx = memory.wanted("indices", outputs, np.int64), memory.wanted("dx", x.shape, dtype)
    module.max_pool2d_direct_indices(p, winners, indices, 0)
    module.max_pool2d_direct_dgrad(p, dtype, dy, winners, dx, 0)
    memory.check(call)
    return {"y": y, "winners": found, "indices": indices, "dx": dx}


def check(module: Any, case: PoolCase, kinds: tuple[str, ...] = KINDS, dtype: str = "float32") -> None:
    """Every pass of one case: nothing unwritten, nothing else written, every element right, winners too."""
    __tracebackhide__ = True
    for kind in kinds:
        t = truth(case, kind)
        call = f"{case} {kind} {dtype}"
        for name, found in results(module, problem_of(case), t, dtype, call).items():
            expected = t[name].astype(found.dtype)
            assert_equal(found.transpose(NCHW), expected, signed_zeros=False, name=f"{call}: {name}")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_pass_is_exact(simt: ModuleType, order: str, kind: str) -> None:
    simt.set_order(order)
    start = ORDERS.index(order) + KINDS.index(kind)
    for number, case in enumerate(sample(simt.flavour, CASES), start):
        check(simt, case, (kind,), FLOATS[number % 3])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("order", ORDERS[:2])
def test_packs_of_channels(simt: ModuleType, order: str, dtype: str) -> None:
    simt.set_order(order)
    for case in WIDE:
        check(simt, case, KINDS if simt.flavour == "plain" else ("special",), dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_that_is_not_aligned_to_16_bytes_takes_the_narrow_path(simt: ModuleType, dtype: str) -> None:
    for case in WIDE[:3]:
        t, p = truth(case, "ties"), problem_of(case)
        x, dy, winners = (askew(nhwc(t[name], d)) for name, d in (("x", dtype), ("dy", dtype), ("winners", np.uint8)))
        y, dx, found = askew(np.zeros_like(dy)), askew(np.zeros_like(x)), askew(np.zeros_like(winners))
        indices = np.zeros((dy.size + 1,), np.int64)[1:].reshape(dy.shape)
        simt.max_pool2d_direct_fprop(p, dtype, x, y, found, 0)
        simt.max_pool2d_direct_dgrad(p, dtype, dy, winners, dx, 0)
        simt.max_pool2d_direct_indices(p, winners, indices, 0)
        for name, array in {"y": y, "dx": dx, "winners": found, "indices": indices}.items():
            assert_equal(array.transpose(NCHW), t[name].astype(array.dtype), signed_zeros=False, name=f"{case}: {name}")
            assert array.base is not None
            assert np.count_nonzero(array.base) == np.count_nonzero(array), f"{case}: {name}"


def test_gradients_round_as_the_references_do(simt: ModuleType) -> None:
    """Windows that overlap add up in the order of the taps: the same bits."""
    for case in sample(simt.flavour, WIDE + CASES):
        t, p = dict(truth(case, "ties")), problem_of(case)
        t["dy"] = draw("normal", t["y"].shape)
        winners = np.ascontiguousarray(t["winners"].transpose(NHWC))
        dy = np.ascontiguousarray(t["dy"].transpose(NHWC), np.float32)
        assert_equal(results(simt, p, t)["dx"], reference.max_dgrad(p, dy, winners), name=f"{case}")


def wrong_fprop(change: Any) -> dict[str, Any]:
    def run(binding: Any, p: Pool2dProblem, dtype: str, x: Any, y: Any, winners: Any, stream: int) -> None:
        binding(p, dtype, x, y, winners, stream)
        change(y, winners)

    return {"max_pool2d_direct_fprop": run}


def wrong_dgrad(change: Any) -> dict[str, Any]:
    def run(binding: Any, p: Pool2dProblem, dtype: str, dy: Any, winners: Any, dx: Any, stream: int) -> None:
        binding(p, dtype, dy, winners, dx, stream)
        change(dx)

    return {"max_pool2d_direct_dgrad": run}


WRONG: dict[str, dict[str, Any]] = {
    "fprop: dilation": {"max_pool2d_direct_fprop": lambda run, p, *a: run(replace(p, dilation=(1, 1)), *a)},
    "fprop: zeros in the padding": wrong_fprop(lambda y, winners: np.maximum(y[:, 0], 0, out=y[:, 0])),
    "winners: the last of equal": wrong_fprop(
        lambda y, winners: None if winners is None else np.copyto(winners, winners[:, ::-1])
    ),
    "winners: unwritten": {
        "max_pool2d_direct_fprop": lambda run, p, dtype, x, y, winners, *a: run(
            p, dtype, x, y, None if winners is None else winners.copy(), *a
        )
    },
    "indices: transposed": {
        "max_pool2d_direct_indices": lambda run, p, winners, indices, *a: (
            run(p, winners, indices, *a),
            np.copyto(indices, indices % p.W * p.H + indices // p.W),
        )
    },
    "dgrad: windows lie apart": wrong_dgrad(lambda dx: np.clip(dx, -4, 4, out=dx)),
    "dgrad: unwritten": wrong_dgrad(lambda dx: dx.reshape(-1)[-1:].fill(math.nan)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = PoolCase(2, 3, 9, 8, (3, 3), (1, 1), padding=(1, 1), dilation=(2, 1))
    check(simt, case)
    with pytest.raises(AssertionError, match=r"elements are wrong|never written|y without winners"):
        check(Planted(simt, **WRONG[wrong]), case)


# ---------------------------------------------------------------------------------------------- what bindings refuse

PROBLEM = pool2d_problem("max_pool2d", (2, 3, 6, 8), 2, 2, 0, 1, False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"padding": (2, 0), "P": 4}, "padding must be at most half of the window"),
        ({"P": 5}, r"more outputs than windows .*\(H,R,P=6,2,5"),
        ({"C": 0}, r"C must be in \[1, 2\^31\), got 0"),
        ({"N": 1 << 31}, r"N must be in \[0, 2\^31\)"),
        ({"N": 1 << 30, "C": 1 << 10}, r"\(N,H,W,C\) has more than 2\^38 elements"),
        ({"N": 0, "R": 1 << 16, "S": 1 << 16, "H": 1 << 17, "W": 1 << 17}, r"R\*S must be at most 2\^30"),
        ({"dilation": (1 << 31, 1)}, r"dilation must be in \[1, 2\^31\)"),
    ],
)
def test_problems_that_no_kernel_could_be_trusted_with(simt: ModuleType, fields: Any, message: str) -> None:
    x = np.zeros((2, 6, 8, 3), np.float32)
    with pytest.raises(ValueError, match=f"max_pool2d: .*{message}"):
        simt.max_pool2d_direct_fprop(replace(PROBLEM, **fields), "float32", x, x, None, 0)


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    x, y = np.zeros((2, 6, 8, 3), np.float32), np.full((2, 3, 4, 3), 7, np.float32)
    winners, locked, f32 = np.zeros(y.shape, np.uint8), y.copy(), "float32"
    locked.flags.writeable = False
    calls: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
        ("fprop", (f32, x.astype(np.float64), y, winners), TypeError, r"argument 'x' .*must be float32 \('<f4'\)"),
        ("fprop", (f32, x[:1], y, winners), ValueError, r"'x' of shape \(1, 6, 8, 3\) must have shape .*: \(N,H,W,C\)"),
        ("fprop", (f32, x, y, winners.astype(np.int32)), TypeError, r"'winners' .*must be uint8 \('\|u1'\) and is"),
        ("fprop", (f32, x, y, winners[..., :2].copy()), ValueError, r"'winners' of shape .*: \(N,P,Q,C\)"),
        ("fprop", (f32, x, x.reshape(-1)[:72].reshape(y.shape), None), ValueError, r"'y' .* and 'x' .* overlap in"),
        ("fprop", (f32, x, locked, None), ValueError, "'y' .*read-only"),
        ("fprop", ("float16", x, y, None), TypeError, r"'x' .*must be float16 \('<f2'\)"),
        ("fprop", ("float64", x, y, None), ValueError, "dtype must be float32, float16 or bfloat16, got float64"),
        ("dgrad", (f32, y, winners, x[:, :3].copy()), ValueError, r"'dx' of shape .* must have shape \(2, 6, 8, 3\)"),
        ("dgrad", (f32, y[..., ::-1], winners, x), ValueError, "'dy' .*must be C-contiguous"),
        ("dgrad", (f32, y, None, x), TypeError, "'winners' must be an array in CPU memory"),
        ("indices", (winners, winners), TypeError, r"'indices' .*must be int64"),
    ]
    for name, arguments, error, message in calls:
        with pytest.raises(error, match=f"max_pool2d: .*{message}"):
            getattr(simt, f"max_pool2d_direct_{name}")(PROBLEM, *arguments, 0)
        assert (y == 7).all(), message
        assert not x.any(), message


def test_winners_of_large_windows_are_int32(simt: ModuleType) -> None:
    p = pool2d_problem("max_pool2d", (1, 1, 20, 20), (17, 16), 1, 0, 1, False)
    x, y = np.zeros((1, 20, 20, 1), np.float32), np.zeros((1, 4, 5, 1), np.float32)
    with pytest.raises(TypeError, match=r"'winners' .*must be int32"):
        simt.max_pool2d_direct_fprop(p, "float32", x, y, np.zeros(y.shape, np.uint8), 0)
