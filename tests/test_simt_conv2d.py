"""The direct convolution on the CPU: every pass against the truth, in any order of threads, and what its bindings
refuse."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conv2d_checks import DTYPES, Kernel, Truth, after, nudged, one_split, problem_of, unwritten, without, wrong_problem
from kernel_checks import ORDERS, Planted
from op_checks import NCHW, SEED, compare

from gpucnn.problem import conv2d_problem, conv_transpose2d_problem
from gpucnn.testing import ConvCase, conv_cases, naive

CASES = [
    *conv_cases(SEED, 40, max_taps=1024, max_products=300_000),
    ConvCase(2, 5, 6, 7, 8, 2, 3, padding=(1, 1)),  # as few filters as the wide kernel takes
    ConvCase(2, 8, 6, 7, 7, 3, 2, stride=(2, 1), padding=(1, 2)),  # and as few channels; one filter less
    ConvCase(2, 7, 5, 5, 9, 3, 3, dilation=(2, 1)),
    ConvCase(1, 16, 3, 3, 64, 1, 1),  # as few weights as the wide weight gradient takes
    ConvCase(1, 15, 3, 3, 8, 1, 1),
    ConvCase(3, 4, 17, 16, 8, 2, 2, padding=(1, 1)),  # several splits, the last of another length
    ConvCase(5, 3, 16, 16, 3, 3, 3, padding=(1, 1), groups=3),  # the same in the narrow kernel
    ConvCase(2, 8, 20, 19, 8, 3, 3, stride=(1, 2), padding=(1, 1), groups=2),
    ConvCase(1, 64, 1, 1, 65, 1, 1),  # one row of a tile, one column more than tiles
    ConvCase(4, 1, 4, 4, 33, 2, 2, stride=(2, 2)),
    ConvCase(0, 8, 5, 5, 16, 3, 3),
]
SPLITTING = [case for case in CASES if case.N * case.y_shape[2] * case.y_shape[3] > 256]
KERNEL = Kernel("direct", ("y", "dx", "dw", "db"))


@pytest.mark.parametrize("order", ORDERS)
def test_every_pass_is_exact_on_small_integers(simt: ModuleType, order: str) -> None:
    KERNEL.check_integers(simt, order, CASES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pass_rounds_no_more_than_it_must(simt: ModuleType, dtype: str) -> None:
    KERNEL.check_rounding(simt, dtype, CASES[[*DTYPES].index(dtype) :: 4])


def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType) -> None:
    assert len(SPLITTING) > 4
    KERNEL.check_orders(simt, [*SPLITTING, *CASES[::6]])


def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType) -> None:
    for case in (ConvCase(70, 3, 5, 4, 9, 3, 3, padding=(1, 1)), ConvCase(70, 6, 5, 4, 6, 3, 3, groups=3)):
        KERNEL.check_single_images(simt, case)


@pytest.mark.parametrize("kernel", [(2, 4), (4, 3), (1, 2)])
def test_padding_may_be_longer_at_the_end(simt: ModuleType, kernel: tuple[int, int]) -> None:
    KERNEL.check_longer_padding(simt, ConvCase(2, 3, 6, 7, 9, *kernel))


def test_the_convolutions_under_a_transposed_one(simt: ModuleType) -> None:
    """Images that end where no window reaches, up to an output_padding beyond the stride."""
    p = conv_transpose2d_problem((2, 9, 4, 3), (9, 5, 3, 2), (2, 3), (1, 0), (1, 3), 1, (1, 4))
    case = ConvCase(p.N, p.C, p.H, p.W, p.K, p.R, p.S, p.stride, p.padding, p.dilation)
    whole = problem_of(case)
    assert (p.P, p.Q) == (whole.P, whole.Q - 1)  # fewer windows than would fit
    t = Truth(case, "integers")
    t.dy[:, :, :, p.Q :] = 0
    dx = naive.conv2d_input_grad(t.dy, t.w, case.x_shape, **case.arguments)
    dw = naive.conv2d_weight_grad(t.dy, t.x, case.weight_shape, **case.arguments)
    t.dy = t.dy[:, :, :, : p.Q]
    found = KERNEL.results(simt, p, t)
    compare(found["y"].transpose(NCHW), t.y[:, :, :, : p.Q], 1, "y", exact=True)
    compare(found["dx"].transpose(NCHW), dx, 1, "dx", exact=True)
    compare(found["dw"].transpose(NCHW), dw, 1, "dw", exact=True)


@pytest.mark.parametrize("groups", [1, 3])
def test_a_nan_stays_in_its_windows(simt: ModuleType, groups: int) -> None:
    case = ConvCase(1, 27, 9, 9, 27 if groups == 1 else 9, 3, 3, stride=(2, 2), groups=groups)
    KERNEL.check_nan(simt, case, 4, slice(0, case.K // groups))


# ------------------------------------------------------------------------------------- what must not pass unnoticed


def tile_repeated(array: Any) -> None:
    array[:, :2, :2, -4:] = array[:, 2:4, :2, -4:]


WRONG = {
    "fprop: padding": {"conv2d_direct_fprop": wrong_problem(padding=(1, 2))},
    "fprop: dilation": {"conv2d_direct_fprop": wrong_problem(dilation=(2, 1))},
    "fprop: groups swapped": {"conv2d_direct_fprop": lambda run, p, t, x, *rest: run(p, t, x[..., ::-1].copy(), *rest)},
    "fprop: no bias": {"conv2d_direct_fprop": without(4, None)},
    "fprop: no ReLU": {"conv2d_direct_fprop": without(6, False)},
    "fprop: unwritten": {"conv2d_direct_fprop": after(unwritten, 5)},
    "fprop: one element": {"conv2d_direct_fprop": after(nudged, 5)},
    "fprop: a tile": {"conv2d_direct_fprop": after(tile_repeated, 5)},
    "dgrad: padding": {"conv2d_direct_dgrad": wrong_problem(padding=(2, 1))},
    "dgrad: stride": {"conv2d_direct_dgrad": wrong_problem(stride=(1, 1))},
    "dgrad: unwritten": {"conv2d_direct_dgrad": after(unwritten, 4)},
    "dgrad: a tile": {"conv2d_direct_dgrad": after(tile_repeated, 4)},
    "wgrad: padding": {"conv2d_direct_wgrad": wrong_problem(padding=(1, 2))},
    "wgrad: one split": {"conv2d_direct_wgrad": one_split(4)},
    "wgrad: one element": {"conv2d_direct_wgrad": after(nudged, 4)},
    "bgrad: one split": {"conv2d_direct_bgrad": one_split(3)},
    "bgrad: unwritten": {"conv2d_direct_bgrad": after(unwritten, 3)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = ConvCase(2, 16, 25, 13, 32, 3, 3, stride=(2, 1), padding=(1, 1), groups=2)
    KERNEL.check(simt, case, "normal", relu=True)
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        KERNEL.check(Planted(simt, **WRONG[wrong]), case, "normal", relu=True)


# ---------------------------------------------------------------------------------------------- what bindings refuse

PROBLEM = conv2d_problem((2, 6, 5, 4), (4, 3, 3, 2), 1, 1, 1, 2)


def arrays() -> dict[str, Any]:
    p = PROBLEM
    shapes = {"x": (p.N, p.H, p.W, p.C), "w": (p.K, p.R, p.S, 3), "bias": (p.K,), "y": (p.N, p.P, p.Q, p.K)}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def fprop(module: ModuleType, problem: Any = PROBLEM, **others: Any) -> None:
    given = arrays() | others
    module.conv2d_direct_fprop(
        problem, given.get("dtype", "float32"), given["x"], given["w"], given["bias"], given["y"], False, 0
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": 3}, "groups=3 must divide C=6 and K=4"),
        ({"groups": 0}, r"groups must be in \[1, 2\^31\), got 0"),
        ({"N": -1}, r"N must be in \[0, 2\^31\), got -1"),
        ({"H": 1 << 31}, r"H must be in \[1, 2\^31\), got 2147483648"),
        ({"stride": (0, 1)}, r"stride must be in \[1, 2\^31\), got 0"),
        ({"dilation": (1, -1)}, r"dilation must be in \[1, 2\^31\), got -1"),
        ({"padding": (-1, 0)}, r"padding must be in \[0, 2\^31\), got -1"),
        ({"P": 7}, r"more outputs than windows .*\(H,R,P=5,3,7, stride=1, padding=1, dilation=1\)"),
        ({"Q": 8}, r"more outputs than windows .*\(W,S,Q=4,2,8,"),
        ({"N": 1 << 30, "C": 1 << 20}, r"the input \(N,H,W,C\) has more than 2\^38 elements"),
        ({"K": 1 << 30, "N": 1 << 10}, r"the output \(N,P,Q,K\) has more than 2\^38 elements"),
        ({"stride": (1 << 30, 1), "P": 1, "dilation": (1 << 30, 1)}, r"span 2\^31 cells or more"),
        ({"N": 0, "C": 1 << 28, "R": 9, "H": 13}, r"R\*S\*C/groups and R\*S\*K/groups must be at most 2\^30"),
    ],
)
def test_problems_that_no_kernel_could_be_trusted_with(simt: ModuleType, fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"conv2d: .*{message}"):
        simt.conv2d_direct_wgrad_splits(replace(PROBLEM, **fields))


@pytest.mark.parametrize(
    ("problem", "error", "message"),
    [
        (None, AttributeError, "'N'"),
        (replace(PROBLEM, C=6.5), TypeError, "the problem's C must be 64-bit integers, got 6.5"),
        (replace(PROBLEM, C=1 << 70), TypeError, "the problem's C must be 64-bit integers"),
        (replace(PROBLEM, stride=1), TypeError, r"the problem's stride must be \(vertical, horizontal\), got 1"),
        (replace(PROBLEM, stride=(1, 1, 1)), TypeError, r"stride must be \(vertical, horizontal\)"),
        (replace(PROBLEM, padding=(1, None)), TypeError, "padding must be 64-bit integers, got None"),
    ],
)
def test_what_is_no_problem(simt: ModuleType, problem: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fprop(simt, problem)


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    good = arrays()
    y = np.full_like(good["y"], 7)
    read_only = np.zeros_like(y)
    read_only.flags.writeable = False
    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"x": good["x"].astype(np.float64)}, TypeError, r"argument 'x' of shape \(2, 5, 4, 6\) must be float32"),
        ({"w": good["w"].astype(np.float16)}, TypeError, r"argument 'w' .*must be float32"),
        ({"dtype": "float16"}, TypeError, r"argument 'x' .*must be float16 \('<f2'\) and is '<f4'"),
        ({"dtype": "float64"}, ValueError, "dtype must be float32, float16 or bfloat16, got float64"),
        (
            {"x": [1.0]},
            TypeError,
            "'x' must be an array in CPU memory, such as a numpy.ndarray, and is a list",
        ),
        ({"x": good["x"][:1]}, ValueError, r"'x' of shape \(1, 5, 4, 6\) must have shape \(2, 5, 4, 6\): \(N,H,W,C\)"),
        ({"w": good["w"][..., :2].copy()}, ValueError, r"must have shape \(4, 3, 2, 3\): \(K,R,S,C/groups\)"),
        (
            {"bias": np.zeros(3, np.float32)},
            ValueError,
            r"'bias' of shape \(3,\) must have shape \(4,\): \(K,\)",
        ),
        ({"x": good["x"][:, ::-1]}, ValueError, "'x' .*must be C-contiguous"),
        ({"y": read_only}, ValueError, "'y' .*is read-only and would be written"),
        ({"y": np.zeros((2, 6, 5, 3), np.float32)}, ValueError, r"'y' of shape .*\(N,P,Q,K\)"),
    ]
    for others, error, message in bad:
        with pytest.raises(error, match=message):
            fprop(simt, **({"y": y} | others))
        assert (y == 7).all(), message


def test_an_output_must_not_share_memory_with_what_is_read(simt: ModuleType) -> None:
    p = conv2d_problem((1, 4, 3, 3), (4, 4, 1, 1), 1, 0, 1, 1)
    pool = np.zeros(100, np.float32)
    x, y = pool[:36].reshape(1, 3, 3, 4), pool[30:66].reshape(1, 3, 3, 4)
    w = np.zeros((4, 1, 1, 4), np.float32)
    with pytest.raises(ValueError, match=r"'y' of shape \(1, 3, 3, 4\) and 'x' of shape .* overlap in memory"):
        simt.conv2d_direct_fprop(p, "float32", x, w, None, y, False, 0)
    with pytest.raises(ValueError, match=r"'dx' .* and 'w' .* overlap in memory"):
        simt.conv2d_direct_dgrad(p, "float32", x.copy(), pool[8:24].reshape(w.shape), pool[:36].reshape(x.shape), 0)
    beside = pool[36:72].reshape(x.shape)
    simt.conv2d_direct_fprop(p, "float32", x, w, None, beside, False, 0)


def test_a_split_sum_needs_its_workspace(simt: ModuleType) -> None:
    p = conv2d_problem((3, 2, 20, 20), (2, 2, 3, 3), 1, 1, 1, 1)
    x, dw = np.zeros((3, 20, 20, 2), np.float32), np.zeros((2, 3, 3, 2), np.float32)
    splits = simt.conv2d_direct_wgrad_splits(p)
    assert splits == 9  # of 128 positions or more: 1,200
    for partial in (None, np.zeros((splits - 1, *dw.shape), np.float32)):
        with pytest.raises(ValueError, match=r"argument 'partial' .*must .*\(9, 2, 3, 3, 2\): a part for each of 9"):
            simt.conv2d_direct_wgrad(p, "float32", x, x, dw, partial, 0)
    pool = np.zeros((splits + 1, *dw.shape), np.float32)
    with pytest.raises(ValueError, match=r"'partial' .* and 'dw' .* overlap in memory"):
        simt.conv2d_direct_wgrad(p, "float32", x, x, pool[splits - 1], pool[:splits], 0)


@pytest.mark.parametrize("seed", range(3))
def test_workspace_is_bounded(simt: ModuleType, seed: int) -> None:
    """Less than 16 MiB and 1 MiB, however large the problem; and one split never needs any."""
    rng = np.random.default_rng([SEED, seed])
    for _ in range(300):
        N, size, taps, groups, channels, filters = (int(2 ** rng.uniform(0, top)) for top in (8, 8, 3, 4, 9, 10))
        C, K, size = channels * groups, filters * groups, max(size, taps)
        p = conv2d_problem((N, C, size, size), (K, channels, taps, taps), 1, 0, 1, groups)
        splits, weights = simt.conv2d_direct_wgrad_splits(p), K * channels * taps * taps
        assert splits == 1 or splits * weights * 4 < 16 << 20, p
        assert splits == 1 or 128 * splits <= N * p.P * p.Q, p
        splits = simt.conv2d_direct_bgrad_splits(p)
        assert splits == 1 or splits * K * 4 < 1 << 20, p
