"""The record of a study in this folder, as gpucnn/bench/records.py has it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gpucnn.bench import machine, records


def write(path: Path, study: str, rows: list[dict[str, Any]], device: str = "cpu") -> None:
    """Writes a record of this run: of the machine that `device` is of, by the running script's command."""
    command = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    head = records.head(study, machine.here(device).to_dict(), command)
    records.write(path, {**head, "rows": rows})
