"""The records in benchmarks/results/ say what their schema asks for, and the schema refuses what says less."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gpucnn.bench import machine, records
from gpucnn.bench.measure import IDLE
from gpucnn.cli import main

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
SCHEMA = json.loads((RESULTS / "schema.json").read_text())
RECORDS = sorted(path for path in RESULTS.glob("*.json") if path.name != "schema.json")

ROW = {
    **{"layer": "layer1.0.conv1", "op": "conv2d", "pass": "fwd", "problem": "x", "count": 2, "dtype": "float32"},
    **{"precision": "highest", "contestant": "cuda", "kernel": "pointwise", "microseconds": 12.5, "spread": 0.1},
    **{"rounds": 7, "tflops": 1.5, "gbs": 800.0, "bound_us": 9.0, "bound_by": "bytes", "share": 0.7, "error": 1e-7},
    "status": "ok",
}


def refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


@pytest.fixture(scope="module")
def problems() -> Callable[[Any], list[str]]:
    """What the schema finds wrong in a record."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, which checks records, is not installed")
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    return lambda record: [error.message for error in validator.iter_errors(record)]


def record(study: str = "suite resnet50") -> dict[str, Any]:
    head = records.head(study, machine.here("cpu").to_dict(), ["gpucnn", "bench", "suite", "resnet50"])
    return {**head, "rows": [dict(ROW)]}


def test_there_are_records() -> None:
    assert RECORDS


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_as_the_schema_has_it(path: Path, problems: Callable[[Any], list[str]]) -> None:
    found = json.loads(path.read_text(), parse_constant=refuse_constant)
    assert problems(found) == []
    assert records.read(path) == found


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_records_name_is_its_day_device_and_study(path: Path) -> None:
    found = records.read(path)
    study = re.escape(found["study"].replace(" ", "-"))
    assert re.fullmatch(rf"{found['date'][:10]}-\w+-{study}(-\w+)*", path.stem)  # and settings, if there are several


def test_what_the_package_writes_is_as_the_schema_has_it(tmp_path: Path, problems: Callable[[Any], list[str]]) -> None:
    for status in ("ok", "WRONG", IDLE):
        written = record()
        written["rows"][0]["status"] = status
        records.write(tmp_path / "new.json", written)
        assert problems(json.loads((tmp_path / "new.json").read_text())) == []
    assert SCHEMA["properties"]["schema"]["const"] == records.SCHEMA


def test_what_a_command_writes_is_as_the_schema_has_it(tmp_path: Path, problems: Callable[[Any], list[str]]) -> None:
    options = ["--rounds", "1", "--round-ms", "0", "--against", "none", "--json", str(tmp_path / "a.json")]
    for command in (["op", "relu", "--shape", "1,4,3,3"], ["suite", "lenet5", "--batch", "1", "--op", "linear"]):
        done = CliRunner().invoke(main, ["bench", *command, *options])
        assert done.exit_code == 0, done.output
        found = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse_constant)
        assert found["study"].startswith(command[0])
        assert problems(found) == []


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    records.write(
        tmp_path / "a.json", {**record(), "rows": [{"error": float("inf"), "all": [float("nan"), 1.0], 3: 4}]}
    )
    assert records.read(tmp_path / "a.json")["rows"] == [{"error": None, "all": [None, 1.0], "3": 4}]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda r: r.update(schema=2), "1 was expected"),
        (lambda r: r.pop("commit"), "'commit' is a required property"),
        (lambda r: r.update(commit="main"), "'main' does not match"),
        (lambda r: r.update(date="yesterday"), "'yesterday' does not match"),
        (lambda r: r.update(rows=[]), "non-empty"),
        (lambda r: r.update(notes=""), "'notes' was unexpected"),
        (lambda r: r["machine"].update(kind="tpu"), "'tpu' is not one of"),
        (lambda r: r["machine"]["details"].pop("cores"), "'cores' is a required property"),
        (lambda r: r["rows"][0].pop("microseconds"), "'microseconds' is a required property"),
        (lambda r: r["rows"][0].update(microseconds=-1.0), "-1.0 is less than the minimum"),
        (lambda r: r["rows"][0].update(microseconds="12"), "'12' is not of type"),
        (lambda r: r["rows"][0].update(status="fine"), "'fine' does not match"),
    ],
)
def test_what_says_less_is_refused(
    harm: Callable[[dict[str, Any]], Any], message: str, problems: Callable[[Any], list[str]]
) -> None:
    harmed = copy.deepcopy(record())
    assert problems(harmed) == []
    harm(harmed)
    assert message in " ".join(problems(harmed))


def test_the_rows_of_other_studies_are_their_own(problems: Callable[[Any], list[str]]) -> None:
    assert problems({**record("simt_speed"), "rows": [{"what": "a fiber switch", "median": 9.0}]}) == []
    assert problems({**record("simt_speed"), "rows": [{}]}) != []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a record"),
        ('{"schema": 1}', "not a record"),
        ('{"schema": 2, "rows": []}', "schema 2, this version of gpucnn reads schema 1"),
    ],
)
def test_another_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(records.SchemaError, match=f"a.json: .*{message}"):
        records.read(tmp_path / "a.json")


def test_a_study_writes_such_a_record(tmp_path: Path, problems: Callable[[Any], list[str]]) -> None:
    command = [sys.executable, "benchmarks/counters.py", "--only", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "there is no nothing" in done.stderr
    code = f"import sys; sys.argv = ['benchmarks/x.py']; sys.path.insert(0, 'benchmarks'); import record, pathlib; \
record.write(pathlib.Path({str(tmp_path / 'x.json')!r}), 'x', [{{'a': 1}}])"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    found = records.read(tmp_path / "x.json")
    assert problems(found) == []
    assert (found["study"], found["command"], found["rows"]) == ("x", "python benchmarks/x.py", [{"a": 1}])
