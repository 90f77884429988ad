"""The `build_ext` command: compiles csrc/ into gpucnn's modules, or leaves them out and records why.

A build that leaves a module out removes that of an earlier one, so that no install picks up an old module.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from setuptools import Extension
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

import build_cuda
import build_simt
import ptxas_report
from build_cuda import Plan, Skip
from cuda_options import BuildError
from cuda_toolkit import driver_version

RECORD = "_build_info.json"
KERNELS = "_kernel_report.json"
"""What ptxas said of each kernel, for `gpucnn kernels`."""


def extensions(csrc: Path) -> list[Extension]:
    """All modules that there can be, each with its sources, which are found: a new kernel changes nothing here."""
    return [
        Extension(build_cuda.MODULE, build_cuda.cuda_sources(csrc)),
        *(
            Extension(build_simt.module_name(flavour), build_simt.simt_sources(csrc, flavour))
            for flavour in build_simt.FLAVOURS
        ),
    ]


class BuildExtensions(build_ext):
    """setuptools' command with compilers of its own; setup.py's Extensions name the modules and their sources."""

    def run(self) -> None:
        """Builds or skips, and records which beside the modules (in the source tree for an editable install)."""
        declared = {extension.name: extension for extension in self.extensions}
        modules = {name: Path(self.get_ext_fullpath(name)) for name in declared}
        for module in modules.values():
            module.unlink(missing_ok=True)
        self._path_of(KERNELS).unlink(missing_ok=True)
        self._seconds: dict[str, float] = {}
        try:
            cuda, simt = build_cuda.decide(os.environ, driver_version()), build_simt.decide_simt(os.environ)
            if isinstance(cuda, Plan):
                self._build_cuda(cuda, declared[build_cuda.MODULE].sources, modules[build_cuda.MODULE])
            if simt.flavours:
                self._build_simt(simt, modules)
        except BuildError:
            for module in modules.values():
                module.unlink(missing_ok=True)
            failed = {"reason": "its last build failed", "remedy": f"{build_cuda.REINSTALL} and read the errors"}
            self._write(RECORD, {"cuda": False, **failed, "simt": {"built": [], **failed, "preload": []}})
            raise
        built = {build_simt.module_name(flavour) for flavour in simt.flavours}
        if isinstance(cuda, Skip):
            print(f"gpucnn: built without CUDA: {cuda.reason}; {cuda.remedy}", file=sys.stderr)
        else:
            built.add(build_cuda.MODULE)
            self._write(KERNELS, ptxas_report.record(ptxas_report.read(self._objects("cuda"))))
        self.extensions = [extension for name, extension in declared.items() if name in built]
        self._write(RECORD, {**cuda.facts, "simt": simt.facts, "seconds": self._seconds})

    def get_outputs(self) -> list[str]:
        records = [self._in_wheel(name) for name in (RECORD, KERNELS) if self._path_of(name).exists()]
        return sorted({*super().get_outputs(), self._in_wheel(RECORD), *records})

    def get_output_mapping(self) -> dict[str, str]:
        mapping: dict[str, str] = super().get_output_mapping()
        if self.inplace:
            for name in (RECORD, KERNELS):
                if self._path_of(name).exists():
                    mapping[self._in_wheel(name)] = str(self._path_of(name))
        return mapping

    def _in_wheel(self, name: str) -> str:
        return str(Path(self.build_lib, "gpucnn", name))

    def _package_folder(self) -> Path:
        command = cast(build_py, self.get_finalized_command("build_py"))
        return Path(command.get_package_dir("gpucnn"))

    def _path_of(self, name: str) -> Path:
        return self._package_folder() / name if self.inplace else Path(self._in_wheel(name))

    def _write(self, name: str, facts: object) -> None:
        path = self._path_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def _objects(self, *kind: str) -> Path:
        base = cast(build, self.get_finalized_command("build")).build_base
        return Path(base, *kind, str(sysconfig.get_config_var("SOABI")))

    def _build_cuda(self, plan: Plan, sources: list[str], module: Path) -> None:
        started = time.perf_counter()
        compiled = build_cuda.build_module(plan, sources, module, self._objects("cuda"))
        self._seconds["cuda"] = _tell(str(plan.toolkit.nvcc), compiled, [module], started)

    def _build_simt(self, plan: build_simt.SimtPlan, modules: dict[str, Path]) -> None:
        started = time.perf_counter()
        linked = {flavour: modules[build_simt.module_name(flavour)] for flavour in plan.flavours}
        compiled = build_simt.build_modules(plan, Path("csrc"), linked, lambda kind: self._objects("simt", kind))
        self._seconds["simt"] = _tell(str(plan.compiler), compiled, linked.values(), started)


def _tell(compiler: str, compiled: list[str], linked: Iterable[Path], started: float) -> float:
    """Says what was done; the seconds that it took."""
    what, into = ", ".join(compiled) or "nothing", ", ".join(map(str, linked))
    seconds = time.perf_counter() - started
    print(f"gpucnn: {compiler} compiled {what}; linked {into} in {seconds:.1f} s", file=sys.stderr)
    return round(seconds, 1)
