"""The command line: what a user types, what is printed, what is left behind, and with which exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.numpy import load_file
from small_mnist import TEST, TRAIN, write_small_mnist

from gpucnn.cli import main
from gpucnn.data import load_mnist_sample


def gpucnn(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def failed(*arguments: object) -> str:
    """The one line on standard error of a command that must fail."""
    result = gpucnn(*arguments)
    assert result.exit_code in (1, 2), result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_mnist(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> tuple[Path, str]:
    """A finished run and what its training printed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = gpucnn("train", "lenet5", "--data-dir", digits, "--epochs", 6, "--out", folder)
    assert result.exit_code == 0, result.output
    return folder, result.output


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_file(a / "last.safetensors"), load_file(b / "last.safetensors")
    return first.keys() == second.keys() and all(first[n].tobytes() == second[n].tobytes() for n in first)


# ------------------------------------------------------------------------------------------------------- train


def test_train_leaves_a_whole_run_folder(trained: tuple[Path, str]) -> None:
    folder, output = trained
    names = {path.name for path in folder.iterdir()}
    checkpoints = {"last.safetensors", "best.safetensors", "previous.safetensors"}
    pictures = {"training_curve.png", "confusion_matrix.png", "filters.png", "misclassified.png"}
    assert names == {"config.json", "metrics.jsonl", "report.html", *checkpoints, *pictures}
    for name in pictures:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 100
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    report = (folder / "report.html").read_text()
    assert report.count("data:image/png;base64,") == len(pictures)
    assert "http" not in re.sub(r"http-equiv", "", report)
    assert sum(f"epoch   {epoch}/6" in output for epoch in range(1, 7)) == 6


def test_train_ends_with_error_speed_and_report(trained: tuple[Path, str]) -> None:
    folder, output = trained
    error, speed, report = output.splitlines()[-3:]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    wrong = round((1 - rows[-1]["test_accuracy"]) * TEST)
    assert error == f"test error: {wrong / TEST:.2%} ({wrong} of {TEST} images)"
    assert re.fullmatch(r"training speed: [\d,]+ images/s \([\d.]+ s\)", speed)
    assert report == f"report: {folder / 'report.html'}"


def test_train_says_which_data_are_in_use(trained: tuple[Path, str], digits: Path) -> None:
    first = trained[1].splitlines()[0]
    assert str(digits) in first
    assert str(TRAIN) in first


def test_first_layer_of_a_trained_run_is_what_is_drawn(trained: tuple[Path, str]) -> None:
    assert load_file(trained[0] / "last.safetensors")["conv1.weight"].shape == (6, 1, 5, 5)


def test_run_folders_are_not_overwritten_unasked(trained: tuple[Path, str], digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    before = (folder / "last.safetensors").read_bytes()
    assert "--overwrite" in failed("train", "--data-dir", digits, "--epochs", 1, "--out", folder)
    assert (folder / "last.safetensors").read_bytes() == before
    assert gpucnn("train", "--data-dir", digits, "--epochs", 1, "--out", folder, "--overwrite").exit_code == 0


def test_default_folder_is_the_next_free_name(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert gpucnn("train", "--data-dir", digits, "--epochs", 1).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["lenet5-mnist", "lenet5-mnist-2"]


def test_without_matplotlib_there_is_a_report_without_pictures(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = gpucnn("train", "--data-dir", digits, "--epochs", 1, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "gpucnn[plot]" in result.output
    assert (tmp_path / "run" / "report.html").exists()
    assert not list((tmp_path / "run").glob("*.png"))


def test_lenet_trains_on_a_folder_of_colour_images(tmp_path: Path) -> None:
    root = tmp_path / "mnist"  # a folder may have a data set's name
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for label, colour in (("red", 0), ("blue", 2)):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 100, (40, 40, 3)).astype(np.uint8)
                pixels[..., colour] += 150
                Image.fromarray(pixels).save(root / split / label / f"{number}.png")
    result = gpucnn(
        *("train", "--data", root, "--size", 32, "--epochs", 20, "--batch-size", 4, "--out", tmp_path / "run")
    )
    assert result.exit_code == 0, result.output
    assert "test error: 0.00%" in result.output
    shown = gpucnn("predict", root / "test" / "red" / "0.png", "--run", tmp_path / "run", "--json", "--top", 1)
    assert list(json.loads(shown.output)["classes"]) == ["red"]
    assert gpucnn("eval", "--run", tmp_path / "run").exit_code == 0


# ---------------------------------------------------------------------------------------------- interruptions


def start(arguments: Sequence[object]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gpucnn", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"never printed {beginning!r}: {process.communicate()}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_interrupted_then_resumed_ends_with_the_same_weights(
    number: signal.Signals, digits: Path, tmp_path: Path
) -> None:
    arguments = ["train", "--data-dir", digits, "--epochs", 20]
    undisturbed = start([*arguments, "--out", tmp_path / "whole"])
    process = start([*arguments, "--out", tmp_path / "parts"])
    wait_for(process, "epoch   3/20")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert len(stderr.splitlines()) == 1, stderr
        assert f"go on with: gpucnn train --resume --run {tmp_path / 'parts'}" in stderr
    resumed = gpucnn("train", "--resume", "--run", tmp_path / "parts")
    assert resumed.exit_code == 0, resumed.output
    assert undisturbed.communicate(timeout=120) is not None
    assert undisturbed.returncode == 0
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    assert (tmp_path / "parts" / "metrics.jsonl").read_text().count("\n") == 20


def test_a_truncated_checkpoint_is_refused_and_the_one_before_it_resumes(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    whole = (folder / "last.safetensors").read_bytes()
    (folder / "last.safetensors").write_bytes(whole[:-100])
    message = failed("train", "--resume", "--run", folder)
    assert "truncated" in message
    assert "--checkpoint best or previous" in message
    assert "truncated" in failed("eval", "--run", folder)
    assert gpucnn("train", "--resume", "--run", folder, "--checkpoint", "previous").exit_code == 0
    assert same_weights(folder, trained[0])


def test_resuming_a_finished_run_only_reports_again(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    result = gpucnn("train", "--resume", "--run", folder)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-3] == trained[1].splitlines()[-3]
    assert same_weights(folder, trained[0])


def test_a_diverging_run_says_at_which_step(digits: Path, tmp_path: Path) -> None:
    message = failed("train", "--data-dir", digits, "--lr", "1e20", "--out", tmp_path / "run")
    assert re.search(r"(at|after) step \d+ \(epoch 1\)|at step \d+ \(epoch", message)
    assert (tmp_path / "run" / "last.safetensors").exists()


# ------------------------------------------------------------------------------------------------ eval, predict


def test_eval_gives_the_error_that_training_ended_with(trained: tuple[Path, str]) -> None:
    folder, output = trained
    result = gpucnn("eval", "--run", folder)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == output.splitlines()[-3]
    summary = json.loads(gpucnn("eval", "--run", folder, "--json").stdout)
    assert f"test error: {summary['error']:.2%}" in result.output
    assert summary["images"] == TEST
    assert sorted(summary["recall"]) == list("0123456789")


def test_predict_names_classes_with_their_shares(trained: tuple[Path, str], tmp_path: Path) -> None:
    _, test = load_mnist_sample(announce=lambda line: None)
    paths = []
    for index in range(3):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(test.images[index, :, :, 0]).save(paths[-1])
    inverted = tmp_path / "inverted.png"
    Image.fromarray(255 - test.images[0, :, :, 0]).save(inverted)
    lines = gpucnn("predict", *paths, "--run", trained[0], "--top", 10, "--json").output.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["image"] for answer in answers] == [str(path) for path in paths]
    for answer in answers:
        shares = list(answer["classes"].values())
        assert abs(sum(shares) - 1) <= 1e-5
        assert shares == sorted(shares, reverse=True)
    again = json.loads(gpucnn("predict", inverted, "--invert", "--run", trained[0], "--top", 10, "--json").output)
    assert (
        again["classes"].keys() == answers[0]["classes"].keys()
    )  # a batch of one rounds differently from one of three
    assert all(abs(share - answers[0]["classes"][name]) <= 1e-5 for name, share in again["classes"].items())
    table = gpucnn("predict", paths[0], "--run", trained[0])
    assert f"{next(iter(answers[0]['classes']))} " in table.output


# ------------------------------------------------------------------------------------------------- info, help


def test_info_says_what_is_missing_and_the_remedy() -> None:
    facts = json.loads(gpucnn("info", "--json").output)
    assert set(facts["backends"]) == {"reference", "cuda", "simt"}
    assert facts["backends"]["reference"].startswith("usable")
    assert set(facts["simt"]) == {"plain", "race", "asan", "profile"}
    for text in (*facts["backends"].values(), *facts["simt"].values(), *facts["optional"].values()):
        assert text.startswith("usable") or re.match(r"\d", text) or re.search(r"pip|GPUCNN|gpucnn info|built", text), (
            text
        )
    assert "backends" in gpucnn("info").output


@pytest.mark.parametrize("command", [[], ["train"], ["eval"], ["predict"], ["info"]])
def test_every_option_has_help(command: list[str]) -> None:
    result = gpucnn(*command, "--help")
    assert result.exit_code == 0, result.output
    parameters = main.commands[command[0]].params if command else main.params
    assert all(parameter.help for parameter in parameters if isinstance(parameter, click.Option))


def test_help_and_version_need_no_heavy_libraries() -> None:
    code = (
        "import sys, gpucnn.cli.main as m\n"
        "heavy = {'matplotlib', 'PIL', 'pooch', 'requests', 'cupy', 'torch', 'threadpoolctl'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "lenet"], "unknown model 'lenet', there are: alexnet, "),
        (["train", "--data", "mnits"], "the nearest is mnist"),
        (["train", "--data", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (["train", "--optimizer", "sdg"], "'sdg' is not one of"),
        (["train", "--epochs", "0"], "epochs must be at least 1"),
        (["train", "--lr", "-1"], "lr must not be negative"),
        (["train", "--seed", "-1"], "seed must not be negative"),
        (["train", "--device", "gpu"], "device must be 'cpu', 'cuda' or 'cuda:<index>'"),
        (["train", "--backend", "simt"], "backend 'simt' can't be used: GPUCNN_SIMT_FLAVOUR=tsan: no such flavour"),
        (["train", "--resume"], "--resume needs --run"),
        (["train", "--run", "x"], "a new run's folder is --out"),
        (["train", "--resume", "--run", "x", "--lr", "0.1"], "leave out lr"),
        (["train", "--resume", "--run", "nothing-here"], "no run here"),
        (["eval", "--run", "nothing-here"], "no run here"),
        (["predict", "--run", "nothing-here"], "Missing argument"),
        (["predict", "nothing.png", "--run", "nothing-here"], "no run here"),
    ],
)
def test_bad_arguments_are_one_clear_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", "tsan")
    if "--epochs" in arguments or "--lr" in arguments or "--seed" in arguments:
        arguments = (
            [*arguments, "--data-dir", str(write_small_mnist(tmp_path / "digits"))]
            if "--run" not in arguments
            else arguments
        )
    assert message in failed(*arguments)
    assert not (tmp_path / "runs").exists()


def test_bad_images_are_refused_by_name(trained: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    assert "text.png" in failed("predict", tmp_path / "text.png", "--run", trained[0])
    assert "missing.png" in failed("predict", tmp_path / "missing.png", "--run", trained[0])


def test_a_damaged_configuration_is_refused(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    (folder / "config.json").write_text("{")
    assert "damaged" in failed("eval", "--run", folder)
    (folder / "config.json").write_text("{}")
    assert "not a configuration of gpucnn" in failed("eval", "--run", folder)


def test_a_run_is_not_resumed_on_other_data(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["data_dir"] = None
    config["options"]["data"] = "mnist-sample"
    (folder / "config.json").write_text(json.dumps(config))
    assert "the data are not those" in failed("train", "--resume", "--run", folder)


def test_a_run_on_the_carried_sample_resumes_whatever_the_network_says_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPUCNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    result = gpucnn("train", "--no-download", "--epochs", 1, "--out", folder)
    assert result.exit_code == 0, result.output
    assert json.loads((folder / "config.json").read_text())["options"]["data"] == "mnist-sample"

    def network(*arguments: object) -> None:
        raise AssertionError("the network was asked for data that the package carries")

    monkeypatch.setattr("gpucnn.data.mnist.fetch_files", network)
    for command in (["train", "--resume"], ["eval"]):
        again = gpucnn(*command, "--run", folder)
        assert again.exit_code == 0, again.output


def test_data_that_have_moved_are_the_same_data(digits: Path, tmp_path: Path) -> None:
    place, folder = tmp_path / "here", tmp_path / "run"
    shutil.copytree(digits, place)
    assert gpucnn("train", "--data-dir", place, "--epochs", 1, "--out", folder).exit_code == 0
    place.rename(tmp_path / "there")
    config = json.loads((folder / "config.json").read_text())
    config["data"]["data_dir"] = str(tmp_path / "there")
    (folder / "config.json").write_text(json.dumps(config))
    result = gpucnn("train", "--resume", "--run", folder)
    assert result.exit_code == 0, result.output
