"""Of tests/budget_cases.py, the calls that go over images: pooling, upsampling, copies, borders, bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from budget_case import DTYPES, Case
from budget_maps import numbers

import gpucnn
from gpucnn import Tensor, extension
from gpucnn import functional as F

IMAGE, ODD = (2, 64, 16, 16), (2, 5, 16, 16)


def _pools(image: tuple[int, ...], aligned: bool) -> Iterator[Case]:
    for size, stride in ((2, 2), (3, 2), (3, 1), (20, 8)):
        padding = {2: 0, 3: 1, 20: 10}[size]
        windows = {"kernel_size": size, "stride": stride, "padding": padding}
        yield Case("max_pool2d", {"input": image, **windows, "return_indices": True}, aligned=aligned)
        if size < 20:
            yield Case("avg_pool2d", {"input": image, **windows}, aligned=aligned)
    yield Case("avg_pool2d", {"input": image, "kernel_size": 4}, aligned=aligned)
    yield Case("avg_pool2d", {"input": image, "kernel_size": 5, "stride": 2, "padding": 2}, aligned=aligned)
    for norm in (2, math.inf):
        yield Case("lp_pool2d", {"input": image, "norm_type": norm, "kernel_size": 2}, aligned=aligned)
    # Winners of windows of more than 256 taps are numbered in 32 bits.
    large = {"input": (1, image[1], 20, 20), "norm_type": math.inf, "kernel_size": 17, "stride": 3}
    yield Case("lp_pool2d", large, aligned=aligned)
    for size in (1, 4, 5):
        yield Case("adaptive_avg_pool2d", {"input": image, "output_size": size}, aligned=aligned)
        yield Case("adaptive_max_pool2d", {"input": image, "output_size": size}, aligned=aligned)
    yield Case("adaptive_avg_pool2d", {"input": (1, image[1], 40, 40), "output_size": 1}, aligned=aligned)
    unpooled = {"input": image, "kernel_size": 2}
    yield Case("max_unpool2d", unpooled, then=_unpooled(image), aligned=aligned)


def _unpooled(image: tuple[int, ...]) -> Callable[[str], None]:
    def run(dtype: str) -> None:
        y, indices = F.max_pool2d(Tensor(numbers(image, dtype)), 2, return_indices=True)
        F.max_unpool2d(y.detach().requires_grad_(), indices, 2).sum().backward()

    return run


def _larger(image: tuple[int, ...], aligned: bool) -> Iterator[Case]:
    for mode in ("nearest", "bilinear"):
        yield Case("interpolate", {"input": image, "scale_factor": 2, "mode": mode}, aligned=aligned)
    yield Case("interpolate", {"input": image, "scale_factor": 0.5, "mode": "area"}, aligned=aligned)
    tents = {"input": image, "size": (8, 8), "mode": "bilinear", "antialias": True}
    yield Case("interpolate", tents, aligned=aligned)
    yield Case("bed_of_nails", {"input": image, "scale_factor": 2}, aligned=aligned)


def _shuffled(itemsize: int, channels: int, factor: int) -> Callable[[str], None]:
    """Pixels shuffled and back, of elements of so many bytes."""

    def run(dtype: str) -> None:
        kind = {1: "uint8", 8: "float64"}[itemsize]
        x = gpucnn.tensor(np.zeros((2, channels * factor**2, 8, 8)), kind)
        F.pixel_unshuffle(F.pixel_shuffle(x, factor), factor)

    return run


def _laid_out(kind: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Callable[[str], None]:
    """A copy of an array of such elements with its axes in another order."""

    def run(dtype: str) -> None:
        x = np.zeros(shape, kind).transpose(axes)
        extension.compiled("simt").copy(x, np.empty(x.shape, kind), 0)

    return run


def _cut(kind: str, shape: tuple[int, ...], columns: slice) -> Callable[[str], None]:
    """A copy of some columns."""

    def run(dtype: str) -> None:
        x = np.zeros(shape, kind)[..., columns]
        extension.compiled("simt").copy(x, np.empty(x.shape, kind), 0)

    return run


def _converted(shape: tuple[int, ...], axes: tuple[int, ...], columns: slice) -> Callable[[str], None]:
    """To each of the other types, with the axes in another order or some of the columns alone."""

    def run(dtype: str) -> None:
        x = numbers(shape, dtype).transpose(axes)[..., columns]
        for to in DTYPES:
            if to != dtype:
                y = np.empty(x.shape, gpucnn.backend.supported_dtype(to))
                extension.compiled("simt").convert(dtype, to, x, y, 0)

    return run


ALL, HALF = slice(None), slice(0, None, 2)


def _copies() -> Iterator[Case]:
    to_last, to_first, plain = (0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 2, 3)
    for kind in ("uint8", "uint16", "float32", "float64"):
        for shape in ((2, 64, 16, 16), (2, 3, 32, 32), (2, 4, 32, 32), (2, 16, 32, 32)):
            name = {"of": kind, "shape": shape}
            yield Case("channels last", name, dtypes=("float32",), then=_laid_out(kind, shape, to_last))
            turned = tuple(shape[axis] for axis in to_last)
            yield Case("channels first", name, dtypes=("float32",), then=_laid_out(kind, turned, to_first))
        steps = {"of": kind, "columns": "every second"}
        yield Case("copy", steps, dtypes=("float32",), then=_cut(kind, (64, 256), HALF), aligned=False)
    yield Case("copy", {"columns": "some"}, dtypes=("float32",), then=_cut("float32", (64, 256), slice(64, 192)))
    yield Case("convert", {"shape": IMAGE}, then=_converted(IMAGE, plain, ALL))
    for shape in (IMAGE, (2, 3, 32, 32)):
        yield Case("convert", {"shape": shape, "to": "channels last"}, then=_converted(shape, to_last, ALL))
    yield Case("convert", {"columns": "some"}, then=_converted((64, 256), (0, 1), slice(64, 192)))
    yield Case("convert", {"columns": "every second"}, then=_converted((64, 256), (0, 1), HALF), aligned=False)


def _bytes(planar: bool, channels: int = 3, size: int = 32) -> Callable[[str], None]:
    def run(dtype: str) -> None:
        pixels = np.arange(2 * channels * size * size, dtype=np.int64).astype(np.uint8)
        shape = (2, channels, size, size) if planar else (2, size, size, channels)
        x = pixels.reshape(shape)
        F.normalize_images(Tensor(x if planar else x.transpose(0, 3, 1, 2)), 0.5, 0.25, dtype)

    return run


def _padded(kind: str, channels: int) -> Callable[[str], None]:
    """Of images that lie channels-last."""

    def run(dtype: str) -> None:
        x = np.zeros((2, 16, 16, channels), kind)
        amounts, value = (0, 1, 1, 0), np.zeros((), kind).tobytes()
        extension.compiled("simt").pad(x, np.empty((2, 18, 18, channels), kind), amounts, amounts, "constant", value, 0)

    return run


def images() -> Iterator[Case]:
    """All of them."""
    for image, aligned in ((IMAGE, True), (ODD, False)):
        yield from _pools(image, aligned)
        yield from _larger(image, aligned)
        for factor in (2, 3, 4) if aligned else (2,):
            channels = 64 if aligned else 5
            shuffled = {"input": (2, channels * factor**2, 8, 8), "upscale_factor": factor}
            yield Case("pixel_shuffle", shuffled, aligned=aligned)
            for itemsize in (1, 8):
                count = 512 if aligned and itemsize == 1 else channels
                name = {"itemsize": itemsize, "channels": count, "factor": factor}
                run = _shuffled(itemsize, count, factor)
                yield Case("pixel_shuffle", name, dtypes=("float32",), then=run, aligned=aligned)
    yield from _copies()
    for planar in (True, False):
        yield Case("normalize_images", {"planar": planar}, then=_bytes(planar))
    yield Case("normalize_images", {"planar": True, "channels": 1}, then=_bytes(True, 1))
    yield Case("normalize_images", {"planar": True, "size": 15}, then=_bytes(True, 3, 15), aligned=False)
    for kind, channels in (("float32", 64), ("float64", 1), ("float32", 1), ("uint16", 1), ("uint8", 1)):
        yield Case(
            "pad",
            {"of": kind, "channels": channels},
            dtypes=("float32",),
            then=_padded(kind, channels),
            aligned=channels > 1,
        )
    for mode in ("reflect", "replicate", "circular"):
        yield Case("pad", {"input": IMAGE, "pad": (1, 1, 1, 1), "mode": mode})
