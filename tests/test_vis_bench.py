"""Pictures of a benchmark: points and bars where the amounts say, names that do not touch, bad input."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vis_checks import NASTY, colors_at, decode, needs_matplotlib

from gpucnn.vis import bench, style
from gpucnn.vis.bench import Bar, Ceilings, Point, amount, roofline, speedup_bars

CPU = Ceilings(20e9, {"float32": 80e9})
GPU = Ceilings(3e12, {"float32": 60e12, "tf32": 400e12, "bfloat16": 790e12, "float16": 795e12})


def points(cases: int, kinds: int = 2, seed: int = 0) -> list[Point]:
    rng = np.random.default_rng(seed)
    found = []
    for case in range(cases):
        intensity = 10 ** rng.uniform(-0.5, 2.5)
        roof = min(20e9 * intensity, 80e9)
        found += [Point(f"case {case}", intensity, roof * rng.uniform(0.1, 1), f"kind {kind}") for kind in range(kinds)]
    return found


def dark(pixels: np.ndarray, color: str, x: float, y: float) -> bool:
    """Whether all pixels around (x, y) are of this colour."""
    column, row = round(x), round(y)
    return bool(colors_at(pixels, color)[row - 1 : row + 2, column - 1 : column + 2].all())


def place(given: list[Point], ceilings: Ceilings) -> bench._Logarithmic:
    kinds = len({point.kind for point in given})
    top = style.HEADER + 40 + bench._LEGEND_LINE * math.ceil(kinds / bench._LEGEND_COLUMNS)
    return bench._Logarithmic.around(given, ceilings, top)


# ------------------------------------------------------------------------------------------------------------ roofline


@needs_matplotlib
@pytest.mark.parametrize("ceilings", [CPU, GPU], ids=["cpu", "gpu"])
def test_points_and_the_roof_are_where_their_amounts_say(
    tmp_path: Path, written: list[str], ceilings: Ceilings
) -> None:
    given = [
        Point("a", 0.25, 4e9, "gpucnn"),
        Point("b", 30, 70e9, "gpucnn"),
        Point("a", 0.25, 2e9, "torch"),
        Point("b", 30, 10e9, "torch"),
    ]
    path = roofline(given, ceilings, tmp_path / "roof.png", "A title", "a line")
    assert path == tmp_path / "roof.png"
    pixels = decode(path)
    where = place(given, ceilings)
    for point in given:
        color = style.BLUE if point.kind == "gpucnn" else style.ORANGE
        assert dark(pixels, color, *where.pixel(point.intensity, point.rate)), point
    high = max(ceilings.rates.values())
    for intensity in (0.9 * high / ceilings.bandwidth, 1.2 * high / ceilings.bandwidth):
        x, y = where.pixel(intensity, min(high, ceilings.bandwidth * intensity))
        around = pixels[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].min(axis=2)
        assert around.min() < 150, intensity  # the roof's line, be it between two rows of pixels
    assert {"A title", "a line", "● gpucnn", "■ torch", "1", "a", "2", "b", "operations a byte"} <= set(written)


@needs_matplotlib
def test_ceilings_have_their_names_and_close_ones_share_a_line(tmp_path: Path, written: list[str]) -> None:
    roofline(points(1), GPU, tmp_path / "roof.png", "title")
    assert {"copies: 3 TB/s", "float32 60 TFLOP/s", "tf32 400 TFLOP/s"} <= set(written)
    assert "float16 795 TFLOP/s, bfloat16 790 TFLOP/s" in written


@needs_matplotlib
@pytest.mark.parametrize(("cases", "kinds"), [(1, 1), (5, 3), (24, 4), (60, 9)])
def test_any_number_of_cases_and_contestants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: int, kinds: int
) -> None:
    texts: list[tuple[str, float, float]] = []
    write = style.write

    def record(figure: Any, text: str, x: float, y: float, *rest: Any, **options: Any) -> None:
        texts.append((text, x, y))
        write(figure, text, x, y, *rest, **options)

    monkeypatch.setattr(style, "write", record)
    pixels = decode(roofline(points(cases, kinds), CPU, tmp_path / "roof.png", "title"))
    assert pixels.shape[1] == style.WIDTH
    listed = [(text, x, y) for text, x, y in texts if re.fullmatch(r"case \d+", text)]
    assert [text for text, _, _ in listed] == [f"case {i}" for i in range(cases)]
    assert len({(x, y) for _, x, y in listed}) == cases
    assert max(y for _, _, y in listed) < len(pixels) - 4
    numbers = [(x, y) for text, x, y in texts if text.isdecimal()]
    assert len(numbers) == 2 * cases  # beside its point, and in the list
    legend = [text for text, _, _ in texts if "kind" in text]
    assert len(legend) == len(set(legend)) == kinds
    looks = {bench._look(i) for i in range(kinds)}
    assert len(looks) == kinds


def test_more_contestants_than_colours_look_different() -> None:
    assert len({bench._look(i) for i in range(18)}) == 18


@needs_matplotlib
def test_numbers_of_cases_keep_clear_of_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[tuple[float, float]] = []
    write = style.write

    def record(figure: Any, text: str, x: float, y: float, *rest: Any, **options: Any) -> None:
        if text.isdecimal() and options.get("across") == "center":
            numbers.append((x, y))
        write(figure, text, x, y, *rest, **options)

    monkeypatch.setattr(style, "write", record)
    same_place = [Point(f"case {i}", 10 * 1.01**i, 50e9, "gpucnn") for i in range(6)]
    roofline(same_place, CPU, tmp_path / "roof.png", "title")
    assert len(numbers) == 6
    for (x, y), (other_x, other_y) in itertools.combinations(numbers, 2):
        assert abs(x - other_x) >= 8 or abs(y - other_y) >= 12


@needs_matplotlib
def test_what_has_no_operations_is_left_out_and_counted(tmp_path: Path, written: list[str]) -> None:
    given = [*points(1), Point("pool", 0, 0, "kind 0"), Point("pool", 0, 0, "kind 1")]
    roofline(given, CPU, tmp_path / "roof.png", "title")
    assert "not in it: 2 of 4 points, which have no operations" in written
    assert "pool" not in written


@needs_matplotlib
def test_names_may_be_anything(tmp_path: Path, written: list[str]) -> None:
    given = [Point(name, 2 + i, 1e9, f"kind {name}") for i, name in enumerate(NASTY)]
    decode(roofline(given, CPU, tmp_path / "roof.png", "$\\frac{$", "x" * 500))
    decode(speedup_bars([Bar(name, {name: 2.0}) for name in NASTY], tmp_path / "bars.png", "$\\frac{$", "x" * 500))
    assert "$\\frac{$" in written


@needs_matplotlib
def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png")]
    assert len({roofline(points(9), CPU, file, "title").read_bytes() for file in files}) == 1
    assert len({speedup_bars([Bar("a", {"torch": 2.0})], file, "title").read_bytes() for file in files}) == 1


@pytest.mark.parametrize(
    ("given", "ceilings", "message"),
    [
        ([], CPU, "points: none of them has operations"),
        ([Point("pool", 0, 1e9, "gpucnn")], CPU, "points: none of them has operations"),
        ([Point("a", math.nan, 1e9, "gpucnn")], CPU, "points: a: nan a byte and 1e\\+09 a second"),
        ([Point("a", 1, math.inf, "gpucnn")], CPU, "points: a: 1 a byte and inf a second"),
        ([Point("a", 1, 1e9, "gpucnn")], Ceilings(0, {"float32": 1.0}), "ceilings: must be positive, got 0"),
        ([Point("a", 1, 1e9, "gpucnn")], Ceilings(1e9, {}), "ceilings: must be positive"),
        ([Point("a", 1, 1e9, "gpucnn")], Ceilings(1e9, {"float32": math.nan}), "ceilings: must be positive"),
    ],
)
def test_a_roofline_refuses(tmp_path: Path, given: list[Point], ceilings: Ceilings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        roofline(given, ceilings, tmp_path / "roof.png", "title")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ speed-up


def bar_pixel(ratio: float, bars: list[Bar], row: int, index: int) -> tuple[float, float]:
    """The middle of a bar's end, as documented: logarithmic from 1, baselines from top to bottom."""
    ratios = [value for bar in bars for value in bar.ratios.values() if value is not None]
    count = len(dict.fromkeys(name for bar in bars for name in bar.ratios))
    low, high = min(0.5, *ratios), max(2.0, *ratios)
    room = (high / low) ** 0.09
    share = math.log(ratio * room / low) / math.log(high / low * room**2)
    group = max(bench._BAR * count + bench._GAP, bench._LEAST)
    top = style.HEADER + 20 + bench._LEGEND_LINE * count
    y = top + row * group + group / 2 + bench._BAR * (index + 0.5 - count / 2)
    return bench._NAMES + (style.WIDTH - bench._NAMES - style.MARGIN) * share, y


@needs_matplotlib
def test_bars_run_from_one_to_their_ratio(tmp_path: Path, written: list[str]) -> None:
    bars = [
        Bar("first", {"torch": 4.0, "torch default": 0.25}),
        Bar("second", {"torch": 1.0, "torch default": None}),
        Bar("third", {"torch default": 1.5}),
    ]
    path = speedup_bars(bars, tmp_path / "bars.png", "A title", "a line")
    assert path == tmp_path / "bars.png"
    pixels = decode(path)
    for row, index, ratio, color in (
        (0, 0, 4.0, style.BLUE),
        (0, 1, 0.25, style.ORANGE),
        (2, 1, 1.5, style.ORANGE),
    ):
        x, y = bar_pixel(ratio, bars, row, index)
        inwards = -1 if ratio > 1 else 1
        assert dark(pixels, color, x + 4 * inwards, y), (row, index)
        assert not dark(pixels, color, x - 4 * inwards, y), (row, index)
        start = bar_pixel(1.0, bars, row, index)[0]
        assert dark(pixels, color, start - 5 * inwards, y), (row, index)
        assert not dark(pixels, color, start + 5 * inwards, y), (row, index)
    for row, index in ((1, 0), (1, 1), (2, 0)):  # as fast, and not measured
        x, y = bar_pixel(1.0, bars, row, index)
        for color in (style.BLUE, style.ORANGE):
            assert not dark(pixels, color, x + 4, y)
            assert not dark(pixels, color, x - 4, y)
    assert {"A title", "a line", "first", "second", "third", "slower than the baseline", "faster"} <= set(written)
    assert "■ torch: 2.00×, geometric mean of 2" in written  # noqa: RUF001
    assert f"■ torch default: {math.sqrt(0.25 * 1.5):.2f}×, geometric mean of 2" in written  # noqa: RUF001


@needs_matplotlib
def test_a_baseline_that_was_not_measured_is_said(tmp_path: Path, written: list[str]) -> None:
    speedup_bars([Bar("a", {"torch": 1.25, "cupy": None})], tmp_path / "bars.png", "title")
    assert "■ torch: 1.25×" in written  # noqa: RUF001
    assert "■ cupy: not measured" in written


@needs_matplotlib
@pytest.mark.parametrize("count", [1, 2, 60])
@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_any_number_of_bars_of_any_ratio(tmp_path: Path, count: int, spread: float) -> None:
    rng = np.random.default_rng(0)
    bars = [Bar(f"case {i}", {f"peer {j}": spread ** rng.uniform(-1, 1) for j in range(3)}) for i in range(count)]
    pixels = decode(speedup_bars(bars, tmp_path / "bars.png", "title"))
    assert pixels.shape[1] == style.WIDTH
    assert len(pixels) > count * 3 * bench._BAR


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        ([], "bars: there is no ratio"),
        ([Bar("a", {"torch": None})], "bars: there is no ratio"),
        ([Bar("a", {"torch": 0.0})], "bars: a: a ratio to torch must be positive, got 0"),
        ([Bar("a", {"torch": math.nan})], "bars: a: a ratio to torch must be positive, got nan"),
    ],
)
def test_bars_that_are_refused(tmp_path: Path, bars: list[Bar], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        speedup_bars(bars, tmp_path / "bars.png", "title")


def test_targets_are_checked_first(tmp_path: Path) -> None:
    for draw in (lambda path: roofline([], CPU, path, "title"), lambda path: speedup_bars([], path, "title")):
        with pytest.raises(ValueError, match=r"must end in \.png"):
            draw(tmp_path / "picture.svg")
        with pytest.raises(FileNotFoundError, match="does not exist"):
            draw(tmp_path / "nowhere/picture.png")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1 "), (0.25, "0.25 "), (999, "999 "), (999.9, "1 k"), (1000, "1 k"), (24e9, "24 G"), (1.234e12, "1.23 T")],
)
def test_amounts(value: float, text: str) -> None:
    assert amount(value) == text
