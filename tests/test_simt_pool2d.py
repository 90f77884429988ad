"""Max pooling on the CPU: every pass against the truth, in any order of threads, and what its bindings refuse."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from op_checks import NCHW, SEED, draw

from gpucnn.problem import Pool2dProblem, pool2d_problem
from gpucnn.reference import pool2d as reference
from gpucnn.testing import PoolCase, assert_equal, naive, pool_cases

CASES = [
    *pool_cases("max", SEED, 40, max_taps=1024),
    PoolCase(1, 2, 20, 19, (16, 16), (3, 2), padding=(8, 8)),  # as many taps as a byte counts
    PoolCase(1, 2, 20, 19, (17, 16), (3, 2), padding=(8, 8)),  # and more
    PoolCase(2, 3, 7, 4, (2, 2), (1, 1), padding=(1, 1), dilation=(6, 5)),  # windows that step over the image
    PoolCase(1, 70, 9, 9, (3, 3), (2, 2), padding=(1, 1)),
    PoolCase(0, 3, 8, 8, (2, 2), (2, 2)),
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
    """In logical order; winners as the reference has them."""
    x = images(kind, case.x_shape)
    y, indices = naive.max_pool2d(x, case.kernel, **case.max_arguments)
    dy = draw("integers", y.shape)
    laid_out = np.ascontiguousarray(x.transpose(0, 2, 3, 1), np.float32)
    winners = reference.max_fprop_winners(problem_of(case), laid_out)[1].transpose(NCHW)
    dx = naive.max_pool2d_grad(dy, indices, case.x_shape)
    return {"x": x, "dy": dy, "y": y, "winners": winners, "indices": indices, "dx": dx}


def results(module: Any, p: Pool2dProblem, t: dict[str, np.ndarray], call: str = "") -> dict[str, Any]:
    """What the bindings make of x and dy, in memory order; no other memory is touched."""
    __tracebackhide__ = True
    memory = Memory()
    outputs, number = (p.N, p.P, p.Q, p.C), t["winners"].dtype
    x, dy = memory.given("x", t["x"]), memory.given("dy", t["dy"])
    y, alone = memory.wanted("y", outputs), memory.wanted("y without winners", outputs)
    module.max_pool2d_direct_fprop(p, x, alone, None, 0)
    found = memory.wanted("winners", outputs, number, some_are_poison=p.R * p.S > 0x5A)
    module.max_pool2d_direct_fprop(p, x, y, found, 0)
    assert alone.tobytes() == y.tobytes(), f"{call}: y without winners"
    winners = memory.given("winners", t["winners"], number)
    indices, dx = memory.wanted("indices", outputs, np.int64), memory.wanted("dx", x.shape)
    module.max_pool2d_direct_indices(p, winners, indices, 0)
    module.max_pool2d_direct_dgrad(p, dy, winners, dx, 0)
    memory.check(call)
    return {"y": y, "winners": found, "indices": indices, "dx": dx}


def check(module: Any, case: PoolCase, kinds: tuple[str, ...] = KINDS) -> None:
    """Every pass of one case: nothing unwritten, nothing else written, every element right, winners too."""
    __tracebackhide__ = True
    for kind in kinds:
        t = truth(case, kind)
        for name, found in results(module, problem_of(case), t, f"{case} {kind}").items():
            assert_equal(found.transpose(NCHW), t[name], signed_zeros=False, name=f"{case} {kind}: {name}")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_pass_is_exact(simt: ModuleType, order: str, kind: str) -> None:
    simt.set_order(order)
    for case in sample(simt.flavour, CASES):
        check(simt, case, (kind,))


def test_gradients_round_as_the_references_do(simt: ModuleType) -> None:
    """Windows that overlap add up in the order of the taps: the same bits."""
    for case in sample(simt.flavour, CASES):
        t, p = dict(truth(case, "ties")), problem_of(case)
        t["dy"] = draw("normal", t["y"].shape)
        winners = np.ascontiguousarray(t["winners"].transpose(0, 2, 3, 1))
        dy = np.ascontiguousarray(t["dy"].transpose(0, 2, 3, 1), np.float32)
        assert_equal(results(simt, p, t)["dx"], reference.max_dgrad(p, dy, winners), name=f"{case}")


WRONG: dict[str, dict[str, Any]] = {
    "fprop: dilation": {"max_pool2d_direct_fprop": lambda run, p, *a: run(replace(p, dilation=(1, 1)), *a)},
    "fprop: zeros in the padding": {
        "max_pool2d_direct_fprop": lambda run, p, x, y, *a: (run(p, x, y, *a), np.maximum(y[:, 0], 0, out=y[:, 0]))
    },
    "winners: the last of equal": {
        "max_pool2d_direct_fprop": lambda run, p, x, y, winners, *a: (
            run(p, x, y, winners, *a),
            None if winners is None else np.copyto(winners, winners[:, ::-1]),
        )
    },
    "winners: unwritten": {
        "max_pool2d_direct_fprop": lambda run, p, x, y, winners, *a: run(
            p, x, y, None if winners is None else winners.copy(), *a
        )
    },
    "indices: transposed": {
        "max_pool2d_direct_indices": lambda run, p, winners, indices, *a: (
            run(p, winners, indices, *a),
            np.copyto(indices, indices % p.W * p.H + indices // p.W),
        )
    },
    "dgrad: windows lie apart": {
        "max_pool2d_direct_dgrad": lambda run, p, dy, winners, dx, *a: (
            run(p, dy, winners, dx, *a),
            np.clip(dx, -4, 4, out=dx),
        )
    },
    "dgrad: unwritten": {
        "max_pool2d_direct_dgrad": lambda run, p, dy, winners, dx, *a: (
            run(p, dy, winners, dx, *a),
            dx.reshape(-1)[-1:].fill(math.nan),
        )
    },
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
        simt.max_pool2d_direct_fprop(replace(PROBLEM, **fields), x, x, None, 0)


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    x, y = np.zeros((2, 6, 8, 3), np.float32), np.full((2, 3, 4, 3), 7, np.float32)
    winners = np.zeros(y.shape, np.uint8)
    calls: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
        ("fprop", (x.astype(np.float64), y, winners), TypeError, r"argument 'x' .*must be float32 \('<f4'\)"),
        ("fprop", (x[:1], y, winners), ValueError, r"'x' of shape \(1, 6, 8, 3\) must have shape .*: \(N,H,W,C\)"),
        ("fprop", (x, y, winners.astype(np.int32)), TypeError, r"'winners' .*must be uint8 \('\|u1'\) and is '<i4'"),
        ("fprop", (x, y, winners[..., :2].copy()), ValueError, r"'winners' of shape .*: \(N,P,Q,C\)"),
        (
            "fprop",
            (x, x.reshape(-1)[:72].reshape(y.shape), None),
            ValueError,
            r"'y' .* and 'x' .* overlap in memory",
        ),
        ("dgrad", (y, winners, x[:, :3].copy()), ValueError, r"'dx' of shape .* must have shape \(2, 6, 8, 3\)"),
        ("dgrad", (y[..., ::-1], winners, x), ValueError, "'dy' .*must be C-contiguous"),
        ("dgrad", (y, None, x), TypeError, "'winners' must be an array in CPU memory"),
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
        simt.max_pool2d_direct_fprop(p, x, y, np.zeros(y.shape, np.uint8), 0)
