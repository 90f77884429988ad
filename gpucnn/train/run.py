"""The folder of a run: config.json, metrics.jsonl, checkpoints, pictures and the report."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHECKPOINTS = ("last", "best", "previous")
PICTURES = ("training_curve", "confusion_matrix", "filters", "misclassified")


class Run:
    """Names and reads the files of one run; writing is whole files, moved into place."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.config = self.folder / "config.json"
        self.metrics = self.folder / "metrics.jsonl"
        self.report = self.folder / "report.html"

    @classmethod
    def create(cls, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Run:
        """Makes the folder; FileExistsError if a run lies there already, which `overwrite` deletes instead."""
        run = cls(folder)
        if run.config.exists():
            if not overwrite:
                raise FileExistsError(f"{run.folder} holds a run already: choose another --out, or --overwrite it")
            for path in run.files():
                path.unlink(missing_ok=True)
        run.folder.mkdir(parents=True, exist_ok=True)
        return run

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """A run that exists; FileNotFoundError otherwise."""
        run = cls(folder)
        if not run.config.is_file():
            raise FileNotFoundError(f"{run.folder}: no run here (there is no {run.config.name})")
        return run

    @staticmethod
    def unused(name: str, under: str | os.PathLike[str] = "runs") -> Path:
        """runs/<name>, or runs/<name>-2 and so on where that is taken."""
        base = Path(under) / name
        number, folder = 1, base
        while folder.exists():
            number += 1
            folder = base.with_name(f"{base.name}-{number}")
        return folder

    def checkpoint(self, which: str) -> Path:
        if which not in CHECKPOINTS:
            raise ValueError(f"checkpoint must be one of {', '.join(CHECKPOINTS)}, got {which!r}")
        return self.folder / f"{which}.safetensors"

    def picture(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def files(self) -> list[Path]:
        return [
            *(self.config, self.metrics, self.report),
            *(self.checkpoint(which) for which in CHECKPOINTS),
            *(self.picture(name) for name in PICTURES),
        ]

    def write_config(self, values: dict[str, Any]) -> None:
        _write(self.config, json.dumps(values, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.config.read_text()))
        except ValueError as error:
            raise ValueError(f"{self.config} is damaged: {error}") from error

    def append_metrics(self, row: dict[str, Any]) -> None:
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows; a last line that a killed process left unfinished is passed over."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text().split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def rewrite_metrics(self, rows: Iterable[dict[str, Any]]) -> None:
        _write(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)
