"""gpucnn.bench.table: rows as text, ratios, totals, and what is below a limit."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest

from gpucnn.bench import table
from gpucnn.bench.measure import Row


def row(contestant: str, microseconds: float | None, layer: str = "a", **options: Any) -> Row:
    given = {"direction": "fwd", "count": 1, **options}
    return Row(
        *(layer, "conv2d", given.pop("direction"), "input=...", given.pop("count"), "float32", "highest", contestant),
        microseconds=microseconds,
        **given,
    )


ROWS = [
    row("reference", 10.0, kernel="im2col", bound_us=5.0, share=0.5, error=1e-7, count=3),
    row("torch", 20.0, count=3),
    row("reference", 50.0, "b", kernel="taps", bound_us=5.0, direction="dgrad"),
    row("reference", 5.0, "b", kernel="other", chosen=False, direction="dgrad"),
    row("torch", 25.0, "b", direction="dgrad"),
    row("numpy", None, "b", direction="dgrad", status="failed: why"),
]


def cells(found: tuple[list[str], list[list[str]]]) -> list[dict[str, str]]:
    return [dict(zip(found[0], each, strict=True)) for each in found[1]]


def test_ratios_are_of_the_same_case() -> None:
    lines = cells(table.lines(ROWS, ["torch", "numpy"]))
    assert [line["x torch"] for line in lines] == ["2.00", "1.00", "0.50", "5.00", "1.00", ""]
    assert [line["kernel"] for line in lines] == ["im2col *", "", "taps *", "other", "", ""]
    assert lines[5][""] == "failed: why"
    assert lines[0]["share"] == "0.50"
    assert "x numpy" not in lines[0], "a column that holds nothing is left out"


def test_a_suite_has_a_line_for_each_layer_and_says_once_what_failed() -> None:
    twice = [*ROWS, dataclasses.replace(ROWS[5], layer="c")]
    lines = cells(table.suite_lines(twice, ["reference"], ["torch"]))
    assert [(line["layer"], line["contestant"], line["times"]) for line in lines] == [
        *(("a", "reference", "3"), ("b", "reference", "1"), ("b", "reference", "1"), ("b", "numpy", "1")),
    ]


def test_a_suite_has_a_line_for_each_wrong_result_of_a_baseline() -> None:
    wrong = [dataclasses.replace(ROWS[5], layer=layer, status="WRONG", error=0.25) for layer in "cd"]
    lines = cells(table.suite_lines([*ROWS[:5], *wrong], ["reference"], ["torch"]))
    assert [(line["layer"], line["max error"], line[""]) for line in lines if line["contestant"] == "numpy"] == [
        ("c", "2.5e-01", "WRONG"),
        ("d", "2.5e-01", "WRONG"),
    ]


def test_totals_count_a_layer_as_often_as_the_network_has_it() -> None:
    fwd, dgrad, both = cells(table.totals(ROWS, ["reference"], ["torch", "numpy"]))
    assert (fwd["pass"], fwd["ms"], fwd["torch ms"], fwd["x torch"], fwd["share"]) == (
        "fwd",
        "0.03",
        "0.06",
        "2.00",
        "0.50",
    )
    assert (dgrad["ms"], dgrad["x torch"], dgrad["numpy ms"]) == ("0.05", "0.50", "")
    assert (both["pass"], both["ms"], both["torch ms"]) == ("all", "0.08", "0.09")


def test_totals_over_fewer_cases_say_so() -> None:
    (fwd,) = cells(table.totals([*ROWS[:2], row("reference", 30.0, "c", bound_us=1.0)], ["reference"], ["torch"]))
    assert fwd["x torch"] == "2.00 (1 of 2)"


def test_what_is_below_a_limit_is_named() -> None:
    assert table.below(ROWS, ["reference"], ["torch"], 0.9) == ["conv2d b dgrad: reference has 0.50 of torch's speed"]
    assert table.below(ROWS, ["reference"], ["torch"], 0.5) == []
    named = [
        dataclasses.replace(each, contestant="torch default") if each.contestant == "torch" else each for each in ROWS
    ]
    assert table.below(named, ["reference"], ["torch default"], 0.9) == [], "whose precision may be another"


def test_plain_when_it_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table.show(["layer", "us"], [["a", "1.0"], ["b", "200.0"]], "a title")
    assert capsys.readouterr().out.splitlines() == [
        *("a title", "layer       us", "-------  -----", "a          1.0", "b        200.0"),
    ]


@pytest.mark.parametrize("has_rich", [True, False])
def test_boxes_on_a_terminal_with_rich(
    has_rich: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    if not has_rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    table.show(["layer", "us", ""], [["[a]", "1.0", "WRONG"]])
    out = capsys.readouterr().out
    assert "[a]" in out, "brackets are text and no markup"
    assert "WRONG" in out
    assert ("┃" in out) == has_rich
