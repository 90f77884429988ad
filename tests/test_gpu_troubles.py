"""What a GPU that is too old, and memory that is used up, do to a user's calls, on a stand-in for cupy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from op_checks import draw
from strict_cupy import StrictArray, strict_cupy

import gpucnn
from gpucnn import backend, extension
from gpucnn import functional as F
from gpucnn.testing import assert_equal

X, W = draw("normal", (2, 3, 6, 5)).astype(np.float32), draw("normal", (4, 3, 3, 3), 1).astype(np.float32)


def forget_what_is_there() -> None:
    backend.gpu_count.cache_clear()
    backend.default_backend.cache_clear()
    backend.runs_kernels.cache_clear()


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """One GPU, and the kernels built for it."""
    forget_what_is_there()
    module = strict_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(extension, "why_missing", lambda name="_cuda": None)
    monkeypatch.delenv("GPUCNN_BACKEND", raising=False)
    yield module
    forget_what_is_there()


def layer(device: str) -> list[np.ndarray]:
    """A convolution and its gradients."""
    x, w = (gpucnn.tensor(array, device=device, requires_grad=True) for array in (X, W))
    y = F.relu(F.conv2d(x, w, padding=1))
    y.sum().backward()
    assert x.grad is not None
    assert w.grad is not None
    return [np.array(tensor.numpy()) for tensor in (y, x.grad, w.grad)]


def test_a_gpu_too_old_for_the_kernels_computes_on_the_reference_and_says_so_once(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    properties = {"name": "Tesla T4", "compute_capability": (7, 5)}
    module = SimpleNamespace(device_count=lambda: (1, ""), device_properties=lambda device: properties)
    monkeypatch.setattr(extension, "require", lambda name="_cuda": module)
    expected = layer("cpu")
    for _ in range(3):
        for found, truth in zip(layer("cuda"), expected, strict=True):
            assert_equal(found, truth)
    assert [record.message for record in caplog.records] == [
        "cuda:0: Tesla T4 has compute capability 7.5, the kernels need 8.0; running on reference"
    ]


class Memory:
    """Of a GPU: every request fails until its pool has been freed, and so do `more` after that."""

    def __init__(self, cupy: Any, more: int) -> None:
        class OutOfMemoryError(MemoryError):
            pass

        self.error, self.full, self.more, self.freed = OutOfMemoryError, True, more, 0
        cupy.cuda.memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
        cupy.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=self.free, used_bytes=lambda: 123_456)
        allocate = cupy.empty

        def empty(shape: Any, dtype: Any) -> StrictArray:
            if self.full or self.more:
                self.more -= not self.full
                raise OutOfMemoryError("out of memory")
            return allocate(shape, dtype)

        cupy.empty = empty

    def free(self) -> None:
        self.full = False
        self.freed += 1


def test_memory_that_the_pool_holds_back_is_used(cupy: Any) -> None:
    expected = layer("cpu")
    with gpucnn.use_backend("reference"):
        memory = Memory(cupy, more=0)
        for found, truth in zip(layer("cuda"), expected, strict=True):
            assert_equal(found, truth)
    assert memory.freed == 1


def test_a_call_that_finds_no_memory_says_how_much_it_asked_for_and_the_next_one_works(cupy: Any) -> None:
    expected = layer("cpu")
    with gpucnn.use_backend("reference"):
        memory = Memory(cupy, more=1)
        with pytest.raises(
            MemoryError, match=r"^cuda:0 has no room for [1-9][\d,]* bytes \(float32 \(.*\)\), with"
        ) as caught:
            layer("cuda")
        assert "take a smaller batch, or free what is not needed any more" in str(caught.value)
        assert isinstance(caught.value.__cause__, memory.error)
        assert memory.freed == 1
        for found, truth in zip(layer("cuda"), expected, strict=True):
            assert_equal(found, truth)
