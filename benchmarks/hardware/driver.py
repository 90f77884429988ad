"""Runs the parts of the steps, each a process, within what is left of the budget."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from hardware.journal import Journal
from hardware.readers import Reader

GRACE = 4.0
"""Seconds that an interrupted process has to write what it knows, within its limit."""
LEAST = 3.0
"""Seconds below which no part is begun."""
TAIL = 40
"""Lines of a failed part's output that are kept with it."""
MORE_THAN_ITS_SHARE = 1.6
"""Times its share of a step's time that a part may take: others take less."""
STEP_FLOOR, PART_FLOOR = 40.0, 10.0
"""Seconds that a step and a part may take however small their shares: what comes first is worth more than what is cut
off at the end."""


@dataclass(frozen=True)
class Part:
    """A process.

    Attributes:
        name: within its step.
        command: and its `environment`, added to that of this process.
        reader: makes rows of what it prints.
        needs: programs, of which each has to be there.
        weight: its share of its step's time.
    """

    name: str
    command: Sequence[str]
    reader: Callable[[], Reader] = Reader
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class Step:
    """Parts with a common question.

    Attributes:
        weight: its share of the time, beside those of the steps that are still to come.
        required: whether the run ends where it fails; it is never taken for done, since machines come bare.
    """

    name: str
    parts: Sequence[Part]
    weight: float
    required: bool = False


def run(
    steps: Sequence[Step], journal: Journal, budget: float, root: Path, log: TextIO, again: bool = False
) -> set[str]:
    """Runs all steps; how their parts ended. `again`: also what had been done."""
    start = time.monotonic()
    endings: set[str] = set()
    for number, step in enumerate(steps):
        left = budget - (time.monotonic() - start)
        limit = min(left, max(STEP_FLOOR, left * step.weight / sum(each.weight for each in steps[number:])))
        print(f"\n=== {step.name}: at most {max(0.0, limit):.0f} of {max(0.0, left):.0f} s that are left", flush=True)
        ended = _run_step(step, journal, time.monotonic() + limit, root, log, again)
        endings |= ended
        if step.required and ended != {"done"}:
            print(f"{step.name} is needed by everything else", flush=True)
            return endings | {"failed"}
    return endings


def _run_step(step: Step, journal: Journal, deadline: float, root: Path, log: TextIO, again: bool) -> set[str]:
    todo = [part for part in step.parts if again or step.required or (step.name, part.name) not in journal.done]
    if len(todo) < len(step.parts):
        print(f"{len(step.parts) - len(todo)} of {len(step.parts)} parts were done before", flush=True)
    endings: set[str] = set()
    for number, part in enumerate(todo):
        left = deadline - time.monotonic()
        share = left * part.weight / sum(each.weight for each in todo[number:])
        missing = [program for program in part.needs if shutil.which(program) is None]
        if missing:
            ended, seconds = "missing", 0.0
            journal.add(step.name, part.name, {"ended": ended, "why": f"there is no {', '.join(missing)}"})
        else:
            limit = min(left, max(PART_FLOOR, MORE_THAN_ITS_SHARE * share))
            ended, seconds = _run_part(step.name, part, journal, limit, root, log)
        endings.add(ended)
        print(f"{ended:7} {seconds:6.1f} s  {step.name}: {part.name}", flush=True)
    return endings


def _run_part(step: str, part: Part, journal: Journal, limit: float, root: Path, log: TextIO) -> tuple[str, float]:
    """(how it ended, seconds)."""
    if limit < LEAST:
        journal.add(step, part.name, {"ended": "cut", "seconds": 0.0, "why": "no time was left to begin it"})
        return "cut", 0.0
    log.write(f"\n##### {step}: {part.name}: {' '.join(part.command)}\n")
    log.flush()
    begin = time.monotonic()
    reader = part.reader()
    process = subprocess.Popen(
        list(part.command),
        cwd=root,
        env={**os.environ, **part.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    cut = threading.Event()
    timers = [
        threading.Timer(max(0.1, limit - GRACE), _end, (process, signal.SIGINT, cut)),
        threading.Timer(limit, _end, (process, signal.SIGKILL, cut)),
    ]
    for timer in timers:
        timer.start()
    tail: deque[str] = deque(maxlen=TAIL)
    try:
        with process:
            for line in process.stdout or ():
                log.write(line)
                tail.append(line.rstrip("\n"))
                for row in reader.read(line):
                    journal.add(step, part.name, row)
    except BaseException:  # Ctrl-C ends the processes as well, and what was read stays
        _end(process, signal.SIGKILL, cut)
        process.wait()
        raise
    finally:
        for timer in timers:
            timer.cancel()
        log.flush()
        for row in reader.end():
            journal.add(step, part.name, row)
    code = process.returncode
    seconds = time.monotonic() - begin
    ended = "cut" if cut.is_set() else "done" if code == 0 else "failed"
    found = {"ended": ended, "seconds": round(seconds, 1), "command": " ".join(part.command)}
    journal.add(step, part.name, found if ended == "done" else {**found, "exit": code, "tail": list(tail)})
    return ended, seconds


def _end(process: subprocess.Popen[str], how: signal.Signals, cut: threading.Event) -> None:
    """Ends a process and those that it has started, which are a group of their own and may outlive it."""
    cut.set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)
