"""Devices, libraries, memory and layout, and which backend computes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cupy import Device, FakeArray, fake_cupy

import gpucnn
from gpucnn import Tensor, backend, extension, use_backend
from gpucnn.backend import count_layout_copies, current_backend, is_strict
from gpucnn.ops.memory import reshape

IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
CHANNELS_LAST = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def forget_what_is_there() -> None:
    backend.gpu_count.cache_clear()
    backend.default_backend.cache_clear()
    backend.runs_kernels.cache_clear()


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """As if cupy were installed, with two GPUs, and the extension built."""
    forget_what_is_there()
    module = fake_cupy(devices=2)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(extension, "why_missing", lambda: None)
    monkeypatch.delenv("GPUCNN_BACKEND", raising=False)
    yield module
    forget_what_is_there()


@pytest.fixture
def no_cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget_what_is_there()
    monkeypatch.setitem(sys.modules, "cupy", None)
    yield
    forget_what_is_there()


# ---------------------------------------------------------------------------------------------------- devices


def test_devices_are_parsed() -> None:
    assert backend.parse_device("cpu") == ("cpu", 0)
    assert backend.parse_device("cuda") == ("cuda", 0)
    assert backend.parse_device("cuda:0") == ("cuda", 0)
    assert backend.parse_device("cuda:12") == ("cuda", 12)
    assert [backend.device_name(d) for d in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda:0", "cuda:1"]
    for wrong in ("", "gpu", "cuda:", "cuda:-1", "cuda:1.0", "cuda:a", "cuda0", "cpu:0", "CUDA", "cuda:1:2", 0, None):
        with pytest.raises(ValueError, match="device must be"):
            backend.parse_device(wrong)  # type: ignore[arg-type]


def test_an_array_stays_where_it_is() -> None:
    assert backend.device_of(IMAGES) == "cpu"
    assert backend.to_device(IMAGES, "cpu") is IMAGES
    assert backend.namespace(IMAGES) is np
    for wrong in ([1.0], 1.0, Tensor([1.0]), None):
        with pytest.raises(TypeError, match="expected a numpy or cupy array, got"):
            backend.namespace(wrong)


def test_without_cupy_a_gpu_is_refused_with_the_remedy(no_cupy: None) -> None:
    assert backend.gpu_count() == 0
    for run in (
        lambda: backend.to_device(IMAGES, "cuda"),
        lambda: gpucnn.tensor([1.0], device="cuda"),
        lambda: gpucnn.zeros(2, device="cuda:0"),
        lambda: gpucnn.tensor([1.0]).cuda(),
        lambda: gpucnn.nn.Linear(2, 2).to("cuda"),
    ):
        with pytest.raises(RuntimeError, match=r"need cupy, which is not installed: pip install 'gpucnn\[cuda13\]'"):
            run()


def test_a_cupy_that_can_not_be_loaded_is_not_called_missing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_what_is_there()
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(RuntimeError, match=r"can't be loaded \(libcudart.so"):
        backend.cupy()
    assert backend.gpu_count() == 0
    forget_what_is_there()


def test_arrays_of_a_gpu_are_told_apart(two_gpus: Any) -> None:
    array = FakeArray(IMAGES, 1)
    assert backend.namespace(array) is two_gpus
    assert backend.device_of(array) == "cuda:1"
    assert backend.gpu_count() == 2
    tensor = Tensor(array)
    assert tensor.data is array
    assert (tensor.device, tensor.shape) == ("cuda:1", (2, 3, 4, 5))
    assert tensor.to("cuda:1") is tensor
    assert isinstance(backend.empty((2,), np.float32, array), FakeArray)
    assert isinstance(backend.zeros((2,), np.float32, array), FakeArray)
    assert isinstance(backend.workspace((2,), np.dtype("float32"), array), FakeArray)


def test_arrays_travel_and_keep_the_order_of_their_axes(two_gpus: Any) -> None:
    for array in (IMAGES, CHANNELS_LAST):
        there = backend.to_device(array, "cuda:1")
        assert isinstance(there, FakeArray)
        assert there.device.id == 1
        assert np.array_equal(there.values, array)
        assert there.values.strides == array.strides
        for other, index in (("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)):
            moved = backend.to_device(there, other)
            assert moved.device.id == index
            assert (moved is there) == (index == 1)
            assert moved.values.strides == array.strides
        back = backend.to_device(there, "cpu")
        assert type(back) is np.ndarray
        assert np.array_equal(back, array)
        assert back.strides == array.strides
    assert Device.current == 0


def test_a_gpu_that_is_not_there_is_refused(two_gpus: Any) -> None:
    with pytest.raises(RuntimeError, match=r"'cuda:2' asked for, but 2 GPU\(s\) are usable; see `gpucnn info`"):
        backend.to_device(IMAGES, "cuda:2")
    two_gpus.cuda.is_available = lambda: False
    backend.gpu_count.cache_clear()
    with pytest.raises(RuntimeError, match="0 GPU"):
        backend.to_device(IMAGES, "cuda")


def test_operands_on_two_devices_are_refused(two_gpus: Any) -> None:
    with pytest.raises(ValueError, match="operands are on cpu and cuda:1; move one with to"):
        Tensor(IMAGES) + Tensor(FakeArray(IMAGES, 1))


# ----------------------------------------------------------------------------------------------------- memory


def test_orders_of_axes_are_recognised() -> None:
    assert backend.memory_order(CHANNELS_LAST) == backend.NHWC
    for array in (IMAGES, IMAGES[0], IMAGES[:, :, ::2], CHANNELS_LAST[:, 1:], IMAGES[:, :1], np.float32(1).reshape(())):
        assert backend.memory_order(array) is None
    assert backend.to_nhwc(CHANNELS_LAST).base is CHANNELS_LAST.base
    assert np.array_equal(backend.from_nhwc(backend.to_nhwc(IMAGES)), IMAGES)


def test_layout_copies_are_counted_and_views_are_not() -> None:
    with count_layout_copies() as copies:
        backend.to_nhwc(CHANNELS_LAST)
        backend.contiguous(IMAGES)
        reshape(IMAGES, (6, 20))
        reshape(CHANNELS_LAST, (2, 3, 20))
        reshape(IMAGES[:0], (0, 7))
        assert copies.value == 0
        backend.to_nhwc(IMAGES)
        assert copies.value == 1
        backend.contiguous(CHANNELS_LAST)
        reshape(CHANNELS_LAST, (120,))
        assert copies.value == 3
    backend.to_nhwc(IMAGES)
    assert copies.value == 3


def test_counts_nest_and_are_per_thread() -> None:
    backend.to_nhwc(IMAGES)
    with count_layout_copies() as outer:
        backend.to_nhwc(IMAGES)
        with count_layout_copies() as inner:
            backend.to_nhwc(IMAGES)
            thread = threading.Thread(target=backend.to_nhwc, args=(IMAGES,))
            thread.start()
            thread.join()
        backend.to_nhwc(IMAGES)
    assert (outer.value, inner.value) == (3, 1)


def test_a_network_copies_no_layout() -> None:
    images = gpucnn.tensor(np.zeros((2, 1, 28, 28), np.float32))
    model = gpucnn.models.lenet5()
    with count_layout_copies() as copies:
        gpucnn.functional.cross_entropy(model(images), [1, 2]).backward()
    # Flattening N,C,H,W in logical order needs one on the way in and one on the way back; nothing else does.
    assert copies.value == 2


def test_the_workspace_is_one_a_thread() -> None:
    first = backend.workspace((3, 4), np.dtype("float32"), IMAGES)
    again = backend.workspace((2, 2), np.dtype("float64"), IMAGES)
    assert (first.shape, first.dtype, again.shape, again.dtype) == ((3, 4), np.float32, (2, 2), np.float64)
    assert np.shares_memory(first, again)
    assert backend.workspace((0, 5), np.dtype("float16"), IMAGES).shape == (0, 5)
    larger = backend.workspace((1000,), np.dtype("float64"), IMAGES)
    larger[...] = 1
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(backend.workspace((4,), np.dtype("float32"), IMAGES)))
    thread.start()
    thread.join()
    assert not np.shares_memory(others[0], larger)


def test_sums_of_16_bits_are_kept_in_32() -> None:
    assert [backend.accumulator(np.dtype(d)) for d in ("float16", "float32", "float64")] == [
        "float32",
        "float32",
        "float64",
    ]


# ----------------------------------------------------------------------------------------- the backend in use


def test_use_backend_sets_when_called_and_scopes_with_with() -> None:
    before = current_backend()
    with use_backend("reference", strict=True) as outer:
        assert (current_backend(), is_strict()) == ("reference", True)
        with use_backend("reference"):
            assert not is_strict()
            use_backend("reference", strict=True)
            assert is_strict()
        assert is_strict()
    assert (current_backend(), is_strict()) == (before, False)
    with outer:
        assert is_strict()
    assert not is_strict()
    with pytest.raises(KeyError), use_backend("reference", strict=True):
        raise KeyError
    assert not is_strict()


def test_the_choice_is_per_thread() -> None:
    seen: list[Any] = []
    with use_backend("reference", strict=True):
        thread = threading.Thread(target=lambda: seen.append(is_strict()))
        thread.start()
        thread.join()
    assert seen == [False]


def test_backends_that_do_not_exist_are_refused() -> None:
    for name in ("numpy", "", "CUDA"):
        with pytest.raises(ValueError, match=f"unknown backend '{name}'; there are reference, cuda, simt"):
            use_backend(name)
    assert current_backend() in backend.BACKENDS


def test_backends_that_can_not_be_used_say_why(monkeypatch: pytest.MonkeyPatch, no_cupy: None) -> None:
    monkeypatch.setattr(extension, "why_missing", lambda: "not built: run make")
    with pytest.raises(RuntimeError, match="backend 'cuda' can't be used: not built: run make"):
        use_backend("cuda")
    monkeypatch.setattr(extension, "why_missing", lambda: None)
    with pytest.raises(RuntimeError, match="no usable GPU"):
        use_backend("cuda")
    assert not is_strict()
    assert current_backend() == "reference"


class GPU:
    """What the backend asks of the extension."""

    def __init__(self, capability: tuple[int, int] = (9, 0)) -> None:
        self.capability = capability

    def device_count(self) -> tuple[int, str]:
        return 1, ""

    def device_properties(self, device: int) -> dict[str, object]:
        return {"name": "Some GPU", "compute_capability": self.capability}


def test_cuda_is_the_default_where_it_can_be(two_gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "require", GPU)
    assert current_backend() == "cuda"
    with use_backend("reference"):
        assert current_backend() == "reference"
    backend.default_backend.cache_clear()
    monkeypatch.setattr(extension, "why_missing", lambda: "not built")
    assert current_backend() == "reference"
    backend.default_backend.cache_clear()
    monkeypatch.setenv("GPUCNN_BACKEND", "cuda")
    with pytest.raises(RuntimeError, match="GPUCNN_BACKEND=cuda: not built"):
        current_backend()
    monkeypatch.setattr(extension, "why_missing", lambda: None)
    assert current_backend() == "cuda"


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ("reference", {"reference"}),
        ("", {"reference", "cuda"}),
        ("numpy", {"ValueError: GPUCNN_BACKEND=numpy: no such backend; there are reference, cuda, simt"}),
    ],
    ids=["a backend", "empty", "no backend"],
)
def test_the_environment_chooses(value: str, answers: set[str]) -> None:
    code = "from gpucnn.backend import current_backend; print(current_backend())"
    environment = {**os.environ, "GPUCNN_BACKEND": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout + done.stderr).splitlines()[-1] in answers


@pytest.mark.parametrize(("capability", "usable"), [((7, 5), False), ((8, 0), True), ((9, 0), True), ((12, 0), True)])
def test_a_gpu_too_old_for_the_kernels_is_named(
    capability: tuple[int, int], usable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension, "why_missing", lambda: None)
    monkeypatch.setattr(extension, "require", lambda: GPU(capability))
    monkeypatch.setattr(backend, "gpu_count", lambda: 1)
    reason = backend.unavailable("cuda")
    if usable:
        assert reason is None
    else:
        assert reason is not None
        assert reason == "Some GPU has compute capability 7.5, the kernels need 8.0; running on reference"


def test_on_a_gpu_too_old_for_the_kernels_the_reference_runs_and_the_log_says_so_once(
    two_gpus: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ages = {0: GPU((7, 5)), 1: GPU((9, 0))}
    monkeypatch.setattr(
        extension,
        "require",
        lambda: SimpleNamespace(
            device_count=lambda: (2, ""), device_properties=lambda device: ages[device].device_properties(device)
        ),
    )
    for _ in range(2):
        assert current_backend() == "reference"
        backend.default_backend.cache_clear()
    assert [record.message for record in caplog.records] == [
        "cuda:0: Some GPU has compute capability 7.5, the kernels need 8.0; running on reference"
    ]
    assert backend.runs_kernels(1)
    assert not backend.runs_kernels(0)


class Full:
    """A GPU whose memory is used up for so many requests, and what was asked of its pool."""

    def __init__(self, library: Any, failures: int) -> None:
        self.failures, self.freed = failures, 0
        library.cuda.memory = SimpleNamespace(OutOfMemoryError=type("OutOfMemoryError", (MemoryError,), {}))
        library.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=self.free, used_bytes=lambda: 7_000)
        for name in ("empty", "zeros"):
            setattr(library, name, self.at_most(library, getattr(library, name)))

    def free(self) -> None:
        self.freed += 1

    def at_most(self, library: Any, allocate: Any) -> Any:
        def run(shape: tuple[int, ...], dtype: Any) -> Any:
            if self.failures:
                self.failures -= 1
                raise library.cuda.memory.OutOfMemoryError("out of memory")
            return allocate(shape, dtype)

        return run


@pytest.mark.parametrize("allocate", [backend.empty, backend.zeros, backend.workspace])
def test_where_memory_is_used_up_the_pool_is_freed_once(two_gpus: Any, allocate: Any) -> None:
    like = FakeArray(IMAGES, 1)
    full = Full(two_gpus, failures=1)
    assert isinstance(allocate((3, 4), np.dtype("float32"), like), FakeArray)
    assert full.freed == 1
    assert isinstance(allocate((3, 4), np.dtype("float32"), like), FakeArray)
    assert full.freed == 1
    full.failures = 2
    with pytest.raises(MemoryError, match=r"^cuda:1 has no room for 4,800 bytes \(float32 \(30, 40\)\), with 7,000 in"):
        allocate((30, 40), np.dtype("float32"), like)
    assert full.freed == 2
    assert isinstance(allocate((3, 4), np.dtype("float32"), like), FakeArray)  # and the process goes on


def test_the_kernels_on_the_cpu_are_a_backend_where_they_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"_simt_plain": None, "_simt_race": "gpucnn._simt_race is not built: order it"}
    monkeypatch.setattr(extension, "why_missing", lambda name="_cuda": missing[name])
    monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", "plain")
    assert backend.unavailable("simt") is None
    with use_backend("simt", strict=True):
        assert current_backend() == "simt"
    monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", "race")
    with pytest.raises(RuntimeError, match=r"'simt' can't be used: gpucnn\._simt_race is not built: order it"):
        use_backend("simt")
    monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", "tsan")
    with pytest.raises(RuntimeError, match="GPUCNN_SIMT_FLAVOUR=tsan: no such flavour; there are plain, race, asan"):
        use_backend("simt")


def test_a_stream_is_the_one_in_use(two_gpus: Any) -> None:
    two_gpus.cuda.get_current_stream = lambda: SimpleNamespace(ptr=1234)
    assert backend.current_stream(FakeArray(IMAGES, 1)) == 1234
    assert backend.current_stream(IMAGES) == 0


class NoDriver(GPU):
    def device_count(self) -> tuple[int, str]:
        return 0, "no NVIDIA driver"


class BrokenDriver(GPU):
    def device_count(self) -> tuple[int, str]:
        raise RuntimeError("devices can't be counted")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (NoDriver, "no usable GPU: no NVIDIA driver"),
        (BrokenDriver, "no usable GPU: devices can't be counted"),
        (GPU, "no cupy that can use it: pip install"),
    ],
)
def test_what_keeps_the_kernels_from_running_is_said(
    module: type[GPU], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension, "why_missing", lambda: None)
    monkeypatch.setattr(extension, "require", module)
    monkeypatch.setattr(backend, "gpu_count", lambda: 0)
    assert reason in (backend.unavailable("cuda") or "")
