"""The depthwise convolution on the CPU: every pass and configuration against the truth, in any order of threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conv2d_checks import (
    DTYPES,
    Kernel,
    Truth,
    after,
    nudged,
    one_split,
    problem_of,
    truth_of,
    unwritten,
    without,
    wrong_problem,
)
from kernel_checks import ORDERS, Planted
from op_checks import NCHW, NHWC, SEED, compare

from gpucnn.ops import conv2d
from gpucnn.problem import conv2d_problem
from gpucnn.testing import ConvCase
from gpucnn.testing.pairwise import pairwise

KERNEL = Kernel("depthwise")


def case_of(
    N: int, C: int, H: int, W: int, R: int, S: int, stride: Any = (1, 1), padding: Any = (0, 0), **options: Any
) -> ConvCase:
    return ConvCase(N, C, H, W, C, R, S, stride, padding, groups=C, **options)


FIXED = [
    *(case_of(1, 8, 9, 10, taps, taps, (u, u), (taps // 2, taps // 2)) for taps in (3, 5, 7) for u in (1, 2)),
    case_of(2, 16, 7, 7, 3, 3, padding=(1, 1)),  # as in MobileNet's last layers
    case_of(1, 24, 8, 8, 3, 3, (2, 2), (1, 1), bias=False),  # three vectors of half: slabs of one
    case_of(1, 136, 3, 3, 3, 3, padding=(1, 1)),  # 17 vectors of half, 34 of float: slabs of 1, and of 8 with some idle
    case_of(1, 144, 4, 3, 3, 3, (2, 2), (1, 1)),
    case_of(2, 8, 1, 1, 3, 3, padding=(1, 1)),  # one pixel under the filters' middle
    case_of(1, 8, 2, 1, 3, 7, padding=(1, 3)),
    case_of(1, 8, 33, 31, 3, 3, (1, 2), (1, 0)),  # across blocks, different strides
    case_of(1, 4, 31, 33, 5, 3, (2, 1), (2, 1)),
    case_of(1, 8, 8, 17, 2, 3, (3, 2), (1, 1)),  # rows that no window reaches
    case_of(1, 8, 9, 9, 3, 3, padding=(4, 5)),  # windows that lie in the padding alone
    case_of(1, 8, 9, 8, 3, 5, (2, 2), (3, 7)),
    case_of(1, 8, 15, 6, 3, 3, padding=(2, 0), dilation=(3, 1)),  # dilated downwards alone
    case_of(1, 8, 13, 6, 7, 3, (2, 2), (4, 1), dilation=(2, 1)),
    case_of(1, 8, 12, 3, 8, 3, padding=(2, 1)),  # from here on generic: more rows of taps
    case_of(1, 8, 9, 9, 3, 3, padding=(2, 2), dilation=(2, 2)),
    case_of(2, 8, 9, 9, 3, 3, (3, 3)),
    case_of(2, 8, 6, 5, 2, 2, (2, 1), (1, 1)),
    case_of(1, 8, 6, 5, 1, 1),
    case_of(1, 16, 18, 17, 16, 17, padding=(3, 0)),  # more taps than threads
    case_of(2, 3, 9, 9, 3, 3, padding=(1, 1)),  # channels that are no whole vectors
    case_of(1, 33, 5, 6, 3, 3, (2, 2), (1, 1)),
    case_of(1, 12, 7, 6, 5, 5, padding=(2, 2)),  # vectors of float, none of half
    case_of(1, 1, 6, 5, 3, 3, padding=(1, 1)),
    case_of(3, 8, 20, 19, 3, 3, padding=(1, 1)),  # several splits, the last of another length
    case_of(3, 2, 20, 38, 3, 3, (1, 2), (1, 1)),
    case_of(2, 4, 26, 25, 2, 2),
    case_of(0, 8, 5, 5, 3, 3),
]


def sampled(seed: int) -> Iterator[ConvCase]:
    factors: dict[str, Any] = {
        "N": (1, 2, 3),
        "C": (3, 4, 8, 12, 16, 20, 40, 72),
        "H": (1, 2, 7, 8, 13),
        "W": (1, 2, 7, 9, 16, 31),
        "R": (1, 3, 5, 7),
        "S": (2, 3, 5, 7),
        "u": (1, 2, 3),
        "v": (1, 2),
        "top": (0, 1, 2, 3),
        "left": (0, 1, 2, 3),
        "d": (1, 2),
        "e": (1, 1, 2),
        "bias": (True, False),
    }

    def fits(f: dict[str, Any]) -> bool:
        high, wide = f["d"] * (f["R"] - 1) + 1, f["e"] * (f["S"] - 1) + 1
        cells = f["N"] * f["C"] * f["H"] * f["W"] * f["R"] * f["S"]
        return f["H"] + 2 * f["top"] >= high and f["W"] + 2 * f["left"] >= wide and cells <= 60_000

    for f in pairwise(factors, seed, fits):
        yield case_of(
            *(f[name] for name in ("N", "C", "H", "W", "R", "S")),
            (f["u"], f["v"]),
            (f["top"], f["left"]),
            dilation=(f["d"], f["e"]),
            bias=f["bias"],
        )


CASES = [*FIXED, *(case for number in range(3) for case in sampled(SEED + number))]


@pytest.mark.parametrize("order", ORDERS)
def test_every_pass_is_exact_on_small_integers(simt: ModuleType, order: str) -> None:
    KERNEL.check_integers(simt, order, CASES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pass_rounds_no_more_than_it_must(simt: ModuleType, dtype: str) -> None:
    KERNEL.check_rounding(simt, dtype, [*FIXED, *CASES[len(FIXED) + [*DTYPES].index(dtype) :: 3]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("taps", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_each_length_of_rows_has_kernels_of_its_own(simt: ModuleType, dtype: str, taps: int, stride: int) -> None:
    """And gives what the kernels for any filter give, which take the same arrays an element further on in memory."""
    case = case_of(1, 16, 8, 11, taps, taps, (stride, stride), (taps // 2, taps // 2))
    p = problem_of(case)
    for kind in ("integers", "normal"):
        t = truth_of(case, kind, dtype)
        simt.launched()
        fast = KERNEL.results(simt, p, t, dtype=dtype)
        own = [name for _, name, *_ in simt.launched()]
        generic = KERNEL.results(simt, p, t, dtype=dtype, offset=1)
        other = [name for _, name, *_ in simt.launched()]
        assert not set(own) & set(other), (own, other)
        for name in KERNEL.passes:
            if kind == "integers":
                assert fast[name].tobytes() == generic[name].tobytes(), name
            compare(generic[name].transpose(NCHW), getattr(t, name), 200, f"{name} {dtype}")


def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType) -> None:
    split = KERNEL.split(simt, FIXED)
    assert len(split) >= 3
    KERNEL.check_orders(simt, [*split, *FIXED[:6]])


def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType) -> None:
    for case in (case_of(33, 8, 5, 4, 3, 3, padding=(1, 1)), case_of(33, 5, 5, 4, 3, 3, (2, 2))):
        KERNEL.check_single_images(simt, case)


@pytest.mark.parametrize("kernel", [(2, 5), (3, 4), (4, 7), (3, 3)])
def test_padding_may_be_longer_at_the_end(simt: ModuleType, kernel: tuple[int, int]) -> None:
    KERNEL.check_longer_padding(simt, case_of(2, 8, 6, 7, *kernel))


@pytest.mark.parametrize("stride", [1, 2])
def test_windows_that_are_not_there_take_part_in_nothing(simt: ModuleType, stride: int) -> None:
    """Fewer windows than would fit, as under a transposed convolution, and images that end beyond them."""
    case = case_of(1, 8, 10, 11, 3, 3, (stride, stride), (1, 1))
    t, whole = Truth(case, "integers"), problem_of(case)
    p = replace(whole, P=whole.P - 1, Q=whole.Q - 2)
    t.dy[:, :, p.P :] = t.dy[:, :, :, p.Q :] = 0
    t.refresh(case)
    t.y, t.dy = t.y[:, :, : p.P, : p.Q], t.dy[:, :, : p.P, : p.Q]
    for name, found in KERNEL.results(simt, p, t).items():
        compare(found.transpose(NCHW), getattr(t, name), 1, name, exact=True)


@pytest.mark.parametrize("C", [8, 5])
def test_an_infinity_or_nan_stays_in_its_windows(simt: ModuleType, C: int) -> None:
    case = case_of(1, C, 9, 12, 3, 3, (2, 2))
    t, p = Truth(case, "normal"), problem_of(case)
    clean = KERNEL.results(simt, p, t)
    t.x[0, 4, 4, 5] = np.nan  # under the windows of rows 1 and 2, and of column 2
    found = KERNEL.results(simt, p, t, passes=("y", "dw"))
    assert np.isnan(found["y"][0, 1:3, 2, 4]).all()
    found["y"][0, 1:3, 2, 4] = clean["y"][0, 1:3, 2, 4]
    assert found["y"].tobytes() == clean["y"].tobytes()
    assert np.isnan(found["dw"][4]).any()
    assert found["dw"][:4].tobytes() == clean["dw"][:4].tobytes()
    t.dy[0, 4, 1, 2] = np.inf  # windows of rows 2 to 4, columns 4 to 6
    found = KERNEL.results(simt, p, t, passes=("dx",))
    assert np.isinf(found["dx"][0, 2:5, 4:7, 4]).all()
    found["dx"][0, 2:5, 4:7, 4] = clean["dx"][0, 2:5, 4:7, 4]
    assert found["dx"].tobytes() == clean["dx"].tobytes()


# ------------------------------------------------------------------------------------- what must not pass unnoticed


WRONG = {
    "fprop: padding": {"conv2d_depthwise_fprop": wrong_problem(padding=(2, 1))},
    "fprop: not flipped": {"conv2d_depthwise_fprop": lambda run, p, t, x, w, *a: run(p, t, x, w[:, ::-1].copy(), *a)},
    "fprop: no bias": {"conv2d_depthwise_fprop": without(4, None)},
    "fprop: no ReLU": {"conv2d_depthwise_fprop": without(6, False)},
    "fprop: one element": {"conv2d_depthwise_fprop": after(nudged, 5)},
    "dgrad: padding": {"conv2d_depthwise_dgrad": wrong_problem(padding=(1, 2))},
    "dgrad: flipped": {"conv2d_depthwise_dgrad": lambda run, p, t, dy, w, *a: run(p, t, dy, w[:, ::-1].copy(), *a)},
    "dgrad: unwritten": {"conv2d_depthwise_dgrad": after(unwritten, 4)},
    "wgrad: padding": {"conv2d_depthwise_wgrad": wrong_problem(padding=(1, 2))},
    "wgrad: one split": {"conv2d_depthwise_wgrad": one_split(4)},
    "wgrad: one element": {"conv2d_depthwise_wgrad": after(nudged, 4)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = case_of(2, 8, 25, 23, 3, 3, padding=(1, 1))
    KERNEL.check(simt, case, "normal", relu=True)
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        KERNEL.check(Planted(simt, **WRONG[wrong]), case, "normal", relu=True)


# --------------------------------------------------------------------------------------------------- what it refuses


def test_what_is_not_depthwise_is_refused_in_both_places(simt: ModuleType) -> None:
    for fields in ({"groups": 2}, {"K": 16}, {"groups": 1}):
        p = replace(problem_of(case_of(1, 8, 5, 5, 3, 3)), **fields)
        x, w = np.zeros((1, 5, 5, 8), np.float32), np.zeros((p.K, 3, 3, 8 // p.groups), np.float32)
        y = np.full((1, 3, 3, p.K), 7, np.float32)
        with pytest.raises(ValueError, match="conv2d: a depthwise kernel needs groups=C and K=C, got groups="):
            simt.conv2d_depthwise_fprop(p, "float32", x, w, None, y, False, 0)
        with pytest.raises(ValueError, match="a depthwise kernel needs groups=C and K=C"):
            simt.conv2d_depthwise_dgrad(p, "float32", y, w, x.copy(), 0)
        with pytest.raises(ValueError, match="a depthwise kernel needs groups=C and K=C"):
            simt.conv2d_depthwise_wgrad_splits(p)
        assert (y == 7).all()
        for table, arrays in ((conv2d.fprop, (x, w, None)), (conv2d.dgrad, (y, w)), (conv2d.wgrad, (x, y))):
            with pytest.raises(
                ValueError, match=r"kernel 'depthwise' can't run this: needs groups=C of 2 or more and "
            ):
                table.pick(p, arrays[0], kernel="depthwise")


def test_depthwise_problems_run_on_it(simt: ModuleType) -> None:
    p = problem_of(case_of(1, 5, 5, 5, 2, 3, (3, 2)))
    x = np.zeros((1, 5, 5, 5), np.float32).transpose(NHWC)
    for table in (conv2d.fprop, conv2d.dgrad, conv2d.wgrad):
        assert table.pick(p, x).name == "depthwise"


@pytest.mark.parametrize("seed", range(2))
def test_workspace_is_bounded(simt: ModuleType, seed: int) -> None:
    """16 MiB at most, however large the problem; and splits of 512 positions or more."""
    rng = np.random.default_rng([SEED, seed])
    for _ in range(300):
        N, size, taps, C = (int(2 ** rng.uniform(0, top)) for top in (10, 8, 6, 12))
        size = max(size, taps)
        p = conv2d_problem((N, C, size, size), (C, 1, taps, taps), 1, 0, 1, C)
        splits = simt.conv2d_depthwise_wgrad_splits(p)
        assert splits == 1 or splits * C * taps * taps * 4 <= 16 << 20, p
        assert splits == 1 or (512 * splits <= N * p.P * p.Q and splits <= N * p.P), p
