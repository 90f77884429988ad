"""Pictures of a run: what all four have in common."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from vis_checks import DIGITS, NASTY, decode, draw_all, make_rows, needs_matplotlib, random_images

from gpucnn.vis import style
from gpucnn.vis.files import write_atomically
from gpucnn.vis.plots import MatplotlibMissingError, confusion_matrix, filters, misclassified, training_curve

# ------------------------------------------------------------------------------------------- what all four share


@needs_matplotlib
def test_same_input_same_bytes_in_any_process_and_under_any_style(tmp_path: Path) -> None:
    paths = draw_all(tmp_path, DIGITS)
    first = [path.read_bytes() for path in paths]

    import matplotlib
    import matplotlib.style

    before = dict(matplotlib.rcParams)
    for name in ("dark_background", "seaborn-v0_8-poster"):
        with matplotlib.style.context(name):
            inside = dict(matplotlib.rcParams)
            assert [path.read_bytes() for path in draw_all(tmp_path, DIGITS)] == first, name
            assert dict(matplotlib.rcParams) == inside
    assert dict(matplotlib.rcParams) == before

    script = (
        "import sys; from pathlib import Path; sys.path[:0] = [sys.argv[1]]; import vis_checks\n"
        "vis_checks.draw_all(Path(sys.argv[2]), vis_checks.DIGITS)\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot was loaded'"
    )
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent), str(other)], check=True)
    assert [(other / path.name).read_bytes() for path in paths] == first


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
