"""The tests of the kernels on the CPU once more, under AddressSanitizer and UndefinedBehaviorSanitizer, in a child."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpucnn import extension
from gpucnn.testing import rotating_seed

HERE = Path(__file__).resolve().parent
FILES = [path.name for path in sorted(HERE.glob("test_*.py")) if "(simt: ModuleType" in path.read_text("utf-8")]
FILES.remove(Path(__file__).name)  # which says so too
FILES.remove("test_simt_training.py")  # too long for it: each kernel is run by its own tests


def environment() -> dict[str, str]:
    """Of a process that can load the asan flavour; skips with the reason where it is not built."""
    try:
        return {**os.environ, **extension.asan_environment(), "GPUCNN_TEST_SEED": str(rotating_seed())}
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("file", FILES)
def test_kernels_do_nothing_undefined(file: str) -> None:
    """The file's tests that take the fixture `simt`, with its asan flavour."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "asan", str(HERE / file)]
    done = subprocess.run(command, cwd=HERE.parent, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[1-9][0-9]* passed", done.stdout), done.stdout
    assert "skipped" not in done.stdout


def test_there_are_such_files() -> None:
    assert "test_template.py" in FILES
