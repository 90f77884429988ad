"""benchmarks/hardware: rows from what pytest and compute-sanitizer print, and the summary of a file of rows."""

from __future__ import annotations

from typing import Any

from hardware import readers, summary

from gpucnn.bench import records
from gpucnn.bench.machine import here


def test_tests_are_counted_however_pytest_runs_them() -> None:
    reader = readers.Tests()
    lines = [
        "tests/test_a.py::test_one[cuda] PASSED        [ 50%]",
        "tests/test_a.py::test_two[1-x y] FAILED       [100%]",
        "[gw3] [ 12%] PASSED tests/test_b.py::test_three[cuda] ",
        "[gw0] [ 13%] ERROR tests/test_b.py::test_four ",
        "ERROR tests/test_c.py - ModuleNotFoundError: No module named 'x'",
        "ERROR tests/test_b.py::test_four - said once more at the end",
        "tests/test_a.py .F",
        "=== 2 passed ===",
    ]
    rows = [row for line in lines for row in reader.read(line + "\n")]
    assert [row["test"] for row in rows] == [
        *("tests/test_a.py::test_two[1-x y]", "tests/test_b.py::test_four", "tests/test_c.py"),
    ]
    assert reader.end() == [{"tests": {"passed": 2, "failed": 1, "error": 2}}]


def test_what_compute_sanitizer_finds() -> None:
    reader = readers.Sanitizer()
    lines = [
        '{"case": "relu", "dtype": "float32", "status": "ok"}',
        "========= COMPUTE-SANITIZER",
        "========= Invalid __global__ write of size 4 bytes",
        "=========     at kernel(float*)+0x70",
        *["========= Error: Race reported between Write access at a and Read access at b [4 hazards]"] * 40,
        "========= ERROR SUMMARY: 41 errors",
    ]
    rows = [row for line in lines for row in reader.read(line + "\n")]
    assert rows[0]["case"] == "relu"
    findings = [row["finding"] for row in rows if "finding" in row]
    assert findings[0] == "Invalid __global__ write of size 4 bytes"
    assert len(findings) == readers.Sanitizer.MOST
    assert rows[-1] == {"summary": "ERROR SUMMARY: 41 errors"}


def test_lines_that_are_no_rows() -> None:
    assert readers.Lines().read("{not json\n") == []
    assert readers.Lines().read("words\n") == []


def measured(contestant: str, microseconds: float | None, **more: Any) -> dict[str, Any]:
    row = {"op": "conv2d", "pass": "fwd", "layer": "conv1", "problem": "x", "dtype": "bfloat16", "count": 2}
    row |= {"contestant": contestant, "kernel": "tensor_core", "microseconds": microseconds, "status": "ok"}
    return {**row, "step": "conv", "part": "resnet50 bfloat16", **more}


def head() -> dict[str, Any]:
    return records.head("hardware", here("cpu").to_dict(), ["bash", "benchmarks/hardware.sh"])


def test_the_summary_says_what_matters() -> None:
    rows = [
        measured("cuda", 10.0, bound_us=4.0),
        measured("torch", 5.0),
        measured("cuda", 30.0, layer="conv2", count=1, status="WRONG"),
        {"step": "conv", "part": "resnet50 bfloat16", "ended": "cut", "seconds": 9.0, "tail": ["a", "the last line"]},
        {"step": "tests", "part": "kernels", "test": "tests/test_a.py::test_b", "status": "WRONG"},
        {"step": "tests", "part": "kernels", "tests": {"passed": 10, "failed": 1}},
        {"step": "tests", "part": "kernels", "ended": "failed", "seconds": 3.0},
        {"step": "build", "part": "extension", "ended": "done", "seconds": 80.0},
    ]
    text = summary.lines(head(), rows, ["build", "tests", "conv", "overhead"], 123.0)
    assert "resnet50 bfloat16: fwd 20 us of 1, x torch 0.50, share 0.40" in text
    assert "  worst: 0.50 conv1 fwd (tensor_core)" in text
    assert "  1 x cuda: WRONG" in text
    assert "  CUT: a / the last line" in text
    assert "kernels: 10 passed, 1 failed" in text
    assert "  WRONG: tests/test_a.py::test_b" in text
    assert "--- overhead: not begun" in text
    assert text[-1] == "not done: tests,conv,overhead"


def test_the_summary_is_short_whatever_there_is_to_say() -> None:
    names = [f"step {number}" for number in range(40)]
    rows = [{"step": name, "part": f"p{i}", "value": i} for name in names for i in range(30)]
    text = summary.lines(head(), rows, names, 1.0)
    assert len(text) <= summary.MOST
    assert text[-1].startswith("not done: step 0,")
