"""Array code runs on cupy as it stands: every reference kernel, through the public functions, on a strict stand-in.

The stand-in knows cupy's functions with cupy's parameters and refuses numpy arrays; results must be numpy's, bit by
bit, and every kernel of every table must have run.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from public_calls import CALLS, Maker
from strict_cupy import FACTS, StrictArray, check_call, strict_cupy

import gpucnn
from gpucnn import backend
from gpucnn.ops.registry import TABLES
from gpucnn.testing import assert_equal

RAN: set[tuple[str, str, str]] = set()
"""(op, direction, kernel) of what has run on strict arrays in this session."""


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in as cupy, and every kernel that runs on its arrays noted in RAN."""
    module = strict_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    backend.gpu_count.cache_clear()
    for (op, direction), table in TABLES.items():
        noted = []
        for spec in table.specs("reference"):

            def run(*arguments: Any, spec: Any = spec, op: str = op, direction: str = direction) -> Any:
                lists = [argument if isinstance(argument, list) else [argument] for argument in arguments]
                if any(isinstance(each, StrictArray) for arrays in lists for each in arrays):
                    RAN.add((op, direction, spec.name))
                return spec.run(*arguments)

            noted.append(dataclasses.replace(spec, run=run))
        monkeypatch.setitem(table._by_backend, "reference", noted)
    with gpucnn.use_backend("reference"):
        yield module
    backend.gpu_count.cache_clear()


def run_call(name: str, device: str, dtype: str) -> list[np.ndarray]:
    """The outputs of a call and the gradients of what it made, as numpy arrays."""
    gpucnn.manual_seed(3)
    maker = Maker(device, dtype)
    result = CALLS[name](maker)
    outputs = [output for output in (result if isinstance(result, tuple) else (result,)) if output is not None]
    for output in outputs:
        assert isinstance(output.data, np.ndarray if device == "cpu" else StrictArray), name
    with_history = [output for output in outputs if output.requires_grad]
    for output in with_history:
        output.backward(maker.values(output.shape), retain_graph=True)
    gradients = [leaf.grad for leaf in maker.leaves if leaf.grad is not None]
    assert len(gradients) == (len(maker.leaves) if with_history else 0), name
    return [np.array(tensor.numpy()) for tensor in (*outputs, *gradients)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", CALLS)
def test_results_are_numpys(name: str, dtype: str, cupy: Any) -> None:
    expected = run_call(name, "cpu", dtype)
    found = run_call(name, "cuda:0", dtype)
    assert len(found) == len(expected)
    for number, (ours, truth) in enumerate(zip(found, expected, strict=True)):
        assert_equal(ours, truth, dtype=truth.dtype, name=f"{name} {number}")


def test_every_public_function_has_a_call() -> None:
    public = {name for name in gpucnn.functional.__all__}
    assert public - {name.partition(" ")[0] for name in CALLS} == set()


def test_every_kernel_runs(cupy: Any) -> None:
    """In one of these calls at least."""
    for name in CALLS:
        for dtype in ("float32", "float16"):
            run_call(name, "cuda:0", dtype)
    every = {(op, way, spec.name) for (op, way), table in TABLES.items() for spec in table.specs("reference")}
    assert every - RAN == {("dropout", "mask", "philox")}  # which its tests alone ask for by itself


# --------------------------------------------------------------------------------------------- the stand-in is strict


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda xp, a: a + np.ones(3, np.float32), "numpy array|unsupported operand"),
        (lambda xp, a: np.ones(3, np.float32) + a, "unsupported operand|Unsupported"),
        (lambda xp, a: np.exp(a), "Implicit|loop|ufunc|supported"),
        (lambda xp, a: a[np.arange(2)], "numpy array"),
        (lambda xp, a: a[[0, 1]], "a list as an index"),
        (lambda xp, a: a[a > 0, a > 0], "one boolean array"),
        (lambda xp, a: a[: xp.asarray(2)], "no integers"),
        (lambda xp, a: range(a[0]), "cannot be interpreted as an integer"),
        (lambda xp, a: a.__setitem__(0, np.ones(())), "an array of its own or a number"),
        (lambda xp, a: a.__setitem__(slice(2), [1, 2]), "an array of its own or a number"),
        (lambda xp, a: a - [1, 2, 3], "unsupported operand"),
        (lambda xp, a: a.flags.writeable, "writeable"),
        (lambda xp, a: a.astype("int32", casting="safe"), "casting is not supported"),
        (lambda xp, a: a.argsort(kind="mergesort"), "None or 'stable'"),
        (lambda xp, a: a.copy().__iadd__(xp.ones(3, "float32").astype("complex64")), "same_kind|Cannot cast"),
        (lambda xp, a: a.astype("int32").__iadd__(a), "Cannot cast"),
        (lambda xp, a: xp.add(a, a, out=xp.empty(3, "int32")), "Cannot cast"),
        (lambda xp, a: xp.add(a, a, out=np.empty(3, "float32")), "numpy array"),
        (lambda xp, a: xp.where(True, a, a), "no attribute 'astype'"),
        (lambda xp, a: xp.concatenate([a, 1.0]), "Only cupy arrays"),
        (lambda xp, a: xp.maximum.reduce(a), "has no 'reduce'"),
        (lambda xp, a: xp.exp.at(a, 0), "has no 'at'"),
        (lambda xp, a: xp.maximum.at(a.astype("float16"), a.astype("int32"), 1), "does not support float16"),
        (lambda xp, a: xp.sin(a.astype("complex64") > 0) + xp.sign(a > 0), "did not contain a loop|takes no bool"),
        (lambda xp, a: xp.maximum(a, np.zeros(3)), "numpy array"),
        (lambda xp, a: xp.maximum(a, 0, where=True, order="K"), "has no argument order, where"),
        (lambda xp, a: a.sum(axis=0, initial=0), "has no argument initial"),
        (lambda xp, a: xp.matmul(), None),
        (lambda xp, a: xp.add.at(a, np.arange(2), 1), "numpy array"),
        (lambda xp, a: xp.broadcast_to(a), "needs shape"),
        (lambda xp, a: a.put_along, "has no attribute 'put_along'"),
        (lambda xp, a: xp.frompyfunc2, "has no attribute 'frompyfunc2'"),
        (lambda xp, a: np.asarray(a), "Implicit conversion"),
    ],
)
def test_what_cupy_refuses_is_refused(wrong: Any, message: str | None) -> None:
    xp = strict_cupy()
    with pytest.raises((TypeError, AttributeError, ValueError), match=message):
        wrong(xp, xp.asarray(np.ones(3, np.float32)))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda xp, a: a.__setitem__(slice(1, None), a[:-1]), "the values lie where they are to go"),
        (lambda xp, a: a.__setitem__(xp.asarray(np.array([0, 1, 0])), a.copy()), "several values go to the same place"),
        (lambda xp, a: windows(xp, a).__iadd__(1), "overlaps with itself"),
        (lambda xp, a: windows(xp, a).__setitem__(0, 1.0) or windows(xp, a).__setitem__(..., 1.0), "with itself"),
        (lambda xp, a: xp.add(a[:2], 1, out=windows(xp, a)), "overlaps with itself"),
    ],
)
def test_writes_that_only_numpy_puts_in_order_are_refused(write: Any, message: str) -> None:
    xp = strict_cupy()
    with pytest.raises(AssertionError, match=message):
        write(xp, xp.asarray(np.ones(3, np.float32)))


def windows(xp: Any, a: Any) -> Any:
    return xp.lib.stride_tricks.as_strided(a, (2, 2), (4, 4))


def test_writes_in_any_order_are_not_refused() -> None:
    xp = strict_cupy()
    a = xp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    a[:, 0] = a[:, 1]
    a[...] = a
    a[xp.asarray(np.array([1, 1]))] = 7.0
    a.T[1:] += 1
    a[a > 7] = 0
    assert a.values.tolist() == [[1, 2, 3], [7, 0, 0]]


def test_a_result_of_another_dtype_is_found() -> None:
    from strict_cupy import check_loop

    operands = [np.ones(3, np.float32), 2, np.float32(1)]
    check_loop("add", operands[:2], np.dtype("float32"))
    with pytest.raises(AssertionError, match="cupy: add gives float32 where numpy gives float64"):
        check_loop("add", operands[:2], np.dtype("float64"))
    check_loop("add", [np.ones(3, np.int8), 2.0], np.dtype("float64"))
    with pytest.raises(TypeError, match="floor takes no complex64"):
        check_loop("floor", [np.ones(3, np.complex64)], np.dtype("complex64"))


def test_the_stand_in_answers_as_cupy_does() -> None:
    xp = strict_cupy()
    a = xp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert isinstance(a.sum(), StrictArray)
    assert isinstance(a[0, 0], StrictArray)
    assert (a.T + a.T).flags.c_contiguous
    assert xp.exp(a.T).flags.c_contiguous
    assert not a.T.flags.c_contiguous
    assert a.T.sum(axis=0, keepdims=True).flags.c_contiguous
    assert xp.where(a.T > 1, a.T, 0).flags.c_contiguous
    assert not a.T.astype("float64").flags.c_contiguous
    assert not xp.einsum("ij,jk->ik", a, a.T).flags.c_contiguous
    assert isinstance(a == None, StrictArray)  # noqa: E711
    assert np.isnan(xp.empty(3, "float32").values).all()
    c = a
    c @= a.T
    assert c is not a
    assert a[1:].base is a
    assert a[1:].data.ptr == a.data.ptr + 12
    a[1:] += np.float32(1)
    assert a.values.tolist() == [[0, 1, 2], [4, 5, 6]]


def test_the_facts_are_the_installed_cupys() -> None:
    installed = pytest.importorskip("cupy", reason="cupy is not installed")
    if installed.__version__ != FACTS["version"]:
        pytest.skip(f"cupy {installed.__version__} is installed, the facts are of {FACTS['version']}")
    import make_cupy_facts

    assert make_cupy_facts.facts() == FACTS


def test_arguments_are_checked_against_the_facts() -> None:
    check_call("f", ["a", "b=", "*", "c="], (1,), {"c": 2})
    for arguments, options in (((), {}), ((1, 2, 3), {}), ((1,), {"d": 1})):
        with pytest.raises(TypeError, match="cupy: f"):
            check_call("f", ["a", "b=", "*", "c="], arguments, options)
