"""The stem convolution on the CPU, of images of 1 to 4 channels: every pass against the truth, in any thread order."""

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

from gpucnn.ops import conv2d as ops
from gpucnn.problem import conv2d_problem
from gpucnn.testing import ConvCase, conv_cases

KERNEL = "stem"
PASSES = ("y", "dx", "dw")

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
assert len(CASES) > 20

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
    for case in (FIXED[0], FIXED[5], replace(FIXED[2], K=8)):
        t, p = truth(case, "normal", dtype), problem_of(case)
        aligned = passes(simt, p, t, dtype=dtype, passes=PASSES)
        moved = passes(simt, p, t, dtype=dtype, passes=PASSES, offset=offset)
        for name in PASSES:
            assert moved[name].tobytes() == aligned[name].tobytes(), (case, name)


def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType) -> None:
    split = [case for case in FIXED if simt.conv2d_stem_wgrad_splits(problem_of(case)) > 1]
    assert len(split) >= 2
    for case in sample(simt.flavour, [*split, *FIXED[:4]]):
        seen = set()
        for order in (*ORDERS, "rand:8", "fwd"):
            simt.set_order(order)
            found = passes(simt, problem_of(case), truth(case, "normal"), passes=PASSES)
            seen.add(tuple(found[name].tobytes() for name in PASSES))
        assert len(seen) == 1, case


def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType) -> None:
    case = ConvCase(33, 3, 5, 4, 12, 3, 3, padding=(1, 1))
    together, alone = truth(case, "normal"), replace(case, N=1)
    batch = passes(simt, problem_of(case), together, passes=("y", "dx"))
    for image in (0, 17, 32):
        one = Truth.__new__(Truth)
        one.x, one.dy = together.x[image : image + 1], together.dy[image : image + 1]
        one.w, one.bias = together.w, together.bias
        found = passes(simt, problem_of(alone), one, passes=("y", "dx"))
        for name in ("y", "dx"):
            assert found[name].tobytes() == batch[name][image].tobytes(), (name, image)


def test_a_weight_gradient_heeds_no_window_that_is_not_there(simt: ModuleType) -> None:
    """The last row and column of an image lie under no window, and beyond the windows of a tile."""
    case = ConvCase(1, 3, 8, 8, 8, 2, 2, stride=(2, 2))
    t, p = Truth(case, "normal"), replace(problem_of(case), P=3, Q=3)
    t.dy = t.dy[:, :, :3, :3]
    clean = passes(simt, p, t, passes=("dw",))["dw"]
    t.x[:, :, 6:], t.x[:, :, :, 6:] = np.inf, np.nan
    assert passes(simt, p, t, passes=("dw",))["dw"].tobytes() == clean.tobytes()


@pytest.mark.parametrize("kernel", [(2, 4), (4, 3)])
def test_padding_may_be_longer_at_the_end(simt: ModuleType, kernel: tuple[int, int]) -> None:
    case = ConvCase(2, 3, 6, 7, 8, *kernel)
    p = conv2d_problem(case.x_shape, case.weight_shape, 1, "same", 1, 1)
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


def test_a_nan_stays_in_its_windows(simt: ModuleType) -> None:
    case = ConvCase(1, 3, 9, 9, 16, 3, 3, stride=(2, 2))
    t, p = Truth(case, "normal"), problem_of(case)
    clean = passes(simt, p, t, passes=("y",))["y"]
    t.x[0, 1, 4, 5] = np.nan  # under the windows of rows 1 and 2, and of column 2
    found = passes(simt, p, t, passes=("y",))["y"]
    assert np.isnan(found[0, 1:3, 2]).all()
    found[0, 1:3, 2] = clean[0, 1:3, 2]
    assert found.tobytes() == clean.tobytes()


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
    t = Truth.__new__(Truth)
    t.x, t.w, t.bias, t.dy = np.zeros(case.x_shape), np.zeros(case.weight_shape), None, np.zeros(case.y_shape)
    for name in ("y", "dw"):
        with pytest.raises(ValueError, match="conv2d: a stem kernel needs 1 to 4 channels, one group"):
            passes(simt, problem_of(case), t, passes=(name,))
    assert any(spec.name == "stem" and spec.supports(problem_of(case)) for spec in ops.fprop.specs("simt"))


@pytest.mark.parametrize("case", [ConvCase(1, 1, 65, 9, 1, 65, 9), ConvCase(1, 4, 65, 35, 9, 9, 28, dilation=(8, 1))])
def test_the_largest_stems_fit(simt: ModuleType, case: ConvCase) -> None:
    assert not any(spec.name == "stem" and spec.supports(problem_of(case)) for spec in ops.fprop.specs("simt"))
    check_passes(KERNEL, ("y", "dw"), truth, simt, case, "integers")


def wrong_problem(**fields: Any) -> Any:
    return lambda run, p, *rest: run(replace(p, **fields), *rest)


def nudged(run: Any, *arguments: Any) -> None:
    run(*arguments)
    output = arguments[5 if len(arguments) == 8 else 4]
    output.reshape(-1)[np.abs(output).argmax()] *= 1.0001


WRONG = {
    "fprop: padding": {"conv2d_stem_fprop": wrong_problem(padding=(1, 2))},
    "fprop: colours swapped": {"conv2d_stem_fprop": lambda run, p, t, x, *rest: run(p, t, x[..., ::-1].copy(), *rest)},
    "fprop: no ReLU": {"conv2d_stem_fprop": lambda run, *a: run(*a[:6], False, *a[7:])},
    "fprop: one element": {"conv2d_stem_fprop": nudged},
    "dgrad: stride": {"conv2d_stem_dgrad": wrong_problem(stride=(1, 1))},
    "dgrad: one element": {"conv2d_stem_dgrad": nudged},
    "dgrad: not run": {"conv2d_stem_dgrad": lambda run, *a: None},
    "wgrad: one split": {"conv2d_stem_wgrad": lambda run, *a: (run(*a), np.copyto(a[4], a[5][0]))},
    "wgrad: one element": {"conv2d_stem_wgrad": nudged},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = ConvCase(3, 3, 25, 13, 16, 3, 3, stride=(2, 1), padding=(1, 1))
    check(simt, case, "normal", relu=True)
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check(Planted(simt, **WRONG[wrong]), case, "normal", relu=True)


@pytest.mark.parametrize("seed", range(2))
def test_workspace_is_bounded(simt: ModuleType, seed: int) -> None:
    rng = np.random.default_rng([SEED, seed])
    for _ in range(200):
        N, size, taps, C, K = (int(2 ** rng.uniform(0, top)) for top in (8, 8, 3, 2.3, 10))
        p = conv2d_problem((N, C, max(size, taps), max(size, taps)), (K, C, taps, taps), 1, 0, 1, 1)
        splits = simt.conv2d_stem_wgrad_splits(p)
        assert splits == 1 or splits * K * C * taps * taps * 4 <= 16 << 20, p
