"""Compiling only what changed, and linking what Python can load."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cuda_options import BuildError
from cuda_toolkit import host_compiler
from objects import Surroundings, Unit, compile_changed, link

GXX = host_compiler(os.environ)
needs_compiler = pytest.mark.skipif(GXX is None, reason="no C++ compiler (g++) on this machine")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"  # make rules escape the space
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.cpp").write_text(f'#include "{name} both.h"\nint {name}() {{ return VALUE; }}\n')
        (folder / f"{name} both.h").write_text('#include "both.h"\n')
    (folder / "both.h").write_text("#define VALUE 1\n")
    return folder


def compile_project(folder: Path, *flags: str, tools: str = "g++", places: dict[str, str] | None = None) -> list[str]:
    units = [
        Unit(Path(f"{name}.cpp"), Path(f"objects/{name}.cpp.o"), (str(GXX), "-I.", *flags)) for name in ("one", "two")
    ]
    return [unit.source.stem for unit in compile_changed(units, Surroundings(folder, places or {}, tools), jobs=2)]


@needs_compiler
def test_only_what_changed_is_compiled(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert compile_project(project) == ["one", "two"]
    assert compile_project(project) == []
    (project / "two.cpp").write_text('#include "two both.h"\nint two() { return 2; }\n')
    assert compile_project(project) == ["two"]
    (project / "one both.h").write_text('#include "both.h"\n#define MORE\n')
    assert compile_project(project) == ["one"]
    (project / "both.h").write_text("#define VALUE 3\n")
    assert compile_project(project) == ["one", "two"]
    assert compile_project(project, "-O1") == ["one", "two"]
    assert compile_project(project, "-O1", tools="another g++") == ["one", "two"]
    (project / "objects/one.cpp.o").unlink()
    assert compile_project(project, "-O1", tools="another g++") == ["one"]
    (project / "objects/two.cpp.o.json").write_text('{"inputs": {')  # a stamp torn by a crash
    assert compile_project(project, "-O1", tools="another g++") == ["two"]


@needs_compiler
def test_dates_and_moved_folders_recompile_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    for outside in ("first", "second"):
        (project.parent / outside).mkdir()
        (project.parent / outside / "library.h").write_text("#define LIBRARY\n")
    (project / "one both.h").write_text('#include "both.h"\n#include "library.h"\n')

    def build(outside: str) -> list[str]:
        place = str(project.parent / outside)
        return compile_project(project, f"-I{place}", places={"library": place})

    assert build("first") == ["one", "two"]
    os.utime(project / "one.cpp")
    shutil.rmtree(project.parent / "first")
    assert build("second") == []


@needs_compiler
def test_a_removed_header_is_noticed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    compile_project(project)
    (project / "both.h").rename(project / "common.h")
    (project / "one both.h").write_text('#include "common.h"\n')
    with pytest.raises(BuildError, match=r"two\.cpp does not compile") as caught:
        compile_project(project)
    assert "both.h" in str(caught.value)
    (project / "two both.h").write_text('#include "common.h"\n')
    assert compile_project(project) == ["two"]  # "one" was compiled beside the failure


@needs_compiler
def test_every_failure_is_shown_with_the_compilers_words(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    (project / "both.h").write_text("#error no value today\n")
    with pytest.raises(BuildError) as caught:
        compile_project(project)
    text = str(caught.value)
    assert "one.cpp does not compile" in text
    assert "two.cpp does not compile" in text
    assert text.count("no value today") >= 2


@needs_compiler
def test_a_source_saved_while_it_is_compiled_is_compiled_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    soon = os.stat(project / "one.cpp").st_mtime + 60
    os.utime(project / "one.cpp", (soon, soon))
    assert compile_project(project) == ["one", "two"]
    assert compile_project(project) == ["one"]


@needs_compiler
def test_a_module_that_does_not_link_says_so(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"module\.so does not link:") as caught:
        link([str(GXX), "-shared", str(tmp_path / "missing.o")], tmp_path / "lib/module.so")
    assert "missing.o" in str(caught.value)


@needs_compiler
def test_a_module_that_lacks_a_symbol_is_found_out_by_the_build(tmp_path: Path) -> None:
    """As where a file of the layer or an op's binding is missing: the linker lets it pass."""
    (tmp_path / "module.cpp").write_text("void not_there(); void here() { not_there(); }")
    command = [str(GXX), "-shared", "-fPIC", "-x", "c++", str(tmp_path / "module.cpp")]
    with pytest.raises(BuildError, match=r"module\.so links but can't be loaded: .*undefined symbol: .*not_there"):
        link(command, tmp_path / "module.so")
    (tmp_path / "module.cpp").write_text("void here() {}")
    link(command, tmp_path / "module.so")
