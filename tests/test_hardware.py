"""benchmarks/hardware.sh: its budget, what it keeps when a part fails or is cut off, how it goes on, what it says; and
the whole of it with the CPU standing in for a GPU."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hardware import driver, journal, place, readers, steps, summary
from hardware.__main__ import record
from hardware.driver import Part, Step

from gpucnn.bench import records, suites
from gpucnn.bench.machine import here

ROOT = Path(__file__).parents[1]
HEAD = {"study": "hardware", "commit": "0" * 40, "machine": {"name": "a GPU"}}


def code(name: str, text: str, **more: Any) -> Part:
    return Part(name, (sys.executable, "-u", "-c", text), more.pop("reader", readers.Lines), **more)


def run(path: Path, *given: Step, budget: float = 60.0, again: bool = False) -> tuple[set[str], list[dict[str, Any]]]:
    """How the parts ended, and the rows of this run's file."""
    opened = journal.Journal(path, HEAD)
    endings = driver.run(given, opened, budget, ROOT, io.StringIO(), again)
    opened.close()
    return endings, opened.of_this()


def ended(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["part"]: row["ended"] for row in rows if "ended" in row}


ROW = "print('{\"n\": 1}')"


def test_rows_come_as_they_are_printed_and_a_failure_keeps_them(tmp_path: Path) -> None:
    parts = [code("good", f"{ROW}; print('words')"), code("bad", f"{ROW}; print('no memory'); raise SystemExit(3)")]
    endings, rows = run(tmp_path / "a.jsonl", Step("one", parts, 1.0), Step("two", [code("next", ROW)], 1.0))
    assert endings == {"done", "failed"}
    assert ended(rows) == {"good": "done", "bad": "failed", "next": "done"}
    assert [(row["step"], row["part"]) for row in rows if "n" in row] == [
        ("one", "good"),
        ("one", "bad"),
        ("two", "next"),
    ]
    (bad,) = [row for row in rows if row.get("ended") == "failed"]
    assert bad["exit"] == 3
    assert bad["tail"][-1] == "no memory"


SLEEP = f"import time; {ROW}; time.sleep(60)"


@pytest.mark.parametrize("text", [SLEEP, f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {SLEEP}"])
def test_a_part_is_cut_at_its_limit(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "GRACE", 0.5)
    monkeypatch.setattr(driver, "LEAST", 0.5)
    begin = time.monotonic()
    endings, rows = run(tmp_path / "a.jsonl", Step("one", [code("long", text)], 1.0), budget=2.0)
    assert time.monotonic() - begin < 2.0 * 1.1 + 0.5
    assert endings == {"cut"}
    assert [row.get("n") for row in rows] == [1, None]


def test_processes_that_a_part_has_started_end_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold its output open, and would outlive it."""
    monkeypatch.setattr(driver, "GRACE", 0.3)
    monkeypatch.setattr(driver, "LEAST", 0.3)
    child = "import subprocess, sys; print('{\"pid\": %d}' % subprocess.Popen([sys.executable, '-c', 'import time; \
time.sleep(60)']).pid, flush=True)"
    _, rows = run(tmp_path / "a.jsonl", Step("one", [code("parent", child)], 1.0), budget=2.0)
    for _ in range(100):
        if has_ended(rows[0]["pid"]):
            break
        time.sleep(0.02)
    assert has_ended(rows[0]["pid"])


def has_ended(pid: int) -> bool:
    """Also where nobody has collected it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_what_is_asked_to_stop_has_time_to_say_what_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LEAST", 0.5)
    monkeypatch.setattr(driver, "GRACE", 4.0)
    file = tmp_path / "record.json"
    text = f"""
import json, time
try:
    time.sleep(60)
finally:
    open({str(file)!r}, "w").write(json.dumps({{"rows": [{{"n": 7}}]}}))
"""
    part = code("long", text, reader=lambda: readers.Record(file))
    _, rows = run(tmp_path / "a.jsonl", Step("one", [part], 1.0), budget=9.0)
    assert (rows[0]["n"], rows[1]["ended"]) == (7, "cut")


def test_time_that_a_step_leaves_is_for_those_after_it_and_none_left_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "GRACE", 0.1)
    monkeypatch.setattr(driver, "LEAST", 1.0)
    monkeypatch.setattr(driver, "STEP_FLOOR", 0.0)
    monkeypatch.setattr(driver, "PART_FLOOR", 0.0)
    limits: list[float] = []
    monkeypatch.setattr(driver.threading, "Timer", timer_that_notes(limits, driver.threading.Timer))
    given = [Step("one", [code("a", ROW), code("b", ROW)], 1.0), Step("two", [code("c", ROW)], 1.0)]
    _, rows = run(tmp_path / "a.jsonl", *given, budget=20.0)
    assert set(ended(rows).values()) == {"done"}
    a, b, c = limits[1::2]  # the second of each part's timers is its limit
    assert a == pytest.approx(5.0 * driver.MORE_THAN_ITS_SHARE, abs=0.5)
    assert 9.0 < b <= 10.0
    assert 18.0 < c <= 20.0
    _, rows = run(tmp_path / "b.jsonl", *given, budget=0.5)
    assert set(ended(rows).values()) == {"cut"}
    assert {row["why"] for row in rows} == {"no time was left to begin it"}


def test_what_comes_first_has_time_however_small_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(driver.threading, "Timer", timer_that_notes(limits, driver.threading.Timer))
    given = [Step("one", [code("a", ROW), code("b", ROW, weight=99.0)], 1.0), Step("two", [code("c", ROW)], 99.0)]
    run(tmp_path / "a.jsonl", *given, budget=100.0)
    assert limits[1] == driver.PART_FLOOR
    assert driver.STEP_FLOOR - 5.0 < limits[3] <= driver.STEP_FLOOR


def timer_that_notes(limits: list[float], timer: Callable[..., Any]) -> Callable[..., Any]:
    def make(interval: float, *arguments: Any) -> Any:
        limits.append(interval)
        return timer(interval, *arguments)

    return make


def test_nothing_runs_without_what_it_needs(tmp_path: Path) -> None:
    first = Step("build", [code("x", "raise SystemExit(1)")], 1.0, required=True)
    endings, rows = run(tmp_path / "a.jsonl", first, Step("two", [code("c", ROW)], 1.0))
    assert endings == {"failed"}
    assert ended(rows) == {"x": "failed"}
    part = code("c", ROW, needs=("no-such-program", "sh"))
    endings, rows = run(tmp_path / "b.jsonl", Step("two", [part], 1.0))
    assert endings == {"missing"}
    assert rows[0]["why"] == "there is no no-such-program"


def test_a_later_run_goes_on(tmp_path: Path) -> None:
    path, mark = tmp_path / "a.jsonl", tmp_path / "mark"
    flaky = code("b", f"import os, sys; {ROW}; sys.exit(0 if os.path.exists({str(mark)!r}) else 1)")
    counting = code("a", f"open({str(tmp_path / 'times')!r}, 'a').write('x'); {ROW}")
    step = Step("one", [counting, flaky], 1.0)
    assert ended(run(path, step)[1]) == {"a": "done", "b": "failed"}
    mark.touch()
    endings, rows = run(path, step)
    assert endings == {"done"}
    assert ended(rows) == {"a": "done", "b": "done"}
    assert sum("n" in row for row in rows) == 2
    assert (tmp_path / "times").read_text() == "x"
    run(path, step, again=True)
    assert (tmp_path / "times").read_text() == "xx"


@pytest.mark.parametrize("other", [{"commit": "1" * 40}, {"machine": {"name": "another"}}, {"study": "stand-in"}])
def test_what_another_run_did_is_not_taken_for_done(tmp_path: Path, other: dict[str, Any]) -> None:
    path = tmp_path / "a.jsonl"
    run(path, Step("one", [code("a", ROW)], 1.0))
    opened = journal.Journal(path, {**HEAD, **other})
    assert opened.done == set()
    assert opened.of_this() == []
    opened.close()
    before = path.read_text()
    journal.Journal(path, HEAD).close()
    assert path.read_text() == before


def test_a_line_that_was_torn_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    run(path, Step("one", [code("a", ROW)], 1.0))
    with path.open("a") as file:
        file.write('{"step": "one", "part": "b", "micros')
    _, rows = run(path, Step("one", [code("c", ROW)], 1.0))
    assert ended(rows) == {"a": "done", "c": "done"}


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    opened = journal.Journal(tmp_path / "a.jsonl", HEAD)
    opened.add("one", "a", {"error": float("inf"), "all": [float("nan"), 1.0], 3: "three"})
    opened.close()
    last = (tmp_path / "a.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == {"error": None, "all": [None, 1.0], "3": "three", "step": "one", "part": "a"}


# --------------------------------------------------------------------------------------------------------- steps


def test_on_a_gpu_and_in_its_place_the_steps_are_the_same(tmp_path: Path) -> None:
    real, stand_in = (steps.steps(steps.Options(each, tmp_path, None)) for each in (False, True))
    assert [step.name for step in real] == [step.name for step in stand_in]
    for found in (real, stand_in):
        for step in found:
            assert len({part.name for part in step.parts}) == len(step.parts), step.name
            assert step.required == (step.name == "build")


def test_what_is_asked_of_gpucnn_bench_is_there(tmp_path: Path) -> None:
    """Commands, options, suites and their ops; what they do is measured on a GPU alone."""
    from gpucnn.cli import main

    bench = main.commands["bench"].commands  # type: ignore[attr-defined]
    asked = 0
    for step in steps.steps(steps.Options(False, tmp_path, "mnist")):
        for part in step.parts:
            if "bench" not in part.command[:4]:
                continue
            asked += 1
            command, *arguments = part.command[4:]
            context = bench[command].make_context(command, list(arguments))
            if command == "suite":
                given = context.params
                found = suites.cases(
                    given["name"], 1, given["passes"], given["dtype"], given["precision"], given["ops"].split(",")
                )
                assert found, part.name
    assert asked > 20


def test_the_architecture_is_the_gpus_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for capability, name in (("8.0", "80"), ("9.0", "90a"), ("12.0", "120")):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho {capability}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert place.architecture() == name
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError, match="of which architecture"):
        place.architecture()


# -------------------------------------------------------------------------------------------------- the whole of it


def shell(*arguments: str, **options: Any) -> Any:
    command = ["bash", str(ROOT / "benchmarks/hardware.sh"), *arguments]
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def test_bad_arguments_are_refused() -> None:
    done = shell("--stand-in", "--only", "conv,trainin")
    assert done.returncode == 2
    assert "there is no step 'trainin'" in done.stderr
    assert "did you mean training?" in done.stderr
    assert "--budget must be positive" in shell("--budget", "0").stderr
    listed = shell("--stand-in", "--list").stdout
    assert "instructions: golden" in listed.splitlines()


@pytest.mark.slow
def test_every_step_runs_to_its_last_line_with_the_cpu_standing_in(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, which checks records, is not installed")
    pytest.importorskip("torch", reason="PyTorch, which is compared with, is not installed")
    out = tmp_path / "hardware.jsonl"
    quick = "instructions,ceilings,tests,sanitizer,counters,memory_bound"
    done = shell("--stand-in", "--budget", "600", "--out", str(out), "--only", quick)
    assert done.returncode == 0, done.stdout + done.stderr
    done = shell("--stand-in", "--budget", "600", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 parts were done before" in done.stdout
    assert "all steps are done" in done.stdout
    told = done.stdout[done.stdout.index("\n=====") :].splitlines()
    assert len(told) <= summary.MOST + 2
    found = records.read(out.with_suffix(".json"))
    schema = json.loads((ROOT / "benchmarks/results/schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    of = {step.name for step in steps.steps(steps.Options(True, tmp_path, None))}
    assert {row["step"] for row in found["rows"] if row.get("ended") == "done"} == of
    assert found["machine"]["bandwidth"]
    assert not [row for row in found["rows"] if str(row.get("status", "ok")).startswith(("WRONG", "failed"))]


def test_a_run_that_is_ended_says_what_it_has(tmp_path: Path) -> None:
    out = tmp_path / "hardware.jsonl"
    command = [
        "bash",
        str(ROOT / "benchmarks/hardware.sh"),
        "--stand-in",
        "--only",
        "ceilings,counters",
        "--out",
        str(out),
    ]
    environment = {**os.environ, "PYTHON": sys.executable}
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        for line in running.stdout or ():
            said.append(line)
            if "ceilings: measured" in line:
                running.send_signal(signal.SIGTERM)
    assert running.returncode == 130
    assert any(line.startswith("--- ceilings: 1 done") for line in said)
    assert "not done: instructions,tests,sanitizer,counters,conv,memory_bound,training,overhead\n" in said


def head() -> dict[str, Any]:
    return records.head("hardware", here("cpu").to_dict(), ["bash", "benchmarks/hardware.sh"])


def test_a_record_has_the_ceilings_as_its_machines() -> None:
    rows = [
        {"step": "ceilings", "part": "measured", "copied": 1 << 30, "bytes_per_second": 3e12},
        {"step": "ceilings", "part": "measured", "product": "tf32", "operations_per_second": 4e14},
    ]
    machine = record(head(), rows)["machine"]
    assert machine["bandwidth"] == {str(1 << 30): 3e12}
    assert machine["rates"] == {"tf32": 4e14}
