"""Packages as users get them: sdist, wheels with and without the compiled modules, and rebuilding them."""

from __future__ import annotations

import ast
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import kernel_coverage
import numpy as np
import pytest

from build_cuda import cuda_sources
from build_simt import simt_sources
from cuda_options import BuildError
from cuda_toolkit import find_toolkit, host_compiler

ROOT = Path(__file__).resolve().parent.parent
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
GXX = host_compiler(os.environ)
Machine = Callable[..., dict[str, str]]
needs_compiler = pytest.mark.skipif(GXX is None, reason="no C++ compiler (g++) on this machine")


# -------------------------------------------------------------------------------------------- sdist and wheels

IGNORED = shutil.ignore_patterns("__pycache__", "*.so", "_build_info.json", "_kernel_report.json", "*.egg-info")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree, with leftovers of an in-place build in it."""
    copy = tmp_path_factory.mktemp("packaging") / "tree"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.name in ("gpucnn", "_build", "csrc", "tests", "tools", "examples", "benchmarks"):
            shutil.copytree(path, copy / path.name, ignore=IGNORED)
        elif path.is_file():
            shutil.copy(path, copy)
    (copy / "gpucnn/_build_info.json").write_text('{"cuda": true}')
    for module in ("_cuda", "_simt_plain"):
        (copy / f"gpucnn/{module}{SUFFIX}").write_text("an old module")
    return copy


def run_hook(hook: str, folder: Path, out: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Calls a hook of the backend as a PEP 517 frontend does: in its own process, in the source folder."""
    code = f"import gpucnn_backend; gpucnn_backend.{hook}({str(out)!r})"
    asked = {"GPUCNN_ARCHS": "80", "GPUCNN_CUDA": "0", "GPUCNN_SIMT": "", **variables}
    environ = {**os.environ, "PYTHONPATH": str(folder / "_build"), **asked}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environ, capture_output=True, text=True)


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    done = run_hook("build_sdist", tree, tree.parent / "sdist")
    assert done.returncode == 0, done.stderr
    (archive,) = (tree.parent / "sdist").glob("gpucnn-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def unpacked(sdist: Path) -> Path:
    subprocess.run(["tar", "xzf", sdist, "-C", sdist.parent], check=True)
    return sdist.parent / sdist.name.removesuffix(".tar.gz")


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_sdist_holds_the_sources_and_nothing_built(tree: Path, unpacked: Path) -> None:
    held = contents(unpacked)
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md", "Makefile", "gpucnn/py.typed"} <= held
    for folder in ("csrc", "_build", "gpucnn/data/embedded", "tests"):
        expected = {f"{folder}/{name}" for name in contents(tree / folder)}
        assert expected, folder
        assert expected <= held
    assert {f"gpucnn/{name}" for name in contents(tree / "gpucnn") if name.endswith(".py")} <= held
    assert not {name for name in held if name.endswith((".so", ".pyc", "_build_info.json"))}


@pytest.fixture(scope="module")
def plain_wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip makes of the sdist on a machine without a compiler."""
    out = sdist.parent.parent / "plain"
    command = [*(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-q")]
    without = tmp_path_factory.mktemp("no compiler")  # a PATH on which there is none
    for tool in ("sh", "git"):
        if found := shutil.which(tool):
            (without / tool).symlink_to(found)
    environ = {**os.environ, "GPUCNN_CUDA": "0", "GPUCNN_SIMT": "", "CXX": "", "PATH": str(without)}
    done = subprocess.run([*command, "-w", out, sdist], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("gpucnn-*.whl")
    return wheel


def test_a_wheel_from_the_sdist_installs_without_cuda(plain_wheel: Path, tree: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q", plain_wheel]
    subprocess.run(pip, check=True)
    code = (
        f"import sys; sys.path.append({str(Path(np.__file__).parent.parent)!r})\n"
        "import importlib.metadata, gpucnn\n"
        "from gpucnn import extension\n"
        "print(gpucnn.__file__, gpucnn.__version__, importlib.metadata.version('gpucnn'))\n"
        "print(extension.load(), extension.why_missing())\n"
        "print(extension.load('_simt_plain'), extension.why_missing('_simt_plain'))\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, why, why_no_simt = done.stdout.splitlines()
    path, version, metadata_version = where.split()
    assert Path(path).is_relative_to(tmp_path)
    assert version == metadata_version
    assert why.startswith("None the CUDA extension is not built: GPUCNN_CUDA=0")
    assert why_no_simt.startswith(
        "None gpucnn._simt_plain (the kernels built for the CPU) is not built: there is no C++"
    )
    assert "install g++" in why_no_simt
    assert (tmp_path / "venv/bin/gpucnn").is_file()
    package = Path(path).parent
    assert (package / "py.typed").is_file()
    assert contents(package / "data/embedded") == contents(tree / "gpucnn/data/embedded")
    assert {name for name in contents(package) if name.endswith(".py")} == {
        name for name in contents(tree / "gpucnn") if name.endswith(".py")
    }
    assert not list(package.glob("_*.so"))


def test_a_wheel_declares_what_it_needs(plain_wheel: Path) -> None:
    with zipfile.ZipFile(plain_wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        lines = wheel.read(name).decode().splitlines()
        top_level = {path.split("/")[0] for path in wheel.namelist()}
    assert "License-Expression: MIT" in lines
    assert "Requires-Python: >=3.10" in lines
    required = {line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist")}
    always = {spec for spec in required if "extra ==" not in spec}
    assert {spec.partition(">")[0] for spec in always} == {
        *("numpy", "click", "tqdm", "tabulate", "pooch", "safetensors", "pillow", "threadpoolctl")
    }
    extras = {line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra")}
    assert extras == {"cuda12", "cuda13", "plot", "bench", "bfloat16", "test", "dev", "peers"}
    assert 'torch==2.13.0; extra == "peers"' in required
    assert {folder for folder in top_level if not folder.endswith(".dist-info")} == {"gpucnn"}


# --------------------------------------------------------------------------------------- the extension's own build

EXTRA_KERNEL = """\
#include "simt/simt.h"

#define MARK 1
extern "C" __attribute__((visibility("default"))) int gpucnn_mark() { return MARK; }
namespace gpucnn {
namespace {
__global__ void extra_kernel(float* x) { x[threadIdx.x] = 2.0f; }
}  // namespace
simt::Status extra(float* x) { return simt::launch(extra_kernel, dim3(1), dim3(32), 0, nullptr, x); }
}  // namespace gpucnn
"""


def has_toolkit() -> bool:
    try:
        return GXX is not None and find_toolkit(os.environ, sys.path).toolkit is not None
    except BuildError:
        return False


needs_nvcc = pytest.mark.skipif(not has_toolkit(), reason="no CUDA toolkit (nvcc) and C++ compiler on this machine")


@pytest.fixture(scope="module")
def small(unpacked: Path) -> Path:
    """A copy of the unpacked sdist with no op but one, and a kernel file more: little to compile."""
    folder = unpacked.parent.parent / "small"
    shutil.copytree(unpacked, folder)
    ops = {path for path in (folder / "csrc").iterdir() if path.is_dir()}
    for path in ops - {folder / "csrc" / name for name in ("_template", "common", "device", "simt")}:
        shutil.rmtree(path)
    module = folder / "csrc/bindings.cpp"
    lines = module.read_text().splitlines(keepends=True)
    unwanted = re.compile(r"register_(?!machine|template)\w+\(")
    module.write_text("".join(line for line in lines if not unwanted.search(line)))
    (folder / "csrc/extra").mkdir()
    (folder / "csrc/extra/extra.cu").write_text(EXTRA_KERNEL)
    return folder


@pytest.fixture(scope="module")
def built(small: Path) -> tuple[Path, str]:
    """The small tree after a build with CUDA, and what the build printed."""
    done = run_hook("build_wheel", small, small / "dist", GPUCNN_CUDA="1")
    assert done.returncode == 0, done.stderr
    return small, done.stderr


def wheel_files(folder: Path, into: Path) -> Path:
    """Unpacks the one wheel in folder/dist; the package's folder."""
    (wheel,) = (folder / "dist").glob("gpucnn-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into)
    return into / "gpucnn"


def mark(package: Path, name: str = "_cuda") -> int:
    """What the extra kernel's host code in this wheel's module answers."""
    (module,) = package.glob(f"{name}*.so")
    answer: int = ctypes.CDLL(str(module)).gpucnn_mark()
    return answer


def compiled(printed: str) -> str:
    (line,) = (line for line in printed.splitlines() if line.startswith("gpucnn:") and "compiled" in line)
    return line.partition("compiled ")[2].partition(";")[0]


@needs_nvcc
@pytest.mark.slow
def test_the_extension_builds_from_the_sdist(built: tuple[Path, str], tmp_path: Path) -> None:
    folder, printed = built
    assert compiled(printed).split(", ") == cuda_sources(folder / "csrc")
    package = wheel_files(folder, tmp_path)
    assert mark(package) == 1
    record = json.loads((package / "_build_info.json").read_text())
    assert record["cuda"] is True
    assert record["targets"] == ["sm_80", "compute_80"]
    assert str(ROOT) not in json.dumps(record)
    report = json.loads((package / "_kernel_report.json").read_text())
    assert {(entry["file"], entry["kernel"]) for entry in report} >= {
        ("extra.cu", "extra_kernel"),
        ("template.cu", "scale_kernel<bfloat16, true>"),
    }
    assert {entry["target"] for entry in report} == {"sm_80"}
    assert all(entry["registers"] and not entry["stack"] for entry in report)
    (module,) = package.glob("_cuda*.so")
    needed = subprocess.run(["ldd", module], capture_output=True, text=True, check=True).stdout
    assert "libcudart" not in needed  # linked statically: no toolkit is needed to run
    symbols = subprocess.run(["nm", "-D", "--defined-only", module], capture_output=True, text=True, check=True).stdout
    assert "PyInit__cuda" in symbols
    assert " cuda" not in symbols  # and out of sight, so that no other library's runtime is mixed up with it
    code = "import _cuda; print(_cuda.runtime_version() >= 12000, callable(_cuda.scale))"
    done = subprocess.run([sys.executable, "-c", code], cwd=package, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr


@needs_nvcc
@pytest.mark.slow
def test_an_edited_kernel_alone_is_compiled_and_linked_again(built: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = built
    source = folder / "csrc/extra/extra.cu"
    source.write_text(EXTRA_KERNEL.replace("MARK 1", "MARK 2"))
    done = run_hook("build_wheel", folder, folder / "dist", GPUCNN_CUDA="1")
    assert compiled(done.stderr) == "csrc/extra/extra.cu"
    assert mark(wheel_files(folder, tmp_path / "second")) == 2
    done = run_hook("build_wheel", folder, folder / "dist", GPUCNN_CUDA="1")
    assert compiled(done.stderr) == "nothing"
    assert mark(wheel_files(folder, tmp_path / "third")) == 2


@needs_nvcc
@pytest.mark.slow
def test_a_broken_kernel_fails_loudly_and_leaves_no_old_module(built: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = built
    source = folder / "csrc/extra/extra.cu"
    text = source.read_text()
    source.write_text(text + "int broken = no_such_name;\n")
    shutil.rmtree(folder / "dist")
    done = run_hook("build_wheel", folder, folder / "dist", GPUCNN_CUDA="1")
    source.write_text(text)
    assert done.returncode != 0
    assert "csrc/extra/extra.cu does not compile" in done.stderr
    assert 'identifier "no_such_name" is undefined' in done.stderr
    assert not list((folder / "dist").glob("*.whl"))
    assert not list((folder / "build").glob("lib*/gpucnn/_cuda*"))
    (record,) = (folder / "build").glob("lib*/gpucnn/_build_info.json")
    assert json.loads(record.read_text())["reason"] == "its last build failed"


@needs_nvcc
@pytest.mark.slow
def test_an_earlier_build_does_not_leak_into_an_install_without_cuda(built: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = built
    assert run_hook("build_wheel", folder, folder / "dist", GPUCNN_CUDA="1").returncode == 0
    (library,) = (folder / "build").glob("lib*/gpucnn")
    assert list(library.glob("_cuda*.so"))
    (library / "removed_since.py").write_text("")
    assert run_hook("build_wheel", folder, folder / "dist", GPUCNN_CUDA="0").returncode == 0
    package = wheel_files(folder, tmp_path)
    assert not list(package.glob("_cuda*"))
    assert not (package / "removed_since.py").exists()
    assert json.loads((package / "_build_info.json").read_text())["cuda"] is False


@needs_compiler
@pytest.mark.slow
def test_the_kernels_for_the_cpu_build_and_rebuild_from_the_sdist(small: Path, tmp_path: Path) -> None:
    source = small / "csrc/extra/extra.cu"
    source.write_text(EXTRA_KERNEL)
    done = run_hook("build_wheel", small, small / "dist", GPUCNN_SIMT="race,plain")
    assert done.returncode == 0, done.stderr
    names = {source: 0 for source in (*simt_sources(small / "csrc", "plain"), *simt_sources(small / "csrc", "race"))}
    for text in compiled(done.stderr).split(", "):
        names[text.partition(" (")[0]] += 1
    twice = {source for source in names if source.endswith(".cu") or source == "csrc/bindings.cpp"}
    assert {source for source, times in names.items() if times == 2} == twice  # once for each flavour
    assert all(times == 1 for source, times in names.items() if source not in twice)

    package = wheel_files(small, tmp_path / "first")
    assert {path.name for path in package.glob("_*.so")} == {f"_simt_plain{SUFFIX}", f"_simt_race{SUFFIX}"}
    assert mark(package, "_simt_race") == 1
    record = json.loads((package / "_build_info.json").read_text())
    assert record["cuda"] is False
    assert record["simt"]["built"] == ["plain", "race"]
    assert str(small) not in json.dumps(record)
    for name in ("_simt_plain", "_simt_race"):
        (module,) = package.glob(f"{name}*.so")
        assert str(small).encode() not in module.read_bytes()  # lines are named from the top of the tree: csrc/...
        assert b"csrc/extra/extra.cu" in module.read_bytes()
    libraries = subprocess.run(["ldd", module], capture_output=True, text=True, check=True).stdout
    assert not re.search("cuda|tsan|asan", libraries)
    for path in package.rglob("*.py"):
        path.unlink()  # the modules alone
    code = (
        f"import {', '.join(names := ['_simt_plain', '_simt_race'])}, numpy\n"
        f"for module in ({', '.join(names)}):\n"
        "    x = numpy.ones(5, numpy.float32)\n"
        "    module.scale('float32', x, x, 3.0, 0)\n"
        "    print(module.flavour, x.sum())\n"
        "print(module.kernels())\n"
        "print([kernel[:2] for kernel in module.launched()])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=package, capture_output=True, text=True)
    *sums, there, launched = done.stdout.splitlines()
    assert sums == ["plain 15.0", "race 15.0"], done.stderr
    # A kernel that is there and that nobody launched does not go unseen.
    left = kernel_coverage.gaps(ast.literal_eval(there), ast.literal_eval(launched))
    assert ("extra.cu", "extra_kernel") in left
    assert ("template.cu", "scale_kernel<half, true>") in left
    assert {("template.cu", "scale_kernel<float, true>"), ("template.cu", "scale_kernel<float, false>")} - set(left)

    source.write_text(EXTRA_KERNEL.replace("MARK 1", "MARK 3"))
    done = run_hook("build_wheel", small, small / "dist", GPUCNN_SIMT="plain")
    assert compiled(done.stderr) == "csrc/extra/extra.cu (plain)"
    package = wheel_files(small, tmp_path / "second")
    assert {path.name for path in package.glob("_*.so")} == {f"_simt_plain{SUFFIX}"}
    assert mark(package, "_simt_plain") == 3
    reason = json.loads((package / "_build_info.json").read_text())["simt"]
    assert reason["built"] == ["plain"]
    assert reason["reason"] == "GPUCNN_SIMT did not name it when it was installed"

    source.write_text(EXTRA_KERNEL + "int broken = no_such_name;\n")
    done = run_hook("build_wheel", small, small / "broken", GPUCNN_SIMT="plain")
    assert done.returncode != 0
    assert "csrc/extra/extra.cu does not compile" in done.stderr
    assert "no_such_name" in done.stderr
    assert not list((small / "broken").glob("*.whl"))
    assert not list((small / "build").glob("lib*/gpucnn/_simt*"))


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"GPUCNN_SIMT": "plain,tsan"}, "there is no flavour 'tsan'; expected any of plain, race, asan"),
        ({"GPUCNN_SIMT": "plain", "CXX": "gone"}, "GPUCNN_SIMT=plain, but CXX=gone is no executable file"),
    ],
    ids=["unknown", "no compiler"],
)
def test_flavours_that_can_not_be_built_end_the_build(
    tree: Path, tmp_path: Path, variables: dict[str, str], error: str
) -> None:
    done = run_hook("build_wheel", tree, tmp_path, **variables)
    assert done.returncode != 0
    assert error in done.stderr
    assert "Traceback" not in done.stderr.partition("error: ")[2]
    assert not list(tmp_path.glob("*.whl"))


def test_an_editable_install_removes_modules_that_it_does_not_build(tree: Path) -> None:
    """Runs after the sdist was made of the tree, which holds files named as old modules."""
    modules = [tree / f"gpucnn/{name}{SUFFIX}" for name in ("_cuda", "_simt_plain", "_simt_race", "_simt_asan")]
    for module in modules:
        module.write_text("an old module")
    done = run_hook("build_editable", tree, tree.parent / "editable")
    assert done.returncode == 0, done.stderr
    assert not any(module.exists() for module in modules)
    record = json.loads((tree / "gpucnn/_build_info.json").read_text())
    assert record["cuda"] is False
    assert "GPUCNN_CUDA=1" in record["remedy"]
    assert record["simt"]["built"] == []


def test_kernels_for_the_host_alone_are_no_part_of_the_extension(tmp_path: Path) -> None:
    for name in ("simt/model.cu", "simt/bindings.cpp", "pool2d/max.cu", "pool2d/bindings.cpp", "pool2d/other.cpp"):
        (tmp_path / "csrc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "csrc" / name).touch()
    assert cuda_sources(tmp_path / "csrc") == ["csrc/pool2d/bindings.cpp", "csrc/pool2d/max.cu"]
