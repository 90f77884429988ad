"""The device flag from end to end: what a kernel meets is told where a result is read, with its step, and until then
nothing is learnt."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS
from op_checks import draw

import gpucnn
from gpucnn import backend, flags, nn
from gpucnn import functional as F
from gpucnn.data import ArrayDataset, Normalize
from gpucnn.optim import SGD, Adam, AdamW, Optimizer
from gpucnn.testing import assert_equal
from gpucnn.train import NonFiniteLossError, Run, TrainConfig, Trainer, load_checkpoint

OPTIMIZERS: list[Any] = [lambda p: SGD(p, 0.1, momentum=0.9), lambda p: Adam(p, 0.1), lambda p: AdamW(p, 0.1)]


class Training:
    """Logits (6,5) that are learnt themselves: as small as a model gets."""

    def __init__(self, make: Any = OPTIMIZERS[0], dtype: str = "float32") -> None:
        self.logits = gpucnn.tensor(draw("normal", (6, 5)), dtype, requires_grad=True)
        self.optimizer: Optimizer = make([self.logits])

    def step(self, labels: Any = (0, 1, 2, 3, 4, 0), scale: float = 1.0) -> gpucnn.Tensor:
        loss = F.cross_entropy(self.logits * scale, np.array(labels))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def weights(self) -> np.ndarray:
        return self.logits.numpy().copy()


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["sgd", "adam", "adamw"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_bad_label_is_told_at_the_next_read_with_its_step(simt: ModuleType, make: Any, dtype: str) -> None:
    """Nothing has changed since; after a reset training goes on from there."""
    training = Training(make, dtype)
    losses = [training.step() for _ in range(3)]
    before = training.weights()
    losses.append(training.step([0, 1, 7, 3, 9, 0]))
    losses += [training.step() for _ in range(2)]
    assert_equal(training.weights(), before)
    for loss in losses:  # of steps before it too: a read is a read
        with pytest.raises(flags.BadInputError, match=r"row 2 .*met at step 4; the optimisers have changed nothing"):
            loss.item()
    with pytest.raises(ValueError, match="a label is neither a class nor to be ignored"):
        float(losses[0])
    assert_equal(training.weights(), before)
    flags.reset()
    losses[0].item()
    assert np.isfinite(training.step().item())
    assert (training.weights() != before).any()


def test_going_on_after_a_reset_has_the_bits_of_never_having_met_it(simt: ModuleType) -> None:
    straight, disturbed = Training(), Training()
    for number in range(6):
        straight.step()
        disturbed.step()
        if number == 2:
            disturbed.step([5] * 6)
            disturbed.step()
            with pytest.raises(flags.FlagError):
                flags.check(disturbed.logits.data)
            flags.reset(3)
    assert_equal(disturbed.weights(), straight.weights())
    assert flags.steps(straight.logits.data) == 3 + 6


def test_a_loss_that_is_not_finite_stops_learning(simt: ModuleType) -> None:
    training = Training()
    training.step()
    before = training.weights()
    loss = training.step(scale=float("inf"))
    training.step()
    assert_equal(training.weights(), before)
    with pytest.raises(flags.NonFiniteLossError, match=r"^the loss is infinite or NaN \(met at step 2;") as caught:
        loss.item()
    assert (caught.value.step, caught.value.place) == (2, 0)
    assert isinstance(caught.value, FloatingPointError)


def test_the_first_step_and_the_least_row_are_told(simt: ModuleType) -> None:
    for order in ORDERS:
        simt.set_order(order)
        flags.reset(10)
        training = Training()
        training.step([0, 0, 0, 0, -1, 5])
        training.step([-3] * 6)
        loss = training.step(scale=float("nan"))
        with pytest.raises(flags.BadInputError, match=r"row 4 of .* \(met at step 11;") as caught:
            loss.item()
        assert (caught.value.step, caught.value.place) == (11, 4)


def test_a_loss_that_nothing_is_learnt_from_may_be_infinite(simt: ModuleType) -> None:
    with gpucnn.no_grad():
        logits = gpucnn.tensor([[0.0, float("-inf")]], requires_grad=True)
        assert F.cross_entropy(logits, [1]).item() == float("inf")
    assert F.nll_loss(logits.detach(), [1]).item() == float("inf")
    unreduced = F.nll_loss(logits, [1], reduction="none")  # what comes of it is still to be seen
    assert unreduced.item() == float("inf")


def test_labels_are_looked_at_in_evaluation_too(simt: ModuleType) -> None:
    with gpucnn.no_grad():
        loss = F.cross_entropy(gpucnn.zeros(2, 3), [0, 3], reduction="sum")
    with pytest.raises(flags.BadInputError, match="row 1"):
        loss.item()


def test_where_array_code_runs_it_is_told_at_once(simt: ModuleType) -> None:
    """On the reference backend, and where an op falls to it."""
    for name, dtype in (("reference", "float32"), ("simt", "float64")):
        with backend.use_backend(name), pytest.raises(ValueError, match=r"label 5 at \(1,\) is outside \[0, 5\)"):
            F.cross_entropy(gpucnn.zeros(2, 5, dtype=dtype), [0, 5])
    assert flags.flag_if_any(np.empty(0)) is None or not flags.is_raised(np.empty(0))


def test_array_code_heeds_the_flag_that_a_kernel_raised(simt: ModuleType) -> None:
    """A float64 parameter beside a float32 loss."""
    with backend.use_backend("simt"):
        wide = gpucnn.tensor([1.0, 2.0], "float64", requires_grad=True)
        wide.grad = gpucnn.ones(2, dtype="float64")
        training = Training()
        training.optimizer = SGD([training.logits, wide], lr=0.1)
        loss = training.step([9] * 6)
        wide.grad = gpucnn.ones(2, dtype="float64")
        training.optimizer.step()
        assert wide.tolist() == [1.0, 2.0]
        assert flags.steps(wide.data) == 2
        with pytest.raises(flags.BadInputError, match="step 1"):
            loss.item()
        flags.reset()
        wide.grad = gpucnn.ones(2, dtype="float64")
        training.optimizer.step()
        assert_equal(wide, np.array([0.9, 1.9]))


def test_several_groups_and_dtypes_are_one_step(simt: ModuleType) -> None:
    training = Training()
    params = [gpucnn.zeros(3, dtype=dtype).requires_grad_() for dtype in ("float32", "float16", "float32")]
    for param in params:
        param.grad = gpucnn.ones(3, dtype=param.dtype)
    training.step()
    optimizer = SGD([{"params": params[:2]}, {"params": params[2:], "lr": 0.5}], lr=0.25)
    optimizer.step()
    assert flags.steps(params[0].data) == 2
    assert [param.tolist() for param in params] == [[-0.25] * 3, [-0.25] * 3, [-0.5] * 3]


def test_reading_costs_nothing_where_no_kernel_could_have_raised_it(monkeypatch: pytest.MonkeyPatch) -> None:
    flags.reset()

    def never(like: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(flags, "device_of", never)
    with backend.use_backend("reference"):
        assert gpucnn.tensor([2.0]).item() == 2
    with pytest.raises(ValueError, match="step must not be negative, got -1"):
        flags.reset(-1)


def test_a_network_learns_nothing_from_a_bad_batch(simt: ModuleType) -> None:
    with backend.use_backend("simt"):  # not strict: of the network only the loss and the optimiser matter here
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
        optimizer = SGD(model.parameters(), lr=0.1)
        images, labels = gpucnn.tensor(draw("normal", (5, 3, 2, 2)), "float32"), np.array([0, 1, 2, 3, 4])
        before = [p.numpy().copy() for p in model.parameters()]
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        for mine, truth in zip(model.parameters(), before, strict=True):
            assert_equal(mine, truth)
        with pytest.raises(flags.BadInputError, match=r"row 4 .*step 1"):
            loss.item()


def test_probabilities_and_indices_out_of_range(simt: ModuleType) -> None:
    with backend.use_backend("simt"):
        x = gpucnn.tensor([0.5, 0.25, 1.5, 2.0], requires_grad=True)
        loss = F.binary_cross_entropy(x, gpucnn.ones(4))
        with pytest.raises(flags.BadInputError, match=r"must lie in \[0, 1\], and element 2 in memory does not"):
            loss.item()
        flags.reset()
        loss = F.binary_cross_entropy(gpucnn.full((3,), 0.5), gpucnn.tensor([0.0, 1.0, -0.5]))
        with pytest.raises(flags.BadInputError, match="element 2"):
            loss.item()
        flags.reset()
        assert F.binary_cross_entropy(gpucnn.tensor([0.0, 1.0]), gpucnn.tensor([0.0, 1.0])).item() == 0
        pooled = gpucnn.ones(1, 1, 1, 2)
        for index in (-1, 8):
            y = F.max_unpool2d(pooled, gpucnn.tensor([[[[0, index]]]]), (2, 2))
            assert y.numpy().sum() == 1
            with pytest.raises(flags.BadInputError, match=r"max_unpool2d: index 1 in memory lies outside"):
                y.sum().item()
            flags.reset()
        F.max_unpool2d(pooled, gpucnn.tensor([[[[0, 7]]]]), (2, 2)).sum().item()


def test_regression_losses_are_watched(simt: ModuleType) -> None:
    with backend.use_backend("simt"):
        for function in (F.mse_loss, F.l1_loss, F.huber_loss, F.binary_cross_entropy_with_logits, F.kl_div):
            x = gpucnn.tensor([1.0, float("nan")], requires_grad=True)
            loss = function(x, gpucnn.ones(2))
            with pytest.raises(flags.NonFiniteLossError):
                loss.item()
            flags.reset()
            assert np.isnan(function(x.detach(), gpucnn.ones(2)).item())


class Linear(nn.Module):
    """Images of 2x2 to 3 classes; `spoilt` numbers the call from which on its logits are NaN."""

    def __init__(self, spoilt: int = 0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        self.calls, self.spoilt = 0, spoilt

    def forward(self, x: gpucnn.Tensor) -> gpucnn.Tensor:
        self.calls += 1
        y: gpucnn.Tensor = self.layers(x)
        return y * float("nan") if self.calls == self.spoilt else y


def trainer(folder: Path, model: Linear, labels: Any = None) -> Trainer:
    images = draw("normal", (24, 2, 2, 1)).astype(np.float32)
    train = ArrayDataset(images, np.arange(24) % 3, ("a", "b", "c"))
    test = ArrayDataset(images[:6], np.arange(6) % 3, ("a", "b", "c"))
    if labels is not None:
        object.__setattr__(train, "labels", labels)  # as a data set of the user's own might have them
    config = TrainConfig(epochs=2, batch_size=8, shift=0, lr=0.1, schedule="constant")
    return Trainer(config, Run.create(folder), model, train, test, Normalize((0.0,), (1.0,)))


def test_a_trainer_names_the_step_of_a_loss_that_is_not_finite(simt: ModuleType, tmp_path: Path) -> None:
    with backend.use_backend("simt"):
        run = trainer(tmp_path, Linear(spoilt=6))  # three steps and an evaluation an epoch
        with pytest.raises(NonFiniteLossError, match=r"the loss is infinite or NaN at step 5 \(epoch 2\).*--lr"):
            run.fit()
        assert load_checkpoint(run.run.checkpoint("last")).progress["step"] == 3
        again = trainer(tmp_path / "again", Linear())
        again.fit()  # what was raised before does not stop it
        assert again.at.step == 6


def test_a_resumed_trainer_counts_its_steps_on(simt: ModuleType, tmp_path: Path) -> None:
    with backend.use_backend("simt"):
        run = trainer(tmp_path, Linear(spoilt=6))
        with pytest.raises(NonFiniteLossError):
            run.fit()
        run.model.calls, run.model.spoilt = 0, 2  # type: ignore[assignment]
        run.resume()
        with pytest.raises(NonFiniteLossError, match="at step 5 "):
            run.fit()


def test_a_trainer_tells_of_bad_labels(simt: ModuleType, tmp_path: Path) -> None:
    labels = np.arange(24) % 3
    labels[:] = 3
    with backend.use_backend("simt"):
        run = trainer(tmp_path, Linear(), labels)
        before = [p.numpy().copy() for p in run.model.parameters()]
        with pytest.raises(flags.BadInputError, match=r"row 0 .*met at step 1;"):
            run.fit()
        for mine, truth in zip(run.model.parameters(), before, strict=True):
            assert_equal(mine, truth)
