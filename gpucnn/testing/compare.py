"""Elementwise comparison that NaN cannot pass, with a report that says where and by how much.

Every check is written `error <= tolerance`, which is false for NaN, and is made for each element: a similarity over a
whole array lets a wrong 8x8 tile through.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_SHOWN = 8
_MARGIN = 4.0
_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

when_passed: list[Callable[[], None]] = []
"""Called after each comparison of something that found nothing wrong."""


def assert_close(
    actual: Any,
    expected: Any,
    *,
    rtol: float,
    atol: float,
    dtype: DTypeLike | None = None,
    equal_nan: bool = False,
    name: str = "",
) -> None:
    """Every element within `atol + rtol * |expected|`.

    NaN fails unless both are NaN and `equal_nan` is set; infinities agree only with the same infinity.

    Args:
        actual: what is judged: an array of numpy or cupy or a Tensor, of a floating dtype.
        expected: the truth, of the same shape.
        rtol: finite, >= 0; the part of the tolerance that grows with |expected|.
        atol: finite, >= 0; the constant part.
        dtype: what actual's dtype must be. None: that of expected, except that a float64 (or integer) truth judges
            every floating dtype.
        name: what the report calls the comparison.

    Raises:
        AssertionError: another shape or dtype, or elements out of tolerance: count and share, the box they lie in,
            and the worst with coordinates, values, error and tolerance.
        ValueError: a tolerance that is negative or not finite.
        TypeError: actual is not floating (`assert_equal` compares integers).
    """
    __tracebackhide__ = True
    for label, value in (("rtol", rtol), ("atol", atol)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{label} must be finite and at least 0, got {value}")
    actual, expected = to_numpy(actual), to_numpy(expected)
    if not _is_floating(actual.dtype):
        raise TypeError(f"assert_close compares floating numbers, got {actual.dtype}; use assert_equal")
    if not _is_floating(expected.dtype):
        expected = expected.astype(np.float64)
    _check_frame(actual, expected, dtype, name)
    got, truth = actual.astype(np.float64), expected.astype(np.float64)
    same = got == truth  # also the same infinity
    if equal_nan:
        same |= np.isnan(got) & np.isnan(truth)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf and 0 * inf, which are not used
        error = np.where(same, 0.0, np.abs(got - truth))
        # An infinite truth has no tolerance: rtol * inf would forgive everything.
        tolerances = np.where(np.isfinite(truth), atol + rtol * np.abs(truth), 0.0)
    wrong = ~(error <= tolerances)
    if wrong.any():
        raise AssertionError(_report(name, f"rtol {rtol:g}, atol {atol:g}", actual, expected, wrong, error, tolerances))
    _passed(actual)


def assert_equal(
    actual: Any, expected: Any, *, dtype: DTypeLike | None = None, signed_zeros: bool = True, name: str = ""
) -> None:
    """Every element the same number, bit for bit; the comparison for integers, and for floats that must be exact.

    A NaN equals any NaN, whatever its payload. +0 differs from -0 unless `signed_zeros` is off. Floats of different
    dtypes, where allowed, are compared after widening, which is exact.

    Args:
        actual, expected, name: as in `assert_close`, and any numeric or boolean dtype.
        dtype: what actual's dtype must be. None: that of expected, except that a float64 truth judges every floating
            dtype.

    Raises:
        AssertionError: another shape or dtype, or differing elements, reported as in `assert_close`.
    """
    __tracebackhide__ = True
    actual, expected = to_numpy(actual), to_numpy(expected)
    _check_frame(actual, expected, dtype, name)
    if _is_floating(actual.dtype) and _is_floating(expected.dtype):
        got, truth = actual.astype(np.float64), expected.astype(np.float64)
        same = (got == truth) | (np.isnan(got) & np.isnan(truth))
        if signed_zeros:
            same &= (np.signbit(got) == np.signbit(truth)) | (got != 0)
    else:
        same = np.asarray(actual == expected)
    if not same.all():
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.asarray(np.abs(actual.astype(np.float64) - expected.astype(np.float64)))
        raise AssertionError(_report(name, "must be equal", actual, expected, ~same, error, np.zeros_like(error)))
    _passed(actual)


def _passed(actual: NDArray[Any]) -> None:
    if actual.size:
        for call in when_passed:
            call()


def tolerance(dtype: DTypeLike, terms: int, accumulator: DTypeLike | None = None) -> float:
    """The error to allow a sum of `terms` products, relative to the typical size of such sums.

        4 * max(eps(dtype), eps(accumulator) * sqrt(terms))

    Where it comes from. Adding up n products, each partial sum is rounded with a relative error of at most u = eps/2.
    The certain bound n*u is far too lenient: it assumes that all errors point one way. They behave as independent
    with mean zero, and then grow as sqrt(n)*u (Higham and Mary, "A new approach to probabilistic rounding error
    analysis", SIAM J. Sci. Comput. 41, 2019). For zero-mean products of size 1 the sum has size sqrt(n), and the
    rounding errors of its n partial sums, of sizes up to u*sqrt(n), add up to about u*n/sqrt(6): relative to the sum,
    0.2 * eps * sqrt(n) for one standard deviation. The multiple of 4 leaves room for the largest of millions of
    elements, in any order of summation; a dropped term (1/sqrt(n)) or products rounded to TF32 (2**-11) stay far
    outside. The result itself is rounded once to `dtype`, which is what dominates for 16-bit outputs of a float32
    accumulation.

    The error is relative to the sums' typical size, not to each sum: one that happens to cancel to nearly zero has the
    same absolute error as its neighbours. So use it as rtol, and times the truth's root mean square as atol:

        assert_close(y, truth, rtol=tol, atol=tol * np.sqrt(np.mean(truth**2)))

    Args:
        dtype: of the result: float64, float32, float16 or bfloat16 (by name too).
        terms: the length of the sum, at least 1: C/groups*R*S for a convolution.
        accumulator: the dtype that sums; None: dtype itself, but float32 for 16-bit results.
    """
    if terms < 1:
        raise ValueError(f"a sum has at least one term, got terms={terms}")
    result = _eps(dtype)
    summed = min(result, _EPS["float32"]) if accumulator is None else _eps(accumulator)
    return _MARGIN * max(result, summed * math.sqrt(terms))


def to_numpy(value: Any) -> NDArray[Any]:
    """An ndarray of a numpy array, a Tensor (`.numpy()`), a cupy array (`.get()`) or what numpy makes an array of."""
    if not isinstance(value, np.ndarray):
        for method in ("numpy", "get"):
            convert = getattr(value, method, None)
            if callable(convert):
                value = convert()
                break
    array = np.asarray(value)
    if not (_is_floating(array.dtype) or array.dtype.kind in "iub"):
        raise TypeError(f"expected an array of numbers, got dtype {array.dtype}")
    return array


def _eps(dtype: DTypeLike) -> float:
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in _EPS:
        raise ValueError(f"dtype must be one of {', '.join(_EPS)}, got {name}")
    return _EPS[name]


def _is_floating(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _check_frame(actual: NDArray[Any], expected: NDArray[Any], dtype: DTypeLike | None, name: str) -> None:
    __tracebackhide__ = True
    if actual.shape != expected.shape:
        raise AssertionError(f"{_title(name)}shape {actual.shape}, expected {expected.shape}")
    if dtype is not None:
        wanted = np.dtype(dtype)
    elif _is_floating(actual.dtype) and expected.dtype == np.float64:
        wanted = actual.dtype
    else:
        wanted = expected.dtype
    if actual.dtype != wanted:
        raise AssertionError(f"{_title(name)}dtype {actual.dtype}, expected {wanted}")


def _title(name: str) -> str:
    return f"{name}: " if name else ""


def _report(
    name: str,
    rule: str,
    actual: NDArray[Any],
    expected: NDArray[Any],
    wrong: NDArray[np.bool_],
    error: NDArray[np.float64],
    tolerances: NDArray[np.float64],
) -> str:
    places = np.argwhere(wrong)
    with np.errstate(divide="ignore", invalid="ignore"):
        severity = np.nan_to_num(error[wrong] / tolerances[wrong], nan=np.inf, posinf=np.inf)
    worst = np.argsort(-severity, kind="stable")[:_SHOWN]
    box = ", ".join(f"{low}:{high + 1}" for low, high in zip(places.min(0), places.max(0), strict=True))
    rows = [("at", "actual", "expected", "|error|", "tolerance")]
    for place in places[worst]:
        at = tuple(int(i) for i in place)
        rows.append((str(at), str(actual[at]), str(expected[at]), f"{error[at]:.3g}", f"{tolerances[at]:.3g}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    share = 100 * len(places) / wrong.size
    head = f"{_title(name)}{len(places)} of {wrong.size} elements are wrong ({share:.3g} %), {rule}"
    where = f"they lie within [{box}] of shape {list(wrong.shape)}; the worst {len(worst)}:"
    return "\n".join([head, where, *(f"  {row}" for row in table)])
