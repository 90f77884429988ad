"""The record of compared kernels: what counts, what does not, and names that both compilers agree on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import kernel_record
import numpy as np
import pytest
from kernel_record import Record, read, write
from op_checks import frozen

from gpucnn import extension
from gpucnn.ops import _template as ops
from gpucnn.testing import assert_equal, compare

TESTS = Path(__file__).resolve().parent
CSRC = TESTS.parent / "csrc"
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)")
SCALE = ("template.cu", "scale_kernel<half, true>")


def scaled(simt: ModuleType) -> np.ndarray:
    y = np.ones(64, np.float16)
    simt.scale("float16", y, y, 2.0, 0)
    return y


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """One that begins now, beside that of this run."""
    found = Record()
    found.forget()
    monkeypatch.setattr(compare, "when_passed", [found.comparison_passed])
    return found


def test_a_kernel_counts_once_a_comparison_passed_in_a_test_that_passed(simt: ModuleType, record: Record) -> None:
    y = scaled(simt)
    assert_equal(y, np.full(64, 2.0))
    assert record.compared == {}
    record.test_passed()
    found = {"threads": {256}, "shared": {0}, "ops": set(), "dtypes": set(), "comparisons": {"": 1}}
    assert record.compared == {SCALE: found}


def test_a_launch_that_nothing_was_compared_after_does_not_count(simt: ModuleType, record: Record) -> None:
    y = scaled(simt)
    record.test_passed()
    assert_equal(y, np.full(64, 2.0))  # of an earlier test
    record.test_passed()
    assert record.compared == {}


def test_a_comparison_that_fails_or_compares_nothing_does_not_count(simt: ModuleType, record: Record) -> None:
    y = scaled(simt)
    with pytest.raises(AssertionError):
        assert_equal(y, np.zeros(64))
    assert_equal(np.empty(0), np.empty(0))
    record.test_passed()
    assert record.compared == {}


def test_a_test_that_fails_does_not_count(simt: ModuleType, record: Record) -> None:
    assert_equal(scaled(simt), np.full(64, 2.0))
    record.forget()
    record.test_passed()
    assert record.compared == {}


def test_a_fault_is_no_launch(simt: ModuleType, record: Record) -> None:
    x = np.ones(64, np.float16)
    with pytest.raises(ValueError, match="same shape"):
        simt.scale("float16", x, x[1:], 2.0, 0)
    assert_equal(x, np.ones(64))
    record.test_passed()
    assert record.compared == {}


def test_what_ran_it_is_recorded(simt: ModuleType, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_record.record", record)
    x = frozen(np.ones(64), np.float16)
    assert_equal(ops.forward(ops.ScaleProblem(2.0, "float16"), x, like=x), np.full(64, 2.0))
    record.test_passed()
    (entry,) = record.compared.values()
    assert entry["ops"] == {"scale forward: grid_stride"}
    assert entry["dtypes"] == {"float16"}
    assert entry["comparisons"] == {"scale forward: grid_stride": 1}


def test_comparisons_are_counted(simt: ModuleType, record: Record) -> None:
    y = scaled(simt)
    for _ in range(3):  # of which one is of what the kernel wrote last
        assert_equal(y, np.full(64, 2.0))
    assert_equal(scaled(simt), np.full(64, 2.0))
    record.test_passed()
    assert record.compared[SCALE]["comparisons"] == {"": 2}


def test_processes_add_to_one_file(simt: ModuleType, record: Record, tmp_path: Path) -> None:
    assert_equal(scaled(simt), np.full(64, 2.0))
    record.test_passed()
    record.write(tmp_path / "deep/record.json")
    other = Record()
    found = {"threads": {32}, "shared": {1024}, "ops": {"b"}, "dtypes": {"float32"}, "comparisons": {"b": 3}}
    other.compared = {("a.cu", "a_kernel"): found}
    other.write(tmp_path / "deep/record.json")
    merged = read((tmp_path / "deep/record.json").read_text())
    assert merged == {**other.compared, **record.compared}
    assert read(write(merged)) == merged
    other.write(tmp_path / "deep/record.json")
    again = read((tmp_path / "deep/record.json").read_text())
    assert again["a.cu", "a_kernel"] == {**found, "comparisons": {"b": 6}}


ONE_KERNEL = """
import numpy as np
import pytest
from gpucnn import extension
from gpucnn.testing import assert_equal

@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_scale(dtype):
    module = extension.require("_simt_plain")
    y = np.ones(64, dtype)
    module.scale(dtype, y, y, 2.0, 0)
    assert_equal(y, np.full(64, 2.0))
"""


@pytest.mark.parametrize("workers", [["-p", "no:xdist"], ["-n", "2"]], ids=["one process", "two workers"])
def test_the_record_of_a_run_is_of_all_its_workers(tmp_path: Path, workers: list[str]) -> None:
    if "-n" in workers:
        pytest.importorskip("xdist", reason="pytest-xdist, which runs tests in several processes, is not installed")
    if (reason := extension.why_missing("_simt_plain")) is not None:
        pytest.skip(reason)
    (tmp_path / "test_one.py").write_text(ONE_KERNEL)
    path = tmp_path / "record.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", *workers, "-c", "pyproject.toml"]
    environment = {**os.environ, kernel_record.RECORDED: str(path), "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {kernel for _, kernel in read(path.read_text())} == {
        f"scale_kernel<{dtype}, true>" for dtype in ("float", "half", "bfloat16")
    }


@pytest.mark.parametrize(
    ("keyword", "mark", "paths", "all_of_them"),
    [
        *[("", "", ["tests"], True), ("plain", "", ["tests"], False), ("", "gpu", ["tests"], False)],
        ("", "", ["tests/test_template.py"], False),
    ],
)
def test_a_run_of_all_tests_is_known(keyword: str, mark: str, paths: list[str], all_of_them: bool) -> None:
    """Its record replaces an earlier one."""
    options = SimpleNamespace(keyword=keyword, markexpr=mark)
    config: Any = SimpleNamespace(option=options, args=paths, getini=lambda name: ["tests"])
    assert kernel_record.of_all_tests(config) is all_of_them


def test_every_flavour_names_the_same_kernels(simt: ModuleType) -> None:
    found = simt.kernels()
    assert SCALE in found
    assert ("template.cu", "scale_kernel<float, false>") in found
    assert len(set(found)) == len(found), "two kernels of one name in files of one name"


def test_every_kernel_has_a_name_that_is_found(simt: ModuleType) -> None:
    """It is in an unnamed namespace, or a template over something that is, and its name ends in _kernel."""
    assert [name for file, name in simt.kernels() if not file] == []
    declared = set()
    for path in [
        path for path in CSRC.rglob("*") if path.suffix in (".cu", ".cuh", ".h") and path.parent.name != "simt"
    ]:
        text = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
        found = list(KERNEL.finditer(text))
        assert text.count("__global__") == len(found), path
        declared |= {kernel[1] for kernel in found}
    assert [name for name in declared if not name.endswith("_kernel")] == []
    assert {kernel.partition("<")[0] for _, kernel in simt.kernels()} == declared
