"""Builds the cases of tests/simt as a library of one flavour and runs them in a process of their own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from simt_library import ROOT, build

import build_simt
from build_cuda import compiler_missing
from cuda_toolkit import host_compiler
from gpucnn.testing import rotating_seed

HERE = Path("tests/simt")
CASES = ("planted_races", "planted_memory", "planted_meetings", "correct_blocks", "correct_pipelines")
RACE_CASES = ("race_units", "race_bounds", "race_programs")
FLAVOURS = build_simt.FLAVOURS


@dataclass(frozen=True)
class Answer:
    """How a case ended: see tests/simt/run_cases.py."""

    outcome: str
    reports: list[str]
    printed: str


def compiler() -> Path:
    """The host compiler; skips with the reason where there is none."""
    found = host_compiler(os.environ)
    if found is None:
        pytest.skip(f"{compiler_missing(os.environ)}, which compiles kernels for the CPU")
    return found


@functools.cache
def library(flavour: str) -> Path:
    """The cases' library."""
    sources = [f"{HERE}/{name}.cu" for name in (*CASES, *(RACE_CASES if flavour == "race" else ()))]
    findings = [f"{HERE}/race_findings.cpp"] if flavour == "race" else []
    runtimes(flavour)
    return build("cases", flavour, compiler(), [*sources, f"{HERE}/cases.cpp", *findings])


def runtimes(flavour: str) -> list[str]:
    """What has to come first in a process that loads the library; skips with the reason where it is missing."""
    if flavour != "asan":
        return []
    found = build_simt.sanitizer_runtimes(compiler())
    if not found:
        pytest.skip(f"{compiler()} has no libasan.so and libubsan.so")
    return found


def environment(flavour: str) -> dict[str, str]:
    """For the process that loads the library. Python frees little at its end: the search for leaks is off."""
    added = {"LD_PRELOAD": " ".join(runtimes(flavour)), "ASAN_OPTIONS": "detect_leaks=0"} if flavour == "asan" else {}
    return {**os.environ, "GPUCNN_SIMT_ORDER": "", "GPUCNN_TEST_SEED": str(rotating_seed()), **added}


def run_cases(flavour: str, requests: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
    """The answers to (case, order) requests. All run in one process, one after another; under asan each in its own."""
    requests = list(requests)
    command = [sys.executable, str(ROOT / HERE / "run_cases.py"), str(library(flavour))]
    if flavour == "asan":
        command.append("--apart")
    done = subprocess.run(
        command, env=environment(flavour), input=json.dumps(requests), capture_output=True, text=True, timeout=300
    )
    answers = [Answer(**json.loads(line)) for line in done.stdout.splitlines()]
    print(done.stderr)
    assert done.returncode == 0, f"{requests[len(answers)]} ended the process ({done.returncode}): {done.stderr}"
    return dict(zip(requests, answers, strict=True))


@functools.cache
def _marks() -> dict[str, str]:
    marks = {}
    for name in (*CASES, *RACE_CASES):
        for number, line in enumerate((ROOT / HERE / f"{name}.cu").read_text(encoding="utf-8").splitlines(), 1):
            _, found, mark = line.partition("// @")
            if found:
                marks[mark] = f"{name}.cu:{number}"
    return marks


def place(mark: str) -> str:
    """The "file:line" that ends in "// @mark"."""
    return _marks()[mark]


def names_line(text: str, where: str) -> bool:
    """Whether the text has this file:line, and not merely a longer number that begins so."""
    _, found, rest = text.partition(where)
    return bool(found) and (not rest[:1].isdigit() or names_line(rest, where))
