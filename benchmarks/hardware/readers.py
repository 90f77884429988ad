"""Rows from what a process prints, line by line, or leaves in a file."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Reader:
    """Of a process whose exit status says it all."""

    def read(self, line: str) -> list[Row]:
        """The rows that a line of the output gives."""
        return []

    def end(self) -> list[Row]:
        """The rows that are known when the process has ended, or was ended."""
        return []


class Lines(Reader):
    """Of a process that prints its rows, a JSON object a line."""

    def read(self, line: str) -> list[Row]:
        if not line.startswith("{"):
            return []
        try:
            return [json.loads(line)]
        except ValueError:
            return []


class Record(Reader):
    """Of a command with --json, which leaves a record also where it fails or is interrupted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)

    def end(self) -> list[Row]:
        if not self.path.exists():
            return []
        return list(json.loads(self.path.read_text(encoding="utf-8"))["rows"])


class Tests(Reader):
    """Of `pytest -v`, by one process or by several (xdist): failures as they come, and at the end how many passed."""

    _ALONE = re.compile(r"^(?P<test>tests/\S.*?) (?P<outcome>PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
    _BESIDE = re.compile(r"^\[gw\d+\] \[ *\d+%\] (?P<outcome>[A-Z]+) (?P<test>tests/\S.*)$")
    _COLLECTION = re.compile(r"^ERROR (?P<test>tests/\S+)")

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def read(self, line: str) -> list[Row]:
        found = self._ALONE.match(line) or self._BESIDE.match(line)
        if found is None:
            broken = self._COLLECTION.match(line)
            if broken is None or " - " not in line or "::" in broken["test"]:
                return []
            self._counts["error"] += 1
            return [{"test": broken["test"], "status": f"failed: not collected: {line.partition(' - ')[2]}"}]
        outcome = found["outcome"].lower()
        self._counts[outcome] += 1
        return [{"test": found["test"].strip(), "status": "WRONG"}] if outcome in ("failed", "error") else []

    def end(self) -> list[Row]:
        return [{"tests": dict(self._counts)}]


class Sanitizer(Lines):
    """Of compute-sanitizer around a process that prints its rows: these, what it found, and its summary."""

    MOST = 30

    def __init__(self) -> None:
        self._findings = 0

    def read(self, line: str) -> list[Row]:
        if not line.startswith("========="):
            return super().read(line)
        text = line.strip("= \n")
        if text.startswith(("ERROR SUMMARY", "RACECHECK SUMMARY")):
            return [{"summary": text}]
        if re.match(r"(Invalid|Error|Race|Warning|Program hit|Uninitialized|Barrier|Leaked|Misaligned)\b", text):
            self._findings += 1
            if self._findings <= self.MOST:
                return [{"finding": text, "status": "WRONG"}]
        return []
