"""`gpucnn bench model`: who competes, what is wrong or missing, what is shown and written, and where the time goes."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from strict_cupy import StrictArray, strict_cupy

from gpucnn import backend
from gpucnn.bench import contest, peers, records
from gpucnn.bench.answers import Answer
from gpucnn.bench.compare import compare
from gpucnn.bench.contest import ABOVE, BASELINES, baselines
from gpucnn.bench.memory import Peak
from gpucnn.bench.networks import Task, Turn
from gpucnn.bench.own_network import OwnNetwork, Shares, Watch
from gpucnn.bench.turns import Here
from gpucnn.cli import main
from gpucnn.ops.registry import TABLES, KernelTable

SMALL = Task.of("resnet20", True, batch=2, image=(3, 8, 8))


class Scripted:
    """A contestant that answers what it is told to; a step takes as many seconds as it says."""

    says: dict[str, Any]

    def __init__(self, name: str, task: Task, *rest: Any) -> None:
        self.says = SCRIPT.get(name, {})
        self.steps = 0
        HAPPENED.append(f"{name} made")
        self.name = name
        if "broken" in self.says:
            raise RuntimeError(self.says["broken"])

    def answer(self) -> Answer:
        return Answer(self.says.get("loss", 1.0), {"w": np.ones(9)})

    def peak(self, steps: int) -> Peak:
        return Peak(self.says.get("peak", 1 << 20), 0)

    def turn(self, steps: int) -> Turn:
        HAPPENED.append(f"{self.name} {steps}")
        self.steps += steps
        if self.steps >= self.says.get("fails at", math.inf):
            raise MemoryError("CUDA out of memory.\nTried to allocate more")
        return Turn(self.says.get("seconds", 0.1), self.says.get("losses", {}).get(self.steps, 0.5), self.steps)

    def release(self) -> None:
        HAPPENED.append(f"{self.name} released")

    def shares(self, steps: int) -> Shares:
        return Shares(0.1, ())


SCRIPT: dict[str, dict[str, Any]] = {}
HAPPENED: list[str] = []


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Contestants in this process that do as it says, by name."""
    SCRIPT.clear()
    HAPPENED.clear()
    monkeypatch.setattr(contest, "Apart", Here)
    monkeypatch.setattr(contest, "OwnNetwork", Scripted)
    monkeypatch.setattr(contest, "TorchNetwork", Scripted)
    monkeypatch.setattr(peers, "missing", lambda model: "")
    return SCRIPT


def run(*names: str, **options: Any) -> contest.Contest:
    return contest.run(SMALL, "reference", names, **{"rounds": 2, "steps": 6, **options})


# ------------------------------------------------------------------------------------------------------------ a contest


def test_all_make_the_same_steps_in_turn(scripted: Any) -> None:
    scripted["torch"] = {"seconds": 0.2, "loss": 1.00001}
    found = run("torch", "torch default")
    assert HAPPENED[-6:] == ["reference 3", "torch 3", "torch default 3"] * 2
    assert [(each.contestant, each.status, each.steps) for each in found.results] == [
        *(("reference", "ok", 8), ("torch", "ok", 8), ("torch default", "ok", 8)),
    ]
    assert found.times_as_fast("torch") == 2.0
    assert found.times_as_fast("torch default") == 1.0
    assert found.times_as_fast("numpy") is None
    assert found.results[1].off is not None
    assert found.results[1].off.result == pytest.approx(1e-5, rel=1e-3)
    assert (found.own.first_loss, found.own.last_loss, found.own.peak) == (1.0, 0.5, Peak(1 << 20, 0))


def test_on_a_gpu_each_makes_room_for_the_next(scripted: Any) -> None:
    task = dataclasses.replace(SMALL, device="cuda")
    contest.run(task, "cuda", ("torch",), rounds=2, steps=6)
    assert HAPPENED[-8:] == ["cuda 3", "cuda released", "torch 3", "torch released"] * 2
    contest.run(task, "cuda", (), rounds=1, steps=6)
    assert HAPPENED[-2:] == ["cuda 1", "cuda 6"]


@pytest.mark.parametrize(("seconds", "steps"), [(2.0, 10), (0.01, 1), (0.5, 2)])
def test_without_a_number_there_are_as_many_steps_as_gpucnn_has_time_for(
    scripted: Any, seconds: float, steps: int
) -> None:
    scripted["torch"] = {"seconds": 5.0}
    found = run("torch", steps=None, seconds=seconds)
    assert {each.steps for each in found.results} == {2 + 2 * steps}


def test_what_is_wrong_is_not_timed(scripted: Any) -> None:
    scripted["torch default"] = {"loss": 1.01}
    found = run("torch", "torch default")
    assert found.own.status.startswith("WRONG: its first step is not that of torch default: losses are 9.9e-03 apart")
    assert (found.own.timing, found.shares) == (None, None)
    assert found.results[1].timing is not None


def test_on_a_gpu_pytorch_as_it_comes_rounds_to_tf32(scripted: Any) -> None:
    scripted["torch default"] = {"loss": 1.005}
    task = dataclasses.replace(SMALL, device="cuda")
    assert contest.run(task, "cuda", ("torch", "torch default"), 1, 1).own.status == "ok"
    scripted["torch"] = {"loss": 1.005}
    assert "not that of torch:" in contest.run(task, "cuda", ("torch", "torch default"), 1, 1).own.status


def test_a_loss_that_is_lost_later_is_wrong_too(scripted: Any) -> None:
    scripted["reference"] = {"losses": {8: math.nan}}
    found = run("torch")
    assert found.own.status == "WRONG: the loss is nan after 8 steps"
    assert found.own.timing is None
    rows = found.rows()
    assert rows[0]["last_loss"] is None
    json.dumps(rows, allow_nan=False)
    scripted["reference"] = {"loss": math.inf}
    assert run("torch").own.status == "WRONG: its first step is not finite"


@pytest.mark.parametrize(
    ("torch", "status"),
    [
        ({"fails at": 4}, "failed: CUDA out of memory."),
        ({"fails at": 1}, "failed: CUDA out of memory."),
        ({"broken": "no kernel image"}, "failed: no kernel image"),
    ],
)
def test_a_peer_that_fails_says_so_and_the_rest_runs(scripted: Any, torch: dict[str, Any], status: str) -> None:
    scripted["torch"] = torch
    found = run("torch", "torch default")
    assert [each.status for each in found.results] == ["ok", status, "ok"]
    assert [each.timing is None for each in found.results] == [False, True, False]
    assert found.shares is not None


def test_where_gpucnn_fails_there_is_nothing_to_compare(scripted: Any) -> None:
    scripted["reference"] = {"fails at": 2}
    with pytest.raises(MemoryError, match="CUDA out of memory"):
        run("torch")


@pytest.mark.parametrize(
    ("text", "device", "names"),
    [
        ("torch", "cpu", ("torch", "torch default")),
        ("none", "cpu", ()),
        ("cupy, torch,cupy", "cuda", ("cupy", "torch", "torch default")),
    ],
)
def test_baselines_by_name(text: str, device: str, names: tuple[str, ...]) -> None:
    assert baselines(text, device) == names
    assert set(names) <= {each for several in BASELINES.values() for each in several}


@pytest.mark.parametrize(
    ("text", "message"),
    [("cupy", "no baseline on cpu 'cupy', there are: torch, none"), ("tordh", "did you mean 'torch'")],
)
def test_other_baselines_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        baselines(text, "cpu")


# -------------------------------------------------------------------------------------------------- where the time goes


def table(op: str, direction: str, monkeypatch: pytest.MonkeyPatch, **kernels: Any) -> KernelTable:
    monkeypatch.setattr("gpucnn.ops.registry.TABLES", {})
    found = KernelTable(op, direction)
    for name, kernel in kernels.items():
        found.add(name, "reference", kernel)
    return found


def test_each_call_has_its_own_clock_and_one_within_another_none(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 5.0, 7.0, 10.0])
    x = np.zeros(1, np.float32)
    inner = table("relu", "forward", monkeypatch, array=lambda problem, x: x + 1)
    outer = table("conv2d", "fprop", monkeypatch, taps=lambda problem, x: inner(problem, x, like=x))
    watch = Watch(lambda: next(clock), lambda begin, end: end - begin)
    with watch.step():
        np.testing.assert_array_equal(outer("problem", x, like=x), [1.0])
        inner("problem", x, like=x)
    shares = watch.shares()
    assert [(op.op, op.calls, op.seconds, op.kernels) for op in shares.ops] == [
        ("conv2d", 1, 3.0, ("taps",)),
        ("relu", 1, 2.0, ("array",)),
    ]
    assert (shares.seconds, shares.above) == (10.0, 5.0)


def test_shares_add_up_and_the_step_is_the_networks() -> None:
    contestant = OwnNetwork("reference", SMALL, "reference")
    shares = contestant.shares(3)
    assert sum(op.seconds for op in shares.ops) + shares.above == pytest.approx(shares.seconds)
    assert all(op.seconds > 0 for op in shares.ops)
    calls = {(op.op, op.direction): op.calls for op in shares.ops}
    assert calls["conv2d", "fprop"] == calls["conv2d", "wgrad"] == 19
    assert calls["conv2d", "dgrad"] == 18
    assert calls["sgd", "step"] == 1
    assert all(set(op.kernels) <= {s.name for s in TABLES[op.op, op.direction].specs("reference")} for op in shares.ops)


# ------------------------------------------------------------------------------------------------- a stand-in for a GPU


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A cupy that computes with numpy, with a queue, events and a pool; the list of what happened to these."""
    module: Any = strict_cupy()
    happened: list[str] = []
    clock = iter(range(1 << 30))

    class Event:
        def record(self) -> None:
            self.at = next(clock)

    device = module.cuda.Device
    device.synchronize = lambda self: happened.append("waited")  # type: ignore[attr-defined]
    make = device.__init__
    monkeypatch.setattr(device, "__init__", lambda self, index=0: make(self, index))
    module.cuda.Device, module.cuda.Event = device, Event
    module.cuda.get_elapsed_time = lambda begin, end: float(end.at - begin.at)
    pool = SimpleNamespace(
        used_bytes=lambda: 1000, total_bytes=lambda: 5000, free_all_blocks=lambda: happened.append("freed")
    )
    module.get_default_memory_pool = lambda: pool
    monkeypatch.setitem(sys.modules, "cupy", module)
    backend.gpu_count.cache_clear()
    yield happened
    del device.synchronize
    backend.gpu_count.cache_clear()


def test_on_a_gpu_the_queue_is_waited_for_at_both_ends_of_a_turn(cupy: list[str]) -> None:
    task = dataclasses.replace(SMALL, device="cuda")
    contestant = OwnNetwork("cuda", task, "reference")
    assert all(isinstance(parameter.data, StrictArray) for parameter in contestant._network.parameters())
    assert contestant.answer().off(OwnNetwork("cpu", SMALL, "reference").answer()).is_allowed("float32")
    cupy.clear()
    turn = contestant.turn(2)
    assert cupy == ["waited", "waited"]
    assert turn.loss is not None
    assert math.isfinite(turn.loss)
    cupy.clear()
    assert contestant.peak(2) == Peak(most=4000, before=1000)
    contestant.release()
    assert cupy == ["freed", "waited", "freed"]
    shares = contestant.shares(1)
    calls = sum(op.calls for op in shares.ops)
    assert shares.seconds == pytest.approx(1e-3 * (2 * calls + 1))  # a tick of a millisecond for each mark
    assert shares.above == pytest.approx(1e-3 * (calls + 1))


def test_a_contest_on_a_gpu(cupy: list[str]) -> None:
    found = contest.run(dataclasses.replace(SMALL, device="cuda"), "reference", ("cupy",), 2, 2)
    assert [(each.contestant, each.status) for each in found.results] == [("reference", "ok"), ("cupy", "ok")]
    assert found.results[1].off is not None
    assert found.results[1].off.result == 0.0
    assert cupy.count("freed") >= 6


# ---------------------------------------------------------------------------------------------------------- the command


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "model", *words, "--device", "cpu", "--backend", "reference"])


def test_in_processes_of_their_own(tmp_path: Path) -> None:
    """The command as it is, but for peers."""
    words = ("lenet5", "--batch", "8", "--rounds", "2", "--steps", "4", "--against", "none")
    shown = invoke(*words, "--json", str(tmp_path / "a.json"))
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("lenet5, training step, 8 x 1 x 28 x 28, 10 classes, float32, mnist-sample\non ")
    assert re.search(r"^reference +[\d.]+ +[\d.]+ +[\d,.]+ +\d+ +6 +2\.\d+ to \d\.\d+$", shown.output, re.MULTILINE)
    assert re.search(r"^conv2d +fprop +2 ", shown.output, re.MULTILINE)
    record = records.read(tmp_path / "a.json")
    assert record["study"] == "model lenet5"
    first, *shares = record["rows"]
    assert (first["status"], first["mode"], first["input"], first["steps"]) == ("ok", "training", [1, 28, 28], 6)
    assert first["images_per_second"] == pytest.approx(8e6 / first["microseconds"])
    assert first["peak_bytes"] > 100_000
    assert shares[-1]["call"] == ABOVE
    assert sum(row["share"] for row in shares) == pytest.approx(1.0)
    assert {"conv2d dgrad", "sgd step"} < {row["call"] for row in shares}
    pairs = compare(record, record).pairs
    assert [pair.ratio for pair in pairs if pair.before] == [1.0] * len([pair for pair in pairs if pair.before])
    assert len(pairs) == len(record["rows"])
    problems = pytest.importorskip("jsonschema").Draft202012Validator(
        json.loads((Path(__file__).parents[1] / "benchmarks/results/schema.json").read_text())
    )
    assert list(problems.iter_errors(record)) == []


@pytest.mark.peers
def test_beside_pytorch(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "Apart", Here)
    shown = invoke("lenet5", "--batch", "8", "--rounds", "1", "--steps", "1", "--inference", "--amp", "bf16")
    assert shown.exit_code == 0, shown.output
    assert "forward pass, 8 x 1 x 28 x 28, 10 classes, float32 with autocast to bfloat16" in shown.output
    header = next(line for line in shown.output.splitlines() if line.startswith("contestant"))
    assert re.split(r"  +", header) == [
        *(
            "contestant",
            "ms a step",
            "spread",
            "images/s",
            "x torch",
            "x torch default",
            "memory MiB",
            "steps",
            "off",
        )
    ]
    assert re.search(r"^torch default +[\d.]+ ", shown.output, re.MULTILINE)


def test_ctrl_c_keeps_what_there_was(scripted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, turns = contest._turn, iter(range(100))

    def cut(*arguments: Any) -> None:
        if next(turns) == 4:
            raise KeyboardInterrupt
        turn(*arguments)

    monkeypatch.setattr(contest, "_turn", cut)
    words = ("resnet20", "--batch", "2", "--rounds", "9", "--against", "torch", "--json", str(tmp_path / "a.json"))
    shown = invoke(*words)
    assert shown.exit_code == 130
    assert "interrupted" in shown.output
    assert re.search(r"^reference +[\d.]+ ", shown.output, re.MULTILINE)
    assert [row["rounds"] for row in records.read(tmp_path / "a.json")["rows"]] == [2, 1, 1]


def test_a_wrong_network_ends_the_command(scripted: Any, tmp_path: Path) -> None:
    scripted["torch"] = {"loss": 2.0}
    shown = invoke("resnet20", "--batch", "2", "--json", str(tmp_path / "a.json"))
    assert shown.exit_code == 1
    assert "reference: WRONG: its first step is not that of torch: losses are 5.0e-01 apart" in shown.output
    assert records.read(tmp_path / "a.json")["rows"][0]["status"].startswith("WRONG")


def test_too_slow_ends_it_and_the_default_does_not_count(scripted: Any) -> None:
    scripted["torch"], scripted["torch default"] = {"seconds": 0.08}, {"seconds": 0.01}
    slow = invoke("resnet20", "--fail-below", "0.9", "--rounds", "1")
    assert slow.exit_code == 1
    assert "reference has 0.80 of torch's speed" in slow.output
    assert "torch default's speed" not in slow.output
    assert invoke("resnet20", "--fail-below", "0.79", "--rounds", "1").exit_code == 0


def test_a_peer_that_is_not_there_has_a_line_that_says_so(monkeypatch: pytest.MonkeyPatch, scripted: Any) -> None:
    monkeypatch.setattr(peers, "missing", lambda model: "torch is not installed: pip install it")
    shown = invoke("resnet20", "--rounds", "1")
    assert shown.exit_code == 0
    assert re.search(r"^torch default +missing: torch is not installed: pip install it$", shown.output, re.MULTILINE)
    assert "torch made" not in HAPPENED


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnt50"], "unknown model 'resnt50', there are: .*did you mean 'resnet50'"),
        (["resnet20", "--against", "tensorflow"], "no baseline on cpu 'tensorflow', there are: torch, none"),
        (["resnet20", "--input", "3,32"], "is not 3 sizes of at least 1"),
        (["resnet20", "--dtype", "int8"], "computes in floats"),
        (["resnet20", "--amp", "fp8"], "'fp8' is not one of"),
        (["resnet20", "--json", "nowhere/a.json"], "nowhere"),
        (["resnet20", "--rounds", "0"], "0 is not in the range"),
    ],
)
def test_bad_input_is_refused_before_anything_is_computed(scripted: Any, words: list[str], message: str) -> None:
    shown = invoke(*words)
    assert shown.exit_code != 0
    assert re.search(message, " ".join(shown.output.split()))
    assert HAPPENED == []
