"""Whole networks train on the kernels alone, with the reference's losses; on a GPU without waiting for it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from binding_checks import needs_gpu
from op_checks import SEED

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn, optim
from gpucnn.backend import use_backend
from gpucnn.models.mobilenet_v2 import InvertedResidual
from gpucnn.testing import assert_close, assert_equal


def resnet20() -> tuple[nn.Module, optim.Optimizer]:
    model = models.build("resnet20", num_classes=10)
    return model, optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-4)


def mobilenet_v2_blocks() -> tuple[nn.Module, optim.Optimizer]:
    """One with a shortcut and one with a stride, and the network's end."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
        *(InvertedResidual(8, 8, 1, 6), InvertedResidual(8, 12, 2, 6)),
        *(nn.GlobalAvgPool2d(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 10)),
    )
    return model, optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)


def lenet5() -> tuple[nn.Module, optim.Optimizer]:
    model = models.lenet5(in_channels=3)
    return model, optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


NETWORKS: dict[str, tuple[Callable[[], tuple[nn.Module, optim.Optimizer]], int]] = {
    "resnet20": (resnet20, 8),
    "mobilenet_v2_blocks": (mobilenet_v2_blocks, 7),
    "lenet5": (lenet5, 28),
}
"""How to make it, and the height and width of its images."""


class Run:
    """A network that is trained on the same few images in every step."""

    def __init__(self, network: str, device: str = "cpu") -> None:
        build, size = NETWORKS[network]
        gpucnn.manual_seed(SEED)
        self.model, self.optimizer = build()
        self.model.to(device)  # in place: the optimiser's parameters
        rng = np.random.default_rng(SEED)
        self.images = gpucnn.tensor(rng.standard_normal((4, 3, size, size), dtype=np.float32), device=device)
        self.labels = gpucnn.tensor(rng.integers(0, 10, 4), device=device)
        gpucnn.manual_seed(SEED)

    def step(self) -> gpucnn.Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def losses(self, steps: int) -> list[float]:
        return [float(self.step().item()) for _ in range(steps)]


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_train_as_on_the_reference(simt: ModuleType, network: str) -> None:
    """The fixture is strict: nothing falls back."""
    if simt.flavour != "plain":
        pytest.skip("in the flavours with checkers each kernel is run by its own tests")
    with use_backend("reference"):
        expected = Run(network).losses(3)
    found = Run(network).losses(3)
    assert len(set(found)) == 3
    assert_close(np.array(found), np.array(expected), rtol=1e-5, atol=1e-5, name="losses")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_on_a_gpu_waits_for_nothing(network: str) -> None:
    """A step is recorded as a CUDA graph, which refuses whatever waits for the GPU; played back, it is that step."""
    cupy: Any = pytest.importorskip("cupy")
    with use_backend("cuda", strict=True), cupy.cuda.Stream(non_blocking=True) as stream:
        eager = Run(network, "cuda")
        expected = eager.losses(4)
        run = Run(network, "cuda")
        found = run.losses(3)  # the pool then holds all that a step takes
        gc.disable()
        try:
            stream.begin_capture()
            loss = run.step()
            graph = stream.end_capture()
        finally:
            gc.enable()
        graph.launch(stream)
        stream.synchronize()
        found.append(float(loss.item()))
        assert_equal(np.array(found), np.array(expected), name="losses")
        for (name, parameter), other in zip(run.model.named_parameters(), eager.model.parameters(), strict=True):
            assert_equal(parameter, other.numpy(), name=name)
