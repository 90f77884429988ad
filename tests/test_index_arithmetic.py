"""csrc/common's index.h, problem.h and walk.h as a program of their own: beyond 2^31, and gpucnn.problem's formula."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gpucnn.problem import output_size

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "index_arithmetic.cpp"


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the program prints, once it has found nothing wrong."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("there is no C++ compiler (g++)")
    program = tmp_path_factory.mktemp("index") / "index_arithmetic"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", f"-I{HERE.parent / 'csrc'}"]
    sanitizer = ["-fsanitize=undefined", "-fno-sanitize-recover=undefined"]
    subprocess.run([compiler, *flags, *sanitizer, str(SOURCE), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_formula_for_output_sizes_is_gpucnn_problems(printed: str) -> None:
    lines = [[int(number) for number in line.split()] for line in printed.splitlines()]
    assert len(lines) == 7 * 4 * 4 * 4 * 3
    for *arguments, floor, ceil in lines:
        assert (floor, ceil) == (output_size(*arguments), output_size(*arguments, ceil_mode=True)), arguments
