"""The compiled modules: what is said where one is missing, the CUDA module without a GPU; on a GPU, its results."""

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
from binding_checks import Fake, cuda, devices, loaded, needs_extension, needs_gpu, without_gpu

import ptxas_report
from gpucnn import extension

ROOT = Path(__file__).resolve().parent.parent
SIZES = [0, 1, 2, 3, 4, 5, 31, 32, 33, 127, 128, 129, 1023, 1024, 1025, 100_003]


@pytest.fixture
def module() -> ModuleType:
    return loaded("_cuda")


# ----------------------------------------------------------------------------------------------- gpucnn.extension


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An extension that is not found, not asked for yet; the path of its record, where nothing is."""
    monkeypatch.setattr(extension, "RECORD", tmp_path / "_build_info.json")
    monkeypatch.setattr(extension.importlib.util, "find_spec", lambda name: None)
    extension._load.cache_clear()
    yield tmp_path / "_build_info.json"
    extension._load.cache_clear()


def why(name: str = "_cuda") -> str:
    assert extension.load(name) is None
    reason = extension.why_missing(name)
    assert reason is not None
    assert "\n" not in reason
    with pytest.raises(RuntimeError) as caught:
        extension.require(name)
    assert str(caught.value) == reason
    return reason


def test_a_tree_that_was_never_built_says_so(fresh: Path) -> None:
    assert extension.build_info() is None
    assert "never installed" in why()
    assert "pip install -e ." in why()
    assert "never installed; run GPUCNN_SIMT=plain,race,asan,profile pip install -e ." in why("_simt_plain")


def test_the_builds_own_reason_and_remedy_are_passed_on_in_one_line(fresh: Path) -> None:
    fresh.write_text(json.dumps({"cuda": False, "reason": "no nvcc\nanywhere", "remedy": "install one"}))
    assert why() == "the CUDA extension is not built: no nvcc anywhere; install one"
    simt = {"built": ["race"], "reason": "no g++\nanywhere", "remedy": "install that"}
    fresh.write_text(json.dumps({"cuda": True, "simt": simt}))
    missing = "gpucnn._simt_plain (the kernels built for the CPU) is not built: no g++ anywhere; install that"
    assert why("_simt_plain") == missing


def test_a_module_for_another_python_is_recognised(fresh: Path) -> None:
    fresh.write_text(json.dumps({"cuda": True, "reason": "", "remedy": ""}))
    assert f"another Python than this Python {sys.version_info.major}.{sys.version_info.minor}" in why()
    fresh.write_text(json.dumps({"cuda": False, "simt": {"built": ["race"], "reason": "", "remedy": ""}}))
    assert "another Python than this" in why("_simt_race")
    assert why("_simt_race").endswith("and GPUCNN_SIMT=race")


def test_a_record_of_an_earlier_version_is_understood(fresh: Path) -> None:
    fresh.write_text(json.dumps({"cuda": False, "reason": "no nvcc", "remedy": "install one"}))
    assert "is not built" in why("_simt_plain")


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_record_is_named(fresh: Path, text: str) -> None:
    fresh.write_text(text)
    for name in ("_cuda", "_simt_asan"):
        assert str(fresh) in why(name)
        assert "damaged" in why(name)


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
    assert "gpucnn._simt_plain (the kernels built for the CPU) is installed but can't be loaded" in why("_simt_plain")
    assert "GPUCNN_SIMT=plain" in why("_simt_plain")


def test_asan_is_not_tried_where_it_would_end_the_process(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.write_text(json.dumps({"simt": {"built": ["asan"], "preload": ["/lib/libasan.so", "/lib/libubsan.so"]}}))
    with pytest.raises(RuntimeError, match=r"_simt_asan .* was built for another Python"):
        extension.asan_environment()
    monkeypatch.setattr(extension.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(extension, "_has_asan", lambda: False)
    assert "needs the sanitizers' runtimes first in the process: LD_PRELOAD='/lib/libasan.so /lib/libubsan.so'" in (
        why("_simt_asan")
    )
    assert extension.asan_environment()["LD_PRELOAD"] == "/lib/libasan.so /lib/libubsan.so"


def test_the_environment_names_the_flavour(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extension._preferred_flavour.cache_clear()
    monkeypatch.delenv("GPUCNN_SIMT_FLAVOUR", raising=False)
    assert extension.simt_flavour() == "plain"  # to have a name for what is missing
    extension._preferred_flavour.cache_clear()
    built = ["gpucnn._simt_asan", "gpucnn._simt_race"]
    monkeypatch.setattr(extension.importlib.util, "find_spec", lambda name: name in built or None)
    assert extension.simt_flavour() == "race"
    for flavour in ("asan", "plain"):
        monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", flavour)
        assert extension.simt_flavour() == flavour
    with pytest.raises(RuntimeError, match=r"gpucnn\._simt_plain \(the kernels built for the CPU\) is not built"):
        extension.compiled("simt")
    with pytest.raises(RuntimeError, match="the CUDA extension is not built"):
        extension.compiled("cuda")
    monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", "tsan")
    with pytest.raises(ValueError, match="GPUCNN_SIMT_FLAVOUR=tsan: no such flavour; there are plain, race, asan"):
        extension.compiled("simt")
    extension._preferred_flavour.cache_clear()


def test_importing_the_package_does_not_load_the_extension() -> None:
    code = "import sys, gpucnn; print([name for name in sys.modules if name.startswith(('gpucnn._', 'cupy'))])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["[]"], done.stderr


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
        module.scale("float32", Fake(shape), Fake(shape), 2.0, 0)
    assert issubclass(module.CudaError, RuntimeError)
    assert f"{module.CudaError.__module__}.{module.CudaError.__name__}" == "gpucnn._cuda.CudaError"


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
    assert "4 functions, 2 of them use local memory: spilled registers or arrays" in capsys.readouterr().out


def test_no_kernel_of_this_build_spills() -> None:
    reports = ROOT / "build" / "cuda" / str(sysconfig.get_config_var("SOABI"))
    if cuda is None or not reports.is_dir():
        pytest.skip("the extension was not built in this tree")
    usages = ptxas_report.read(reports)
    kernels = [path.stem for path in (ROOT / "csrc").rglob("*.cu") if path.relative_to(ROOT).parts[1] != "simt"]
    assert len(usages) >= len(kernels) > 0
    assert [usage for usage in usages if usage.spills or usage.stack] == []


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
            module.scale("float32", cupy.asarray(x)[start : start + size], into[out : out + size], 1.7, stream.ptr)
            with np.errstate(over="ignore"):
                expected = np.float32(1.7) * x[start : start + size]
            result = cupy.asnumpy(into)
            np.testing.assert_array_equal(result[out : out + size], expected, err_msg=f"size {size}, seed {seed}")
            assert (np.delete(result, np.s_[out : out + size]) == 123.0).all()

    def test_in_place(self, module: ModuleType, cupy: Any) -> None:
        x = cupy.arange(1001, dtype=np.float32)
        module.scale("float32", x, x, -2.0, cupy.cuda.get_current_stream().ptr)
        np.testing.assert_array_equal(cupy.asnumpy(x), -2.0 * np.arange(1001, dtype=np.float32))

    @pytest.mark.slow
    def test_more_than_2_to_the_31_elements(self, module: ModuleType, cupy: Any) -> None:
        size = (1 << 31) + 5
        if cupy.cuda.runtime.memGetInfo()[0] < 4 * size + (1 << 30):
            pytest.skip("needs 9 GB of free device memory")
        x = cupy.ones(size, np.float32)
        module.scale("float32", x, x, 3.0, cupy.cuda.get_current_stream().ptr)
        assert bool((x[:1000] == 3).all())
        assert bool((x[-1000:] == 3).all())
        assert int(cupy.count_nonzero(x == 3)) == size

    def test_a_pointer_that_is_no_device_memory_is_refused(self, module: ModuleType) -> None:
        host = np.zeros(6, np.float32)
        with pytest.raises(ValueError, match=r"argument 'x' of shape \(6,\) is not device memory"):
            module.scale("float32", Fake((6,), data=(host.ctypes.data, False)), Fake((6,)), 2.0, 0)

    def test_devices_are_described(self, module: ModuleType) -> None:
        properties = module.device_properties(0)
        assert properties["name"]
        assert properties["compute_capability"] >= (5, 0)
        assert 0 < properties["free_memory"] <= properties["total_memory"]
        assert properties["multiprocessors"] > 0
        with pytest.raises(ValueError, match=f"device {devices} is not one of the {devices}"):
            module.device_properties(devices)
