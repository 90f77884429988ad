"""What takes the tests' arrays to a GPU and back (on_gpu.py), with the kernels for the CPU and planted bugs in its
place; and every public function with its tensors on the GPU, beside the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import on_gpu
import pytest
from binding_checks import devices, loaded
from kernel_checks import Memory, askew
from public_calls import CALLS, Maker

import gpucnn
from gpucnn.problem import pool2d_problem


def floats(claims: dict[str, Any], more: int = 0) -> Any:
    """The memory that an array interface speaks of, and `more` elements behind it."""
    size = int(np.prod(claims["shape"])) + more
    return np.frombuffer((ctypes.c_float * size).from_address(claims["data"][0]), np.float32)


def planted(binding: Callable[..., Any]) -> on_gpu.OnDevice:
    """A module of one binding, which gets the interfaces of its arrays."""

    def scale(*arrays: Any) -> None:
        binding(*(array.__array_interface__ for array in arrays))

    return on_gpu.OnDevice(SimpleNamespace(scale=scale, SimtError=RuntimeError, answer=42), on_gpu.Host())


def right(x: dict[str, Any], y: dict[str, Any]) -> None:
    floats(y)[:] = 2 * floats(x)


def past_the_end(x: dict[str, Any], y: dict[str, Any]) -> None:
    right(x, y)
    floats(y, more=1)[-1] = 0.0


def into_the_input(x: dict[str, Any], y: dict[str, Any]) -> None:
    right(x, y)
    floats(x)[2] = 9.0


def not_everything(x: dict[str, Any], y: dict[str, Any]) -> None:
    floats(y)[:-1] = 2 * floats(x)[:-1]


def run(binding: Callable[..., Any]) -> tuple[Any, Any]:
    memory = Memory()
    x, y = memory.given("x", np.arange(5.0)), memory.wanted("y", (5,))
    planted(binding).scale(x, y)
    memory.check("scale")
    return x, y


def test_what_is_computed_comes_back() -> None:
    _, y = run(right)
    assert y.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ("binding", "message"),
    [(past_the_end, "overwritten after the array"), (not_everything, "1 of 5 elements never written")],
)
def test_a_kernel_that_writes_elsewhere_or_not_at_all_is_seen(binding: Callable[..., Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        run(binding)


def test_a_changed_input_comes_back_changed() -> None:
    x, _ = run(into_the_input)
    assert x[2] == 9.0


def test_addresses_are_as_crooked_as_they_were_and_views_share_a_buffer() -> None:
    seen: list[int] = []
    array = askew(np.arange(8, dtype=np.float32))
    whole = np.zeros(64, np.float32)
    planted(lambda *given: seen.extend(claims["data"][0] for claims in given)).scale(array, whole, whole[16:])
    assert seen[0] % 256 == array.ctypes.data % 256
    assert seen[2] - seen[1] == 64


def test_what_is_too_large_to_be_computed_is_not_copied() -> None:
    seen: list[dict[str, Any]] = []
    huge = np.empty(on_gpu.LARGEST + 1, np.uint8)  # of which nobody touches a page
    planted(lambda *given: seen.extend(given)).scale(huge, np.ones(2, np.float32))
    assert [claims["shape"] for claims in seen] == [huge.shape, (2,)]
    assert seen[0]["data"][0] % 256 == huge.ctypes.data % 256
    assert floats(seen[1]).tolist() == [1.0, 1.0]


def test_what_is_no_array_goes_as_it_is_and_lists_are_followed() -> None:
    given: list[Any] = []
    module = SimpleNamespace(join=lambda *arguments, **named: given.extend([*arguments, named]), SimtError=RuntimeError)
    on_gpu.OnDevice(module, on_gpu.Host()).join([np.ones(2), None], "float32", stream=0)
    (first, nothing), word, named = given
    assert isinstance(first, on_gpu.Mirror)
    assert (nothing, word, named) == (None, "float32", {"stream": 0})
    assert planted(right).answer == 42


def test_an_error_of_the_kernels_is_the_callers() -> None:
    def fails(*given: Any) -> None:
        raise RuntimeError("misaligned")

    with pytest.raises(RuntimeError, match="misaligned"):
        planted(fails).scale(np.ones(2))


def test_kernels_give_the_same_bits_through_it() -> None:
    module = loaded("_simt_plain")
    p = pool2d_problem("max_pool2d", (2, 3, 6, 4), 2, 2, 0, 1, False)
    x = np.random.default_rng(0).standard_normal((2, 6, 4, 3), np.float32)
    found = []
    for each in (module, on_gpu.OnDevice(module, on_gpu.Host())):
        y = np.full((2, 3, 2, 3), np.nan, np.float32)
        each.max_pool2d_direct_fprop(p, "float32", x, y, None, 0)
        found.append(y)
    np.testing.assert_array_equal(*found)
    assert np.isfinite(found[0]).all()


# ------------------------------------------------------------------------------------ public functions on the device

ON_DEVICES = [pytest.param(("simt", "cpu"), id="simt")]
if devices and gpucnn.backend.gpu_count():
    ON_DEVICES.append(pytest.param(("cuda", "cuda:0"), id="cuda", marks=pytest.mark.gpu))
CLOSE = {"float32": 2e-4, "float16": 2e-2}
"""Of the largest number: kernels are held to tighter limits by tests of their own, here paths are."""


@pytest.fixture(params=ON_DEVICES)
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """A device, with its kernels in use."""
    backend, device = request.param
    if backend == "simt":
        loaded("_simt_plain")
    with gpucnn.use_backend(backend):
        yield device
    gpucnn.flags.reset()


def run_call(name: str, device: str, dtype: str) -> list[Any]:
    """The outputs of a call and the gradients of what it made."""
    gpucnn.manual_seed(3)
    maker = Maker(device, dtype)
    result = CALLS[name](maker)
    outputs = [output for output in (result if isinstance(result, tuple) else (result,)) if output is not None]
    for output in outputs:
        if output.requires_grad:
            output.backward(maker.values(output.shape), retain_graph=True)
    gradients = [leaf.grad for leaf in maker.leaves if leaf.grad is not None]
    assert all(str(tensor.device) == device for tensor in (*outputs, *gradients)), name
    return [np.array(tensor.numpy()) for tensor in (*outputs, *gradients)]


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("name", CALLS)
def test_a_public_function_gives_on_a_device_what_it_gives_on_the_cpu(name: str, dtype: str, place: str) -> None:
    found = run_call(name, place, dtype)
    with gpucnn.use_backend("reference"):
        expected = run_call(name, "cpu", dtype)
    assert len(found) == len(expected)
    for number, (ours, truth) in enumerate(zip(found, expected, strict=True)):
        assert (ours.shape, ours.dtype) == (truth.shape, truth.dtype)
        if truth.dtype.kind != "f":
            np.testing.assert_array_equal(ours, truth, err_msg=f"{name} {number}")
            continue
        wide, true = ours.astype(np.float64), truth.astype(np.float64)
        np.testing.assert_array_equal(np.isfinite(wide), np.isfinite(true), err_msg=f"{name} {number}")
        finite = np.isfinite(true)
        size = np.abs(true[finite]).max(initial=1.0)
        assert (np.abs(wide - true)[finite] <= CLOSE[dtype] * size).all(), f"{name} {number}"
