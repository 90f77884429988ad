"""The build backend: finding a toolkit, settings, what is asked for."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import build_cuda
import cuda_toolkit
import gpucnn_backend
from build_cuda import Plan, Skip, decide
from cuda_options import BuildError, cuda_mode, gencode_flags, parse_archs, target_names
from cuda_toolkit import Search, Toolkit, driver_version, find_toolkit, host_compiler

ROOT = Path(__file__).resolve().parent.parent
GXX = host_compiler(os.environ)
Machine = Callable[..., dict[str, str]]
needs_compiler = pytest.mark.skipif(GXX is None, reason="no C++ compiler (g++) on this machine")


# ------------------------------------------------------------------------------------------- finding a toolkit


def make_toolkit(root: Path, *, version: str = "13.0.88", lacking: str = "", here: bool = True) -> Path:
    """A folder laid out as a toolkit, whose nvcc answers what the finder asks. Returns nvcc."""
    for folder in ("bin", "include", "lib64"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in ("include/cuda_runtime.h", "lib64/libcudart_static.a"):
        if not lacking or lacking not in name:
            (root / name).touch()
    nvcc = root / "bin" / "nvcc"
    home = f"echo '#$ _HERE_={root}/bin' >&2" if here else ":"
    nvcc.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f'  *--version*) echo "Cuda compilation tools, release {version[:4]}, V{version}" ;;\n'
        f"  *-dryrun*) {home} ;;\n"
        "esac\n"
    )
    nvcc.chmod(0o755)
    return nvcc


def wheel_toolkit(site: Path) -> Path:
    nvcc = make_toolkit(site / "nvidia/cu13")
    (site / "nvidia/cu13/lib64").rename(site / "nvidia/cu13/lib")  # a wheel has lib, and no lib64
    return nvcc


def test_toolkits_are_found_in_the_documented_order(tmp_path: Path) -> None:
    places = {
        "GPUCNN_NVCC": make_toolkit(tmp_path / "named"),
        "CUDA_HOME": make_toolkit(tmp_path / "home"),
        "CUDA_PATH": make_toolkit(tmp_path / "path"),
        "PATH": make_toolkit(tmp_path / "onpath"),
        "usual folders": make_toolkit(tmp_path / "root/usr/local/cuda"),
        "pip wheels": wheel_toolkit(tmp_path / "site"),
    }
    environ = {
        "GPUCNN_NVCC": str(places["GPUCNN_NVCC"]),
        "CUDA_HOME": str(tmp_path / "home"),
        "CUDA_PATH": str(tmp_path / "path"),
        "PATH": str(tmp_path / "onpath/bin"),
    }
    found = []
    for origin, nvcc in places.items():
        toolkit = find_toolkit(environ, [str(tmp_path / "site")], tmp_path / "root").toolkit
        assert toolkit is not None
        found.append((toolkit.origin, toolkit.nvcc))
        environ.pop(origin, None)
        shutil.rmtree(nvcc.parent.parent)
    assert found == list(places.items())
    nothing = find_toolkit(environ, [str(tmp_path / "site")], tmp_path / "root")
    assert nothing.toolkit is None
    assert "no CUDA compiler (nvcc) was found" in nothing.failure


def test_a_toolkit_is_described(tmp_path: Path) -> None:
    nvcc = make_toolkit(tmp_path / "cuda", version="12.4.131")
    toolkit = find_toolkit({"CUDA_HOME": str(tmp_path / "cuda")}, [], tmp_path).toolkit
    home = tmp_path / "cuda"
    assert toolkit == Toolkit(nvcc, home, home / "include", home / "lib64", "12.4.131", "CUDA_HOME")


def test_nvcc_on_path_may_be_a_wrapper_elsewhere(tmp_path: Path) -> None:
    real = make_toolkit(tmp_path / "cuda")
    shim = tmp_path / "shims/nvcc"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    shim.chmod(0o755)
    toolkit = find_toolkit({"PATH": str(shim.parent)}, [], tmp_path).toolkit
    assert toolkit is not None
    assert toolkit.nvcc == shim
    assert toolkit.root == tmp_path / "cuda"


def test_nvcc_that_does_not_say_where_it_lives_is_followed_through_its_link(tmp_path: Path) -> None:
    real = make_toolkit(tmp_path / "cuda", here=False)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvcc").symlink_to(real)
    toolkit = find_toolkit({"PATH": str(tmp_path / "bin")}, [], tmp_path).toolkit
    assert toolkit is not None
    assert toolkit.root == tmp_path / "cuda"


def test_headers_and_libraries_may_lie_under_targets(tmp_path: Path) -> None:
    make_toolkit(tmp_path / "cuda")
    folder = cuda_toolkit.TARGET_FOLDERS[platform.machine()][0]
    target = tmp_path / "cuda/targets" / folder
    target.mkdir(parents=True)
    (tmp_path / "cuda/include").rename(target / "include")
    (tmp_path / "cuda/lib64").rename(target / "lib")
    toolkit = find_toolkit({"CUDA_PATH": str(tmp_path / "cuda")}, [], tmp_path).toolkit
    assert toolkit is not None
    assert (toolkit.include, toolkit.library) == (target / "include", target / "lib")


def test_the_newest_of_several_usual_folders_is_taken(tmp_path: Path) -> None:
    for version in ("12.4", "12.10", "12.9"):
        make_toolkit(tmp_path / f"usr/local/cuda-{version}")
    toolkit = find_toolkit({}, [], tmp_path).toolkit
    assert toolkit is not None
    assert toolkit.root.name == "cuda-12.10"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (dict(lacking="cuda_runtime.h"), "has no cuda_runtime.h"),
        (dict(lacking="libcudart_static.a"), "has no libcudart_static.a"),
        (dict(version="11.8.89"), "CUDA 11.8.89 is older than 12.0"),
        (dict(version="unknown"), "does not answer --version as nvcc does"),
    ],
)
def test_an_unusable_toolkit_is_passed_over_and_the_reason_kept(
    tmp_path: Path, spoil: dict[str, str], reason: str
) -> None:
    make_toolkit(tmp_path / "bad", **spoil)
    good = make_toolkit(tmp_path / "good")
    environ = {"CUDA_HOME": str(tmp_path / "bad"), "PATH": str(tmp_path / "good/bin")}
    search = find_toolkit(environ, [], tmp_path)
    assert search.toolkit is not None
    assert search.toolkit.nvcc == good
    assert reason in search.rejected[0]
    del environ["PATH"]
    assert reason in find_toolkit(environ, [], tmp_path).failure


def test_a_variable_that_names_nothing_is_mentioned(tmp_path: Path) -> None:
    search = find_toolkit({"CUDA_HOME": str(tmp_path / "gone")}, [], tmp_path)
    assert search.toolkit is None
    assert f"{tmp_path / 'gone'}" in search.failure


@pytest.mark.parametrize("spoil", ["missing", "not executable", "incomplete", "no nvcc"])
def test_a_wrong_gpucnn_nvcc_is_an_error_and_nothing_else_is_tried(tmp_path: Path, spoil: str) -> None:
    make_toolkit(tmp_path / "good")
    nvcc = make_toolkit(tmp_path / "named", lacking="include" if spoil == "incomplete" else "")
    if spoil == "missing":
        nvcc.unlink()
    elif spoil == "not executable":
        nvcc.chmod(0o644)
    elif spoil == "no nvcc":
        nvcc.write_text("#!/bin/sh\necho hello\n")
    environ = {"GPUCNN_NVCC": str(nvcc), "CUDA_HOME": str(tmp_path / "good")}
    with pytest.raises(BuildError, match=f"GPUCNN_NVCC={nvcc}"):
        find_toolkit(environ, [], tmp_path)


# ------------------------------------------------------------------------------------------------- the settings


def test_archs_become_machine_code_and_ptx_of_the_lowest() -> None:
    assert parse_archs({}) == ("80", "90a")
    assert parse_archs({"GPUCNN_ARCHS": ""}) == ("80", "90a")
    assert target_names(parse_archs({"GPUCNN_ARCHS": "90a;86; 100"})) == ["sm_90a", "sm_86", "sm_100", "compute_86"]
    assert gencode_flags(("80", "90a")) == [
        *("-gencode", "arch=compute_80,code=sm_80"),
        *("-gencode", "arch=compute_90a,code=sm_90a"),
        *("-gencode", "arch=compute_80,code=compute_80"),
    ]


def test_one_architecture_is_compiled_once() -> None:
    """Its machine code and its PTX come from the same run of the compiler."""
    assert gencode_flags(("90a",)) == [
        *("-gencode", "arch=compute_90,code=sm_90a"),
        *("-gencode", "arch=compute_90,code=compute_90"),
    ]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("8.0", "'8.0' is not a GPU architecture"),
        ("80,90a", "'80,90a' is not a GPU architecture"),
        ("sm_80", "'sm_80' is not a GPU architecture"),
        ("80;", "'' is not a GPU architecture"),
        ("80;hopper", "'hopper' is not a GPU architecture"),
        ("80;-arch=all", "'-arch=all' is not a GPU architecture"),
        ("75;80", "75 is below 80"),
        ("80;90a;80", "given twice"),
    ],
)
def test_archs_that_make_no_sense_are_refused(text: str, rule: str) -> None:
    with pytest.raises(BuildError, match="GPUCNN_ARCHS") as caught:
        parse_archs({"GPUCNN_ARCHS": text})
    assert rule in str(caught.value)
    assert text in str(caught.value)


def test_cuda_mode() -> None:
    assert [cuda_mode({"GPUCNN_CUDA": mode}) for mode in ("", "auto", "0", "1")] == ["auto", "auto", "0", "1"]
    with pytest.raises(BuildError, match="GPUCNN_CUDA='yes': expected auto, 1 or 0"):
        cuda_mode({"GPUCNN_CUDA": "yes"})


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """here(toolkit=, compiler=) -> environ of a machine that has just these."""

    def machine(*, toolkit: bool, compiler: bool, **variables: str) -> dict[str, str]:
        found = find_toolkit({"CUDA_HOME": str(make_toolkit(tmp_path / "cuda").parent.parent)}, [], tmp_path)
        search = found if toolkit else Search(None, ())
        for module in (build_cuda, gpucnn_backend):
            monkeypatch.setattr(module, "find_toolkit", lambda environ, sys_path: search)
        gxx = tmp_path / "bin/g++"
        gxx.parent.mkdir(exist_ok=True)
        if compiler:
            gxx.touch()
            gxx.chmod(0o755)
        return {"PATH": str(gxx.parent), **variables}

    return machine


@pytest.mark.parametrize("mode", ["auto", "1"])
@pytest.mark.parametrize("driver", [None, 12040, 13000])
def test_the_extension_is_planned_where_a_driver_is_or_where_ordered(
    here: Machine, mode: str, driver: int | None
) -> None:
    decision = decide(here(toolkit=True, compiler=True, GPUCNN_CUDA=mode, GPUCNN_ARCHS="80"), driver)
    if mode == "auto" and driver is None:
        assert isinstance(decision, Skip)
        assert "libcuda.so.1" in decision.reason
        assert "GPUCNN_CUDA=1" in decision.remedy
    else:
        assert isinstance(decision, Plan)
        assert decision.archs == ("80",)


def test_gpucnn_cuda_0_skips_whatever_there_is(here: Machine) -> None:
    decision = decide(here(toolkit=True, compiler=True, GPUCNN_CUDA="0"), 13000)
    assert isinstance(decision, Skip)
    assert "GPUCNN_CUDA=0" in decision.reason


@pytest.mark.parametrize(
    ("toolkit", "compiler", "driver", "reason", "remedy"),
    [
        (False, True, 12040, "no CUDA compiler (nvcc)", "CUDA 12 toolkit"),
        (False, True, 13000, "no CUDA compiler (nvcc)", "GPUCNN_NVCC"),
        (True, False, 13000, "no C++ compiler", "g++"),
        (False, False, 13000, "no C++ compiler", "g++"),
    ],
)
def test_a_missing_compiler_means_a_plain_install_or_an_error_if_ordered(
    here: Machine, toolkit: bool, compiler: bool, driver: int, reason: str, remedy: str
) -> None:
    decision = decide(here(toolkit=toolkit, compiler=compiler), driver)
    assert isinstance(decision, Skip)
    assert reason in decision.reason
    assert remedy in decision.remedy
    with pytest.raises(BuildError, match="GPUCNN_CUDA=1, but") as caught:
        decide(here(toolkit=toolkit, compiler=compiler, GPUCNN_CUDA="1"), driver)
    assert reason in str(caught.value)
    assert remedy in str(caught.value)


def test_a_wrong_cxx_is_named(here: Machine) -> None:
    with pytest.raises(BuildError, match=r"CXX=no-such-g\+\+ is no executable file"):
        decide(here(toolkit=True, compiler=True, GPUCNN_CUDA="1", CXX="no-such-g++"), None)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="nvcc's wheels exist for two machines only")
@pytest.mark.parametrize(
    ("mode", "driver", "toolkit", "compiler", "wheels"),
    [
        ("auto", None, False, True, False),
        ("auto", 12040, False, True, False),
        ("auto", 13000, False, True, True),
        ("auto", 13020, False, True, True),
        ("auto", 13000, True, True, False),
        ("auto", 13000, False, False, False),
        ("1", None, False, True, True),
        ("1", 12040, False, True, True),
        ("1", None, True, True, False),
        ("1", None, False, False, False),
        ("0", 13000, False, True, False),
    ],
)
def test_the_backend_asks_for_nvcc_only_where_it_is_missing_and_of_use(
    here: Machine, mode: str, driver: int | None, toolkit: bool, compiler: bool, wheels: bool
) -> None:
    environ = here(toolkit=toolkit, compiler=compiler, GPUCNN_CUDA=mode)
    asked = gpucnn_backend.cuda_requirements(environ, driver)
    assert [spec.partition("==")[0] for spec in asked] == (
        ["nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl"]
        if wheels
        else []
    )
    assert all(spec.endswith("==13.0.*") for spec in asked)


@needs_compiler
@pytest.mark.parametrize("version", [12040, 13000])
def test_the_driver_is_asked_for_its_version(tmp_path: Path, version: int) -> None:
    source = tmp_path / "cuda.cpp"
    source.write_text(f'extern "C" int cuDriverGetVersion(int* v) {{ *v = {version}; return 0; }}')
    subprocess.run([str(GXX), "-shared", "-fPIC", source, "-o", tmp_path / "libcuda.so.1"], check=True)
    environ = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(ROOT / "_build")}
    command = [sys.executable, "-c", "import cuda_toolkit; print(cuda_toolkit.driver_version())"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(version)


def test_no_driver_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda_toolkit.ctypes, "CDLL", missing)
    assert driver_version() is None
