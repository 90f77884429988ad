"""What the bindings of every compiled module check themselves, and what the modules for the CPU offer besides."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from binding_checks import Fake, cuda, loaded, needs_extension, without_gpu

from gpucnn import extension

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(params=["_cuda", "_simt_plain", "_simt_race"])
def any_module(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the modules, all of which have the same bindings."""
    return loaded(request.param)


@pytest.fixture(params=["_simt_plain", "_simt_race"])
def cpu_module(request: pytest.FixtureRequest) -> ModuleType:
    return loaded(request.param)


def interface_of(module: ModuleType) -> str:
    return "__cuda_array_interface__" if module is cuda else "__array_interface__"


class Elsewhere:
    """An array of the other machine."""

    def __init__(self, interface: str) -> None:
        setattr(self, interface, {"shape": (2, 3), "typestr": "<f4", "data": (1 << 20, False), "version": 3})


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.float32), [1.0], None, 3], ids=["numpy", "list", "None", "int"])
@pytest.mark.parametrize("position", ["x", "y"])
def test_arrays_of_another_machine_are_refused(any_module: ModuleType, array: object, position: str) -> None:
    where, other = "on a CUDA device, such as a cupy.ndarray", "__array_interface__"
    if any_module is not cuda:
        where, other = "in CPU memory, such as a numpy.ndarray", "__cuda_array_interface__"
        array = Elsewhere(other) if isinstance(array, np.ndarray) else array
    arguments = {"dtype": "float32", "x": Fake(), "y": Fake(), "alpha": 2.0, "stream": 0, position: array}
    with pytest.raises(TypeError) as caught:
        any_module.scale(**arguments)
    assert str(caught.value).startswith(f"scale: argument '{position}' must be an array {where}, and is a ")
    assert str(caught.value).endswith(type(array).__name__)


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


@pytest.mark.parametrize(("error", "rule", "interface"), BAD)
@pytest.mark.parametrize("position", ["x", "y"])
def test_arrays_that_a_kernel_can_not_take_are_refused(
    any_module: ModuleType, error: type[Exception], rule: str, interface: dict[str, Any], position: str
) -> None:
    arguments = {"dtype": "float32", "x": Fake(), "y": Fake(), "alpha": 2.0, "stream": 0, position: Fake(**interface)}
    with pytest.raises(error) as caught:
        any_module.scale(**arguments)
    assert rule in str(caught.value)
    assert str(caught.value).startswith(f"scale: argument '{position}'")


@pytest.mark.parametrize("missing", ["shape", "typestr", "data", "version"])
def test_an_incomplete_interface_is_refused(any_module: ModuleType, missing: str) -> None:
    array = Fake()
    del array.__cuda_array_interface__[missing]  # the other attribute is the same dict
    with pytest.raises(TypeError, match=f"{interface_of(any_module)} has no '{missing}'"):
        any_module.scale("float32", array, Fake(), 2.0, 0)


def test_what_an_arrays_own_property_raises_is_not_hidden(any_module: ModuleType) -> None:
    class Tracked:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            raise RuntimeError("detach it first")

        __array_interface__ = __cuda_array_interface__

    with pytest.raises(RuntimeError, match="detach it first"):
        any_module.scale("float32", Tracked(), Fake(), 2.0, 0)


def test_shapes_must_agree_and_an_output_must_be_writable(any_module: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"'x' of shape \(2, 3\) and 'y' of shape \(3, 2\) must have the same shape"):
        any_module.scale("float32", Fake((2, 3)), Fake((3, 2)), 2.0, 0)
    with pytest.raises(ValueError, match=r"'x' of shape \(6,\) and 'y' of shape \(2, 3\)"):
        any_module.scale("float32", Fake((6,)), Fake((2, 3)), 2.0, 0)
    with pytest.raises(ValueError, match=r"argument 'y' of shape \(2, 3\) is read-only"):
        any_module.scale("float32", Fake(), Fake(data=(1 << 21, True)), 2.0, 0)


@pytest.mark.parametrize("offset", [4, 20, -4, -20])
def test_partly_overlapping_arrays_are_refused(any_module: ModuleType, offset: int) -> None:
    with pytest.raises(ValueError, match="overlap in memory without being the same array"):
        any_module.scale("float32", Fake(), Fake(data=((1 << 20) + offset, False)), 2.0, 0)


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
def test_arrays_that_are_right_get_as_far_as_the_missing_device(x: Fake, y: Fake) -> None:
    module = loaded("_cuda")
    with pytest.raises(module.CudaError, match="no CUDA device"):
        module.scale("float32", x, y, 2.0, 0)


def test_alpha_must_fit_float32(any_module: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"alpha=1e\+39 is beyond float32's range"):
        any_module.scale("float32", Fake(), Fake(), 1e39, 0)
    with pytest.raises(TypeError):
        any_module.scale("float32", Fake(), Fake(), "2", 0)


# ----------------------------------------------------------------------------------- the kernels built for the CPU


def test_each_module_for_the_cpu_has_an_exception_of_its_own() -> None:
    modules = [loaded(name) for name in ("_simt_plain", "_simt_race")]
    for module in modules:
        with pytest.raises(module.SimtError) as caught:
            module.set_order("sideways")
        assert type(caught.value) is module.SimtError
        assert f"{type(caught.value).__module__}.{type(caught.value).__name__}" == f"{module.__name__}.SimtError"
        assert issubclass(module.SimtError, RuntimeError)
    assert modules[0].SimtError is not modules[1].SimtError


def test_a_module_says_which_flavour_it_is(cpu_module: ModuleType) -> None:
    assert cpu_module.__name__ == f"gpucnn._simt_{cpu_module.flavour}"
    assert cpu_module.reports() == []


@pytest.mark.parametrize("order", ["sideways", "rand", "rand:", "rand:x", "prio:-1", "fwd:1", "Fwd", " fwd"])
def test_an_order_that_there_is_not_is_refused(
    cpu_module: ModuleType, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.ones(5, np.float32)
    with pytest.raises(cpu_module.SimtError, match="fwd") as caught:
        cpu_module.set_order(order)
    assert repr(order).strip("'\"") in str(caught.value)
    cpu_module.set_order("")
    monkeypatch.setenv("GPUCNN_SIMT_ORDER", order)
    with pytest.raises(cpu_module.SimtError, match=r"^scale: .*fwd.* \(x float32 \(5,\), y float32 \(5,\)\)$"):
        cpu_module.scale("float32", x, x, 2.0, 0)
    monkeypatch.setenv("GPUCNN_SIMT_ORDER", "rev")
    cpu_module.scale("float32", x, x, 2.0, 0)  # the process goes on
    assert (x == 2).all()


@pytest.mark.parametrize(
    ("x", "rule"),
    [
        (np.zeros((2, 3)), "must be float32 ('<f4') and is '<f8'"),
        (np.zeros((2, 3), ">f4"), "must be float32 ('<f4') and is '>f4'"),
        (np.zeros((3, 2), np.float32).T, "must be C-contiguous; numpy.ascontiguousarray() makes it so"),
        (np.zeros((2, 6), np.float32)[:, ::2], "must be C-contiguous"),
        (np.frombuffer(bytearray(32), np.float32, 6, offset=2).reshape(2, 3), "is not aligned to 4 bytes"),
        (np.ma.masked_array(np.zeros((2, 3), np.float32), mask=True), None),
        (np.zeros((3, 2), np.float32), "must have the same shape"),
    ],
    ids=["float64", "big-endian", "fortran", "strided", "odd address", "masked", "shape"],
)
def test_numpy_arrays_that_a_kernel_can_not_take_are_refused(
    cpu_module: ModuleType, x: np.ndarray, rule: str | None
) -> None:
    y = np.full((2, 3), 7, np.float32)
    if rule is None:  # numpy's own masks are no part of the interface that it offers
        cpu_module.scale("float32", x, y, 2.0, 0)
        return
    with pytest.raises((TypeError, ValueError), match=r"^scale: ") as caught:
        cpu_module.scale("float32", x, y, 2.0, 0)
    assert rule in str(caught.value)
    assert (y == 7).all()
    cpu_module.scale("float32", y, y, 2.0, 0)
    assert (y == 14).all()


def test_an_output_that_can_not_be_written_is_refused(cpu_module: ModuleType) -> None:
    y = np.zeros(6, np.float32)
    y.flags.writeable = False
    with pytest.raises(ValueError, match=r"scale: argument 'y' of shape \(6,\) is read-only and would be written"):
        cpu_module.scale("float32", np.zeros(6, np.float32), y, 2.0, 0)
    assert cpu_module.scale("float32", y, np.ones(6, np.float32), 2.0, 0) is None  # an input may be


def test_arrays_without_elements_are_no_launch(cpu_module: ModuleType) -> None:
    x = np.zeros((0, 3), np.float32)
    cpu_module.launched()
    cpu_module.scale("float32", x, np.empty_like(x), 2.0, 0)
    assert cpu_module.launched() == []


def test_kernels_run_from_several_threads(cpu_module: ModuleType) -> None:
    """They take turns; a shared input may be announced to the checkers by several calls at once."""
    x = np.arange(3000, dtype=np.float32)
    results = [np.zeros_like(x) for _ in range(4)]

    def work(index: int) -> None:
        for _ in range(5):
            cpu_module.scale("float32", x, results[index], float(index), 0)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, result in enumerate(results):
        assert (result == index * x).all()
    assert cpu_module.reports() == []


@pytest.mark.skipif(extension.load("_simt_asan") is not None, reason="this process can load the asan flavour")
def test_asan_says_how_to_load_it_instead_of_ending_the_process() -> None:
    try:
        environment = extension.asan_environment()
    except RuntimeError as error:
        pytest.skip(str(error))
    reason = extension.why_missing("_simt_asan")
    assert reason is not None
    assert "needs the sanitizers' runtimes first in the process: LD_PRELOAD=" in reason
    code = "from gpucnn import extension; print(extension.require('_simt_asan').flavour)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.stdout.split() == ["asan"], done.stderr
    prefix = reason.partition("process: ")[2].removesuffix("python ...")  # the advice, taken literally by a shell
    shell = f'{prefix} exec "$0" -c "{code}"'
    done = subprocess.run(["sh", "-c", shell, sys.executable], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["asan"], done.stderr
