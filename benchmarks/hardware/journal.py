"""The file of results: a JSON object a line, written as they come, so that whatever ends a run takes nothing with it.

A run begins with a line {"run": its head}, as gpucnn/bench/records.py has it; rows follow, each with the `step` and the
`part` that it is of; a row with `ended` closes a part: "done", "failed" or "cut" (out of time), or "missing" with what
it lacks. A later run of the same commit on the same machine goes on where the file ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpucnn.bench import records

Row = dict[str, Any]


class Journal:
    """The file at `path`, which is made, or gone on with."""

    def __init__(self, path: Path, head: Row) -> None:
        self.path = path
        self.head = head
        self.done = {
            (row["step"], row["part"]) for row in self.rows() if row.get("ended") == "done" and _same(row["run"], head)
        }
        """(step, part) of what an earlier run has done."""
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        self._file = path.open("a", encoding="utf-8")
        if torn:  # the line that a run was writing when it was ended
            self._file.write("\n")
        self._begun = False

    def add(self, step: str, part: str, row: Row) -> None:
        """A row, with the system when this returns."""
        if not self._begun:
            self._begun = True
            self._write({"run": self.head})
        self._write({**row, "step": step, "part": part})

    def _write(self, row: Row) -> None:
        self._file.write(json.dumps(records.finite(row), allow_nan=False) + "\n")
        self._file.flush()

    def rows(self) -> Iterator[Row]:
        """Every row with the head of its `run`; lines that are no JSON, torn ones, are passed over."""
        run: Row = {}
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if "run" in row:
                run = row["run"]
            else:
                yield {**row, "run": run}

    def of_this(self) -> list[Row]:
        """The rows of this commit on this machine: of each part those of the last attempt that was done, or else of the
        one that came furthest."""
        attempts: dict[tuple[str, str], list[list[Row]]] = {}
        for row in self.rows():
            if not _same(row.pop("run"), self.head):
                continue
            mine = attempts.setdefault((row["step"], row["part"]), [[]])
            mine[-1].append(row)
            if "ended" in row:
                mine.append([])
        kept: list[Row] = []
        for several in attempts.values():
            ended = [each for each in several if each and each[-1].get("ended") == "done"]
            kept += ended[-1] if ended else max(several, key=len)
        return kept

    def close(self) -> None:
        self._file.close()


def _same(one: Row, other: Row) -> bool:
    """Whether two runs may go on with one another."""
    return all(one.get(name) == other.get(name) for name in ("commit", "study")) and (
        one.get("machine", {}).get("name") == other.get("machine", {}).get("name")
    )
