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
PROCESSES = 9  # of which each takes seconds to start; neighbours, which are often alike, in different ones
TOGETHER = [FILES[first::PROCESSES] for first in range(PROCESSES)]


def environment() -> dict[str, str]:
    """Of a process that can load the asan flavour; skips with the reason where it is not built."""
    try:
        return {**os.environ, **extension.asan_environment(), "GPUCNN_TEST_SEED": str(rotating_seed())}
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("files", TOGETHER, ids=" ".join)
def test_kernels_do_nothing_undefined(files: list[str]) -> None:
    """The files' tests that take the fixture `simt`, with its asan flavour. A report ends the process: the last test
    that is named is the one."""
    paths = [str(HERE / file) for file in files]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-m", "asan", *paths]
    done = subprocess.run(command, cwd=HERE.parent, env=environment(), capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in files:
        assert re.search(rf"\b{file}::\S.*\bPASSED\b", done.stdout), f"{file}: {done.stdout}"
    assert "SKIPPED" not in done.stdout


def test_there_are_such_files() -> None:
    assert "test_template.py" in FILES
