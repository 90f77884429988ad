"""gpucnn bench compare: rows matched by what they are, ratios, spreads, and what is in one record alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gpucnn.bench import machine, records
from gpucnn.bench.compare import compare
from gpucnn.cli import main


def row(microseconds: float | None, **more: Any) -> dict[str, Any]:
    common = {"op": "conv2d", "pass": "fwd", "dtype": "float32", "contestant": "cuda", "kernel": "direct"}
    return {**common, "problem": "N1 C8 9x9", "microseconds": microseconds, "spread": 1.0, "status": "ok", **more}


def record(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    head = records.head("suite lenet5", machine.here("cpu").to_dict(), ["gpucnn"])
    return {**head, "rows": list(rows), **more}


def run(tmp_path: Path, before: Any, after: Any, *options: str) -> Result:
    for name, found in (("a.json", before), ("b.json", after)):
        (tmp_path / name).write_text(json.dumps(found))
    return CliRunner().invoke(main, ["bench", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), *options])


def test_times_of_the_first_over_those_of_the_second() -> None:
    found = compare(record(row(100.0), row(30.0, dtype="float16")), record(row(30.0, dtype="float16"), row(50.0)))
    assert [(pair.before, pair.after, pair.ratio) for pair in found.pairs] == [(100.0, 50.0, 2.0), (30.0, 30.0, 1.0)]
    assert [pair.what for pair in found.pairs] == ["float32", "float16"]
    assert found.mean_ratio == pytest.approx(2**0.5)
    assert (found.only_before, found.only_after, found.notes) == ((), (), ())


def test_a_network_has_some_layers_more_than_once() -> None:
    found = compare(
        record(row(10.0, count=3), row(5.0, op="linear")), record(row(20.0, count=3), row(4.0, op="linear"))
    )
    assert found.totals() == (35.0, 64.0)


@pytest.mark.parametrize(("after", "is_noise"), [(101.9, True), (98.1, True), (102.1, False), (97.9, False)])
def test_what_is_within_the_spreads_may_be_noise(after: float, is_noise: bool) -> None:
    (pair,) = compare(record(row(100.0)), record(row(after))).pairs
    assert pair.is_noise is is_noise


def test_the_kernel_that_was_chosen_is_a_finding() -> None:
    (pair,) = compare(record(row(1.0)), record(row(1.0, kernel="pointwise"))).pairs
    assert pair.kernels == ("direct", "pointwise")


def test_kernels_that_are_measured_side_by_side_are_told_apart() -> None:
    several = [row(1.0, kernel="direct"), row(2.0, kernel="implicit_gemm")]
    found = compare(record(*several), record(row(4.0, kernel="implicit_gemm"), row(8.0, kernel="pointwise")))
    assert [(pair.what, pair.ratio) for pair in found.pairs] == [("implicit_gemm", 0.5)]
    assert (found.only_before, found.only_after) == (("direct",), ("pointwise",))
    one = compare(record(*several), record(row(4.0, kernel="implicit_gemm")))
    assert [pair.what for pair in one.pairs] == ["implicit_gemm"]


def test_rounds_and_other_units() -> None:
    older = [{"batch": 64, "contestant": "torch", "seconds": [0.003, 0.001, 0.002, 0.001, 0.009]}]
    newer = [{"batch": 64, "contestant": "torch", "milliseconds": 4.0, "spread": 0.5}]
    (pair,) = compare(record(*older), record(*newer)).pairs
    assert (pair.before, pair.spread_before) == (pytest.approx(2000.0), pytest.approx(2000.0))
    assert (pair.after, pair.spread_after, pair.ratio) == (4000.0, 500.0, pytest.approx(0.5))


def test_rows_with_the_times_of_several_contestants() -> None:
    def overhead(ours: float) -> dict[str, Any]:
        each = {"gpucnn": {"seconds": ours, "spread": 1e-7, "rounds": 9}, "torch": {"seconds": 1e-6, "spread": 0.0}}
        return {"op": "relu", "layer": "module", "times": each, "done": {"gpucnn": {"seconds": 1e-5, "spread": 0.0}}}

    found = compare(record(overhead(2e-6)), record(overhead(1e-6)))
    assert [(pair.what, pair.ratio) for pair in found.pairs] == [
        ("gpucnn the call returns", pytest.approx(2.0)),
        ("torch the call returns", 1.0),
        ("gpucnn its work is done", 1.0),
    ]
    assert found.pairs[0].spread_before == pytest.approx(0.1)


def test_networks_are_told_apart_by_what_was_done_with_them() -> None:
    def network(mode: str, call: str | None = None) -> dict[str, Any]:
        what = {"model": "lenet5", "mode": mode, "input": [1, 28, 28], "contestant": "cuda", "microseconds": 1.0}
        return {**what, "call": call} if call else what

    rows = [network("training"), network("training", "conv2d fprop"), network("inference")]
    assert [pair.what for pair in compare(record(*rows), record(*rows)).pairs] == [
        *("training", "training conv2d fprop", "inference"),
    ]


def test_a_problem_is_told_where_the_layer_does_not_tell_it() -> None:
    rows = [
        row(1.0, layer="3x3", problem="input=(1,2)"),
        row(1.0, layer="3x3", problem="input=(3,4)"),
        row(1.0, layer="5x5", problem="input=(1,2)"),
    ]
    assert [pair.what for pair in compare(record(*rows), record(*rows)).pairs] == [
        *("3x3 input=(1,2)", "3x3 input=(3,4)", "5x5"),
    ]


def test_rows_that_nobody_timed_are_counted(tmp_path: Path) -> None:
    rows = record(row(1.0), row(None, op="pad", status="static: nothing is measured"))
    lines = run(tmp_path, rows, rows).output.splitlines()
    assert "1 rows have a time in neither" in lines
    assert not any(line.startswith("pad") for line in lines)


def test_other_machines_and_versions_are_told(tmp_path: Path) -> None:
    after = record(row(1.0))
    after["machine"]["name"] = "NVIDIA H100"
    after["versions"]["numpy"] = "9.9"
    result = run(tmp_path, record(row(1.0)), after)
    assert result.exit_code == 0
    assert "and NVIDIA H100" in result.output
    assert "differs: numpy:" in result.output


def test_the_table(tmp_path: Path) -> None:
    before = record(row(100.0, op="conv2d"), row(50.0, op="linear"), row(5.0, op="pad"))
    after = record(row(80.0, op="conv2d", count=2), row(None, op="linear", status="WRONG"), row(9.0, op="relu"))
    result = run(tmp_path, before, after)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    cells = {line.partition(" ")[0]: " ".join(line.split()) for line in lines}
    assert cells["conv2d"] == "conv2d 2 100 1 80 1 1.250"
    assert cells["linear"] == "linear 1 50 1 - WRONG"
    assert "only in A: pad" in lines
    assert "only in B: relu" in lines
    assert "200.0 us and 160.0 us, A / B 1.250" in result.output
    shown = json.loads(run(tmp_path, before, after, "--json").output)
    assert shown["pairs"][0]["ratio"] == 1.25
    assert shown["only_after"] == ["relu"]


@pytest.mark.parametrize(
    ("after", "code"), [(110.0, 0), (112.0, 1), (90.0, 0), (None, 0)], ids=["within", "below", "faster", "unmeasured"]
)
def test_a_limit(tmp_path: Path, after: float | None, code: int) -> None:
    result = run(tmp_path, record(row(100.0)), record(row(after)), "--fail-below", "0.9")
    assert result.exit_code == code
    assert ("1 of 1 rows are below 0.9" in result.output) == bool(code)


def test_what_is_no_longer_right_is_below_any_limit(tmp_path: Path) -> None:
    worse = record(row(None, status="failed: out of memory"))
    result = run(tmp_path, record(row(100.0)), worse, "--fail-below", "0")
    assert result.exit_code == 1
    assert "failed: out of memory" in result.output
    assert run(tmp_path, worse, worse, "--fail-below", "9").exit_code == 0


def test_what_can_not_be_compared_is_refused(tmp_path: Path) -> None:
    known = record(row(1.0))
    result = run(tmp_path, known, {**known, "schema": 7})
    assert result.exit_code == 1
    assert "b.json: schema 7, this version of gpucnn reads schema 1" in result.output
    result = run(tmp_path, known, {"rows": []})
    assert "b.json: not a record of a benchmark" in result.output
    result = run(tmp_path, known, record(row(1.0, op="pad"), study="op pad"))
    assert result.exit_code == 1
    assert "no row in common: one is of 'suite lenet5' (1 rows), the other of 'op pad' (1 rows)" in result.output
    result = CliRunner().invoke(main, ["bench", "compare", str(tmp_path / "a.json"), str(tmp_path / "c.json")])
    assert result.exit_code == 2
    assert "does not exist" in result.output
