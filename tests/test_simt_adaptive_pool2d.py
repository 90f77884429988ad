"""Adaptive pooling on the CPU: every pass against the truth, in any order of threads, and what its bindings refuse."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from adaptive_pool2d_cases import EVEN, UNEVEN, Case, values
from kernel_checks import ORDERS, Memory, Planted, askew, sample
from op_checks import NCHW, compare, draw, nhwc

from gpucnn.ops.compiled import FLOATS
from gpucnn.reference.adaptive_pool2d import AdaptivePool2dProblem
from gpucnn.testing import assert_equal, naive

WIDE: list[Case] = [  # packs of 16 bytes: 4 float32, 8 of 16 bits, or of maxima two channels
    (2, 8, 7, 5, 4, 3),
    (1, 16, 5, 6, 7, 4),
    (1, 12, 9, 4, 2, 3),
    (1, 130, 5, 3, 2, 2),
    (0, 8, 5, 5, 2, 2),
    (1, 8, 5, 4, 0, 3),  # no windows
    (2, 0, 5, 4, 3, 3),  # no channels
]
CASES = UNEVEN + EVEN + WIDE
KINDS = ("ties", "special")


def problem_of(case: Case) -> AdaptivePool2dProblem:
    N, C, H, W, P, Q = case
    return AdaptivePool2dProblem(N, H, W, C, P, Q)


@functools.cache
def truth(case: Case, kind: str) -> dict[str, np.ndarray]:
    """In logical order, of images and of gradients: averages of small normal numbers, maxima of `kind`."""
    N, C, H, W, P, Q = case
    x, dy = draw("normal", (N, C, H, W)), draw("normal", (N, C, P, Q), 1)
    special, integers = values(kind, x.shape), draw("integers", dy.shape, 2)
    y, indices = naive.adaptive_max_pool2d(special, (P, Q))
    return {
        **{"x": x, "dy": dy, "special": special, "integers": integers},
        **{"average": naive.adaptive_avg_pool2d(x, (P, Q)), "d_average": naive.adaptive_avg_pool2d_grad(dy, x.shape)},
        **{"max": y, "indices": indices, "d_max": naive.max_pool2d_grad(integers, indices, x.shape)},
    }


def check(module: Any, case: Case, kind: str, dtype: str) -> None:
    """Every pass: nothing unwritten, nothing else written, every element right; maxima exactly."""
    __tracebackhide__ = True
    t, p, memory, call = truth(case, kind), problem_of(case), Memory(), f"{case} {kind} {dtype}"
    given = {name: memory.given(name, t[name], dtype) for name in ("x", "dy", "special", "integers")}
    places = memory.given("given indices", t["indices"], np.int64)
    found = {name: memory.wanted(name, given["dy"].shape, dtype) for name in ("average", "max")}
    found |= {name: memory.wanted(name, given["x"].shape, dtype) for name in ("d_average", "d_max")}
    found["indices"] = memory.wanted("indices", places.shape, np.int64)
    module.adaptive_avg_pool2d_fprop(p, dtype, given["x"], found["average"], 0)
    module.adaptive_avg_pool2d_dgrad(p, dtype, given["dy"], found["d_average"], 0)
    module.adaptive_max_pool2d_fprop(p, dtype, given["special"], found["max"], found["indices"], 0)
    module.adaptive_max_pool2d_dgrad(p, dtype, given["integers"], places, found["d_max"], 0)
    memory.check(call)
    for name, array in found.items():
        expected = t[name]
        if "average" in name:
            compare(array.transpose(NCHW), expected, max(1, p.H * p.W), f"{call}: {name}")
        else:
            assert_equal(
                array.transpose(NCHW), expected.astype(array.dtype), signed_zeros=False, name=f"{call}: {name}"
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_pass(simt: ModuleType, order: str, kind: str) -> None:
    simt.set_order(order)
    start = ORDERS.index(order) + KINDS.index(kind)
    for number, case in enumerate(sample(simt.flavour, CASES), start):
        check(simt, case, kind, FLOATS[number % 3])


@pytest.mark.parametrize("dtype", FLOATS)
def test_packs_of_channels(simt: ModuleType, dtype: str) -> None:
    for case in WIDE:
        check(simt, case, "ties", dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_that_is_not_aligned_to_16_bytes_takes_the_narrow_path(simt: ModuleType, dtype: str) -> None:
    case = WIDE[0]
    t, p = truth(case, "ties"), problem_of(case)
    x, dy = askew(nhwc(t["special"], dtype)), askew(nhwc(t["integers"], dtype))
    indices = askew(nhwc(t["indices"], np.int64))
    y, dx, places = askew(np.zeros_like(dy)), askew(np.zeros_like(x)), askew(np.zeros_like(indices))
    average, d_average = askew(np.zeros_like(dy)), askew(np.zeros_like(x))
    simt.adaptive_max_pool2d_fprop(p, dtype, x, y, places, 0)
    simt.adaptive_max_pool2d_dgrad(p, dtype, dy, indices, dx, 0)
    simt.adaptive_avg_pool2d_fprop(p, dtype, nhwc(t["x"], dtype), average, 0)
    simt.adaptive_avg_pool2d_dgrad(p, dtype, nhwc(t["dy"], dtype), d_average, 0)
    for name, array in {"max": y, "d_max": dx, "indices": places}.items():
        assert_equal(array.transpose(NCHW), t[name].astype(array.dtype), signed_zeros=False, name=name)
    for name, array in {"average": average, "d_average": d_average}.items():
        compare(array.transpose(NCHW), t[name], 35, name)
    for array in (y, dx, places, average, d_average):
        assert array.base is not None
        assert np.count_nonzero(array.base) == np.count_nonzero(array)


def test_sizes_of_which_the_products_are_beyond_32_bits(simt: ModuleType) -> None:
    """The bounds of windows of a long image: H * P is 2^33."""
    H, P = (1 << 17) + 1, 1 << 16
    x = np.arange(H, dtype=np.float32).reshape(1, H, 1, 1)
    y, indices = np.empty((1, P, 1, 1), np.float32), np.empty((1, P, 1, 1), np.int64)
    simt.adaptive_max_pool2d_fprop(AdaptivePool2dProblem(1, H, 1, 1, P, 1), "float32", x, y, indices, 0)
    last = -(-np.arange(1, P + 1) * H // P) - 1
    assert_equal(indices.ravel(), last)
    assert_equal(y.ravel(), last.astype(np.float32))


WRONG: dict[str, Any] = {
    "adaptive_avg_pool2d_fprop": lambda run, p, dtype, x, y, s: (run(p, dtype, x, y, s), y[:, -1].fill(0)),
    "adaptive_avg_pool2d_dgrad": lambda run, p, dtype, dy, dx, s: (run(p, dtype, dy, dx, s), dx[..., -1].fill(0)),
    "adaptive_max_pool2d_fprop": lambda run, p, dtype, x, y, indices, s: (
        run(p, dtype, x, y, indices, s),
        np.copyto(indices, indices % p.W * p.H + indices // p.W),
    ),
    "adaptive_max_pool2d_dgrad": lambda run, p, dtype, dy, indices, dx, s: (
        run(p, dtype, dy, indices, dx, s),
        dx.reshape(-1)[-1:].fill(math.nan),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    check(simt, WIDE[0], "ties", "float32")
    with pytest.raises(AssertionError, match="elements are wrong"):
        check(Planted(simt, **{wrong: WRONG[wrong]}), WIDE[0], "ties", "float32")


def test_what_does_not_fit_is_refused_and_nothing_is_written(simt: ModuleType) -> None:
    p = AdaptivePool2dProblem(2, 5, 7, 3, 2, 3)
    x, y = np.zeros((2, 5, 7, 3), np.float32), np.full((2, 2, 3, 3), 7, np.float32)
    indices, f32 = np.zeros(y.shape, np.int64), "float32"
    calls: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
        ("avg_pool2d_fprop", (p, f32, x[:1], y), ValueError, r"'x' .*\(N,H,W,C\)"),
        ("avg_pool2d_fprop", (p, f32, x, x[:, :2, :3]), ValueError, "'y' .*C-contiguous"),
        ("avg_pool2d_fprop", (p, "float64", x, y), ValueError, "dtype must be float32, float16 or bfloat16"),
        ("avg_pool2d_fprop", (replace(p, H=0), f32, x, y), ValueError, r"H must be in \[1, 2\^31\)"),
        ("avg_pool2d_fprop", (replace(p, P=-1), f32, x, y), ValueError, r"P must be in \[0, 2\^31\)"),
        ("avg_pool2d_dgrad", (p, "float16", y, x), TypeError, "'dy' .*must be float16"),
        ("avg_pool2d_dgrad", (replace(p, N=1 << 30, C=1 << 10), f32, y, x), ValueError, r"more than 2\^38 elements"),
        ("max_pool2d_fprop", (p, f32, x, y, indices.astype(np.int32)), TypeError, "'indices' .*must be int64"),
        ("max_pool2d_fprop", (p, f32, x, x.reshape(-1)[:36].reshape(y.shape), indices), ValueError, "overlap"),
        ("max_pool2d_dgrad", (p, f32, y, indices[:1], x), ValueError, r"'indices' .*\(N,P,Q,C\)"),
    ]
    for name, arguments, error, message in calls:
        with pytest.raises(error, match=f"adaptive_{name[:3]}_pool2d: .*{message}"):
            getattr(simt, f"adaptive_{name}")(*arguments, 0)
        assert (y == 7).all(), message
        assert not x.any(), message
