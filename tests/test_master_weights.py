"""Float32 copies of 16-bit parameters: the float32 update, rounded; steps too small for 16 bits; saved and restored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, SEED

import gpucnn
from gpucnn import Tensor, nn
from gpucnn.optim import SGD, Adam, AdamW
from gpucnn.testing import assert_equal
from gpucnn.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

NARROW = ("bfloat16", "float16")
MAKES: dict[str, Any] = {
    "sgd": lambda p, **o: SGD(p, 0.1, **o),
    "momentum": lambda p, **o: SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01, **o),
    "adam": lambda p, **o: Adam(p, 0.01, **o),
    "adamw": lambda p, **o: AdamW(p, 0.01, **o),
}


def drawn(*shape: int, dtype: str, stream: int = 0) -> np.ndarray:
    return np.random.default_rng([SEED, 61, stream, *shape]).standard_normal(shape).astype(dtype)


def trained(optimizer: Any, param: Tensor, steps: range, dtype: str) -> None:
    """The gradients are the same 16-bit numbers whatever the parameter's dtype."""
    for step in steps:
        param.grad = Tensor(drawn(*param.shape, dtype=dtype, stream=1 + step).astype(param.dtype))
        optimizer.step()


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("layout", ["nhwc", "nchw", "strided"])
def test_they_are_the_float32_update_and_parameters_are_it_rounded(name: str, dtype: str, layout: str) -> None:
    start = drawn(3, 2, 4, 5, dtype=dtype)
    narrow = Tensor(LAYOUTS[layout](start), requires_grad=True)
    wide = Tensor(start.astype(np.float32), requires_grad=True)
    optimizer = MAKES[name]([narrow], master_weights=True)
    trained(optimizer, narrow, range(6), dtype)
    trained(MAKES[name]([wide]), wide, range(6), dtype)
    assert_equal(optimizer.state[0]["master"], wide.numpy())
    assert_equal(narrow, wide.numpy().astype(dtype))


@pytest.mark.parametrize("dtype", NARROW)
def test_steps_too_small_for_sixteen_bits_add_up(dtype: str) -> None:
    for master_weights, moved in ((True, True), (False, False)):
        param = gpucnn.tensor([1.0], dtype, requires_grad=True)
        optimizer = SGD([param], lr=2.0**-14, master_weights=master_weights)
        for _ in range(2**9):
            param.grad = gpucnn.tensor([1.0], dtype)
            optimizer.step()
        assert_equal(param, np.array([1 - 2.0**-5 if moved else 1.0], dtype))


def test_float32_parameters_are_their_own() -> None:
    params = [gpucnn.tensor(drawn(3, dtype="float32"), d, requires_grad=True) for d in ("float32", "bfloat16")]
    optimizer = Adam(params, master_weights=True)
    for param in params:
        param.grad = gpucnn.ones_like(param)
    optimizer.step()
    assert [sorted(optimizer.state[n]) for n in range(2)] == [
        ["mean", "square", "step"],
        ["master", "mean", "square", "step"],
    ]


def test_a_group_may_have_them_and_another_not() -> None:
    a, b = (gpucnn.tensor(drawn(3, dtype="float16"), requires_grad=True) for _ in range(2))
    optimizer = SGD([{"params": [a], "master_weights": True}, {"params": [b]}], lr=0.1)
    a.grad, b.grad = gpucnn.ones_like(a), gpucnn.ones_like(b)
    optimizer.step()
    assert [sorted(optimizer.state.get(n, {})) for n in range(2)] == [["master"], []]


@pytest.mark.parametrize("name", MAKES)
def test_a_restored_optimizer_goes_on_with_the_same_bits(name: str, tmp_path: Any) -> None:
    start = drawn(2, 3, dtype="bfloat16")
    straight, first = (Tensor(start.copy(), requires_grad=True) for _ in range(2))
    undisturbed, optimizer = (MAKES[name]([p], master_weights=True) for p in (straight, first))
    trained(undisturbed, straight, range(6), "bfloat16")
    trained(optimizer, first, range(3), "bfloat16")
    save_checkpoint(tmp_path / "c.safetensors", Checkpoint({}, optimizer.state_dict()))
    for state in (optimizer.state_dict(), load_checkpoint(tmp_path / "c.safetensors").optimizer):
        second = Tensor(first.numpy().copy(), requires_grad=True)
        restored = MAKES[name]([second])  # what it is told by the state
        restored.load_state_dict(state)
        trained(restored, second, range(3, 6), "bfloat16")
        assert_equal(second, straight.numpy())
        assert_equal(restored.state[0]["master"], undisturbed.state[0]["master"])


def test_what_is_written_elsewhere_is_not_undone() -> None:
    param = gpucnn.tensor([1.0, 2.0, 3.0], "bfloat16", requires_grad=True)
    optimizer = SGD([param], lr=2.0**-10, master_weights=True)
    param.grad = gpucnn.ones_like(param)
    optimizer.step()
    with gpucnn.no_grad():
        param.copy_(gpucnn.tensor([1.0, 8.0, 3.0], "bfloat16"))
    optimizer.step()
    less = 2.0**-10
    assert_equal(optimizer.state[0]["master"], np.array([1 - 2 * less, 8 - less, 3 - 2 * less], np.float32))


def test_a_network_of_bfloat16_learns_with_them() -> None:
    gpucnn.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)).to("bfloat16")
    optimizer = Adam(model.parameters(), 0.01, master_weights=True)
    x = drawn(64, 4, dtype="float32")
    inputs, targets = gpucnn.tensor(x, "bfloat16"), gpucnn.tensor(np.abs(x).sum(1, keepdims=True), "float32")
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        with gpucnn.autocast("bfloat16"):
            loss = gpucnn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert {p.dtype.name for p in model.parameters()} == {"bfloat16"}
