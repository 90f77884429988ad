"""Layers of ResNet-50, and modules that plan for described GPUs."""

from __future__ import annotations

from typing import Any

from binding_checks import loaded

from gpucnn.problem import Conv2dProblem, conv2d_problem
from gpucnn.profile import DEVICES

RESNET = {
    "3x3 of 64": (64, 56, 64, 3, 1),
    "1x1, 64 to 256": (64, 56, 256, 1, 1),
    "1x1, 256 to 64": (256, 56, 64, 1, 1),
    "3x3 of 128, stride 2": (128, 56, 128, 3, 2),
    "3x3 of 128": (128, 28, 128, 3, 1),
    "3x3 of 256": (256, 14, 256, 3, 1),
    "1x1, 1024 to 2048, stride 2": (1024, 14, 2048, 1, 2),
    "3x3 of 512": (512, 7, 512, 3, 1),
}
"""Channels, cells, filters, taps and stride of layers of ResNet-50."""


def figures(name: str) -> tuple[float, ...]:
    device = DEVICES[name]
    rates = device.clock, device.l2_bytes, device.dram
    found: tuple[float, ...] = module().machine_of(*device.capability, device.multiprocessors, *rates)
    return found


def module() -> Any:
    return loaded("_simt_plain")


def layer(name: str, N: int = 32) -> Conv2dProblem:
    C, cells, K, taps, stride = RESNET[name]
    return conv2d_problem((N, C, cells, cells), (K, C, taps, taps), stride, taps // 2, 1, 1)


class Described:
    """A module that plans for a described GPU."""

    def __init__(self, name: str) -> None:
        self._figures = figures(name)

    def machine(self) -> tuple[float, ...]:
        return self._figures

    def product_plan(self, *arguments: Any, parts: int = 0) -> Any:
        return module().product_plan(*arguments, machine=self._figures, parts=parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(module(), name)
