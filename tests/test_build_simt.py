"""Building the kernels for the CPU: what is ordered, with what it is built, which source gets which flags."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import build_simt
from build_simt import decide_simt, simt_flavours, simt_sources
from cuda_options import BuildError
from cuda_toolkit import host_compiler

ROOT = Path(__file__).resolve().parent.parent
GXX = host_compiler(os.environ)
needs_compiler = pytest.mark.skipif(GXX is None, reason="no C++ compiler (g++) on this machine")


def test_flavours_are_read_in_one_order() -> None:
    assert [simt_flavours({"GPUCNN_SIMT": text}) for text in ("", " ", "race", "asan, plain", "race,race,plain")] == [
        (),
        (),
        ("race",),
        ("plain", "asan"),
        ("plain", "race"),
    ]
    assert simt_flavours({}) == ()


@pytest.mark.parametrize(
    ("text", "wrong"), [("tsan", "tsan"), ("plain;race", "plain;race"), ("plain,", ""), ("1", "1"), ("Plain", "Plain")]
)
def test_flavours_that_there_are_not_are_refused(text: str, wrong: str) -> None:
    with pytest.raises(BuildError) as caught:
        decide_simt({"GPUCNN_SIMT": text, "PATH": os.environ["PATH"]})
    assert f"GPUCNN_SIMT={text!r}: there is no flavour {wrong!r}; expected any of plain, race, asan" in str(
        caught.value
    )


def test_without_a_compiler_nothing_is_built_unless_ordered(tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path)}
    plan = decide_simt(bare)
    assert plan.flavours == ()
    assert plan.facts["built"] == plan.facts["preload"] == []
    assert "no C++ compiler (g++)" in plan.reason
    assert "install g++" in plan.remedy
    assert "GPUCNN_SIMT=plain,race,asan" in plan.remedy
    with pytest.raises(
        BuildError, match=r"GPUCNN_SIMT=race, but there is no C\+\+ compiler \(g\+\+\). Remedy: install g"
    ):
        decide_simt({**bare, "GPUCNN_SIMT": "race"})
    with pytest.raises(BuildError, match="GPUCNN_SIMT=race, but CXX=gone is no executable file"):
        decide_simt({**os.environ, "GPUCNN_SIMT": "race", "CXX": "gone"})


@needs_compiler
def test_what_is_not_ordered_is_not_built() -> None:
    plan = decide_simt({**os.environ, "GPUCNN_SIMT": ""})
    assert plan.flavours == ()
    assert plan.reason == "GPUCNN_SIMT did not name it when it was installed"
    assert plan.remedy.endswith("GPUCNN_SIMT=plain,race,asan,profile")


@pytest.mark.parametrize("missing", ["libasan.so", "libubsan.so", "libstdc++.so.6", ""])
def test_asan_takes_the_compilers_sanitizers(tmp_path: Path, missing: str) -> None:
    """A compiler that lacks one names the library as it was asked for."""
    compiler = tmp_path / "g++"
    compiler.write_text(f"#!/bin/sh\nname=${{1#*=}}\n[ $name = '{missing}' ] && echo $name || echo {tmp_path}/$name\n")
    compiler.chmod(0o755)
    environ = {"GPUCNN_SIMT": "plain,asan", "CXX": str(compiler)}
    if missing:
        with pytest.raises(BuildError, match=r"has no libasan.so and libubsan.so: install them, or leave asan out"):
            decide_simt(environ)
        assert decide_simt({**environ, "GPUCNN_SIMT": "plain"}).flavours == ("plain",)
    else:
        names = ("libasan.so", "libubsan.so", "libstdc++.so.6")
        assert decide_simt(environ).facts["preload"] == [str(tmp_path / name) for name in names]


def test_sources_are_found_and_told_apart(tmp_path: Path) -> None:
    files = [
        *("bindings.cpp", "pool2d/bindings.cpp", "pool2d/race.cu", "pool2d/pool2d.h", "pool2d/other.cpp"),
        *("device/bindings.cpp", "simt/bindings.cpp", "simt/fiber.cpp", "simt/race.cpp", "simt/race_report.cpp"),
        *("simt/observed_entry.cpp", "simt/profile.cpp"),
    ]
    for name in files:
        (tmp_path / "csrc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "csrc" / name).touch()
    common = ["bindings.cpp", "pool2d/bindings.cpp", "pool2d/race.cu", "simt/bindings.cpp", "simt/fiber.cpp"]
    plain = [f"csrc/{name}" for name in common]
    assert simt_sources(tmp_path / "csrc", "plain") == simt_sources(tmp_path / "csrc", "asan") == plain
    race = simt_sources(tmp_path / "csrc", "race")
    assert race == sorted([*plain, "csrc/simt/observed_entry.cpp", "csrc/simt/race.cpp", "csrc/simt/race_report.cpp"])
    profile = simt_sources(tmp_path / "csrc", "profile")
    assert profile == sorted([*plain, "csrc/simt/observed_entry.cpp", "csrc/simt/profile.cpp"])
    owners = {source: build_simt.object_of(source, "race") for source in race}
    own = {"csrc/bindings.cpp", "csrc/pool2d/race.cu"}
    assert {source for source, owner in owners.items() if owner == "race"} == own
    assert set(owners.values()) == {"race", build_simt.SHARED}


def test_only_kernels_are_instrumented_and_only_the_module_is_named() -> None:
    for flavour, instrument in build_simt.INSTRUMENT.items():
        kernel = build_simt.flags("csrc/pool2d/max.cu", flavour, "/pybind11")
        assert set(instrument) <= set(kernel)
        for source in ("csrc/simt/fiber.cpp", "csrc/pool2d/bindings.cpp", "csrc/bindings.cpp"):
            flags = build_simt.flags(source, flavour, "/pybind11")
            assert not any("sanitize" in flag for flag in flags)
            assert (f"-DGPUCNN_MODULE=_simt_{flavour}" in flags) == (source == "csrc/bindings.cpp")
            assert ("/pybind11" in flags) == ("bindings" in source)
    assert "-fsanitize=thread" in build_simt.INSTRUMENT["race"]


MEMORY_CALLS = """\
#include <string.h>
void copy(char* to, const char* from, size_t n) { memcpy(to, from, n); }
void copy_16(char* to, const char* from) { memcpy(to, from, 16); }
void copy_4000(char* to, const char* from) { memcpy(to, from, 4000); }
void move(char* to, const char* from, size_t n) { memmove(to, from, n); }
void set(char* to, size_t n) { memset(to, 0, n); }
void set_64(char* to) { memset(to, 0, 64); }
"""


@needs_compiler
@pytest.mark.parametrize("optimise", ["-O0", "-O2", "-O3"])
def test_a_kernels_calls_of_memcpy_and_memset_reach_the_race_checker(tmp_path: Path, optimise: str) -> None:
    """Every one of them, as a call: what the compiler expands in place, the checker would not see."""
    (tmp_path / "kernel.cu").write_text(MEMORY_CALLS)
    flags = [*build_simt.flags("kernel.cu", "race", ""), optimise]
    command = [str(GXX), *flags, "-S", tmp_path / "kernel.cu", "-o", tmp_path / "kernel.s"]
    subprocess.run(command, cwd=ROOT, check=True)
    assembly = (tmp_path / "kernel.s").read_text()
    for name, times in (("memcpy", 3), ("memmove", 1), ("memset", 2)):
        assert len(re.findall(rf"\s__tsan_{name}\b", assembly)) == times, name
        assert not re.search(rf"\s{name}\b", assembly), name
