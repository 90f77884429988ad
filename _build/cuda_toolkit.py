"""Finds what a CUDA build needs on this machine: nvcc with its headers and static runtime, g++, the driver."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuda_options import BuildError

OLDEST_TOOLKIT = (12, 0)
"""The first release with C++17 as its default and with the sm_90a target."""

RUNTIME_HEADER = "cuda_runtime.h"
STATIC_RUNTIME = "libcudart_static.a"
TARGET_FOLDERS = {"x86_64": ("x86_64-linux",), "aarch64": ("sbsa-linux", "aarch64-linux")}
"""Where a toolkit keeps headers and libraries of a machine, under `targets/`; cross-compilers hold several."""


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit that can compile the extension."""

    nvcc: Path
    root: Path
    """The toolkit's top folder, as nvcc itself names it."""
    include: Path
    """The folder of cuda_runtime.h."""
    library: Path
    """The folder of libcudart_static.a."""
    version: str
    """nvcc's own, such as "13.0.88"."""
    origin: str
    """How it was found: "GPUCNN_NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "usual folders" or "pip wheels"."""


@dataclass(frozen=True)
class Search:
    """The outcome of looking for a toolkit: the first one that is complete, and why others were passed over."""

    toolkit: Toolkit | None
    rejected: tuple[str, ...]

    @property
    def failure(self) -> str:
        """One line for a search that found nothing."""
        looked = "CUDA_HOME, CUDA_PATH, PATH, the usual folders and pip wheels were searched"
        return "no CUDA compiler (nvcc) was found: " + "; ".join((*self.rejected, looked))


class _Unusable(Exception):
    """Why a candidate can't compile the extension."""


def find_toolkit(environ: Mapping[str, str], sys_path: Sequence[str], root: Path = Path("/")) -> Search:
    """The first usable toolkit in the order GPUCNN_NVCC, CUDA_HOME, CUDA_PATH, PATH, usual folders, pip wheels.

    The pip wheels are there only once the build backend's requirements are installed, so a search before that
    (setup.py also runs to collect requirements) must not be taken for the last word.

    Args:
        environ: the environment variables.
        sys_path: where installed wheels are looked for, normally `sys.path`.
        root: the folder that the usual folders start from; tests give their own.

    Raises:
        BuildError: GPUCNN_NVCC is set and is not a usable nvcc. It is an order, so nothing else is tried.
    """
    if named := environ.get("GPUCNN_NVCC"):
        try:
            return Search(_inspect(_executable(named, environ), "GPUCNN_NVCC"), ())
        except _Unusable as error:
            raise BuildError(f"GPUCNN_NVCC={named}: {error}") from None
    rejected: list[str] = []
    for origin, nvcc in _candidates(environ, sys_path, root):
        try:
            return Search(_inspect(nvcc, origin), tuple(rejected))
        except _Unusable as error:
            rejected.append(f"{nvcc} ({origin}): {error}")
    return Search(None, tuple(rejected))


def _candidates(environ: Mapping[str, str], sys_path: Sequence[str], root: Path) -> Iterator[tuple[str, Path]]:
    """(origin, nvcc) in the order of preference. Variables that are set yield a path even where nothing is there."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := environ.get(variable):
            yield variable, Path(home, "bin", "nvcc")
    if on_path := shutil.which("nvcc", path=environ.get("PATH", "")):
        yield "PATH", Path(on_path)
    local = root / "usr/local"
    versioned = sorted(local.glob("cuda-*"), key=lambda folder: _numbers(folder.name), reverse=True)
    for folder in (local / "cuda", *versioned, root / "opt/cuda", root / "usr/lib/nvidia-cuda-toolkit"):
        if (folder / "bin/nvcc").is_file():
            yield "usual folders", folder / "bin/nvcc"
    for entry in sys_path:
        for nvcc in sorted(Path(entry or ".").glob("nvidia/cu[0-9]*/bin/nvcc"), reverse=True):
            yield "pip wheels", nvcc


def _executable(named: str, environ: Mapping[str, str]) -> Path:
    found = shutil.which(named, path=environ.get("PATH", ""))
    if found is None:
        raise _Unusable("no such executable file")
    return Path(found)


def _inspect(nvcc: Path, origin: str) -> Toolkit:
    if not (nvcc.is_file() and os.access(nvcc, os.X_OK)):
        raise _Unusable("no such executable file")
    found = re.search(r"\bV(\d+\.\d+\.\d+)\b", _output(nvcc, "--version"))
    if found is None:
        raise _Unusable("does not answer --version as nvcc does")
    version = found[1]
    if _numbers(version)[:2] < OLDEST_TOOLKIT:
        raise _Unusable(f"CUDA {version} is older than {'.'.join(map(str, OLDEST_TOOLKIT))}")
    root = toolkit_root(nvcc)
    targets = [root / "targets" / folder for folder in TARGET_FOLDERS.get(platform.machine(), ())]
    includes = [root / "include", *(target / "include" for target in targets)]
    libraries = [root / "lib64", root / "lib", *(target / "lib" for target in targets)]
    if root.is_relative_to("/usr/lib"):  # a distribution's package: headers and libraries are in the system's folders
        includes.append(Path("/usr/include"))
        libraries.append(Path("/usr/lib", f"{platform.machine()}-linux-gnu"))
    return Toolkit(nvcc, root, _holder(includes, RUNTIME_HEADER), _holder(libraries, STATIC_RUNTIME), version, origin)


def _holder(folders: Sequence[Path], name: str) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder
    raise _Unusable(f"its toolkit has no {name} (looked in {', '.join(map(str, folders))})")


def toolkit_root(nvcc: Path) -> Path:
    """The toolkit's top folder. nvcc itself is asked, since the one on PATH may be a wrapper script elsewhere."""
    here = re.search(r"^#\$ _HERE_=(.+)$", _output(nvcc, "-dryrun", "-E", "-x", "cu", os.devnull), re.MULTILINE)
    return Path(here[1].strip()).parent if here else nvcc.resolve().parent.parent


def _output(*command: str | Path) -> str:
    """Both streams of a command that should end at once; raises _Unusable where it can't be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unusable(f"can't be run ({error})") from None
    return done.stdout + done.stderr


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def host_compiler(environ: Mapping[str, str]) -> Path | None:
    """The C++ compiler, for the bindings and for nvcc's host code: $CXX (one executable), else g++; None if missing."""
    found = shutil.which(environ.get("CXX") or "g++", path=environ.get("PATH", ""))
    return Path(found) if found else None


def driver_version() -> int | None:
    """The newest CUDA version that the installed driver supports, 13000 for 13.0; None where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else 0
