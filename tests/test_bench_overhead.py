"""The launch-overhead study: what is timed is what is said, and nothing else is replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from gpucnn import backend, extension
from gpucnn.bench import overhead
from gpucnn.bench.overhead import ABOVE_BINDINGS, OURS, PEER, WHOLE, lines, measure, notes
from gpucnn.bench.stack_calls import OPS
from gpucnn.bench.stacks import STEP, Gpucnn
from gpucnn.bench.turns import Here
from gpucnn.cli.main import main
from gpucnn.ops.registry import kernels_replaced

SHORT = 1e-4

LAYERS = {
    **dict.fromkeys(OPS, ("table", "function", "recorded", "module", "backward")),
    **{"add": ("table", "function", "recorded", "backward"), "lenet5": (STEP,)},
}


def counting(counts: list[str]) -> AbstractContextManager[None]:
    """Inside, `counts` gets the name of each kernel that runs."""

    def counted(table: Any, spec: Any) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            counts.append(f"{table}")
            return spec.run(*arguments)

        return run

    return kernels_replaced(counted)


@pytest.mark.parametrize("op", OPS)
def test_without_kernels_each_layer_is_called_and_no_kernel_runs(op: str) -> None:
    counts: list[str] = []
    with counting(counts):
        stack = Gpucnn("ours", "none", "reference", "cpu")
        assert stack.layers(op) == LAYERS[op]
        for layer in LAYERS[op]:
            stack.seconds(op, layer, SHORT)
            before = len(counts)
            assert before
            returned, done = stack.seconds(op, layer, SHORT)
            assert len(counts) == before
            assert 0 < returned <= done


@pytest.mark.parametrize("op", OPS)
def test_answers_at_hand_are_those_of_the_kernels(op: str) -> None:
    stack = Gpucnn("ours", "none", "reference", "cpu")
    for layer in LAYERS[op]:
        run, around = stack._ready(op, layer)
        expected = arrays(run())
        for _ in range(2):
            with around():
                found = arrays(run())
            assert len(expected) == len(found) > 0
            for a, b in zip(expected, found, strict=True):
                np.testing.assert_array_equal(a, b)


def arrays(answer: Any) -> list[np.ndarray[Any, Any]]:
    """Of a tensor, of an array, or of several."""
    each = answer if isinstance(answer, tuple) else (answer,)
    return [np.asarray(one) for one in each]


@pytest.mark.parametrize("op", OPS)
def test_above_the_bindings_no_binding_is_called(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    simt: Any = pytest.importorskip("gpucnn._simt_plain")
    calls: list[str] = []

    class Counting:
        def __init__(self) -> None:
            vars(self).update({name: value for name, value in vars(simt).items() if not callable(value)})

        def __getattr__(self, name: str) -> Any:
            found = getattr(simt, name)

            def call(*arguments: Any, **options: Any) -> Any:
                calls.append(name)
                return found(*arguments, **options)

            return call

    module = Counting()
    monkeypatch.setattr(extension, "compiled", lambda backend: module)
    stack = Gpucnn("ours", "bindings", "simt", "cpu")
    for layer in stack.layers(op):
        stack.seconds(op, layer, SHORT)
        before = len(calls)
        assert before
        stack.seconds(op, layer, SHORT)
        assert (len(calls) == before) == (layer != "binding")
    assert ("binding" in stack.layers(op)) == (op in ("relu", "add", "conv2d", "linear"))


def test_the_backend_is_the_one_before_afterwards() -> None:
    with backend.use_backend("reference"):
        stack = Gpucnn("ours", "own", "simt", "cpu")
        stack.result("add")
        assert backend.current_backend() == "reference"


class Fake:
    """A contestant that takes as long as it says."""

    def __init__(self, layers: tuple[str, ...], microseconds: list[float], results: list[Any]) -> None:
        self._layers, self._microseconds, self._results = layers, iter(microseconds), results

    def layers(self, op: str) -> tuple[str, ...]:
        return self._layers

    def result(self, op: str) -> list[Any]:
        return self._results

    def seconds(self, op: str, layer: str, at_least: float) -> tuple[float, float]:
        took = next(self._microseconds)
        return took / 1e6, (took + 3) / 1e6


def fakes(monkeypatch: pytest.MonkeyPatch, missing: dict[str, str], **hosts: Fake) -> None:
    names = {"ours": OURS, "whole": WHOLE, "above": ABOVE_BINDINGS, "torch": PEER}
    made = {names[name]: Here(lambda fake=fake: fake) for name, fake in hosts.items()}
    monkeypatch.setattr(overhead, "_hosts", lambda device, stack: (made, missing))


ONE = [np.ones(3, np.float32)]


def test_rows_and_table_say_what_contestants_took(monkeypatch: pytest.MonkeyPatch) -> None:
    two = ("table", "function")
    told: list[overhead.Row] = []
    fakes(
        monkeypatch,
        {},
        ours=Fake(two, [1, 2, 9, 4, 5, 6], ONE),
        whole=Fake(two, [7, 7, 8, 9, 9, 10], ONE),
        above=Fake(("binding", *two), [3, 3, 3, 4, 4, 4, 5, 5, 6], ONE),
        torch=Fake((*two, "module"), [4, 4, 4, 2.5, 2.5, 2, 1, 1, 1], ONE),
    )
    study = measure("cpu", ("add",), rounds=3, report=told.append)
    assert told == list(study.rows)
    assert [row.layer for row in study.rows] == ["binding", "table", "function", "module"]
    assert [row.ratio for row in study.rows] == [None, pytest.approx(0.5), pytest.approx(2.0), None]
    table = study.rows[1].to_dict()
    assert json.loads(json.dumps(table)) == {
        "op": "add",
        "layer": "table",
        "times": {
            OURS: {"seconds": 2e-6, "spread": pytest.approx(8e-6), "rounds": 3},
            WHOLE: {"seconds": 7e-6, "spread": pytest.approx(1e-6), "rounds": 3},
            ABOVE_BINDINGS: {"seconds": 4e-6, "spread": 0.0, "rounds": 3},
            PEER: {"seconds": 4e-6, "spread": 0.0, "rounds": 3},
        },
        "ratio": pytest.approx(0.5),
    }
    headers, rows = lines(study)
    others = ["with array code", "above GPU bindings"]
    assert headers == ["op", "layer", "gpucnn us", "+-", "adds", "PyTorch us", "+-", "ratio", *others]
    assert rows == [
        ["add", "binding", "", "", "", "", "", "", "", "3.0"],
        ["add", "table / aten", "2.0", "8.0", "", "4.0", "0.0", "0.50", "7.0", "4.0"],
        ["add", "function", "5.0", "2.0", "3.0", "2.5", "0.5", "2.00", "9.0", "5.0"],
        ["add", "module, recorded", "", "", "", "1.0", "0.0", "", "", ""],
    ]


def test_on_a_gpu_the_host_and_the_work_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes(monkeypatch, {}, ours=Fake(("table",), [2], ONE), torch=Fake(("table",), [4], ONE))
    study = measure("cuda", ("add",), rounds=1)
    assert study.rows[0].to_dict()["done"][OURS]["seconds"] == pytest.approx(5e-6)
    headers, rows = lines(study)
    assert headers[-3:] == ["ratio", "gpucnn us done", "PyTorch us done"]
    assert rows == [["add", "table / aten", "2.0", "0.0", "", "4.0", "0.0", "0.50", "5.0", "7.0"]]


def test_a_contestant_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes(monkeypatch, {PEER: "it is not installed"}, ours=Fake(("table",), [2], ONE), whole=Fake((), [], ONE))
    study = measure("cpu", ("add",), rounds=1)
    assert study.rows[0].ratio is None
    assert "PyTorch us" not in lines(study)[0]
    assert "torch: it is not installed" in notes(study)


@pytest.mark.parametrize(
    "wrong", [np.full(3, 1.01, np.float32), np.ones(4, np.float32), np.full(3, np.nan, np.float32)]
)
def test_results_that_differ_are_refused(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes(monkeypatch, {}, ours=Fake((), [], []), whole=Fake((), [], [ONE[0], wrong]), torch=Fake((), [], ONE * 2))
    with pytest.raises(RuntimeError, match="WRONG: add: the gradient 1"):
        measure("cpu", ("add",), rounds=1)


@pytest.mark.parametrize(
    ("ops", "rounds", "message"),
    [
        (("rleu",), 1, "no op 'rleu', there are: relu, .*did you mean 'relu'?"),
        (("relu",), 0, "rounds must be at least"),
    ],
)
def test_bad_arguments(ops: tuple[str, ...], rounds: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure("cpu", ops, rounds=rounds)


def test_no_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "unavailable", lambda name: f"no {name}")
    with pytest.raises(RuntimeError, match="overhead on cuda: no cuda"):
        measure("cuda", ("relu",))


def test_the_command_measures_prints_and_keeps_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(overhead, "Apart", Here)  # a process each takes seconds to start
    monkeypatch.setattr(overhead, "SECONDS", SHORT)
    file = tmp_path / "overhead.json"
    command = ["bench", "overhead", "--ops", ",".join(OPS), "--rounds", "1", "--device", "cpu", "--json", str(file)]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    record = json.loads(file.read_text())
    assert record["study"] == "overhead"
    assert record["machine"]["kind"] == "cpu"
    found = {(row["op"], row["layer"]): row for row in record["rows"]}
    expected = {(op, layer) for op, layers in LAYERS.items() for layer in layers}
    assert {key for key in found if key[1] != "binding"} == expected
    for key in expected:
        times = found[key]["times"]
        assert {OURS, WHOLE, PEER} <= set(times)
        assert min(each["seconds"] for each in times.values()) > 0
        assert found[key]["ratio"] == times[OURS]["seconds"] / times[PEER]["seconds"]
    assert any(line.startswith("lenet5") and "training step" in line for line in done.output.splitlines())


def test_contestants_can_live_in_processes_of_their_own() -> None:
    study = measure("cpu", ("add",), rounds=1, seconds=SHORT)
    assert [row.layer for row in study.rows if OURS in row.times] == [*LAYERS["add"]]
    assert all(WHOLE in row.times for row in study.rows if OURS in row.times)
