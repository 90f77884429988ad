"""Libraries for ctypes of kernels outside the package together with the layer that runs them on the CPU.

The tests of the checkers and the golden files of the instructions are made of them. Objects are kept in build/ and
compiled only where something has changed.
"""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from pathlib import Path

import build_simt
from objects import Surroundings, Unit, compile_changed, link, processors, version_line

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "simt-libraries"


def layer(flavour: str) -> list[str]:
    """The sources that run and check kernels, without those that are Python's, relative to ROOT."""
    found = [Path(source) for source in build_simt.simt_sources(ROOT / "csrc", flavour)]
    return [str(path) for path in found if build_simt.is_layer(path)]


def build(name: str, flavour: str, compiler: Path, sources: Sequence[str]) -> Path:
    """The library `name` of a flavour, made of `sources` (relative to ROOT) and the layer; compiled as the package is.

    Raises:
        BuildError: it does not compile, link or load, with the compiler's words.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    units = []
    for source in [*layer(flavour), *sources]:
        made = FOLDER / build_simt.object_of(source, flavour) / f"{source}.o"
        command = (str(compiler), f"-ffile-prefix-map={ROOT}/=", *build_simt.flags(source, flavour, pybind11=""))
        units.append(Unit(Path(source), made, command))
    library = FOLDER / flavour / f"{name}.so"
    asan = flavour == "asan"
    with (FOLDER / "lock").open("w") as lock:  # for whoever else runs the tests in this tree
        fcntl.flock(lock, fcntl.LOCK_EX)
        compile_changed(units, Surroundings(ROOT, {"project": str(ROOT)}, version_line(compiler)), processors())
        if not _is_newest(library, units):
            library.unlink(missing_ok=True)
            command = (str(compiler), "-shared", *([build_simt.SANITIZERS] if asan else []))
            objects = [str(unit.object) for unit in units]
            preload = build_simt.sanitizer_runtimes(compiler) if asan else []
            link([*command, *objects, "-ldl", "-lpthread"], library, preload)
    return library


def _is_newest(library: Path, units: Sequence[Unit]) -> bool:
    return library.exists() and all(unit.object.stat().st_mtime < library.stat().st_mtime for unit in units)
