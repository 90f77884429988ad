"""What all activations of one argument have in common: every kernel against the truth, PyTorch, layouts, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from activation_cases import ACTIVATIONS
from op_checks import LAYOUTS, draw, frozen, names, plant
from pointwise_checks import (
    EPS,
    GRADIENT_ULPS,
    check,
    check_against_pytorch,
    check_backward,
    check_central_differences,
    check_forward,
    check_layouts,
    check_nothing_is_copied,
    values,
)

import gpucnn
from gpucnn import functional as F
from gpucnn.ops import activation
from gpucnn.reference.common import select


@pytest.mark.parametrize("kind", ["normal", "special"])
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_kernel(name: str, dtype: str, kind: str) -> None:
    check_forward(ACTIVATIONS[name], dtype, kind)
    check_backward(ACTIVATIONS[name], dtype, kind)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_these_are_all_kernels(name: str) -> None:
    case = ACTIVATIONS[name]
    assert names(case.forward) == names(case.backward) == ["array"]


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (40,), (), (0, 3)], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_functions_are_pytorchs(name: str, shape: tuple[int, ...], torch: Any) -> None:
    for kind in ("normal", "special") if np.prod(shape) > 20 else ("normal",):
        check_against_pytorch(ACTIVATIONS[name], shape, kind, torch)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_are_central_differences(name: str) -> None:
    check_central_differences(ACTIVATIONS[name])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_memory_layouts(name: str) -> None:
    for layout in LAYOUTS.values():
        check_layouts(ACTIVATIONS[name], layout)
    check_nothing_is_copied(ACTIVATIONS[name])


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", ["sigmoid", "gelu", "mish", "relu", "hardtanh", "elu"])
def test_blocks_and_threads_change_nothing(name: str, dtype: str, block_bytes: int) -> None:
    """Arrays of many blocks, of one row, and views that cannot be made flat."""
    case = ACTIVATIONS[name]
    x, dy = values(30, 41).astype(dtype), draw("normal", (30, 41), 1).astype(dtype)
    for view in (lambda a: a, lambda a: a[:, ::2], lambda a: a.T, lambda a: np.broadcast_to(a[:1], a.shape)):
        of_x, of_dy = view(x), view(dy)
        y = case.forward(case.problem, of_x, like=x)
        check(y, case.truth(of_x), dtype, "y", 4)
        dx = case.backward(case.problem, of_dy, frozen(y if case.saves_output else of_x), like=x)
        check(dx, case.truth_grad(of_dy, of_x), dtype, "dx", GRADIENT_ULPS[dtype])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_one_block_gives_the_bits_of_many(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = ACTIVATIONS[name]
    x, dy = values(3, 5, 7), draw("normal", (3, 5, 7), 1)
    found = []
    for block in (1 << 19, 100):
        monkeypatch.setattr("gpucnn.reference.common.BLOCK_BYTES", block)
        y = case.forward(case.problem, x, like=x)
        dx = case.backward(case.problem, dy, frozen(y if case.saves_output else x), like=x)
        assert y.shape == dx.shape == x.shape
        found.append(y.tobytes() + dx.tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("name", sorted({name.partition(" ")[0] for name in ACTIVATIONS} | {"glu"}))
def test_what_is_no_floating_tensor_is_refused(name: str) -> None:
    rest = (0.5, 1.0) if name == "threshold" else ()
    with pytest.raises(TypeError, match=f"^{name}: input must be a gpucnn.Tensor, got ndarray"):
        getattr(F, name)(np.ones(4), *rest)
    with pytest.raises(TypeError, match=f"^{name}: input must have a floating dtype, got int64"):
        getattr(F, name)(gpucnn.tensor(np.ones(4, np.int64)), *rest)


WRONG: list[tuple[str, str, str, Any]] = [  # case, pass, kind of numbers, kernel
    ("sigmoid", "forward", "special", lambda p, x: np.exp(x) / (1 + np.exp(x))),
    ("tanh", "forward", "normal", lambda p, x: x - x**3 / 3),
    ("tanh", "backward", "normal", lambda p, dy, y: dy * (1 - y)),
    ("logsigmoid", "forward", "special", lambda p, x: -np.log(1 + np.exp(-x))),
    ("softplus narrow", "backward", "normal", lambda p, dy, x: dy / (1 + np.exp(-x * p.beta))),
    ("hardsigmoid", "backward", "special", lambda p, dy, x: dy * (abs(x) <= 3) / x.dtype.type(6)),
    ("hardswish", "backward", "special", lambda p, dy, x: dy * np.clip(x / 3 + 0.5, 0, 1)),
    ("silu", "backward", "normal", lambda p, dy, x: dy / (1 + np.exp(-x))),
    ("mish", "forward", "special", lambda p, x: x * np.tanh(np.log(1 + np.exp(x))) * (x < 80)),
    ("gelu", "forward", "normal", lambda p, x: x / (1 + np.exp(-1.702 * x)).astype(x.dtype)),
    ("gelu tanh", "forward", "normal", lambda p, x: activation.gelu(p, x, like=x)),
    ("relu", "forward", "special", lambda p, x: np.where(x > 0, x, 0)),
    ("relu", "backward", "special", lambda p, dy, y: select(dy, y > 0)),
    ("relu", "backward", "normal", lambda p, dy, y: dy * (y > 0.5)),
    ("relu6", "backward", "special", lambda p, dy, y: dy * (y > 0)),
    ("hardtanh", "backward", "special", lambda p, dy, y: dy * ((y >= p.min_val) & (y <= p.max_val))),
    ("leaky_relu steep", "forward", "normal", lambda p, x: np.maximum(x, x * x.dtype.type(p))),
    ("leaky_relu flat", "forward", "special", lambda p, x: np.maximum(x, x * x.dtype.type(p))),
    ("leaky_relu folded", "backward", "special", lambda p, dy, x: np.where(x >= 0, dy, dy * x.dtype.type(p))),
    ("elu", "forward", "special", lambda p, x: np.maximum(x, 0) + np.exp(x) - 1),
    ("selu", "backward", "normal", lambda p, dy, y: np.where(y > 0, dy, dy * (y + 1)).astype(dy.dtype)),
    ("threshold", "forward", "special", lambda p, x: np.where(x < p.threshold, p.value, x).astype(x.dtype)),
    ("hardshrink", "forward", "special", lambda p, x: x * (abs(x) >= p)),
    ("softshrink", "forward", "normal", lambda p, x: x * (abs(x) > p)),
]


@pytest.mark.parametrize(("name", "direction", "kind", "wrong"), WRONG)
def test_a_wrong_kernel_is_caught(
    name: str, direction: str, kind: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = check_forward if direction == "forward" else check_backward
    table = getattr(ACTIVATIONS[name], direction)
    run(ACTIVATIONS[name], "float32", kind)
    with np.errstate(all="ignore"):
        plant(monkeypatch, table, wrong)
        with pytest.raises(AssertionError, match=f"{table} planted float32: .* elements are wrong"):
            run(ACTIVATIONS[name], "float32", kind)
