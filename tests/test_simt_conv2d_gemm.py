"""Convolution as a product of gathered matrices, on the CPU: every configuration of every pass against the truth, in
any order of threads; and 1x1 convolution as a plain product."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conv2d_checks import (
    DTYPES,
    WIDE,
    Configured,
    Kernel,
    Truth,
    after,
    nudged,
    one_split,
    problem_of,
    results,
    truth_of,
    unwritten,
    without,
    wrong_problem,
)
from kernel_checks import ORDERS, Planted, sample
from op_checks import NCHW, SEED, compare

from gpucnn.ops import conv2d as ops
from gpucnn.ops import planned
from gpucnn.ops.registry import first_choice
from gpucnn.problem import Conv2dProblem, conv2d_problem, conv_transpose2d_problem
from gpucnn.testing import ConvCase, conv_cases, naive

CONFIGURATIONS = ("128x128", "128x64", "64x64", "128x32")
KERNEL, POINTWISE_KERNEL = Kernel("implicit_gemm"), Kernel("pointwise")
PASSES = KERNEL.passes

NARROW = [
    ConvCase(2, 5, 6, 7, 9, 3, 3, padding=(1, 1)),
    ConvCase(1, 7, 9, 8, 66, 2, 2, stride=(2, 1), padding=(1, 0)),
    ConvCase(2, 1, 12, 12, 6, 5, 5),
    ConvCase(3, 3, 8, 8, 65, 3, 3, stride=(2, 2), padding=(1, 1)),
    ConvCase(1, 8, 5, 5, 8, 3, 3, padding=(1, 1)),  # float32 is wide, 16 bits are not: fewer channels than a strip
    ConvCase(2, 12, 5, 5, 20, 3, 3, padding=(1, 1), dilation=(2, 1)),
    ConvCase(1, 4, 6, 6, 4, 2, 2),
    ConvCase(1, 15, 3, 3, 17, 1, 1, stride=(2, 2)),
    ConvCase(40, 2, 3, 4, 3, 2, 2, padding=(1, 1)),
    ConvCase(0, 8, 5, 5, 16, 3, 3),
    ConvCase(0, 16, 5, 5, 16, 1, 1),
]
SAMPLED = [case for case in conv_cases(SEED, 120, max_taps=1024, max_products=200_000) if case.groups == 1]
POINTWISE = [
    ConvCase(2, 16, 5, 13, 24, 1, 1),
    ConvCase(1, 64, 1, 1, 65, 1, 1),
    ConvCase(3, 5, 7, 6, 9, 1, 1),
    ConvCase(2, 24, 16, 16, 16, 1, 1),  # several parts of the weight gradient
    ConvCase(0, 8, 5, 5, 16, 1, 1),
]


def check(
    module: Any, case: ConvCase, kind: str, dtype: str = "float32", configuration: str = "", **options: Any
) -> None:
    __tracebackhide__ = True
    kernel = options.pop("kernel", KERNEL)
    kernel.check(Configured(module, configuration), case, kind, dtype, **options)


def run(module: Any, case: ConvCase, t: Any, dtype: str = "float32", configuration: str = "", **options: Any) -> Any:
    """Bytes of each pass's result."""
    passes = options.pop("passes", PASSES)
    found = results(
        "implicit_gemm", Configured(module, configuration), problem_of(case), t, f"{case}", passes, dtype, **options
    )
    return {name: array.tobytes() for name, array in found.items()}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_configuration_is_exact_on_small_integers(simt: ModuleType, configuration: str, order: str) -> None:
    """With ReLU and without."""
    simt.set_order(order)
    for number, case in enumerate(sample(simt.flavour, WIDE), ORDERS.index(order)):
        check(simt, case, "integers", "float32", configuration, relu=number % 2 == 1)


@pytest.mark.parametrize("order", ORDERS)
def test_the_kernels_own_choice_is_exact_on_small_integers(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    cases = [*NARROW, *SAMPLED[ORDERS.index(order) :: len(ORDERS)]]
    for number, case in enumerate(sample(simt.flavour, cases), ORDERS.index(order)):
        check(simt, case, "integers", relu=number % 2 == 1)


@pytest.mark.parametrize("order", ORDERS)
def test_pointwise_is_exact_on_small_integers(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for number, case in enumerate(POINTWISE, ORDERS.index(order)):
        dtype, relu = [*DTYPES][number % 3], number % 2 == 1
        for configuration in sample(simt.flavour, ["", *CONFIGURATIONS]):
            check(simt, case, "integers", dtype, configuration, relu=relu, kernel=POINTWISE_KERNEL)


def test_every_pass_rounds_no_more_than_it_must(simt: ModuleType) -> None:
    for number, case in enumerate(sample(simt.flavour, [*WIDE, *NARROW, *SAMPLED[::3]])):
        check(simt, case, "normal", configuration=["", *CONFIGURATIONS][number % 5], relu=number % 2 == 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pointwise_rounds_no_more_than_it_must(simt: ModuleType, dtype: str) -> None:
    for case in sample(simt.flavour, POINTWISE):
        check(simt, case, "normal", dtype, kernel=POINTWISE_KERNEL)


@pytest.mark.parametrize("name", ["implicit_gemm", "stem"])
def test_16_bits_are_for_tensor_cores(simt: ModuleType, name: str) -> None:
    case = ConvCase(1, 3, 5, 5, 8, 3, 3)
    for dtype in ("float16", "bfloat16"):
        t = truth_of(case, "integers", dtype)
        for result in ("y", "dw"):
            with pytest.raises(ValueError, match=f"conv2d: the {name} kernel is for float32, tensor_core for 16 bits"):
                Kernel(name).results(simt, problem_of(case), t, dtype=dtype, passes=(result,))


def test_y_and_dx_have_the_same_bits_in_every_configuration_and_on_every_path(simt: ModuleType) -> None:
    """Arrays off 16 bytes take the narrow path; a weight gradient is cut as its configuration wants, on either path."""
    for case in sample(simt.flavour, [WIDE[0], WIDE[2], WIDE[8]]):
        t = truth_of(case, "normal")
        seen = [
            run(simt, case, t, configuration=configuration, offset=offset)
            for configuration in CONFIGURATIONS
            for offset in (0, 1)
        ]
        for name in ("y", "dx"):
            assert len({found[name] for found in seen}) == 1, (case, name)
        for wide, narrow in zip(seen[::2], seen[1::2], strict=True):
            assert wide["dw"] == narrow["dw"], case


def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType) -> None:
    split = KERNEL.split(simt, WIDE)
    assert len(split) >= 2
    KERNEL.check_orders(simt, [*split, *WIDE[:3], NARROW[0]])


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType, stride: tuple[int, int]) -> None:
    KERNEL.check_single_images(simt, ConvCase(33, 16, 5, 4, 24, 3, 3, stride=stride, padding=(1, 1)))


@pytest.mark.parametrize("kernel", [(2, 4), (4, 3), (1, 2)])
def test_padding_may_be_longer_at_the_end(simt: ModuleType, kernel: tuple[int, int]) -> None:
    KERNEL.check_longer_padding(simt, ConvCase(2, 16, 6, 7, 16, *kernel))


@pytest.mark.parametrize("channels", [(16, 32), (9, 5)])
def test_the_convolutions_under_a_transposed_one(simt: ModuleType, channels: tuple[int, int]) -> None:
    """Images that end where no window reaches, up to an output_padding beyond the stride."""
    p = conv_transpose2d_problem((2, channels[0], 4, 3), (*channels, 3, 2), (2, 3), (1, 0), (1, 3), 1, (1, 4))
    case = ConvCase(p.N, p.C, p.H, p.W, p.K, p.R, p.S, p.stride, p.padding, p.dilation)
    whole = problem_of(case)
    t = Truth(replace(case, bias=False), "integers")
    t.dy = t.dy[:, :, : p.P, : p.Q]
    padded = np.zeros((p.N, p.K, whole.P, whole.Q))
    padded[:, :, : p.P, : p.Q] = t.dy
    t.dx = naive.conv2d_input_grad(padded, t.w, t.x.shape, **case.arguments)
    t.dw = naive.conv2d_weight_grad(padded, t.x, t.w.shape, **case.arguments)
    for name, found in KERNEL.results(simt, p, t, passes=("dx", "dw")).items():
        compare(found.transpose(NCHW), getattr(t, name), 1, name, exact=True)


def test_a_nan_stays_in_its_windows_and_pixels(simt: ModuleType) -> None:
    case = ConvCase(1, 16, 9, 9, 32, 3, 3, stride=(2, 2), bias=False)
    t, p = Truth(case, "normal"), problem_of(case)
    clean = KERNEL.results(simt, p, t, passes=("y", "dx"))
    t.x[0, 4, 4, 5] = np.nan  # under the windows of rows 1 and 2, and of column 2
    t.dy[0, 4, 1, 2] = np.inf  # whose window is over rows 2 to 4 and columns 4 to 6
    found = KERNEL.results(simt, p, t, passes=("y", "dx"))
    places = {"y": (0, slice(1, 3), 2), "dx": (0, slice(2, 5), slice(4, 7))}
    for name, place in places.items():
        assert not np.isfinite(found[name][place]).any(), name
        found[name][place] = clean[name][place]
        assert found[name].tobytes() == clean[name].tobytes(), name


def test_a_nan_passes_relu(simt: ModuleType) -> None:
    case = ConvCase(1, 16, 3, 3, 16, 1, 1)
    for kernel in ("implicit_gemm", "pointwise"):
        t = Truth(case, "normal")
        t.x[0, :, 1, 1] = np.nan
        found = results(kernel, simt, problem_of(case), t, passes=("y",), relu=True)["y"]
        assert np.isnan(found[0, 1, 1]).all()
        assert np.isnan(found).sum() == case.K
        assert (found[0, 0] >= 0).all()


# ------------------------------------------------------------------------------------- what must not pass unnoticed


def group_repeated(array: Any) -> None:
    array[:, 2, :, 4:8] = array[:, 2, :, :4]


WRONG = {
    "fprop: padding": {"fprop": wrong_problem(padding=(1, 2))},
    "fprop: dilation": {"fprop": wrong_problem(dilation=(2, 1))},
    "fprop: no bias": {"fprop": without(4, None)},
    "fprop: relu": {"fprop": without(6, True)},
    "fprop: unwritten": {"fprop": after(unwritten, 5)},
    "fprop: one element": {"fprop": after(nudged, 5)},
    "fprop: a group of sums": {"fprop": after(group_repeated, 5)},
    "dgrad: padding": {"dgrad": wrong_problem(padding=(2, 1))},
    "dgrad: stride": {"dgrad": wrong_problem(stride=(1, 1))},
    "dgrad: unwritten": {"dgrad": after(unwritten, 4)},
    "dgrad: a group of sums": {"dgrad": after(group_repeated, 4)},
    "wgrad: padding": {"wgrad": wrong_problem(padding=(1, 2))},
    "wgrad: one part": {"wgrad": one_split(4)},
    "wgrad: one element": {"wgrad": after(nudged, 4)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = ConvCase(2, 16, 25, 13, 16, 3, 3, stride=(2, 1), padding=(1, 1))
    check(simt, case, "normal")
    planted = {f"conv2d_implicit_gemm_{name}": change for name, change in WRONG[wrong].items()}
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check(Planted(simt, **planted), case, "normal")


# ------------------------------------------------------------------------------------------ choices and what is refused


def test_what_a_kernel_does_not_do_is_refused(simt: ModuleType) -> None:
    grouped = ConvCase(1, 8, 5, 5, 8, 3, 3, groups=2)
    strided = ConvCase(1, 8, 5, 5, 8, 1, 1, stride=(2, 2))
    for kernel, case, message in (
        ("implicit_gemm", grouped, "conv2d: the kernel needs groups=1, got 2"),
        ("pointwise", replace(grouped, R=1, S=1), "conv2d: the kernel needs groups=1, got 2"),
        ("pointwise", strided, "needs 1x1 filters, stride 1 and no padding"),
        ("pointwise", replace(strided, stride=(1, 1), padding=(1, 0)), "needs 1x1 filters, stride 1 and no padding"),
    ):
        for name in PASSES:
            with pytest.raises(ValueError, match=message):
                results(kernel, simt, problem_of(case), truth_of(case, "normal"), passes=(name,))


def chosen(case: Any, table: Any) -> str:
    p: Conv2dProblem = problem_of(case) if isinstance(case, ConvCase) else case
    like = np.empty(0, np.float32)
    found = first_choice(table.specs("simt"), p, like)
    assert found is not None
    return found.name


def test_which_kernel_runs_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of float32 that tensor cores would be slower at."""
    monkeypatch.setattr(planned, "slower", lambda *arguments: "slower")
    for table in (ops.fprop, ops.dgrad, ops.wgrad):
        assert chosen(ConvCase(1, 15, 8, 8, 15, 1, 1), table) == "pointwise"
        assert chosen(ConvCase(1, 15, 8, 8, 15, 1, 1, stride=(2, 2)), table) == "implicit_gemm"
        assert chosen(ConvCase(1, 15, 8, 8, 15, 3, 3), table) == "implicit_gemm"
        assert chosen(replace(problem_of(ConvCase(1, 8, 8, 8, 8, 3, 3)), N=1 << 30), table) == "direct"


def test_the_workspace_of_a_weight_gradient_is_bounded(simt: ModuleType) -> None:
    """At most 64 MiB, however large the problem, and parts of 128 windows or more."""
    rng = np.random.default_rng([SEED, 7])
    for _ in range(300):
        N, size, taps, C, K = (int(2 ** rng.uniform(0, top)) for top in (8, 8, 3, 10, 11))
        p = conv2d_problem((N, C, max(size, taps), max(size, taps)), (K, C, taps, taps), 1, 0, 1, 1)
        weights, windows = K * C * taps * taps, N * p.P * p.Q
        for configuration in ("", *(f"_{name}" for name in CONFIGURATIONS)):
            parts = getattr(simt, f"conv2d_implicit_gemm_wgrad{configuration}_splits")(p)
            assert parts == 1 or parts * weights * 4 <= 64 << 20, p
            assert parts == 1 or 112 * parts <= windows, p


def test_a_part_of_a_sum_needs_its_workspace(simt: ModuleType) -> None:
    case = ConvCase(2, 16, 16, 16, 16, 3, 3)
    p = problem_of(case)
    splits = simt.conv2d_implicit_gemm_wgrad_splits(p)
    assert splits > 1
    x, dy, dw = (np.zeros(shape, np.float32) for shape in ((2, 16, 16, 16), (2, 14, 14, 16), (16, 3, 3, 16)))
    for partial in (None, np.zeros((splits - 1, *dw.shape), np.float32)):
        with pytest.raises(ValueError, match=r"argument 'partial' .*must .*: a part for each of"):
            simt.conv2d_implicit_gemm_wgrad(p, "float32", x, dy, dw, partial, 0)
