"""The depth chart: bars where the amounts say, names that do not touch, bad input."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from vis_checks import NASTY, colors_at, decode, needs_matplotlib

from gpucnn import vis
from gpucnn.vis import books, style


@dataclass
class Row:
    path: str = ""
    kind: str = "Conv2d"
    macs: int = 0
    parameters: int = 0
    memory: int = 0
    training_memory: int = 0


def rows(count: int, name: str = "stage{0}.block{1}.conv") -> list[Row]:
    kinds = itertools.cycle(["Conv2d", "BatchNorm2d", "ReLU"])
    return [
        Row(
            name.format(n * 5 // count, n * 20 // count, n),
            next(kinds),
            10**6 * (n + 1),
            5 * n,
            4096 * (count - n),
            1024,
        )
        for n in range(count)
    ]


def panel_tops() -> list[int]:
    first = style.HEADER + 22
    return [first + books._GAP * (n + 1) + books._PANEL_HEIGHT * n for n in range(3)]


@needs_matplotlib
@pytest.mark.parametrize("count", [1, 2, 22, 53, 54, 175, 800])
def test_three_panels_of_bars_for_any_depth(tmp_path: Path, written: list[str], count: int) -> None:
    path = vis.depth_chart(rows(count), tmp_path / "depth.png", "A network", "of so many layers")
    assert path == tmp_path / "depth.png"
    pixels = decode(path)
    assert pixels.shape[1] == style.WIDTH
    for top in panel_tops():
        panel = pixels[top : top + books._PANEL_HEIGHT, books._LEFT :]
        assert sum(colors_at(panel, color).sum() for color in (style.BLUE, style.MUTED)) > 100 * (
            count > 1 or top < 250
        )
    assert {"A network", "of so many layers"} <= set(written)
    assert any(text.startswith("multiply-accumulates") for text in written)


@needs_matplotlib
def test_bars_are_as_high_as_their_amounts(tmp_path: Path) -> None:
    layers = [
        Row("a", "Conv2d", 100, 1, 400, 100),
        Row("b", "Linear", 50, 4, 100, 200),
        Row("c", "ReLU", 0, 0, 200, 0),
        Row("d", "ConvTranspose2d", 25, 2, 0, 0),
    ]
    pixels = decode(vis.depth_chart(layers, tmp_path / "depth.png", "title"))
    colors = [style.BLUE, style.ORANGE, style.MUTED, style.BLUE]
    highest = {"macs": 100, "parameters": 4, "training_memory": 400}
    for top, (name, most) in zip(panel_tops(), highest.items(), strict=True):
        for index, (row, color) in enumerate(zip(layers, colors, strict=True)):
            column = colors_at(pixels[top : top + books._PANEL_HEIGHT - 1, round(books._at(index, 4))][:, None], color)
            expected = books._PANEL_HEIGHT * getattr(row, name) / (1.06 * most)
            assert abs(int(column.sum()) - expected) <= 3, (name, row.path)
    pale = colors_at(pixels[panel_tops()[2] : panel_tops()[2] + 149, round(books._at(2, 4))][:, None], books._PALE)
    assert abs(int(pale.sum()) - books._PANEL_HEIGHT * 200 / (1.06 * 400)) <= 3


@needs_matplotlib
def test_the_largest_share_is_named(tmp_path: Path, written: list[str]) -> None:
    vis.depth_chart([Row("a", macs=3), Row("b", macs=1), Row("", "Add", parameters=7)], tmp_path / "depth.png", "title")
    assert "most: a, 75 %" in written
    assert "most: Add, 100 %" in written
    assert not any("nan" in text for text in written)


@needs_matplotlib
@pytest.mark.parametrize(
    ("largest", "heading"),
    [(999, "parameters"), (1000, "parameters, thousands"), (61 * 10**6, "parameters, millions"), (0, "parameters")],
)
def test_units_fit_the_amounts(tmp_path: Path, written: list[str], largest: int, heading: str) -> None:
    vis.depth_chart([Row("a", parameters=largest)], tmp_path / "depth.png", "title")
    assert heading in written


@pytest.mark.parametrize(
    ("largest", "unit"), [(0, "B"), (1023, "B"), (1024, "KiB"), (5 << 20, "MiB"), (3 << 30, "GiB"), (1 << 60, "TiB")]
)
def test_units_of_memory(largest: int, unit: str) -> None:
    factor, name = books._unit(float(largest), 1024)
    assert name == unit
    assert largest < 1024 or largest / factor >= 1


class Placed:
    """Where each text lies, in pixels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boxes: list[tuple[str, float, float, float, float]] = []
        write = style.write

        def record(figure: Any, text: str, x: float, y: float, kind: style.Type, **how: Any) -> None:
            write(figure, text, x, y, kind, **how)
            box = figure.texts[-1].get_window_extent(figure.canvas.get_renderer())
            height = style.size(figure)[1]
            self.boxes.append((text, box.x0, height - box.y1, box.x1, height - box.y0))
            self.size = style.size(figure)

        monkeypatch.setattr(style, "write", record)

    def overlapping(self) -> list[tuple[str, str]]:
        return [
            (a[0], b[0])
            for a, b in itertools.combinations(self.boxes, 2)
            if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
        ]

    def outside(self) -> list[str]:
        width, height = self.size
        return [text for text, x0, y0, x1, y1 in self.boxes if x0 < 0 or y0 < 0 or x1 > width or y1 > height]


@needs_matplotlib
@pytest.mark.parametrize(
    "layers",
    [
        rows(22, "features.{2}"),
        rows(53, "stage{0}.block{1}"),
        rows(54, "stage{0}.block{1}"),
        rows(175),
        rows(400, "features.denseblock{0}.denselayer{2}.conv"),
        rows(120, "{2}"),
        rows(90, ""),
        rows(200, "a_rather_long_name_of_a_module_{0}.another_long_one_{1}"),
        [*rows(150, "features.{1}.{2}"), Row("classifier.0"), Row("classifier.1", "Linear")],
        [Row("first"), Row("second"), *rows(100), Row("last"), Row("fc", "Linear")],
        [Row(name * 3, name) for name in NASTY],
    ],
    ids=["22", "53", "54", "175", "400", "numbers", "nameless", "long", "classifier", "single", "nasty"],
)
def test_texts_neither_touch_nor_leave_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: Sequence[Row]
) -> None:
    placed = Placed(monkeypatch)
    vis.depth_chart(layers, tmp_path / "depth.png", "title", "line")
    assert placed.overlapping() == []
    assert placed.outside() == []


@needs_matplotlib
def test_deep_networks_name_their_stages(tmp_path: Path, written: list[str]) -> None:
    layers = [Row(f"layer{n // 40}.{n % 40 // 10}.conv{n % 3}") for n in range(160)]
    vis.depth_chart([*layers, Row("classifier", "Linear")], tmp_path / "depth.png", "title")
    assert {"layer0", "layer1", "layer2", "layer3", "classifier"} <= set(written)
    ticks = {"0", "1"}  # may be numbers on the axes too
    assert [written.count(str(block)) for block in range(4) if str(block) not in ticks] == [4, 4]


@needs_matplotlib
def test_shallow_networks_name_each_layer(tmp_path: Path, written: list[str]) -> None:
    vis.depth_chart([Row("conv1"), Row("", "ReLU"), Row("fc", "Linear")], tmp_path / "depth.png", "title")
    assert {"conv1 Conv2d", "ReLU", "fc Linear"} <= set(written)


@needs_matplotlib
def test_the_same_layers_give_the_same_bytes(tmp_path: Path) -> None:
    first = vis.depth_chart(rows(60), tmp_path / "a.png", "title").read_bytes()
    assert vis.depth_chart(rows(60), tmp_path / "b.png", "title").read_bytes() == first
    assert vis.depth_chart(rows(61), tmp_path / "c.png", "title").read_bytes() != first


@pytest.mark.parametrize(
    ("layers", "name", "error", "message"),
    [
        ([], "a.png", ValueError, "layers: is empty"),
        ([Row("a", macs=-1)], "a.png", ValueError, "macs must not be negative, got -1"),
        ([Row("a", memory=float("nan"))], "a.png", ValueError, "memory must not be negative, got nan"),  # type: ignore[arg-type]
        ([Row("a")], "a.svg", ValueError, "must end in .png"),
        ([Row("a")], "nowhere/a.png", FileNotFoundError, "nowhere"),
    ],
)
def test_bad_input_draws_nothing(
    tmp_path: Path, layers: list[Row], name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        vis.depth_chart(layers, tmp_path / name, "title")
    assert list(tmp_path.iterdir()) == []


def test_stages_are_the_layers_in_a_row_that_share_a_name() -> None:
    paths = [path.split(".") for path in ("a.0", "a.0", "a.1", "", "b", "a.0")]
    assert books._runs(paths, 0) == [(0, 2, "a"), (4, 4, "b"), (5, 5, "a")]
    assert books._runs(paths, 1) == [(0, 1, "0"), (2, 2, "1"), (5, 5, "0")]
