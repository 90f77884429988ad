"""Contestants side by side, each a process of its own with two threads that waits for its turn.

Rounds are interleaved, since in one process PyTorch's threads slow down and machines drift. A round's figure is the
median of its steps, a contestant's the median of its rounds; the spread is that of the middle half of the rounds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

THREADS = 2

Process = subprocess.Popen[str]


def start(*arguments: str) -> Process:
    """The running script once more, as a contestant's process."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(THREADS))
    command = [sys.executable, sys.argv[0], *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads}
    )


def take_turns(step: Callable[[], object], steps: int, warm_up: int = 10) -> None:
    """A contestant's side: runs a round of `steps` for each line on standard input, prints its median in seconds."""
    for _ in range(warm_up):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        times = []
        for _ in range(steps):
            begin = time.perf_counter()
            step()
            times.append(time.perf_counter() - begin)
        print(median(times), flush=True)


def race(running: dict[str, Process], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each round, by contestant; ends the processes."""
    times: dict[str, list[float]] = {name: [] for name in running}
    try:
        for process in running.values():
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"a contestant did not start: {process.args}")
        for _ in range(rounds):
            for name, process in running.items():
                process.stdin.write("go\n")
                process.stdin.flush()
                times[name].append(float(process.stdout.readline()))
    finally:
        for process in running.values():
            process.stdin.close()
            process.wait()
    return times


def spread(values: Sequence[float]) -> float:
    """The range of the middle half."""
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    return middle[-1] - middle[0]
