"""Convolution in groups on tensor cores, on the CPU: several groups a tile, forward and both gradients."""

from __future__ import annotations

import re
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
    logical,
    nudged,
    one_split,
    problem_of,
    truth_of,
    unwritten,
    wrong_problem,
)
from kernel_checks import ORDERS, Planted, sample
from op_checks import SEED, compare

import gpucnn
from gpucnn.ops import conv2d as ops
from gpucnn.ops.registry import first_choice
from gpucnn.problem import conv2d_problem
from gpucnn.testing import ConvCase, conv_cases

KERNELS = [Kernel("tensor_core"), Kernel("split_tensor_core")]
KERNEL, SPLIT = KERNELS
DTYPES_OF = {"tensor_core": [*DTYPES], "split_tensor_core": ["float32"]}

FIXED = [
    ConvCase(2, 32, 7, 9, 32, 3, 3, padding=(1, 1), groups=8),  # 4 channels a group
    ConvCase(1, 72, 5, 6, 72, 3, 3, stride=(2, 2), padding=(1, 1), groups=9),  # 8; of the last tile one group exists
    ConvCase(1, 64, 4, 7, 64, 3, 3, stride=(2, 1), padding=(1, 1), groups=4),  # 16
    ConvCase(1, 64, 4, 4, 64, 3, 3, padding=(1, 1), groups=2),  # 32: a tile
    ConvCase(1, 144, 4, 4, 144, 3, 3, padding=(1, 1), groups=2),  # 72: several tiles of a group, the last one of 8
    ConvCase(1, 128, 3, 3, 128, 2, 2, padding=(1, 1), groups=2),  # 64
    ConvCase(3, 48, 9, 8, 80, 3, 2, stride=(2, 3), padding=(2, 0), dilation=(2, 1), groups=2),  # 24 and 40
    ConvCase(1, 24, 5, 5, 48, 1, 1, stride=(2, 2), groups=12),  # 2 and 4; classes without a tap
    ConvCase(1, 40, 4, 4, 24, 3, 3, padding=(1, 1), groups=8),  # 5 and 3: only all groups are whole units
    ConvCase(1, 24, 6, 6, 24, 3, 3, padding=(1, 1), groups=2),  # 12: two groups are
    ConvCase(2, 8, 20, 19, 8, 3, 3, padding=(1, 1), groups=4),  # several tiles of windows, several parts
    ConvCase(40, 16, 2, 2, 32, 2, 2, padding=(1, 1), groups=2),  # several images a tile
    ConvCase(1, 16, 3, 17, 16, 3, 3, padding=(1, 1), groups=16),  # of a channel each
    ConvCase(1, 80, 4, 4, 160, 3, 3, padding=(1, 1), groups=4),
    ConvCase(0, 16, 5, 5, 16, 3, 3, groups=2),
]

SAMPLED = [
    replace(
        case, C=-(-case.C // (8 * case.groups)) * 8 * case.groups, K=-(-case.K // (8 * case.groups)) * 8 * case.groups
    )
    for case in conv_cases(SEED, 80, max_taps=128, max_products=30_000)
    if case.groups > 1
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", KERNELS, ids=DTYPES_OF)
def test_groups_are_exact_on_small_integers(simt: ModuleType, kernel: Kernel, order: str) -> None:
    """Over the orders each case meets each dtype, with ReLU and without."""
    simt.set_order(order)
    dtypes, cases = DTYPES_OF[kernel.name], [*FIXED, *SAMPLED[ORDERS.index(order) :: len(ORDERS)]]
    for number, case in enumerate(sample(simt.flavour, cases), ORDERS.index(order)):
        kernel.check(simt, case, "integers", dtypes[number % len(dtypes)], relu=number % 2 == 1)


@pytest.mark.parametrize("kernel", KERNELS, ids=DTYPES_OF)
def test_groups_in_every_dtype(simt: ModuleType, kernel: Kernel) -> None:
    for dtype in DTYPES_OF[kernel.name]:
        for case in sample(simt.flavour, [FIXED[1], FIXED[6]]):
            kernel.check(simt, case, "integers", dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_rounded_no_more_than_they_must(simt: ModuleType, dtype: str) -> None:
    KERNEL.check_rounding(simt, dtype, [*FIXED, *SAMPLED[::2]])


def test_split_float32_is_as_exact_as_float32(simt: ModuleType) -> None:
    SPLIT.check_rounding(simt, "float32", [*FIXED, *SAMPLED[1::2]])


def test_of_numbers_of_11_bits_tf32_loses_nothing_but_what_the_unit_cuts_off(simt: ModuleType) -> None:
    for case in sample(simt.flavour, FIXED):
        t, p = truth_of(case, "normal", "float16"), problem_of(case)
        terms = {"y": case.terms + 1, "dx": p.K // p.groups * p.R * p.S, "dw": p.N * p.P * p.Q}
        for name, found in KERNEL.results(simt, p, t, f"{case}").items():
            compare(logical(found), getattr(t, name), terms[name], f"{case}: {name}")


@pytest.mark.parametrize("kernel", KERNELS, ids=DTYPES_OF)
def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType, kernel: Kernel) -> None:
    assert kernel.split(simt, [FIXED[10]])
    kernel.check_orders(simt, [FIXED[10], FIXED[1], FIXED[6]])


def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType) -> None:
    for stride in ((1, 1), (2, 3)):
        case = ConvCase(33, 24, 5, 4, 24, 3, 3, stride=stride, padding=(1, 1), groups=3)
        KERNEL.check_single_images(simt, case)


@pytest.mark.parametrize("size", [(2, 4), (4, 3)])
def test_padding_may_be_longer_at_the_end(simt: ModuleType, size: tuple[int, int]) -> None:
    KERNEL.check_longer_padding(simt, ConvCase(2, 16, 6, 7, 16, *size, groups=2))


def test_windows_that_are_not_there_are_not_read(simt: ModuleType) -> None:
    for kernel in KERNELS:
        kernel.check_missing_windows(simt, ConvCase(2, 16, 8, 8, 16, 2, 2, stride=(2, 2), groups=2))


def test_filters_may_begin_anywhere(simt: ModuleType) -> None:
    """Only what is read in units of 16 bytes has to be aligned: images."""
    case = FIXED[1]
    p, t = problem_of(case), truth_of(case, "integers")
    expected = KERNEL.results(simt, p, t, passes=("y",))["y"]
    w = np.concatenate([[0], t.w.transpose(0, 2, 3, 1).reshape(-1)]).astype(np.float32)[1:].reshape(72, 3, 3, 8)
    assert w.ctypes.data % 16
    x, y = np.ascontiguousarray(t.x.transpose(0, 2, 3, 1), np.float32), np.full_like(expected, np.nan)
    simt.conv2d_tensor_core_fprop(p, "float32", x, w, t.bias.astype(np.float32), y, False, 0)
    assert y.tobytes() == expected.tobytes()


# ------------------------------------------------------------------------------------------ what is no finite number


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_group(simt: ModuleType, dtype: str, value: float) -> None:
    """Where groups are merged it meets made-up zeros of the others."""
    case = ConvCase(1, 48, 5, 4, 48, 3, 3, stride=(2, 1), groups=6, bias=False)  # no zeros of a padding
    for kernel in KERNELS if dtype == "float32" else [KERNEL]:
        for place in ("x", "w", "dy"):
            t, p = Truth(case, "integers", dtype), problem_of(case)
            getattr(t, place)[(0, 13, 2, 1) if place == "x" else (13, 5, 0, 1) if place == "w" else (0, 13, 1, 1)] = (
                value
            )
            with np.errstate(invalid="ignore"):
                t.refresh(case)
            for name, found in kernel.results(simt, p, t, f"{case}", dtype=dtype).items():
                seen, expected = logical(found).astype(np.float64), getattr(t, name).astype(DTYPES[dtype])
                channels = slice(None) if name == "dw" else (slice(None), slice(8, 16))
                outside = np.delete(seen, np.s_[8:16], axis=0 if name == "dw" else 1)
                assert np.isfinite(outside).all(), (kernel.name, place, name)
                if (place, name) == ("w", "dx"):
                    continue  # zeros beyond the windows of dy meet it
                finite = np.isfinite(expected)
                np.testing.assert_array_equal(seen[finite], expected[finite].astype(np.float64), f"{place}: {name}")
                if place == {"y": "x", "dx": "dy", "dw": "x"}[name]:
                    assert not np.isfinite(seen[channels]).all()


# ------------------------------------------------------------------------------------- what must not pass unnoticed


def groups_swapped(array: Any) -> None:
    array[..., :16] = array[..., 15::-1].copy()


WRONG = {
    "fprop: padding": {"fprop": wrong_problem(padding=(0, 1))},
    "fprop: groups": {"fprop": after(groups_swapped, 5)},
    "dgrad: stride": {"dgrad": wrong_problem(stride=(1, 1))},
    "dgrad: unwritten": {"dgrad": after(unwritten, 4)},
    "wgrad: one part": {"wgrad": one_split(4)},
    "wgrad: one element": {"wgrad": after(nudged, 4)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = ConvCase(4, 16, 25, 13, 16, 3, 3, stride=(2, 1), padding=(1, 1), groups=2)
    SPLIT.check(simt, case, "normal")
    planted = {f"conv2d_split_tensor_core_{name}": change for name, change in WRONG[wrong].items()}
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        SPLIT.check(Planted(simt, **planted), case, "normal")


# ------------------------------------------------------------------------------------------ choices and what is refused


def test_channels_in_no_whole_units_are_refused(simt: ModuleType) -> None:
    for case in (ConvCase(1, 9, 5, 5, 12, 3, 3, groups=3), ConvCase(1, 12, 5, 5, 9, 3, 3, groups=3)):
        for name in KERNEL.passes:
            with pytest.raises(ValueError, match="needs channels that are multiples of 4 for groups, got 9"):
                KERNEL.results(simt, problem_of(case), truth_of(case, "normal"), passes=(name,))
    for name in KERNEL.passes:
        with pytest.raises(ValueError, match="needs images aligned to 16 bytes for groups"):
            KERNEL.results(simt, problem_of(FIXED[0]), truth_of(FIXED[0], "normal"), passes=(name,), offset=1)


def chosen(table: Any, each: int, dtype: str, precision: str = "highest", groups: int = 16) -> str:
    p = replace(problem_of(ConvCase(2, groups * each, 8, 8, groups * each, 3, 3, groups=groups)), precision=precision)
    found = first_choice(table.specs("simt"), p, np.empty(0, DTYPES[dtype]))
    assert found is not None
    return found.name


@pytest.mark.parametrize(
    ("table", "fewest"), [(ops.fprop, (4, 8, 32)), (ops.dgrad, (4, 8, 32)), (ops.wgrad, (8, 16, 64))]
)
def test_which_kernel_runs_groups(table: Any, fewest: tuple[int, ...]) -> None:
    """Tensor cores from so many channels a group on, in 16 bits, in TF32 and of float32 that is split."""
    asked = (("float16",), ("bfloat16",), ("float32", "high"), ("float32",))
    for options, least in zip(asked, (fewest[0], *fewest), strict=True):
        for each in (1, 2, 4, 8, 16, 32, 64):
            name = chosen(table, each, *options)
            expected = ("tensor_core", "tf32", "split_bf16") if each >= least else ("depthwise", "grouped")
            assert name in expected, (options, each, name)
    assert chosen(table, 7, "float16", groups=3) == "grouped"


def test_explain_says_how_groups_run() -> None:
    found = str(
        gpucnn.explain("conv2d", (2, 32, 8, 8), (32, 4, 3, 3), padding=1, groups=8, backend="simt", dtype="float16")
    )
    assert re.search(
        r"> tensor_core +runs: the first that can; groups in tiles of 32, [0-9.]+ us expected, [0-9.]+ us", found
    )
    assert re.search(r"  tensor_core +can, but slower: [0-9.]+ us expected, [0-9.]+ us in float32", found)  # wgrad


def test_the_workspace_of_a_weight_gradient_is_bounded(simt: ModuleType) -> None:
    rng = np.random.default_rng([SEED, 7])
    for _ in range(300):
        N, size, taps, groups, C, K = (int(2 ** rng.uniform(0, top)) for top in (8, 8, 3, 6, 7, 8))
        p = conv2d_problem(
            (N, groups * C, max(size, taps), max(size, taps)), (groups * K, C, taps, taps), 1, 0, 1, groups
        )
        parts = simt.conv2d_tensor_core_wgrad_splits(p)
        assert parts == 1 or parts * groups * K * C * taps * taps * 4 <= 64 << 20, p
