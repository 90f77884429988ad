"""Which kernels on tensor cores are chosen on which GPU, and that what is said of them is what is launched."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from planned_devices import RESNET, Described, layer, module

import gpucnn
from gpucnn import backend
from gpucnn.ops import compiled, conv2d, linear, planned
from gpucnn.ops.linear import LinearProblem
from gpucnn.ops.registry import KernelTable, first_choice
from gpucnn.problem import conv2d_problem

SMALL_MODEL_ERROR = 1e-9


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """on(name): kernels are chosen for that device."""

    def choose_for(name: str) -> None:
        found = Described(name)
        monkeypatch.setattr(compiled, "_arithmetic_of", lambda backend: found)

    return choose_for


def chosen(table: KernelTable, p: Any, dtype: str = "float32") -> str:
    like = np.empty(0, backend.bfloat16() if dtype == "bfloat16" else dtype)
    found = first_choice(table.specs("cuda"), p, like)
    assert found is not None
    return found.name


# -------------------------------------------------------------------------------------------- which kernel, and why


@pytest.mark.parametrize("name", RESNET)
def test_float32_is_split_where_that_is_faster(on: Any, name: str) -> None:
    """At about nine times float32's own rate on an H100 and 16 times on an A100; at twice that rate it does not pay."""
    for table in (conv2d.fprop, conv2d.dgrad, conv2d.wgrad):
        for device in ("h100", "a100"):
            on(device)
            assert chosen(table, layer(name)) == "split_bf16"
        on("rtx4090")
        assert chosen(table, layer(name)) in ("implicit_gemm", "pointwise")
        assert chosen(table, layer(name), "bfloat16") == "tensor_core"


def test_linear_layers_are_split_by_the_same_rule(on: Any) -> None:
    p = LinearProblem(1024, 1024, 1024)
    for table in (linear.fprop, linear.dgrad, linear.wgrad):
        on("h100")
        assert chosen(table, p) == "split_bf16"
        on("rtx4090")
        assert chosen(table, p) == "tiled"


def test_a_kernel_that_is_passed_over_runs_when_asked_for_and_where_no_other_can(on: Any) -> None:
    on("rtx4090")
    x = np.zeros((1, 8, 8, 64), np.float32)
    p = layer("3x3 of 64")
    with backend.use_backend("simt", strict=True):
        assert conv2d.fprop.pick(p, x).name == "implicit_gemm"
        assert conv2d.fprop.pick(p, x, "split_bf16").name == "split_bf16"
    only = [spec for spec in conv2d.fprop.specs("simt") if spec.name == "split_bf16"]
    assert first_choice(only, p, x) is only[0]


def test_explain_tells_the_times_that_were_compared(on: Any) -> None:
    call = ("conv2d", (32, 64, 56, 56), (64, 64, 3, 3))
    on("h100")
    found = str(gpucnn.explain(*call, padding=1, backend="cuda"))
    line = r"> split_bf16 +runs: the first that can; tile 128x64, ([0-9.]+) us expected, ([0-9.]+) us in float32\n"
    told = re.search(line, found)
    assert told is not None
    assert float(told[1]) < float(told[2])
    on("rtx4090")
    found = str(gpucnn.explain(*call, padding=1, backend="cuda"))
    assert re.search(r"  split_bf16 +can, but slower: [0-9.]+ us expected, [0-9.]+ us in float32\n", found)
    assert re.search(r"> implicit_gemm +runs: expected to be the fastest; tile", found)
    half = str(gpucnn.explain(*call, padding=1, backend="cuda", dtype="bfloat16"))
    assert re.search(r"> tensor_core +runs: the first that can; tile \d+x\d+, ", half)
    assert "parts, " in half


def test_a_moved_byte_counts_where_there_is_little_to_multiply() -> None:
    p = layer("1x1, 64 to 256")
    found = planned.seconds(Described("h100"), "16-bit", "fprop", p, 2)
    numbers = 32 * 56 * 56 * (64 + 256) + 64 * 256
    assert math.isclose(found, 2 * numbers / 3.35e12, rel_tol=SMALL_MODEL_ERROR)


# ------------------------------------------------------------------------------------- what is said is what is launched

LAUNCHED = [
    ((1, 16, 6, 5), (16, 16, 3, 3), 1, 1),
    ((2, 64, 28, 28), (128, 64, 1, 1), 2, 0),
    ((3, 16, 14, 14), (16, 16, 3, 3), 1, 1),
    ((1, 8, 60, 60), (8, 8, 2, 2), (2, 3), 1),
    ((70, 64, 1, 1), (72, 64, 1, 1), 1, 0),
]


@pytest.mark.parametrize("sizes", LAUNCHED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_the_tile_and_the_parts_that_are_named_are_launched(sizes: Any, dtype: str, precision: str) -> None:
    simt = module()
    p = conv2d_problem(*sizes, 1, 1, precision)
    x, w = np.zeros((p.N, p.H, p.W, p.C), dtype), np.zeros((p.K, p.R, p.S, p.C), dtype)
    dy = np.zeros((p.N, p.P, p.Q, p.K), dtype)
    name = "tensor_core" if dtype == "float16" else "tf32" if precision == "high" else "split_bf16"
    for table, arrays in ((conv2d.fprop, (x, w, None)), (conv2d.dgrad, (dy, w)), (conv2d.wgrad, (x, dy))):
        (spec,) = [spec for spec in table.specs("simt") if spec.name == name]
        said = spec.run.configuration(p, dtype)
        simt.launched()
        spec.run.on(simt, p, *arrays)
        kernel = next(name for _, name, *_ in simt.launched() if "Shape<" in name)
        rows, columns = kernel.split("Shape<")[1].split(", ")[:2]
        assert said.startswith(f"tile {rows}x{columns},"), (said, kernel)
        if table is conv2d.wgrad:
            parts = simt.conv2d_tensor_core_wgrad_splits(p)
            assert (f", {parts} parts" in said) == (parts > 1), said


def test_the_parts_of_few_windows_are_named(on: Any) -> None:
    """By those that cut them for an H100 on every machine."""
    p = conv2d_problem((1, 64, 5, 5), (64, 64, 3, 3), 1, 1, 1, 1)
    simt, like = module(), np.empty(0, np.float16)
    for table, splits in (
        (conv2d.fprop, simt.conv2d_tensor_core_cut_fprop_splits(p)),
        (conv2d.dgrad, simt.conv2d_tensor_core_cut_dgrad_splits(p)),
    ):
        for device in ("h100", "a100", "rtx4090"):
            on(device)
            (spec,) = [spec for spec in table.specs("cuda") if spec.name == "tensor_core_cut"]
            assert spec.why_not(p, like) is None
            assert spec.run.configuration(p, "float16").startswith(f"tile 64x64, {splits} parts, ")
            times = [
                planned.plan(Described(device), "16-bit", table.direction, p, 0, n)["seconds"] for n in (0, splits)
            ]
            assert (spec.why_later(p, like) is None) == (times[1] <= times[0])


def test_few_windows_with_long_sums_are_cut_where_that_is_faster(on: Any) -> None:
    """The last stage of ResNet-50 for one image."""
    p = layer("3x3 of 512", N=1)
    for device in ("h100", "a100", "rtx4090"):
        on(device)
        assert chosen(conv2d.fprop, p, "bfloat16") == "tensor_core_cut"
        assert chosen(conv2d.dgrad, p, "bfloat16") == "tensor_core_cut"
    on("h100")
    said = str(
        gpucnn.explain("conv2d", (1, 256, 14, 14), (64, 256, 1, 1), dtype="float16", backend="cuda", backward=False)
    )
    assert re.search(r"  tensor_core_cut +can, but slower: [0-9.]+ us expected, [0-9.]+ us without parts\n", said)
