"""Convolution on tensor cores, on the CPU: every configuration of every pass against the truth, in any order of
threads, in 16 bits, in TF32 and in float32 that is split."""

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

import gpucnn
from gpucnn import functional as F
from gpucnn.ops import conv2d as ops
from gpucnn.ops import tensor_core
from gpucnn.ops.registry import first_choice
from gpucnn.problem import Conv2dProblem, conv2d_problem
from gpucnn.testing import ConvCase, conv_cases, naive

CONFIGURATIONS = {"tensor_core": ("256x64", "128x128", "128x64", "64x64"), "split_tensor_core": ("128x64", "64x64")}
EACH = [(kernel, name) for kernel, names in CONFIGURATIONS.items() for name in names]
KERNEL, SPLIT = Kernel("tensor_core"), Kernel("split_tensor_core")

BEYOND = [
    ConvCase(1, 8, 5, 5, 8, 3, 3, padding=(1, 1)),  # fewer channels than a strip is deep: several taps of it
    ConvCase(2, 8, 7, 6, 16, 5, 5, stride=(2, 1), padding=(2, 2)),
    ConvCase(1, 24, 6, 6, 8, 3, 3, padding=(1, 1)),  # a strip of 16 bits ends within a tap
    ConvCase(3, 16, 10, 10, 72, 1, 1),  # more windows than a tile of 256
    ConvCase(1, 8, 17, 17, 8, 2, 2, padding=(1, 1)),
    ConvCase(0, 16, 5, 5, 16, 3, 3),
]
"""Beside the cases of the products in float32."""

SAMPLED = [
    replace(case, C=-(-case.C // 8) * 8, K=-(-case.K // 8) * 8)
    for case in conv_cases(SEED, 60, max_taps=128, max_products=60_000)
    if case.groups == 1
]


def full_of_bits(case: ConvCase) -> Truth:
    """Normals of as many bits as float32 has, which what is drawn elsewhere has not."""
    t, rng = Truth(replace(case, bias=False), "normal"), np.random.default_rng([SEED, 11])
    for name in ("x", "w", "dy"):
        array = rng.standard_normal(getattr(t, name).shape)
        setattr(t, name, array.astype(np.float32).astype(np.float64))
    t.refresh(replace(case, bias=False))
    return t


def kernel_of(name: str) -> Kernel:
    return KERNEL if name == "tensor_core" else SPLIT


# ------------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("kernel", "configuration"), EACH)
def test_every_configuration_is_exact_on_small_integers(
    simt: ModuleType, kernel: str, configuration: str, order: str
) -> None:
    """Over the orders each case meets each dtype, with ReLU and without."""
    simt.set_order(order)
    dtypes = [*DTYPES] if kernel == "tensor_core" else ["float32"]
    for number, case in enumerate(sample(simt.flavour, [*BEYOND, *WIDE]), ORDERS.index(order)):
        module, dtype = Configured(simt, configuration), dtypes[number % len(dtypes)]
        kernel_of(kernel).check(module, case, "integers", dtype, relu=number % 2 == 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", CONFIGURATIONS)
def test_the_kernels_own_choice_is_exact_on_small_integers(simt: ModuleType, kernel: str, order: str) -> None:
    simt.set_order(order)
    for number, case in enumerate(sample(simt.flavour, SAMPLED[ORDERS.index(order) :: len(ORDERS)])):
        dtype = [*DTYPES][number % 3] if kernel == "tensor_core" else "float32"
        kernel_of(kernel).check(simt, case, "integers", dtype, relu=number % 2 == 1)


@pytest.mark.parametrize(("kernel", "configuration"), EACH)
def test_every_configuration_computes_in_every_dtype(simt: ModuleType, kernel: str, configuration: str) -> None:
    for dtype in DTYPES if kernel == "tensor_core" else ["float32"]:
        kernel_of(kernel).check(Configured(simt, configuration), WIDE[0], "integers", dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_rounded_no_more_than_they_must(simt: ModuleType, dtype: str) -> None:
    KERNEL.check_rounding(simt, dtype, [*WIDE, *BEYOND, *SAMPLED[::3]])


def test_split_float32_is_as_exact_as_float32(simt: ModuleType) -> None:
    SPLIT.check_rounding(simt, "float32", [*WIDE, *BEYOND, *SAMPLED[1::3]])


def test_of_numbers_of_11_bits_tf32_loses_nothing_but_what_the_unit_cuts_off(simt: ModuleType) -> None:
    for case in sample(simt.flavour, [*WIDE, *BEYOND, *SAMPLED[2::3]]):
        t, p = truth_of(case, "normal", "float16"), problem_of(case)
        terms = {"y": case.terms + 1, "dx": p.K * p.R * p.S, "dw": p.N * p.P * p.Q}
        for name, found in KERNEL.results(simt, p, t, f"{case}").items():
            compare(logical(found), getattr(t, name), terms[name], f"{case}: {name}")


def test_tf32_rounds_float32_to_11_bits(simt: ModuleType) -> None:
    """As if it had been rounded before; the error is what the documentation says."""
    for case in WIDE[:3]:
        t, p = full_of_bits(case), problem_of(case)
        exact = {name: getattr(t, name) for name in KERNEL.passes}
        found = KERNEL.results(simt, p, t)
        for name in KERNEL.passes:
            difference = np.linalg.norm(logical(found[name]) - exact[name]) / np.linalg.norm(exact[name])
            assert 1e-5 < difference < 1e-3, (case, name, difference)
        for name in ("x", "w", "dy"):
            setattr(t, name, rounded(getattr(t, name)))
        for name, again in KERNEL.results(simt, p, t).items():
            assert again.tobytes() == found[name].tobytes(), (case, name)


def rounded(array: Any) -> Any:
    """To 11 bits, away from zero where two numbers are as near."""
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def norm_of_error(kernel: str, simt: ModuleType, p: Conv2dProblem, t: Any, name: str) -> float:
    found = Kernel(kernel).results(simt, p, t, passes=(name,))[name]
    return float(np.linalg.norm(logical(found).astype(np.float64) - getattr(t, name)))


@pytest.mark.parametrize("kind", ["normal", "wide range", "cancelling", "denormal"])
def test_split_float32_errs_at_most_twice_as_much_as_float32(simt: ModuleType, kind: str) -> None:
    """Against float64, over sums of 8 to 576 products: in fact less than float32 itself, where there is not one product
    that outweighs all others."""
    rng = np.random.default_rng([SEED, 11])
    cases = [ConvCase(2, 8, 8, 8, 64, 1, 1), ConvCase(1, 16, 7, 7, 32, 3, 3), ConvCase(1, 64, 4, 4, 16, 3, 3)]
    for case in sample(simt.flavour, cases):
        t, p = Truth(replace(case, bias=False), "normal"), problem_of(case)
        for name in ("x", "w", "dy"):
            array = rng.standard_normal(getattr(t, name).shape)
            if kind == "wide range":
                array *= 2.0 ** rng.integers(-20, 21, array.shape)
            if kind == "cancelling":  # neighbouring channels are nearly opposite
                array[:, 1::2] = (-array[:, ::2] if name == "x" else array[:, ::2]) * (1 + 2.0**-12)
            if kind == "denormal" and name != "w":
                array *= 2.0**-130
            setattr(t, name, array.astype(np.float32).astype(np.float64))
        t.refresh(replace(case, bias=False))
        for name in SPLIT.passes:
            split, plain = (
                norm_of_error(kernel, simt, p, t, name) for kernel in ("split_tensor_core", "implicit_gemm")
            )
            assert split <= 2 * plain, (case, name, split, plain)


def test_the_largest_numbers_and_what_is_none_go_through_the_split(simt: ModuleType) -> None:
    case = ConvCase(1, 8, 4, 4, 8, 1, 1, bias=False)
    p, largest = problem_of(case), float(np.finfo(np.float32).max)
    for value in (largest, -largest, np.inf, -np.inf, np.nan, 0.0, -0.0, 2.0**-149):
        t = Truth(case, "integers")
        t.x[...], t.w[...] = 0, 0
        t.x[0, 3, 1, 2], t.w[5, 3] = value, 1
        found = SPLIT.results(simt, p, t, passes=("y",))["y"]
        expected = np.zeros_like(found)
        expected[0, 1, 2, :] = value * 0
        expected[0, 1, 2, 5] = value
        np.testing.assert_allclose(found, expected, rtol=2.0**-22, atol=0)


def test_y_and_dx_have_the_same_bits_in_every_configuration(simt: ModuleType) -> None:
    for kernel, configurations in CONFIGURATIONS.items():
        for case in sample(simt.flavour, [WIDE[0], WIDE[2], WIDE[8]]):
            t = truth_of(case, "normal")
            for name in ("y", "dx"):
                of = kernel_of(kernel)
                seen = {
                    of.results(Configured(simt, each), problem_of(case), t, passes=(name,))[name].tobytes()
                    for each in configurations
                }
                assert len(seen) == 1, (kernel, case, name)


@pytest.mark.parametrize("kernel", [KERNEL, SPLIT], ids=CONFIGURATIONS)
def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType, kernel: Kernel) -> None:
    several = ConvCase(3, 16, 14, 14, 16, 3, 3, padding=(1, 1))
    assert kernel.split(simt, [several])
    kernel.check_orders(simt, [several, WIDE[0], BEYOND[1]])


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType, stride: tuple[int, int]) -> None:
    KERNEL.check_single_images(simt, ConvCase(33, 16, 5, 4, 24, 3, 3, stride=stride, padding=(1, 1)))


@pytest.mark.parametrize("kernel", [(2, 4), (4, 3), (1, 2)])
def test_padding_may_be_longer_at_the_end(simt: ModuleType, kernel: tuple[int, int]) -> None:
    KERNEL.check_longer_padding(simt, ConvCase(2, 16, 6, 7, 16, *kernel))


def test_a_nan_stays_in_its_windows_and_in_its_column(simt: ModuleType) -> None:
    case = ConvCase(1, 16, 9, 9, 32, 3, 3, stride=(2, 2), bias=False)
    for kernel in (KERNEL, SPLIT):
        kernel.check_nan(simt, case, 3, slice(None))


def test_filters_need_not_be_in_whole_units_for_y(simt: ModuleType) -> None:
    """Rows of y off 16 bytes are stored element by element."""
    for number, K in enumerate((1, 5, 65)):
        case = ConvCase(2, 16, 5, 5, K, 3, 3)
        t, dtype = truth_of(case, "integers"), [*DTYPES][number]
        found = KERNEL.results(simt, problem_of(case), t, dtype=dtype, passes=("y",))["y"]
        compare(logical(found), t.y.astype(dtype).astype(np.float64), 1, f"{case}", exact=True)


# ------------------------------------------------------------------------------------- what must not pass unnoticed


def run_repeated(array: Any) -> None:
    array[:, 2, :, 4:8] = array[:, 2, :, :4]


WRONG = {
    "fprop: padding": {"fprop": wrong_problem(padding=(1, 2))},
    "fprop: dilation": {"fprop": wrong_problem(dilation=(2, 1))},
    "fprop: no bias": {"fprop": without(4, None)},
    "fprop: unwritten": {"fprop": after(unwritten, 5)},
    "fprop: a run of sums": {"fprop": after(run_repeated, 5)},
    "dgrad: stride": {"dgrad": wrong_problem(stride=(1, 1))},
    "dgrad: unwritten": {"dgrad": after(unwritten, 4)},
    "wgrad: padding": {"wgrad": wrong_problem(padding=(1, 2))},
    "wgrad: one part": {"wgrad": one_split(4)},
    "wgrad: one element": {"wgrad": after(nudged, 4)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = ConvCase(4, 16, 25, 13, 16, 3, 3, stride=(2, 1), padding=(1, 1))
    SPLIT.check(simt, case, "normal")
    planted = {f"conv2d_split_tensor_core_{name}": change for name, change in WRONG[wrong].items()}
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        SPLIT.check(Planted(simt, **planted), case, "normal")


def test_tf32_is_no_float32_and_split_it_is(simt: ModuleType) -> None:
    case = replace(WIDE[0], bias=False)
    t, p = full_of_bits(case), problem_of(case)
    for kernel in (SPLIT, KERNEL):
        found = logical(kernel.results(simt, p, t, passes=("y",))["y"])
        if kernel is SPLIT:
            compare(found, t.y, case.terms, "split")
        else:
            with pytest.raises(AssertionError, match="elements are wrong"):
                compare(found, t.y, case.terms, "rounded")


# ------------------------------------------------------------------------------------------ choices and what is refused


@pytest.mark.parametrize(
    ("N", "C", "size", "K", "taps"),
    [(1, 8, 20000, 8, 1), (1, 64, 8192, 8, 3), (1, 4096, 600, 8, 3), (1, 8, 600, 4096, 3), (9, 65536, 160, 8, 1)],
)
def test_images_too_large_to_count_in_32_bits_are_refused_alike(
    simt: ModuleType, N: int, C: int, size: int, K: int, taps: int
) -> None:
    """By the table, in words, and by the binding, before it looks at memory."""
    p = conv2d_problem((N, C, size, size), (K, C, taps, taps), 1, 0, 1, 1)
    reason = tensor_core.multiplies(p)
    assert reason is not None
    assert "smaller images" in reason
    assert simt.conv2d_tensor_core_is_near(p) is False


def test_the_table_and_the_kernels_agree_on_what_is_near(simt: ModuleType) -> None:
    rng = np.random.default_rng([SEED, 12])
    seen = set()
    for _ in range(2000):
        N, C, H, W, K = (int(2 ** rng.uniform(0, top)) for top in (4, 12, 14, 14, 12))
        R, S, u, v, pad, dilation = (int(rng.integers(1, 4)) for _ in range(6))
        try:
            p = conv2d_problem((N, C, H, W), (K, C, R, S), (u, v), pad, dilation, 1)
        except ValueError:
            continue
        if max(N * H * W * C, N * p.P * p.Q * K, K * C * R * S) > 1 << 38:
            continue
        near = tensor_core.is_near(p)
        seen.add(near)
        assert simt.conv2d_tensor_core_is_near(p) is near, p
    assert seen == {True, False}


def chosen(shape: ConvCase, table: Any, dtype: str, precision: str = "highest") -> str:
    p = replace(problem_of(shape), precision=precision)
    found = first_choice(table.specs("simt"), p, np.empty(0, DTYPES[dtype]))
    assert found is not None
    return found.name


def test_which_kernel_runs_what() -> None:
    dense = ConvCase(32, 64, 56, 56, 64, 3, 3)
    for table in (ops.fprop, ops.dgrad, ops.wgrad):
        assert chosen(dense, table, "float16") == chosen(dense, table, "bfloat16") == "tensor_core"
        assert chosen(dense, table, "float32") == "split_bf16"
        assert chosen(dense, table, "float32", "high") == "tf32"
        assert chosen(replace(dense, C=60, K=50), table, "float16") == "tensor_core"
        assert chosen(replace(dense, C=61), table, "float32", "high") == "tf32"
        stem = replace(dense, N=32, C=3, H=112, W=112, R=7, S=7)
        few = "stem" if table is ops.dgrad else "tensor_core"
        assert chosen(stem, table, "float16") == few
        assert chosen(stem, table, "float32", "high") == few.replace("tensor_core", "tf32")
        assert chosen(stem, table, "float32") == "stem"
    assert chosen(replace(dense, N=32, C=4, H=112, W=112), ops.fprop, "float32") == "split_bf16"


def test_a_slice_off_16_bytes_is_copied_first(simt: ModuleType) -> None:
    """Nobody can know that a view of a view is askew."""
    flat = np.arange(2 * 4 * 4 * 16 + 1, dtype=np.float32) % 7 - 3
    view = flat[1:].reshape(2, 4, 4, 16)
    assert view.ctypes.data % 16
    x = gpucnn.from_dlpack(view).permute(0, 3, 1, 2)
    w = gpucnn.tensor(np.arange(64 * 16, dtype=np.float32).reshape(64, 16, 1, 1) % 5 - 2)
    found = F.conv2d(x, w, kernel="split_bf16").numpy()
    compare(found, naive.conv2d(view.transpose(0, 3, 1, 2), w.numpy(), None), 1, "a slice", exact=True)


def test_the_workspace_of_a_weight_gradient_is_bounded(simt: ModuleType) -> None:
    """At most 64 MiB, however large the problem, and parts of 224 windows or more."""
    rng = np.random.default_rng([SEED, 7])
    for _ in range(300):
        N, size, taps, C, K = (int(2 ** rng.uniform(0, top)) for top in (8, 8, 3, 10, 11))
        p = conv2d_problem((N, C, max(size, taps), max(size, taps)), (K, C, taps, taps), 1, 0, 1, 1)
        for configuration in ("", *(f"_{name}" for name in CONFIGURATIONS["tensor_core"])):
            parts = getattr(simt, f"conv2d_tensor_core_wgrad{configuration}_splits")(p)
            assert parts == 1 or parts * K * C * taps * taps * 4 <= 64 << 20, p
            assert parts == 1 or 224 * parts <= N * p.P * p.Q, p


@pytest.mark.parametrize(
    ("kernel", "dtype", "most"),
    [
        ("tensor_core", "bfloat16", 4e-3),
        ("tensor_core", "float16", 1e-3),
        ("tensor_core", "float32", 1e-3),
        ("split_tensor_core", "float32", 1e-6),
    ],
)
def test_the_error_in_norm_is_what_is_promised(simt: ModuleType, kernel: str, dtype: str, most: float) -> None:
    """Against float64, of inputs that have the dtype: what is multiplied, summed up and stored adds to it."""
    cases = [ConvCase(2, 64, 9, 9, 64, 3, 3, padding=(1, 1)), ConvCase(4, 128, 6, 6, 64, 1, 1), WIDE[0], WIDE[3]]
    for case in sample(simt.flavour, [replace(case, bias=False) for case in cases]):
        t = full_of_bits(case)
        for name in ("x", "w", "dy"):
            setattr(t, name, getattr(t, name).astype(DTYPES[dtype]).astype(np.float64))
        t.refresh(case)
        for name, found in kernel_of(kernel).results(simt, problem_of(case), t, dtype=dtype).items():
            exact = getattr(t, name)
            error = np.linalg.norm(logical(found).astype(np.float64) - exact) / np.linalg.norm(exact)
            assert error < most, (case, name, error)
