"""Convolutions on tensor cores of which the sums are cut into parts, on the CPU: against the truth in 16 bits, TF32 and
split float32, and where they are chosen."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conv2d_checks import DTYPES, WIDE, Kernel, Truth, after, nudged, problem_of, truth_of, unwritten, wrong_problem
from kernel_checks import ORDERS, Planted, sample
from op_checks import SEED, compare

import gpucnn
from gpucnn import functional as F
from gpucnn.ops import conv2d as ops
from gpucnn.ops import tensor_core_cut as cut
from gpucnn.problem import conv2d_problem
from gpucnn.testing import ConvCase, naive

KERNEL, SPLIT = (Kernel(f"{name}_cut", ("y", "dx")) for name in ("tensor_core", "split_tensor_core"))

CASES = [
    ConvCase(1, 64, 4, 4, 64, 3, 3, padding=(1, 1)),  # 5 parts, the last one shorter
    ConvCase(2, 40, 5, 5, 72, 3, 3, padding=(1, 1)),  # strips end within a tap; filters beyond a tile
    ConvCase(1, 64, 7, 5, 64, 3, 3, stride=(2, 2), padding=(1, 1)),  # classes of 4, 2, 2 and 1 taps: parts of zeros
    ConvCase(1, 264, 3, 3, 16, 1, 1, bias=False),
    ConvCase(2, 8, 9, 9, 264, 5, 5, stride=(3, 1), padding=(2, 2)),
    ConvCase(1, 128, 6, 6, 136, 3, 3, padding=(2, 2), dilation=(2, 2)),
    ConvCase(1, 16, 4, 4, 16, 1, 1),  # one part
    *WIDE[:3],
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", [KERNEL, SPLIT], ids=["tensor_core", "split"])
def test_small_integers_are_exact(simt: ModuleType, kernel: Kernel, order: str) -> None:
    simt.set_order(order)
    dtypes = [*DTYPES] if kernel is KERNEL else ["float32"]
    for number, case in enumerate(sample(simt.flavour, CASES), ORDERS.index(order)):
        kernel.check(simt, case, "integers", dtypes[number % len(dtypes)], relu=number % 2 == 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_they_are_rounded_no_more_than_they_must(simt: ModuleType, dtype: str) -> None:
    (KERNEL if dtype != "float32" else SPLIT).check_rounding(simt, dtype, CASES)


def test_the_cases_are_cut(simt: ModuleType) -> None:
    found = [simt.conv2d_tensor_core_cut_fprop_splits(problem_of(case)) for case in CASES]
    assert sum(splits > 1 for splits in found) >= 6
    assert min(found) == 1


def test_filters_need_not_be_in_whole_units_for_y(simt: ModuleType) -> None:
    for number, K in enumerate((1, 5, 65)):
        case, dtype = ConvCase(2, 64, 5, 5, K, 3, 3), [*DTYPES][number]
        t = truth_of(case, "integers")
        found = KERNEL.results(simt, problem_of(case), t, dtype=dtype, passes=("y",))["y"]
        compare(logical(found), t.y.astype(dtype).astype(np.float64), 1, f"{case}", exact=True)


def logical(found: Any) -> Any:
    return found.transpose(0, 3, 1, 2)


def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType) -> None:
    for kernel in (KERNEL, SPLIT):
        kernel.check_orders(simt, CASES[:3])


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_an_image_has_the_same_bits_in_any_batch(simt: ModuleType, stride: tuple[int, int]) -> None:
    KERNEL.check_single_images(simt, ConvCase(9, 64, 5, 4, 40, 3, 3, stride=stride, padding=(1, 1)))


def test_the_epilogue_takes_part(simt: ModuleType) -> None:
    """Scale, shift and residual behind the sum of all parts, whether rows are whole packs or not."""
    for K in (64, 13):
        case = ConvCase(2, 64, 5, 5, K, 3, 3, padding=(1, 1))
        p, t, rng = problem_of(case), truth_of(case, "integers"), np.random.default_rng(K)
        shape = (p.N, p.P, p.Q, p.K)
        scale, shift = (rng.integers(-2, 3, K).astype(np.float32) for _ in range(2))
        residual = rng.integers(-9, 9, shape).astype(np.float32)
        x, w = (np.ascontiguousarray(a.transpose(0, 2, 3, 1), np.float32) for a in (t.x, t.w))
        y = np.full(shape, np.nan, np.float32)
        partial = np.empty((simt.conv2d_split_tensor_core_cut_fprop_splits(p), *shape), np.float32)
        simt.conv2d_split_tensor_core_cut_fprop(
            *(p, "float32", x, w, t.bias.astype(np.float32), y, True, partial, 0),
            scale=scale,
            shift=shift,
            residual=residual,
        )
        expected = np.maximum(t.y.transpose(0, 2, 3, 1) * scale + shift + residual, 0)
        np.testing.assert_array_equal(y, expected)


WRONG = {
    "fprop: padding": {"fprop": wrong_problem(padding=(1, 2))},
    "fprop: unwritten": {"fprop": after(unwritten, 5)},
    "fprop: one element": {"fprop": after(nudged, 5)},
    "dgrad: stride": {"dgrad": wrong_problem(stride=(1, 1))},
    "dgrad: one element": {"dgrad": after(nudged, 4)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = CASES[2]
    SPLIT.check(simt, case, "normal")
    planted = {f"conv2d_split_tensor_core_cut_{name}": change for name, change in WRONG[wrong].items()}
    with pytest.raises((AssertionError, ValueError), match=r"elements are wrong|never written|must have shape"):
        SPLIT.check(Planted(simt, **planted), case, "normal")


def test_the_table_and_the_kernels_agree_on_parts(simt: ModuleType) -> None:
    rng = np.random.default_rng([SEED, 13])
    seen = set()
    for _ in range(1000):
        N, C, H, W, K = (int(2 ** rng.uniform(0, top)) for top in (4, 11, 7, 7, 11))
        R, S, u, v, pad, dilation = (int(rng.integers(1, 4)) for _ in range(6))
        try:
            p = conv2d_problem((N, C, H, W), (K, C, R, S), (u, v), pad, dilation, 1)
        except ValueError:
            continue
        for sums, splits in (
            (cut.fprop_sums, simt.conv2d_tensor_core_cut_fprop_splits),
            (cut.dgrad_sums, simt.conv2d_tensor_core_cut_dgrad_splits),
        ):
            parts = cut.parts(sums(p))
            assert splits(p) == parts, p
            seen.add(min(parts, 3))
    assert seen == {1, 2, 3}


def chosen(table: Any, case: ConvCase, dtype: str, precision: str = "highest") -> str:
    p, like = replace(problem_of(case), precision=precision), np.empty(0, DTYPES[dtype])
    return next(spec.name for spec in table.specs("simt") if spec.why_not(p, like) is None)


def test_which_problems_are_cut() -> None:
    """The last stage of ResNet-18 at a batch of one; not at one of 32."""
    one = ConvCase(1, 512, 7, 7, 512, 3, 3, padding=(1, 1))
    for table in (ops.fprop, ops.dgrad):
        assert chosen(table, one, "float16") == "tensor_core_cut"
        assert chosen(table, one, "float32") == "split_bf16_cut"
        assert chosen(table, one, "float32", "high") == "tf32_cut"
        assert chosen(table, replace(one, N=32), "float16") == "tensor_core"
        assert chosen(table, replace(one, C=16, K=16, R=1, S=1), "float16") == "tensor_core"


def why_not(name: str, case: ConvCase) -> str:
    spec = next(spec for spec in ops.fprop.specs("simt") if spec.name == name)
    return spec.why_not(problem_of(case), np.empty(0, np.float16)) or ""


def test_reasons_are_told() -> None:
    one = ConvCase(1, 512, 7, 7, 512, 3, 3, padding=(1, 1))
    assert "tiles keep multiprocessors busy" in why_not("tensor_core_cut", replace(one, N=32))
    assert "too short to be cut" in why_not("tensor_core_cut", replace(one, C=16, R=1, S=1))
    assert "groups=1" in why_not("tensor_core_cut", replace(one, groups=2))


def test_too_many_images_are_refused(simt: ModuleType) -> None:
    """Before any memory is touched."""
    p = conv2d_problem((4096, 512, 7, 7), (512, 512, 3, 3), 1, 1, 1, 1)
    shape = (p.N, p.P, p.Q, p.K)
    x, w, y = np.zeros(shape, np.float16), np.zeros((512, 3, 3, 512), np.float16), np.empty(shape, np.float16)
    partial = np.empty((simt.conv2d_tensor_core_cut_fprop_splits(p), *shape), np.float32)
    with pytest.raises(ValueError, match="needs fewer images: its parts take more than 64 MiB"):
        simt.conv2d_tensor_core_cut_fprop(p, "float16", x, w, None, y, False, partial, 0)


def test_a_layer_goes_through_it(simt: ModuleType) -> None:
    rng = np.random.default_rng(3)
    x = gpucnn.tensor(rng.integers(-2, 3, (1, 128, 4, 4)).astype(np.float32), requires_grad=True)
    w = gpucnn.tensor(rng.integers(-2, 3, (64, 128, 3, 3)).astype(np.float32), requires_grad=True)
    y = F.conv2d(x, w, padding=1, kernel="split_bf16_cut")
    y.sum().backward()
    ones = np.ones(y.shape)
    compare(y.numpy(), naive.conv2d(x.numpy(), w.numpy(), None, padding=1), 1, "y", exact=True)
    assert x.grad is not None
    expected = naive.conv2d_input_grad(ones, w.numpy(), x.shape, padding=1)
    compare(x.grad.numpy(), expected, 1, "dx", exact=True)


@pytest.mark.parametrize("kernel", ["split_tensor_core", "split_tensor_core_cut"])
def test_what_is_not_finite_is_as_in_float32_in_every_pass(simt: ModuleType, kernel: str) -> None:
    """Infinities, NaN and the largest number among small integers; all else has the bits that it has without them."""
    case = ConvCase(1, 264, 3, 3, 264, 1, 1, bias=False)
    passes = ("y", "dx") if kernel.endswith("_cut") else ("y", "dx", "dw")
    p, clean, t = problem_of(case), Truth(case, "integers"), Truth(case, "integers")
    for one in (clean, t):
        one.w[one.w == 0], one.dy[one.dy == 0], one.x[one.x == 0] = 1, 2, 3
        # What the largest number is multiplied by.
        one.w[:, 11], one.dy[:, :, 2, 2] = np.sign(one.w[:, 11]), np.sign(one.dy[:, :, 2, 2])
    largest = float(np.finfo(np.float32).max)
    t.x[0, 5, 0, 1], t.x[0, 200, 1, 1], t.x[0, 11, 2, 2] = np.inf, np.nan, largest
    t.dy[0, 7, 0, 1], t.dy[0, 70, 1, 2] = -np.inf, np.nan
    for one in (clean, t):
        one.refresh(case)
    found, before = (Kernel(kernel, passes).results(simt, p, one) for one in (t, clean))
    for name in passes:
        exact, values = getattr(t, name), logical(found[name])
        assert not np.isfinite(exact).all()
        np.testing.assert_allclose(values, exact.astype(np.float32), rtol=2.0**-22, err_msg=name)
        same = getattr(clean, name) == exact
        assert same.any()
        assert values[same].tobytes() == logical(before[name])[same].tobytes(), name
