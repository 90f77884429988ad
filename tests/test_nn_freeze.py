"""freeze() and what transfer learning needs of it: what is frozen stays bit for bit, what is put in later trains."""

from __future__ import annotations

import numpy as np
import pytest
from op_checks import SEED

import gpucnn
from gpucnn import functional as F
from gpucnn import nn


def network() -> nn.Sequential:
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())
    return nn.Sequential({"body": body, "head": nn.Linear(4 * 6 * 6, 3)})


def contents(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def train_steps(model: nn.Module, count: int = 3) -> None:
    optimizer = gpucnn.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        optimizer.zero_grad()
        x = gpucnn.tensor(rng.normal(3, 2, (5, 1, 6, 6)).astype(np.float32))
        F.cross_entropy(model.train()(x), rng.integers(0, 3, 5)).backward()
        optimizer.step()


def test_a_frozen_body_keeps_every_bit_and_the_new_head_trains() -> None:
    model = network()
    assert model.freeze() is model
    model.head = nn.Linear(4 * 6 * 6, 3)
    body, head = contents(model.body), contents(model.head)
    train_steps(model)
    assert contents(model.body) == body
    assert all(before != contents(model.head)[name] for name, before in head.items())
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    assert all(p.grad is None for p in model.body.parameters())


def test_frozen_modules_compute_as_in_evaluation_whatever_train_says() -> None:
    model = network()
    x = gpucnn.tensor(np.random.default_rng(SEED).normal(3, 2, (5, 1, 6, 6)).astype(np.float32))
    expected = model.eval()(x).numpy()
    model.freeze().train()
    assert not any(module.training for module in model.modules())
    assert model(x).numpy().tobytes() == expected.tobytes()
    model.head = nn.Linear(4 * 6 * 6, 3)
    model.train()
    assert [name for name, module in model.named_modules() if module.training] == ["head"]
    assert not model.eval().head.training


def test_unfreezing_a_part_trains_that_part() -> None:
    model = network().freeze()
    model.body[1].unfreeze()
    before = contents(model)
    train_steps(model)
    changed = {name for name, content in contents(model).items() if content != before[name]}
    parts = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert changed == {f"body.1.{part}" for part in parts}
    model.unfreeze()
    train_steps(model)
    assert all(content != before[name] for name, content in contents(model).items())


def test_a_group_learns_at_its_own_rate() -> None:
    model = network()
    groups = [{"params": model.body.parameters(), "lr": 0.0}, {"params": model.head.parameters()}]
    optimizer = gpucnn.optim.SGD(groups, lr=0.5)
    before = [p.numpy().copy() for p in model.parameters()]
    F.cross_entropy(model(gpucnn.ones(2, 1, 6, 6)), [0, 1]).backward()
    optimizer.step()
    *body, weight, bias = (np.array_equal(p.numpy(), old) for p, old in zip(model.parameters(), before, strict=True))
    assert (body, weight, bias) == ([True] * 4, False, False)


def test_freeze_says_no_to_what_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'fc'"):
        network().fc.freeze()
