"""Reading the rows of ``metrics.jsonl``: one mapping an epoch, every key but ``epoch`` optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[Mapping[str, Any]]

_SHARES = ("train_accuracy", "test_accuracy")


def check_rows(rows: Rows) -> None:
    """Checks what the pictures and the report rely on.

    Raises:
        TypeError: a row is not a mapping, or the value of a known key is not a number.
        ValueError: a row has no ``epoch``, epochs do not increase, or an accuracy lies outside 0..1.
    """
    previous: int | None = None
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"rows[{index}]: must be a mapping such as {{'epoch': 1, ...}}, got {type(row).__name__}")
        if "epoch" not in row:
            raise ValueError(f"rows[{index}]: has no 'epoch'; its keys are {sorted(map(str, row))}")
        epoch = row["epoch"]
        if not isinstance(epoch, Integral) or isinstance(epoch, bool):
            raise TypeError(f"rows[{index}]['epoch']: must be an integer, got {epoch!r}")
        if previous is not None and epoch <= previous:
            raise ValueError(f"rows[{index}]['epoch']: epochs must increase, got {epoch} after {previous}")
        previous = int(epoch)
        for key in _SHARES:
            share = _number(row.get(key), index, key)
            if share < 0 or share > 1:  # NaN passes: a diverged epoch is a fact to show
                raise ValueError(f"rows[{index}][{key!r}]: must be a share in 0..1, got {row[key]!r}")


def epochs(rows: Rows) -> NDArray[np.int64]:
    """The epochs of checked rows, shape (len(rows),)."""
    return np.array([int(row["epoch"]) for row in rows], dtype=np.int64)


def column(rows: Rows, key: str) -> NDArray[np.float64] | None:
    """The values under ``key``, shape (len(rows),), NaN where a row lacks it (or has null); None where all lack it.

    Raises:
        TypeError: a value is not a number.
    """
    if all(row.get(key) is None for row in rows):
        return None
    return np.array([_number(row.get(key), index, key) for index, row in enumerate(rows)], dtype=np.float64)


def errors_in_percent(rows: Rows, split: str) -> NDArray[np.float64] | None:
    """100 (1 - accuracy) of ``split`` ("train" or "test"), shape (len(rows),), or None where no row has it."""
    accuracy = column(rows, f"{split}_accuracy")
    return None if accuracy is None else 100.0 * (1.0 - accuracy)


def best_row(rows: Rows) -> int | None:
    """Index of the row with the lowest test error (test loss where there is no accuracy); the first of equals.

    None where no test value is finite.
    """
    for values in (errors_in_percent(rows, "test"), column(rows, "test_loss")):
        if values is not None and np.isfinite(values).any():
            return int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
    return None


def _number(value: Any, index: int, key: str) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"rows[{index}][{key!r}]: must be a number, got {value!r}")
    return float(value)
