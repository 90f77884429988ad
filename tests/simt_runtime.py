"""The kernels of tests/simt/runtime for the CPU, as functions that take numpy arrays."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simt_library import build

from build_cuda import compiler_missing
from cuda_toolkit import host_compiler

ROOT = Path(__file__).resolve().parent.parent
KERNELS = Path("tests/simt/runtime")
SOURCES = tuple(f"{KERNELS}/{name}.cu" for name in ("block", "faults", "instructions", "warp"))


class Fault(RuntimeError):
    """What a launch ended with."""


@functools.cache
def library() -> ctypes.CDLL:
    """Of the plain flavour, brought up to date; skips where there is no compiler."""
    compiler = host_compiler(os.environ)
    if compiler is None:
        pytest.skip(f"{compiler_missing(os.environ)}, which compiles kernels for the CPU")
    return ctypes.CDLL(str(build("runtime", "plain", compiler, SOURCES)))


def call(name: str, *arguments: Any) -> None:
    """Runs TEST_FUNCTION `name`; arrays are passed as pointers, numbers as int, text as char*.

    Raises:
        Fault: the launch did.
    """
    function = getattr(library(), name)
    function.restype = ctypes.c_char_p
    fault = function(*(_argument(argument) for argument in arguments))
    if fault is not None:
        raise Fault(fault.decode())


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, (tuple, list)):  # a grid or a block
        return (ctypes.c_uint * 3)(*value)
    if isinstance(value, str):
        return value.encode()
    return ctypes.c_size_t(value) if value > 1 << 20 else ctypes.c_int(value)


def case_names() -> list[str]:
    """Of faults.cu."""
    function = library().case_names
    function.restype = ctypes.c_char_p
    return str(function().decode()).split()


def marked_lines(case: str) -> list[str]:
    """The places "faults.cu:41" whose line ends with the comment "@case"."""
    lines = (ROOT / KERNELS / "faults.cu").read_text(encoding="utf-8").splitlines()
    return [f"faults.cu:{number}" for number, line in enumerate(lines, 1) if line.endswith(f"// @{case}")]


def set_order(order: str) -> None:
    call("set_order", order)
