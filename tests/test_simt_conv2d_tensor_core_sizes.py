"""Convolution on tensor cores where sizes or addresses are no multiples of 16 bytes: what comes element by element."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conv2d_checks import (
    DTYPES,
    WIDE,
    Kernel,
    Truth,
    after,
    logical,
    nudged,
    one_split,
    problem_of,
    truth_of,
    unwritten,
    without,
    wrong_problem,
)
from kernel_checks import ORDERS, Planted, sample
from op_checks import SEED, compare

from gpucnn.testing import ConvCase, conv_cases

KERNELS = [Kernel("tensor_core"), Kernel("split_tensor_core")]
DTYPES_OF = {"tensor_core": [*DTYPES], "split_tensor_core": ["float32"]}

ODD = [
    ConvCase(2, 3, 15, 14, 64, 7, 7, stride=(2, 2), padding=(3, 3)),  # a stem; windows of two images in a tile
    ConvCase(2, 1, 9, 8, 6, 5, 5),
    ConvCase(1, 1, 1, 1, 1, 1, 1),
    ConvCase(1, 5, 7, 7, 21, 3, 2, stride=(2, 3), padding=(1, 0), dilation=(2, 1)),
    ConvCase(3, 12, 6, 6, 20, 1, 1, stride=(2, 2)),  # classes that meet no tap: zeros
    ConvCase(1, 100, 5, 5, 70, 3, 3, padding=(1, 1)),  # a strip ends within a tap; filters beyond a tile
    ConvCase(1, 31, 12, 11, 33, 1, 1),  # windows beyond a tile; a strip that lacks one, and one that is one
    ConvCase(1, 33, 3, 3, 65, 2, 2, padding=(1, 1)),
    ConvCase(2, 20, 3, 3, 1000, 1, 1, bias=False),
    ConvCase(70, 21, 1, 1, 10, 1, 1),  # of a linear layer
    ConvCase(9, 7, 9, 8, 5, 2, 3, padding=(0, 1)),  # several parts of the weight gradient
    ConvCase(0, 3, 5, 5, 10, 3, 3),
]

SAMPLED = [case for case in conv_cases(SEED, 60, max_taps=128, max_products=60_000) if case.groups == 1]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", KERNELS, ids=DTYPES_OF)
def test_odd_sizes_are_exact_on_small_integers(simt: ModuleType, kernel: Kernel, order: str) -> None:
    """Over the orders each case meets each dtype, with ReLU and without."""
    simt.set_order(order)
    dtypes = DTYPES_OF[kernel.name]
    cases = [*ODD, *SAMPLED[ORDERS.index(order) :: len(ORDERS)]]
    for number, case in enumerate(sample(simt.flavour, cases), ORDERS.index(order)):
        kernel.check(simt, case, "integers", dtypes[number % len(dtypes)], relu=number % 2 == 1)


@pytest.mark.parametrize("kernel", KERNELS, ids=DTYPES_OF)
def test_odd_sizes_in_every_dtype(simt: ModuleType, kernel: Kernel) -> None:
    for dtype in DTYPES_OF[kernel.name]:
        kernel.check(simt, ODD[3], "integers", dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_rounded_no_more_than_they_must(simt: ModuleType, dtype: str) -> None:
    KERNELS[0].check_rounding(simt, dtype, [*ODD, *SAMPLED[::3]])


def test_split_float32_is_as_exact_as_float32(simt: ModuleType) -> None:
    KERNELS[1].check_rounding(simt, "float32", [*ODD, *SAMPLED[1::3]])


def test_of_numbers_of_11_bits_tf32_loses_nothing_but_what_the_unit_cuts_off(simt: ModuleType) -> None:
    for case in sample(simt.flavour, [*ODD, *SAMPLED[2::3]]):
        t, p = truth_of(case, "normal", "float16"), problem_of(case)
        terms = {"y": case.terms + 1, "dx": p.K * p.R * p.S, "dw": p.N * p.P * p.Q}
        for name, found in KERNELS[0].results(simt, p, t, f"{case}").items():
            compare(logical(found), getattr(t, name), terms[name], f"{case}: {name}")


@pytest.mark.parametrize("kernel", KERNELS, ids=DTYPES_OF)
def test_arrays_off_16_bytes_give_the_same_bits(simt: ModuleType, kernel: Kernel) -> None:
    """And so do the elements by which they come, where they could have come by 16 bytes."""
    for dtype in DTYPES_OF[kernel.name]:
        kernel.check_addresses(simt, dtype, sample(simt.flavour, [*WIDE, ODD[0], ODD[5]]))


@pytest.mark.parametrize("kernel", KERNELS, ids=DTYPES_OF)
def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType, kernel: Kernel) -> None:
    several = ODD[10]
    assert kernel.split(simt, [several])
    kernel.check_orders(simt, [several, ODD[0], ODD[7]])


def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType) -> None:
    for stride in ((1, 1), (2, 3)):
        KERNELS[0].check_single_images(simt, ConvCase(33, 3, 5, 4, 7, 3, 3, stride=stride, padding=(1, 1)))


def test_what_is_not_there_is_not_read(simt: ModuleType) -> None:
    """The last row and column lie under no window; a NaN stays in its windows and in its column."""
    for kernel in KERNELS:
        kernel.check_missing_windows(simt, ConvCase(2, 3, 7, 7, 5, 2, 2, stride=(2, 2), padding=(0, 0)))
        kernel.check_nan(simt, ConvCase(1, 5, 9, 9, 33, 3, 3, stride=(2, 2), bias=False), 3, slice(None))


def test_what_is_no_number_goes_through_the_split(simt: ModuleType) -> None:
    case = ConvCase(1, 3, 4, 4, 5, 1, 1, bias=False)
    for value in (np.inf, -np.inf, np.nan, float(np.finfo(np.float32).max), 2.0**-149):
        t = Truth(case, "integers")
        t.x[...], t.w[...] = 0, 0
        t.x[0, 2, 1, 2], t.w[4, 2] = value, 1
        found = KERNELS[1].results(simt, problem_of(case), t, passes=("y",))["y"]
        expected = np.zeros_like(found)
        expected[0, 1, 2, :] = value * 0
        expected[0, 1, 2, 4] = value
        np.testing.assert_allclose(found, expected, rtol=2.0**-22, atol=0)


# ------------------------------------------------------------------------------------- what must not pass unnoticed


def last_channel_missing(array: Any) -> None:
    array[..., -1] = 0


WRONG = {
    "fprop: padding": {"fprop": wrong_problem(padding=(3, 4))},
    "fprop: no bias": {"fprop": without(4, None)},
    "fprop: unwritten": {"fprop": after(unwritten, 5)},
    "dgrad: a channel": {"dgrad": after(last_channel_missing, 4)},
    "wgrad: padding": {"wgrad": wrong_problem(padding=(3, 4))},
    "wgrad: one part": {"wgrad": one_split(4)},
    "wgrad: one element": {"wgrad": after(nudged, 4)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = replace(ODD[0], N=10, K=9)
    KERNELS[1].check(simt, case, "normal")
    planted = {f"conv2d_split_tensor_core_{name}": change for name, change in WRONG[wrong].items()}
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        KERNELS[1].check(Planted(simt, **planted), case, "normal")
