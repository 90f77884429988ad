"""Images of bytes made into numbers on the CPU: both memory orders, every dtype and address, and what is refused."""

from __future__ import annotations

import itertools
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, sample
from op_checks import NCHW, NHWC, SEED, draw, frozen

import gpucnn
from gpucnn import functional as F
from gpucnn.backend import supported_dtype
from gpucnn.testing import assert_close, assert_equal, guarded

DTYPES = ("float32", "float16", "bfloat16")
EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("planar", [False, True])
def test_images_of_bytes(simt: ModuleType, planar: bool, dtype: str) -> None:
    shapes = [
        *((2, 5, 7, 3), (1, 32, 33, 3), (3, 4, 4, 1), (2, 3, 5, 4), (1, 9, 1, 33), (0, 4, 4, 3), (2, 16, 16, 3)),
        *((2, 40, 40, 3), (1, 43, 31, 3), (1, 16, 10, 32), (2, 10, 13, 31), (1, 64, 35, 2)),  # tiles of 4,096 bytes
    ]
    for number, (shape, start) in enumerate(itertools.product(sample(simt.flavour, shapes), (0, 1))):
        simt.set_order(ORDERS[number % len(ORDERS)])
        held, channels = supported_dtype(dtype), shape[3]
        x = np.random.default_rng([SEED, *shape]).integers(0, 256, shape).astype(np.uint8)
        scale, shift = (draw("normal", (channels,), i).astype(np.float32) for i in range(2))
        guard = guarded((math.prod(shape) + 1,), held)
        y = guard.array[start : start + math.prod(shape)].reshape(shape)
        given = frozen(np.ascontiguousarray(x.transpose(NCHW))) if planar else frozen(x)
        simt.normalize_images(dtype, given, scale, shift, y, planar, 0)
        guard.check(name=f"{shape} {start}")
        truth = x * scale.astype(np.float64) + shift
        allowed = 2 * EPS[dtype]
        assert_close(y, truth, rtol=allowed, atol=0 if dtype == "float32" else allowed, name=f"{shape} {planar}")
        exact, zeros = np.full(channels, 2, np.float32), np.zeros(channels, np.float32)
        simt.normalize_images(dtype, given, exact, zeros, y, planar, 0)
        assert_equal(y, (x * np.float32(2)).astype(held), name=f"{shape} twice")


@pytest.mark.parametrize("backend", ["reference", "simt"])
@pytest.mark.parametrize("dtype", [*DTYPES, "float64"])
def test_the_function_is_what_the_loader_does(backend: str, dtype: str) -> None:
    from gpucnn.data import Normalize

    if gpucnn.backend.unavailable(backend):
        pytest.skip("not built")
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    images = np.random.default_rng(SEED).integers(0, 256, (4, 9, 8, 3)).astype(np.uint8)
    expected = Normalize(mean, std)(images).transpose(NCHW)
    with gpucnn.use_backend(backend, strict=dtype != "float64"):
        for layout in (
            images.transpose(NCHW),
            np.ascontiguousarray(images.transpose(NCHW)),
            images[::-1].transpose(NCHW),
        ):
            y = F.normalize_images(gpucnn.Tensor(layout), mean, std, dtype)
            assert y.dtype == supported_dtype(dtype)
            assert y.data.transpose(NHWC).flags.c_contiguous
            allowed = max(2.0**-21, EPS.get(dtype, 0))
            truth = expected if layout.base is not images or layout.strides[0] > 0 else expected[::-1]
            assert_close(y.numpy().astype(np.float64), truth.astype(np.float64), rtol=allowed, atol=4 * allowed)
    one = F.normalize_images(gpucnn.Tensor(images.transpose(NCHW)), 0.5, 0.5)
    assert_close(one, (images.transpose(NCHW) / 255 - 0.5) / 0.5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.normalize_images(x[0], 0, 1), ValueError, r"must have shape \(N, C, H, W\), got \(3, 4, 5\)"),
        (lambda x: F.normalize_images(x.to("float32"), 0, 1), TypeError, "input must be uint8, got float32"),
        (
            lambda x: F.normalize_images(x, (0, 1), 1),
            ValueError,
            r"mean must be finite, one or 3 numbers, got \(0, 1\)",
        ),
        (lambda x: F.normalize_images(x, 0, math.nan), ValueError, "std must be finite"),
        (lambda x: F.normalize_images(x, 0, (1, 0, 1)), ValueError, "std must be positive"),
        (lambda x: F.normalize_images(x, 0, "one"), TypeError, "std must be numbers, got 'one'"),
        (lambda x: F.normalize_images(x, 0, 1, "int32"), TypeError, "dtype must be a floating one, got int32"),
    ],
)
def test_images_that_it_cannot_take_are_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"normalize_images: .*{message}"):
        call(gpucnn.Tensor(np.zeros((2, 3, 4, 5), np.uint8)))
