"""Pictures of a run: the confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vis_checks import DIGITS, decode, needs_matplotlib, random_matrix

from gpucnn.vis import confusion, style
from gpucnn.vis.plots import confusion_matrix

# -------------------------------------------------------------------------------------------- confusion matrix


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
