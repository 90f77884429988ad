"""gpucnn.vis: the pictures and the report of a training run."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpucnn.vis import confusion, curve, metrics, mosaics, style
from gpucnn.vis.files import write_atomically
from gpucnn.vis.plots import MatplotlibMissingError, confusion_matrix, filters, misclassified, training_curve
from gpucnn.vis.report import write_report

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib: pip install 'gpucnn[plot]'"
)
SIZE_LIMIT = 300_000
DIGITS = [str(digit) for digit in range(10)]
NASTY = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "$\\frac{$",
    "a_b^c",
    "",
    "line\nbreak\x00\x1b",
    "x" * 500,
]


def make_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch, "step": 938 * epoch, "train_loss": 2.0 * 0.7**epoch, "train_accuracy": 1 - 0.5 * 0.8**epoch,
            "test_loss": 1.0 * 0.9**epoch, "test_accuracy": 0.99 - 0.3 * 0.8**epoch, "learning_rate": 0.1 / epoch,
            "images_per_second": 20_000.0, "seconds": 3.0,
        }
        for epoch in range(1, count + 1)
    ]  # fmt: skip


def decode(path: Path) -> np.ndarray:
    """The picture as (H, W, 3), after checks that hold for every picture."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(content) < SIZE_LIMIT
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        assert not {"Software", "Creation Time", "date:create"} & set(picture.info)
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32))) > 2
    assert (pixels[0] == 255).all()  # nothing touches the edge of the paper
    assert (pixels[-1] == 255).all()
    assert (pixels[:, 0] == 255).all()
    assert (pixels[:, -1] == 255).all()
    return pixels


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that the pictures of this test show."""
    texts: list[str] = []
    write = style.write

    def record(figure: Any, text: str, *args: Any, **options: Any) -> None:
        texts.append(text)
        write(figure, text, *args, **options)

    monkeypatch.setattr(style, "write", record)
    return texts


def colors_at(pixels: np.ndarray, color: str, tolerance: int = 2) -> np.ndarray:
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(pixels.astype(int) - wanted) <= tolerance).all(axis=-1)


# ---------------------------------------------------------------------------------------------- training curve


@needs_matplotlib
@pytest.mark.parametrize("count", [1, 2, 12, 40, 1000])
def test_curve_shows_both_lines_in_both_panels(tmp_path: Path, written: list[str], count: int) -> None:
    path = training_curve(make_rows(count), tmp_path / "curve.png")
    assert path == tmp_path / "curve.png"
    pixels = decode(path)
    assert pixels.shape[1] == style.WIDTH
    height = pixels.shape[0]
    for part in (pixels[: height // 2], pixels[height // 2 :]):  # upper half: loss; lower half: error
        plot = part[:, 84 : 1008 - 150]
        assert colors_at(plot, style.BLUE).sum() > 20
        assert colors_at(plot, style.ORANGE).sum() > 10
    assert {"loss", "error, %", "learning rate", "epoch"} <= set(written)
    assert any(text.startswith("Training: 1 epoch" if count == 1 else f"Training: {count} epochs") for text in written)


@needs_matplotlib
def test_curve_names_the_best_epoch_and_the_last_values(tmp_path: Path, written: list[str]) -> None:
    rows = make_rows(3)
    for row, accuracy in zip(rows, (0.9, 0.9789, 0.9788), strict=True):
        row["test_accuracy"] = accuracy
    training_curve(rows, tmp_path / "curve.png")
    assert any("best test error 2.11 %, epoch 2 " in text for text in written)
    assert "test 2.12 %" in written
    assert "train 25.60 %" in written  # 100 * 0.5 * 0.8**3


@needs_matplotlib
@pytest.mark.parametrize("losses", [[4.0, 1.0, 2.0], [100.0, 0.1, 1.0]], ids=["linear", "logarithmic"])
def test_curve_puts_each_value_where_the_axes_say(tmp_path: Path, losses: list[float]) -> None:
    rows = [{"epoch": epoch, "test_loss": loss} for epoch, loss in zip((10, 11, 14), losses, strict=True)]
    pixels = decode(training_curve(rows, tmp_path / "curve.png"))
    left, width, top, height = 84, 774, style.HEADER - 12 + 50, 250
    if max(losses) < 20 * min(losses):
        shares = [loss / (1.06 * max(losses)) for loss in losses]
    else:
        low, high = np.log10(min(losses)), np.log10(max(losses))
        shares = [(np.log10(loss) - low + 0.06 * (high - low)) / (1.12 * (high - low)) for loss in losses]
    blue = colors_at(pixels, style.BLUE)
    for row, share in zip(rows, shares, strict=True):
        x = round(left + width * (row["epoch"] - 10 + 0.06) / 4.12)
        y = round(top + height * (1 - share))
        assert blue[y - 1 : y + 2, x - 1 : x + 2].all(), (x, y)  # the middle of a marker


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([{"epoch": 1, "test_accuracy": 0.5}, {"epoch": 2, "test_accuracy": 0.5}], 0),  # the first of equals
        ([{"epoch": 1, "test_accuracy": float("nan")}, {"epoch": 2, "test_accuracy": 0.1}], 1),
        ([{"epoch": 1, "test_loss": 2.0}, {"epoch": 2, "test_loss": 1.0}], 1),
        ([{"epoch": 1, "test_loss": 1.0, "test_accuracy": 0.1}, {"epoch": 2, "test_loss": 2, "test_accuracy": 0.9}], 1),
        ([{"epoch": 1, "test_loss": 1.0, "test_accuracy": float("nan")}], 0),
        ([{"epoch": 1, "test_loss": float("-inf")}], None),
        ([{"epoch": 1, "train_loss": 1.0}], None),
        ([], None),
    ],
)
def test_best_row(rows: list[dict[str, Any]], best: int | None) -> None:
    assert metrics.best_row(rows) == best


@needs_matplotlib
@pytest.mark.parametrize(
    ("keys", "panels"),
    [
        (["train_loss"], {"loss"}),
        (["test_accuracy"], {"error, %"}),
        (["learning_rate"], {"learning rate"}),
        (["test_loss", "learning_rate"], {"loss", "learning rate"}),
    ],
)
def test_curve_draws_only_the_panels_it_has_values_for(
    tmp_path: Path, written: list[str], keys: list[str], panels: set[str]
) -> None:
    rows = [{key: row[key] for key in ["epoch", *keys]} for row in make_rows(5)]
    decode(training_curve(rows, tmp_path / "curve.png"))
    assert {"loss", "error, %", "learning rate"} & set(written) == panels


@needs_matplotlib
def test_curve_passes_over_missing_values_but_shows_that_training_diverged(tmp_path: Path, written: list[str]) -> None:
    rows = make_rows(9)
    full = decode(training_curve(rows, tmp_path / "full.png"))
    for index in (1, 3, 5, 7):  # tested every second epoch only: the line stays a line
        del rows[index]["test_loss"], rows[index]["test_accuracy"]
        rows[index]["learning_rate"] = None
    sparse = decode(training_curve(rows, tmp_path / "sparse.png"))
    blue = colors_at(full, style.BLUE).sum()
    assert abs(colors_at(sparse, style.BLUE).sum() - blue) <= 0.25 * blue
    assert not any("not finite" in text for text in written)
    rows[4]["train_loss"], rows[6]["train_loss"] = float("nan"), float("inf")
    decode(training_curve(rows, tmp_path / "nan.png"))
    assert f"{chr(215)} not finite" in written


@needs_matplotlib
def test_curve_of_nothing_finite(tmp_path: Path, written: list[str]) -> None:
    rows = [{"epoch": 1, "train_loss": float("nan"), "test_loss": float("nan"), "learning_rate": float("nan")}]
    decode(training_curve(rows, tmp_path / "curve.png"))
    assert {"train not finite", "test not finite", "not finite"} <= set(written)


@needs_matplotlib
@pytest.mark.parametrize(
    "losses", [[0.0, 0.0], [1.0, 0.0], [1e3, 1e-3, 0.0], [-1.0, 2.0], [1e-30, 1e30], [5.0, 5.0], [3, 2]]
)
def test_curve_of_extreme_losses(tmp_path: Path, losses: list[float]) -> None:
    rows = [
        {"epoch": epoch, "test_loss": loss, "train_accuracy": 1.0, "test_accuracy": 1.0 if epoch == 1 else 0.0}
        for epoch, loss in enumerate(losses, 1)
    ]
    pixels = decode(training_curve(rows, tmp_path / "curve.png"))
    assert colors_at(pixels[:, 84 : 1008 - 150], style.BLUE).sum() > 20


@needs_matplotlib
def test_curve_on_a_logarithmic_axis_leads_a_zero_out_through_the_bottom(tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "test_loss": loss} for epoch, loss in enumerate((100.0, 1.0, 0.0), 1)]
    pixels = decode(training_curve(rows, tmp_path / "curve.png"))
    top, middle = style.HEADER - 12 + 50, 84 + 774 // 2  # the second epoch, of value 1, is in the middle
    blue = colors_at(pixels, style.BLUE)
    assert blue[top + 243 : top + 249, middle - 2 : middle + 3].any(axis=1).all()
    assert blue[top + 244 : top + 256, 84 + 760 : 84 + 770].any()  # the ring of the best epoch, on the bottom line


@pytest.mark.parametrize(
    ("low", "high"), [(-3.2, 0.4), (0.01, 0.2), (-10, 12), (-1.0, 0.0), (-44.9, 38.0), (-0.31, 1.05)]
)
def test_log_ticks_are_few_and_within_the_axis(low: float, high: float) -> None:
    ticks = curve._log_ticks(low, high)
    assert len(ticks) <= 7
    assert ticks == sorted(set(ticks))
    assert all(low <= np.log10(tick) <= high for tick in ticks)
    if high - low >= 0.7:
        assert len(ticks) >= 2


@pytest.mark.parametrize("first", [1, 3, 7, 990])
@pytest.mark.parametrize("count", [1, 2, 14, 15, 16, 40, 90, 1000, 12345])
def test_epoch_ticks_are_whole_and_few(first: int, count: int) -> None:
    ticks = curve._epoch_ticks(first, first + count - 1)
    assert 1 <= len(ticks) <= 16
    assert ticks == sorted(set(ticks))
    assert first <= ticks[0]
    assert ticks[-1] <= first + count - 1
    assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], ValueError, "rows: is empty"),
        ([{"epoch": 1}], ValueError, "no row has train_loss"),
        ([{"epoch": 1, "train_loss": None}], ValueError, "no row has train_loss"),
        ([{"train_loss": 1.0}], ValueError, r"rows\[0\]: has no 'epoch'"),
        (
            [{"epoch": 1, "train_loss": 1.0}, {"epoch": 1, "train_loss": 1.0}],
            ValueError,
            "must increase, got 1 after 1",
        ),
        ([{"epoch": 1, "test_accuracy": 98.5}], ValueError, r"rows\[0\]\['test_accuracy'\]: .*0\.\.1, got 98\.5"),
        ([{"epoch": 1, "test_accuracy": -0.1}], ValueError, "must be a share in 0..1"),
        ([{"epoch": 1, "train_accuracy": float("inf")}], ValueError, "must be a share in 0..1"),
        ([{"epoch": 1.5, "train_loss": 1.0}], TypeError, "must be an integer, got 1.5"),
        ([{"epoch": True, "train_loss": 1.0}], TypeError, "must be an integer, got True"),
        ([{"epoch": 1, "train_loss": "0.1"}], TypeError, r"rows\[0\]\['train_loss'\]: must be a number"),
        ([{"epoch": 1, "train_loss": True}], TypeError, "must be a number, got True"),
        ([("epoch", 1)], TypeError, "must be a mapping"),
    ],
)
def test_curve_refuses_bad_rows(tmp_path: Path, rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        training_curve(rows, tmp_path / "curve.png")
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------- confusion matrix


def random_matrix(classes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = rng.poisson(0.4, (classes, classes))
    np.fill_diagonal(matrix, 95)
    return matrix


@needs_matplotlib
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 30, 31, 100])
def test_confusion_shows_counts_up_to_30_classes(tmp_path: Path, written: list[str], classes: int) -> None:
    matrix = random_matrix(classes)
    matrix[0, 0] = 8642
    pixels = decode(confusion_matrix(matrix, [f"class {i}" for i in range(classes)], tmp_path / "confusion.png"))
    assert pixels.shape[0] <= 1300
    assert pixels.shape[1] <= 1300
    assert ("8642" in written) == (classes <= 30)
    wrong, total = matrix.sum() - np.trace(matrix), matrix.sum()
    assert f"Confusion matrix: error {100 * wrong / total:.2f} %" in written
    if classes <= 30:
        for index in range(classes):
            assert f"{100 * matrix[index, index] / matrix[index].sum():.1f}" in written
        assert written.count("95") >= classes - 1


@needs_matplotlib
def test_one_error_in_a_thousand_is_visible_beside_the_diagonal(tmp_path: Path) -> None:
    clean = np.diag([1000] * 10)
    spotted = clean.copy()
    spotted[3, 3], spotted[3, 7] = 999, 1
    before = decode(confusion_matrix(clean, DIGITS, tmp_path / "clean.png")).astype(int)
    after = decode(confusion_matrix(spotted, DIGITS, tmp_path / "spotted.png")).astype(int)
    cells = (slice(style.HEADER + 34, style.HEADER + 34 + 640), slice(70, 70 + 640))
    rows, columns = np.nonzero((np.abs(after - before).sum(axis=-1) > 25)[cells])
    hit = (rows // 64 == 3) & (columns // 64 == 7)
    assert hit.sum() > 64 * 64 / 2  # the cell itself, and ...
    assert set(zip(rows[~hit] // 64, columns[~hit] // 64, strict=True)) <= {(3, 3)}  # ... the count beside it


@needs_matplotlib
def test_confusion_cell_colours_follow_the_share_of_the_row_not_the_count(tmp_path: Path) -> None:
    matrix = np.array([[900_000, 100_000], [1, 9]])  # both rows: 10 % wrong
    pixels = decode(confusion_matrix(matrix, ["a", "b"], tmp_path / "confusion.png"))
    left, top, cell = 28 + 34, style.HEADER + 34, 110
    left = int(np.flatnonzero((pixels[top + 20] != 255).any(axis=-1) & (np.arange(pixels.shape[1]) > left))[0])

    def color(row: int, column: int) -> tuple[int, ...]:
        return tuple(int(v) for v in pixels[top + row * cell + 20, left + column * cell + 20])

    assert color(0, 0) == color(1, 1)
    assert color(0, 1) == color(1, 0)
    assert color(0, 0) != color(0, 1)


@needs_matplotlib
@pytest.mark.parametrize(
    ("matrix", "title"),
    [
        ([[0, 0], [0, 0]], "Confusion matrix: no images"),
        ([[5, 0], [0, 0]], "Confusion matrix: error 0.00 %"),  # a class without images
        ([[0, 5], [5, 0]], "Confusion matrix: error 100.00 %"),
        ([[10**9, 0], [10**12, 5]], "Confusion matrix: error 99.90 %"),
    ],
)
def test_confusion_corners(tmp_path: Path, written: list[str], matrix: list[list[int]], title: str) -> None:
    decode(confusion_matrix(matrix, ["a", "b"], tmp_path / "confusion.png"))
    assert title in written
    if not sum(matrix[1]):
        assert chr(0x2013) in written  # no recall where there is nothing to recall


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (9999, "9999"), (12_345, "12k"), (999_499, "999k"), (999_500, "1.0M"), (4_600_000, "4.6M"),
     (9_949_999, "9.9M"), (9_950_000, "10M")],
)  # fmt: skip
def test_long_counts_are_shortened(count: int, text: str) -> None:
    assert confusion._short(count) == text


@pytest.mark.parametrize(
    ("matrix", "classes", "error", "message"),
    [
        (np.zeros((2, 3), int), ["a", "b"], ValueError, r"matrix: must be square, \(K, K\), got shape \(2, 3\)"),
        (np.zeros(4, int), ["a"], ValueError, "matrix: must be square"),
        (np.zeros((0, 0), int), [], ValueError, "matrix: must have 1 to 1000 classes"),
        (np.zeros((1001, 1001), np.int8), ["a"] * 1001, ValueError, "matrix: must have 1 to 1000 classes"),
        (np.eye(2), ["a", "b"], TypeError, "matrix: must hold integer counts, got dtype float64"),
        (np.eye(2, dtype=bool), ["a", "b"], TypeError, "integer counts"),
        ([[1, 2], [-3, 4]], ["a", "b"], ValueError, "must not be negative, got -3 at row 1, column 0"),
        (np.eye(3, dtype=int), ["a", "b"], ValueError, "classes: must name each of the 3 classes .* got 2 names"),
        (np.eye(2, dtype=int), "ab", TypeError, "single string 'ab'"),
        (np.eye(2, dtype=int), ["a", 1], TypeError, r"classes\[1\]: must be a string, got 1"),
    ],
)
def test_confusion_refuses_bad_input(
    tmp_path: Path, matrix: Any, classes: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        confusion_matrix(matrix, classes, tmp_path / "confusion.png")
    assert list(tmp_path.iterdir()) == []


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


def random_images(count: int, shape: tuple[int, int, int] = (28, 28, 1)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *shape), dtype=np.uint8)


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


# ------------------------------------------------------------------------------------------- what all four share


def draw_all(folder: Path, classes: list[str]) -> list[Path]:
    count = len(classes)
    labels = np.arange(count)
    return [
        training_curve(make_rows(7), folder / "curve.png"),
        confusion_matrix(random_matrix(count), classes, folder / "confusion.png"),
        filters(np.random.default_rng(2).normal(size=(5, 1, 3, 3)), folder / "filters.png"),
        misclassified(
            random_images(count), labels, (labels + 1) % count, np.full(count, 0.97), classes, folder / "gallery.png"
        ),
    ]


@needs_matplotlib
def test_same_input_same_bytes_in_any_process_and_under_any_style(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in draw_all(tmp_path, DIGITS)]
    assert [path.read_bytes() for path in draw_all(tmp_path, DIGITS)] == first

    import matplotlib
    import matplotlib.style

    before = dict(matplotlib.rcParams)
    for name in ("dark_background", "ggplot", "fivethirtyeight", "seaborn-v0_8-poster"):
        with matplotlib.style.context(name):
            inside = dict(matplotlib.rcParams)
            assert [path.read_bytes() for path in draw_all(tmp_path, DIGITS)] == first, name
            assert dict(matplotlib.rcParams) == inside
    assert dict(matplotlib.rcParams) == before

    script = (
        "import sys; from pathlib import Path; sys.path[:0] = [sys.argv[1]]; import test_vis\n"
        "test_vis.draw_all(Path(sys.argv[2]), test_vis.DIGITS)\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot was loaded'"
    )
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent), str(other)], check=True)
    assert [(other / path.name).read_bytes() for path in draw_all(tmp_path, DIGITS)] == first


@needs_matplotlib
def test_class_names_are_text_not_markup(tmp_path: Path, written: list[str]) -> None:
    for path in draw_all(tmp_path, NASTY):
        decode(path)
    assert NASTY[0] in written
    assert any(text.startswith("$\\frac{$") for text in written)
    assert any(text.startswith("line break") for text in written)
    assert not any(set(text) & {"\x00", "\x1b", "\n"} for text in written)


@needs_matplotlib
def test_text_is_cut_to_the_room_it_has() -> None:
    figure = style.new_figure(200, 100)
    for width in (5, 20, 21, 100, 10_000):
        text = style.fit(figure, "a class name of many words", width, style.STRONG)
        assert style.text_width(figure, text, style.STRONG) <= max(width, style.text_width(figure, "…", style.STRONG))
    assert text == "a class name of many words"


@needs_matplotlib
def test_pictures_above_the_size_limit_are_reduced_to_a_palette(tmp_path: Path) -> None:
    y, x = np.mgrid[0:128, 0:128]
    waves = [128 + 90 * np.sin(x / (9 + i) + channel) * np.cos(y / (7 + i)) for i in range(36) for channel in range(3)]
    noise = np.random.default_rng(5).normal(0, 4, (36, 128, 128, 3))
    images = np.clip(np.stack(waves).reshape(36, 3, 128, 128).transpose(0, 2, 3, 1) + noise, 0, 255).astype(np.uint8)
    path = misclassified(images, [0] * 36, [1] * 36, [0.5] * 36, DIGITS, tmp_path / "gallery.png")
    decode(path)
    with Image.open(path) as picture:
        assert picture.mode == "P"


def call_all(path: Path) -> list[Any]:
    return [
        lambda: training_curve(make_rows(2), path),
        lambda: confusion_matrix(np.eye(2, dtype=int), ["a", "b"], path),
        lambda: filters(np.ones((2, 1, 3, 3)), path),
        lambda: misclassified(random_images(1), [0], [1], [0.5], DIGITS, path),
    ]


def test_target_is_checked_first(tmp_path: Path) -> None:
    for draw in call_all(tmp_path / "picture.jpg"):
        with pytest.raises(ValueError, match=r"path: pictures are written as PNG.*picture\.jpg"):
            draw()
    for draw in call_all(tmp_path / "nowhere" / "picture.png"):
        with pytest.raises(FileNotFoundError, match=r"path: the folder .*nowhere' does not exist"):
            draw()


def test_missing_matplotlib_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in call_all(tmp_path / "picture.png"):
        with pytest.raises(MatplotlibMissingError, match=r"pip install 'gpucnn\[plot\]'") as caught:
            draw()
        assert isinstance(caught.value, ImportError)
    assert list(tmp_path.iterdir()) == []


def test_importing_loads_neither_matplotlib_nor_pillow() -> None:
    script = "import sys, gpucnn.vis; print(sorted({'matplotlib', 'PIL'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    target.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    monkeypatch.undo()
    assert write_atomically(target, b"new") == target
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_written_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    assert write_atomically(tmp_path / "ours", b"x").stat().st_mode == plain.stat().st_mode


# ------------------------------------------------------------------------------------------------------ report


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order, every attribute and text collected."""

    VOID = frozenset({"meta", "link", "img", "br", "wbr", "hr"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def values(self, tag: str, name: str) -> list[str]:
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]

    def inside(self, tag: str) -> list[str]:
        return [text for t, text in self.texts if t == tag]


def png(path: Path, width: int = 7, height: int = 5) -> Path:
    Image.new("RGB", (width, height), (1, 2, 3)).save(path)
    return path


def make_report(folder: Path, **change: Any) -> Path:
    arguments: dict[str, Any] = {
        "title": "LeNet-5 on MNIST", "summary": [("Test error", "1.97 %"), ("Images/s", "12,768")],
        "rows": make_rows(3), "pictures": [("The curve", png(folder / "curve.png"))],
        "config": {"model": "lenet5", "optimizer": {"name": "sgd", "nesterov": True, "betas": [0.9, 0.5]}, "to": None},
    }  # fmt: skip
    return write_report(folder, **{**arguments, **change})


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_report_shows_everything(tmp_path: Path) -> None:
    path = make_report(tmp_path)
    assert path == tmp_path / "report.html"
    page = read(path)
    assert page.inside("title") == page.inside("h1") == ["LeNet-5 on MNIST"]
    assert page.inside("dt") == ["Test error", "Images/s"]
    assert page.inside("dd") == ["1.97 %", "12,768"]
    assert page.values("img", "alt") == ["The curve"]
    assert (page.values("img", "width"), page.values("img", "height")) == (["7"], ["5"])
    assert page.inside("figcaption") == ["The curve"]
    cells = page.inside("td")
    assert "2,814" in cells  # the step of epoch 3
    assert "25.60" in cells  # its training error in percent
    assert {"lenet5", "sgd", "yes", "0.9, 0.5", "none"} <= set(cells)
    assert "optimizer.name" in "".join(page.inside("th"))
    assert page.values("tr", "class") == ["best"]
    assert '<tr class="best"><th scope="row">3</th>' in path.read_text(encoding="utf-8")
    assert page.tags.count("details") == 2


def test_report_embeds_the_picture_itself(tmp_path: Path) -> None:
    source = read(make_report(tmp_path)).values("img", "src")
    assert len(source) == 1
    assert base64.b64decode(source[0].removeprefix("data:image/png;base64,")) == (tmp_path / "curve.png").read_bytes()


def test_report_needs_nothing_from_outside(tmp_path: Path) -> None:
    content = make_report(tmp_path).read_text(encoding="utf-8")
    page = Page(content)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]*", "", content), re.IGNORECASE)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    links = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert links
    assert all(link.startswith("data:") for link in links)
    assert "url(" not in content
    assert "@import" not in content
    policy = "".join(page.values("meta", "content"))
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("text", [*NASTY[:4], "</style><b>", "--><!--", "\udcff\x00 é 中", "1.93\u00a0%"])
def test_report_escapes_everything(tmp_path: Path, text: str) -> None:
    shown = text.replace("\x00", "\ufffd").replace("\udcff", "\ufffd")
    rows = [{"epoch": 1, "train_loss": 1.0, text: text}]
    config = {text: text, "deep": {text: [text, {text: text}]}}
    pictures = [(text, png(tmp_path / "p.png"))]
    page = read(make_report(tmp_path, title=text, summary=[(text, text)], rows=rows, pictures=pictures, config=config))
    plain = read(make_report(tmp_path, rows=[{"epoch": 1, "train_loss": 1.0, "x": "x"}], summary=[("x", "x")],
                             config={"x": "x", "deep": {"x": ["x", {"x": "x"}]}}))  # fmt: skip
    assert [tag for tag in page.tags if tag != "wbr"] == [tag for tag in plain.tags if tag != "wbr"]
    assert page.inside("h1") == page.inside("dt") == page.inside("dd") == page.inside("figcaption") == [shown]
    assert page.values("img", "alt") == [shown]
    assert page.inside("td").count(shown) == 2


def test_report_of_a_run_without_epochs_pictures_or_configuration(tmp_path: Path) -> None:
    page = read(make_report(tmp_path, rows=[], pictures=[], config={}, summary=[]))
    assert page.inside("p") == ["No epoch was finished."]
    assert not {"table", "figure", "dl"} & set(page.tags)


def test_report_of_rows_with_holes(tmp_path: Path) -> None:
    rows = [{"epoch": 2, "train_loss": float("nan"), "extra": 3.0}, {"epoch": 5, "test_accuracy": 1.0, "step": None}]
    page = read(make_report(tmp_path, rows=rows))
    dash = chr(0x2013)
    assert page.inside("td")[:6] == ["nan", dash, "3", dash, "0.00", dash]
    heads = page.inside("th")
    assert heads[:6] == ["epoch", "train loss", "test error, %", "extra", "2", "5"]
    assert "2 epochs · best: epoch 5" in page.inside("summary")


def test_report_is_the_same_bytes_and_can_go_elsewhere(tmp_path: Path) -> None:
    first = make_report(tmp_path).read_bytes()
    assert make_report(tmp_path).read_bytes() == first
    (tmp_path / "other").mkdir()
    elsewhere = make_report(tmp_path, path=tmp_path / "other" / "page.html")
    assert elsewhere == tmp_path / "other" / "page.html"
    assert elsewhere.read_bytes() == first


def test_report_refuses_bad_input(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(FileNotFoundError, match=r"run_dir: the folder .*gone' does not exist"):
        write_report(tmp_path / "gone", title="t", summary=[], rows=[], pictures=[], config={})
    with pytest.raises(FileNotFoundError, match=r"path: the folder .*nowhere' does not exist"):
        make_report(tmp_path, path=tmp_path / "nowhere" / "r.html")
    with pytest.raises(FileNotFoundError, match=r"pictures: .*gone\.png' \(The curve\) does not exist"):
        make_report(run, pictures=[("The curve", run / "gone.png")])
    for content in (b"", b"GIF89a" + bytes(40), b"\x89PNG\r\n\x1a\n", png(tmp_path / "x.png").read_bytes()[:20]):
        (run / "bad.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"pictures: .*bad\.png' \(cut\) is not a PNG file"):
            make_report(run, pictures=[("cut", run / "bad.png")])
    with pytest.raises(ValueError, match="must increase"):
        make_report(run, rows=[{"epoch": 2}, {"epoch": 1}])
    with pytest.raises(TypeError, match="must be a number"):
        make_report(run, rows=[{"epoch": 2, "seconds": "3"}])
    assert not (run / "report.html").exists()


@needs_matplotlib
def test_report_of_the_four_pictures_stays_small(tmp_path: Path) -> None:
    pictures = [(path.stem, path) for path in draw_all(tmp_path, DIGITS)]
    report = make_report(tmp_path, pictures=pictures)
    assert report.stat().st_size < 4 * SIZE_LIMIT
    assert len(read(report).values("img", "src")) == 4


def test_gallery_of_some_errors_names_them_all(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 1), np.uint8)
    drawn = {
        total: misclassified(images, [0, 1], [1, 0], [0.9, 0.8], ["a", "b"], tmp_path / f"{total}.png", errors=total)
        for total in (None, 2, 3)
    }
    assert drawn[None].read_bytes() == drawn[2].read_bytes() != drawn[3].read_bytes()
    with pytest.raises(ValueError, match="1 in all, but 2 wrong images"):
        misclassified(images, [0, 1], [1, 0], [0.9, 0.8], ["a", "b"], tmp_path / "x.png", errors=1)
