"""gpucnn._simt_<flavour>: the kernels built for the CPU, with the layer in csrc/simt that runs them.

Three kinds of source, compiled differently: kernels, which a flavour's checker instruments; the layer itself, which is
never instrumented (it switches stacks, and its own accesses are nobody's business); bindings, which are plain C++. The
latter two are the same in all flavours and compiled once. Objects are kept in build/simt/<flavour or shared>/
<python tag>/, laid out as csrc/ is.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from build_cuda import REINSTALL, compiler_missing
from cuda_options import BuildError
from cuda_toolkit import host_compiler
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

FLAVOURS = ("plain", "race", "asan", "profile")
SHARED = "shared"
"""Stands for a flavour where an object is part of every module."""

MODULE_FILE = "csrc/bindings.cpp"
CUDA_ONLY = "device"
"""The folder of csrc/ that only the CUDA extension has; csrc/simt takes its place."""

COMMON_FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Icsrc")
# Kernels read float as float4. A frame pointer and lines are what the checkers' reports are made of.
KERNEL_FLAGS = ("-x", "c++", "-O2", "-g", "-fno-strict-aliasing", "-fno-omit-frame-pointer")
RUNTIME_FLAGS = ("-O3", "-g", "-fno-strict-aliasing")
BINDING_FLAGS = ("-O1", "-g0")

SANITIZERS = "-fsanitize=address,undefined"
INSTRUMENT: dict[str, tuple[str, ...]] = {
    "plain": (),
    "race": (
        *("-fsanitize=thread", "-U_FORTIFY_SOURCE", "-include", "csrc/simt/memory_calls.h"),
        *("-fno-builtin-memcpy", "-fno-builtin-memmove", "-fno-builtin-memset"),
    ),
    # Half the time of -O2 -g, with the same lines in its reports.
    "asan": (SANITIZERS, "-fno-sanitize-recover=undefined", "-O1", "-g1"),
    # Accesses as the source has them: none split, merged, repeated or left out. Blocks that are the source's.
    "profile": (
        *("-O3", "-fsanitize=thread", "-fsanitize-coverage=trace-pc", "-DGPUCNN_SIMT_PROFILE"),
        *("-U_FORTIFY_SOURCE", "-include", "csrc/simt/memory_calls.h"),
        *("-fno-builtin-memcpy", "-fno-builtin-memmove", "-fno-builtin-memset"),
        *("-fno-tree-sra", "-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-fno-tree-loop-distribution"),
        *("-fno-unswitch-loops", "-fno-split-loops", "-fno-peel-loops", "-fno-version-loops-for-strides"),
        *("-fno-ipa-cp-clone", "-fno-optimize-sibling-calls", "-fno-crossjumping", "-fno-tree-tail-merge"),
        *("-fno-reorder-blocks", "-fno-thread-jumps", "-fno-split-paths"),
    ),
}
"""A flavour's flags for kernels. What -fsanitize=thread calls is the layer's, so libtsan is not linked."""

OBSERVERS: dict[str, tuple[str, ...]] = {"race": ("observed", "race"), "profile": ("observed", "profile")}
"""With which the names of the layer's files begin that only these flavours have."""


def simt_flavours(environ: Mapping[str, str]) -> tuple[str, ...]:
    """GPUCNN_SIMT, such as "plain,race", in the order of FLAVOURS; empty or unset means none.

    Raises:
        BuildError: it names a flavour that there is not.
    """
    text = environ.get("GPUCNN_SIMT", "")
    named = [entry.strip() for entry in text.split(",")] if text.strip() else []
    for flavour in named:
        if flavour not in FLAVOURS:
            raise BuildError(
                f"GPUCNN_SIMT={text!r}: there is no flavour {flavour!r}; expected any of {', '.join(FLAVOURS)}, "
                "separated by ','"
            )
    return tuple(flavour for flavour in FLAVOURS if flavour in named)


def module_name(flavour: str) -> str:
    return f"gpucnn._simt_{flavour}"


def simt_sources(csrc: Path, flavour: str) -> list[str]:
    """Every kernel file and all bindings below `csrc` and the layer's own sources, relative to its parent, sorted."""
    found = [*csrc.rglob("*.cu"), *csrc.rglob("*bindings.cpp"), *(csrc / "simt").glob("*.cpp")]
    kept = {path for path in found if path.relative_to(csrc).parts[0] != CUDA_ONLY}
    others = {start for starts in OBSERVERS.values() for start in starts} - set(OBSERVERS.get(flavour, ()))
    kept = {path for path in kept if not is_layer(path) or not path.name.startswith(tuple(others))}
    return sorted(path.relative_to(csrc.parent).as_posix() for path in kept)


def is_layer(source: Path) -> bool:
    """Whether `source` is part of what runs kernels, rather than a kernel or a binding."""
    return source.parent.name == "simt" and source.name != "bindings.cpp"


@dataclass(frozen=True)
class SimtPlan:
    """The flavours that will be built, with this compiler; and why others are not."""

    flavours: tuple[str, ...]
    compiler: Path | None
    reason: str
    remedy: str

    @property
    def facts(self) -> dict[str, object]:
        """What the record says of the flavours once they are built."""
        preload = sanitizer_runtimes(self.compiler) if self.compiler and "asan" in self.flavours else []
        return {"built": list(self.flavours), "reason": self.reason, "remedy": self.remedy, "preload": preload}


def decide_simt(environ: Mapping[str, str]) -> SimtPlan:
    """Which flavours to build, from GPUCNN_SIMT and the compilers on this machine.

    Raises:
        BuildError: GPUCNN_SIMT can't be understood, or what it names can't be built here.
    """
    flavours, compiler = simt_flavours(environ), host_compiler(environ)
    again = f"{REINSTALL} and GPUCNN_SIMT={','.join(FLAVOURS)}"
    if compiler is None:
        reason, remedy = compiler_missing(environ), f"install g++, or name one with CXX, then {again}"
        if flavours:
            raise BuildError(f"GPUCNN_SIMT={environ['GPUCNN_SIMT']}, but {reason}. Remedy: {remedy}")
        return SimtPlan((), None, f"{reason} and GPUCNN_SIMT was not set when it was installed", remedy)
    if "asan" in flavours and not sanitizer_runtimes(compiler):
        raise BuildError(
            f"GPUCNN_SIMT={environ['GPUCNN_SIMT']}, but {compiler} has no libasan.so and libubsan.so: install them, or "
            "leave asan out"
        )
    return SimtPlan(flavours, compiler, "GPUCNN_SIMT did not name it when it was installed", again)


def sanitizer_runtimes(compiler: Path) -> list[str]:
    """What a process that loads the asan flavour has to have preloaded, in this order; empty if any of it is missing.

    libstdc++ is among them because AddressSanitizer looks for the function that throws exceptions when it starts, and
    Python itself does not bring it.
    """
    found = []
    for library in ("libasan.so", "libubsan.so", "libstdc++.so.6"):
        command = [str(compiler), f"-print-file-name={library}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(answer).is_absolute():  # the bare name: not found
            return []
        found.append(str(Path(answer).resolve()))
    return found


def object_of(source: str, flavour: str) -> str:
    """The flavour that the object of `source` belongs to: `flavour` itself, or SHARED where it is the same in all."""
    return flavour if source.endswith(".cu") or source == MODULE_FILE else SHARED


def build_modules(plan: SimtPlan, csrc: Path, modules: Mapping[str, Path], objects: Callable[[str], Path]) -> list[str]:
    """Brings the modules of all planned flavours up to date; what was compiled, all side by side.

    Args:
        plan: what to build, and with which compiler.
        csrc: the folder of the sources, in the working directory.
        modules: for each flavour, the shared object to write.
        objects: the folder that the objects of a flavour, or SHARED ones, are kept in.

    Raises:
        BuildError: a source does not compile, or a module does not link.
    """
    import pybind11  # a build requirement, absent while setuptools only collects metadata

    assert plan.compiler is not None, "a plan with flavours has a compiler"
    project, compiler, pybind = str(Path.cwd()), str(plan.compiler), pybind11.get_include()
    around = Surroundings(
        folder=Path.cwd(),
        places={"project": project, "pybind11": pybind},
        tools=f"{version_line(plan.compiler)}, pybind11 {pybind11.__version__}",
    )
    units: dict[str, dict[Path, Unit]] = {}  # the units of each module by their object
    for flavour in plan.flavours:
        units[flavour] = {}
        for source in simt_sources(csrc, flavour):
            made = objects(object_of(source, flavour)) / f"{source}.o"
            command = (compiler, f"-ffile-prefix-map={project}=.", *flags(source, flavour, pybind))
            units[flavour][made] = Unit(Path(source), made, command)
    once = {made: unit for several in units.values() for made, unit in several.items()}
    compiled = compile_changed(list(once.values()), around, processors())
    show_warnings(compiled)
    for flavour in (*plan.flavours, SHARED):
        remove_leftovers(objects(flavour), once.values())
    for flavour, several in units.items():
        sanitizers = [SANITIZERS] if flavour == "asan" else []
        preload = sanitizer_runtimes(plan.compiler) if flavour == "asan" else []
        link([compiler, "-shared", *sanitizers, *map(str, several), "-ldl", "-lpthread"], modules[flavour], preload)
    return [
        f"{unit.source} ({flavour})"
        for flavour in (*plan.flavours, SHARED)
        for unit in compiled
        if unit.object.is_relative_to(objects(flavour))
    ]


def flags(source: str, flavour: str, pybind11: str) -> list[str]:
    """The compiler's flags for one source of a flavour; `pybind11` is the folder of its headers."""
    if source.endswith(".cu"):
        return [*COMMON_FLAGS, *KERNEL_FLAGS, *INSTRUMENT[flavour]]
    if is_layer(Path(source)):
        return [*COMMON_FLAGS, *RUNTIME_FLAGS]
    defines = [f"-DGPUCNN_MODULE={module_name(flavour).rpartition('.')[2]}"] if source == MODULE_FILE else []
    return [*COMMON_FLAGS, *BINDING_FLAGS, *defines, *binding_includes(pybind11)]
