"""What is done to a batch of images between the data set and the network.

A transform is called as `transform(images, draw)` with images (N, H, W, C), uint8 in 0..255 or float32 in 0..1, and a
`Draw` for its random numbers; it returns a new array of N images and leaves its input as it is. Any callable of that
form will do; one that draws random numbers says in its attribute `streams` how many it takes for an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.data.draw import Draw

Transform = Callable[[NDArray[Any], Draw], NDArray[Any]]

_STREAMS_OF_A_FUNCTION = 16


class Compose:
    """Transforms one after another, each with random numbers of its own.

    Args:
        transforms: called in this order.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        for transform in transforms:
            if not callable(transform):
                raise TypeError(f"a transform is called as transform(images, draw); {transform!r} is not callable")
        self.transforms = tuple(transforms)
        self._takes = [int(getattr(transform, "streams", _STREAMS_OF_A_FUNCTION)) for transform in self.transforms]
        self.streams = sum(self._takes)

    def __call__(self, images: NDArray[Any], draw: Draw) -> NDArray[Any]:
        first = 0
        for transform, takes in zip(self.transforms, self._takes, strict=True):
            images = transform(images, draw.window(first, takes))
            first += takes
        return images

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


class Normalize:
    """(x - mean) / std for each channel, as float32; x is in 0..1, bytes being divided by 255 first.

    Computed as x * scale + shift in float32 with both constants rounded once from float64; the result is within
    2**-22 * max(|scale * x|, |shift|) of the exact one.

    Args:
        mean: one number, or one for each channel.
        std: likewise; positive.

    Raises:
        ValueError: a std that is not positive, a number that is not finite, or not as many numbers as channels.
    """

    streams = 0

    def __init__(self, mean: ArrayLike, std: ArrayLike) -> None:
        self.mean, self.std = (np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in (mean, std))
        if self.mean.ndim != 1 or self.std.ndim != 1 or 0 in (self.mean.size, self.std.size):
            raise ValueError("mean and std must be one number each, or a list of one for each channel")
        if len({1, self.mean.size, self.std.size}) > 2:
            raise ValueError(
                f"mean has {self.mean.size} numbers and std {self.std.size}: expected one for each channel"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise ValueError(f"mean must be finite and std finite and positive, got mean={mean!r}, std={std!r}")

    def __call__(self, images: NDArray[Any], draw: Draw | None = None) -> NDArray[np.float32]:
        check_images(images)
        *_, width, channels = images.shape
        listed = max(self.mean.size, self.std.size)
        if listed not in (1, channels):
            raise ValueError(f"mean and std list {listed} channels, the images have {channels}")
        scale, shift = 1.0 / self.std, -self.mean / self.std
        if images.dtype == np.uint8:
            scale = scale / 255.0
        rows = images.reshape(-1, 1 if listed == 1 else width * channels)
        if listed > 1:  # a constant for every element of a row: a loop over three channels is too short to be fast
            scale, shift = (np.tile(np.broadcast_to(constant, channels), width) for constant in (scale, shift))
        out: NDArray[np.float32] = np.multiply(rows, scale.astype(np.float32), dtype=np.float32)
        out += shift.astype(np.float32)
        return out.reshape(images.shape)

    def __repr__(self) -> str:
        return f"Normalize(mean={_listed(self.mean)}, std={_listed(self.std)})"


class RandomShift:
    """Moves each image by whole pixels, up to `pixels` in either direction of each axis, all moves equally likely.

    The same thing as padding by `pixels` and cropping at random, which is how it is done for CIFAR (He et al., "Deep
    residual learning", 2016, section 4.2).

    Args:
        pixels: at least 0 and less than the images' height and width.
        fill: what comes in at the border, in the images' own units.

    Raises:
        ValueError: `pixels` negative or too large for the images, or a `fill` that bytes cannot hold.
    """

    streams = 2

    def __init__(self, pixels: int, fill: float = 0) -> None:
        if pixels < 0:
            raise ValueError(f"pixels must be 0 or more, got {pixels}")
        self.pixels, self.fill = pixels, fill

    def __call__(self, images: NDArray[Any], draw: Draw) -> NDArray[Any]:
        check_images(images)
        count, height, width, channels = images.shape
        if images.dtype == np.uint8 and not (0 <= self.fill <= 255 and float(self.fill).is_integer()):
            raise ValueError(f"fill must be an integer in 0..255 for images of bytes, got {self.fill}")
        margin = self.pixels
        if margin >= min(height, width):
            raise ValueError(f"images of {height}x{width} cannot be shifted by up to {margin} pixels")
        if not (margin and count):
            return np.array(images, order="C")
        padded = np.full((count, height + 2 * margin, width + 2 * margin, channels), self.fill, dtype=images.dtype)
        padded[:, margin : margin + height, margin : margin + width] = images
        top, left = (draw.integers(0, 2 * margin + 1, stream) for stream in (0, 1))
        # Every window of every image as a view whose elements are whole rows of pixels: the gather then copies rows.
        row = np.dtype((np.void, width * channels * images.itemsize))
        image_step, row_step, pixel_step, _ = padded.strides
        windows: NDArray[Any] = np.ndarray(
            (count, 2 * margin + 1, 2 * margin + 1, height),
            row,
            buffer=padded.data,
            strides=(image_step, row_step, pixel_step, row_step),
        )
        chosen: NDArray[Any] = windows[np.arange(count), top, left]
        return chosen.view(images.dtype).reshape(images.shape)

    def __repr__(self) -> str:
        return f"RandomShift(pixels={self.pixels}, fill={self.fill})"


class RandomHorizontalFlip:
    """Mirrors each image left to right with probability `p`.

    Raises:
        ValueError: `p` outside [0, 1].
    """

    streams = 1

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability, in [0, 1], got {p}")
        self.p = p

    def __call__(self, images: NDArray[Any], draw: Draw) -> NDArray[Any]:
        check_images(images)
        out = np.array(images, order="C")
        pixels = out.view(np.dtype((np.void, images.shape[-1] * images.itemsize)))  # a pixel is copied as one element
        flipped = draw.uniform() < self.p
        pixels[flipped] = pixels[flipped][:, :, ::-1]
        return out

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p})"


def check_images(images: NDArray[Any]) -> None:
    """Raises where images are not a batch (N, H, W, C) of uint8 or float32.

    Raises:
        TypeError: another dtype.
        ValueError: another number of axes.
    """
    if images.ndim != 4:
        raise ValueError(f"images must have shape (N, H, W, C), got {images.shape}")
    if images.dtype not in (np.uint8, np.float32):
        raise TypeError(f"images must be uint8 or float32, got {images.dtype}")


def _listed(values: NDArray[np.float64]) -> list[float] | float:
    return float(values[0]) if values.size == 1 else values.tolist()
