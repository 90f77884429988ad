"""Pictures of a run: filters and the gallery of misclassified images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vis_checks import DIGITS, decode, needs_matplotlib, random_images

from gpucnn.vis import mosaics, style
from gpucnn.vis.plots import filters, misclassified

# ----------------------------------------------------------------------------------------------------- filters


@needs_matplotlib
@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((6, 1, 5, 5), "grey: the weight"),
        ((64, 3, 7, 7), "colour: the weights of red, green and blue"),
        ((37, 16, 3, 3), "grey: the mean over 16 input channels"),
        ((5, 2, 1, 7), "grey: the mean over 2 input channels"),
        ((1, 1, 1, 1), "grey: the weight"),
        ((300, 3, 11, 11), "colour: the weights of red, green and blue"),
    ],
)
def test_filters(tmp_path: Path, written: list[str], shape: tuple[int, ...], says: str) -> None:
    weight = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    pixels = decode(filters(weight, tmp_path / "filters.png"))
    assert pixels.shape[1] == style.WIDTH
    assert says in written
    count = {1: "1 filter", 300: "the first 256 of 300 filters"}.get(shape[0], f"{shape[0]} filters")
    assert f"First layer: {count} of {shape[2]} {chr(215)} {shape[3]}" in written


@needs_matplotlib
def test_filters_keep_signs_places_and_channels(tmp_path: Path) -> None:
    grey = np.array([[[[-2.0, 0.0], [1.0, 2.0]]], [[[0.0, 0.0], [0.0, -1.0]]]])  # two filters of 2 x 2
    pixels = decode(filters(grey, tmp_path / "grey.png"))
    left, top, side = style.MARGIN + 1, style.HEADER + 1, 70  # behind the frame; a weight is 70 x 70 pixels

    def value(k: int, r: int, s: int) -> tuple[int, ...]:
        return tuple(
            int(v) for v in pixels[top + r * side + side // 2, left + k * (2 * side + 7) + s * side + side // 2]
        )

    assert [value(0, r, s)[0] for r in range(2) for s in range(2)] == [0, 128, 191, 255]
    assert [value(1, r, s)[0] for r in range(2) for s in range(2)] == [128, 128, 128, 64]

    color = np.zeros((1, 3, 2, 2))
    color[0, 0, 0, 0], color[0, 1, 0, 1], color[0, 2, 1, 0] = 1, 1, -1
    pixels = decode(filters(color, tmp_path / "color.png"))
    assert value(0, 0, 0) == (255, 128, 128)
    assert value(0, 0, 1) == (128, 255, 128)
    assert value(0, 1, 0) == (128, 128, 0)


@needs_matplotlib
@pytest.mark.parametrize("count", [*range(1, 40), 64, 96, 128, 255, 256])
def test_every_filter_has_a_place_in_the_grid(count: int) -> None:
    tiles = np.full((count, 1, 1, 1), 7, dtype=np.uint8)
    mosaic = mosaics._mosaic(tiles, mosaics._columns(count), 3)
    assert (mosaic == 7).all(axis=-1).sum() == 9 * count
    assert mosaic.shape[1] >= 0.7 * mosaic.shape[0]


@needs_matplotlib
def test_filters_of_zero_and_of_half_precision_and_of_any_layout(tmp_path: Path) -> None:
    decode(filters(np.zeros((4, 3, 3, 3)), tmp_path / "zero.png"))
    weight = np.random.default_rng(3).normal(size=(6, 3, 5, 5)).astype(np.float16)
    one = filters(weight, tmp_path / "one.png").read_bytes()
    other = filters(np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), tmp_path / "other.png")
    assert other.read_bytes() == one
    assert filters(weight.astype(">f4"), tmp_path / "swapped.png").read_bytes() == one


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (np.zeros((3, 3)), ValueError, r"weight: must have four dimensions, \(K, C, R, S\), got shape \(3, 3\)"),
        (np.zeros((0, 1, 3, 3)), ValueError, "weight: is empty"),
        (np.full((2, 1, 3, 3), np.nan), ValueError, "weight: 18 of 18 values are not finite"),
        (np.zeros((1, 1, 1, 1), complex), TypeError, "weight: must hold real numbers, got dtype complex128"),
        (np.zeros((1, 1, 1, 1), object), TypeError, "weight: must hold real numbers"),
    ],
)
def test_filters_refuse_bad_input(tmp_path: Path, weight: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        filters(weight, tmp_path / "filters.png")
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------------- misclassified


@needs_matplotlib
def test_gallery_shows_the_wrong_ones_most_confident_first(tmp_path: Path, written: list[str]) -> None:
    true, predicted = [0, 1, 2, 3, 4], [0, 7, 2, 8, 9]
    decode(misclassified(random_images(5), true, predicted, [1.0, 0.6, 0.9, 0.97, 0.6], DIGITS, tmp_path / "g.png"))
    captions = [text for text in written if "→" in text and len(text) < 10]
    assert captions == ["3 → 8", "1 → 7", "4 → 9"]  # equal confidence: in the order given
    assert [text for text in written if text.endswith(" %")] == ["97 %", "60 %", "60 %"]
    assert "Misclassified: 3 images" in written


@needs_matplotlib
def test_gallery_puts_each_image_above_its_caption(tmp_path: Path) -> None:
    images = np.stack([np.full((28, 28, 1), value, np.uint8) for value in (10, 60, 110, 160, 210, 240, 30)])
    order = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    pixels = decode(misclassified(images, [0] * 7, [1] * 7, order, DIGITS, tmp_path / "g.png"))
    top, pitch = style.HEADER + 4, (style.WIDTH - 2 * style.MARGIN - 142) / 5
    for place, value in enumerate((10, 60, 110, 160, 210, 240)):
        left = style.MARGIN + round(place * pitch)
        tile = pixels[top + 1 : top + 141, left + 1 : left + 141]
        assert (tile == value).all()
    assert (pixels[top + 203 + 20, style.MARGIN + 20] == 30).all()  # the seventh opens the second row


@needs_matplotlib
def test_gallery_keeps_rows_columns_and_channels(tmp_path: Path) -> None:
    images = np.zeros((1, 14, 28, 3), np.uint8)
    images[0, 0, 0], images[0, 0, 27], images[0, 13, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    pixels = decode(misclassified(images, [0], [1], [0.5], DIGITS, tmp_path / "g.png"))
    top, left = style.HEADER + 5, style.MARGIN + 1
    assert tuple(pixels[top + 2, left + 2]) == (255, 0, 0)
    assert tuple(pixels[top + 2, left + 137]) == (0, 255, 0)
    assert tuple(pixels[top + 67, left + 2]) == (0, 0, 255)


@needs_matplotlib
@pytest.mark.parametrize("most", [1, 3, 36])
def test_gallery_shows_at_most_as_many_as_asked_for(tmp_path: Path, written: list[str], most: int) -> None:
    wrong = misclassified(random_images(50), [0] * 50, [1] * 50, [0.5] * 50, DIGITS, tmp_path / "g.png", most=most)
    decode(wrong)
    assert written.count("0 → 1") == most
    assert any(text.startswith(f"the {most} most confident") for text in written)


@needs_matplotlib
@pytest.mark.parametrize("count", [0, 1, 9])
def test_gallery_without_errors_says_so(tmp_path: Path, written: list[str], count: int) -> None:
    labels = list(range(count))
    decode(misclassified(random_images(count), labels, labels, [0.9] * count, DIGITS, tmp_path / "g.png"))
    assert "Misclassified: none" in written
    assert "no errors to show" in written


@needs_matplotlib
@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 8, 1), (32, 32, 3), (28, 70, 1), (71, 71, 3), (224, 160, 3)])
def test_gallery_of_any_image_size(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    images = np.broadcast_to(np.linspace(0, 255, shape[1]).astype(np.uint8)[:, None], (36, *shape))
    pixels = decode(misclassified(images, [0] * 36, [1] * 36, [0.5] * 36, DIGITS, tmp_path / "g.png"))
    assert pixels.shape[1] == style.WIDTH


@needs_matplotlib
def test_long_class_names_get_a_line_each(tmp_path: Path, written: list[str]) -> None:
    names = ["automobile", "airplane", "a name that is far too long for the room it has"]
    decode(misclassified(random_images(3), [0, 1, 2], [1, 2, 0], [0.5] * 3, names, tmp_path / "g.png"))
    assert {"automobile", "→ airplane", "→ automobile"} <= set(written)
    assert any(text.startswith("a name that") and text.endswith("…") for text in written)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (0.974, "97 %"), (0.9949, "99 %"), (0.995, "99.5 %"), (0.99999999, "99.9 %"), (1.0, "100 %")],
)
def test_only_certainty_reads_as_100_percent(share: float, text: str) -> None:
    assert mosaics._percent(share) == text


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": random_images(3)[..., 0]}, ValueError, r"images: must have shape \(M, H, W, C\)"),
        ({"images": random_images(3, (4, 4, 2))}, ValueError, "with C 1 or 3"),
        ({"images": np.zeros((3, 0, 4, 1), np.uint8)}, ValueError, "images: have no pixels"),
        ({"images": np.zeros((3, 4, 4, 1))}, TypeError, "images: must be uint8, 0..255, got dtype float64"),
        ({"true": [0, 1]}, ValueError, r"true: must have one label for each of the 3 images, got shape \(2,\)"),
        ({"predicted": [[1, 0, 0]]}, ValueError, "predicted: must have one label for each of the 3 images"),
        ({"confidence": [0.5]}, ValueError, "confidence: must have one value for each of the 3 images"),
        ({"true": [0, 1, 10]}, ValueError, r"true\[2\]: label 10 names none of the 10 classes"),
        ({"predicted": [1, -1, 0]}, ValueError, r"predicted\[1\]: label -1 names none"),
        ({"predicted": [1.0, 0.0, 0.0]}, TypeError, "predicted: must hold integer labels"),
        ({"confidence": [0.5, np.nan, 0.5]}, ValueError, r"confidence\[1\]: must be a probability in 0..1, got nan"),
        ({"confidence": [0.5, 0.5, 97.0]}, ValueError, r"confidence\[2\]: must be a probability"),
        ({"confidence": ["a", "b", "c"]}, TypeError, "confidence: must hold real numbers"),
        ({"most": 0}, ValueError, "most: must be 1 or more, got 0"),
        ({"most": 1.5}, TypeError, "most: must be an integer, got 1.5"),
        ({"classes": "0123456789"}, TypeError, "classes: must be a sequence of names"),
    ],
)
def test_gallery_refuses_bad_input(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {
        "images": random_images(3), "true": [0, 1, 2], "predicted": [1, 0, 0], "confidence": [0.5, 0.5, 0.5],
        "classes": DIGITS, "path": tmp_path / "gallery.png",
    }  # fmt: skip
    with pytest.raises(error, match=message):
        misclassified(**{**arguments, **change})
    assert list(tmp_path.iterdir()) == []


def test_gallery_of_some_errors_names_them_all(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 1), np.uint8)
    drawn = {
        total: misclassified(images, [0, 1], [1, 0], [0.9, 0.8], ["a", "b"], tmp_path / f"{total}.png", errors=total)
        for total in (None, 2, 3)
    }
    assert drawn[None].read_bytes() == drawn[2].read_bytes() != drawn[3].read_bytes()
    with pytest.raises(ValueError, match="1 in all, but 2 wrong images"):
        misclassified(images, [0, 1], [1, 0], [0.9, 0.8], ["a", "b"], tmp_path / "x.png", errors=1)
