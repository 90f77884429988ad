"""gpucnn.bench.measure: rivals compute the same, a wrong one is never timed, and rows say what was measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpucnn.bench import measure, rivals
from gpucnn.bench.cases import RANDOM, Case, Truth, chosen_passes
from gpucnn.bench.machine import Machine
from gpucnn.bench.measure import Field, Row, able, judged
from gpucnn.bench.plain_rival import _MAKERS, Plain
from gpucnn.bench.rivals import Own, Prepared
from gpucnn.bench.suites import example
from gpucnn.bench.torch_rival import Torch
from gpucnn.bench.turns import Here
from gpucnn.ops.conv2d import fprop
from gpucnn.ops.registry import KernelTable
from gpucnn.testing import rotating_seed

IMAGE = (2, 6, 9, 8)
NORM = {"input": IMAGE, **dict.fromkeys(("running_mean", "running_var", "weight", "bias"), (6,))}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("conv2d", {"input": IMAGE, "weight": (4, 6, 3, 2), "bias": (4,), "stride": (2, 1), "padding": (1, 0)}),
    ("conv2d", {"input": IMAGE, "weight": (4, 3, 3, 3), "groups": 2, "dilation": 2, "padding": 2}),
    ("conv2d", {"input": IMAGE, "weight": (6, 1, 3, 3), "groups": 6, "stride": 2, "bias": (6,)}),
    ("conv2d_relu", {"input": IMAGE, "weight": (4, 6, 3, 3), "bias": (4,)}),
    ("linear", {"input": (5, 7), "weight": (3, 7), "bias": (3,)}),
    ("linear", {"input": (5, 2, 7), "weight": (3, 7)}),
    ("batch_norm", {**NORM, "training": True}),
    ("batch_norm", {**NORM, "training": False}),
    ("batch_norm_relu", {**NORM, "training": True, "residual": IMAGE}),
    ("batch_norm_relu", {**NORM, "training": True, "max_val": 6.0}),
    ("relu", {"input": IMAGE}),
    ("relu6", {"input": IMAGE}),
    ("add", {"self": IMAGE, "other": IMAGE}),
    ("max_pool2d", {"input": IMAGE, "kernel_size": 3, "stride": 2, "padding": 1}),
    ("avg_pool2d", {"input": IMAGE, "kernel_size": (2, 3)}),
    ("cat", {"tensors": [(2, 3, 4, 4), (2, 5, 4, 4)], "dim": 1}),
    ("sgd", {"param": (40, 5), "grad": (40, 5)}),
    ("sgd", {"param": (40,), "grad": (40,), "lr": 0.1, "momentum": 0.5}),
]
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("conv_transpose2d", {"input": IMAGE, "weight": (6, 4, 3, 3), "stride": 2}),
    ("max_pool2d", {"input": IMAGE, "kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ("pad", {"input": IMAGE, "pad": [1, 2, 0, 1]}),
    ("adam", {"param": (40, 5), "grad": (40, 5)}),
    *[
        (name, {"input": IMAGE, **example(name, IMAGE)})
        for name in (
            *("group_norm", "layer_norm", "instance_norm", "local_response_norm", "adaptive_avg_pool2d", "softmax"),
            *("log_softmax", "cross_entropy", "interpolate", "pixel_shuffle", "gelu", "mse_loss"),
        )
        if name != "pixel_shuffle"
    ],
]


def cases(op: str, arguments: dict[str, Any], dtype: str = "float32") -> list[Case]:
    return [Case(op, arguments, direction, dtype) for direction in chosen_passes(op, ("fwd", "bwd"))]


def check(rival: Any, case: Case, seed: int, kernel: str | None = None) -> Prepared:
    prepared: Prepared = rival.prepare(case, seed, kernel)
    assert prepared.failed == "", f"{rival.name} {case}"
    error, is_right = judged(case, Truth(case, seed, "cpu"), rival.name, prepared.outputs)
    assert is_right, f"{rival.name} {case}: {error}"
    assert rival.round(kernel, 0.0) > 0
    rival.drop()
    return prepared


@pytest.mark.parametrize(("op", "arguments"), [*CALLS, *OTHERS])
def test_gpucnn_computes_what_the_truth_says(op: str, arguments: dict[str, Any]) -> None:
    own, seed = Own("reference", "reference", "cpu"), rotating_seed()
    for case in cases(op, arguments):
        prepared = check(own, case, seed)
        assert prepared.kernel
        assert prepared.moved > 0


@pytest.mark.parametrize(("op", "arguments"), CALLS)
def test_plain_numpy_computes_the_same(op: str, arguments: dict[str, Any]) -> None:
    plain, seed = Plain("numpy", "cpu"), rotating_seed()
    for case in cases(op, arguments):
        if op in _MAKERS:
            check(plain, case, seed)
        else:
            assert "not written in plain numpy" in plain.prepare(case, seed).failed


@pytest.mark.peers
@pytest.mark.parametrize("name", ["torch", "torch default"])
@pytest.mark.parametrize(("op", "arguments"), [*CALLS, *OTHERS])
def test_pytorch_computes_the_same(op: str, arguments: dict[str, Any], name: str, torch: Any) -> None:
    rival, seed = Torch(name, "cpu"), rotating_seed()
    for case in cases(op, arguments):
        check(rival, case, seed)


@pytest.mark.peers
def test_pytorch_says_what_it_can_not(torch: Any) -> None:
    rival = Torch("torch", "cpu")
    assert rival.prepare(Case("bed_of_nails", {"input": IMAGE}), 0).failed == "PyTorch has no bed_of_nails"
    wrong = Case("conv2d", {"input": IMAGE, "weight": (4, 5, 3, 3)})
    assert "groups" in rival.prepare(wrong, 0).failed


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_compared_with_16_bits(dtype: str, torch: Any) -> None:
    pytest.importorskip("ml_dtypes")
    seed = rotating_seed()
    for op, arguments in (CALLS[0], CALLS[6]):
        for case in cases(op, arguments, dtype):
            check(Own("reference", "reference", "cpu"), case, seed)
            prepared = Torch("torch", "cpu").prepare(case, seed)
            assert all(output.dtype == np.float32 for output in prepared.outputs)
            assert judged(case, Truth(case, seed, "cpu"), "torch", prepared.outputs)[1]


def test_every_kernel_on_the_cpus_threads_computes_the_same(simt: Any) -> None:
    """Of the CUDA kernels, compiled for the CPU."""
    op, arguments = CALLS[0]
    own = Own("simt", "simt", "cpu")
    for case in cases(op, arguments):
        names = able(case, "simt")
        assert "direct" in names
        assert {check(own, case, 3, name).kernel.partition("+")[0] for name in names} == set(names)


# ------------------------------------------------------------------------------------------------ what is judged


def test_one_wrong_element_is_enough_and_nan_is_wrong() -> None:
    case = Case("relu", {"input": (40, 50)})
    truth = Truth(case, 1, "cpu")
    right = truth.outputs["fwd"][0].astype(np.float32)
    assert judged(case, truth, "reference", [right])[1]
    for value in (np.nan, np.inf, right[3, 4] + 1e-3):
        wrong = right.copy()
        wrong[3, 4] = value
        error, is_right = judged(case, truth, "reference", [wrong])
        assert not is_right
        assert error > 1e-4
    assert judged(case, truth, "reference", [right[:-1]]) == (math.inf, False)
    assert judged(case, truth, "reference", []) == (math.inf, False)


def test_what_was_rounded_to_tf32_is_judged_as_that() -> None:
    case = Case("linear", {"input": (30, 40), "weight": (20, 40)})
    truth = Truth(case, 1, "cpu")
    off = truth.outputs["fwd"][0] * (1 + 2.0**-11)
    assert not judged(case, truth, "torch", [off])[1]
    assert judged(case, truth, "torch default", [off])[1]
    assert judged(dataclasses.replace(case, precision="high"), truth, "torch", [off])[1]


# ------------------------------------------------------------------------------------------------ rows


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """All contestants in this process, and ceilings that need no measuring."""
    monkeypatch.setattr(measure, "Apart", Here)
    return Machine("cpu", "a test", {"cores": 1}, {1 << 40: 1e9}, {"float32": 1e10})


def measured(machine: Machine, cases: list[Case], against: list[str], kernels: str | None = None) -> list[Row]:
    rows: list[Row] = []
    with Field(machine, "cpu", ("reference",), against) as field:
        field.measure(cases, kernels, 3, 0.0, 7, rows.extend)
    return rows


def test_a_row_says_what_was_measured_and_its_bound(here: Machine) -> None:
    own, numpy = measured(here, [Case("linear", {"input": (5, 7), "weight": (3, 7)}, layer="7->3", count=4)], ["numpy"])
    assert (own.layer, own.op, own.direction, own.count, own.contestant) == ("7->3", "linear", "fwd", 4, "reference")
    assert (own.problem, own.dtype, own.rounds) == ("input=(5,7),weight=(3,7)", "float32", 3)
    seconds = 1e-6 * own.microseconds
    moved, operations = 4 * (5 * 7 + 3 * 7 + 5 * 3), 2 * 5 * 7 * 3
    assert own.gbs == pytest.approx(1e-9 * moved / seconds)
    assert own.tflops == pytest.approx(1e-12 * operations / seconds)
    assert own.bound_us == pytest.approx(1e6 * moved / 1e9)
    assert own.bound_by == "bytes"
    assert own.share == pytest.approx(own.bound_us / own.microseconds)
    assert 0 <= own.error < 1e-6
    assert (numpy.contestant, numpy.bound_us, numpy.kernel) == ("numpy", own.bound_us, "")
    assert own.case == numpy.case
    assert own.to_dict()["pass"] == "fwd"


@pytest.fixture
def wrong_kernel() -> Iterator[str]:
    """Of conv2d's forward: one element is off by a thousandth."""
    right = fprop.specs("reference")[-1]

    def run(problem: Any, *arrays: Any) -> Any:
        y = np.array(right.run(problem, *arrays))
        y.flat[3] += 1e-3
        return y

    fprop.add("nearly", "reference", run)
    yield "nearly"
    specs = fprop._by_backend["reference"]
    specs[:] = [spec for spec in specs if spec.name != "nearly"]


def test_a_wrong_kernel_is_not_timed(here: Machine, wrong_kernel: str) -> None:
    case = Case("conv2d", {"input": IMAGE, "weight": (4, 6, 3, 3)})
    rows = measured(here, [case], ["numpy"], "all")
    by_kernel = {row.kernel: row for row in rows}
    assert by_kernel["nearly"].status == "WRONG"
    assert by_kernel["nearly"].microseconds is None
    assert by_kernel["nearly"].error > 1e-5
    assert [row.status for row in rows if row.kernel != "nearly"] == ["ok"] * (len(rows) - 1)
    assert by_kernel["nearly"].chosen is False
    assert sum(row.chosen for row in rows if row.contestant == "reference") == 1


def test_a_kernel_that_can_not_run_it_says_why_and_the_rest_runs(here: Machine) -> None:
    case = Case("conv2d", {"input": IMAGE, "weight": (4, 6, 3, 3)})
    default, asked = measured(here, [case], [], "depthwise")
    assert default.status == "ok"
    assert asked.status.startswith("failed: conv2d fprop: kernel 'depthwise' can't run this")
    assert asked.microseconds is None


def test_a_baseline_that_is_not_installed_says_so(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    find = rivals.importlib.util.find_spec
    monkeypatch.setattr(rivals.importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    rows = measured(here, [Case("relu", {"input": IMAGE})], ["torch", "torch default", "numpy"])
    assert [(row.contestant, row.status == "ok") for row in rows] == [
        *(("reference", True), ("numpy", True)),
        *(("torch", False), ("torch default", False)),
    ]
    assert rows[2].status == "missing: torch is not installed: pip install 'gpucnn[peers]'"


@pytest.mark.peers
def test_random_numbers_of_others_are_others(here: Machine, torch: Any) -> None:
    assert "dropout" in RANDOM
    own, peer = measured(here, [Case("dropout", {"input": (50, 60), "p": 0.5})], ["torch"])
    assert (own.status, own.error) == ("ok", pytest.approx(0, abs=1e-6))
    assert (peer.status, peer.error) == ("ok", None)
    assert peer.microseconds > 0


def test_the_default_is_not_measured_twice(here: Machine) -> None:
    case = Case("conv2d", {"input": IMAGE, "weight": (4, 6, 3, 3)})
    names = [row.kernel for row in measured(here, [case], [], "all")]
    assert sorted(names) == sorted(set(names))
    assert set(able(case, "reference")) == set(names)


def test_baselines_are_read_and_refused() -> None:
    assert Field.baselines("torch,numpy") == ["torch", "torch default", "numpy"]
    assert Field.baselines("none") == []
    assert Field.baselines("cupy") == ["cupy"]
    with pytest.raises(ValueError, match="no baseline 'cudnn', there are: torch, numpy, cupy, none"):
        Field.baselines("cudnn")


def test_a_baseline_of_another_kind_of_device_says_so(here: Machine) -> None:
    own, cupy = measured(here, [Case("relu", {"input": IMAGE})], ["cupy"])
    assert own.status == "ok"
    assert cupy.status == "missing: cupy computes on a GPU, this is measured on cpu"


def test_kernels_see_other_numbers_in_each_sample(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sample finds its input where the last one left it."""
    seen: list[int] = []
    called = KernelTable.__call__

    def note(self: KernelTable, problem: Any, *arrays: Any, **options: Any) -> Any:
        seen.append(arrays[0].ctypes.data)
        return called(self, problem, *arrays, **options)

    own = Own("reference", "reference", "cpu")
    own.prepare(Case("relu", {"input": IMAGE}), 0, None)
    monkeypatch.setattr(KernelTable, "__call__", note)
    for _ in range(rivals.SETS):  # of two steps each
        own.round(None, 0.0)
    assert seen[: rivals.SETS] == seen[rivals.SETS :]
    assert len(set(seen)) == rivals.SETS
