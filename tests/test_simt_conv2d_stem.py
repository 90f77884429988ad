"""The stem convolution on the CPU, of images of 1 to 4 channels: every pass against the truth, in any thread order."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from conv2d_checks import Kernel, Truth, after, nudged, one_split, problem_of, without, wrong_problem
from kernel_checks import ORDERS, Planted
from op_checks import SEED

from gpucnn.ops import conv2d as ops
from gpucnn.problem import conv2d_problem
from gpucnn.testing import ConvCase, conv_cases

KERNEL = Kernel("stem")

FIXED = [
    ConvCase(2, 3, 19, 24, 64, 7, 7, stride=(2, 2), padding=(3, 3)),  # ResNet's: a whole chunk of filters
    ConvCase(1, 3, 9, 12, 65, 3, 3, padding=(1, 1)),  # VGG's, and one filter more
    ConvCase(3, 1, 28, 28, 6, 5, 5, padding=(2, 2)),  # LeNet's: several images a tile, splits
    ConvCase(1, 3, 23, 20, 48, 11, 11, stride=(4, 4), padding=(2, 2)),  # AlexNet's, halved: several shares of weights
    ConvCase(1, 3, 31, 32, 96, 11, 11, stride=(4, 4)),  # fewer filters a block than lanes
    ConvCase(2, 4, 7, 6, 20, 3, 3, stride=(2, 1), padding=(1, 1)),
    ConvCase(2, 2, 8, 8, 12, 3, 3, stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
    ConvCase(1, 1, 5, 7, 1, 1, 1),
    ConvCase(1, 1, 1, 1, 9, 1, 1),
    ConvCase(2, 3, 12, 5, 7, 1, 3, stride=(3, 2), padding=(0, 2)),
    ConvCase(1, 1, 3, 200, 8, 3, 15, padding=(1, 7)),
    ConvCase(40, 1, 3, 4, 8, 2, 2, padding=(1, 1)),
    ConvCase(0, 3, 5, 5, 8, 3, 3),
]


def is_stem(case: ConvCase) -> bool:
    return case.groups == 1 and case.C <= 4 and case.dilation[1] == 1


CASES = [*FIXED, *filter(is_stem, conv_cases(SEED, 200, max_taps=512, max_products=100_000))]


@pytest.mark.parametrize("order", ORDERS)
def test_every_pass_is_exact_on_small_integers(simt: ModuleType, order: str) -> None:
    KERNEL.check_integers(simt, order, CASES, ["float32"])


def test_every_pass_rounds_no_more_than_it_must(simt: ModuleType) -> None:
    KERNEL.check_rounding(simt, "float32", CASES)


def test_packs_and_single_elements_give_the_same_bits(simt: ModuleType) -> None:
    KERNEL.check_addresses(simt, "float32", (FIXED[0], FIXED[5], replace(FIXED[2], K=8)))


def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType) -> None:
    split = KERNEL.split(simt, FIXED)
    assert len(split) >= 2
    KERNEL.check_orders(simt, [*split, *FIXED[:4]])


def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType) -> None:
    KERNEL.check_single_images(simt, ConvCase(33, 3, 5, 4, 12, 3, 3, padding=(1, 1)))


def test_a_weight_gradient_heeds_no_window_that_is_not_there(simt: ModuleType) -> None:
    KERNEL.check_missing_windows(simt, ConvCase(1, 3, 8, 8, 8, 2, 2, stride=(2, 2)))


@pytest.mark.parametrize("kernel", [(2, 4), (4, 3)])
def test_padding_may_be_longer_at_the_end(simt: ModuleType, kernel: tuple[int, int]) -> None:
    KERNEL.check_longer_padding(simt, ConvCase(2, 3, 6, 7, 8, *kernel))


def test_a_nan_stays_in_its_windows(simt: ModuleType) -> None:
    KERNEL.check_nan(simt, ConvCase(1, 3, 9, 9, 16, 3, 3, stride=(2, 2)), 1, slice(None))


# ---------------------------------------------------------------------------------------------- what is not accepted


@pytest.mark.parametrize(
    "case",
    [
        ConvCase(1, 5, 6, 6, 4, 3, 3),
        ConvCase(1, 4, 6, 6, 4, 3, 3, groups=2),
        ConvCase(1, 3, 6, 6, 4, 3, 3, dilation=(1, 2)),
        ConvCase(1, 4, 20, 20, 1, 17, 17),
        ConvCase(1, 3, 2, 50, 1, 1, 43),
    ],
    ids=str,
)
def test_what_is_no_stem_is_refused(simt: ModuleType, case: ConvCase) -> None:
    t = Truth.of(np.zeros(case.x_shape), np.zeros(case.weight_shape), None, np.zeros(case.y_shape))
    for name in ("y", "dw"):
        with pytest.raises(ValueError, match="conv2d: a stem kernel needs 1 to 4 channels, one group"):
            KERNEL.results(simt, problem_of(case), t, passes=(name,))
    assert any(spec.name == "stem" and spec.supports(problem_of(case)) for spec in ops.fprop.specs("simt"))


@pytest.mark.parametrize("case", [ConvCase(1, 1, 65, 9, 1, 65, 9), ConvCase(1, 4, 65, 35, 9, 9, 28, dilation=(8, 1))])
def test_the_largest_stems_fit(simt: ModuleType, case: ConvCase) -> None:
    assert not any(spec.name == "stem" and spec.supports(problem_of(case)) for spec in ops.fprop.specs("simt"))
    KERNEL.check(simt, case, "integers", passes=("y", "dw"))


WRONG = {
    "fprop: padding": {"conv2d_stem_fprop": wrong_problem(padding=(1, 2))},
    "fprop: colours swapped": {"conv2d_stem_fprop": lambda run, p, t, x, *rest: run(p, t, x[..., ::-1].copy(), *rest)},
    "fprop: no ReLU": {"conv2d_stem_fprop": without(6, False)},
    "fprop: one element": {"conv2d_stem_fprop": after(nudged, 5)},
    "dgrad: stride": {"conv2d_stem_dgrad": wrong_problem(stride=(1, 1))},
    "dgrad: one element": {"conv2d_stem_dgrad": after(nudged, 4)},
    "dgrad: not run": {"conv2d_stem_dgrad": lambda run, *a: None},
    "wgrad: one split": {"conv2d_stem_wgrad": one_split(4)},
    "wgrad: one element": {"conv2d_stem_wgrad": after(nudged, 4)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = ConvCase(3, 3, 25, 13, 16, 3, 3, stride=(2, 1), padding=(1, 1))
    KERNEL.check(simt, case, "normal", relu=True)
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        KERNEL.check(Planted(simt, **WRONG[wrong]), case, "normal", relu=True)


@pytest.mark.parametrize("seed", range(2))
def test_workspace_is_bounded(simt: ModuleType, seed: int) -> None:
    rng = np.random.default_rng([SEED, seed])
    for _ in range(200):
        N, size, taps, C, K = (int(2 ** rng.uniform(0, top)) for top in (8, 8, 3, 2.3, 10))
        p = conv2d_problem((N, C, max(size, taps), max(size, taps)), (K, C, taps, taps), 1, 0, 1, 1)
        splits = simt.conv2d_stem_wgrad_splits(p)
        assert splits == 1 or splits * K * C * taps * taps * 4 <= 16 << 20, p
