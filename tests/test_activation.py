"""Activations: kernels against the truth, F.* and gradients against PyTorch, corners."""

from __future__ import annotations

from op_checks import names

from gpucnn.ops import activation as ops


def test_these_are_all_kernels() -> None:
    assert names(ops.tanh) == ["array"]
