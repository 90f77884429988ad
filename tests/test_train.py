"""Training: a pure function of configuration and data, wherever it is interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.data import ArrayDataset, Normalize, load_mnist_sample
from gpucnn.models import googlenet, lenet5
from gpucnn.train import (
    CheckpointError,
    Evaluation,
    InterruptedRunError,
    NonFiniteLossError,
    Run,
    TrainConfig,
    Trainer,
    evaluate,
    load_checkpoint,
    recipe,
)
from gpucnn.train.trainer import training_loss

NORMALIZE = Normalize((0.13,), (0.31,))


@pytest.fixture(scope="module")
def digits() -> tuple[ArrayDataset, ArrayDataset]:
    train, test = load_mnist_sample(announce=lambda line: None)
    return train.subset(np.arange(200)), test.subset(np.arange(60))


class WithDropout(nn.Module):
    """Small, and with a random layer whose masks must survive an interruption."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Dropout(0.3), nn.Linear(4 * 6 * 6, 10)),
        )

    def forward(self, x: gpucnn.Tensor) -> gpucnn.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def trainer(folder: Path, digits: tuple[ArrayDataset, ArrayDataset], **options: Any) -> Trainer:
    config = TrainConfig(**{"epochs": 3, "batch_size": 32, "shift": 2, "flip": True, "lr": 0.02, **options})
    gpucnn.manual_seed(config.seed)
    run = Run.create(folder, overwrite=folder.exists())
    run.write_config(config.to_dict())
    return Trainer(config, run, WithDropout(), *digits, NORMALIZE)


def weights(trainer: Trainer) -> bytes:
    return b"".join(np.ascontiguousarray(p.numpy()).tobytes() for p in trainer.model.parameters())


@pytest.mark.parametrize("options", [{}, {"optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 0.5}])
def test_same_seed_same_bits(
    tmp_path: Path, digits: tuple[ArrayDataset, ArrayDataset], options: dict[str, Any]
) -> None:
    runs = [trainer(tmp_path / name, digits, **options, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    for each in runs:
        gpucnn.manual_seed(each.config.seed)
        each.model.load_state_dict(WithDropout().state_dict())
        each.fit()
    a, b, c = map(weights, runs)
    assert a == b
    assert a != c


def test_the_losses_of_auxiliary_classifiers_count_three_tenths() -> None:
    rng = np.random.default_rng(0)
    outputs = tuple(gpucnn.tensor(rng.standard_normal((4, 3)), requires_grad=True) for _ in range(3))
    labels = gpucnn.tensor([0, 2, 1, 1])
    logits, loss = training_loss(outputs, labels, 0.1)
    assert logits is outputs[0]
    parts = [F.cross_entropy(output, labels, label_smoothing=0.1).item() for output in outputs]
    assert loss.item() == pytest.approx(parts[0] + 0.3 * (parts[1] + parts[2]))
    alone = training_loss(outputs[0], labels, 0.1)
    assert (alone[0], alone[1].item()) == (outputs[0], pytest.approx(parts[0]))


def test_googlenet_trains_with_its_auxiliary_classifiers(
    tmp_path: Path, digits: tuple[ArrayDataset, ArrayDataset]
) -> None:
    small = tuple(part.subset(np.arange(24)) for part in digits)
    config = TrainConfig(model="googlenet", epochs=1, batch_size=8, lr=0.01)
    gpucnn.manual_seed(0)
    model = googlenet(num_classes=10, in_channels=1, width=1 / 16)
    before = model.aux2.fc2.weight.numpy().copy()
    run = Run.create(tmp_path / "run")
    run.write_config(config.to_dict())
    Trainer(config, run, model, *small, NORMALIZE).fit()
    assert not np.array_equal(model.aux2.fc2.weight.numpy(), before)
    assert len(list(run.read_metrics())) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("stop_after", [1, 6, 7, 8, 13])  # an epoch has 7 batches, the last one of 8 images
def test_interrupted_and_resumed_ends_with_the_bits_of_an_undisturbed_run(
    tmp_path: Path, digits: tuple[ArrayDataset, ArrayDataset], stop_after: int, optimizer: str
) -> None:
    whole = trainer(tmp_path / "whole", digits, optimizer=optimizer)
    whole.fit()
    first = trainer(tmp_path / "parts", digits, optimizer=optimizer)
    first.should_stop = lambda: first.at.step >= stop_after
    with pytest.raises(InterruptedRunError, match=f"step {stop_after}"):
        first.fit()
    gpucnn.manual_seed(12345)  # whatever a new process would start with
    second = Trainer(first.config, first.run, WithDropout(), *digits, NORMALIZE)
    second.resume()
    assert second.at.step == stop_after
    second.fit()
    assert weights(second) == weights(whole)
    rows, expected = second.run.read_metrics(), whole.run.read_metrics()
    timing = {"seconds", "images_per_second"}
    assert [{k: v for k, v in row.items() if k not in timing} for row in rows] == [
        {k: v for k, v in row.items() if k not in timing} for row in expected
    ]


def test_resuming_an_older_checkpoint_drops_the_metrics_after_it(
    tmp_path: Path, digits: tuple[ArrayDataset, ArrayDataset]
) -> None:
    whole = trainer(tmp_path / "run", digits)
    whole.fit()
    final = weights(whole)
    whole.run.checkpoint("last").write_bytes(whole.run.checkpoint("last").read_bytes()[:-1])
    again = Trainer(whole.config, whole.run, WithDropout(), *digits, NORMALIZE)
    with pytest.raises(CheckpointError, match="--checkpoint best or previous"):
        again.resume()
    again.resume("previous")
    assert [row["epoch"] for row in again.run.read_metrics()] == [1, 2]
    again.fit()
    assert [row["epoch"] for row in again.run.read_metrics()] == [1, 2, 3]
    assert weights(again) == final


def test_killed_before_the_first_epoch_ends_resumes_from_the_initial_weights(
    tmp_path: Path, digits: tuple[ArrayDataset, ArrayDataset]
) -> None:
    whole = trainer(tmp_path / "whole", digits)
    killed = trainer(tmp_path / "killed", digits)
    killed.save()
    whole.fit()
    resumed = Trainer(killed.config, killed.run, WithDropout(), *digits, NORMALIZE)
    resumed.resume()
    resumed.fit()
    assert weights(resumed) == weights(whole)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, digits: tuple[ArrayDataset, ArrayDataset]
) -> None:
    run = trainer(tmp_path / "run", digits)
    calls = 0

    def poison(x: gpucnn.Tensor) -> gpucnn.Tensor:
        nonlocal calls
        calls += 1
        y = run.model.layers(x)
        return y * float("nan") if calls == 13 else y  # 7 training and 1 evaluation batch an epoch: step 12

    run.model.forward = poison  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan at step 12 \(epoch 2\).*--lr"):
        run.fit()
    kept = load_checkpoint(run.run.checkpoint("last"))
    assert kept.progress["epoch"] == 1
    assert all(np.isfinite(value).all() for value in kept.model.values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, digits: tuple[ArrayDataset, ArrayDataset]) -> None:
    run = trainer(tmp_path / "run", digits)
    run.save()
    before = run.run.checkpoint("last").read_bytes()
    next(run.model.parameters()).data[0, 0, 0, 0] = np.inf
    with pytest.raises(NonFiniteLossError, match=r"layers\.0\.weight is no longer finite"):
        run.save()
    assert run.run.checkpoint("last").read_bytes() == before


def test_a_learning_rate_far_too_high_is_reported_not_trained_through(
    tmp_path: Path, digits: tuple[ArrayDataset, ArrayDataset]
) -> None:
    run = trainer(tmp_path / "run", digits, lr=1e20, schedule="constant")
    with pytest.raises(NonFiniteLossError, match="last good checkpoint is kept"):
        run.fit()


def test_it_learns(tmp_path: Path) -> None:
    train, test = load_mnist_sample(announce=lambda line: None)
    gpucnn.manual_seed(0)
    config = TrainConfig(epochs=2, shift=0)
    result = Trainer(config, Run.create(tmp_path), lenet5(), train, test, NORMALIZE)
    result.fit()
    rows = result.run.read_metrics()
    assert rows[-1]["test_accuracy"] > 0.9
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert [row["step"] for row in rows] == [63, 126]
    best = max(row["test_accuracy"] for row in rows)
    assert load_checkpoint(result.run.checkpoint("best")).progress["best_accuracy"] == best


def test_evaluate_counts_by_hand() -> None:
    class Identity(nn.Module):
        def forward(self, x: gpucnn.Tensor) -> gpucnn.Tensor:
            return x.flatten(1)

    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], np.float32).reshape(3, 2, 1, 1)
    labels = np.array([0, 1, 1])
    model = Identity().train()
    got = evaluate(
        model,
        [
            (gpucnn.tensor(logits[:2]), gpucnn.tensor(labels[:2])),
            (gpucnn.tensor(logits[2:]), gpucnn.tensor(labels[2:])),
        ],
    )
    expected = np.mean([np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0)), np.log1p(np.exp(3.0))])
    assert abs(got.loss - expected) <= 1e-6
    assert got.predicted.tolist() == [0, 1, 0]
    assert abs(got.error - 1 / 3) <= 1e-12
    assert got.confusion(2).tolist() == [[1, 0], [1, 1]]
    assert model.training
    assert isinstance(got, Evaluation)
    with pytest.raises(ValueError, match="at least one image"):
        evaluate(model, [])


def test_gpu_books_are_read_in_blocks_with_the_right_step(
    tmp_path: Path, digits: tuple[ArrayDataset, ArrayDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU losses are looked at every few steps only; the books must be those of looking at each."""
    each = trainer(tmp_path / "each", digits)
    each.fit()
    blocks = trainer(tmp_path / "blocks", digits)
    monkeypatch.setattr("gpucnn.train.trainer.READ_EVERY", 3)
    monkeypatch.setattr(blocks, "device", "pretend")
    monkeypatch.setattr(gpucnn.Tensor, "to", lambda self, *_, **__: self)
    blocks.fit()
    for a, b in zip(each.run.read_metrics(), blocks.run.read_metrics(), strict=True):
        assert (a["train_loss"], a["train_accuracy"]) == (b["train_loss"], b["train_accuracy"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sdg"}, "optimizer must be one of sgd, adam, adamw"),
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"lr": -1.0}, "lr must not be negative"),
        ({"lr": float("nan")}, "lr must not be negative"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        ({"label_smoothing": -0.1}, "label_smoothing must lie"),
    ],
)
def test_bad_configurations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)


def test_configuration_round_trip_and_recipes() -> None:
    config = TrainConfig(**recipe("lenet5", "mnist", 60_000))
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert config.epochs <= 20
    assert TrainConfig(**recipe("lenet5", "mnist", 4_000)).epochs > config.epochs
    with pytest.raises(ValueError, match="surplus"):
        TrainConfig.from_dict({**config.to_dict(), "surplus": 1})


def test_run_folders(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a")
    run.write_config({"x": 1})
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        Run.create(tmp_path / "a")
    run.append_metrics({"epoch": 1})
    assert Run.create(tmp_path / "a", overwrite=True).read_metrics() == []
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"
    with pytest.raises(FileNotFoundError, match="no run here"):
        Run.open(tmp_path / "b")
    assert Run.unused("a", tmp_path).name == "a-2"
    assert Run.unused("b", tmp_path).name == "b"
    with pytest.raises(ValueError, match="last, best, previous"):
        run.checkpoint("first")
    run.metrics.write_text('{"epoch": 1}\n{"epoch": 2, "tra')
    assert run.read_metrics() == [{"epoch": 1}]
