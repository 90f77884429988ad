"""The record of compared kernels: what counts, what does not, and names that both compilers agree on."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from kernel_record import Record, read, write
from op_checks import frozen

from gpucnn.ops import _template as ops
from gpucnn.testing import assert_equal, compare

CSRC = Path(__file__).resolve().parent.parent / "csrc"
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
    assert record.compared == {SCALE: {"threads": {256}, "shared": {0}, "ops": set(), "dtypes": set()}}


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


def test_processes_add_to_one_file(simt: ModuleType, record: Record, tmp_path: Path) -> None:
    assert_equal(scaled(simt), np.full(64, 2.0))
    record.test_passed()
    record.write(tmp_path / "deep/record.json")
    other = Record()
    other.compared = {("a.cu", "a_kernel"): {"threads": {32}, "shared": {1024}, "ops": {"b"}, "dtypes": {"float32"}}}
    other.write(tmp_path / "deep/record.json")
    merged = read((tmp_path / "deep/record.json").read_text())
    assert merged == {**other.compared, **record.compared}
    assert read(write(merged)) == merged


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
