"""Filters for images: smoothing, edges, sharpening, and convolution with any kernel.

An image is a Tensor or an array (numpy, cupy) of a floating dtype and of shape (H,W), (C,H,W) or (N,C,H,W); each
channel is filtered alone. The result has its shape and dtype and is a Tensor where image or kernel is one, through
which gradients pass to both; else an array.

`mode` says what lies beyond the edges, in scipy.ndimage's words, for an image a b c d:

    reflect    ... c b a | a b c d | d c b ...      constant   ... k k k | a b c d | k k k ...    (k is `cval`)
    mirror     ... d c b | a b c d | c b a ...      nearest    ... a a a | a b c d | d d d ...
    wrap       ... b c d | a b c d | a b c ...

Results are those of scipy.ndimage's convolve, correlate, gaussian_filter, sobel, laplace and uniform_filter over the
last two axes, also for kernels of even sizes, whose centre is the cell R//2, S//2, and for images smaller than the
kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucnn import functional as F
from gpucnn.arguments import normalize_axis
from gpucnn.backend import FLOAT_KINDS, to_device
from gpucnn.problem import IntPair, pair
from gpucnn.tensor import Tensor, as_array

__all__ = [
    "box",
    "box_kernel",
    "convolve",
    "correlate",
    "gaussian",
    "gaussian_kernel",
    "laplacian",
    "laplacian_kernel",
    "sharpen",
    "sharpen_kernel",
    "sobel",
    "sobel_kernel",
]

_MODES = ("reflect", "constant", "nearest", "mirror", "wrap")

Kernel = NDArray[np.float64]
Image = Any
"""A Tensor, or what `gpucnn.tensor` takes: an array or nested lists."""


# --------------------------------------------------------------------------------------------- with a given kernel


def correlate(image: Image, kernel: Image, mode: str = "reflect", cval: float = 0.0) -> Any:
    """Cross-correlation: y[h,w] = sum over r,s of image[h + r - R//2, w + s - S//2] * kernel[r,s].

    Args:
        kernel: (R,S), Tensor, array or nested lists; taken in the image's dtype.
        mode, cval: what lies beyond the edges, see `gpucnn.filters`.

    Raises:
        ValueError: an image or kernel of another shape, or without cells; an unknown mode.
        TypeError: an image that does not hold floats.
    """
    return _with_kernel("correlate", image, kernel, False, mode, cval)


def convolve(image: Image, kernel: Image, mode: str = "reflect", cval: float = 0.0) -> Any:
    """True convolution: y[h,w] = sum over r,s of image[h - r + R//2, w - s + S//2] * kernel[r,s].

    That is `correlate` with the kernel turned by 180 degrees. Arguments and errors are those of `correlate`.
    """
    return _with_kernel("convolve", image, kernel, True, mode, cval)


def _with_kernel(op: str, image: Image, kernel: Image, turned: bool, mode: str, cval: float) -> Any:
    x = _checked(op, image, mode)
    w = kernel if isinstance(kernel, Tensor) else Tensor(to_device(as_array(kernel), x.device))
    if w.ndim != 2 or 0 in w.shape:
        raise ValueError(f"{op}: kernel must have shape (R, S), both at least 1, got {w.shape}")
    R, S = w.shape
    centre = ((R - 1) // 2, (S - 1) // 2) if turned else (R // 2, S // 2)
    w = (w[::-1, ::-1] if turned else w).to(x.dtype)
    return _each_channel(image, x, lambda y: _correlated(y, w, centre, mode, cval), isinstance(kernel, Tensor))


# ------------------------------------------------------------------------------------------------------ smoothing


def gaussian(
    image: Image,
    sigma: float | tuple[float, float],
    truncate: float = 4.0,
    mode: str = "reflect",
    cval: float = 0.0,
) -> Any:
    """Gaussian smoothing, one axis after the other.

    Args:
        sigma: standard deviation in pixels, or (vertical, horizontal); along an axis with 0 nothing is smoothed.
        truncate: the kernel ends that many standard deviations from its centre.
        mode, cval: what lies beyond the edges, see `gpucnn.filters`.

    Raises:
        ValueError: a sigma or truncate that is negative or not finite; an image of another shape; an unknown mode.
        TypeError: an image that does not hold floats.
    """
    x = _checked("gaussian", image, mode)
    kernels = _gaussians("gaussian", sigma, truncate)
    return _each_channel(image, x, lambda y: _separable(y, kernels, mode, cval))


def box(image: Image, size: IntPair = 3, mode: str = "reflect", cval: float = 0.0) -> Any:
    """The mean over windows of `size` cells, or (vertical, horizontal), with the image's cell as the size//2-th.

    Raises:
        ValueError: a size below 1, an image of another shape, an unknown mode.
        TypeError: an image that does not hold floats, a size that is no integer.
    """
    x = _checked("box", image, mode)
    kernels = [np.full(cells, 1 / cells) for cells in pair(size, "box: size", minimum=1)]
    return _each_channel(image, x, lambda y: _separable(y, kernels, mode, cval))


# ----------------------------------------------------------------------------------------------- edges, sharpening

_DIFFERENCE, _SMOOTH = np.array([-1.0, 0.0, 1.0]), np.array([1.0, 2.0, 1.0])


def sobel(image: Image, axis: int = -1, mode: str = "reflect", cval: float = 0.0) -> Any:
    """Sobel's derivative along `axis`, one of the image's last two: differences [-1,0,1], smoothed across by [1,2,1].

    Raises:
        ValueError: an axis that is not one of the last two, an image of another shape, an unknown mode.
        TypeError: an image that does not hold floats.
    """
    x = _checked("sobel", image, mode)
    along = _VERTICAL + _image_axis("sobel", axis, x.ndim)

    def run(y: Tensor) -> Tensor:
        edges = _along(y, along, _DIFFERENCE, mode, cval)
        return _along(edges, _VERTICAL + _HORIZONTAL - along, _SMOOTH, mode, cval)

    return _each_channel(image, x, run)


def laplacian(image: Image, mode: str = "reflect", cval: float = 0.0) -> Any:
    """The sum of the second differences [1,-2,1] along both axes.

    Raises:
        ValueError: an image of another shape, an unknown mode.
        TypeError: an image that does not hold floats.
    """
    return _with_kernel("laplacian", image, laplacian_kernel(), False, mode, cval)


def sharpen(
    image: Image,
    sigma: float | tuple[float, float] = 1.0,
    amount: float = 1.0,
    truncate: float = 4.0,
    mode: str = "reflect",
    cval: float = 0.0,
) -> Any:
    """Unsharp masking: image + amount * (image - gaussian(image, sigma, truncate, mode, cval)).

    Raises ValueError and TypeError as `gaussian`.
    """
    x = _checked("sharpen", image, mode)
    kernels = _gaussians("sharpen", sigma, truncate)
    return _each_channel(image, x, lambda y: y + amount * (y - _separable(y, kernels, mode, cval)))


# -------------------------------------------------------------------------------------- the kernels, for `correlate`


def gaussian_kernel(sigma: float | tuple[float, float], truncate: float = 4.0) -> Kernel:
    """What `gaussian` correlates with: (R,S), its sum 1; R = 2 * floor(truncate * sigma + 1/2) + 1, S likewise."""
    return np.outer(*_gaussians("gaussian_kernel", sigma, truncate))


def box_kernel(size: IntPair = 3) -> Kernel:
    """What `box` correlates with: equal numbers whose sum is 1."""
    R, S = pair(size, "box_kernel: size", minimum=1)
    return np.full((R, S), 1 / (R * S))


def sobel_kernel(axis: int = -1) -> Kernel:
    """What `sobel` correlates with, (3,3): positive where the image grows along `axis`."""
    vertical = _image_axis("sobel_kernel", axis, 2) == 0
    return np.outer(_DIFFERENCE, _SMOOTH) if vertical else np.outer(_SMOOTH, _DIFFERENCE)


def laplacian_kernel() -> Kernel:
    """What `laplacian` correlates with, (3,3): four neighbours less four times the cell."""
    return np.array([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])


def sharpen_kernel(sigma: float | tuple[float, float] = 1.0, amount: float = 1.0, truncate: float = 4.0) -> Kernel:
    """What `sharpen` amounts to: (1 + amount) times the cell, less amount * gaussian_kernel(sigma, truncate)."""
    kernel = -amount * np.outer(*_gaussians("sharpen_kernel", sigma, truncate))
    kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] += 1 + amount
    return kernel


def _gaussians(op: str, sigma: float | tuple[float, float], truncate: float) -> list[Kernel]:
    """The kernels along the vertical and the horizontal axis."""
    sigmas = tuple(sigma) if isinstance(sigma, (tuple, list)) else (sigma, sigma)
    if len(sigmas) != 2:
        raise ValueError(f"{op}: sigma must be a number or a pair (vertical, horizontal), got {sigma!r}")
    if not all(0 <= number < math.inf for number in (*sigmas, truncate)):
        raise ValueError(
            f"{op}: sigma and truncate must be finite and not negative, got sigma={sigma!r}, truncate={truncate!r}"
        )
    return [_gaussian(float(number), int(truncate * number + 0.5)) for number in sigmas]


def _gaussian(sigma: float, radius: int) -> Kernel:
    if not radius:
        return np.ones(1)
    weights: Kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    normalised: Kernel = weights / weights.sum()
    return normalised


# ---------------------------------------------------------------------------------------------------- how it is done

_VERTICAL, _HORIZONTAL = 2, 3


def _checked(op: str, image: Image, mode: str) -> Tensor:
    x = image if isinstance(image, Tensor) else Tensor(image)
    if x.dtype.kind not in FLOAT_KINDS:
        raise TypeError(f"{op}: image must hold floats, got {x.dtype}; astype('float32') or to('float32') makes them")
    if x.ndim not in (2, 3, 4) or 0 in x.shape[-3:]:
        raise ValueError(
            f"{op}: image must have shape (H, W), (C, H, W) or (N, C, H, W), all but N at least 1, got {x.shape}"
        )
    if mode not in _MODES:
        raise ValueError(f"{op}: mode must be one of {', '.join(_MODES)}, got {mode!r}")
    return x


def _image_axis(op: str, axis: int, ndim: int) -> int:
    """0 for the vertical axis, the last but one, and 1 for the horizontal one."""
    number = normalize_axis(axis, ndim) - (ndim - 2)
    if number < 0:
        raise ValueError(f"{op}: axis must be one of the last two, got {axis} of {ndim} axes")
    return number


def _each_channel(image: Image, x: Tensor, run: Callable[[Tensor], Tensor], as_tensor: bool = False) -> Any:
    """run(x as a batch of images of one channel), in the shape and of the kind of `image`.

    Rows of one channel are longer runs of memory than the channels of a pixel, and kernels for few channels or many
    the same; an image in channels-last memory is worth a copy for that.
    """
    y = run(x.reshape(math.prod(x.shape[:-2]), 1, *x.shape[-2:])).reshape(x.shape)
    return y if as_tensor or isinstance(image, Tensor) else y.data


def _separable(x: Tensor, kernels: Sequence[Kernel], mode: str, cval: float) -> Tensor:
    for axis, kernel in zip((_VERTICAL, _HORIZONTAL), kernels, strict=True):
        x = x if len(kernel) == 1 else _along(x, axis, kernel, mode, cval)
    return x


def _along(x: Tensor, axis: int, kernel: Kernel, mode: str, cval: float) -> Tensor:
    """x (N,1,H,W) correlated along one axis."""
    shape = (-1, 1) if axis == _VERTICAL else (1, -1)
    w = Tensor(to_device(kernel.reshape(shape).astype(x.dtype), x.device))
    return _correlated(x, w, (w.shape[0] // 2, w.shape[1] // 2), mode, cval)


def _correlated(x: Tensor, w: Tensor, centre: tuple[int, int], mode: str, cval: float) -> Tensor:
    """x (N,1,H,W) correlated with w (R,S), of which the cell `centre` meets the output's place."""
    for axis, before, taps in zip((_VERTICAL, _HORIZONTAL), centre, w.shape, strict=True):
        x = _extended(x, axis, before, taps - 1 - before, mode, cval)
    return F.conv2d(x, w.reshape(1, 1, *w.shape))


def _extended(x: Tensor, axis: int, before: int, after: int, mode: str, cval: float) -> Tensor:
    """x with so many cells more before and after those of `axis`."""
    if not (before or after):
        return x
    if mode in ("constant", "nearest"):
        amounts = (0, 0, before, after) if axis == _VERTICAL else (before, after, 0, 0)
        return F.pad(x, amounts, "constant", cval) if mode == "constant" else F.pad(x, amounts, "replicate")
    vertical = axis == _VERTICAL
    parts = [x[:, :, part] if vertical else x[..., part] for part in _parts(x.shape[axis], before, after, mode)]
    return F.cat(parts, axis)


def _parts(size: int, before: int, after: int, mode: str) -> list[slice]:
    """The parts of an axis that, one after the other, are the extended axis; every second one runs backwards or, in
    mode 'wrap', none.
    """
    turn = size - 1 if mode == "mirror" and size > 1 else size  # cells from one turning point to the next
    parts = []
    for number in range(-before // turn, -(-(size + after) // turn)):
        start, stop = max(-before, number * turn) - number * turn, min(size + after - number * turn, turn)
        if mode == "wrap" or number % 2 == 0:
            parts.append(slice(start, stop))
        else:
            parts.append(slice(size - 1 - start, size - 1 - stop if stop < size else None, -1))
    return parts
