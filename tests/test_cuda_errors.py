"""What a failed launch on a GPU raises: op, arguments, device with its architecture, and what to do; and that the
process goes on. CUDA's part is played by tests/cuda_stub."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from simt_checks import compiler

ROOT = Path(__file__).resolve().parent.parent
STUB = ROOT / "tests/cuda_stub"

REMEDIES = {
    1: "the device does not take that launch: kernel=",
    2: "the device's memory is used up: free some, or take a smaller batch",
    9: '`gpucnn explain` names all, and gpucnn.use_backend("reference") does without',
    98: "reinstall with its architecture in GPUCNN_ARCHS",
    209: "this build has no code for that device: reinstall with its architecture in GPUCNN_ARCHS",
    222: "the driver is too old for this build's PTX: update it, or reinstall",
    700: "an earlier launch may be the cause (CUDA_LAUNCH_BLOCKING=1 tells which)",
    701: "the device does not take that launch: kernel=",
    716: "an earlier launch may be the cause",
    719: "CUDA is unusable in this process from now on",
}
"""By CUDA's number of the error."""

ErrorOf = Callable[..., "str | None"]


@pytest.fixture(scope="module")
def error_of(tmp_path_factory: pytest.TempPathFactory) -> ErrorOf:
    library = tmp_path_factory.mktemp("stub") / "errors.so"
    command = [str(compiler()), "-std=c++17", "-shared", "-fPIC", f"-I{STUB}", f"-I{ROOT / 'csrc'}"]
    done = subprocess.run([*command, str(STUB / "errors.cpp"), "-o", str(library)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    function = ctypes.CDLL(str(library)).error_of
    function.restype = ctypes.c_char_p

    def run(code: int, lost: bool = False) -> str | None:
        found = function(code, b"conv2d", b"x float32 (2, 3), y float32 (2, 3)", int(lost))
        return None if found is None else found.decode()

    return run


@pytest.mark.parametrize("code", REMEDIES)
def test_a_failed_launch_says_what_where_and_what_to_do(error_of: ErrorOf, code: int) -> None:
    text = error_of(code)
    assert text is not None
    said, _, remedy = text.partition("; ")
    assert said == (
        "conv2d: cudaErrorOfSomeName: what CUDA says of it "
        "(x float32 (2, 3), y float32 (2, 3), on Some GPU (cuda:0, sm_90))"
    )
    assert REMEDIES[code] in remedy


def test_the_process_goes_on(error_of: ErrorOf) -> None:
    assert error_of(0) is None
    for code in REMEDIES:
        assert error_of(code) is not None
        assert error_of(0) is None


def test_an_error_without_a_remedy_makes_none_up(error_of: ErrorOf) -> None:
    text = error_of(999)
    assert text is not None
    assert text.endswith("(cuda:0, sm_90))")


def test_a_device_that_is_lost_is_said_to_be(error_of: ErrorOf) -> None:
    assert error_of(0, lost=True) == "conv2d: cudaErrorOfSomeName: what CUDA says of it"
    assert error_of(0) is None
