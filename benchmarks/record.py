"""What every record in results/ says of where it comes from."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "torch", "cupy-cuda12x", "cupy-cuda13x")


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(path: Path, study: str, rows: list[dict[str, Any]]) -> None:
    """Writes a record of this run: the study's name, the machine, versions, commit and command, and the rows."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    record = {
        "study": study,
        "date": datetime.date.today().isoformat(),
        "device": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: version for package in PACKAGES if (version := _version(package))},
        "commit": commit.stdout.strip(),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "rows": rows,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
