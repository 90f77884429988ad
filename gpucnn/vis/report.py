"""The report of a training run: one HTML file that needs nothing else, on a screen, a phone or paper.

Pictures are embedded, there are no scripts, and a content security policy keeps the page from loading anything, so it
can be mailed or archived as it is.
"""

from __future__ import annotations

import base64
import math
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpucnn.vis import labels, metrics
from gpucnn.vis.files import check_folder, write_atomically
from gpucnn.vis.page import page, text

_PNG = b"\x89PNG\r\n\x1a\n"

# key in metrics.jsonl -> (heading, format of a value); the order is that of the table
_COLUMNS: dict[str, tuple[str, str]] = {
    "step": ("step", ",.0f"),
    "train_loss": ("train loss", ".4g"),
    "test_loss": ("test loss", ".4g"),
    "train_accuracy": ("train error, %", ".2f"),
    "test_accuracy": ("test error, %", ".2f"),
    "learning_rate": ("learning rate", ".3g"),
    "images_per_second": ("images/s", ",.0f"),
    "seconds": ("seconds", ".1f"),
}


def write_report(
    run_dir: str | os.PathLike[str], *, title: str, summary: Sequence[tuple[str, str]], rows: metrics.Rows,
    pictures: Sequence[tuple[str, str | os.PathLike[str]]], config: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
) -> Path:  # fmt: skip
    """Writes the self-contained HTML report of a run. The same input gives the same bytes.

    Args:
        run_dir: the run's folder.
        title: the heading of the page.
        summary: (name, value) pairs shown large at the top, in this order.
        rows: the rows of ``metrics.jsonl``, one mapping an epoch; may be empty. Unusual keys get columns too.
        pictures: (caption, path of a PNG file) pairs, in the order of the page; the caption is the alternative text
            too.
        config: the run's configuration; nested mappings are flattened to dotted names.
        path: the file to write; default ``report.html`` in ``run_dir``. Replaced atomically.

    Returns:
        The path of the report.

    Raises:
        ValueError: a picture that is not a PNG file, or rows that are not in order (see ``training_curve``).
        TypeError: a row that is not a mapping, or a value of a usual key that is not a number.
        FileNotFoundError: ``run_dir``, a picture or the folder of ``path`` does not exist.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"run_dir: the folder {str(folder)!r} does not exist")
    target = folder / "report.html" if path is None else Path(path)
    check_folder(target)
    metrics.check_rows(rows)
    body = "\n".join(
        [
            f"<h1>{text(title)}</h1>",
            _facts(summary),
            *(_figure(caption, Path(file)) for caption, file in pictures),
            _epochs(rows),
            _config(config),
        ]
    )
    return write_atomically(target, page(title, body).encode())


def _facts(summary: Sequence[tuple[str, str]]) -> str:
    if not summary:
        return ""
    facts = "\n".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in summary)
    return f'<dl class="facts">\n{facts}\n</dl>'


def _figure(caption: str, path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"pictures: {str(path)!r} ({caption}) does not exist")
    content = path.read_bytes()
    if content[:8] != _PNG or content[12:16] != b"IHDR" or len(content) < 24:
        raise ValueError(f"pictures: {str(path)!r} ({caption}) is not a PNG file")
    width, height = struct.unpack(">II", content[16:24])
    data = base64.b64encode(content).decode("ascii")
    image = f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{text(caption)}">'
    return f"<figure>\n<div>{image}</div>\n<figcaption>{text(caption)}</figcaption>\n</figure>"


def _epochs(rows: metrics.Rows) -> str:
    if len(rows) == 0:
        return '<p class="note">No epoch was finished.</p>'
    used = {str(key) for row in rows for key in row if row[key] is not None and key != "epoch"}
    keys = [key for key in _COLUMNS if key in used] + sorted(used - _COLUMNS.keys())
    best = metrics.best_row(rows)
    columns = [[str(epoch) for epoch in metrics.epochs(rows)], *(_cells(rows, key) for key in keys)]
    head = "".join(f'<th scope="col">{text(_COLUMNS[key][0] if key in _COLUMNS else key)}</th>' for key in keys)
    lines = [f'<thead><tr><th scope="col">epoch</th>{head}</tr></thead>', "<tbody>"]
    for index, (epoch, *cells) in enumerate(zip(*columns, strict=True)):
        mark = ' class="best"' if index == best else ""
        values = "".join(f"<td>{text(cell)}</td>" for cell in cells)
        lines.append(f'<tr{mark}><th scope="row">{epoch}</th>{values}</tr>')
    count = "1 epoch" if len(rows) == 1 else f"{len(rows)} epochs"
    note = "" if best is None else f" · best: epoch {rows[best]['epoch']}"
    return _folded(f"{count}{note}", "epochs", [*lines, "</tbody>"])


def _cells(rows: metrics.Rows, key: str) -> list[str]:
    """The column of ``key`` as text: accuracies as errors in percent, a dash where a row has no value."""
    if key not in _COLUMNS:
        return [labels.NONE if row.get(key) is None else _plain(row[key]) for row in rows]
    split, _, quantity = key.partition("_")
    values = metrics.errors_in_percent(rows, split) if quantity == "accuracy" else metrics.column(rows, key)
    assert values is not None  # the key is one that some row has
    return [
        labels.NONE if row.get(key) is None else format(value, _COLUMNS[key][1])
        for row, value in zip(rows, values, strict=True)
    ]


def _config(config: Mapping[str, Any]) -> str:
    lines = [
        f'<tr><th scope="row">{_breakable(name)}</th><td>{text(_plain(value))}</td></tr>'
        for name, value in _flat(config, "")
    ]
    return _folded("Configuration", "config", ["<tbody>", *lines, "</tbody>"], is_open=True) if lines else ""


def _folded(heading: str, kind: str, lines: list[str], *, is_open: bool = False) -> str:
    """A table that the reader can open and close."""
    state, table = " open" if is_open else "", "\n".join(lines)
    return (
        f"<details{state}>\n<summary>{heading}</summary>\n"
        f'<div class="wide"><table class="{kind}">\n{table}\n</table></div>\n</details>'
    )


def _breakable(name: str) -> str:
    """A dotted name that a narrow screen may break behind a dot or an underscore."""
    return text(name).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _flat(config: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{name}.")
        else:
            pairs.append((name, value))
    return pairs


def _plain(value: object) -> str:
    """A value of the configuration as a reader would write it down."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return repr(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 1e15 else repr(value)
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)
