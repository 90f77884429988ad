"""The comparer must refuse what is wrong: every test here plants a fault or sits right on the limit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gpucnn.testing import assert_close, assert_equal, to_numpy, tolerance

NAN, INF = math.nan, math.inf


class AsTensor:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def numpy(self) -> np.ndarray:
        return self.array


class AsCupy(AsTensor):
    numpy = None  # type: ignore[assignment]

    def get(self) -> np.ndarray:
        return self.array


def message_of(actual: Any, expected: Any, check: Any = assert_close, **options: Any) -> str:
    if check is assert_close:
        options = {"rtol": 1e-5, "atol": 1e-6} | options
    with pytest.raises(AssertionError) as caught:
        check(actual, expected, **options)
    return str(caught.value)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 5, 100, 1000)).astype(np.float32)


def test_equal_arrays_pass_whatever_wraps_them(image: np.ndarray) -> None:
    for wrap in (np.asarray, AsTensor, AsCupy):
        assert to_numpy(wrap(image)) is image
        assert_close(wrap(image), image.copy(), rtol=0, atol=0)
        assert_equal(image.copy(), wrap(image))
    assert_close(np.float32(1.5), 1.5, rtol=0, atol=0)
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)), rtol=0, atol=0)


def test_the_limit_itself_passes_and_the_next_number_fails() -> None:
    assert_close(np.array([1.5, -1.5]), [1.0, -1.0], rtol=0.25, atol=0.25)
    assert_close(np.array([1.5]), [1.0], rtol=0, atol=0.5)
    assert_close(np.array([3.0]), [2.0], rtol=0.5, atol=0)
    message_of(np.array([np.nextafter(1.5, 2)]), [1.0], rtol=0.25, atol=0.25)
    message_of(np.array([2.0]), [3.0], rtol=0.3, atol=0)  # rtol is of expected
    assert_close(np.array([3.0]), [2.0], rtol=0.5, atol=0)


def test_one_wrong_element_in_a_million_fails(image: np.ndarray) -> None:
    wrong = image.copy()
    wrong[1, 3, 77, 765] += 0.5
    message = message_of(wrong, image, name="conv2d dx")
    assert message.startswith("conv2d dx: 1 of 1000000 elements are wrong (0.0001 %), rtol 1e-05, atol 1e-06")
    assert "[1:2, 3:4, 77:78, 765:766]" in message
    assert "(1, 3, 77, 765)" in message
    assert str(wrong[1, 3, 77, 765]) in message
    assert str(image[1, 3, 77, 765]) in message


def test_one_nan_fails_even_under_a_huge_tolerance(image: np.ndarray) -> None:
    wrong = image.copy()
    wrong[0, 0, 0, 1] = NAN
    message = message_of(wrong, image, rtol=1e30, atol=1e30)
    assert "1 of 1000000" in message
    assert "(0, 0, 0, 1)" in message
    assert "nan" in message
    message_of(image, wrong)  # in the truth as well
    message_of(wrong, wrong.copy())  # and in both
    message_of(wrong, image, equal_nan=True)
    message_of(image, wrong, equal_nan=True)
    assert_close(wrong, wrong.copy(), rtol=0, atol=0, equal_nan=True)


def test_a_wrong_tile_fails_and_is_located(image: np.ndarray) -> None:
    """Cosine similarity is above 0.9999 here."""
    wrong = image.copy()
    wrong[1, 2, 8:16, 16:24] = 0
    similarity = np.vdot(wrong, image) / np.linalg.norm(wrong) / np.linalg.norm(image)
    assert similarity > 0.9999
    message = message_of(wrong, image)
    assert "64 of 1000000 elements are wrong (0.0064 %)" in message
    assert "within [1:2, 2:3, 8:16, 16:24] of shape [2, 5, 100, 1000]; the worst 8:" in message
    worst = np.unravel_index(np.argmax(np.abs(wrong - image) / (1e-6 + 1e-5 * np.abs(image))), image.shape)
    assert message.splitlines()[3].strip().startswith(str(tuple(int(i) for i in worst)))
    assert len(message.splitlines()) == 3 + 8


@pytest.mark.parametrize(
    ("actual", "expected"), [(INF, -INF), (-INF, INF), (INF, 1.0), (1.0, INF), (NAN, INF), (INF, NAN)]
)
@pytest.mark.parametrize("rtol", [0.0, 0.5, 10.0])
def test_infinities_agree_only_with_themselves(actual: float, expected: float, rtol: float) -> None:
    message_of(np.array([0.0, actual]), [0.0, expected], rtol=rtol, equal_nan=True)
    message_of(np.array([0.0, actual]), np.array([0.0, expected]), assert_equal)
    assert_close(np.array([INF, -INF]), [INF, -INF], rtol=rtol, atol=0)
    assert_equal(np.array([INF, -INF]), [INF, -INF])


def test_worst_first_nan_before_all() -> None:
    actual = np.arange(12.0) * 1e-3
    actual[7] = NAN
    lines = message_of(actual, np.zeros(12)).splitlines()[3:]
    assert [line.split(")")[0].strip(" (,") for line in lines] == ["7", "11", "10", "9", "8", "6", "5", "4"]


@pytest.mark.parametrize("check", [assert_close, assert_equal])
def test_shapes_must_match_without_broadcasting(check: Any) -> None:
    ones = np.ones((2, 3))
    assert message_of(ones, np.ones((3, 2)), check, name="y") == "y: shape (2, 3), expected (3, 2)"
    for shape in ((), (1,), (3,), (1, 3), (1, 2, 3), (0, 3)):
        assert message_of(ones, np.ones(shape), check) == f"shape (2, 3), expected {shape}"


@pytest.mark.parametrize("check", [assert_close, assert_equal])
def test_dtypes_must_match(check: Any) -> None:
    ones = np.ones(3, np.float32)
    options = {"rtol": 0, "atol": 0} if check is assert_close else {}
    check(ones, np.ones(3), **options)  # float64 is the truth for all
    check(ones, np.ones(3, np.float16), dtype=np.float32, **options)
    assert message_of(ones, np.ones(3, np.float16), check) == "dtype float32, expected float16"
    assert message_of(ones.astype(np.float64), ones, check) == "dtype float64, expected float32"
    assert message_of(ones, np.ones(3), check, dtype=np.float64) == "dtype float32, expected float64"


def test_integers_are_compared_exactly() -> None:
    assert_equal(np.array([2**53, -1]), np.array([2**53, -1]))
    message = message_of(np.array([[2**53 + 1, 5]]), np.array([[2**53, 5]]), assert_equal, name="indices")
    assert message.startswith("indices: 1 of 2 elements are wrong (50 %), must be equal")
    assert "9007199254740993" in message
    assert message_of(np.zeros(1, np.int32), np.zeros(1, np.int64), assert_equal) == "dtype int32, expected int64"
    assert message_of(np.zeros(1), np.zeros(1, np.int64), assert_equal) == "dtype float64, expected int64"
    assert_equal(np.zeros(1, np.int32), np.zeros(1, np.int64), dtype=np.int32)
    assert_equal(np.array([True, False]), np.array([True, False]))
    assert "1 of 2" in message_of(np.array([True, False]), np.array([True, True]), assert_equal)
    with pytest.raises(TypeError, match="use assert_equal"):
        assert_close(np.arange(3), np.arange(3), rtol=0, atol=0)


def test_exact_floats_see_the_last_bit_and_the_sign_of_zero() -> None:
    one = np.ones(1, np.float32)
    message_of(np.nextafter(one, np.float32(2)), one, assert_equal)
    message_of(np.nextafter(one, np.float32(2)), np.ones(1), assert_equal)
    assert_equal(np.float32([NAN, 0.1]), np.array([NAN, np.float32(0.1)], np.float64))
    message_of(np.float32([0.1]), np.array([0.1]), assert_equal)  # 0.1 is another number in float64
    message_of(np.array([NAN]), np.array([0.0]), assert_equal)
    message_of(np.array([0.0]), np.array([NAN]), assert_equal)
    message_of(np.array([-0.0]), np.array([0.0]), assert_equal)
    assert_equal(np.array([-0.0, 0.0]), np.array([0.0, -0.0]), signed_zeros=False)
    message_of(np.array([-1.0]), np.array([1.0]), assert_equal, signed_zeros=False)


@pytest.mark.parametrize("bad", [{"rtol": -1e-3}, {"atol": -1.0}, {"rtol": NAN}, {"atol": INF}, {"rtol": INF}])
def test_tolerances_that_would_pass_or_fail_everything_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be finite and at least 0"):
        assert_close(np.ones(1), np.ones(1), **({"rtol": 0.0, "atol": 0.0} | bad))


def test_what_is_no_array_of_numbers_is_refused() -> None:
    for value in (None, "1.0", [None], object(), np.array([1j])):
        with pytest.raises(TypeError, match="expected an array of numbers"):
            assert_equal(value, value)


def test_tolerance_by_hand() -> None:
    assert tolerance(np.float32, 1) == 2.0**-21
    assert tolerance("float32", 576) == 24 * 2.0**-21
    assert tolerance(np.float64, 4) == 2 * 2.0**-50
    assert tolerance(np.float16, 576) == tolerance("float16", 1) == 2.0**-8  # summed in float32: one rounding rules
    assert tolerance("bfloat16", 4096) == 2.0**-5
    assert tolerance(np.float16, 576, accumulator=np.float16) == 24 * 2.0**-8
    assert tolerance(np.float32, 16, accumulator=np.float64) == 2.0**-21
    with pytest.raises(ValueError, match="at least one term"):
        tolerance(np.float32, 0)
    with pytest.raises(ValueError, match="dtype must be one of"):
        tolerance(np.int32, 5)


@pytest.mark.parametrize("mean", [0.0, 0.5])
@pytest.mark.parametrize("terms", [1, 9, 576, 4608])
def test_tolerance_separates_float32_from_tf32_and_from_a_dropped_term(terms: int, mean: float) -> None:
    rng = np.random.default_rng(terms)
    a, b = (rng.standard_normal((1000, terms)) + mean for _ in range(2))
    a, b = a.astype(np.float32), b.astype(np.float32)
    truth = np.sum(a.astype(np.float64) * b.astype(np.float64), axis=1)
    tol = tolerance(np.float32, terms)
    limits = {"rtol": tol, "atol": tol * float(np.sqrt(np.mean(truth**2)))}

    assert_close(np.cumsum(a * b, axis=1, dtype=np.float32)[:, -1], truth, **limits)  # one after another
    assert_close(np.sum(a * b, axis=1), truth, **limits)  # in pairs

    def tf32(x: np.ndarray) -> np.ndarray:
        return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)

    assert "elements are wrong" in message_of(np.sum(tf32(a) * tf32(b), axis=1), truth, **limits)
    assert "elements are wrong" in message_of(np.sum(a[:, 1:] * b[:, 1:], axis=1), truth, **limits)


def test_bfloat16_is_a_floating_dtype() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 arrays need ml_dtypes")
    ones = np.ones(3, ml_dtypes.bfloat16)
    assert_close(ones, np.ones(3), rtol=0, atol=0)
    assert_equal(ones, np.ones(3))
    assert tolerance(ml_dtypes.bfloat16, 1) == tolerance("bfloat16", 1)
    message_of(ones, np.full(3, 1.01))
    message_of(ones, np.full(3, NAN))
