"""Update rules: not differentiable, so tables alone."""

from __future__ import annotations

from gpucnn.ops.registry import KernelTable
from gpucnn.reference import optim as reference
from gpucnn.reference.optim import AdamProblem, SGDProblem

__all__ = ["AdamProblem", "SGDProblem", "adam", "sgd"]

sgd = KernelTable("sgd", "step")
sgd.add("array", "reference", reference.sgd)

adam = KernelTable("adam", "step")
adam.add("array", "reference", reference.adam)
