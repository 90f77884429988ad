"""What is called on each layer of the stack, in the names that gpucnn and PyTorch share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

OPS = ("relu", "add", "conv2d", "linear", "batch_norm", "cross_entropy", "lenet5")
"""What is called, on tensors so small that next to nothing is computed; "lenet5" is a step of training, batch 1."""

Run = Callable[[], Any]


def numbers(op: str, batch: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    """What the op is called with, by the names of arguments; both stacks get the same."""
    rng = np.random.default_rng(0)
    image, row = (batch, 4, 4, 4), (batch, 4)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "relu": {"input": image},
        "add": {"input": image, "other": image},
        "conv2d": {"input": image, "weight": (4, 4, 1, 1), "bias": (4,)},
        "linear": {"input": row, "weight": (4, 4), "bias": (4,)},
        "batch_norm": {"input": image, "weight": (4,), "bias": (4,)},
        "cross_entropy": {"input": row},
        "lenet5": {"images": (batch, 1, 28, 28)},
    }
    found: dict[str, np.ndarray[Any, Any]] = {
        name: rng.standard_normal(shape, np.float32) for name, shape in shapes[op].items()
    }
    if op in ("cross_entropy", "lenet5"):
        found["labels"] = np.ones(batch, np.int64)
    return found


@dataclass
class Calls:
    """What can be called: a function and a module, or a training step; and what gets gradients."""

    function: Run | None = None
    module: Run | None = None
    step: Run | None = None
    leaves: tuple[Any, ...] = ()


def calls(op: str, library: Any, F: Any, device: str, batch: int = 1) -> Calls:
    """Of `op`, one of OPS, in a library, gpucnn or torch, whose functions are F, on tensors on `device`."""
    nn = library.nn
    given = {name: library.tensor(array).to(device) for name, array in numbers(op, batch).items()}
    leaves = tuple([each.requires_grad_() for name, each in given.items() if name not in ("labels", "images")])
    if op == "lenet5":
        return _training(library, F, device, **given)
    x, weight, bias = (given.get(name) for name in ("input", "weight", "bias"))
    if op == "relu":
        return Calls(lambda: F.relu(x), partial(nn.ReLU(), x), leaves=leaves)
    if op == "add":
        other = given["other"]
        return Calls(lambda: x + other, leaves=leaves)
    if op == "cross_entropy":
        labels = given["labels"]
        loss = nn.CrossEntropyLoss()
        return Calls(lambda: F.cross_entropy(x, labels), lambda: loss(x, labels), leaves=leaves)
    made = {"conv2d": partial(nn.Conv2d, 4, 4, 1), "linear": partial(nn.Linear, 4, 4)}
    module = made.get(op, partial(nn.BatchNorm2d, 4))().to(device)
    module.load_state_dict({name: given[name].detach() for name in ("weight", "bias")}, strict=False)
    weight, bias = module.weight, module.bias
    leaves = (x, weight, bias)
    if op == "batch_norm":
        mean, var = module.running_mean, module.running_var
        return Calls(lambda: F.batch_norm(x, mean, var, weight, bias, True), lambda: module(x), leaves=leaves)
    function = getattr(F, op)
    return Calls(lambda: function(x, weight, bias), lambda: module(x), leaves=leaves)


def _training(library: Any, F: Any, device: str, images: Any, labels: Any) -> Calls:
    nn = library.nn

    class LeNet5(nn.Module):  # type: ignore[misc, name-defined]  # as in gpucnn.models, in both libraries' words
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
            self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            x = F.relu(self.fc1(x.flatten(1)))
            return self.fc3(F.relu(self.fc2(x)))

    model, rng = LeNet5(), np.random.default_rng(1)
    model.load_state_dict(
        {
            name: library.tensor(0.05 * rng.standard_normal(tuple(each.shape), np.float32))
            for name, each in model.state_dict().items()
        }
    )
    model = model.to(device)
    leaves = tuple(model.parameters())
    # At a rate of 0 every step is the first: one that learns ends in gradients so small that arithmetic slows down.
    optimizer = library.optim.SGD(leaves, lr=0.0, momentum=0.9, nesterov=True)

    def step() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return Calls(step=step, leaves=leaves)
