"""gpucnn bench conv2d, op and suite: tables, records, exit status, and what bad input gets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gpucnn.bench import machine, measure, records
from gpucnn.bench.turns import Here
from gpucnn.cli import main
from gpucnn.ops.conv2d import fprop

QUICK = ["--rounds", "2", "--round-ms", "0", "--no-static"]
CONV = ["bench", "conv2d", "--shape", "2,6,9,8", "--filters", "4,3,3", *QUICK]
SCHEMA = Path(__file__).parent.parent / "benchmarks" / "results" / "schema.json"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contestants in this process, and ceilings of small arrays."""
    monkeypatch.setattr(measure, "Apart", Here)
    monkeypatch.setitem(machine._COPIED, "cpu", 1 << 18)
    monkeypatch.setitem(machine._PRODUCT, "cpu", 64)


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments], catch_exceptions=False)


def check_schema(record: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, which checks records, is not installed")
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(record)


def refused(*arguments: str) -> str:
    """The error's text on one line."""
    result = bench(*arguments)
    assert result.exit_code != 0
    return " ".join(result.output.split())


def test_a_line_for_each_contestant_and_pass() -> None:
    result = bench(*CONV, "--padding", "1", "--against", "numpy", "--seed", "5")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert re.fullmatch(r"conv2d on .*, \d+ cores; seed 5", lines[0])
    assert re.split(r"\s{2,}", lines[1].strip())[:6] == ["layer", "pass", "contestant", "kernel", "us", "spread"]
    assert [re.split(r"\s{2,}", line)[:3] for line in lines[3:9]] == [
        ["3x3 6->4 9x8", direction, name] for direction in ("fwd", "dgrad", "wgrad") for name in ("reference", "numpy")
    ]
    assert lines[9].startswith("ceilings measured in this run: copies ")
    assert " *" in lines[3], "the kernel that a call gets which names none"


def test_two_commands_in_processes_of_their_own() -> None:
    """As a user runs it: contestants apart."""
    command = [sys.executable, "-m", "gpucnn", *CONV, "--pass", "fwd", "--against", "numpy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.count("numpy") == 2  # its line, and a column
    assert done.stderr == ""


def test_a_record_says_all_of_it_and_fits_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "conv.json"
    options = ["--bias", "--stride", "2,1", "--dilation", "2", "--groups", "2", "--kernel", "all", "--seed", "3"]
    result = bench(*CONV, *options, "--against", "numpy", "--json", str(path))
    assert result.exit_code == 0, result.output
    record = records.read(path)
    check_schema(record)
    assert (record["study"], record["seed"]) == ("conv2d", 3)
    own = [row for row in record["rows"] if row["contestant"] == "reference"]
    assert {row["pass"] for row in own} == {"fwd", "dgrad", "wgrad"}
    assert own[0]["problem"] == "input=(2,6,9,8),weight=(4,3,3,3),bias=(4,),stride=(2,1),dilation=2,groups=2"
    assert all(row["status"] == "ok" and row["microseconds"] > 0 for row in own)
    assert record["machine"]["kind"] == "cpu"
    assert record["machine"]["bandwidth"]


@pytest.mark.parametrize(
    "name", ["norm", "batch_norm", "max_pool2d", "loss", "elementwise", "upsample", "add", "optim"]
)
def test_any_function_by_its_name_or_stem(name: str) -> None:
    result = bench("bench", "op", name, "--shape", "4,8,6,6", *QUICK, "--against", "numpy")
    assert result.exit_code == 0, result.output
    assert "reference" in result.output


def test_arguments_of_a_function_are_its_own() -> None:
    result = bench("bench", "op", "max_pool2d", "input=2,3,8,8", "kernel_size=2", *QUICK, "--against", "none")
    assert "2/2 3 8x8" in result.output
    result = bench("bench", "op", "cat", "tensors=[(2,3,4,4),(2,5,4,4)]", "dim=1", *QUICK, "--against", "none")
    assert "3+5 4x4" in result.output


def test_a_suite_has_totals_of_the_network(tmp_path: Path) -> None:
    path = tmp_path / "lenet5.json"
    result = bench("bench", "suite", "lenet5", "--batch", "2", *QUICK, "--against", "numpy", "--json", str(path))
    assert result.exit_code == 0, result.output
    assert "lenet5, 2 images of 1x28x28: each layer as often as it is there" in result.output
    totals = result.output.rpartition("it is there\n")[2].splitlines()
    assert [line.split()[0] for line in totals[2:7]] == ["fwd", "dgrad", "wgrad", "bwd", "all"]
    rows = records.read(path)["rows"]
    assert {row["op"] for row in rows} == {"conv2d", "relu", "max_pool2d", "linear"}
    only = bench(
        "bench", "suite", "cifar", "--op", "conv2d", "--pass", "fwd", "--batch", "1", *QUICK, "--against", "none"
    )
    assert {line.split()[-1] for line in only.output.splitlines() if "conv2d" in line} != set()
    assert "batch_norm" not in only.output


@pytest.mark.peers
def test_pytorch_is_there_as_fast_as_it_gets_and_as_it_comes(torch: Any) -> None:
    result = bench(*CONV, "--pass", "fwd", "--dtype", "bf16", "--against", "torch")
    assert result.exit_code == 0, result.output
    assert "x torch " in result.output
    assert "x torch default" in result.output


# ------------------------------------------------------------------------------------------------ exit status


@pytest.fixture
def wrong() -> Iterator[None]:
    """conv2d's forward has a kernel, by the name of zeros, whose result is zeros."""
    right = fprop.specs("reference")[-1]
    fprop.add("zeros", "reference", lambda problem, *arrays: np.zeros_like(right.run(problem, *arrays)))
    yield
    specs = fprop._by_backend["reference"]
    specs[:] = [spec for spec in specs if spec.name != "zeros"]


def test_a_wrong_kernel_is_said_to_be_wrong(wrong: None, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    result = bench(*CONV, "--pass", "fwd", "--kernel", "zeros", "--against", "none", "--json", str(path))
    assert result.exit_code == 1
    assert "Error: conv2d 3x3 6->4 9x8 fwd: reference zeros WRONG" in result.output
    assert [row["status"] for row in records.read(path)["rows"]] == ["ok", "WRONG"]
    check_schema(records.read(path))


def test_too_slow_is_a_failure_where_it_is_asked_for() -> None:
    result = bench(*CONV, "--pass", "fwd", "--against", "numpy", "--fail-below", "1e9")
    assert result.exit_code == 1
    assert "of numpy's speed" in result.output
    assert bench(*CONV, "--pass", "fwd", "--against", "numpy", "--fail-below", "0").exit_code == 0


def test_what_came_before_an_error_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cut.json"
    measured = measure.Field._of_case

    def cut(self: Any, case: Any, *rest: Any) -> Any:
        if case.direction == "wgrad":
            raise RuntimeError("the machine is gone")
        return measured(self, case, *rest)

    monkeypatch.setattr(measure.Field, "_of_case", cut)
    result = CliRunner().invoke(main, [*CONV, "--against", "none", "--json", str(path)])
    assert result.exit_code == 1
    assert "the machine is gone" in result.output
    assert [row["pass"] for row in records.read(path)["rows"]] == ["fwd", "dgrad"]


# ------------------------------------------------------------------------------------------------ bad input


def test_unknown_names_get_the_list_and_the_nearest() -> None:
    text = refused(*CONV, "--kernel", "im2cal")
    assert "there is no kernel 'im2cal', there are: " in text
    assert "did you mean 'im2col'?" in text
    text = refused("bench", "op", "max_pol2d", "--shape", "1,2,3,3")
    assert "there is no op 'max_pol2d', there are: " in text
    assert "did you mean 'max_pool2d'?" in text
    assert "did you mean 'resnet50'?" in refused("bench", "suite", "resnet5")
    assert "there is no pass 'fwdd'" in refused(*CONV, "--pass", "fwdd")
    assert "no baseline 'cudnn', there are: torch, numpy, cupy, none" in refused(*CONV, "--against", "cudnn")
    assert "no op of suite lenet5 'conv'" in refused("bench", "suite", "lenet5", "--op", "conv", *QUICK)


def test_a_shape_that_does_not_fit_is_the_librarys_error() -> None:
    text = refused("bench", "conv2d", "--shape", "1,6,2,2", "--filters", "4,3,3", *QUICK)
    assert "conv2d: a kernel that spans 3 x 3" in text
    assert "is larger than the padded input 2 x 2" in text
    assert "groups must divide" in refused(*CONV, "--groups", "4")
    assert "4 sizes" in refused("bench", "conv2d", "--shape", "1,6,2", "--filters", "4,3,3")
    assert "needs the shape of its input" in refused("bench", "op", "relu")
    assert "--dtype" in refused("bench", "op", "relu", "--shape", "2,2", "dtype=float16")
    assert "float8" in refused(*CONV, "--dtype", "float8")


def test_files_are_checked_before_anything_is_computed(tmp_path: Path) -> None:
    assert "does not exist" in refused(*CONV, "--json", str(tmp_path / "no" / "a.json"))


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    assert "cuda" in refused(*CONV, "--device", "cuda:7")
