"""What only moves pixels, pixel shuffle, its inverse and bed of nails: exact in every dtype."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NCHW, check_no_copies, check_threads, draw, each_kernel, names, nhwc, plant

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.ops import upsample as ops
from gpucnn.reference import upsample as reference
from gpucnn.reference.upsample import NailsProblem, ShuffleProblem
from gpucnn.testing import assert_equal, gradcheck, naive

SHUFFLES = [(2, 3, 4, 5, 2), (1, 1, 1, 1, 3), (0, 2, 3, 3, 2), (3, 7, 2, 3, 3), (1, 33, 3, 2, 2), (2, 4, 5, 3, 1)]
"""N, C, H, W and factor; C of the larger image, H and W of the smaller."""
NAILS = [(2, 3, 4, 5, (2, 2)), (1, 1, 1, 1, (3, 2)), (0, 2, 3, 3, (2, 2)), (3, 7, 2, 3, (1, 4)), (1, 2, 5, 3, (1, 1))]


@functools.cache
def shuffle_truth(case: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(x, the same pixels shuffled)."""
    N, C, H, W, factor = case
    x = draw("normal", (N, C * factor**2, H, W))
    y = naive.pixel_shuffle(x, factor)
    assert_equal(naive.pixel_unshuffle(y, factor), x)
    return x, y


def check_shuffle(case: tuple[int, ...], dtype: str) -> None:
    __tracebackhide__ = True
    N, C, H, W, factor = case
    x, y = shuffle_truth(case)
    p = ShuffleProblem(N, H, W, C, factor)
    for table, given, expected in ((ops.shuffle, x, y), (ops.unshuffle, y, x)):
        for name, found in each_kernel(table, p, nhwc(given, dtype)):
            assert found.flags.c_contiguous, name
            assert_equal(found.transpose(NCHW), expected.astype(dtype), dtype=dtype, name=name)


@functools.cache
def nails_truth(case: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    """x, y, dy, dx."""
    *shape, factor = case
    x = draw("normal", tuple(shape))
    y = naive.bed_of_nails(x, factor)
    dy = draw("normal", y.shape, 1)
    return x, y, dy, naive.bed_of_nails_grad(dy, factor)


def check_nails(case: tuple[Any, ...], dtype: str) -> None:
    __tracebackhide__ = True
    N, C, H, W, factor = case
    x, y, dy, dx = nails_truth(case)
    p = NailsProblem(N, H, W, C, factor)
    for table, given, expected in ((ops.nails_fprop, x, y), (ops.nails_dgrad, dy, dx)):
        for name, found in each_kernel(table, p, nhwc(given, dtype)):
            assert found.flags.c_contiguous, name
            assert_equal(found.transpose(NCHW), expected.astype(dtype), dtype=dtype, name=name)


@pytest.mark.parametrize("case", SHUFFLES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint8"])
def test_kernels_of_pixel_shuffle(case: tuple[int, ...], dtype: str, block_bytes: int) -> None:
    check_shuffle(case, dtype)


@pytest.mark.parametrize("case", NAILS, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_kernels_of_bed_of_nails(case: tuple[Any, ...], dtype: str) -> None:
    check_nails(case, dtype)


def test_these_are_all_kernels() -> None:
    tables = (ops.shuffle, ops.unshuffle, ops.nails_fprop, ops.nails_dgrad)
    assert [names(table) for table in tables] == [["array"]] * 4


@pytest.mark.usefixtures("many_blocks")
def test_the_number_of_threads_changes_no_bit() -> None:
    x, y = (nhwc(a) for a in shuffle_truth(SHUFFLES[3]))
    p = ShuffleProblem(3, 2, 3, 7, 3)
    check_threads(lambda: [reference.shuffle(p, x), reference.unshuffle(p, y)])


# ----------------------------------------------------------------------------------------------------- against PyTorch


@pytest.mark.peers
@pytest.mark.parametrize("lead", [(2,), (), (2, 3), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle_is_pytorchs_over_any_leading_axes(lead: tuple[int, ...], factor: int, torch: Any) -> None:
    x, dy = draw("normal", (*lead, 2 * factor**2, 4, 3)), draw("normal", (*lead, 2, 4 * factor, 3 * factor))
    for name, given, gradient in (("pixel_shuffle", x, dy), ("pixel_unshuffle", dy, x)):
        ours, theirs = gpucnn.tensor(given, requires_grad=True), torch.tensor(given, requires_grad=True)
        found = getattr(F, name)(ours, factor)
        expected = getattr(torch.nn.functional, name)(theirs, factor)
        found.backward(gradient)
        expected.backward(torch.tensor(gradient))
        assert_equal(found, expected.detach(), name=name)
        assert_equal(ours.grad, theirs.grad, name=f"{name} gradient")


# -------------------------------------------------------------------------------------------------- gradients, layouts


@pytest.mark.parametrize(
    "run",
    [
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: F.pixel_unshuffle(x, 2),
        lambda x: F.pixel_shuffle(x[0], 2),
        lambda x: F.bed_of_nails(x, (2, 3)),
        lambda x: F.bed_of_nails(x[1], 2),
    ],
    ids=["shuffle", "unshuffle", "shuffle-unbatched", "nails", "nails-unbatched"],
)
def test_gradients_are_central_differences(run: Any) -> None:
    assert gradcheck(run, [gpucnn.tensor(draw("normal", (2, 4, 2, 4)), requires_grad=True)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["x", "dy"])
def test_any_memory_layout_is_taken(operand: str, layout: str) -> None:
    def laid_out(name: str, array: np.ndarray) -> np.ndarray:
        return LAYOUTS[layout](array) if name == operand else array.copy()

    x, y = shuffle_truth(SHUFFLES[0])
    for run, given, expected in ((F.pixel_shuffle, x, y), (F.pixel_unshuffle, y, x)):
        leaf = gpucnn.Tensor(laid_out("x", given), requires_grad=True)
        found = run(leaf, 2)
        found.backward(laid_out("dy", expected))
        assert_equal(found, expected)
        assert_equal(leaf.grad, given)
    x, y, dy, dx = nails_truth(NAILS[0])
    leaf = gpucnn.Tensor(laid_out("x", x), requires_grad=True)
    found = F.bed_of_nails(leaf, 2)
    found.backward(laid_out("dy", dy))
    assert_equal(found, y)
    assert_equal(leaf.grad, dx)


@pytest.mark.parametrize("run", [F.pixel_shuffle, F.pixel_unshuffle, F.bed_of_nails])
def test_channels_last_stays_channels_last_without_a_copy(run: Any) -> None:
    check_no_copies(lambda x: run(x, 2), (2, 8, 4, 6))


def test_shuffling_takes_any_dtype_and_empty_images() -> None:
    x = gpucnn.tensor(np.arange(32).reshape(1, 8, 2, 2))
    y = F.pixel_shuffle(x, 2)
    assert y.dtype == np.int64
    assert not y.requires_grad
    assert_equal(F.pixel_unshuffle(y, 2), x.numpy())
    for shape, expected in (((0, 8, 3, 2), (0, 2, 6, 4)), ((1, 8, 0, 3), (1, 2, 0, 6)), ((1, 0, 2, 3), (1, 0, 4, 6))):
        empty = gpucnn.zeros(*shape, requires_grad=True)
        shuffled = F.pixel_shuffle(empty, 2)
        assert shuffled.shape == expected
        shuffled.backward(np.zeros(expected, np.float32))
        assert empty.grad is not None
        assert empty.grad.shape == F.pixel_unshuffle(shuffled, 2).shape == shape


def test_layers() -> None:
    x = gpucnn.tensor(draw("normal", (2, 8, 4, 6)))
    assert_equal(nn.PixelShuffle(2)(x), F.pixel_shuffle(x, 2).numpy())
    assert_equal(nn.PixelUnshuffle(2)(x), F.pixel_unshuffle(x, 2).numpy())
    assert_equal(nn.BedOfNails((2, 3))(x), F.bed_of_nails(x, (2, 3)).numpy())
    assert [repr(layer) for layer in (nn.PixelShuffle(2), nn.PixelUnshuffle(3), nn.BedOfNails((2, 3)))] == [
        "PixelShuffle(upscale_factor=2)",
        "PixelUnshuffle(downscale_factor=3)",
        "BedOfNails(scale_factor=(2, 3))",
    ]


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("op", "shape", "factor", "error", "message"),
    [
        ("pixel_shuffle", (8, 2), 2, ValueError, r"input must have 3 axes or more, \(..., C, H, W\), got \(8, 2\)"),
        ("pixel_shuffle", (1, 7, 2, 3), 2, ValueError, r"upscale_factor\*\*2 = 4 must divide the 7 channels"),
        ("pixel_shuffle", (1, 8, 2, 3), 0, ValueError, "upscale_factor must be at least 1, got 0"),
        ("pixel_shuffle", (1, 8, 2, 3), 2.0, TypeError, "upscale_factor must be an integer, got 2.0"),
        ("pixel_shuffle", (1, 8, 2, 3), (2, 2), TypeError, r"upscale_factor must be an integer, got \(2, 2\)"),
        ("pixel_unshuffle", (1, 2), 2, ValueError, "input must have 3 axes or more"),
        ("pixel_unshuffle", (1, 3, 4, 7), 2, ValueError, "downscale_factor=2 must divide height and width of input"),
        ("pixel_unshuffle", (1, 3, 5, 6), 2, ValueError, r"height and width of input \(1, 3, 5, 6\)"),
        ("pixel_unshuffle", (1, 3, 4, 6), -1, ValueError, "downscale_factor must be at least 1, got -1"),
        ("bed_of_nails", (1, 3, 4, 6), 0, ValueError, "scale_factor must be at least 1, got 0"),
        ("bed_of_nails", (1, 3, 4, 6), (2, 2, 2), ValueError, r"scale_factor takes an int or a pair"),
        ("bed_of_nails", (1, 3, 4, 6), 1.5, TypeError, "scale_factor must be an integer, got 1.5"),
        ("bed_of_nails", (4, 6), 2, ValueError, r"input must have shape \(N, C, H, W\) or \(C, H, W\), got \(4, 6\)"),
    ],
    ids=str,
)
def test_bad_arguments(op: str, shape: tuple[int, ...], factor: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{op}: .*{message}"):
        getattr(F, op)(gpucnn.zeros(*shape), factor)


@pytest.mark.parametrize("op", ["pixel_shuffle", "pixel_unshuffle", "bed_of_nails"])
def test_what_is_no_tensor(op: str) -> None:
    with pytest.raises(TypeError, match=f"{op}: input must be a gpucnn.Tensor, got ndarray"):
        getattr(F, op)(np.ones((1, 4, 2, 2)), 2)


def test_nails_are_of_floats() -> None:
    with pytest.raises(TypeError, match="bed_of_nails: input must have a floating dtype, got int64"):
        F.bed_of_nails(gpucnn.tensor(np.ones((1, 1, 2, 2), np.int64)), 2)


# ------------------------------------------------------------------------------------- wrong kernels must be caught


def rows_and_columns_exchanged(p: ShuffleProblem, x: np.ndarray) -> np.ndarray:
    swapped = x.reshape(p.N, p.H, p.W, p.C, p.factor, p.factor).swapaxes(4, 5)
    return reference.shuffle(p, np.ascontiguousarray(swapped).reshape(x.shape))


def channels_last_in_the_cell(p: ShuffleProblem, y: np.ndarray) -> np.ndarray:
    x = reference.unshuffle(p, y).reshape(p.N, p.H, p.W, p.C, p.factor**2)
    return np.ascontiguousarray(x.swapaxes(3, 4)).reshape(p.N, p.H, p.W, -1)


def repeated(p: NailsProblem, x: np.ndarray) -> np.ndarray:
    return x.repeat(p.factor[0], axis=1).repeat(p.factor[1], axis=2)


def bottom_right(p: NailsProblem, dy: np.ndarray) -> np.ndarray:
    return dy[:, p.factor[0] - 1 :: p.factor[0], p.factor[1] - 1 :: p.factor[1]].copy()


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (ops.shuffle, rows_and_columns_exchanged),
        (ops.unshuffle, channels_last_in_the_cell),
        (ops.nails_fprop, repeated),
        (ops.nails_dgrad, bottom_right),
    ],
    ids=["rows-and-columns-exchanged", "channels-last-in-the-cell", "repeated", "bottom-right"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        check_shuffle(SHUFFLES[0], "float32")
        check_nails(NAILS[0], "float32")

    check()
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted.* elements are wrong"):
        check()
