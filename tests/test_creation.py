"""Making tensors of one number, of many, at random."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import NHWC

import gpucnn
from gpucnn.testing import assert_close, assert_equal

SIZES = [(), (0,), (3,), (2, 0, 3), (2, 3, 4, 5), (1, 2, 3, 4, 5)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "bool"])
def test_of_one_number(size: tuple[int, ...], dtype: str) -> None:
    like = gpucnn.zeros(size, dtype=dtype)
    for name, number in (("zeros", 0), ("ones", 1), ("full", 1), ("empty", None)):
        given: dict[str, Any] = {"fill_value": number} if name == "full" else {}
        for made in (
            getattr(gpucnn, name)(size, dtype=dtype, **given),
            getattr(gpucnn, f"{name}_like")(like, **given),
            getattr(gpucnn, f"{name}_like")(gpucnn.zeros(size), dtype=dtype, **given),
        ):
            assert (made.shape, made.dtype, made.device, made.requires_grad) == (size, dtype, "cpu", False)
            if number is not None:
                assert_equal(made, np.full(size, number, dtype))
            if len(size) == 4 and made.dtype.kind == "f":
                assert made.data.transpose(NHWC).flags.c_contiguous
            else:
                assert made.data.flags.c_contiguous


def test_sizes_in_a_row_or_together() -> None:
    for name in ("zeros", "ones", "empty", "rand", "randn"):
        make = getattr(gpucnn, name)
        assert make(2, 3).shape == make((2, 3)).shape == make([2, 3]).shape == make(np.int64(2), 3).shape == (2, 3)
        assert make(2, 3, requires_grad=True).requires_grad
        with pytest.raises(ValueError, match=r"sizes must not be negative, got \(2, -1\)"):
            make(2, -1)
        with pytest.raises(TypeError, match=r"a size must be an integer, got 1\.5"):
            make(1.5)
    assert gpucnn.full(3, 7).tolist() == [7, 7, 7]


@pytest.mark.peers
def test_dtypes_are_pytorchs(torch: Any) -> None:
    for number in (True, 7, 2.5, -1, math.inf):
        assert str(gpucnn.full((2,), number).dtype) == str(torch.full((2,), number).dtype).removeprefix("torch.")
    like = gpucnn.zeros(2, dtype="float64")
    assert gpucnn.full_like(like, 3).dtype == gpucnn.ones_like(like).dtype == np.float64
    assert gpucnn.zeros_like(like, dtype="int8", device="cpu").dtype == np.int8


def test_what_is_no_tensor_or_number_is_refused() -> None:
    for make in (gpucnn.zeros_like, gpucnn.ones_like, gpucnn.empty_like):
        with pytest.raises(TypeError, match=r"input must be a gpucnn.Tensor, got ndarray"):
            make(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected numbers"):
        gpucnn.full((2,), "a")
    with pytest.raises(ValueError, match="device must be"):
        gpucnn.zeros(2, device="gpu")


@pytest.mark.peers
@pytest.mark.parametrize(
    "arguments",
    [(5,), (1, 5), (0, 1, 0.25), (5, 0, -2), (2.5,), (0, 1, 0.1), (3, 3), (-2, 2), (0,), (1, 0, -0.5), (0.0, 3)],
    ids=str,
)
def test_ranges_are_pytorchs(arguments: tuple[Any, ...], torch: Any) -> None:
    ours, theirs = gpucnn.arange(*arguments), torch.arange(*arguments)
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    assert_close(ours.to("float64"), theirs.double(), rtol=1e-7, atol=1e-7)
    assert gpucnn.arange(*arguments, dtype="float64", requires_grad=True).requires_grad


def test_ranges_that_lead_nowhere_are_refused() -> None:
    for arguments in ((0, 5, 0), (0, 5, -1), (5, 0)):
        with pytest.raises(ValueError, match=r"arange: a step of -?\d does not lead from"):
            gpucnn.arange(*arguments)


def test_identity_matrices() -> None:
    assert gpucnn.eye(3).tolist() == np.eye(3).tolist()
    assert gpucnn.eye(2, 3, dtype="int64").tolist() == [[1, 0, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="negative"):
        gpucnn.eye(-1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", ["rand", "randn"])
def test_random_numbers_follow_the_seed_and_their_distribution(name: str, dtype: str) -> None:
    make = getattr(gpucnn, name)
    gpucnn.manual_seed(3)
    first, second = make(100, 100, dtype=dtype), make(100, 100, dtype=dtype)
    gpucnn.manual_seed(3)
    assert_equal(make(100, 100, dtype=dtype), first.numpy())
    assert not np.array_equal(first.numpy(), second.numpy())
    assert first.dtype == dtype
    numbers = first.numpy().astype("float64")
    mean, deviation = (0.5, 12**-0.5) if name == "rand" else (0, 1)
    assert abs(numbers.mean() - mean) < 5 * deviation / 100
    assert abs(numbers.std() / deviation - 1) < 0.05
    if name == "rand":
        assert numbers.min() >= 0
        assert numbers.max() < 1


def test_random_halves_do_not_reach_1() -> None:
    gpucnn.manual_seed(0)
    assert gpucnn.rand(1_000_000, dtype="float16").max().item() < 1


def test_random_images_lie_channels_last_and_integers_are_refused() -> None:
    assert gpucnn.randn(2, 3, 4, 5).data.transpose(NHWC).flags.c_contiguous
    for make in (gpucnn.rand, gpucnn.randn):
        with pytest.raises(TypeError, match="random numbers need a floating dtype, got int64"):
            make(2, dtype="int64")
