"""See benchmarks/hardware.sh."""

from __future__ import annotations

import argparse
import difflib
import signal
import sys
import time
from pathlib import Path
from typing import Any

from gpucnn.bench import records
from gpucnn.bench.machine import here
from hardware import driver, place, summary
from hardware.journal import Journal
from hardware.steps import Options, steps

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """Builds gpucnn for the GPU of this machine, checks it and measures it beside its peers.

What is most valuable comes first. Results are appended to --out row by row as they come. A later run with the same
file, of the same commit on the same machine, leaves out what was done: so --only, or the same command once more, goes
on where one was cut off. At the end stands a summary of at most 150 lines; the record beside --out is what
benchmarks/results/ takes."""
INTERRUPTED = 130


def main() -> None:
    begin = time.monotonic()
    parser = argparse.ArgumentParser(
        "hardware.sh", description=DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=540.0, metavar="SECONDS", help="for everything (default: 540)")
    parser.add_argument("--only", default="", metavar="STEP,...", help="these steps, after the build")
    parser.add_argument("--out", type=Path, default=ROOT / "build/hardware/hardware.jsonl", metavar="FILE.jsonl")
    parser.add_argument("--again", action="store_true", help="also what the file says was done")
    parser.add_argument("--data-dir", metavar="DIR", help="MNIST's four files; without it the sample in the package")
    parser.add_argument(
        "--stand-in", action="store_true", help="the CPU in the GPU's place, with the least of each step"
    )
    parser.add_argument("--list", action="store_true", help="name the steps and their parts, and end")
    parser.add_argument("--summary", action="store_true", help="print the summary of what --out says, and end")
    options = parser.parse_args()
    if options.budget <= 0:
        parser.error(f"--budget must be positive, got {options.budget:g}")
    why = None if options.stand_in or options.list else place.why_no_gpu()
    stand_in = options.stand_in or why is not None
    out = options.out.resolve()
    data_dir = str(Path(options.data_dir).resolve()) if options.data_dir else None
    every = steps(Options(stand_in, out.parent, data_dir))
    only = {name.strip() for name in options.only.split(",") if name.strip()}
    for name in sorted(only - {step.name for step in every}):
        near = difflib.get_close_matches(name, [step.name for step in every], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        parser.error(f"--only: there is no step {name!r}, there are {', '.join(step.name for step in every)}{hint}")
    if options.list:
        for step in every:
            print(f"{step.name}: {', '.join(part.name for part in step.parts)}")
        return
    if why is not None:
        print(f"the CPU stands in for a GPU: {why}")
    chosen = [step for step in every if step.required or not only or step.name in only]
    study = "hardware stand-in" if stand_in else "hardware"
    machine = here("cpu" if stand_in else "cuda").to_dict()
    journal = Journal(
        out, records.finite(records.head(study, machine, ["bash", "benchmarks/hardware.sh", *sys.argv[1:]]))
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has it ignored in the background
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    endings: set[str] = set()
    try:
        if not options.summary:
            with out.with_suffix(".log").open("a", encoding="utf-8") as log:
                left = options.budget - (time.monotonic() - begin)
                endings = driver.run(chosen, journal, left, ROOT, log, options.again)
    except KeyboardInterrupt:
        endings = {"interrupted"}
    finally:
        found = journal.of_this()
        if found:
            records.write(out.with_suffix(".json"), record(journal.head, found))
        print("\n".join(summary.lines(journal.head, found, [step.name for step in every], time.monotonic() - begin)))
        print(f"rows {out}, output {out.with_suffix('.log')}, record {out.with_suffix('.json')}", flush=True)
        journal.close()
    raise SystemExit(INTERRUPTED if "interrupted" in endings else int("failed" in endings))


def record(head: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """As benchmarks/results/ takes them: with the ceilings that one of the steps measured as the machine's."""
    measured = [row for row in rows if row["step"] == "ceilings"]
    machine = {
        **head["machine"],
        "bandwidth": {str(row["copied"]): row["bytes_per_second"] for row in measured if "copied" in row},
        "rates": {row["product"]: row["operations_per_second"] for row in measured if "product" in row},
    }
    return {**head, "machine": machine, "rows": rows}


if __name__ == "__main__":
    main()
