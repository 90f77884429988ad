"""Image filters against scipy.ndimage and against loops over their definitions; edges, gradients, bad input."""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, SEED, draw
from strict_cupy import strict_cupy

import gpucnn
from gpucnn import backend, filters
from gpucnn.testing import assert_close, assert_equal, gradcheck, pairwise

MODES = {"reflect": "symmetric", "constant": "constant", "nearest": "edge", "mirror": "reflect", "wrap": "wrap"}
"""Ours and scipy.ndimage's, and numpy.pad's names for the same."""


@pytest.fixture(scope="module")
def ndimage() -> Any:
    return pytest.importorskip("scipy.ndimage", reason="SciPy, whose filters these are compared with, is not installed")


def allowed(dtype: str) -> float:
    """Relative to images and kernels with numbers of size 1; scipy computes in float64."""
    return 1e-12 if dtype == "float64" else 5e-6


# -------------------------------------------------------------------------------------------------- against SciPy

FACTORS = {
    "H": (1, 2, 3, 8, 17),
    "W": (1, 2, 5, 9, 16),
    "R": (1, 2, 3, 4, 7, 12),
    "S": (1, 2, 3, 5, 8, 11),
    "mode": tuple(MODES),
    "cval": (0.0, 1.5, -2),
    "dtype": ("float64", "float32"),
}


def close(found: np.ndarray, expected: np.ndarray, dtype: str, scale: float = 1.0) -> None:
    __tracebackhide__ = True
    assert found.dtype == dtype
    assert_close(found, expected.astype(dtype), rtol=allowed(dtype), atol=scale * allowed(dtype))


@pytest.mark.parametrize("case", list(pairwise(FACTORS, SEED)), ids=lambda c: "-".join(f"{n}{v}" for n, v in c.items()))
def test_correlation_and_convolution_are_scipys(case: dict[str, Any], ndimage: Any) -> None:
    x = draw("normal", (case["H"], case["W"])).astype(case["dtype"])
    kernel = draw("normal", (case["R"], case["S"]), 1)
    options = {"mode": case["mode"], "cval": case["cval"]}
    scale = float(np.sqrt(kernel.size))
    close(filters.correlate(x, kernel, **options), ndimage.correlate(x, kernel, **options), case["dtype"], scale)
    close(filters.convolve(x, kernel, **options), ndimage.convolve(x, kernel, **options), case["dtype"], scale)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(17, 12), (1, 9), (4, 1), (2, 3)], ids=str)
def test_filters_are_scipys(shape: tuple[int, int], mode: str, dtype: str, ndimage: Any) -> None:
    x = draw("normal", shape).astype(dtype)
    for cval in (0.0, 1.5):
        options = {"mode": mode, "cval": cval}
        for sigma, truncate in product((1.0, 0.3, (0, 2.5), [1.7, 0.0]), (4.0, 2.5)):
            expected = ndimage.gaussian_filter(x, sigma, truncate=truncate, **options)
            close(filters.gaussian(x, sigma, truncate, **options), expected, dtype)
        for size in (1, 2, 3, 6, (2, 3), (4, 1)):
            close(filters.box(x, size, **options), ndimage.uniform_filter(x, size, **options), dtype)
        for axis in (-1, -2, 0, 1):
            close(filters.sobel(x, axis, **options), ndimage.sobel(x, axis, **options), dtype, 8)
        close(filters.laplacian(x, **options), ndimage.laplace(x, **options), dtype, 8)


@pytest.mark.parametrize("shape", [(3, 6, 7), (1, 6, 7), (2, 3, 6, 7), (4, 1, 6, 7), (0, 3, 6, 7)], ids=str)
def test_each_channel_is_filtered_alone(shape: tuple[int, ...]) -> None:
    x = draw("normal", shape)
    kernel = draw("normal", (3, 4), 1)
    for run in (
        lambda a: filters.convolve(a, kernel, "wrap"),
        lambda a: filters.correlate(a, kernel),
        lambda a: filters.gaussian(a, (1.0, 2.0)),
        lambda a: filters.box(a, 3, "constant", 1.0),
        lambda a: filters.sobel(a),
        lambda a: filters.sobel(a, -2, "nearest"),
        lambda a: filters.laplacian(a, "mirror"),
        lambda a: filters.sharpen(a, 0.8, 2.0),
    ):
        found = run(x)
        assert found.shape == shape
        for place in np.ndindex(shape[:-2]):
            assert_close(found[place], run(x[place].copy()), rtol=1e-13, atol=1e-13)


# ----------------------------------------------------------------------------------------- against their definitions


def correlated(x: np.ndarray, kernel: np.ndarray, centre: tuple[int, int], mode: str, cval: float) -> np.ndarray:
    (R, S), (top, left) = kernel.shape, centre
    room = ((top, R - 1 - top), (left, S - 1 - left))
    fill: dict[str, Any] = {"constant_values": cval} if mode == "constant" else {}
    wide = np.pad(x, room, MODES[mode], **fill)  # type: ignore[call-overload]
    y = np.zeros(x.shape)
    for h, w in np.ndindex(x.shape):
        y[h, w] = np.sum(wide[h : h + R, w : w + S] * kernel)
    return y


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel_shape", [(1, 1), (3, 3), (2, 2), (4, 3), (1, 6), (9, 8)], ids=str)
def test_small_integers_are_exact(kernel_shape: tuple[int, int], mode: str) -> None:
    (R, S), x, kernel = kernel_shape, draw("integers", (5, 6)), draw("integers", kernel_shape, 1)
    expected = correlated(x, kernel, (R // 2, S // 2), mode, 3)
    assert_equal(filters.correlate(x, kernel, mode, 3), expected, signed_zeros=False)
    expected = correlated(x, kernel[::-1, ::-1], ((R - 1) // 2, (S - 1) // 2), mode, 3)
    assert_equal(filters.convolve(x, kernel, mode, 3), expected, signed_zeros=False)


def test_convolution_with_an_impulse_is_the_kernel_and_correlation_its_reflection() -> None:
    impulse = np.zeros((7, 7))
    impulse[3, 3] = 1
    kernel = np.arange(1.0, 10.0).reshape(3, 3)
    assert_equal(filters.convolve(impulse, kernel)[2:5, 2:5], kernel)
    assert_equal(filters.correlate(impulse, kernel)[2:5, 2:5], kernel[::-1, ::-1].copy())


def test_convolution_is_associative_and_correlation_is_not() -> None:
    image = np.zeros((13, 13))
    image[5:8, 5:8] = draw("integers", (3, 3))
    a, b = draw("integers", (3, 3), 1), draw("integers", (3, 3), 2)
    together = filters.convolve(np.pad(a, 1), b, "constant")
    assert_equal(filters.convolve(filters.convolve(image, a), b), filters.convolve(image, together), signed_zeros=False)


def test_kernels_are_what_the_filters_apply() -> None:
    x = draw("normal", (12, 11))
    same = {"rtol": 1e-12, "atol": 1e-12}
    for sigma, truncate in ((1.0, 4.0), ((0.5, 2.0), 3.0), ((0.0, 1.0), 4.0)):
        kernel = filters.gaussian_kernel(sigma, truncate)
        assert_close(filters.gaussian(x, sigma, truncate), filters.correlate(x, kernel), **same)
        assert abs(kernel.sum() - 1) <= 1e-15
        assert_equal(kernel, kernel[::-1, ::-1].copy())
        kernel = filters.sharpen_kernel(sigma, 1.5, truncate)
        assert_close(filters.sharpen(x, sigma, 1.5, truncate), filters.correlate(x, kernel), **same)
        assert abs(kernel.sum() - 1) <= 1e-14
    for size in (3, 4, (2, 5)):
        assert_close(filters.box(x, size), filters.correlate(x, filters.box_kernel(size)), **same)
    for axis in (-1, -2, 0, 1):
        assert_close(filters.sobel(x, axis), filters.correlate(x, filters.sobel_kernel(axis)), **same)
    assert_close(filters.laplacian(x), filters.correlate(x, filters.laplacian_kernel()), **same)
    assert_equal(filters.gaussian_kernel(0.0), np.ones((1, 1)))
    assert_equal(filters.sobel_kernel(), np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]))
    assert filters.gaussian_kernel((1.0, 2.0), 3.0).shape == (7, 13)


def test_what_filters_do_to_simple_images() -> None:
    slope = np.arange(8.0) + np.zeros((6, 1))
    inside = (slice(1, -1), slice(1, -1))
    assert_equal(filters.sobel(slope)[inside], np.full((4, 6), 8.0))
    assert_equal(filters.sobel(slope, axis=0)[inside], np.zeros((4, 6)), signed_zeros=False)
    assert_equal(filters.laplacian(slope**2)[inside], np.full((4, 6), 2.0))
    flat = np.full((6, 8), 0.7)
    for run in (filters.gaussian, filters.sharpen):
        assert_close(run(flat, 1.5), flat, rtol=1e-14, atol=0)
    step = np.repeat([[0.0, 1.0]], 8, axis=1) + np.zeros((6, 1))
    sharp = filters.sharpen(step, 1.0, 1.0)
    assert sharp.max() > 1.2  # unsharp masking overshoots on both sides of an edge
    assert sharp.min() < -0.2


# ------------------------------------------------------------------------------------------ tensors, layouts, dtypes


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_central_differences(mode: str) -> None:
    """To image and kernel, also where an image smaller than the kernel is repeated several times."""
    x = gpucnn.tensor(draw("normal", (2, 2, 3, 4)), requires_grad=True)
    kernel = gpucnn.tensor(draw("normal", (4, 9), 1), requires_grad=True)
    assert gradcheck(lambda a, k: filters.convolve(a, k, mode, 2.0), [x, kernel])
    assert gradcheck(lambda a: filters.sharpen(filters.sobel(a, 3, mode), 0.7, mode=mode), [x])
    flat = gpucnn.tensor(draw("normal", (1, 1)), requires_grad=True)
    assert gradcheck(lambda a, k: filters.correlate(a, k, mode), [flat, kernel])


def test_tensors_come_back_as_tensors_and_arrays_as_arrays() -> None:
    x, kernel = draw("normal", (3, 6, 5)).astype(np.float32), draw("normal", (3, 2), 1)
    expected = filters.convolve(x, kernel)
    assert type(expected) is np.ndarray
    for image, k in (
        (gpucnn.tensor(x), kernel),
        (x, gpucnn.tensor(kernel)),
        (gpucnn.tensor(x), gpucnn.tensor(kernel, "float32")),
        (gpucnn.tensor(x), kernel.tolist()),
    ):
        found = filters.convolve(image, k)
        assert type(found) is gpucnn.Tensor
        assert_equal(found, expected)
    assert type(filters.box(gpucnn.tensor(x))) is gpucnn.Tensor
    leaf = gpucnn.tensor(x, requires_grad=True)
    filters.sobel(leaf).sum().backward()
    assert leaf.grad is not None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_is_taken(layout: str) -> None:
    x, kernel = draw("integers", (2, 3, 6, 5)), draw("integers", (3, 2), 1)
    expected = filters.correlate(x, kernel)
    assert_equal(filters.correlate(LAYOUTS[layout](x), kernel), expected)
    assert_equal(filters.correlate(x, LAYOUTS[layout](kernel)), expected)
    assert_equal(filters.correlate(gpucnn.Tensor(LAYOUTS[layout](x)), kernel), expected)


@pytest.mark.parametrize("mode", MODES)
def test_planes_are_not_copied_and_channels_last_images_once(mode: str) -> None:
    values = draw("normal", (2, 3, 9, 8)).astype(np.float32)
    for x, expected in ((gpucnn.Tensor(values), 0), (gpucnn.tensor(values), 1)):
        x.requires_grad_()
        with backend.count_layout_copies() as copies:
            y = filters.sobel(filters.gaussian(x, 1.0, mode=mode), mode=mode)
            y.backward(y.detach())
        assert copies.value == expected


def test_half_precision_is_summed_in_float32() -> None:
    x = np.full((9, 9), 100.0, np.float16)
    found = filters.correlate(x, np.full((9, 9), 100.0) / 81)
    assert found.dtype == np.float16
    assert_close(found, np.full((9, 9), 10_000.0), rtol=2e-3, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_filters_run_on_cupys_arrays(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in that is as strict as cupy is; arrays stay where they are."""
    library = strict_cupy()
    monkeypatch.setitem(sys.modules, "cupy", library)
    monkeypatch.setattr(backend, "gpu_count", lambda: 1)
    x, kernel = draw("normal", (2, 3, 5, 6)).astype(np.float32), draw("normal", (4, 3), 1)
    for run in (
        lambda a: filters.convolve(a, kernel, mode, 0.5),
        lambda a: filters.sharpen(filters.sobel(a, -2, mode), 1.0, mode=mode),
        lambda a: filters.box(filters.laplacian(a, mode), (2, 1), mode),
    ):
        with gpucnn.use_backend("reference"):
            found = run(library.asarray(x))
        assert type(found) is library.ndarray
        assert_equal(library.asnumpy(found), run(x))
    image = gpucnn.Tensor(library.asarray(x), requires_grad=True)
    with gpucnn.use_backend("reference"):
        filters.convolve(image, kernel, mode).sum().backward()
    assert type(image.grad.data) is library.ndarray


def test_arguments_are_left_alone() -> None:
    x, kernel = draw("normal", (5, 6)), draw("normal", (3, 3), 1)
    for array in (x, kernel):
        array.flags.writeable = False
    for mode in MODES:
        filters.convolve(x, kernel, mode)
        filters.sharpen(x, 1.0, mode=mode)


# ------------------------------------------------------------------------------------------------------- bad input

X = np.zeros((5, 6))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: filters.convolve(np.zeros(5), X),
            ValueError,
            r"convolve: image must have shape \(H, W\), .*got \(5,\)",
        ),
        (
            lambda: filters.box(np.zeros((1, 1, 1, 2, 2))),
            ValueError,
            r"box: image must have shape .*got \(1, 1, 1, 2, 2",
        ),
        (
            lambda: filters.gaussian(np.zeros((0, 5)), 1.0),
            ValueError,
            "gaussian: image must have .*all but N at least 1, got",
        ),
        (lambda: filters.gaussian(np.zeros((2, 0, 5, 5)), 1.0), ValueError, r"at least 1, got \(2, 0, 5, 5\)"),
        (
            lambda: filters.sobel(np.zeros((5, 5), np.uint8)),
            TypeError,
            "sobel: image must hold floats, got uint8; astype",
        ),
        (lambda: filters.laplacian(gpucnn.tensor([[1, 2]])), TypeError, "laplacian: image must hold floats, got int64"),
        (
            lambda: filters.correlate(X, np.zeros(3)),
            ValueError,
            r"correlate: kernel must have shape \(R, S\).*got \(3,\)",
        ),
        (lambda: filters.correlate(X, np.zeros((0, 3))), ValueError, r"both at least 1, got \(0, 3\)"),
        (lambda: filters.correlate(X, np.zeros((1, 3), complex)), TypeError, "complex128"),
        (
            lambda: filters.convolve(X, X, "edge"),
            ValueError,
            "convolve: mode must be one of reflect, constant, .*'edge'",
        ),
        (lambda: filters.sharpen(X, mode=None), ValueError, "sharpen: mode must be one of"),
        (lambda: filters.gaussian(X, -1.0), ValueError, "gaussian: sigma and truncate must be finite and not negative"),
        (lambda: filters.gaussian(X, (1.0, float("nan"))), ValueError, r"got sigma=\(1.0, nan\), truncate=4.0"),
        (lambda: filters.gaussian(X, 1.0, float("inf")), ValueError, "truncate=inf"),
        (lambda: filters.gaussian_kernel((1.0, 2.0, 3.0)), ValueError, r"a number or a pair \(vertical, horizontal\)"),
        (lambda: filters.box(X, 0), ValueError, "box: size must be at least 1, got 0"),
        (lambda: filters.box(X, 1.5), TypeError, "box: size must be an integer, got 1.5"),
        (
            lambda: filters.sobel(np.zeros((3, 5, 6)), 0),
            ValueError,
            "sobel: axis must be one of the last two, got 0 of 3",
        ),
        (lambda: filters.sobel(X, 2), ValueError, "axis 2 is out of range for 2 axes"),
    ],
)
def test_bad_arguments_are_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
