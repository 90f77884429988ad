"""`autocast`: what is cast only once, how gradients come back, and where it is in force."""

from __future__ import annotations

import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from op_checks import SEED

import gpucnn
from gpucnn import Tensor, autocast, autograd, backend, nn
from gpucnn import functional as F
from gpucnn.ops.shape import Convert
from gpucnn.precision import autocast_dtype, autocasting
from gpucnn.testing import assert_close, assert_equal


def drawn(*shape: int, stream: int = 0) -> Tensor:
    numbers = np.random.default_rng([SEED, 33, stream, *shape]).standard_normal(shape).astype(np.float32)
    return gpucnn.tensor(numbers, requires_grad=True)


class counted_casts:
    """Counts conversions of the given tensors inside a block."""

    def __init__(self, *tensors: Tensor) -> None:
        self.of, self.casts = {id(tensor) for tensor in tensors}, 0

    def function(self, function: Any, inputs: Any, parameters: Any, ctx: Any, outputs: Any) -> None:
        self.casts += function is Convert and id(inputs[0]) in self.of

    def module(self, module: Any, inputs: Any, options: Any) -> Any:
        return module.forward(*inputs, **options)

    def __enter__(self) -> counted_casts:
        self.block = autograd.observed_by(self)
        self.block.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.block.__exit__(None, None, None)


def check_explicit_casts() -> None:
    """Outputs and gradients of a small graph have the bits of one with all casts written out."""
    x, w, b = drawn(2, 4, 6, 6), drawn(8, 4, 3, 3), drawn(8)
    with autocast("bfloat16"):
        loss = F.softmax(F.conv2d(x, w, b), 1).square().mean()
    loss.backward()
    x2, w2, b2 = (gpucnn.tensor(t.numpy(), requires_grad=True) for t in (x, w, b))
    y = F.conv2d(x2.to("bfloat16"), w2.to("bfloat16"), b2.to("bfloat16")).to("float32")
    F.softmax(y, 1).square().mean().backward()
    for mine, truth in ((x, x2), (w, w2), (b, b2)):
        assert mine.grad is not None
        assert truth.grad is not None
        assert_equal(mine.grad, truth.grad.numpy())


def test_it_computes_what_explicit_casts_compute() -> None:
    with backend.use_backend("reference"):
        check_explicit_casts()


def test_the_kernels_compute_what_explicit_casts_compute(simt: Any) -> None:
    check_explicit_casts()


def network() -> nn.Sequential:
    gpucnn.manual_seed(3)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    )


def test_a_parameter_is_cast_once_until_it_changes_or_the_outermost_block_ends() -> None:
    model, x = network(), drawn(2, 3, 4, 4)
    weight = model[0].weight
    optimizer = gpucnn.optim.SGD(model.parameters(), 0.1)
    with counted_casts(weight) as counted:
        for block in range(1, 3):
            with autocast("bfloat16"):
                for _ in range(3):
                    with autocast("bfloat16"):
                        loss = model(x).sum()
            assert counted.casts == block
        assert autocasting.casts == {}
        loss.backward()
        with autocast("bfloat16"):
            model(x)
            assert counted.casts == 3
            optimizer.step()
            y = model(x)
            assert counted.casts == 4
            weight.data = weight.data.copy()
            model(x)
            assert counted.casts == 5
            model.load_state_dict(model.state_dict())
            model(x)
            assert counted.casts == 6
        with autocast("bfloat16"):
            assert_equal(model(x), y.numpy())


def test_no_stale_cast_is_used() -> None:
    model, x = nn.Linear(3, 2), drawn(4, 3)
    with autocast("float16"):
        before = model(x)
        with gpucnn.no_grad():
            model.weight.copy_(2 * model.weight)
            model.bias.copy_(2 * model.bias)
        assert_close(model(x), 2 * before.numpy().astype(np.float32), rtol=1e-3, atol=1e-3, dtype="float16")


def test_a_cast_made_without_recording_does_not_cut_the_gradient_off() -> None:
    model, x = network(), drawn(2, 3, 4, 4)
    with autocast("bfloat16"):
        with gpucnn.no_grad():
            model(x)
        loss = model(x).sum()
        with gpucnn.no_grad():
            assert not model(x).requires_grad
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == np.float32 for p in model.parameters())


def test_several_losses_go_back_through_one_cast_one_after_another() -> None:
    grads = []
    for together in (True, False):
        layer, first, second = nn.Linear(3, 2), drawn(4, 3), drawn(4, 3, stream=1)
        gpucnn.nn.init.ones_(layer.weight)
        with autocast("bfloat16"), counted_casts(layer.weight) as counted:
            a, b = layer(first).sum(), layer(second).sum()
            if together:
                (a + b).backward()
            else:
                a.backward()
                b.backward()
                layer(first)
        assert counted.casts == 1
        assert layer.weight.grad is not None
        grads.append(layer.weight.grad.numpy())
    assert_close(grads[0], grads[1], rtol=2**-7, atol=2**-7)


def test_what_was_frozen_after_its_cast_gets_no_gradient() -> None:
    layer, x = nn.Linear(3, 2), drawn(4, 3)
    with autocast("bfloat16"):
        layer(x)
        layer.requires_grad_(False)
        loss = layer(x).sum()
    loss.backward()
    assert layer.weight.grad is None
    assert x.grad is not None


def test_parameters_stay_float32() -> None:
    model, x = network(), drawn(2, 3, 4, 4)
    optimizer = gpucnn.optim.Adam(model.parameters(), 0.1)
    before = [p.numpy().copy() for p in model.parameters()]
    with autocast("bfloat16"):
        loss = F.cross_entropy(model(x), np.array([0, 1]))
    loss.backward()
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert parameter.dtype == np.float32
        assert (parameter.numpy() != old).any()


# ------------------------------------------------------------------------------------------------- where it is in force


def in_force() -> str | None:
    dtype = autocast_dtype()
    return None if dtype is None else dtype.name


def test_blocks_nest_and_end_also_by_an_error() -> None:
    x, w = drawn(2, 3), drawn(4, 3)
    assert in_force() is None
    with autocast("bfloat16"):
        assert F.linear(x, w).dtype.name == "bfloat16"
        with autocast("float16"):
            assert F.linear(x, w).dtype.name == "float16"
            with autocast(enabled=False):
                assert F.linear(x, w).dtype.name == "float32"
                with pytest.raises(TypeError, match="dtype"):
                    F.linear(x.to("float16"), w)
        with pytest.raises(ZeroDivisionError), autocast("float16"):
            raise ZeroDivisionError
        assert in_force() == "bfloat16"
    assert in_force() is None
    with pytest.raises(TypeError, match="dtype"):
        F.linear(x.to("float16"), w)


def test_it_decorates_functions_also_recursive_ones() -> None:
    x, w = drawn(2, 3), drawn(4, 3)

    @autocast("float16")
    def apply(times: int) -> list[str | None]:
        """Doc."""
        found = [F.linear(x, w).dtype.name]
        return found if times == 0 else [*apply(times - 1), in_force()]

    assert apply(2) == ["float16"] * 3
    assert apply.__doc__ == "Doc."
    assert in_force() is None
    shared = autocast("bfloat16")
    with shared, shared:
        assert in_force() == "bfloat16"
    assert in_force() is None


def test_it_is_of_its_thread() -> None:
    found: dict[str, str | None] = {}
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        found["at first"] = in_force()
        with autocast("float16"):
            found["its own"] = in_force()
            inside.set()
            done.wait(10)

    with autocast("bfloat16"):
        thread = threading.Thread(target=work)
        thread.start()
        inside.wait(10)
        found["mine"] = in_force()
        done.set()
        thread.join()
    assert found == {"at first": None, "its own": "float16", "mine": "bfloat16"}


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float16"), ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)])
def test_dtypes_are_taken_as_objects_too(dtype: Any) -> None:
    with autocast(dtype):
        assert autocast_dtype() == np.dtype(dtype)


@pytest.mark.parametrize(
    ("dtype", "shown"),
    [("float32", "float32"), ("half", "half"), (np.float64, "float64"), (None, "None"), (16, "16"), ("", "")],
)
@pytest.mark.parametrize("enabled", [True, False])
def test_other_dtypes_are_refused(dtype: Any, shown: str, enabled: bool) -> None:
    with pytest.raises(ValueError, match=f"^autocast: dtype must be 'bfloat16' or 'float16', got '{shown}'$"):
        autocast(dtype, enabled=enabled)
