"""What the tests of pictures share: made-up input, and reading pixels back."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpucnn.vis.plots import confusion_matrix, filters, misclassified, training_curve

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


def colors_at(pixels: np.ndarray, color: str, tolerance: int = 2) -> np.ndarray:
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(pixels.astype(int) - wanted) <= tolerance).all(axis=-1)


def random_matrix(classes: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = rng.poisson(0.4, (classes, classes))
    np.fill_diagonal(matrix, 95)
    return matrix


def random_images(count: int, shape: tuple[int, int, int] = (28, 28, 1)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *shape), dtype=np.uint8)


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
