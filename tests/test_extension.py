"""The loaded extension: what it says without a GPU, its checks, its kernels' registers; and on a GPU, its results."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ptxas_report
from gpucnn import extension

ROOT = Path(__file__).resolve().parent.parent
SIZES = [0, 1, 2, 3, 4, 5, 31, 32, 33, 127, 128, 129, 1023, 1024, 1025, 100_003]

cuda = extension.load()
devices, why_no_device = cuda.device_count() if cuda is not None else (0, extension.why_missing())
needs_extension = pytest.mark.skipif(cuda is None, reason=str(extension.why_missing()))
without_gpu = pytest.mark.skipif(devices > 0, reason="there is a GPU here: this is about machines without one")
needs_gpu = pytest.mark.skipif(devices == 0, reason=f"no CUDA device: {why_no_device}")


@pytest.fixture
def module() -> ModuleType:
    assert cuda is not None
    return cuda


class Fake:
    """An object that claims to be an array on a device. Nothing may follow its pointer."""

    def __init__(self, shape: Any = (2, 3), **interface: Any) -> None:
        self.__cuda_array_interface__ = {
            **dict(shape=shape, typestr="<f4", data=(1 << 20, False), version=3),
            **interface,
        }


# ----------------------------------------------------------------------------------------------- gpucnn.extension


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An extension that is not found, not asked for yet; the path of its record, where nothing is."""
    monkeypatch.setattr(extension, "RECORD", tmp_path / "_build_info.json")
    monkeypatch.setattr(extension.importlib.util, "find_spec", lambda name: None)
    extension._load.cache_clear()
    yield tmp_path / "_build_info.json"
    extension._load.cache_clear()


def why() -> str:
    assert extension.load() is None
    reason = extension.why_missing()
    assert reason is not None
    assert "\n" not in reason
    with pytest.raises(RuntimeError) as caught:
        extension.require()
    assert str(caught.value) == reason
    return reason


def test_a_tree_that_was_never_built_says_so(fresh: Path) -> None:
    assert extension.build_info() is None
    assert "never installed" in why()
    assert "pip install -e ." in why()


def test_the_builds_own_reason_and_remedy_are_passed_on_in_one_line(fresh: Path) -> None:
    fresh.write_text(json.dumps({"cuda": False, "reason": "no nvcc\nanywhere", "remedy": "install one"}))
    assert why() == "the CUDA extension is not built: no nvcc anywhere; install one"


def test_a_module_for_another_python_is_recognised(fresh: Path) -> None:
    fresh.write_text(json.dumps({"cuda": True, "reason": "", "remedy": ""}))
    assert f"another Python than this Python {sys.version_info.major}.{sys.version_info.minor}" in why()


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_record_is_named(fresh: Path, text: str) -> None:
    fresh.write_text(text)
    assert str(fresh) in why()
    assert "damaged" in why()


def test_a_failing_import_is_explained_and_not_tried_again(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(name: str) -> ModuleType:
        tried.append(name)
        raise ImportError("undefined symbol: gpucnn_pool\n(needed by it)")

    monkeypatch.setattr(extension.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(extension.importlib, "import_module", fail)
    assert "undefined symbol: gpucnn_pool (needed by it)" in why()
    assert "reinstall" in why()
    assert tried == ["gpucnn._cuda"]


def test_importing_the_package_does_not_load_the_extension() -> None:
    code = "import sys, gpucnn; print('gpucnn._cuda' in sys.modules, 'cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


# --------------------------------------------------------------------------------------- the module without a GPU


@needs_extension
def test_the_module_says_what_it_was_built_with(module: ModuleType) -> None:
    info = extension.build_info()
    assert info is not None
    assert info["cuda"] is True
    major, minor = map(int, info["toolkit"].split(".")[:2])
    assert module.runtime_version() == major * 1000 + minor * 10
    assert extension.require() is module
    assert extension.why_missing() is None


@needs_extension
@without_gpu
def test_no_device_is_an_answer_and_not_an_error(module: ModuleType) -> None:
    count, message = module.device_count()
    assert count == 0
    assert "driver" in message
    assert module.driver_version() >= 0
    with pytest.raises(module.CudaError, match="device_properties: no CUDA device: "):
        module.device_properties(0)


@needs_extension
@without_gpu
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), ()])
def test_a_call_without_a_device_is_refused_before_the_pointer_is_touched(
    module: ModuleType, shape: tuple[int, ...]
) -> None:
    with pytest.raises(module.CudaError, match="scale: no CUDA device: "):
        module.scale(Fake(shape), Fake(shape), 2.0, 0)
    assert issubclass(module.CudaError, RuntimeError)
    assert f"{module.CudaError.__module__}.{module.CudaError.__name__}" == "gpucnn._cuda.CudaError"


# ------------------------------------------------------------------------------------ what a binding checks itself


@needs_extension
@pytest.mark.parametrize("array", [np.zeros((2, 3), np.float32), [1.0], None, 3])
@pytest.mark.parametrize("position", ["x", "y"])
def test_arrays_that_are_not_on_a_device_are_refused(module: ModuleType, array: object, position: str) -> None:
    arguments = {"x": Fake(), "y": Fake(), "alpha": 2.0, "stream": 0, position: array}
    with pytest.raises(TypeError, match=f"scale: argument '{position}' must be an array on a CUDA device") as caught:
        module.scale(**arguments)
    assert type(array).__name__ in str(caught.value)


BAD = [
    (TypeError, "must be float32 ('<f4') and is '<f8'", dict(typestr="<f8")),
    (TypeError, "must be float32 ('<f4') and is '>f4'", dict(typestr=">f4")),
    (TypeError, "must be float32 ('<f4') and is '<i4'", dict(typestr="<i4")),
    (ValueError, "must be C-contiguous", dict(strides=(4, 8))),
    (ValueError, "must be C-contiguous", dict(strides=(24, 4))),
    (ValueError, "must be C-contiguous", dict(strides=(-12, 4))),
    (ValueError, "strides of another rank", dict(strides=(4,))),
    (ValueError, "is masked", dict(mask=Fake())),
    (ValueError, "null pointer", dict(data=(0, False))),
    (ValueError, "null pointer", dict(data=(None, False))),
    (ValueError, "not aligned to 4 bytes", dict(data=((1 << 20) + 2, False))),
    (ValueError, "negative length", dict(shape=(-2, 3))),
    (ValueError, "more bytes than 64 bits can count", dict(shape=(1 << 31, 1 << 30))),
    (ValueError, "more bytes than 64 bits can count", dict(shape=(1 << 62, 1 << 62))),
    (TypeError, "shape must be a tuple of 64-bit integers", dict(shape=(1 << 63, 3))),
    (TypeError, "shape must be a tuple of 64-bit integers", dict(shape=(2.0, 3))),
    (TypeError, "shape must be a tuple of 64-bit integers", dict(shape=6)),
    (TypeError, "strides must be a tuple of 64-bit integers", dict(strides=12)),
    (TypeError, "an (address, read-only) pair", dict(data=1 << 20)),
    (TypeError, "an (address, read-only) pair", dict(data=("here", False))),
    (TypeError, "an (address, read-only) pair", dict(data=(-4, False))),
]


@needs_extension
@pytest.mark.parametrize(("error", "rule", "interface"), BAD)
@pytest.mark.parametrize("position", ["x", "y"])
def test_arrays_that_a_kernel_can_not_take_are_refused(
    module: ModuleType, error: type[Exception], rule: str, interface: dict[str, Any], position: str
) -> None:
    arguments = {"x": Fake(), "y": Fake(), "alpha": 2.0, "stream": 0, position: Fake(**interface)}
    with pytest.raises(error) as caught:
        module.scale(**arguments)
    assert rule in str(caught.value)
    assert str(caught.value).startswith(f"scale: argument '{position}'")


@needs_extension
@pytest.mark.parametrize("missing", ["shape", "typestr", "data", "version"])
def test_an_incomplete_interface_is_refused(module: ModuleType, missing: str) -> None:
    array = Fake()
    del array.__cuda_array_interface__[missing]
    with pytest.raises(TypeError, match=f"__cuda_array_interface__ has no '{missing}'"):
        module.scale(array, Fake(), 2.0, 0)


@needs_extension
def test_what_an_arrays_own_property_raises_is_not_hidden(module: ModuleType) -> None:
    class Tracked:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            raise RuntimeError("detach it first")

    with pytest.raises(RuntimeError, match="detach it first"):
        module.scale(Tracked(), Fake(), 2.0, 0)


@needs_extension
def test_shapes_must_agree_and_an_output_must_be_writable(module: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"'x' of shape \(2, 3\) and 'y' of shape \(3, 2\) must have the same shape"):
        module.scale(Fake((2, 3)), Fake((3, 2)), 2.0, 0)
    with pytest.raises(ValueError, match=r"'x' of shape \(6,\) and 'y' of shape \(2, 3\)"):
        module.scale(Fake((6,)), Fake((2, 3)), 2.0, 0)
    with pytest.raises(ValueError, match=r"argument 'y' of shape \(2, 3\) is read-only"):
        module.scale(Fake(), Fake(data=(1 << 21, True)), 2.0, 0)


@needs_extension
@pytest.mark.parametrize("offset", [4, 20, -4, -20])
def test_partly_overlapping_arrays_are_refused(module: ModuleType, offset: int) -> None:
    with pytest.raises(ValueError, match="overlap in memory without being the same array"):
        module.scale(Fake(), Fake(data=((1 << 20) + offset, False)), 2.0, 0)


@needs_extension
@without_gpu
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (Fake(), Fake()),  # in place
        (Fake(), Fake(data=((1 << 20) + 24, False))),  # one right after the other
        (Fake(), Fake(data=((1 << 20) - 24, False))),
        (Fake(data=(1 << 20, True)), Fake(data=(1 << 21, False))),  # an input may be read-only
        (Fake(strides=(12, 4)), Fake(strides=None)),
        (Fake((2, 1, 3), strides=(12, 999, 4)), Fake((2, 1, 3))),  # the stride of an axis of length 1 means nothing
        (Fake((0, 3), strides=(5, 7), data=(0, False)), Fake((0, 3), data=(None, False))),
        (Fake((1 << 62, 0)), Fake((1 << 62, 0))),
        (Fake((1 << 30, 4)), Fake((1 << 30, 4), data=(1 << 40, False))),  # beyond 2^31 elements
    ],
)
def test_arrays_that_are_right_get_as_far_as_the_missing_device(module: ModuleType, x: Fake, y: Fake) -> None:
    with pytest.raises(module.CudaError, match="no CUDA device"):
        module.scale(x, y, 2.0, 0)


@needs_extension
def test_alpha_must_fit_float32(module: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"alpha=1e\+39 is beyond float32's range"):
        module.scale(Fake(), Fake(), 1e39, 0)
    with pytest.raises(TypeError):
        module.scale(Fake(), Fake(), "2", 0)


# -------------------------------------------------------------------------------------------------- ptxas reports

PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstPf' for 'sm_80'
ptxas info    : Function properties for _Z5firstPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, used 1 barriers, 2048 bytes smem, 380 bytes cmem[0]
ptxas info    : Compiling entry function '_Z6secondPf' for 'sm_90a'
ptxas info    : Function properties for _Z6secondPf
    96 bytes stack frame, 100 bytes spill stores, 148 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers
ptxas info    : Function properties for _Z6helperf
    8 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads
"""


def test_a_ptxas_report_is_read() -> None:
    first, second, helper = ptxas_report.parse(PTXAS)
    assert (first.name, first.target, first.registers, first.shared) == ("_Z5firstPf", "sm_80", 24, 2048)
    assert not first.spills
    assert (second.target, second.registers, second.stack) == ("sm_90a", 64, 96)
    assert (second.spill_stores, second.spill_loads) == (100, 148)
    assert second.spills
    assert helper.name == "_Z6helperf"  # a function that was not inlined can spill as well
    assert helper.spills


def test_the_gate_fails_on_a_spill_and_where_there_is_nothing_to_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ptxas_report.main(tmp_path) == 2
    (tmp_path / "op").mkdir()
    (tmp_path / "op/good.cu.o.log").write_text("".join(PTXAS.splitlines(keepends=True)[:5]))
    assert ptxas_report.main(tmp_path) == 0
    (tmp_path / "op/bad.cu.o.log").write_text(PTXAS)
    assert ptxas_report.main(tmp_path) == 1
    assert "4 functions, 2 of them spill registers" in capsys.readouterr().out


def test_no_kernel_of_this_build_spills() -> None:
    reports = ROOT / "build" / "cuda" / str(sysconfig.get_config_var("SOABI"))
    if cuda is None or not reports.is_dir():
        pytest.skip("the extension was not built in this tree")
    usages = ptxas_report.read(reports)
    kernels = [path.stem for path in (ROOT / "csrc").rglob("*.cu") if path.relative_to(ROOT).parts[1] != "simt"]
    assert len(usages) >= len(kernels) > 0
    assert [usage for usage in usages if usage.spills] == []


# ------------------------------------------------------------------------------------------------------ on a GPU


@needs_gpu
@pytest.mark.gpu
class TestScaleOnDevice:
    @pytest.fixture
    def cupy(self) -> ModuleType:
        return pytest.importorskip("cupy", reason="arrays on a GPU need cupy")

    @pytest.mark.parametrize("offsets", [(0, 0), (1, 1), (0, 3), (4, 0)])
    def test_bits_are_numpys(self, module: ModuleType, cupy: Any, offsets: tuple[int, int]) -> None:
        """Offsets, in elements, take both the 16-byte and the 4-byte path; guards around y must survive."""
        start, out = offsets
        stream = cupy.cuda.get_current_stream()
        for seed, size in enumerate(SIZES):
            x = np.random.default_rng(seed).standard_normal(size + 8).astype(np.float32)
            x[::7] = [np.inf, np.nan, -0.0, 1e-42, 3e38][seed % 5]
            into = cupy.full(size + 8, 123.0, np.float32)
            module.scale(cupy.asarray(x)[start : start + size], into[out : out + size], 1.7, stream.ptr)
            with np.errstate(over="ignore"):
                expected = np.float32(1.7) * x[start : start + size]
            result = cupy.asnumpy(into)
            np.testing.assert_array_equal(result[out : out + size], expected, err_msg=f"size {size}, seed {seed}")
            assert (np.delete(result, np.s_[out : out + size]) == 123.0).all()

    def test_in_place(self, module: ModuleType, cupy: Any) -> None:
        x = cupy.arange(1001, dtype=np.float32)
        module.scale(x, x, -2.0, cupy.cuda.get_current_stream().ptr)
        np.testing.assert_array_equal(cupy.asnumpy(x), -2.0 * np.arange(1001, dtype=np.float32))

    @pytest.mark.slow
    def test_more_than_2_to_the_31_elements(self, module: ModuleType, cupy: Any) -> None:
        size = (1 << 31) + 5
        if cupy.cuda.runtime.memGetInfo()[0] < 4 * size + (1 << 30):
            pytest.skip("needs 9 GB of free device memory")
        x = cupy.ones(size, np.float32)
        module.scale(x, x, 3.0, cupy.cuda.get_current_stream().ptr)
        assert bool((x[:1000] == 3).all())
        assert bool((x[-1000:] == 3).all())
        assert int(cupy.count_nonzero(x == 3)) == size

    def test_a_pointer_that_is_no_device_memory_is_refused(self, module: ModuleType) -> None:
        host = np.zeros(6, np.float32)
        with pytest.raises(ValueError, match=r"argument 'x' of shape \(6,\) is not device memory"):
            module.scale(Fake((6,), data=(host.ctypes.data, False)), Fake((6,)), 2.0, 0)

    def test_devices_are_described(self, module: ModuleType) -> None:
        properties = module.device_properties(0)
        assert properties["name"]
        assert properties["compute_capability"] >= (5, 0)
        assert 0 < properties["free_memory"] <= properties["total_memory"]
        assert properties["multiprocessors"] > 0
        with pytest.raises(ValueError, match=f"device {devices} is not one of the {devices}"):
            module.device_properties(devices)
