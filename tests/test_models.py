"""Networks by name, and LeNet-5: its size, its shapes, and that it computes what the same network in PyTorch does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn
from gpucnn.models import LeNet5, build, build_for, lenet5
from gpucnn.testing import assert_close


def counts(model: nn.Module) -> dict[str, int]:
    return {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}


def test_lenet5_has_61706_parameters() -> None:
    model = lenet5()
    assert isinstance(model, LeNet5)
    assert counts(model) == {"conv1": 156, "conv2": 2416, "fc1": 48120, "fc2": 10164, "fc3": 850}
    assert sum(p.numel() for p in model.parameters()) == 61706
    assert {name: p.shape for name, p in model.named_parameters()} == {
        "conv1.weight": (6, 1, 5, 5),
        "conv1.bias": (6,),
        "conv2.weight": (16, 6, 5, 5),
        "conv2.bias": (16,),
        "fc1.weight": (120, 400),
        "fc1.bias": (120,),
        "fc2.weight": (84, 120),
        "fc2.bias": (84,),
        "fc3.weight": (10, 84),
        "fc3.bias": (10,),
    }


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize(
    ("size", "channels", "classes"), [(28, 1, 10), (32, 3, 10), (32, 1, 2), (30, 4, 1), (2, 1, 10)]
)
def test_shapes(size: int, channels: int, classes: int, batch: int) -> None:
    model = lenet5(num_classes=classes, in_channels=channels, image_size=size)
    logits = model(gpucnn.ones(batch, channels, size, size))
    assert (logits.shape, logits.dtype) == ((batch, classes), np.float32)
    logits.sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.shape == parameter.shape
        assert batch or not parameter.grad.numpy().any()


@pytest.mark.parametrize("size", [27, 31, 34, 64, 0, -28, 28.5])
def test_sizes_that_can_not_be_padded_to_32_are_refused(size: Any) -> None:
    with pytest.raises(ValueError, match=f"LeNet-5 takes images of 32x32 or evenly padded to it .*not of size {size}"):
        lenet5(image_size=size)


def test_images_that_are_not_the_networks_are_refused() -> None:
    model = lenet5()
    for shape, message in (((1, 3, 28, 28), "channels"), ((1, 1, 32, 32), "features"), ((28, 28), "N, C, H, W")):
        with pytest.raises(ValueError, match=message):
            model(gpucnn.ones(*shape))
    with pytest.raises(TypeError, match=r"input must be a gpucnn\.Tensor"):
        model(np.ones((1, 1, 28, 28), np.float32))


def test_networks_are_built_by_name() -> None:
    assert set(models.MODELS) >= {"lenet5"}
    model = build("lenet5", num_classes=7)
    assert isinstance(model, LeNet5)
    assert model.fc3.out_features == 7
    assert [build(name)(gpucnn.ones(1, 1, 28, 28)).shape for name in ("lenet5",)] == [(1, 10)]


@pytest.mark.parametrize("run", [build, lambda name: build_for(name, 10, (1, 28, 28))])
def test_unknown_names_get_the_list_and_the_nearest(run: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown model 'lenet', there are: .*lenet5.*; did you mean 'lenet5'"):
        run("lenet")
    with pytest.raises(ValueError, match=r"unknown model 'LeNet5', .*did you mean 'lenet5'"):
        run("LeNet5")
    with pytest.raises(ValueError, match=r"unknown model 'xyz', there are: [^;]*$"):
        run("xyz")


def test_networks_are_built_for_a_data_set() -> None:
    model = build_for("lenet5", 4, (3, 32, 32))
    assert model(gpucnn.ones(2, 3, 32, 32)).shape == (2, 4)
    assert build_for("lenet5", 10, (1, 28, 28))(gpucnn.ones(1, 1, 28, 28)).shape == (1, 10)
    with pytest.raises(ValueError, match="model 'lenet5' takes square images, these are 28 x 32"):
        build_for("lenet5", 10, (1, 28, 32))
    with pytest.raises(ValueError, match="not of size 64"):
        build_for("lenet5", 10, (3, 64, 64))


def test_the_same_seed_makes_the_same_network() -> None:
    def weights(seed: int) -> list[bytes]:
        gpucnn.manual_seed(seed)
        return [p.numpy().tobytes() for p in lenet5().parameters()]

    assert weights(3) == weights(3)
    assert all(a != b for a, b in zip(weights(3), weights(4), strict=True))


@pytest.mark.peers
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_outputs_and_gradients_are_pytorchs(torch: Any, size: int, channels: int, dtype: str) -> None:
    class Theirs(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(channels, 6, 5, padding=(32 - size) // 2)
            self.conv2 = torch.nn.Conv2d(6, 16, 5)
            self.fc1 = torch.nn.Linear(400, 120)
            self.fc2 = torch.nn.Linear(120, 84)
            self.fc3 = torch.nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            pool, relu = torch.nn.functional.max_pool2d, torch.relu
            x = pool(relu(self.conv2(pool(relu(self.conv1(x)), 2))), 2)
            return self.fc3(relu(self.fc2(relu(self.fc1(x.flatten(1))))))

    theirs = Theirs().to(getattr(torch, dtype))
    ours = lenet5(in_channels=channels, image_size=size).to(dtype)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    rng = np.random.default_rng(size)
    images, labels = rng.standard_normal((5, channels, size, size)).astype(dtype), rng.integers(0, 10, 5)
    x, y = gpucnn.tensor(images, requires_grad=True), torch.tensor(images, requires_grad=True)
    loss, their_loss = (
        F.cross_entropy(ours(x), labels),
        torch.nn.functional.cross_entropy(theirs(y), torch.tensor(labels)),
    )
    allowed = 1e-10 if dtype == "float64" else 1e-4
    assert_close(loss.numpy(), their_loss.detach().numpy(), rtol=allowed, atol=0)
    loss.backward()
    their_loss.backward()
    for name, mine, yours in [("x", x, y)] + [
        (name, p, q) for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True)
    ]:
        assert mine.grad is not None
        largest = float(np.abs(yours.grad.numpy()).max())
        assert_close(mine.grad.numpy(), yours.grad.numpy(), rtol=allowed, atol=allowed * largest, name=name)
