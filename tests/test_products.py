"""The configuration of a product that gpucnn.explain names is the one that is launched."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from binding_checks import loaded

import gpucnn
from gpucnn import backend, extension
from gpucnn.ops import conv2d, linear
from gpucnn.ops.linear import LinearProblem
from gpucnn.problem import Conv2dProblem, conv2d_problem

CONVOLUTIONS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "few windows": ("implicit_gemm", ((1, 16, 6, 5), (16, 16, 3, 3), 1, 1)),
    "many windows, few filters": ("implicit_gemm", ((1, 8, 93, 93), (32, 8, 1, 2))),
    "many pixels, few channels": ("implicit_gemm", ((1, 32, 93, 93), (8, 32, 2, 1), 1, (1, 0))),
    "classes of pixels": ("implicit_gemm", ((1, 32, 94, 93), (16, 32, 3, 3), (2, 3), 1)),
    "fewer pixels than strides": ("implicit_gemm", ((1, 16, 2, 3), (16, 16, 2, 3), (5, 4))),
    "channels of float32 alone": ("implicit_gemm", ((2, 12, 7, 6), (12, 12, 3, 3))),
    "narrow": ("implicit_gemm", ((2, 9, 7, 6), (16, 9, 3, 3))),
    "narrow backwards": ("implicit_gemm", ((2, 16, 7, 6), (9, 16, 3, 3))),
    "several parts": ("implicit_gemm", ((2, 16, 24, 24), (16, 16, 1, 1), 2)),
    "pointwise": ("pointwise", ((2, 16, 9, 7), (24, 16, 1, 1))),
    "pointwise, many pixels": ("pointwise", ((1, 8, 93, 93), (32, 8, 1, 1))),
    "pointwise, narrow": ("pointwise", ((2, 6, 9, 7), (24, 6, 1, 1))),
}
PRODUCTS = [(70, 24, 16), (8449, 32, 8), (8449, 8, 32), (8, 32, 8449), (1000, 16, 16), (70, 9, 16), (70, 24, 6)]
"""M, O and I."""


@pytest.fixture
def simt(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = loaded("_simt_plain")
    monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", "plain")
    with backend.use_backend("simt", strict=True):
        yield module


def launched(module: Any) -> str:
    """What was, in the words of explain()."""
    names = [name for _, name, *_ in module.launched()]
    found = re.search(r"Shape<(\d+), (\d+), \d+, \d+>, (true|false)", names[0])
    assert found is not None, names
    return f"tile {found[1]}x{found[2]}{'' if found[3] == 'true' else ' by single elements'}"


def check(module: Any, table: Any, kernel: str, problem: Any, *arrays: Any) -> str:
    (spec,) = [spec for spec in table.specs("simt") if spec.name == kernel]
    said = spec.run.configuration(problem, arrays[0].dtype.name)
    module.launched()
    spec.run.on(module, problem, *arrays)
    assert said.partition(",")[0] == launched(module), (problem, arrays[0].dtype)
    return str(said)


def zeros(shape: tuple[int, ...], dtype: str) -> Any:
    array = np.zeros(shape, dtype)
    assert array.ctypes.data % 16 == 0
    return array


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in CONVOLUTIONS),
        *((name, "float16") for name, (kernel, _) in CONVOLUTIONS.items() if kernel == "pointwise"),
    ],
)
def test_convolutions(simt: Any, name: str, dtype: str) -> None:
    kernel, (x_shape, w_shape, *arguments) = CONVOLUTIONS[name]
    p: Conv2dProblem = conv2d_problem(x_shape, w_shape, *(arguments + [1, 0, 1, 1][len(arguments) :]))
    x, w = zeros((p.N, p.H, p.W, p.C), dtype), zeros((p.K, p.R, p.S, p.C), dtype)
    dy = zeros((p.N, p.P, p.Q, p.K), dtype)
    check(simt, conv2d.fprop, kernel, p, x, w, None)
    check(simt, conv2d.dgrad, kernel, p, dy, w)
    said = check(simt, conv2d.wgrad, kernel, p, x, dy)
    parts = getattr(simt, f"conv2d_{kernel}_wgrad_splits")(p)
    assert said.endswith(f", {parts} parts") if parts > 1 else "parts" not in said


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("sizes", PRODUCTS, ids=str)
def test_products(simt: Any, sizes: tuple[int, int, int], dtype: str) -> None:
    M, O, I = sizes  # noqa: E741
    p = LinearProblem(M, I, O)
    x, w, dy = zeros((M, I), dtype), zeros((O, I), dtype), zeros((M, O), dtype)
    check(simt, linear.fprop, "tiled", p, x, w, None)
    check(simt, linear.dgrad, "tiled", p, dy, w)
    said = check(simt, linear.wgrad, "tiled", p, x, dy)
    parts = simt.matmul_tn_parts(M, O, I)
    assert said.endswith(f", {parts} parts") if parts > 1 else "parts" not in said


def test_the_cases_tell_the_configurations_apart(simt: Any) -> None:
    said = {
        spec.run.configuration(LinearProblem(rows, inputs, outputs), "float32")
        for rows, outputs, inputs in PRODUCTS
        for table in (linear.fprop, linear.dgrad, linear.wgrad)
        for spec in table.specs("simt")
        if spec.name == "tiled"
    }
    assert {"tile 64x64", "tile 128x32", "tile 64x64 by single elements"} < said
    assert any("parts" in words for words in said)


def test_large_products_get_large_tiles(simt: Any) -> None:
    found = gpucnn.explain(
        "conv2d", (32, 60, 56, 56), (64, 60, 3, 3), padding=1, backend="cuda", kernel="implicit_gemm"
    )
    assert re.search(r"> implicit_gemm +runs: asked for; tile 128x64\n", str(found))
    found = gpucnn.explain("conv2d", (32, 64, 56, 56), (64, 64, 3, 3), padding=1, backend="cuda")
    for each in found.passes:
        for candidate in each.candidates["cuda"]:
            assert (candidate.configuration is not None) == (candidate.runs and candidate.kernel == "split_bf16")
    assert "parts" in str(found)


def test_without_a_module_nothing_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "load", lambda name="_cuda": None)
    found = gpucnn.explain("conv2d", (2, 64, 9, 9), (64, 64, 3, 3), backend="cuda", backward=False)
    (runs,) = [candidate for candidate in found.passes[0].candidates["cuda"] if candidate.runs]
    assert runs.configuration is None
    assert "tile" not in str(found)
