"""GradScaler: steps as if nothing had been scaled, none where a gradient is not finite, and PyTorch's scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from op_checks import SEED, plant

import gpucnn
from gpucnn import GradScaler, Tensor, backend
from gpucnn.ops import optim as ops
from gpucnn.optim import SGD, Adam, AdamW
from gpucnn.reference import optim as reference
from gpucnn.testing import assert_close, assert_equal

Make = Callable[[Any], Any]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: Adam(p, 0.01),
    "adamw": lambda p: AdamW(p, 0.01),
}


def numbers(*shape: int, stream: int = 0) -> np.ndarray:
    return np.random.default_rng([SEED, 41, stream, *shape]).standard_normal(shape)


def leaves(dtype: str = "float32") -> list[Tensor]:
    return [gpucnn.tensor(numbers(*s), dtype, requires_grad=True) for s in ((3, 4), (5,), ())]


def give(params: list[Tensor], step: int, factor: float = 1.0, spoilt: float | None = None) -> None:
    """Gradients that are the same in every run, times `factor`; one element may be infinite or NaN."""
    for number, param in enumerate(params):
        gradient = (numbers(*param.shape, stream=10 * step + number + 1).astype(np.float32) * factor).astype(
            param.dtype
        )
        if spoilt is not None and number == 1:
            gradient[3] = spoilt
        param.grad = Tensor(gradient)


def started(scaler: GradScaler) -> GradScaler:
    """As after scale(loss)."""
    scaler.scale(gpucnn.tensor(1.0))
    return scaler


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scale_that_is_a_power_of_two_changes_no_bit(name: str, dtype: str) -> None:
    plain, scaled = leaves(dtype), leaves(dtype)
    straight, optimizer = OPTIMIZERS[name](plain), OPTIMIZERS[name](scaled)
    scaler = started(GradScaler(2.0**7))
    for step in range(4):
        give(plain, step)
        straight.step()
        give(scaled, step, scaler.get_scale())
        if step == 2 and dtype != "float16":
            scaler.unscale_(optimizer)
            for a, b in zip(scaled, plain, strict=True):
                assert_equal(a.grad, b.grad)
        scaler.step(optimizer)
        scaler.update()
    for a, b in zip(scaled, plain, strict=True):
        assert_equal(a, b.numpy())


def test_scaled_losses_have_scaled_gradients_and_steps_are_those_of_the_loss() -> None:
    x = gpucnn.tensor(numbers(4, 3), "float32")
    runs = []
    for scaler in (GradScaler(2.0**10), GradScaler(enabled=False)):
        w = gpucnn.tensor(numbers(3, 2, stream=1), "float32", requires_grad=True)
        optimizer = SGD([w], lr=0.1)
        loss = (x @ w).square().mean()
        scaler.scale(loss).backward()
        runs.append((w.grad.numpy().copy(), w, loss.item()))
        scaler.step(optimizer)
        scaler.update()
    assert_equal(runs[0][0], runs[1][0] * np.float32(1024))
    assert_equal(runs[0][1], runs[1][1].numpy())
    several = GradScaler(4.0).scale([gpucnn.tensor(1.5), gpucnn.tensor([2.0], "float16")])
    assert [each.numpy().tolist() for each in several] == [6.0, [8.0]]
    assert several[1].dtype == np.float32


@pytest.mark.parametrize("spoilt", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("first", [True, False])
def test_an_overflow_changes_no_bit_and_halves_the_scale(name: str, spoilt: float, first: bool) -> None:
    params = leaves()
    optimizer = OPTIMIZERS[name](params)
    scaler = started(GradScaler(2.0**7, growth_interval=2))
    give(params, 0, scaler.get_scale())
    scaler.step(optimizer)
    scaler.update()
    before = [p.numpy().copy() for p in params]
    state = {n: {k: np.copy(v) for k, v in values.items() if k != "step"} for n, values in optimizer.state.items()}
    give(params, 1, scaler.get_scale(), spoilt)
    if first:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    for param, old in zip(params, before, strict=True):
        assert_equal(param, old)
    for number, values in state.items():
        for key, old in values.items():
            assert_equal(optimizer.state[number][key], old)
    assert scaler.state_dict() == {**scaler.state_dict(), "scale": 2.0**6, "_growth_tracker": 0}
    for scale in (2.0**6, 2.0**7):
        give(params, 2, scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == scale
    assert all((p.numpy() != old).any() for p, old in zip(params, before, strict=True))


def test_of_two_optimisers_the_one_with_the_overflow_stands_still_and_both_scales_fall() -> None:
    a, b = leaves(), leaves()
    first, second = SGD(a, 0.1), SGD(b, 0.1)
    scaler = started(GradScaler(8.0))
    give(a, 0)
    give(b, 0, spoilt=math.inf)
    before = [p.numpy().copy() for p in a]
    scaler.step(second)
    scaler.step(first)
    scaler.update()
    for moved, still, old in zip(a, b, before, strict=True):
        assert (moved.numpy() != old).any()
        assert_equal(still, old)
    assert scaler.get_scale() == 4.0


def test_a_pure_float16_network_loses_nothing_that_the_scale_saved() -> None:
    """2^-30 is 0 in float16; scaled it is a gradient, and the momentum in float32 keeps it."""
    param = gpucnn.tensor([0.0], "float16", requires_grad=True)
    optimizer = SGD([param], lr=2.0**20, momentum=0.9)
    scaler = started(GradScaler(2.0**16))
    param.grad = gpucnn.tensor([2.0**-14], "float16")
    with pytest.raises(ValueError, match="gradients of float16 are not divided in place"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert_equal(optimizer.state[0]["velocity"], np.array([2.0**-30], np.float32))
    assert_equal(param, np.array([-(2.0**-10)], np.float16))


def test_the_scale_stays_within_float32() -> None:
    params = leaves()
    optimizer, scaler = SGD(params, 0.1), started(GradScaler(2.0**127, growth_interval=1))
    give(params, 0, 0.0)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.state_dict() == {**scaler.state_dict(), "scale": 2.0**127, "_growth_tracker": 0}


@pytest.mark.peers
def test_scales_and_steps_are_pytorchs(torch: Any) -> None:
    mine = leaves()
    theirs = [torch.tensor(p.numpy().copy(), requires_grad=True) for p in mine]
    options = {"init_scale": 2.0**8, "growth_factor": 3.0, "backoff_factor": 0.25, "growth_interval": 3}
    scaler, other = GradScaler(**options), torch.amp.GradScaler("cpu", **options)
    optimizer, reference_optimizer = SGD(mine, 0.1, momentum=0.9), torch.optim.SGD(theirs, 0.1, momentum=0.9)
    rng = np.random.default_rng([SEED, 42])
    scaler.scale(gpucnn.tensor(1.0)), other.scale(torch.tensor(1.0))
    for step in range(40):
        spoilt = math.inf if rng.random() < 0.2 else None
        give(mine, step, scaler.get_scale(), spoilt)
        for a, b in zip(mine, theirs, strict=True):
            assert a.grad is not None
            b.grad = torch.tensor(a.grad.numpy().copy())
        if step % 3 == 0:
            scaler.unscale_(optimizer)
            other.unscale_(reference_optimizer)
        scaler.step(optimizer)
        other.step(reference_optimizer)
        scaler.update()
        other.update()
        assert scaler.state_dict() == other.state_dict()
        for a, b in zip(mine, theirs, strict=True):
            assert_close(a, b.detach(), rtol=1e-6, atol=1e-6)
    restored = GradScaler()
    restored.load_state_dict(other.state_dict())
    assert restored.state_dict() == other.state_dict()


def test_a_restored_scaler_goes_on_as_the_other() -> None:
    params = leaves()
    optimizer = SGD(params, 0.1)
    scaler = started(GradScaler(16.0, growth_interval=3))
    for step in range(2):
        give(params, step)
        scaler.step(optimizer)
        scaler.update()
    restored = GradScaler()
    restored.load_state_dict(scaler.state_dict())
    assert restored.state_dict() == scaler.state_dict()
    for each in (scaler, restored):
        started(each)
        give(params, 3)
        each.step(optimizer)
        each.update()
        assert each.get_scale() == 32.0
    scaler.update(5.0)
    assert scaler.get_scale() == 5.0
    assert started(scaler).get_scale() == 5.0
    assert GradScaler(enabled=False).state_dict() == {}


def test_where_it_is_not_enabled_nothing_happens() -> None:
    params, plain = leaves(), leaves()
    scaler, loss = GradScaler(enabled=False), gpucnn.tensor(2.0)
    assert scaler.scale(loss) is loss
    assert not scaler.is_enabled()
    optimizer, straight = SGD(params, 0.1), SGD(plain, 0.1)
    give(params, 0)
    give(plain, 0)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.step(optimizer)
    scaler.update()
    scaler.load_state_dict({})
    straight.step()
    straight.step()
    assert_equal(params[0], plain[0].numpy())
    assert scaler.get_scale() == 1.0


def test_an_optimiser_without_gradients_makes_no_step_and_no_trouble() -> None:
    params = leaves()
    optimizer, scaler = Adam(params), started(GradScaler(4.0, growth_interval=1))
    before = params[0].numpy().copy()
    scaler.step(optimizer)
    scaler.update()
    assert_equal(params[0], before)
    assert scaler.get_scale() == 8.0


def test_a_changed_gradient_is_seen_by_backward() -> None:
    x = gpucnn.tensor([2.0], requires_grad=True)
    x.grad = gpucnn.tensor([3.0])
    y = (x.grad.requires_grad_() * x.grad).sum()
    scaler = started(GradScaler(2.0))
    scaler.unscale_(SGD([x], 0.1))
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


MISUSE: list[tuple[str, Callable[[GradScaler, Any], Any], type[Exception], str]] = [
    ("step first", lambda s, o: s.step(o), RuntimeError, "no loss was scaled"),
    ("unscale first", lambda s, o: s.unscale_(o), RuntimeError, "no loss was scaled"),
    ("update first", lambda s, o: s.update(), RuntimeError, r"update\(\) without step\(\) or unscale_\(\)"),
    ("update twice", lambda s, o: (started(s).step(o), s.update(), s.update()), RuntimeError, r"update\(\) without"),
    ("two steps", lambda s, o: (started(s).step(o), s.step(o)), RuntimeError, r"step\(\) twice before update\(\)"),
    ("unscaled twice", lambda s, o: (started(s).unscale_(o), s.unscale_(o)), RuntimeError, r"unscale_\(\) twice"),
    ("unscaled late", lambda s, o: (started(s).step(o), s.unscale_(o)), RuntimeError, r"unscale_\(\) after step\(\)"),
    ("integers", lambda s, o: s.scale(gpucnn.tensor([1])), TypeError, "floating tensors, got a tensor of int64"),
    ("a number", lambda s, o: s.scale(1.5), TypeError, "floating tensors, got float"),
    ("new scale", lambda s, o: s.update(-1.0), ValueError, "new_scale must be positive and finite, got -1.0"),
    ("state", lambda s, o: s.load_state_dict({"scale": 2.0}), ValueError, "lacks growth_factor"),
    ("wrong state", lambda s, o: s.load_state_dict({**s.state_dict(), "scale": 0.0}), ValueError, "scale must be posi"),
    ("PyTorch's device", lambda s, o: GradScaler("cuda"), TypeError, "init_scale must be a number, got 'cuda'"),
    ("zero", lambda s, o: GradScaler(0.0), ValueError, "init_scale must be positive and finite, got 0.0"),
    ("beyond float32", lambda s, o: GradScaler(1e39), ValueError, "init_scale must be positive and finite"),
    ("no growth", lambda s, o: GradScaler(growth_factor=1.0), ValueError, "growth_factor must be more than 1"),
    ("no backoff", lambda s, o: GradScaler(backoff_factor=1.0), ValueError, "backoff_factor must lie between 0 and 1"),
    ("no steps", lambda s, o: GradScaler(growth_interval=0), ValueError, "growth_interval must be at least 1, got 0"),
    ("half a step", lambda s, o: GradScaler(growth_interval=1.5), TypeError, "growth_interval must be an integer"),
]


@pytest.mark.parametrize(("call", "error", "message"), [m[1:] for m in MISUSE], ids=[m[0] for m in MISUSE])
def test_misuse_is_refused(call: Any, error: type[Exception], message: str) -> None:
    params = leaves()
    give(params, 0)
    with pytest.raises(error, match=message), np.errstate(over="ignore"):
        call(GradScaler(), SGD(params, 0.1))


# ----------------------------------------------------------------------------------- wrong kernels must be caught


def finds_nothing(divides: bool, grads: Any, loss_scale: Any, found: Any) -> None:
    reference.unscale(divides, grads, loss_scale, np.zeros_like(found))


def forgets_the_last(divides: bool, grads: Any, loss_scale: Any, found: Any) -> None:
    reference.unscale(divides, grads[:-2], loss_scale, found)


def never_backs_off(p: Any, scale: Any, clean: Any, found: Any) -> Any:
    return reference.next_scale(p._replace(backoff=1.0), scale, clean, found)


@pytest.mark.parametrize("wrong", [finds_nothing, forgets_the_last, never_backs_off])
def test_a_wrong_kernel_is_caught(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, ops.next_scale if wrong is never_backs_off else ops.unscale, wrong)
    with backend.use_backend("reference"), pytest.raises(AssertionError):
        test_an_overflow_changes_no_bit_and_halves_the_scale("sgd", math.inf, True)
