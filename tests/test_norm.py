"""The passes of the reference for batch, instance and group norm: against sums in float64, exact where they can be."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from norm_checks import DTYPES, near, rms
from op_checks import SEED, check_threads, draw, frozen, names

from gpucnn.ops import norm as ops
from gpucnn.reference import norm as reference
from gpucnn.reference.norm_problem import NormProblem
from gpucnn.testing import assert_close, assert_equal

PROBLEMS = [
    NormProblem(1, 8, 4, 4),
    NormProblem(1, 1, 3, 3),
    NormProblem(1, 127, 3, 3),  # a prime number of positions: rows of one position
    NormProblem(1, 1030, 16, 16),
    NormProblem(1, 77, 600, 600),
    NormProblem(1, 33 * 40, 1, 1),
    NormProblem(5, 12, 6, 6),
    NormProblem(5, 12, 6, 2),
    NormProblem(3, 49, 8, 1),
    NormProblem(2, 1, 12, 3),
    NormProblem(70, 4, 2, 2),
    NormProblem(2, 600, 34, 17),
]
ids = {"ids": lambda p: f"{p.B}x{p.M}x{p.C}g{p.groups}"}


def statistics(p: NormProblem, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each group, for each channel."""
    grouped = x.reshape(p.B, p.M, p.groups, -1)
    each = (p.B, p.C // p.groups, p.groups)
    mean, var = grouped.mean(axis=(1, 3)), grouped.var(axis=(1, 3))
    return tuple(np.broadcast_to(a[:, None], each).transpose(0, 2, 1).reshape(p.B, p.C) for a in (mean, var))  # type: ignore[return-value]


def passes(name: str, *arguments: Any) -> list[tuple[str, Any]]:
    """(name, result) of a pass of the reference, whatever has been planted for it."""
    return [(name, run_reference(getattr(reference, name), *arguments))]


@np.errstate(all="ignore")
def run_reference(run: Any, *arguments: Any) -> Any:
    return run(*arguments)


@functools.cache
def data(p: NormProblem, kind: str) -> tuple[np.ndarray, ...]:
    """x, dy (B,M,C) and four arrays of coefficients (B,C)."""
    shape = (p.B, p.M, p.C)
    return draw(kind, shape), draw(kind, shape, 1), *(draw(kind, (p.B, p.C), stream) for stream in (2, 3, 4, 5))


def check(p: NormProblem, dtype: str, kind: str = "normal") -> None:
    """Every pass."""
    __tracebackhide__ = True
    x, dy, mean, a, b, c = data(p, kind)
    images, gradient = frozen(x, dtype), frozen(dy, dtype)
    exact = kind == "integers" and p.M * p.C // p.groups & (p.M * p.C // p.groups - 1) == 0
    terms = 1 if exact else p.M
    away = x - mean[:, None]

    def same(found: np.ndarray, truth: np.ndarray, name: str, size: float | None = None) -> None:
        __tracebackhide__ = True
        assert found.dtype == (dtype if found.ndim == 3 else "float64"), name
        if exact:
            assert_equal(found, truth, signed_zeros=False, name=name)
        else:
            judged = found if found.ndim == 3 or dtype == "float64" else found.astype(np.float32)
            near(judged, truth, terms, size, name)

    for name, (found, var) in passes("moments", p, images):
        truth = statistics(p, x)
        same(found, truth[0], f"{name} mean", size=rms(x))
        same(var, truth[1], f"{name} var")
    for name, found in passes("scale_shift", p, images, mean, a, b):
        same(found, away * a[:, None] + b[:, None], name, size=2 * rms(x * a[:, None]))
    for name, found in passes("scale_shift", p, images, None, a, None):
        same(found, x * a[:, None], name)
    for name, (total, products) in passes("gradient_sums", p, gradient, images, mean):
        same(total, dy.sum(axis=1), name, size=rms(dy) * p.M**0.5)
        same(products, (dy * away).sum(axis=1), name, size=rms(dy * away) * p.M**0.5)
    for name, (total, products) in passes("gradient_sums", p, gradient, None, mean):
        same(total, dy.sum(axis=1), name, size=rms(dy) * p.M**0.5)
        assert products is None
    for name, found in passes("dgrad", p, gradient, images, mean, a, b, c):
        truth = dy * a[:, None] + away * b[:, None] + c[:, None]
        same(found, truth, name, size=3 * rms(truth))


@pytest.mark.parametrize("p", PROBLEMS, **ids)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["integers", "normal"])
def test_every_kernel(p: NormProblem, dtype: str, kind: str) -> None:
    check(p, dtype, kind)


@pytest.mark.parametrize("p", PROBLEMS, **ids)
def test_every_kernel_in_blocks(p: NormProblem, block_bytes: int) -> None:
    check(p, "float32", "integers")
    check(p, "float16", "normal")


def test_these_are_all_kernels() -> None:
    assert [names(table) for table in (ops.fprop, ops.bprop)] == [["blocks"]] * 2
    assert (names(ops.layer_fprop), names(ops.layer_bprop)) == (["rows"], ["rows"])
    assert (names(ops.local_fprop), names(ops.local_dgrad)) == (["shifts"], ["shifts"])


# ---------------------------------------------------------------------------------------------- nothing is lost


@pytest.mark.parametrize("mean", [0.0, 1e3, -3e5])
@pytest.mark.parametrize("p", [NormProblem(1, 1 << 16, 3, 3), NormProblem(4, 4096, 8, 2)], **ids)
def test_a_large_mean_costs_no_digits(p: NormProblem, mean: float) -> None:
    """Statistics of float32 numbers about 1e3 with deviation 1 are right to the last digits of a float32."""
    x = (mean + np.random.default_rng(SEED).standard_normal((p.B, p.M, p.C))).astype(np.float32)
    truth = statistics(p, x.astype(np.float64))
    for name, (found, var) in passes("moments", p, x):
        assert_close(found, truth[0], rtol=0, atol=1e-6, name=name)
        assert_close(var, truth[1], rtol=1e-6, atol=0, name=name)
        inverse = 1 / np.sqrt(truth[1])
        y = (x.astype(np.float64) - truth[0][:, None]) * inverse[:, None]
        for other, z in passes("scale_shift", p, x, found, inverse, None):
            assert_close(z, y, rtol=1e-6, atol=1e-6, name=other)


def test_gradients_by_a_large_mean_lose_nothing() -> None:
    """The mean is no float32 itself, and what it is off is multiplied by a sum of gradients that do not cancel."""
    p = NormProblem(1, 1 << 14, 3, 3)
    rng = np.random.default_rng(SEED)
    x = (1e3 + rng.standard_normal((1, p.M, 3))).astype(np.float32)
    dy = (1 + rng.standard_normal(x.shape)).astype(np.float32)
    mean, _ = statistics(p, x.astype(np.float64))
    away, one = x.astype(np.float64) - mean[:, None], np.ones((1, 3))
    for name, (_, products) in passes("gradient_sums", p, dy, x, mean):
        assert_close(products, (dy * away).sum(axis=1), rtol=0, atol=2e-7 * p.M**0.5 * 2, name=name)
    for name, dx in passes("dgrad", p, dy, x, mean, one, one, one):
        assert_close(dx, dy + away + 1, rtol=5e-7, atol=5e-7, name=name)


def test_an_unlucky_sample_costs_no_digits() -> None:
    """What the guess of the mean sees first stands out by a thousand deviations of the rest."""
    p = NormProblem(1, 1 << 19, 2, 2)
    x = np.random.default_rng(SEED).standard_normal((1, p.M, 2)).astype(np.float32)
    x[:, :256] += 1000
    mean, var = statistics(p, x.astype(np.float64))
    for name, found in passes("moments", p, x):
        assert_close(found[0], mean, rtol=1e-6, atol=0, name=name)
        assert_close(found[1], var, rtol=1e-6, atol=0, name=name)


@pytest.mark.parametrize("stream", range(5))
def test_a_variance_is_never_negative(stream: int) -> None:
    """Of huge constants, whose guessed means are some units off."""
    p = NormProblem(40, 999, 1, 1)
    x = np.random.default_rng([SEED, stream]).uniform(1e9, 1e10, (40, 1, 1)).astype(np.float32)
    for name, (_, var) in passes("moments", p, np.repeat(x, 999, axis=1)):
        assert (var >= 0).all(), name
        assert_close(var, np.zeros((40, 1)), rtol=0, atol=1e5, name=name)  # (a few units in the last place)**2


@pytest.mark.parametrize("value", [0.0, 3.0, 1 / 3, -1e7, 65504.0])
def test_a_constant_has_no_variance(value: float) -> None:
    p = NormProblem(2, 1000, 3, 3)
    x = np.full((2, 1000, 3), value, np.float32)
    for name, (mean, var) in passes("moments", p, x):
        assert_close(mean, np.full((2, 3), np.float64(np.float32(value))), rtol=1e-7, atol=0, name=name)
        assert (var >= 0).all(), name
        assert_close(var, np.zeros((2, 3)), rtol=0, atol=(1e-6 * value) ** 2, name=name)


def test_float16_is_summed_in_float32() -> None:
    p = NormProblem(1, 4096, 2, 2)
    x = np.full((1, 4096, 2), 60_000, np.float16)
    x[:, ::2] = 59_000  # the sum and the squares are no float16
    (_, (mean, var)), *_ = passes("moments", p, x)
    truth = statistics(p, x.astype(np.float64))
    assert_close(mean, truth[0], rtol=1e-6, atol=0)
    assert_close(var, truth[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("p", [NormProblem(1, 3 << 16, 8, 8), NormProblem(64, 4096, 6, 3)], **ids)
def test_the_number_of_threads_changes_no_bit(p: NormProblem) -> None:
    rng = np.random.default_rng(SEED)
    x, dy = (rng.standard_normal((p.B, p.M, p.C)).astype(np.float32) for _ in range(2))
    one = np.ones((p.B, p.C))

    def run() -> list[np.ndarray]:
        mean, var = reference.moments(p, x)
        y = reference.scale_shift(p, x, mean, one, var)
        sums = reference.gradient_sums(p, dy, x, mean)
        return [mean, var, y, *sums, reference.dgrad(p, dy, x, mean, one, var, mean)]

    check_threads(run)


@pytest.mark.parametrize(
    "p",
    [NormProblem(1, 0, 3, 3), NormProblem(0, 4, 6, 3), NormProblem(2, 0, 4, 4), NormProblem(1, 4, 0, 0)],
    **ids,
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_nothing_is_normalised_to_nothing(p: NormProblem, dtype: str) -> None:
    x = np.empty((p.B, p.M, p.C), dtype)
    none, one = np.zeros((p.B, p.C)), np.ones((p.B, p.C))
    for table, arguments in (
        ("moments", (x,)),
        ("gradient_sums", (x, x, none)),
    ):
        for name, found in passes(table, p, *arguments):
            for array in found:
                assert_equal(array, none, name=name)
    for table, arguments in (("scale_shift", (x, none, one, one)), ("dgrad", (x, x, none, one, one, one))):
        for name, found in passes(table, p, *arguments):
            assert (found.shape, found.dtype) == (x.shape, x.dtype), name


# ------------------------------------------------------------------------------------ wrong passes must be caught

moments, scale_shift, gradient_sums, dgrad = (
    reference.moments,
    reference.scale_shift,
    reference.gradient_sums,
    reference.dgrad,
)


def unbiased(p: NormProblem, x: np.ndarray) -> Any:
    mean, var = moments(p, x)
    return mean, var * p.M / max(1, p.M - 1)


def channels_not_grouped(p: NormProblem, x: np.ndarray) -> Any:
    return moments(NormProblem(p.B, p.M, p.C, p.C), x)


def last_row_forgotten(p: NormProblem, x: np.ndarray, *coefficients: Any) -> np.ndarray:
    y = scale_shift(p, x, *coefficients)
    y[:, -1] = 0
    return y


def about_zero(p: NormProblem, dy: np.ndarray, x: np.ndarray | None, mean: np.ndarray) -> Any:
    return gradient_sums(p, dy, x, np.zeros_like(mean))


def without_offset(p: NormProblem, *arrays: Any) -> np.ndarray:
    return dgrad(p, *arrays[:-1], np.zeros_like(arrays[-1]))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("moments", unbiased),
        ("moments", channels_not_grouped),
        ("scale_shift", last_row_forgotten),
        ("gradient_sums", about_zero),
        ("dgrad", without_offset),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_pass_is_caught(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    p = NormProblem(3, 49, 8, 4)
    check(p, "float32")
    monkeypatch.setattr(reference, name, wrong)
    with pytest.raises(AssertionError, match=f"{name}.* elements are wrong"):
        check(p, "float32")
