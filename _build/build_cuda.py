"""gpucnn._cuda: whether it is built here, with which tools, and how.

Objects, dependency files, stamps and ptxas reports are kept in build/cuda/<python tag>/, laid out as csrc/ is.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuda_options import BuildError, cuda_mode, gencode_flags, parse_archs, target_names
from cuda_toolkit import STATIC_RUNTIME, Toolkit, find_toolkit, host_compiler
from objects import (
    Surroundings,
    Unit,
    binding_includes,
    compile_changed,
    link,
    processors,
    remove_leftovers,
    show_warnings,
    version_line,
)

MODULE = "gpucnn._cuda"
HOST_ONLY = ("simt",)
"""Folders of csrc/ that are no part of the CUDA extension."""

REINSTALL = "reinstall with pip's --force-reinstall --no-deps --no-cache-dir"
ON_ORDER = f"{REINSTALL} and GPUCNN_CUDA=1"

CXX_FLAGS = ("-O1", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
"""Of bindings, which check arguments: compiled in two thirds of the time that -O2 takes, and as small."""
NVCC_FLAGS = ("-O3", "-std=c++17", "-lineinfo", "-Xptxas=-v", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra")
COMPRESSED = ("--compress-mode=size",)
"""Machine code and its line numbers in a fifth of the room, for drivers from CUDA 12.4 on; nvcc has it since 12.8."""
COMPRESSES_FROM = 13

DEFINES = ("-DGPUCNN_MODULE=_cuda", "-DGPUCNN_FOR_CUDA")
LINK_FLAGS = ("-shared", "-Wl,--exclude-libs,ALL", "-Wl,--strip-all")
LIBRARIES = ("-ldl", "-lrt", "-lpthread")


def cuda_sources(csrc: Path) -> list[str]:
    """Every kernel file and all bindings below `csrc`, sorted, as paths relative to its parent."""
    found = [*csrc.rglob("*.cu"), *csrc.rglob("*bindings.cpp")]
    kept = [path for path in found if path.relative_to(csrc).parts[0] not in HOST_ONLY]
    return sorted(path.relative_to(csrc.parent).as_posix() for path in kept)


@dataclass(frozen=True)
class Plan:
    """The extension will be built, with these tools for these architectures."""

    toolkit: Toolkit
    compiler: Path
    archs: tuple[str, ...]

    @property
    def facts(self) -> dict[str, object]:
        """What the record says of the extension once it is built."""
        return {
            "cuda": True,
            "reason": f"built by CUDA {self.toolkit.version} ({self.toolkit.origin})",
            "remedy": "",
            "toolkit": self.toolkit.version,
            "targets": target_names(self.archs),
        }


@dataclass(frozen=True)
class Skip:
    """The extension will be left out: why, and what would bring it."""

    reason: str
    remedy: str

    @property
    def facts(self) -> dict[str, object]:
        """What the record says of the extension."""
        return {"cuda": False, "reason": self.reason, "remedy": self.remedy}


def decide(environ: Mapping[str, str], driver: int | None) -> Plan | Skip:
    """Whether to build, from GPUCNN_CUDA, the driver (`driver_version()`) and the compilers on this machine.

    Raises:
        BuildError: a variable can't be understood, or GPUCNN_CUDA=1 and a compiler is missing.
    """
    mode, archs = cuda_mode(environ), parse_archs(environ)
    if mode == "0":
        return Skip("GPUCNN_CUDA=0 when it was installed", ON_ORDER)
    if mode == "auto" and driver is None:
        return Skip("no NVIDIA driver (libcuda.so.1) when it was installed", ON_ORDER)
    search, compiler = find_toolkit(environ, sys.path), host_compiler(environ)
    if compiler is None:
        missing = Skip(compiler_missing(environ), f"install g++, or name one with CXX, then {REINSTALL}")
    elif search.toolkit is None:
        missing = Skip(search.failure, _toolkit_remedy(driver))
    else:
        return Plan(search.toolkit, compiler, archs)
    if mode == "1":
        raise BuildError(f"GPUCNN_CUDA=1, but {missing.reason}. Remedy: {missing.remedy}")
    return missing


def compiler_missing(environ: Mapping[str, str]) -> str:
    """Why `host_compiler()` found none."""
    name = environ.get("CXX")
    return f"CXX={name} is no executable file" if name else "there is no C++ compiler (g++)"


def _toolkit_remedy(driver: int | None) -> str:
    if driver is not None and driver < 13000:
        return f"install a CUDA 12 toolkit (the driver can't use a newer one), then {REINSTALL}"
    # Only without build isolation, or on a platform that has no wheels: else the backend would have asked for nvcc's.
    return f"install a CUDA toolkit, or name its nvcc with GPUCNN_NVCC, then {REINSTALL}"


def build_module(plan: Plan, sources: Sequence[str], module: Path, objects: Path) -> list[str]:
    """Brings `module` up to date; the sources that were compiled.

    Args:
        plan: what to build with.
        sources: of `cuda_sources`, relative to the working directory.
        module: the shared object to write.
        objects: the folder that its objects are kept in.

    Raises:
        BuildError: a source does not compile, or the module does not link.
    """
    import pybind11  # a build requirement, absent while setuptools only collects metadata

    around = Surroundings(
        folder=Path.cwd(),
        places={"cuda": str(plan.toolkit.root), "pybind11": pybind11.get_include()},
        tools=f"nvcc {plan.toolkit.version}, {version_line(plan.compiler)}, pybind11 {pybind11.__version__}",
    )
    includes = ["-Icsrc", "-isystem", str(plan.toolkit.include), *binding_includes(pybind11.get_include())]
    cxx = (str(plan.compiler), *CXX_FLAGS, *DEFINES, *includes)
    packed = COMPRESSED if int(plan.toolkit.version.partition(".")[0]) >= COMPRESSES_FROM else ()
    nvcc = (
        *(str(plan.toolkit.nvcc), "-ccbin", str(plan.compiler)),
        *(*NVCC_FLAGS, *packed, *gencode_flags(plan.archs), "-Icsrc"),
    )
    units = [Unit(Path(source), objects / f"{source}.o", nvcc if source.endswith(".cu") else cxx) for source in sources]
    compiled = compile_changed(units, around, processors())
    show_warnings(compiled)
    remove_leftovers(objects, units)
    # nvcc can't link where it comes from a wheel (its profile names a folder that is not there), so g++ does.
    runtime = str(plan.toolkit.library / STATIC_RUNTIME)
    names = [str(unit.object) for unit in units]
    link([str(plan.compiler), *LINK_FLAGS, *names, runtime, *LIBRARIES], module)
    return [str(unit.source) for unit in compiled]
