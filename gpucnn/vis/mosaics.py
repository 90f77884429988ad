"""Pictures made of many small images: the filters of the first layer, and the images a network gets wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucnn.vis import labels, style
from gpucnn.vis.files import check_target

_FILTERS_SHOWN = 256
_GAP = 5  # pixels between filters
_BAR = 220  # pixels, the length of the scale
_COLUMNS = 6
_ARROW = " → "
_TILE, _PHOTO = 140, 112  # pixels, the longest side of a gallery image that is enlarged, and of one that is resampled


def filters(weight: ArrayLike, path: str | os.PathLike[str]) -> Path:
    """Draws the filters of a convolution as a grid of small images on one common scale, as PNG.

    Filters with one input channel are grey, mid grey being 0; with three they are taken as red, green and blue; with
    any other number the mean over the channels is shown and the picture says so. At most the first 256 filters are
    shown.

    Args:
        weight: (K, C, R, S) real numbers.
        path: the file to write, ending in ``.png``; replaced atomically.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: ``weight`` does not have four dimensions, is empty, or holds values that are not finite.
        TypeError: ``weight`` does not hold real numbers.
        FileNotFoundError: the folder of ``path`` does not exist.
        MatplotlibMissingError: matplotlib is not installed.
    """
    target = check_target(path)
    values = _checked_weight(weight)
    count, channels, height, width = values.shape
    values = values[:_FILTERS_SHOWN]
    if channels not in (1, 3):
        values = values.mean(axis=1, keepdims=True)
    limit = float(np.abs(values).max()) or 1.0

    columns = _columns(len(values))
    rows = math.ceil(len(values) / columns)
    room = style.WIDTH - 2 * style.MARGIN
    zoom = max(1, min((room // columns - _GAP - 2) // width, 140 // max(height, width), 900 // (rows * height)))
    tiles = np.rint(127.5 + 127.5 * values / limit).astype(np.uint8).transpose(0, 2, 3, 1)
    mosaic = _mosaic(tiles, columns, zoom)

    left, top = style.MARGIN, style.HEADER
    foot = 76
    figure = style.new_figure(max(style.WIDTH, mosaic.shape[1] + 2 * left), top + mosaic.shape[0] + foot)
    shown = "1 filter" if count == 1 else f"{count} filters"
    if count > _FILTERS_SHOWN:
        shown = f"the first {_FILTERS_SHOWN} of {count} filters"
    meanings = {1: "grey: the weight", 3: "colour: the weights of red, green and blue"}
    meaning = meanings.get(channels, f"grey: the mean over {channels} input channels")
    style.write_header(figure, f"First layer: {shown} of {height} {labels.TIMES} {width}", meaning)
    style.paste(figure, mosaic, left, top)

    bar = np.rint(np.linspace(0, 255, _BAR)).astype(np.uint8)[None, :, None].repeat(12, axis=0).repeat(3, axis=2)
    below = top + mosaic.shape[0] + 24
    style.paste(figure, style.framed(bar), left, below)
    marks = ((0.0, "left", f"{labels.MINUS}{limit:.2g}"), (0.5, "center", "0"), (1.0, "right", f"{limit:.2g}"))
    for share, across, text in marks:
        style.write(figure, text, left + share * _BAR, below + 18, style.NOTE, across=across, down="top")
    return style.save(figure, target)


def _checked_weight(weight: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(weight)
    if array.ndim != 4:
        raise ValueError(f"weight: must have four dimensions, (K, C, R, S), got shape {array.shape}")
    if array.dtype.kind in "cbOSUmM":
        raise TypeError(f"weight: must hold real numbers, got dtype {array.dtype}")
    if array.size == 0:
        raise ValueError(f"weight: is empty, shape {array.shape}")
    values = array.astype(np.float64)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ValueError(f"weight: {bad} of {values.size} values are not finite")
    return values


def _columns(count: int) -> int:
    """One row for a few filters; else about twice as many columns as rows, and a full last row where that can be."""
    if count <= 8:
        return count
    ideal = math.ceil(math.sqrt(2 * count))
    near = range(ideal, round(0.6 * ideal) - 1, -1)
    return next((columns for columns in near if count % columns == 0), ideal)


def _mosaic(tiles: NDArray[np.uint8], columns: int, zoom: int) -> NDArray[np.uint8]:
    """Images (K, H, W, 1 or 3), a pixel drawn as ``zoom`` x ``zoom``, framed, in rows on white; (height, width, 3)."""
    count, height, width, _ = tiles.shape
    rows = math.ceil(count / columns)
    down, across = height * zoom + 2 + _GAP, width * zoom + 2 + _GAP
    mosaic = np.full((rows * down - _GAP, columns * across - _GAP, 3), 255, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        y, x = index // columns * down, index % columns * across
        enlarged = tile.repeat(zoom, axis=0).repeat(zoom, axis=1)
        mosaic[y : y + down - _GAP, x : x + across - _GAP] = style.framed(enlarged)
    return mosaic


def misclassified(
    images: NDArray[np.uint8], true: ArrayLike, predicted: ArrayLike, confidence: ArrayLike, classes: Sequence[str],
    path: str | os.PathLike[str], most: int = 36, errors: int | None = None,
) -> Path:  # fmt: skip
    """Draws the wrongly classified images, the most confident error first, as PNG.

    Each is labelled with its true class, the predicted one and the probability the network gave to the latter. Images
    classified correctly are left out; without any error the picture says so.

    Args:
        images: (M, H, W, C) uint8, C being 1 (grey) or 3 (red, green, blue).
        true: (M,) integer indices into ``classes``.
        predicted: (M,) integer indices into ``classes``.
        confidence: (M,) probability of the predicted class, 0..1.
        classes: the class names.
        path: the file to write, ending in ``.png``; replaced atomically.
        most: how many images to show at most.
        errors: how many errors there are in all, where ``images`` holds only the surest of them; named in the title.

    Returns:
        ``path`` as a Path.

    Raises:
        ValueError: a shape other than the above, arrays of different lengths, a label that names no class, a confidence
            that is NaN or outside 0..1, ``most`` below 1, or ``errors`` below the number of wrong images given.
        TypeError: images that are not uint8, labels that are not integers, or a class name that is not a string.
        FileNotFoundError: the folder of ``path`` does not exist.
        MatplotlibMissingError: matplotlib is not installed.
    """
    target = check_target(path)
    images = _checked_images(images)
    if isinstance(most, bool) or not isinstance(most, int | np.integer):
        raise TypeError(f"most: must be an integer, got {most!r}")
    if most < 1:
        raise ValueError(f"most: must be 1 or more, got {most}")
    labels.check_classes(classes)
    actual = _checked_labels(true, "true", len(images), len(classes))
    answer = _checked_labels(predicted, "predicted", len(images), len(classes))
    certainty = _checked_confidence(confidence, len(images))

    wrong = np.flatnonzero(actual != answer)
    total = len(wrong) if errors is None else errors
    if total < len(wrong):
        raise ValueError(f"errors: {errors} in all, but {len(wrong)} wrong images are given")
    order = wrong[np.argsort(-certainty[wrong], kind="stable")][:most]
    if len(order) == 0:
        return _draw_no_errors(len(images), target)

    tiles = [style.framed(_tile(images[i])) for i in order]
    tall, wide = tiles[0].shape[:2]
    pitch = (style.WIDTH - 2 * style.MARGIN - wide) / (_COLUMNS - 1)
    pairs = [(classes[actual[i]], classes[answer[i]]) for i in order]
    room = min(pitch - 10, wide + 32)
    measure = style.new_figure(1, 1)
    fits = all(style.text_width(measure, _ARROW.join(pair), style.STRONG) <= room for pair in pairs)
    captions = [[_ARROW.join(pair)] if fits else [pair[0], _ARROW.lstrip() + pair[1]] for pair in pairs]

    down = tall + 19 * len(captions[0]) + 42
    figure = style.new_figure(style.WIDTH, style.HEADER + 4 + math.ceil(len(order) / _COLUMNS) * down)
    style.write_header(figure, *_gallery_title(total, len(order)))
    for place, (tile, lines, image) in enumerate(zip(tiles, captions, order, strict=True)):
        left = style.MARGIN + round(place % _COLUMNS * pitch)
        y = style.HEADER + 4 + place // _COLUMNS * down
        style.paste(figure, tile, left, y)
        y += tall
        middle = left + wide / 2
        for line in lines:
            y += 19
            style.write(figure, style.fit(figure, line, room, style.STRONG), middle, y, style.STRONG, across="center")
        style.write(figure, _percent(float(certainty[image])), middle, y + 18, style.NOTE, across="center")
    return style.save(figure, target)


def _percent(share: float) -> str:
    """A share in whole percent; close to certainty with a decimal rounded down, so that only 1 reads as 100 %."""
    if 0.995 <= share < 1:
        return f"{math.floor(1000 * share) / 10:.1f} %"
    return f"{100 * share:.0f} %"


def _gallery_title(errors: int, shown: int) -> tuple[str, str]:
    title = "Misclassified: 1 image" if errors == 1 else f"Misclassified: {errors:,} images"
    line = "true class → predicted class, with the probability given to the latter"
    return title, f"the {shown} most confident  ·  {line}" if shown < errors else line


def _draw_no_errors(given: int, target: Path) -> Path:
    figure = style.new_figure(style.WIDTH, 240)
    line = f"all {given:,} images are classified correctly" if given > 1 else "every image is classified correctly"
    style.write_header(figure, "Misclassified: none", line)
    kind = replace(style.TITLE, color=style.BLUE, bold=False)
    style.write(figure, "no errors to show", style.WIDTH / 2, 160, kind, across="center", down="center_baseline")
    return style.save(figure, target)


def _tile(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image as (h, w, 3), large enough to look at: small ones with square pixels, photographs resampled."""
    from PIL import Image

    image = image.repeat(3, axis=2) if image.shape[2] == 1 else image
    longest = max(image.shape[:2])
    if longest <= _TILE // 2:
        return image.repeat(_TILE // longest, axis=0).repeat(_TILE // longest, axis=1)
    height, width = (max(1, round(length * _PHOTO / longest)) for length in image.shape[:2])
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8)


def _checked_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        raise ValueError(f"images: must have shape (M, H, W, C) with C 1 or 3, got {array.shape}")
    if array.dtype != np.uint8:
        raise TypeError(f"images: must be uint8, 0..255, got dtype {array.dtype}")
    if len(array) and 0 in array.shape:
        raise ValueError(f"images: have no pixels, shape {array.shape}")
    return array


def _checked_labels(values: ArrayLike, name: str, images: int, classes: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.shape != (images,):
        raise ValueError(f"{name}: must have one label for each of the {images} images, got shape {array.shape}")
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)  # an empty list has no integer dtype of its own
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: must hold integer labels, got dtype {array.dtype}")
    outside = np.flatnonzero((array < 0) | (array >= classes))
    if outside.size:
        raise ValueError(f"{name}[{outside[0]}]: label {array[outside[0]]} names none of the {classes} classes")
    return array.astype(np.int64)


def _checked_confidence(confidence: ArrayLike, images: int) -> NDArray[np.float64]:
    array = np.asarray(confidence)
    if array.shape != (images,):
        raise ValueError(f"confidence: must have one value for each of the {images} images, got shape {array.shape}")
    if array.dtype.kind in "cbOSUmM":
        raise TypeError(f"confidence: must hold real numbers, got dtype {array.dtype}")
    values = array.astype(np.float64)
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if bad.size:
        raise ValueError(f"confidence[{bad[0]}]: must be a probability in 0..1, got {values[bad[0]]}")
    return values
