"""The files of what was tuned: whole or passed over with one line, whoever else writes them, wherever they lie."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeArray, fake_cupy

from gpucnn import backend, extension, tuned
from gpucnn.ops.registry import TABLES, KernelTable
from gpucnn.problem import conv2d_problem

PLACE = ("reference", -1)
CHOICE = tuned.Choice("im2col", 1e-6, "pointwise", 2e-6)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own, in use."""
    monkeypatch.setenv(tuned.FOLDER, str(tmp_path))
    tuned.forget()
    tuned.set_tuning(True)
    yield tmp_path / "tuning"
    tuned.set_tuning(False)
    tuned.forget()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> KernelTable:
    """Of conv2d: first, second, which can't run 13, and one with configurations."""
    monkeypatch.delitem(TABLES, ("conv2d", "fprop"))
    table = KernelTable("conv2d", "fprop")
    table.add("first", "reference", lambda problem, *arrays: "first")
    table.add("second", "reference", lambda problem, *arrays: "second", lambda p: "is 13" if p == 13 else None)
    table.add("tiles", "reference", runs_in(""), variants=lambda: {"8x8": runs_in("8x8"), "4x4": runs_in("4x4")})
    return table


def runs_in(name: str) -> Any:
    return lambda problem, *arrays: f"tiles{name}"


def picked(table: KernelTable, problem: Any, dtype: str = "float32") -> str:
    with backend.use_backend("reference"):
        return table.pick(problem, np.empty(0, dtype)).name


def keep(problem: Any, kernel: str, dtype: str = "float32") -> Path:
    question = tuned.question("conv2d", "fprop", dtype, problem)
    return tuned.save(PLACE, {question: tuned.Choice(kernel, 1e-6, "first", 2e-6)})


# -------------------------------------------------------------------------------------------------- what tables do


def test_what_is_kept_is_taken_for_just_that(table: KernelTable) -> None:
    keep(1, "second")
    keep(2, "tiles:4x4")
    keep(3, "second", "float64")
    assert [picked(table, problem) for problem in (1, 2, 3, 4)] == ["second", "tiles:4x4", "first", "first"]
    assert picked(table, 3, "float64") == "second"
    assert picked(table, 1) == "second"  # also the second time
    with backend.use_backend("reference"):
        assert table(2, like=np.empty(0, np.float32)) == "tiles4x4"
        assert table.pick(1, np.empty(0, np.float32), "first").name == "first"
        assert table.pick_unmeasured(1, np.empty(0, np.float32)).name == "first"


def test_of_a_problem_with_an_epilogue_it_is_else_what_is_kept_without(table: KernelTable) -> None:
    plain = conv2d_problem((1, 8, 5, 5), (8, 8, 3, 3), 1, 0, 1, 1)
    scaled, added = (replace(plain, epilogue=(name,)) for name in ("scale", "residual"))
    keep(plain, "tiles:8x8")
    keep(added, "second")
    assert [picked(table, problem) for problem in (plain, scaled, added)] == ["tiles:8x8", "tiles:8x8", "second"]


def test_it_can_be_switched_off(table: KernelTable) -> None:
    keep(1, "second")
    assert picked(table, 1) == "second"
    tuned.set_tuning(False)
    assert picked(table, 1) == "first"
    tuned.set_tuning(True)
    assert picked(table, 1) == "second"


@pytest.mark.parametrize("kernel", ["gone", "tiles:2x2", "first:8x8", "second"])
def test_what_is_no_longer_there_or_can_not_is_not_taken(table: KernelTable, kernel: str) -> None:
    keep(13, kernel)
    assert picked(table, 13) == "first"


def test_other_ops_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their problems may be anything."""
    monkeypatch.setattr(tuned, "choices", lambda where: pytest.fail("asked"))
    other = TABLES["relu", "forward"]
    with backend.use_backend("reference"):
        assert other.pick(None, np.empty(0, np.float32)).backend == "reference"


def test_forced_configurations_are_named_where_there_is_no_such(table: KernelTable) -> None:
    like = np.empty(0, np.float32)
    with backend.use_backend("reference"):
        assert table.pick(1, like, "tiles:8x8").name == "tiles:8x8"
        with pytest.raises(
            ValueError, match="conv2d fprop: kernel 'tiles' has no configuration '9x9', there are: 8x8, 4x4"
        ):
            table.pick(1, like, "tiles:9x9")
        with pytest.raises(ValueError, match="kernel 'first' has no configuration '8x8', it has none to choose from"):
            table.pick(1, like, "first:8x8")
        with pytest.raises(ValueError, match=r"no kernel 'tile' on backend 'reference'.* did you mean 'tiles'"):
            table.pick(1, like, "tile:8x8")
        with pytest.raises(ValueError, match=r"kernel 'second' can't run this: is 13"):
            table.pick(13, like, "second")


def test_no_more_than_a_few_thousand_are_remembered(table: KernelTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned, "_MOST_REMEMBERED", 10)
    keep(5, "second")
    for problem in range(100):
        assert picked(table, problem) == ("second" if problem == 5 else "first")
        assert len(tuned.choices(PLACE).remembered) <= 10


# ------------------------------------------------------------------------------------------------------------ files


def test_files_are_added_to_and_taken_from(cache: Path) -> None:
    file = tuned.save(PLACE, {"one": CHOICE, "two": CHOICE})
    assert file.parent == cache
    assert tuned.save(PLACE, {"three": CHOICE, "one": None}) == file
    tuned.forget()
    assert tuned.choices(PLACE).by_question == {"two": CHOICE, "three": CHOICE}
    content = json.loads(file.read_text())
    assert set(content) == {"schema", "version", "build", "device", "choices"}
    assert content["device"] == tuned.device(PLACE)
    assert not [name for name in os.listdir(cache) if name.startswith(".")]
    assert file.stat().st_mode & 0o777 == 0o644


def broken(content: dict[str, Any]) -> dict[str, str]:
    def other(**changes: Any) -> str:
        return json.dumps({**content, **changes})

    choice = next(iter(content["choices"].values()))
    text = json.dumps(content)
    return {
        "empty": "",
        "cut off": text[: len(text) // 2],
        "not JSON": "kernels: im2col",
        "a list": "[]",
        "a number": "3",
        "another schema": other(schema=2),
        "no schema": json.dumps({name: value for name, value in content.items() if name != "schema"}),
        "another version": other(version="0.0.9"),
        "another build": other(build="0123456789abcdef"),
        "another device": other(device="another"),
        "no choices": json.dumps({name: value for name, value in content.items() if name != "choices"}),
        "choices in a list": other(choices=[choice]),
        "a choice in words": other(choices={"one": "im2col"}),
        "a choice without a kernel": other(choices={"one": {**choice, "kernel": None}}),
        "a kernel in a list": other(choices={"one": {**choice, "kernel": ["im2col"]}}),
        "a time in words": other(choices={"one": {**choice, "seconds": "fast"}}),
        "a time that is true": other(choices={"one": {**choice, "seconds": True}}),
        "a choice that lacks its default": other(choices={"one": {"kernel": "im2col", "seconds": 1}}),
    }


WAYS = list(broken({"choices": {"one": {}}}))


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_broken_or_for_elsewhere_is_passed_over_with_one_line(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tuned.save(PLACE, {"one": CHOICE})
    file.write_text(broken(json.loads(file.read_text()))[way])
    tuned.forget()
    with caplog.at_level(logging.WARNING, "gpucnn"):
        for _ in range(3):
            assert tuned.choices(PLACE).by_question == {}
    (record,) = caplog.records
    assert str(file) in record.getMessage()
    assert "\n" not in record.getMessage()
    caplog.clear()
    assert tuned.save(PLACE, {"two": CHOICE}) == file  # written anew
    tuned.forget()
    assert tuned.choices(PLACE).by_question == {"two": CHOICE}
    assert not caplog.records


def test_bytes_that_are_no_text_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    file = tuned.save(PLACE, {"one": CHOICE})
    file.write_bytes(b"\xff\xfe\x00")
    tuned.forget()
    with caplog.at_level(logging.WARNING, "gpucnn"):
        assert tuned.choices(PLACE).by_question == {}
    assert len(caplog.records) == 1


def test_a_folder_in_the_place_of_the_file_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    tuned.path(PLACE).mkdir(parents=True)
    with caplog.at_level(logging.WARNING, "gpucnn"):
        assert tuned.choices(PLACE).by_question == {}
    assert "can't be read" in caplog.text
    with pytest.raises(RuntimeError, match=r"can't be kept in .*: set GPUCNN_CACHE to a folder"):
        tuned.save(PLACE, {"one": CHOICE})
    assert not [name for name in os.listdir(tuned.folder()) if name.startswith(".")]


def test_without_a_file_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert tuned.choices(PLACE).by_question == {}
    assert not caplog.records


def test_a_folder_that_can_not_be_written_to_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(tuned.FOLDER, str(tmp_path / "file"))
    for attempt in (tuned.check_writable, lambda: tuned.save(PLACE, {"one": CHOICE})):
        with pytest.raises(RuntimeError, match=r"can't be kept in .*/file/tuning \(.*\): set GPUCNN_CACHE to a folder"):
            attempt()
    assert tuned.choices(PLACE).by_question == {}


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert tuned.folder() == Path(os.environ[tuned.FOLDER]) / "tuning"
    monkeypatch.delenv(tuned.FOLDER)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert tuned.folder() == Path("/home/someone/.cache/gpucnn/tuning")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert tuned.folder() == Path("/var/cache/gpucnn/tuning")
    monkeypatch.setenv(tuned.FOLDER, "~/kept")
    assert tuned.folder() == Path("/home/someone/kept/tuning")


WRITER = """
import sys
from gpucnn import tuned
for number in range(20):
    tuned.save(("reference", -1), {f"{sys.argv[1]} {number}": tuned.Choice("k", 1.0, "d", 2.0)})
"""


def test_processes_that_write_at_once_lose_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """And who reads meanwhile sees a whole file."""
    seen = 0
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name]) for name in "ab"]
    while any(writer.poll() is None for writer in writers):
        found = len(tuned._load(PLACE))
        assert found >= seen
        seen = found
    assert not caplog.records
    assert [writer.returncode for writer in writers] == [0, 0]
    tuned.forget()
    assert set(tuned.choices(PLACE).by_question) == {f"{name} {number}" for name in "ab" for number in range(20)}


READER = """
from gpucnn import tuned
assert tuned.is_enabled is {enabled}
print(len(tuned.choices(("reference", -1)).by_question))
"""


@pytest.mark.parametrize(("value", "enabled"), [("0", False), ("1", True), (None, True)])
def test_another_process_finds_it_unless_the_environment_says_no(value: str | None, enabled: bool) -> None:
    tuned.save(PLACE, {"one": CHOICE})
    environment = {name: text for name, text in os.environ.items() if name != tuned.SWITCH}
    environment |= {} if value is None else {tuned.SWITCH: value}
    done = subprocess.run(
        [sys.executable, "-c", READER.format(enabled=enabled)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "1\n"


# ----------------------------------------------------------------------------------------------------------- devices


def test_each_device_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        @staticmethod
        def device_properties(index: int) -> dict[str, Any]:
            return {"name": f"NVIDIA H{index}00 80GB", "multiprocessors": 132}

    monkeypatch.setattr(extension, "require", lambda name="_cuda": Module)
    assert tuned.device(("cuda", 1)) == "NVIDIA H100 80GB, 132 multiprocessors"
    assert tuned.path(("cuda", 2)).name == "NVIDIA-H200-80GB-132-multiprocessors.json"
    assert tuned.path(("simt", -1)) != tuned.path(("reference", -1))
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices=2))
    assert tuned.place("cuda", FakeArray(np.zeros(1), 1)) == ("cuda", 1)


def test_where_no_device_can_be_told_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(name: str = "_cuda") -> Any:
        raise RuntimeError("the CUDA extension is not built")

    monkeypatch.setattr(extension, "require", missing)
    assert tuned.choices(("cuda", 0)).by_question == {}
    monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", "quick")
    assert tuned.choices(("simt", -1)).by_question == {}
    monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", "race")
    tuned.folder().mkdir()
    tuned.path(("simt", -1)).write_text("{}")
    tuned.forget()
    assert tuned.choices(("simt", -1)).by_question == {}
    assert not caplog.records


def test_a_build_is_told_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        __file__ = str(tmp_path / "module.so")

    monkeypatch.setattr(extension, "compiled", lambda backend: Module)
    (tmp_path / "module.so").write_bytes(b"one")
    first = tuned._build("cuda")
    (tmp_path / "module.so").write_bytes(b"two")
    assert first != tuned._build("cuda")
    assert tuned._build("reference") == ""
