"""Activations; all in the order that memory has."""

from __future__ import annotations

from gpucnn.ops.elementwise import from_output
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import activation as reference


def _table(name: str) -> KernelTable:
    table = KernelTable(name, "forward")
    table.add("array", "reference", getattr(reference, name))
    return table


relu, sigmoid, tanh = (_table(name) for name in ("relu", "sigmoid", "tanh"))
relu_grad, sigmoid_grad, tanh_grad = (_table(name) for name in ("relu_grad", "sigmoid_grad", "tanh_grad"))

ReLU = from_output("ReLU", relu, relu_grad)
Sigmoid = from_output("Sigmoid", sigmoid, sigmoid_grad)
Tanh = from_output("Tanh", tanh, tanh_grad)
