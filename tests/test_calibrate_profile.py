"""benchmarks/calibrate_profile.py: what ncu prints is read, told apart by calls, and compared with the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import calibrate_profile as study
import pytest

from gpucnn import extension

ROOT = Path(__file__).parents[1]
METRIC = study.METRICS["fma"], study.METRICS["registers"]

PRINTED = f"""==PROF== Connected to process 42
something that the program prints
==PROF== Profiling "fprop_kernel": 0%....100% - 2 passes
"ID","Process ID","Kernel Name","{METRIC[0]}","{METRIC[1]}"
"","","","inst","register/thread"
"0","42","cupy_fill","7","8"
"1","42","{study.MARKER}","1","16"
"2","42","void gpucnn::(anonymous namespace)::fprop_kernel<float, (bool)1>(const float *, int)","1,024","40"
"3","42","void gpucnn::(anonymous namespace)::fprop_kernel<float, (bool)1>(const float *, int)","1,000","48"
"4","42","cupy_add__float32","3","12"
"5","42","{study.MARKER}","1","16"
"""


def test_ncus_table_is_read_by_calls() -> None:
    first, second = study.by_call(study.parse_ncu(PRINTED))
    (kernel,) = [name for name in first if name.startswith("fprop_kernel")]
    assert first[kernel] == {"fma": 2024.0, "registers": 48.0}
    assert not any("fill" in name for name in first)
    assert second == {}
    with pytest.raises(SystemExit, match="ncu printed no table"):
        study.parse_ncu("==ERROR== The user does not have permission to access GPU Performance Counters")


def test_what_differs_is_marked() -> None:
    model = {"k<float>": {"fma": (100.0, None), "dram_bytes": (100.0, 200.0)}}
    hardware = {"k<float>": {"fma": 103.0, "dram_bytes": 201.0, "registers": 40.0}, "cupy_add": {"fma": 1.0}}
    rows = list(study.compare("relu", "float32", model, hardware))
    assert [(row.counter, row.differs(0.02)) for row in rows] == [
        *(("fma", True), ("dram_bytes", False), ("registers", False)),
    ]
    assert study.show(rows[0], differs=True).endswith("DIFFERS")
    assert rows[1].differs(0.001)


@pytest.mark.parametrize(
    ("script", "message"),
    [("cat table", "ncu saw 2 of 1 calls"), ("echo no counters; exit 3", r"ncu failed \(3\)")],
)
def test_what_ncu_does_not_do_is_said(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table").write_text(PRINTED)
    (tmp_path / "ncu").write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
    (tmp_path / "ncu").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SystemExit, match=message):
        study.measured([(0, None, "float32")])


@pytest.mark.skipif(extension.load("_simt_profile") is None, reason=str(extension.why_missing("_simt_profile")))
def test_standing_in_for_a_gpu_the_model_agrees_with_itself() -> None:
    options = ["--stand-in", "--rows", "--only", "linear", "--most", "2"]
    command = [sys.executable, "benchmarks/calibrate_profile.py", *options]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in printed]
    assert rows
    assert not any(row["differs"] for row in rows)
    assert {row["case"].partition(" ")[0] for row in rows} == {"linear"}
    assert last.endswith("of 2 calls; 0 differ")


def test_an_unknown_op_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["calibrate_profile.py", "--stand-in", "--only", "linear,lineer"])
    with pytest.raises(SystemExit, match=r"--only: there is no lineer; there are .*linear"):
        study.main()
