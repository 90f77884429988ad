"""How exactly float32 is multiplied on tensor cores: chosen, never silent.

`highest`, which is the default, is as exact as float32: its own arithmetic, or six products of bfloat16 for one,
whichever is faster. `high` is TF32: factors rounded to 11 bits, sums in float32, errors of about 3e-4. It says nothing
of other dtypes.
"""

from __future__ import annotations

PRECISIONS = ("highest", "high")

_current = "highest"


def set_float32_precision(precision: str) -> None:
    """Of linear layers, and of convolutions that do not say `precision=...` themselves: from now on, in all threads.

    Args:
        precision: "highest" or "high".

    Raises:
        ValueError: another one.
    """
    global _current
    _current = checked_precision(precision)


def float32_precision() -> str:
    """What was set last: "highest" or "high"."""
    return _current


def checked_precision(precision: str | None, op: str = "") -> str:
    """`precision` if it is one, that in use for None; ValueError names those that there are."""
    if precision is None:
        return _current
    if precision not in PRECISIONS:
        where = f"{op}: " if op else ""
        raise ValueError(f"{where}precision must be {' or '.join(map(repr, PRECISIONS))}, got {precision!r}")
    return precision
