"""The grouped convolution on the CPU: every pass against the truth, in any order of threads, for one group too."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conv2d_checks import DTYPES, Truth, check_passes, problem_of, results
from kernel_checks import ORDERS, Planted, sample
from op_checks import NCHW, SEED, compare

from gpucnn.problem import conv2d_problem
from gpucnn.testing import ConvCase, conv_cases

KERNEL = "grouped"
PASSES = ("y", "dx", "dw")

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

truth = functools.cache(Truth)
check = functools.partial(check_passes, KERNEL, PASSES, truth)
passes = functools.partial(results, KERNEL)


@pytest.mark.parametrize("order", ORDERS)
def test_every_pass_is_exact_on_small_integers(simt: ModuleType, order: str) -> None:
    """Over the orders each case meets each dtype, with ReLU and without."""
    simt.set_order(order)
    for number, case in enumerate(sample(simt.flavour, CASES), ORDERS.index(order)):
        check(simt, case, "integers", [*DTYPES][number % 3], relu=number % 2 == 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pass_rounds_no_more_than_it_must(simt: ModuleType, dtype: str) -> None:
    for number, case in enumerate(sample(simt.flavour, CASES[[*DTYPES].index(dtype) :: 3])):
        check(simt, case, "normal", dtype, relu=number % 2 == 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0, 1])
def test_packs_and_single_elements_give_the_same_bits(simt: ModuleType, dtype: str, offset: int) -> None:
    """Arrays off 16 bytes take the narrow path of the same kernel."""
    for case in (FIXED[0], FIXED[2], FIXED[4], FIXED[7]):
        t, p = truth(case, "normal", dtype), problem_of(case)
        aligned = passes(simt, p, t, dtype=dtype, passes=PASSES)
        moved = passes(simt, p, t, dtype=dtype, passes=PASSES, offset=offset)
        for name in PASSES:
            assert moved[name].tobytes() == aligned[name].tobytes(), (case, name)


def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType) -> None:
    split = [case for case in FIXED if simt.conv2d_grouped_wgrad_splits(problem_of(case)) > 1]
    assert len(split) >= 2
    for case in sample(simt.flavour, [*split, *FIXED[:4]]):
        seen = set()
        for order in (*ORDERS, "rand:8", "fwd"):
            simt.set_order(order)
            found = passes(simt, problem_of(case), truth(case, "normal"), passes=PASSES)
            seen.add(tuple(found[name].tobytes() for name in PASSES))
        assert len(seen) == 1, case


def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType) -> None:
    narrow = ConvCase(33, 12, 5, 4, 12, 3, 3, padding=(1, 1), groups=3)
    wide = ConvCase(5, 80, 6, 5, 80, 3, 3, padding=(1, 1), groups=2)  # more channels than a strip
    for case in sample(simt.flavour, [narrow, wide]):
        together, alone = truth(case, "normal"), replace(case, N=1)
        batch = passes(simt, problem_of(case), together, passes=("y", "dx"))
        for image in (0, case.N // 2, case.N - 1):
            one = Truth.__new__(Truth)
            one.x, one.dy = together.x[image : image + 1], together.dy[image : image + 1]
            one.w, one.bias = together.w, together.bias
            found = passes(simt, problem_of(alone), one, passes=("y", "dx"))
            for name in ("y", "dx"):
                assert found[name].tobytes() == batch[name][image].tobytes(), (case, name, image)


def test_a_weight_gradient_heeds_no_window_that_is_not_there(simt: ModuleType) -> None:
    """The last row and column of an image lie under no window, and beyond the windows of a tile."""
    case = ConvCase(1, 8, 8, 8, 8, 2, 2, stride=(2, 2), groups=2)
    t, p = Truth(case, "normal"), replace(problem_of(case), P=3, Q=3)
    t.dy = t.dy[:, :, :3, :3]
    clean = passes(simt, p, t, passes=("dw",))["dw"]
    t.x[:, :, 6:], t.x[:, :, :, 6:] = np.inf, np.nan
    assert passes(simt, p, t, passes=("dw",))["dw"].tobytes() == clean.tobytes()


@pytest.mark.parametrize("kernel", [(2, 4), (4, 3)])
def test_padding_may_be_longer_at_the_end(simt: ModuleType, kernel: tuple[int, int]) -> None:
    case = ConvCase(2, 8, 6, 7, 8, *kernel, groups=2)
    p = conv2d_problem(case.x_shape, case.weight_shape, 1, "same", 1, 2)
    (top, bottom), (left, right) = zip(p.padding, p.padding_after, strict=True)
    padded = replace(case, H=top + 6 + bottom, W=left + 7 + right)
    inner = (..., slice(top, top + 6), slice(left, left + 7))
    t = Truth(padded, "integers")
    image = t.x[inner].copy()
    t.x[...] = 0
    t.x[inner] = image
    t.refresh(padded)
    t.x, t.dx = t.x[inner], t.dx[inner]
    for name, found in passes(simt, p, t, passes=PASSES).items():
        compare(found.transpose(NCHW), getattr(t, name), 1, name, exact=True)


def test_an_infinity_stays_in_its_group_and_windows(simt: ModuleType) -> None:
    case = ConvCase(1, 16, 9, 9, 16, 3, 3, stride=(2, 2), groups=4)
    t, p = Truth(case, "normal"), problem_of(case)
    clean = passes(simt, p, t, passes=("y",))["y"]
    t.x[0, 5, 4, 5] = np.nan  # under the windows of rows 1 and 2, and of column 2
    found = passes(simt, p, t, passes=("y",))["y"]
    assert np.isnan(found[0, 1:3, 2, 4:8]).all()
    found[0, 1:3, 2, 4:8] = clean[0, 1:3, 2, 4:8]
    assert found.tobytes() == clean.tobytes()


# ---------------------------------------------------------------------------------------------- what is not accepted


def test_what_does_not_fit_shared_memory_is_refused(simt: ModuleType) -> None:
    p = conv2d_problem((1, 4, 300, 300), (4, 2, 2, 2), 1, 0, 200, 2)
    t = Truth.__new__(Truth)
    t.x, t.w, t.bias, t.dy = np.zeros((1, 4, 300, 300)), np.zeros((4, 2, 2, 2)), None, np.zeros((1, 4, 100, 100))
    for name in PASSES:
        with pytest.raises(ValueError, match=r"conv2d: a window's cells .*do not fit a block's shared memory"):
            passes(simt, p, t, passes=(name,))


def wrong_problem(**fields: Any) -> Any:
    return lambda run, p, *rest: run(replace(p, **fields), *rest)


def nudged(run: Any, *arguments: Any) -> None:
    run(*arguments)
    output = arguments[5 if len(arguments) == 8 else 4]
    output.reshape(-1)[np.abs(output).argmax()] *= 1.0001


WRONG = {
    "fprop: padding": {"conv2d_grouped_fprop": wrong_problem(padding=(1, 2))},
    "fprop: groups swapped": {
        "conv2d_grouped_fprop": lambda run, p, t, x, *rest: run(p, t, x[..., ::-1].copy(), *rest)
    },
    "fprop: no ReLU": {"conv2d_grouped_fprop": lambda run, *a: run(*a[:6], False, *a[7:])},
    "fprop: one element": {"conv2d_grouped_fprop": nudged},
    "dgrad: stride": {"conv2d_grouped_dgrad": wrong_problem(stride=(1, 1))},
    "dgrad: one element": {"conv2d_grouped_dgrad": nudged},
    "dgrad: not run": {"conv2d_grouped_dgrad": lambda run, *a: None},
    "wgrad: one split": {"conv2d_grouped_wgrad": lambda run, *a: (run(*a), np.copyto(a[4], a[5][0]))},
    "wgrad: one element": {"conv2d_grouped_wgrad": nudged},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = ConvCase(3, 8, 25, 13, 16, 3, 3, stride=(2, 1), padding=(1, 1), groups=2)
    check(simt, case, "normal", relu=True)
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check(Planted(simt, **WRONG[wrong]), case, "normal", relu=True)


@pytest.mark.parametrize("seed", range(2))
def test_workspace_is_bounded(simt: ModuleType, seed: int) -> None:
    rng = np.random.default_rng([SEED, seed])
    for _ in range(200):
        N, size, taps, groups, channels, filters = (int(2 ** rng.uniform(0, top)) for top in (8, 8, 3, 6, 7, 8))
        C, K, size = channels * groups, filters * groups, max(size, taps)
        p = conv2d_problem((N, C, size, size), (K, channels, taps, taps), 1, 0, 1, groups)
        splits, weights = simt.conv2d_grouped_wgrad_splits(p), K * channels * taps * taps
        assert splits == 1 or splits * weights * 4 <= 16 << 20, p
