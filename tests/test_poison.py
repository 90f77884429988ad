"""The suite's own guard: whoever asks for uninitialised memory gets poison, and there is no other way to get some."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from op_checks import compare

import gpucnn

PACKAGE = Path(gpucnn.__file__).parent
LIKE = np.zeros(1, np.float32)


def sources(*rooms: str) -> Iterator[tuple[str, ast.Module]]:
    for room in rooms:
        for path in sorted((PACKAGE / room).glob("*.py")):
            yield f"gpucnn.{room}.{path.stem}", ast.parse(path.read_text())


def allocators() -> list[tuple[str, str]]:
    """(module, name) of every `empty` and `workspace` that a kernel's module takes from the backend."""
    return [
        (module, alias.asname or alias.name)
        for module, tree in sources("reference", "ops")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "gpucnn.backend"
        for alias in node.names
        if alias.name in ("empty", "workspace")
    ]


def test_kernels_allocate_in_many_modules() -> None:
    modules = {module for module, _ in allocators()}
    assert {"gpucnn.reference.conv2d", "gpucnn.reference.norm", "gpucnn.reference.resample"} < modules
    assert len(modules) > 20


@pytest.mark.parametrize(("module", "name"), allocators())
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_an_element_that_a_kernel_leaves_unwritten_is_caught(module: str, name: str, dtype: str) -> None:
    allocate = getattr(importlib.import_module(module), name)
    truth = np.zeros((3, 4))
    y = allocate(truth.shape, np.dtype(dtype), LIKE)
    y.reshape(-1)[:-1] = 0
    with pytest.raises(AssertionError, match="1 of 12 elements"):
        compare(y, truth, 1)


@pytest.mark.parametrize(("module", "name"), allocators())
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_an_index_that_a_kernel_leaves_unwritten_stands_out(module: str, name: str, dtype: str) -> None:
    allocate = getattr(importlib.import_module(module), name)
    assert (allocate((3, 4), np.dtype(dtype), LIKE) == 0x5A).all()


def test_uninitialised_memory_comes_from_the_backend_alone() -> None:
    found = [
        f"{module}:{node.lineno} {ast.unparse(node.func)}"
        for module, tree in sources("reference", "ops")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("empty", "empty_like", "ndarray")
    ]
    assert not found
