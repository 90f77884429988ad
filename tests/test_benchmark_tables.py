"""tools/benchmark_tables.py: benchmarks/README.md says what the newest records say."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import benchmark_tables as tool
import pytest


def record(study: str = "suite lenet5", date: str = "2026-01-01", kind: str = "cuda", **more: Any) -> dict[str, Any]:
    machine = {"kind": kind, "name": "NVIDIA H100" if kind == "cuda" else "a processor", "details": {"cores": 2}}
    return {"study": study, "date": date, "machine": machine, "commit": "0" * 40, "rows": [{"a": 1}], **more}


def row(contestant: str, microseconds: float | None, layer: str = "conv1", **more: Any) -> dict[str, Any]:
    common = {"op": "conv2d", "pass": "fwd", "dtype": "float32", "precision": "highest", "problem": "x", "status": "ok"}
    return {**common, "layer": layer, "contestant": contestant, "microseconds": microseconds, **more}


def lines(found: dict[str, Any]) -> list[str]:
    return tool.text(found).splitlines()


def test_the_readme_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "tools/benchmark_tables.py", "--check"], cwd=tool.ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_what_is_not_up_to_date_is_seen(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "README.md"
    stale.write_text(f"# Studies\n\n{tool.MARKER}\nold\n")
    monkeypatch.setattr(tool, "README", stale)
    monkeypatch.setattr(sys, "argv", ["benchmark_tables.py", "--check"])
    with pytest.raises(SystemExit, match="is not up to date"):
        tool.main()
    monkeypatch.setattr(sys, "argv", ["benchmark_tables.py"])
    tool.main()
    assert stale.read_text().startswith(f"# Studies\n\n{tool.MARKER}\n\n## The newest records")
    monkeypatch.setattr(sys, "argv", ["benchmark_tables.py", "--check"])
    with pytest.raises(SystemExit) as done:
        tool.main()
    assert done.value.code is None
    with pytest.raises(ValueError, match="has no line"):
        tool.written("# Studies\n", {})


def test_the_newest_of_a_study_on_a_machine_counts() -> None:
    found = {
        "a.json": record(date="2026-01-02"),
        "b.json": record(date="2026-01-01"),
        "c.json": record(date="2026-01-01T10:00:00+00:00", kind="cpu"),
        "d.json": record(study="op pad"),
        "e.json": record(date="2026-01-02T09:00:00+00:00"),
    }
    assert sorted(tool.newest(found)) == ["c.json", "d.json", "e.json"]


def test_other_settings_are_another_study() -> None:
    def of(date: str, study: str = "model resnet50", **settings: Any) -> dict[str, Any]:
        return record(study, date, rows=[{"model": "resnet50", "dtype": "float32", **settings}, {"call": "conv2d"}])

    found = {
        "a.json": of("2026-01-01", mode="training", batch=64),
        "b.json": of("2026-01-02", mode="training", batch=64),
        "c.json": of("2026-01-01", mode="training", batch=256),
        "d.json": of("2026-01-01", mode="inference", batch=64, amp=None, fused=False),
        "e.json": of("2026-01-01", mode="inference", batch=64, fused=True),
        "f.json": of("2026-01-01", mode="inference", batch=64, fused=True, dtype="bfloat16"),
        "g.json": of("2026-01-01", "hardware", mode="training", batch=64),
        "h.json": of("2026-01-02", "hardware", mode="training", batch=256),
    }
    assert sorted(tool.newest(found)) == ["b.json", "c.json", "d.json", "e.json", "f.json", "h.json"]


def test_a_suite_beside_its_peers() -> None:
    rows = [
        row("cuda", 10.0, count=2, bound_us=5.0),
        row("cuda", 8.0, count=2, kernel="faster", bound_us=5.0),
        row("cuda", 1.0, count=2, status="WRONG"),
        row("cuda", 1.0, count=2, chosen=False),
        row("simt", 0.5, count=2),
        row("torch", 12.0, count=2),
        row("torch default", 16.0, count=2),
        row("cuda", 4.0, "conv2", bound_us=1.0),
        row("torch", 2.0, "conv2"),
        row("torch default", None, "conv2", status="missing: no such"),
        row("cuda", 3.0, "conv3", bound_us=1.0),
    ]
    shown = lines({"a.json": record(rows=rows)})
    assert "## NVIDIA H100" in shown
    (line,) = [line for line in shown if line.startswith("| suite lenet5 | float32")]
    # 2*8 + 4 + 3; beside PyTorch (2*12 + 2) / (2*8 + 4), as it comes 2*16 / 2*8; bounds 2*5 + 1 + 1 of 23
    assert line == "| suite lenet5 | float32 | highest | fwd | 3 | 23.0 | 1.30 | 2.00 | 0.52 | 0.50 conv2d conv2 |"


def test_rows_of_hardware_are_suites_by_their_part() -> None:
    rows = [
        row("cuda", 1.0, step="conv", part="resnet50 float32"),
        row("torch", 3.0, step="conv", part="resnet50 float32"),
    ]
    shown = lines({"a.json": record("hardware", rows=rows)})
    assert any(line.startswith("| resnet50 float32 | float32 | highest | fwd | 1 | 1.0 | 3.00 |") for line in shown)


def test_networks_and_layers_of_the_stack_have_tables_of_their_own() -> None:
    what = {"model": "resnet50", "mode": "training", "batch": 64, "dtype": "float32", "amp": "bfloat16", "fused": False}
    ours = {"contestant": "cuda", "status": "ok", "microseconds": 2e4, "images_per_second": 3200.0, "peak_bytes": 2**30}
    theirs = {
        "contestant": "torch",
        "status": "ok",
        "microseconds": 3e4,
        "images_per_second": 2133.0,
        "peak_bytes": None,
    }
    call = {"contestant": "cuda", "call": "conv2d fprop", "microseconds": 9.0, "share": 0.5}
    times = {"gpucnn": {"seconds": 2e-6}, "torch": {"seconds": 3e-6}, "gpucnn, array code": {"seconds": 1.0}}
    found = {
        "a.json": record("model resnet50", rows=[{**what, **ours}, {**what, **theirs}, {**what, **call}]),
        "b.json": record("overhead", rows=[{"op": "relu", "layer": "module", "times": times}]),
    }
    shown = lines(found)
    assert "| resnet50 | training | 64 | bfloat16 | 20.00 | 3,200 | 1.50 | - | 1,024 | - |" in shown
    assert "| relu | 2.0 / 3.0 |" in shown
    wrong = {"a.json": record("model resnet50", rows=[{**what, **ours, "status": "WRONG"}])}
    assert not any(line.startswith("| resnet50") for line in lines(wrong))


def test_what_was_never_run_on_hardware() -> None:
    ended = [{"step": "tests", "part": "kernels", "ended": "done"}, {"step": "conv", "part": "x", "ended": "cut"}]
    shown = lines({"a.json": record("hardware", rows=[*ended, row("cuda", 1.0, step="conv", part="x")])})
    assert not any(line.startswith("- `tests`") for line in shown)
    assert any(line.startswith("- `conv`") for line in shown)
    (ops,) = [line for line in shown if line.startswith("Ops with CUDA kernels")]
    assert "conv2d" not in ops
    assert "max_pool2d" in ops
    on_cpu = {"a.json": record("hardware", kind="cpu", rows=[*ended, row("cuda", 1.0, step="conv", part="x")])}
    assert any(line.startswith("- `tests`") for line in lines(on_cpu))
    assert any("conv2d" in line for line in lines(on_cpu) if line.startswith("Ops"))
    every = [{"step": step, "part": "x", "ended": "done"} for step in tool.STEPS]
    measured = [row("cuda", 1.0, op=op, step="conv", part="x") for op, _ in tool.TABLES]
    assert lines({"a.json": record("hardware", rows=[*every, *measured])})[-1].startswith("Nothing:")
