"""Checkpoints: what goes in comes out, writing is all or nothing, and damage is refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpucnn.train import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint


def example(value: float = 1.0) -> Checkpoint:
    weight = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2).transpose(0, 3, 1, 2) + value  # not contiguous
    return Checkpoint(
        model={"conv.weight": weight, "count": np.array(3, np.int64)},
        optimizer={
            "state": {0: {"step": 7, "mean": weight * 2}, 2: {"velocity": np.zeros(3, np.float64)}},
            "param_groups": [{"lr": 0.1, "betas": [0.9, 0.999], "params": [0, 1, 2]}],
        },
        progress={"epoch": 3, "nested": {"list": [1, 2.5, None]}},
    )


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, example())
    got, expected = load_checkpoint(path), example()
    assert got.progress == expected.progress
    assert got.optimizer["param_groups"] == expected.optimizer["param_groups"]
    assert got.optimizer["state"][0]["step"] == 7
    pairs = [
        (got.model["conv.weight"], expected.model["conv.weight"]),
        (got.model["count"], expected.model["count"]),
        (got.optimizer["state"][0]["mean"], expected.optimizer["state"][0]["mean"]),
        (got.optimizer["state"][2]["velocity"], expected.optimizer["state"][2]["velocity"]),
    ]
    for actual, wanted in pairs:
        assert actual.dtype == wanted.dtype
        assert actual.tobytes() == np.ascontiguousarray(wanted).tobytes()
        assert actual.shape == wanted.shape


def test_any_safetensors_reader_finds_the_models_own_names(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.safetensors", example())
    names = set(load_file(tmp_path / "last.safetensors"))
    assert {"conv.weight", "count"} < names
    assert all(name.startswith("__optimizer__.") for name in names - {"conv.weight", "count"})


def test_same_content_same_bytes(tmp_path: Path) -> None:
    for name in "abcd":
        save_checkpoint(tmp_path / name, example())
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_the_file_before_is_kept(tmp_path: Path) -> None:
    last, previous = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"
    for value in (1.0, 2.0, 3.0):
        save_checkpoint(last, example(value), keep_previous_as=previous)
    assert load_checkpoint(last).model["conv.weight"].flat[0] == 3.0
    assert load_checkpoint(previous).model["conv.weight"].flat[0] == 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.safetensors", "previous.safetensors"]


@pytest.mark.parametrize("failing_call", ["os.fsync", "os.link", "first os.replace", "second os.replace"])
def test_a_write_that_fails_leaves_a_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: str
) -> None:
    last, previous = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"
    save_checkpoint(last, example(1.0), previous)
    name = failing_call.split(".")[-1]
    original, calls = getattr(os, name), []

    def fail(*arguments: object) -> object:
        calls.append(arguments)
        if failing_call.startswith("second") and len(calls) == 1:
            return original(*arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(last, example(2.0), previous)
    monkeypatch.undo()
    assert load_checkpoint(last).model["conv.weight"].flat[0] == 1.0
    save_checkpoint(last, example(3.0), previous)
    assert load_checkpoint(last).model["conv.weight"].flat[0] == 3.0
    assert load_checkpoint(previous).model["conv.weight"].flat[0] == 1.0


def test_truncation_anywhere_is_refused_and_names_what_is_left(tmp_path: Path) -> None:
    last, previous = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"
    save_checkpoint(last, example(1.0), previous)
    save_checkpoint(last, example(2.0), previous)
    whole = last.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    for length in (0, 1, 7, 8, 9, header, 8 + header - 1, 8 + header, len(whole) // 2, len(whole) - 1):
        last.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"last\.safetensors: damaged or truncated.*--checkpoint previous"):
            load_checkpoint(last)
    assert load_checkpoint(previous).model["conv.weight"].flat[0] == 1.0


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.zeros(2, np.float32)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of gpucnn"):
        load_checkpoint(path)
    save_file({"weight": np.zeros(2, np.float32)}, path, {"gpucnn-checkpoint": '{"version": 99}'})
    with pytest.raises(CheckpointError, match="checkpoint version 99"):
        load_checkpoint(path)
    path.write_bytes(b"\x80\x04 a pickle, say")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "nothing.safetensors")
