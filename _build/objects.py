"""Compiles sources in parallel, each only if its text, a header it includes or its command has changed; and links.

What an object was made from is kept beside it as a stamp: the command, and a SHA-256 of every file that the compiler
named as an input. Contents decide, not dates, which a checkout, an unpacked sdist or a copy all change.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cuda_options import BuildError


@dataclass(frozen=True)
class Unit:
    """One source and the object made from it.

    Files kept beside `object` (o): o.d (dependencies), o.json (the stamp), o.log (what the compiler printed).
    """

    source: Path
    object: Path
    command: tuple[str, ...]
    """Compiler and flags, without input and output."""

    def beside(self, suffix: str) -> Path:
        return self.object.with_name(self.object.name + suffix)


@dataclass(frozen=True)
class Surroundings:
    """What is the same for every unit of a build."""

    folder: Path
    """Where compilers run: sources and the headers that they include are named relative to it."""
    places: Mapping[str, str]
    """Name -> folder outside the project whose headers are included. A build environment is a new temporary folder
    each time, so stamps hold the name: a move alone recompiles nothing."""
    tools: str
    """Versions of the compilers and of what `places` holds; another text recompiles everything."""


def compile_changed(units: Sequence[Unit], around: Surroundings, jobs: int) -> list[Unit]:
    """Brings every object up to date with `jobs` compilers at once; the units that were compiled, in the order given.

    Raises:
        BuildError: with every command that failed and everything that the compiler said.
    """
    outdated = [unit for unit in units if not _is_current(unit, around)]
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        failures = [text for text in pool.map(lambda unit: _compile(unit, around), outdated) if text]
    if failures:
        raise BuildError("\n\n".join(failures))
    return outdated


def _is_current(unit: Unit, around: Surroundings) -> bool:
    try:
        stamp = json.loads(unit.beside(".json").read_text(encoding="utf-8"))
        inputs = {name: _digest(around.folder / name) for name in stamp["inputs"]}
    except (FileNotFoundError, ValueError, KeyError):  # never compiled, an input was renamed, or a torn stamp
        return False
    return unit.object.is_file() and bool(stamp == _stamp(unit, around, inputs))


def _compile(unit: Unit, around: Surroundings) -> str | None:
    """None, or what went wrong. The stamp is removed first and written last, so an interruption leaves none."""
    unit.object.parent.mkdir(parents=True, exist_ok=True)
    unit.beside(".json").unlink(missing_ok=True)
    dependencies = unit.beside(".d")
    command = [*unit.command, "-MMD", "-MF", str(dependencies), "-c", str(unit.source), "-o", str(unit.object)]
    started = time.time()
    done = subprocess.run(command, cwd=around.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    printed = done.stdout + done.stderr
    if done.returncode != 0:
        return f"{unit.source} does not compile (exit {done.returncode}):\n{' '.join(command)}\n{printed.rstrip()}"
    unit.beside(".log").write_text(printed, encoding="utf-8")
    inputs = [
        name
        for name in _dependencies(dependencies.read_text(encoding="utf-8"))
        if not name.startswith(tuple(around.places.values()))
    ]
    if all((around.folder / name).stat().st_mtime < started for name in inputs):  # else saved while being compiled
        stamp = _stamp(unit, around, {name: _digest(around.folder / name) for name in inputs})
        unit.beside(".json").write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    return None


def _stamp(unit: Unit, around: Surroundings, inputs: dict[str, str]) -> dict[str, object]:
    command = list(unit.command)
    for name, folder in around.places.items():
        command = [word.replace(folder, f"{{{name}}}") for word in command]
    return {"tools": around.tools, "command": command, "inputs": inputs}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _dependencies(rule: str) -> list[str]:
    """The inputs in a make rule `object: input input \\`, where a space inside a name is escaped."""
    _, _, inputs = rule.replace("\\\n", " ").partition(":")
    return [name.replace("\\ ", " ") for name in re.split(r"(?<!\\)\s+", inputs.strip()) if name]


def processors() -> int:
    """How many compilers this process may run at once."""
    return len(os.sched_getaffinity(0))


def version_line(compiler: Path) -> str:
    """The first line of `compiler --version`."""
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.partition("\n")[0]


def binding_includes(pybind11: str) -> list[str]:
    """Flags for a source that includes Python's and pybind11's headers."""
    paths = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    return ["-isystem", pybind11, *(f"-I{path}" for path in sorted(paths))]


def show_warnings(units: Iterable[Unit]) -> None:
    """Passes on what the compilers printed, without ptxas's report of registers, which stays in the log."""
    report = ("ptxas info", "    0 bytes stack frame")
    for unit in units:
        lines = unit.beside(".log").read_text(encoding="utf-8").splitlines()
        if kept := [line for line in lines if line.strip() and not line.startswith(report)]:
            print("\n".join(kept), file=sys.stderr)


def remove_leftovers(objects: Path, units: Iterable[Unit]) -> None:
    """Removes from the folder `objects` what is left of sources that are gone: reports there are of what is shipped."""
    kept = {unit.beside(suffix) for unit in units for suffix in ("", ".d", ".json", ".log")}
    for path in objects.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def link(command: Sequence[str], module: Path, preload: Sequence[str] = ()) -> None:
    """Runs the compiler `command`, to which the output is added, and sees that Python can load what it made.

    A shared object may lack symbols and still link; what is missing would only show where it is imported.

    Args:
        command: the compiler, flags and objects.
        module: what to write.
        preload: libraries that have to come first in a process that loads it.

    Raises:
        BuildError: with the linker's or the loader's words.
    """
    module.parent.mkdir(parents=True, exist_ok=True)
    linking = [*command, "-o", str(module)]
    done = subprocess.run(linking, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise BuildError(f"{module} does not link:\n{' '.join(linking)}\n{done.stdout}{done.stderr}")
    loading = [sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", str(module.absolute())]
    environ = {**os.environ, "LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0"} if preload else None
    done = subprocess.run(loading, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        words = done.stderr.strip().rpartition("\n")[2]
        raise BuildError(f"{module} links but can't be loaded: {words}")
