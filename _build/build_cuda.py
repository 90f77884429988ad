"""The `build_ext` command: compiles csrc/ into gpucnn._cuda, or leaves it out and records why.

Objects, dependency files, stamps and ptxas reports are kept in build/cuda/<python tag>/, laid out as csrc/ is. A build
that leaves the extension out removes the module of an earlier one, so that no install picks up an old module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

from cuda_compile import Surroundings, Unit, compile_changed
from cuda_options import BuildError, cuda_mode, gencode_flags, parse_archs, target_names
from cuda_toolkit import STATIC_RUNTIME, Toolkit, driver_version, find_toolkit, host_compiler

MODULE = "gpucnn._cuda"
RECORD = "_build_info.json"
HOST_ONLY = ("simt",)
"""Folders of csrc/ that are no part of the CUDA extension."""

REINSTALL = "reinstall with pip's --force-reinstall --no-deps --no-cache-dir"
ON_ORDER = f"{REINSTALL} and GPUCNN_CUDA=1"

CXX_FLAGS = ("-O2", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
NVCC_FLAGS = ("-O3", "-std=c++17", "-lineinfo", "-Xptxas=-v", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra")
LINK_FLAGS = ("-shared", "-Wl,--exclude-libs,ALL", "-Wl,--strip-all")
LIBRARIES = ("-ldl", "-lrt", "-lpthread")


def cuda_sources(csrc: Path) -> list[str]:
    """Every kernel file and every bindings.cpp below `csrc`, sorted, as paths relative to its parent."""
    found = [*csrc.rglob("*.cu"), *csrc.rglob("bindings.cpp")]
    kept = [path for path in found if path.relative_to(csrc).parts[0] not in HOST_ONLY]
    return sorted(path.relative_to(csrc.parent).as_posix() for path in kept)


@dataclass(frozen=True)
class Plan:
    """The extension will be built, with these tools for these architectures."""

    toolkit: Toolkit
    compiler: Path
    archs: tuple[str, ...]


@dataclass(frozen=True)
class Skip:
    """The extension will be left out: why, and what would bring it."""

    reason: str
    remedy: str


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
        name = environ.get("CXX")
        reason = f"CXX={name} is no executable file" if name else "there is no C++ compiler (g++)"
        missing = Skip(reason, f"install g++, or name one with CXX, then {REINSTALL}")
    elif search.toolkit is None:
        missing = Skip(search.failure, _toolkit_remedy(driver))
    else:
        return Plan(search.toolkit, compiler, archs)
    if mode == "1":
        raise BuildError(f"GPUCNN_CUDA=1, but {missing.reason}. Remedy: {missing.remedy}")
    return missing


def _toolkit_remedy(driver: int | None) -> str:
    if driver is not None and driver < 13000:
        return f"install a CUDA 12 toolkit (the driver can't use a newer one), then {REINSTALL}"
    # Only without build isolation, or on a platform that has no wheels: else the backend would have asked for nvcc's.
    return f"install a CUDA toolkit, or name its nvcc with GPUCNN_NVCC, then {REINSTALL}"


class BuildCuda(build_ext):
    """setuptools' command with a compiler of its own; setup.py's one Extension names the module and its sources."""

    def run(self) -> None:
        """Builds or skips, and records which beside the module (in the source tree for an editable install)."""
        (extension,) = self.extensions
        module = Path(self.get_ext_fullpath(extension.name))
        module.unlink(missing_ok=True)
        try:
            decision = decide(os.environ, driver_version())
            if isinstance(decision, Plan):
                self._build(decision, [Path(source) for source in extension.sources], module)
        except BuildError:
            self._record(module, cuda=False, reason="its last build failed", remedy=f"{REINSTALL} and read the errors")
            raise
        if isinstance(decision, Skip):
            self.extensions = []
            self._record(module, cuda=False, reason=decision.reason, remedy=decision.remedy)
            print(f"gpucnn: built without CUDA: {decision.reason}; {decision.remedy}", file=sys.stderr)
            return
        reason = f"built by CUDA {decision.toolkit.version} ({decision.toolkit.origin})"
        targets = target_names(decision.archs)
        self._record(module, cuda=True, reason=reason, remedy="", toolkit=decision.toolkit.version, targets=targets)

    def get_outputs(self) -> list[str]:
        return sorted({*super().get_outputs(), self._record_in_wheel()})

    def get_output_mapping(self) -> dict[str, str]:
        mapping: dict[str, str] = super().get_output_mapping()
        if self.inplace:
            mapping[self._record_in_wheel()] = str(Path(self._package_folder(), RECORD))
        return mapping

    def _record_in_wheel(self) -> str:
        return str(Path(self.build_lib, *MODULE.split(".")[:-1], RECORD))

    def _package_folder(self) -> str:
        command = cast(build_py, self.get_finalized_command("build_py"))
        return command.get_package_dir(MODULE.rpartition(".")[0])

    def _record(self, module: Path, **facts: object) -> None:
        module.parent.mkdir(parents=True, exist_ok=True)
        module.with_name(RECORD).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def _build(self, plan: Plan, sources: list[Path], module: Path) -> None:
        import pybind11  # a build requirement, absent while setuptools only collects metadata

        started = time.perf_counter()
        around = Surroundings(
            folder=Path.cwd(),
            places={"cuda": str(plan.toolkit.root), "pybind11": pybind11.get_include()},
            tools=f"nvcc {plan.toolkit.version}, {_version_line(plan.compiler)}, pybind11 {pybind11.__version__}",
        )
        objects = Path(
            cast(build, self.get_finalized_command("build")).build_base, "cuda", str(sysconfig.get_config_var("SOABI"))
        )
        cxx = (str(plan.compiler), *CXX_FLAGS, *_includes(plan.toolkit, around.places["pybind11"]))
        nvcc = (str(plan.toolkit.nvcc), "-ccbin", str(plan.compiler), *NVCC_FLAGS, *gencode_flags(plan.archs), "-Icsrc")
        units = [Unit(source, objects / f"{source}.o", nvcc if source.suffix == ".cu" else cxx) for source in sources]
        compiled = compile_changed(units, around, jobs=os.cpu_count() or 1)
        for unit in compiled:
            _show_warnings(unit)
        _remove_leftovers(objects, units)
        _link(plan, units, module)
        names = ", ".join(str(unit.source) for unit in compiled) or "nothing"
        seconds = time.perf_counter() - started
        print(f"gpucnn: {plan.toolkit.nvcc} compiled {names}; linked {module} in {seconds:.1f} s", file=sys.stderr)


def _includes(toolkit: Toolkit, pybind11: str) -> list[str]:
    paths = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    return ["-Icsrc", "-isystem", str(toolkit.include), "-isystem", pybind11, *(f"-I{path}" for path in sorted(paths))]


def _version_line(compiler: Path) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.partition("\n")[0]


def _show_warnings(unit: Unit) -> None:
    """Passes on what a compiler printed, without ptxas's report of registers, which stays in the log."""
    lines = unit.beside(".log").read_text(encoding="utf-8").splitlines()
    report = ("ptxas info", "    0 bytes stack frame")
    if kept := [line for line in lines if line.strip() and not line.startswith(report)]:
        print("\n".join(kept), file=sys.stderr)


def _remove_leftovers(objects: Path, units: list[Unit]) -> None:
    """Removes what is left of sources that are gone, so that reports on file are of shipped kernels only."""
    kept = {unit.beside(suffix) for unit in units for suffix in ("", ".d", ".json", ".log")}
    for path in objects.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()


def _link(plan: Plan, units: list[Unit], module: Path) -> None:
    """nvcc can't link where it comes from a wheel (its profile names a folder that is not there), so g++ does."""
    module.parent.mkdir(parents=True, exist_ok=True)
    objects = [str(unit.object) for unit in units]
    runtime = str(plan.toolkit.library / STATIC_RUNTIME)
    command = [str(plan.compiler), *LINK_FLAGS, *objects, runtime, *LIBRARIES, "-o", str(module)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise BuildError(f"{module} does not link:\n{' '.join(command)}\n{done.stdout}{done.stderr}")
