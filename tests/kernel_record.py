"""What the tests know of the kernels: which were launched in a test in which a comparison passed afterwards.

A part of pytest (conftest.py) that listens to three things: launches, which the modules for the CPU name
(`module.launched()`); calls of a kernel by an op's table, which say what a launch is for; and comparisons that found
nothing wrong. What a test compared counts once it has passed. The record of a run is build/kernels_compared.json:
that of a run of all tests replaces an earlier one, other runs add to it, and so do the workers of a run (pytest -n) and
child processes. A run with --fixed-cases, of which nothing depends on the day, has a record of its own.
tools/kernel_coverage.py holds them against the kernels that there are.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gpucnn.ops import compiled
from gpucnn.testing import compare

FOLDER = Path(__file__).resolve().parent.parent / "build"
FILE = FOLDER / "kernels_compared.json"
FIXED_FILE = FOLDER / "kernels_compared_fixed.json"
RECORDED = "GPUCNN_KERNELS_RECORDED"  # in the environment of a run's workers and children: the file that they add to

Entry = dict[str, Any]
"""Of one kernel: the sets `threads` of its blocks, `shared` bytes that launches asked for, `ops` and `dtypes` that it
was launched for ("conv2d fprop: direct"); and `comparisons`, of how many comparisons it was launched for an op before,
or by its binding alone ("")."""

FIELDS = ("threads", "shared", "ops", "dtypes")


class Record:
    """Of one process. Keys are (source file, kernel)."""

    def __init__(self) -> None:
        self.launched: dict[tuple[str, str], Entry] = {}
        self.compared_by_test: dict[tuple[str, str], Entry] = {}
        self.compared: dict[tuple[str, str], Entry] = {}

    def take(self, op: str | None = None, dtype: str | None = None) -> None:
        """Notes what was launched since the last call."""
        for name, module in list(sys.modules.items()):
            if name.startswith("gpucnn._simt_") and hasattr(module, "launched"):
                for file, kernel, threads, shared in module.launched():
                    found = {"threads": {threads}, "shared": {shared}}
                    found |= {"ops": {op} if op else set(), "dtypes": {dtype} if dtype else set()}
                    add(self.launched, {(file, kernel): found})

    def forget(self) -> None:
        self.take()
        self.launched.clear()
        self.compared_by_test.clear()

    def comparison_passed(self) -> None:
        self.take()
        for entry in self.launched.values():
            entry["comparisons"] = Counter(entry["ops"] or [""])
        add(self.compared_by_test, self.launched)
        self.launched.clear()

    def test_passed(self) -> None:
        add(self.compared, self.compared_by_test)
        self.forget()

    def write(self, path: Path) -> None:
        """Adds to what other processes have written there."""
        if not self.compared:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            merged = read(text) if text else {}
            add(merged, self.compared)
            file.truncate(0)
            file.write(write(merged))


def add(into: dict[tuple[str, str], Entry], found: dict[tuple[str, str], Entry]) -> None:
    for key, entry in found.items():
        kept = into.setdefault(key, {**{field: set() for field in FIELDS}, "comparisons": Counter()})
        for field in FIELDS:
            kept[field] |= entry[field]
        kept["comparisons"].update(entry.get("comparisons", {}))


def read(text: str) -> dict[tuple[str, str], Entry]:
    return {
        (entry["file"], entry["kernel"]): {
            **{field: set(entry[field]) for field in FIELDS},
            "comparisons": Counter(entry.get("comparisons", {})),
        }
        for entry in json.loads(text)
    }


def write(record: dict[tuple[str, str], Entry]) -> str:
    entries = [
        {
            **{"file": file, "kernel": kernel, **{field: sorted(entry[field]) for field in FIELDS}},
            "comparisons": dict(sorted(entry["comparisons"].items())),
        }
        for (file, kernel), entry in sorted(record.items())
    ]
    return "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n"


record = Record()


def _called_by_a_table(kernel: Any, problem: Any, *arrays: Any) -> Any:
    record.take()
    result = _call(kernel, problem, *arrays)
    dtypes: Iterable[Any] = (getattr(array, "dtype", None) for array in arrays)
    record.take(kernel.label, next((dtype.name for dtype in dtypes if dtype is not None), None))
    return result


_call = compiled.Kernel.__call__


def listen(config: pytest.Config) -> None:
    """To be called when the run begins."""
    compiled.Kernel.__call__ = _called_by_a_table  # type: ignore[method-assign]
    compare.when_passed.append(record.comparison_passed)
    if RECORDED not in os.environ:  # so neither a worker nor a child
        fixed = config.getoption("fixed_cases")
        os.environ[RECORDED] = str(FIXED_FILE if fixed else FILE)
        if fixed or of_all_tests(config):
            Path(os.environ[RECORDED]).unlink(missing_ok=True)


def of_all_tests(config: pytest.Config) -> bool:
    return not (config.option.keyword or config.option.markexpr) and config.args == config.getini("testpaths")


def pytest_runtest_setup(item: pytest.Item) -> None:
    record.forget()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        if report.passed:
            record.test_passed()
        else:
            record.forget()


def pytest_sessionfinish() -> None:
    record.write(Path(os.environ[RECORDED]))
