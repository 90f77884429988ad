"""What a record of a benchmark says: of what machine, versions, commit and command its rows come."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpucnn
from gpucnn.vis.files import write_atomically

SCHEMA = 1
"""Of records, as benchmarks/results/schema.json describes it; grows when older ones can't be read as they stand."""

PACKAGES = ("numpy", "torch", "torchvision", "cupy-cuda12x", "cupy-cuda13x", "ml_dtypes")


class SchemaError(ValueError):
    """A file is no record, or one of another schema."""


def head(study: str, machine: dict[str, Any], command: Sequence[str]) -> dict[str, Any]:
    """Everything of a record but its rows.

    Args:
        study: what was measured, such as "conv2d" or "suite resnet50".
        machine: `Machine.to_dict()` of gpucnn/bench/machine.py.
        command: by which it can be measured again.
    """
    return {
        "schema": SCHEMA,
        "study": study,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions(),
        "commit": commit(),
        "command": shlex.join(command),
    }


def versions() -> dict[str, str]:
    """Of gpucnn, Python and the packages that matter, where they are installed."""
    found = {"gpucnn": gpucnn.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """That gpucnn's own source tree is at, with "+" where files differ from it; None for an installed copy."""
    root = Path(gpucnn.__file__).parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write(path: Path, record: dict[str, Any]) -> None:
    """Writes a record, whole or not at all; infinities and NaN, which JSON has no words for, as null."""
    write_atomically(path, (json.dumps(finite(record), indent=1, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """What JSON can hold: with None for infinities and NaN, and with names that are strings."""
    if isinstance(value, dict):
        return {str(name): finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(path: Path) -> dict[str, Any]:
    """A record.

    Raises:
        SchemaError: it is none, or its schema is another than this version's, by number.
        FileNotFoundError: there is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SchemaError(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict) or "schema" not in found or not isinstance(found.get("rows"), list):
        raise SchemaError(f"{path}: not a record of a benchmark, which has 'schema' and 'rows'")
    if found["schema"] != SCHEMA:
        raise SchemaError(f"{path}: schema {found['schema']!r}, this version of gpucnn reads schema {SCHEMA}")
    return found
