"""Interpolation: every kernel against the truth, F.interpolate with gradients against PyTorch, corners."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NCHW, check_no_copies, check_threads, compare, draw, each_kernel, names, nhwc, plant
from upsample_cases import CASES, MODES, Case, problem, truth

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.ops import upsample as ops
from gpucnn.reference import upsample as reference
from gpucnn.reference.upsample import InterpolateProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

INF, NAN = math.inf, math.nan


def check(case: Case, options: dict[str, Any], dtype: str) -> None:
    __tracebackhide__ = True
    x, y, dy, dx = truth(case, **options)
    p = problem(case, **options)
    # A weight is the fraction of a place, and in float64 as inexact as the place: by eps times a number of inputs.
    read = 4 * max(p.H, p.W) ** 2 if dtype == "float64" else 4
    gathered = 4 * -(-p.P // p.H) * -(-p.Q // p.W)  # gradients of so many outputs come together in an input
    for table, array, expected, terms in (
        (ops.interpolate_fprop, x, y, read),
        (ops.interpolate_dgrad, dy, dx, read + gathered),
    ):
        for name, found in each_kernel(table, p, nhwc(array, dtype)):
            assert (found.flags.c_contiguous, found.dtype) == (True, np.dtype(dtype)), name
            moved = table is ops.interpolate_fprop and p.mode != "bilinear"  # and none is changed
            compare(found.transpose(NCHW), expected, terms, name, exact=moved)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_every_kernel(case: Case, mode: str, block_bytes: int) -> None:
    for dtype in ("float64", "float32", "float16"):
        check(case, MODES[mode], dtype)


def test_these_are_all_kernels() -> None:
    assert [names(table) for table in (ops.interpolate_fprop, ops.interpolate_dgrad)] == [["separable"]] * 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("many_blocks")
def test_the_number_of_threads_changes_no_bit(mode: str) -> None:
    p = problem((3, 5, 7, 6, 13, 20, None), **MODES[mode])
    x, dy = draw("normal", (3, 7, 6, 5)), draw("normal", (3, 13, 20, 5))
    check_threads(lambda: [reference.interpolate_fprop(p, x), reference.interpolate_dgrad(p, dy)])


def test_small_integers_are_exact_where_weights_are() -> None:
    """At twice the size they are quarters, along either axis."""
    case = CASES[0]
    x = draw("integers", case[:4])
    y = naive.interpolate(x, case[4:6], "bilinear")
    for dtype in ("float64", "float32", "float16"):
        for name, found in each_kernel(ops.interpolate_fprop, problem(case, "bilinear"), nhwc(x, dtype)):
            assert_equal(found.transpose(NCHW), y, dtype=dtype, signed_zeros=False, name=name)


# ----------------------------------------------------------------------------------------------------- against PyTorch


def run_both(torch: Any, case: Case, dtype: str, options: dict[str, Any]) -> tuple[Any, ...]:
    """(y, dx) of ours and of theirs."""
    *_, P, Q, scale = case
    size = {"size": (P, Q)} if scale is None else {"scale_factor": scale}
    x, _, dy, _ = truth(case, **MODES["nearest"])
    ours = gpucnn.tensor(x, dtype, requires_grad=True)
    theirs = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
    y = F.interpolate(ours, **size, **options)
    expected = torch.nn.functional.interpolate(theirs, **size, **options)
    assert y.shape == dy.shape
    y.backward(gpucnn.tensor(dy, dtype))
    expected.backward(torch.tensor(dy, dtype=expected.dtype))
    return y, ours.grad, expected.detach().double().numpy(), theirs.grad.double().numpy()


def pytorch_can(mode: str, case: Case) -> bool:
    """Not an empty batch. Antialiased it mistakes rows where outputs are one pixel wide, and its gradient along an axis
    that keeps its size in spite of a factor is not that of its forward pass."""
    N, _, H, W, P, Q, scale = case
    if not mode.startswith("antialias"):
        return N > 0
    return N > 0 and not Q == 1 < P and (scale is None or (P != H and Q != W))


@pytest.mark.peers
@pytest.mark.parametrize(
    ("mode", "case"), [(m, c) for m in (*MODES, "area") for c in CASES if pytorch_can(m, c)], ids=str
)
def test_interpolate_is_pytorchs(mode: str, case: Case, torch: Any) -> None:
    options = MODES.get(mode, {"mode": "area"})
    y, dx, expected, expected_dx = run_both(torch, case, "float64", options)
    assert_close(y, expected, rtol=1e-12, atol=1e-12, name="y")
    assert_close(dx, expected_dx, rtol=1e-11, atol=1e-11, name="dx")
    y, dx, expected, expected_dx = run_both(torch, case, "float32", options)
    assert_close(y, expected, rtol=1e-5, atol=1e-5, name="y")  # PyTorch computes its weights in float32
    assert_close(dx, expected_dx, rtol=1e-4, atol=1e-4, name="dx")


@pytest.mark.peers
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nearest_is_pytorchs_at_every_size(mode: str, dtype: str, torch: Any) -> None:
    """Where floor() is taken of a whole number, rounding decides: in float32, for images of float64 too."""
    factors = (0.3, 1 / 3, 0.7, 0.9, 1.1, 1.5, 1.7, 2, 2.3333, 3)
    for size in range(1, 34):
        places = np.arange(size, dtype=dtype).reshape(1, 1, 1, size)
        ours, theirs = gpucnn.Tensor(places), torch.tensor(places)
        wanted: list[dict[str, Any]] = [{"size": (1, count)} for count in range(1, 50)]
        wanted += [{"scale_factor": (1.0, factor)} for factor in factors if size * factor >= 1]
        for options in wanted:
            expected = torch.nn.functional.interpolate(theirs, **options, mode=mode)
            assert_equal(F.interpolate(ours, **options, mode=mode), expected, name=f"{size} {options}")


@pytest.mark.peers
@pytest.mark.parametrize("mode", ["bilinear", "corners"])
@pytest.mark.parametrize("size", [(6, 6), (5, 5), (2, 2), (3, 6), (4, 7)], ids=str)
def test_infinities_reach_what_pytorchs_reach(mode: str, size: tuple[int, int], torch: Any) -> None:
    """A weight of 0 makes NaN of an infinity; but along an axis that stays as it is, each pixel is itself, not NaN."""
    x = np.zeros((1, 3, 3, 3))
    x[0, 0, 1, 1], x[0, 1, 0, 2] = INF, NAN
    ours, theirs = gpucnn.tensor(x), torch.tensor(x)
    y = F.interpolate(ours, size, **MODES[mode]).numpy()
    expected = torch.nn.functional.interpolate(theirs, size, **MODES[mode]).numpy()
    if 3 in size:
        assert np.isnan(expected[0, 0]).sum() > np.isnan(y[0, 0]).sum()
        assert_equal(y[~np.isnan(expected)], expected[~np.isnan(expected)])
    else:
        assert_close(y, expected, rtol=0, atol=0, equal_nan=True)


# ------------------------------------------------------------------------------------------ sizes, gradients, layouts


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"size": 3}, (3, 3)),
        ({"size": [3, 8]}, (3, 8)),
        ({"scale_factor": 2}, (8, 10)),
        ({"scale_factor": np.float32(1.5)}, (6, 7)),
        ({"scale_factor": (0.5, 1)}, (2, 5)),
        ({"scale_factor": 0.25}, (1, 1)),
        ({"scale_factor": (2.6, 1.3), "recompute_scale_factor": False}, (10, 6)),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", [*MODES, "area"])
def test_output_sizes(options: dict[str, Any], size: tuple[int, int], mode: str) -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)))
    assert F.interpolate(x, **options, **MODES.get(mode, {"mode": "area"})).shape == (2, 3, *size)


def test_recomputing_the_factor_is_giving_the_size() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)))
    scaled = F.interpolate(x, scale_factor=(2.6, 1.3), mode="bilinear")
    again = F.interpolate(x, scale_factor=(2.6, 1.3), mode="bilinear", recompute_scale_factor=True)
    sized = F.interpolate(x, (10, 6), mode="bilinear")
    assert_equal(again, sized.numpy())
    assert np.abs(scaled.numpy() - sized.numpy()).max() > 1e-3


def test_antialiasing_lets_no_stripes_through() -> None:
    """Stripes one pixel wide vanish at a third of the size; interpolation between the nearest makes stripes of them."""
    stripes = gpucnn.tensor(np.tile([1.0, -1.0], (1, 1, 18, 9)))
    for antialias, lowest, highest in ((False, 0.9, 1.0), (True, 0.0, 0.2)):
        y = F.interpolate(stripes, (6, 6), mode="bilinear", antialias=antialias).numpy()
        assert lowest <= np.abs(y).max() <= highest


def test_antialiasing_changes_nothing_where_images_grow() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)))
    for size in ((4, 5), (7, 13), (8, 10)):
        expected = F.interpolate(x, size, mode="bilinear").numpy()
        assert_close(F.interpolate(x, size, mode="bilinear", antialias=True), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{"size": (7, 6)}, {"scale_factor": 2}, {"size": (2, 3)}], ids=str)
def test_gradients_are_central_differences(mode: str, options: dict[str, Any]) -> None:
    x = gpucnn.tensor(draw("normal", (2, 2, 3, 4)), requires_grad=True)
    assert gradcheck(lambda images: F.interpolate(images, **options, **MODES[mode]), [x])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["x", "dy"])
@pytest.mark.parametrize("mode", MODES)
def test_any_memory_layout_is_taken(operand: str, mode: str, layout: str) -> None:
    case = CASES[0]
    x, y, dy, dx = (a.copy() for a in truth(case, **MODES[mode]))
    x, dy = (LAYOUTS[layout](a) if name == operand else a for name, a in (("x", x), ("dy", dy)))
    leaf = gpucnn.Tensor(x, requires_grad=True)
    found = F.interpolate(leaf, case[4:6], **MODES[mode])
    found.backward(dy)
    compare(found, y, 4)
    compare(leaf.grad, dx, 16)


@pytest.mark.parametrize("mode", [*MODES, "area"])
@pytest.mark.parametrize("size", [(8, 10), (4, 5), (3, 7)], ids=str)
def test_channels_last_stays_channels_last_without_a_copy(mode: str, size: tuple[int, int]) -> None:
    check_no_copies(lambda x: F.interpolate(x, size, **MODES.get(mode, {"mode": "area"})), (2, 3, 4, 5))


@pytest.mark.parametrize("mode", MODES)
def test_what_keeps_its_size_is_a_copy(mode: str) -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)))
    y = F.interpolate(x, (4, 5), **MODES[mode])
    assert_equal(y, x.numpy())
    assert not np.shares_memory(y.numpy(), x.numpy())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_empty_batch(mode: str, dtype: str) -> None:
    x = gpucnn.zeros(0, 3, 4, 5, dtype=dtype, requires_grad=True)
    y = F.interpolate(x, scale_factor=2, **MODES[mode])
    assert (y.shape, y.dtype) == ((0, 3, 8, 10), np.dtype(dtype))
    y.backward(np.zeros(y.shape, dtype))
    assert (x.grad.shape, x.grad.dtype) == (x.shape, np.dtype(dtype))


def test_gradients_of_half_precision_are_summed_in_float32() -> None:
    x = gpucnn.zeros(1, 1, 1, 1, dtype="float16", requires_grad=True)
    F.interpolate(x, 64).backward(np.full((1, 1, 64, 64), 1 + 2**-10, np.float16))
    assert x.grad.item() == 4100  # one at a time, float16 would stop counting at 2048


@pytest.mark.parametrize(
    ("layer", "options", "text"),
    [
        (nn.Upsample(scale_factor=2), {"scale_factor": 2}, "Upsample(scale_factor=2, mode='nearest')"),
        (nn.Upsample((3, 4), mode="bilinear"), {"size": (3, 4), **MODES["bilinear"]}, "size=(3, 4), mode='bilinear')"),
        (
            nn.Upsample(None, (2.6, 1.3), "bilinear", False, True),
            {"scale_factor": (2.6, 1.3), "recompute_scale_factor": True, **MODES["bilinear"]},
            "Upsample(scale_factor=(2.6, 1.3), mode='bilinear')",
        ),
        (nn.UpsamplingNearest2d(scale_factor=3), {"scale_factor": 3}, "UpsamplingNearest2d(scale_factor=3"),
        (nn.UpsamplingBilinear2d((7, 9)), {"size": (7, 9), **MODES["corners"]}, "UpsamplingBilinear2d(size=(7, 9)"),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "",
)
def test_layers(layer: nn.Module, options: dict[str, Any], text: str) -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)))
    assert_equal(layer(x), F.interpolate(x, **options).numpy())
    assert text in repr(layer)


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "give one of size and scale_factor, got None and None"),
        ({"size": 4, "scale_factor": 2}, ValueError, "give one of size and scale_factor, got 4 and 2"),
        ({"size": 0}, ValueError, "size=0 makes 0 x 0 of the 4 x 5 input"),
        ({"size": (3, -1)}, ValueError, r"size=\(3, -1\) makes 3 x -1"),
        ({"size": (3,)}, ValueError, r"size takes a number or a pair \(vertical, horizontal\), got \(3,\)"),
        ({"size": 2.0}, TypeError, "size must be an integer, got 2.0"),
        ({"size": (None, 3)}, TypeError, "size must be an integer, got None"),
        ({"scale_factor": 0.2}, ValueError, "scale_factor=0.2 makes 0 x 1 of the 4 x 5 input"),
        ({"scale_factor": 0}, ValueError, "scale_factor must be finite and above 0, got 0"),
        ({"scale_factor": (2, -1.5)}, ValueError, "scale_factor must be finite and above 0, got -1.5"),
        ({"scale_factor": INF}, ValueError, "scale_factor must be finite and above 0, got inf"),
        ({"scale_factor": NAN}, ValueError, "scale_factor must be finite and above 0, got nan"),
        ({"scale_factor": (2, 2, 2)}, ValueError, "scale_factor takes a number or a pair"),
        ({"scale_factor": "2"}, TypeError, "scale_factor must be a number or a pair of them, got '2'"),
        ({"scale_factor": (2, None)}, TypeError, "scale_factor must be a number or a pair of them, got None"),
        ({"size": 4, "mode": "bicubic"}, ValueError, "mode must be one of 'nearest', .*'area', got 'bicubic'"),
        ({"size": 4, "mode": None}, ValueError, "mode must be one of"),
        (
            {"size": 4, "align_corners": False},
            ValueError,
            "align_corners goes with mode='bilinear', not with 'nearest'",
        ),
        ({"size": 4, "mode": "area", "align_corners": True}, ValueError, "not with 'area'"),
        ({"size": 4, "antialias": True}, ValueError, "antialias goes with mode='bilinear', not with 'nearest'"),
        ({"size": 4, "mode": "area", "antialias": True}, ValueError, "antialias goes with .*, not with 'area'"),
        ({"size": 4, "recompute_scale_factor": True}, ValueError, "recompute_scale_factor goes with scale_factor"),
    ],
    ids=str,
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^interpolate: .*{message}"):
        F.interpolate(gpucnn.zeros(2, 3, 4, 5), **options)


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (1, 2, 3, 4, 5)], ids=str)
def test_only_batches_of_images_are_resized(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"interpolate: input must have shape \(N, C, H, W\), got \(.*5\)"):
        F.interpolate(gpucnn.zeros(*shape), scale_factor=2)


def test_bad_tensors() -> None:
    for shape in ((2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)):
        with pytest.raises(ValueError, match=r"interpolate: channels and image must not be empty, got input \(2, "):
            F.interpolate(gpucnn.zeros(*shape), 3)
    with pytest.raises(TypeError, match="interpolate: input must have a floating dtype, got int64"):
        F.interpolate(gpucnn.tensor(np.ones((1, 1, 2, 2), np.int64)), 3)
    with pytest.raises(TypeError, match=r"interpolate: input must be a gpucnn.Tensor, got ndarray"):
        F.interpolate(np.ones((1, 1, 2, 2)), 3)


# ------------------------------------------------------------------------------------- wrong kernels must be caught


def rows_exchanged(p: InterpolateProblem, x: np.ndarray) -> np.ndarray:
    y = reference.interpolate_fprop(p, x)
    y[:, 0], y[:, -1] = y[:, -1].copy(), y[:, 0].copy()
    return y


def last_output_only(p: InterpolateProblem, dy: np.ndarray) -> np.ndarray:
    return dy[:, -(-p.P // p.H) - 1 :: -(-p.P // p.H), -(-p.Q // p.W) - 1 :: -(-p.Q // p.W)].copy()


def without_the_border(p: InterpolateProblem, dy: np.ndarray) -> np.ndarray:
    inside = dy.copy()
    inside[:, :, -1] = 0
    return reference.interpolate_dgrad(p, inside)


@pytest.mark.parametrize(
    ("table", "wrong", "mode"),
    [
        (ops.interpolate_fprop, rows_exchanged, "nearest"),
        (ops.interpolate_dgrad, last_output_only, "nearest"),
        (ops.interpolate_dgrad, without_the_border, "bilinear"),
    ],
    ids=["rows-exchanged", "last-output-only", "without-the-border"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(CASES[0], MODES[mode], "float32")
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted.* elements are wrong"):
        check(CASES[0], MODES[mode], "float32")


@pytest.mark.parametrize("planted", ["bilinear", "corners"])
def test_the_two_rules_of_corners_are_told_apart(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"bilinear": "corners", "corners": "bilinear"}[planted]
    wrong = problem(CASES[0], **MODES[planted])
    plant(monkeypatch, ops.interpolate_fprop, lambda p, x: reference.interpolate_fprop(wrong, x))
    with pytest.raises(AssertionError, match=r"planted.* elements are wrong"):
        check(CASES[0], MODES[other], "float32")
