"""gpucnn.explain: which kernel would run, why, and why each other would not, on any machine."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from public_calls import CALLS, Maker

import gpucnn
from gpucnn import backend, models, nn, optim
from gpucnn import functional as F
from gpucnn.cli import main
from gpucnn.ops import conv2d
from gpucnn.ops.registry import TABLES, KernelTable

CONV: dict[str, Any] = {"input": (32, 64, 56, 56), "weight": (64, 64, 3, 3), "bias": (64,), "padding": 1}


def tables(found: gpucnn.books.Explanation) -> list[str]:
    return [f"{each.op} {each.direction}" for each in found.passes]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["cuda", "simt", "reference"])
def test_every_pass_of_a_convolution_is_explained(name: str, dtype: str) -> None:
    found = gpucnn.explain("conv2d", **{**CONV, "input": (2, 64, 9, 9)}, dtype=dtype, backend=name)
    assert tables(found) == ["conv2d fprop", "conv2d dgrad", "conv2d wgrad", "conv2d bgrad"]
    for each, table in zip(found.passes, (conv2d.fprop, conv2d.dgrad, conv2d.wgrad, conv2d.bgrad), strict=True):
        assert each.dtype == dtype
        candidates = each.candidates[name]
        assert [candidate.kernel for candidate in candidates] == [spec.name for spec in table.specs(name)]
        if name != "reference" and dtype == "float64":
            assert each.chosen(name) is None
            assert all("got float64" in candidate.why for candidate in candidates)
            assert "runs instead; under strict=True the call raises" in each.instead[name]
            continue
        (runs,) = [candidate for candidate in candidates if candidate.runs]
        first = next(c for c in candidates if c.can and not c.why.startswith("can, but slower: "))
        assert runs is first
        assert runs.why.startswith("runs")
        for candidate in candidates:
            if not candidate.can:
                assert candidate.why.startswith("can't: needs")
            elif candidate is not runs and "slower" not in candidate.why:
                assert candidate.why == f"can, but {runs.kernel} is preferred"


def test_large_shapes_cost_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel is run where a compiled one knows what it would return."""
    for table in (conv2d.fprop, conv2d.dgrad, conv2d.wgrad, conv2d.bgrad):
        monkeypatch.setitem(table._by_backend, "reference", [])
    found = gpucnn.explain("conv2d", **CONV, backend="cuda")
    assert len(found.passes) == 4
    assert capsys.readouterr().out == f"{found}\n"
    assert str(found).startswith("conv2d(input=(32, 64, 56, 56), weight=(64, 64, 3, 3), bias=(64,), padding=1)\n")


def test_what_is_chosen_is_what_runs() -> None:
    """On the reference, for every public call that a table is asked in."""
    picked: list[tuple[str, str]] = []
    pick = KernelTable.pick

    def noted(table: KernelTable, problem: Any, like: Any, kernel: str | None = None) -> Any:
        spec = pick(table, problem, like, kernel)
        picked.append((str(table), spec.name))
        return spec

    for name in (
        "conv2d depthwise",
        "conv2d strided",
        "max_pool2d",
        "batch_norm",
        "softmax",
        "cat",
        "interpolate area",
    ):
        picked.clear()
        with pytest.MonkeyPatch.context() as monkeypatch, backend.use_backend("reference"):
            monkeypatch.setattr(KernelTable, "pick", noted)
            y = CALLS[name](Maker("cpu", "float32"))
        expected = list(dict.fromkeys(picked))
        assert isinstance(y, (gpucnn.Tensor, tuple))
        found = gpucnn.explain(
            lambda call=CALLS[name]: call(Maker("cpu", "float32")), backend="reference", backward=False
        )
        assert [(f"{each.op} {each.direction}", each.chosen("reference")) for each in found.passes] == expected


@pytest.mark.parametrize("name", CALLS)
def test_every_call_can_be_explained(name: str) -> None:
    found = gpucnn.explain(lambda: CALLS[name](Maker("cpu", "float32")))
    assert all(each.chosen("reference") for each in found.passes)
    assert all(f"{each.op} {each.direction}" in str(found) for each in found.passes)


def test_every_table_is_met() -> None:
    """So that none has a problem that explain() can't get at."""
    met: set[str] = set()
    for call in CALLS.values():
        met |= set(tables(gpucnn.explain(lambda call=call: call(Maker("cpu", "float32")), backend="cuda")))
    # What Dropout draws as it goes, its tests also ask for by itself.
    assert {f"{op} {direction}" for op, direction in TABLES} - met == {"dropout mask"}


@pytest.mark.parametrize(
    ("op", "given", "expected"),
    [
        (
            "max_pool2d",
            {"input": (2, 3, 8, 8), "kernel_size": (2, 2)},
            ["max_pool2d fprop with winners", "max_pool2d dgrad"],
        ),
        ("cross_entropy", {"input": (8, 10), "target": (8,)}, ["cross_entropy forward", "cross_entropy backward"]),
        ("add", {}, ["add forward"]),
        ("sum", {}, ["sum forward"]),
        ("linear", {"input": (8, 5), "weight": (3, 5)}, ["linear fprop", "linear dgrad", "linear wgrad"]),
        (
            "prelu",
            {"input": (2, 3, 4), "weight": 3},
            ["prelu forward", "prelu backward", "prelu weight_grad", "sum forward"],
        ),
    ],
)
def test_shapes_stand_for_tensors(op: str, given: dict[str, Any], expected: list[str]) -> None:
    inputs = ((2, 3, 4, 4),) * (2 if op == "add" else 1) if not given else ()
    found = tables(gpucnn.explain(op, *inputs, backend="cuda", **given))
    assert [table for table in found if table != "copy forward"] == expected


def test_tensors_modules_and_optimisers_are_taken_too() -> None:
    x = gpucnn.zeros(2, 3, 8, 8, dtype="float16")
    (found,) = gpucnn.explain(F.relu, x).passes
    assert found.dtype == "float16"
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    assert "conv2d wgrad" in tables(gpucnn.explain(model, (2, 3, 8, 8)))
    assert model[1].running_mean.numpy().tolist() == [0] * 4
    assert all(parameter.grad is None for parameter in model.parameters())
    assert "adam step" in tables(gpucnn.explain(optim.AdamW, (3, 4), lr=0.1))
    resnet = gpucnn.explain(models.build("resnet20"), (2, 3, 8, 8), backend="simt")
    (first,) = [each for each in resnet.passes if "C=3, R=3" in each.problem and each.direction == "wgrad"]
    assert first.times == 1
    assert any(each.times == 6 for each in resnet.passes)


def test_a_forced_kernel_is_explained() -> None:
    found = gpucnn.explain("conv2d", (2, 3, 8, 8), (4, 3, 3, 3), kernel="im2col", backend="reference", backward=False)
    assert found.passes[0].chosen("reference") == "im2col"
    assert "runs: asked for" in str(found)
    none = gpucnn.explain("conv2d", (2, 3, 8, 8), (4, 3, 3, 3), kernel="pointwise", backend="reference", backward=False)
    assert none.passes[0].chosen("reference") is None
    assert none.passes[0].instead["reference"] == "kernel='pointwise' raises"


def test_what_can_not_be_used_here_is_said() -> None:
    reason = backend.unavailable("cuda")
    found = gpucnn.explain("relu", (2, 3))
    assert found.notes == (() if reason is None else (f"cuda can't be used here: {reason}",)) or "simt" in str(
        found.notes
    )
    assert set(found.passes[0].candidates) == set(backend.BACKENDS)


def test_bad_questions() -> None:
    with pytest.raises(ValueError, match="there is no op 'conv2'; did you mean conv2d"):
        gpucnn.explain("conv2", (2, 3))
    with pytest.raises(ValueError, match="unknown backend 'gpu'"):
        gpucnn.explain("relu", (2, 3), backend="gpu")
    with pytest.raises(ValueError, match="has C=5 channels, but weight"):
        gpucnn.explain("conv2d", (2, 5, 8, 8), (4, 3, 3, 3))
    with pytest.raises(TypeError):
        gpucnn.explain("relu", (2, 3), alpha=3)
    before = np.float32(gpucnn.ones(2).sum().item())  # nothing observes any more
    assert before == 2


def test_on_the_command_line() -> None:
    words = ["explain", "conv2d", "input=2,64,9,9", "weight=64,64,3,3", "padding=same", "--backend", "cuda"]
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 0, shown.output
    assert "conv2d wgrad (float32)" in shown.output
    found = json.loads(CliRunner().invoke(main, [*words, "--json", "--forward"]).output)
    assert [each["direction"] for each in found["passes"]] == ["fprop"]
    wrong = CliRunner().invoke(main, ["explain", "conv2d", "2,64,9,9"])
    assert wrong.exit_code == 2
    assert "is not NAME=VALUE" in wrong.output
