"""Training in mixed precision: float32's accuracy, the same bits after an interruption, float32 in the files."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from op_checks import SEED
from small_mnist import write_small_mnist

import gpucnn
from gpucnn import functional as F
from gpucnn import nn, optim
from gpucnn.cli import main
from gpucnn.data import ArrayDataset, Normalize, load_mnist_sample
from gpucnn.models import lenet5
from gpucnn.precision import autocast_dtype, float32_precision
from gpucnn.testing import assert_close
from gpucnn.train import InterruptedRunError, Run, TrainConfig, Trainer, evaluate, load_checkpoint
from gpucnn.train.evaluate import mixed

AMP = ("bfloat16", "float16")
NORMALIZE = Normalize((0.13,), (0.31,))


@functools.cache
def digits(train: int, test: int) -> tuple[ArrayDataset, ArrayDataset]:
    parts = load_mnist_sample(announce=lambda line: None)
    return parts[0].subset(np.arange(train)), parts[1].subset(np.arange(test))


def trainer(folder: Path, data: tuple[ArrayDataset, ArrayDataset], **options: Any) -> Trainer:
    config = TrainConfig(**{"batch_size": 32, "lr": 0.05, **options})
    gpucnn.manual_seed(config.seed)
    run = Run.create(folder, overwrite=folder.exists())
    run.write_config(config.to_dict())
    return Trainer(config, run, lenet5(), *data, NORMALIZE)


def state(trained: Trainer) -> bytes:
    return b"".join(np.ascontiguousarray(p.numpy()).tobytes() for p in trained.model.parameters())


MARGIN = 0.025
"""By which accuracy may be less than float32's: 12 of 500 digits, as far as two seeds lie apart."""


def test_lenet5_reaches_float32s_accuracy(tmp_path: Path) -> None:
    found = {}
    for amp in (None, *AMP):
        trained = trainer(tmp_path / str(amp), digits(2000, 500), epochs=4, amp=amp)
        trained.fit()
        found[amp] = evaluate(trained.model, trained.test_loader, "cpu", amp).accuracy
        assert {p.dtype.name for p in trained.model.parameters()} == {"float32"}
        float32 = evaluate(trained.model, trained.test_loader).accuracy
        assert abs(float32 - found[amp]) <= MARGIN
    assert found[None] > 0.85
    for amp in AMP:
        assert found[amp] >= found[None] - MARGIN, found


@pytest.mark.parametrize("amp", AMP)
@pytest.mark.parametrize("stop_after", [2, 7, 9])  # an epoch has 7 batches
def test_interrupted_and_resumed_ends_with_the_bits_of_an_undisturbed_run(
    tmp_path: Path, amp: str, stop_after: int
) -> None:
    data = digits(200, 40)
    whole = trainer(tmp_path / "whole", data, epochs=2, amp=amp)
    first = trainer(tmp_path / "parts", data, epochs=2, amp=amp)
    for each in (whole, first):
        each.scaler.load_state_dict({**optim.GradScaler(2.0**20, growth_interval=3).state_dict()})
    whole.fit()
    first.should_stop = lambda: first.at.step >= stop_after
    with pytest.raises(InterruptedRunError):
        first.fit()
    gpucnn.manual_seed(12345)  # whatever a new process would start with
    second = Trainer(first.config, first.run, lenet5(), *data, NORMALIZE)
    second.resume()
    assert second.scaler.state_dict() == first.scaler.state_dict()
    assert (amp == "bfloat16") == (second.scaler.state_dict() == {})
    second.fit()
    assert state(second) == state(whole)
    assert second.scaler.get_scale() == whole.scaler.get_scale()
    if amp == "float16":
        assert whole.scaler.get_scale() < 2.0**20  # it has backed off


def test_checkpoints_are_float32_and_the_configuration_says_what_it_was_trained_in(tmp_path: Path) -> None:
    for amp in AMP:
        trained = trainer(tmp_path / amp, digits(64, 20), epochs=1, amp=amp)
        trained.fit()
        checkpoint = load_checkpoint(trained.run.checkpoint("last"))
        assert {value.dtype.name for value in checkpoint.model.values()} == {"float32"}
        assert TrainConfig.from_dict(json.loads(trained.run.config.read_text())).amp == amp


def test_a_configuration_from_before_there_was_a_choice_is_float32() -> None:
    values = TrainConfig().to_dict()
    del values["amp"]
    assert TrainConfig.from_dict(values).amp is None


@pytest.mark.parametrize("amp", ["float32", "half", ""])
def test_other_dtypes_are_refused(amp: str) -> None:
    with pytest.raises(ValueError, match=f"^amp must be one of bfloat16, float16, tf32, got '{amp}'$"):
        TrainConfig(amp=amp)


def test_the_command_line_trains_evaluates_and_resumes_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, run = write_small_mnist(tmp_path / "data"), tmp_path / "run"
    seen: list[str | None] = []
    conv2d = F.conv2d

    def spy(input: gpucnn.Tensor, *rest: Any, **options: Any) -> Any:
        dtype = autocast_dtype()
        if len(input) > 1:  # the report's summary of the network takes one image
            seen.append(None if dtype is None else dtype.name)
        return conv2d(input, *rest, **options)

    monkeypatch.setattr(F, "conv2d", spy)
    runner = CliRunner()
    shared = ["--run", str(run)]
    trained = runner.invoke(
        main,
        [
            *("train", "lenet5", "--data-dir", str(data), "--no-download", "--out", str(run)),
            *("--epochs", "1", "--amp", "float16"),
        ],
    )
    assert trained.exit_code == 0, trained.output
    assert "in float16" in trained.output
    assert json.loads((run / "config.json").read_text())["options"]["amp"] == "float16"
    for command in (["eval", *shared, "--data-dir", str(data)], ["train", "--resume", *shared]):
        result = runner.invoke(main, command)
        assert result.exit_code == 0, result.output
    assert seen
    assert set(seen) == {"float16"}
    refused = runner.invoke(main, ["train", "--amp", "float32"])
    assert refused.exit_code == 2
    assert "'bfloat16', 'float16'" in refused.output
    kept = runner.invoke(main, ["train", "--resume", *shared, "--amp", "bfloat16"])
    assert kept.exit_code == 2
    assert "leave out amp" in kept.output


@pytest.mark.parametrize("amp", AMP)
def test_the_kernels_train_in_it_as_the_array_code_does(simt: Any, amp: str) -> None:
    runs = []
    for name in ("simt", "reference"):
        with gpucnn.use_backend(name, strict=True):
            gpucnn.manual_seed(SEED)
            model = nn.Sequential(
                *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)),
            )
            optimizer, scaler = optim.SGD(model.parameters(), 0.05, momentum=0.9), gpucnn.GradScaler(2.0**10)
            rng = np.random.default_rng([SEED, 71])
            images = gpucnn.tensor(rng.standard_normal((6, 3, 8, 8)), "float32")
            losses = []
            for _ in range(5):
                optimizer.zero_grad()
                with gpucnn.autocast(amp):
                    loss = F.cross_entropy(model(images), np.arange(6) % 5)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                losses.append(loss.item())
            runs.append(losses)
            assert scaler.get_scale() == 2.0**10
    assert runs[0][-1] < 0.8 * runs[0][0]
    assert all(map(math.isfinite, runs[0]))
    assert_close(np.array(runs[0]), np.array(runs[1]), rtol=0.03, atol=0.03)


def test_tf32_is_float32_at_high_precision_within_the_block() -> None:
    with mixed("tf32"):
        assert float32_precision() == "high"
        x, w = gpucnn.ones(1, 8, 4, 4), gpucnn.ones(8, 8, 1, 1)
        assert F.conv2d(x, w).dtype == np.float32
    assert float32_precision() == "highest"
    with pytest.raises(ZeroDivisionError), mixed("tf32"):
        1 / 0  # noqa: B018
    assert float32_precision() == "highest"
    with mixed(None):
        assert float32_precision() == "highest"


def test_a_network_trains_in_tf32(tmp_path: Path) -> None:
    trained = trainer(tmp_path / "tf32", digits(64, 20), epochs=1, amp="tf32")
    trained.fit()
    assert TrainConfig.from_dict(json.loads(trained.run.config.read_text())).amp == "tf32"
    assert float32_precision() == "highest"
