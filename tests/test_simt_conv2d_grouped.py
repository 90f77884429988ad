"""The grouped convolution on the CPU: every pass against the truth, in any order of threads, for one group too."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from conv2d_checks import DTYPES, Kernel, Truth, after, nudged, one_split, without, wrong_problem
from kernel_checks import ORDERS, Planted, sample
from op_checks import SEED

from gpucnn.problem import conv2d_problem
from gpucnn.testing import ConvCase, conv_cases

KERNEL = Kernel("grouped")

FIXED = [
    ConvCase(2, 32, 7, 9, 32, 3, 3, padding=(1, 1), groups=8),  # 4 channels a group: a whole bundle
    ConvCase(1, 36, 5, 6, 36, 3, 3, stride=(2, 2), padding=(1, 1), groups=9),  # and one more group
    ConvCase(1, 64, 6, 5, 64, 3, 3, padding=(1, 1), groups=8),  # 8 a group
    ConvCase(1, 64, 4, 7, 64, 3, 3, stride=(2, 1), padding=(1, 1), groups=4),  # 16
    ConvCase(1, 64, 4, 4, 64, 3, 3, padding=(1, 1), groups=2),  # 32
    ConvCase(1, 72, 4, 5, 72, 3, 3, padding=(1, 1), groups=2),  # 36: more than a strip, more than a block's quads
    ConvCase(2, 48, 6, 6, 80, 5, 5, padding=(2, 2), groups=2),  # AlexNet's second, halved
    ConvCase(2, 8, 9, 9, 16, 3, 3, stride=(2, 2), groups=4),  # 2 channels and 4 filters a group
    ConvCase(2, 16, 5, 5, 8, 1, 1, groups=4),  # 1x1
    ConvCase(2, 16, 7, 6, 8, 1, 1, stride=(2, 3), groups=2),  # phases without a tap
    ConvCase(1, 10, 12, 11, 14, 3, 2, stride=(3, 2), padding=(2, 1), dilation=(2, 3), groups=2),
    ConvCase(1, 12, 13, 10, 12, 3, 3, stride=(2, 2), padding=(2, 2), dilation=(2, 2), groups=3),  # steps with a divisor
    ConvCase(3, 8, 20, 19, 8, 3, 3, padding=(1, 1), groups=2),  # several tiles and splits
    ConvCase(1, 8, 3, 140, 8, 1, 7, padding=(0, 3), groups=2),
    ConvCase(1, 4, 33, 2, 4, 11, 1, stride=(4, 1), padding=(2, 0), groups=2),
    ConvCase(40, 8, 2, 2, 8, 2, 2, padding=(1, 1), groups=2),  # several images a tile
    ConvCase(2, 64, 9, 8, 3, 3, 3, padding=(1, 1)),  # of one group, as transposed stems are
    ConvCase(2, 3, 11, 12, 20, 7, 7, stride=(2, 2), padding=(3, 3)),
    ConvCase(1, 64, 3, 17, 64, 3, 3, padding=(1, 1), groups=16),  # runs of 8 positions, and one more
    ConvCase(2, 32, 9, 7, 32, 5, 3, stride=(2, 1), padding=(2, 0), dilation=(2, 1), groups=4),
    ConvCase(3, 128, 1, 2, 64, 2, 3, padding=(1, 2), groups=2),
    ConvCase(0, 8, 5, 5, 8, 3, 3, groups=2),
]
CASES = [*FIXED, *(case for case in conv_cases(SEED, 60, max_taps=512, max_products=100_000) if case.groups > 1)]


@pytest.mark.parametrize("order", ORDERS)
def test_every_pass_is_exact_on_small_integers(simt: ModuleType, order: str) -> None:
    KERNEL.check_integers(simt, order, CASES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pass_rounds_no_more_than_it_must(simt: ModuleType, dtype: str) -> None:
    KERNEL.check_rounding(simt, dtype, CASES[[*DTYPES].index(dtype) :: 3])


@pytest.mark.parametrize("dtype", DTYPES)
def test_packs_and_single_elements_give_the_same_bits(simt: ModuleType, dtype: str) -> None:
    KERNEL.check_addresses(simt, dtype, (FIXED[0], FIXED[2], FIXED[4], FIXED[7]))


def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType) -> None:
    split = KERNEL.split(simt, FIXED)
    assert len(split) >= 2
    KERNEL.check_orders(simt, [*split, *FIXED[:4]])


def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType) -> None:
    narrow = ConvCase(33, 12, 5, 4, 12, 3, 3, padding=(1, 1), groups=3)
    wide = ConvCase(5, 80, 6, 5, 80, 3, 3, padding=(1, 1), groups=2)  # more channels than a strip
    for case in sample(simt.flavour, [narrow, wide]):
        KERNEL.check_single_images(simt, case)


def test_a_weight_gradient_heeds_no_window_that_is_not_there(simt: ModuleType) -> None:
    KERNEL.check_missing_windows(simt, ConvCase(1, 8, 8, 8, 8, 2, 2, stride=(2, 2), groups=2))


@pytest.mark.parametrize("kernel", [(2, 4), (4, 3)])
def test_padding_may_be_longer_at_the_end(simt: ModuleType, kernel: tuple[int, int]) -> None:
    KERNEL.check_longer_padding(simt, ConvCase(2, 8, 6, 7, 8, *kernel, groups=2))


def test_a_nan_stays_in_its_group_and_windows(simt: ModuleType) -> None:
    KERNEL.check_nan(simt, ConvCase(1, 16, 9, 9, 16, 3, 3, stride=(2, 2), groups=4), 5, slice(4, 8))


# ---------------------------------------------------------------------------------------------- what is not accepted


def test_what_does_not_fit_shared_memory_is_refused(simt: ModuleType) -> None:
    p = conv2d_problem((1, 4, 300, 300), (4, 2, 2, 2), 1, 0, 200, 2)
    t = Truth.of(np.zeros((1, 4, 300, 300)), np.zeros((4, 2, 2, 2)), None, np.zeros((1, 4, 100, 100)))
    for name in KERNEL.passes:
        with pytest.raises(ValueError, match=r"conv2d: a window's cells .*do not fit a block's shared memory"):
            KERNEL.results(simt, p, t, passes=(name,))


WRONG = {
    "fprop: padding": {"conv2d_grouped_fprop": wrong_problem(padding=(1, 2))},
    "fprop: groups swapped": {
        "conv2d_grouped_fprop": lambda run, p, t, x, *rest: run(p, t, x[..., ::-1].copy(), *rest)
    },
    "fprop: no ReLU": {"conv2d_grouped_fprop": without(6, False)},
    "fprop: one element": {"conv2d_grouped_fprop": after(nudged, 5)},
    "dgrad: stride": {"conv2d_grouped_dgrad": wrong_problem(stride=(1, 1))},
    "dgrad: one element": {"conv2d_grouped_dgrad": after(nudged, 4)},
    "dgrad: not run": {"conv2d_grouped_dgrad": lambda run, *a: None},
    "wgrad: one split": {"conv2d_grouped_wgrad": one_split(4)},
    "wgrad: one element": {"conv2d_grouped_wgrad": after(nudged, 4)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = ConvCase(3, 8, 25, 13, 16, 3, 3, stride=(2, 1), padding=(1, 1), groups=2)
    KERNEL.check(simt, case, "normal", relu=True)
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        KERNEL.check(Planted(simt, **WRONG[wrong]), case, "normal", relu=True)


@pytest.mark.parametrize("seed", range(2))
def test_workspace_is_bounded(simt: ModuleType, seed: int) -> None:
    rng = np.random.default_rng([SEED, seed])
    for _ in range(200):
        N, size, taps, groups, channels, filters = (int(2 ** rng.uniform(0, top)) for top in (8, 8, 3, 6, 7, 8))
        C, K, size = channels * groups, filters * groups, max(size, taps)
        p = conv2d_problem((N, C, size, size), (K, channels, taps, taps), 1, 0, 1, groups)
        splits, weights = simt.conv2d_grouped_wgrad_splits(p), K * channels * taps * taps
        assert splits == 1 or splits * weights * 4 <= 16 << 20, p
