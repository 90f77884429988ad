"""Two records of the same kind side by side: which rows became faster, slower, wrong, or are in one of them alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from gpucnn.bench.turns import spread

IDENTITY = (
    *("step", "model", "network", "mode", "layer", "op", "call", "pass", "direction", "what", "flavour", "problem"),
    *("shape", "batch", "input", "classes", "data", "dtype", "amp", "fused", "precision", "contestant", "until"),
)
"""What says what a row is of; everything else is what was found. A row has some of these."""

TIMES = {"microseconds": 1.0, "milliseconds": 1e3, "seconds": 1e6}
"""A row's time is under one of these names; microseconds in one of its unit."""

NO_COUNT = 1


@dataclass(frozen=True)
class Pair:
    """A row that both records have; times in microseconds, None where there is none.

    Attributes:
        what: the row in words.
        before, after: medians; `spread_before`, `spread_after`: the ranges of the middle half.
        ratio: before / after: above 1 where the second record is faster.
        count: how many times a network has it.
        kernels: the two that ran, where they differ.
        status: of the second record, where it is not "ok", or was not before.
    """

    what: str
    before: float | None
    after: float | None
    spread_before: float | None
    spread_after: float | None
    ratio: float | None
    count: int
    kernels: tuple[str, str] | None
    status: str | None

    @property
    def is_noise(self) -> bool:
        """Whether the difference is within the spreads."""
        if self.before is None or self.after is None:
            return False
        return abs(self.before - self.after) <= (self.spread_before or 0.0) + (self.spread_after or 0.0)


@dataclass(frozen=True)
class Comparison:
    """What two records have in common, and what not.

    Attributes:
        pairs: rows of both, in the first one's order.
        only_before, only_after: rows of one alone, in words.
        notes: in what the runs themselves differ: study, machine, versions.
    """

    pairs: tuple[Pair, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def mean_ratio(self) -> float | None:
        """The geometric mean of the ratios."""
        logs = [math.log(pair.ratio) for pair in self.pairs if pair.ratio]
        return math.exp(sum(logs) / len(logs)) if logs else None

    def totals(self) -> tuple[float, float]:
        """Microseconds of all rows with both times, each as often as a network has it."""
        both = [pair for pair in self.pairs if pair.ratio is not None]
        return sum(p.count * (p.before or 0.0) for p in both), sum(p.count * (p.after or 0.0) for p in both)

    def below(self, least: float) -> list[Pair]:
        """The pairs whose ratio is below `least`, and those of which the second record has no right result any more."""
        return [pair for pair in self.pairs if pair.status or (pair.ratio is not None and pair.ratio < least)]

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for JSON."""
        return {**asdict(self), "mean_ratio": self.mean_ratio}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Compares two records, as `records.read` gives them.

    Rows are of the same where all that they have of IDENTITY agrees, and their kernel where a record has several such.

    Raises:
        ValueError: they have no row in common.
    """
    first, second = _indexed(before["rows"], after["rows"])
    shared = [key for key in first if key in second]
    if not shared:
        raise ValueError(
            f"the records have no row in common: one is of {before.get('study')!r} ({len(first)} rows), "
            f"the other of {after.get('study')!r} ({len(second)} rows)"
        )
    words = _words([*first, *second])
    return Comparison(
        tuple(_pair(words[key], first[key], second[key]) for key in shared),
        tuple(words[key] for key in first if key not in second),
        tuple(words[key] for key in second if key not in first),
        tuple(_notes(before, after)),
    )


Key = tuple[tuple[str, Any], ...]


def _key(row: Mapping[str, Any], *more: str) -> Key:
    """Of what can be hashed: lists and objects as their JSON."""
    found = []
    for name in (*IDENTITY, *more):
        if (value := row.get(name)) is not None:
            found.append((name, value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)))
    return tuple(found)


def _indexed(*records: Iterable[Mapping[str, Any]]) -> list[dict[Key, Mapping[str, Any]]]:
    """Of each record its rows by what they are; of several alike, the last."""
    kept = [[each for row in rows for each in _single(row) if _key(each)] for rows in records]
    many = {key for rows in kept for key, times in Counter(map(_key, rows)).items() if times > 1}
    return [{_key(row, "kernel") if _key(row) in many else _key(row): row for row in rows} for rows in kept]


def _single(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A row of each contestant, of one that has several's times: until the next call can be made, and until its work
    is done."""
    if not isinstance(row.get("times"), dict):
        yield row
        return
    for name, until in (("times", "the call returns"), ("done", "its work is done")):
        for contestant, timing in (row.get(name) or {}).items():
            yield {**row, "contestant": contestant, "until": until, **timing}


def _words(keys: Iterable[Key]) -> dict[Key, str]:
    """Each key without what is the same in all, and without its problem in full where the layer in a few words tells it
    from all others."""
    found = list(keys)
    values: dict[str, set[Any]] = {}
    for key in found:
        given = dict(key)
        for name in (*IDENTITY, "kernel"):
            values.setdefault(name, set()).add(given.get(name))
    telling = {name for name, several in values.items() if len(several) > 1}
    full, short = (
        {key: " ".join(_word(name, value) for name, value in key if name in names) for key in found}
        for names in (telling, telling - {"problem"})
    )
    times = Counter(short.values())
    return {key: (short[key] if times[short[key]] == 1 else full[key]) or _in_full(key) for key in found}


def _word(name: str, value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{name}={value}"


def _in_full(key: Key) -> str:
    return " ".join(_word(name, value) for name, value in key)


def _time(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """(median, spread) in microseconds. A list is of rounds."""
    for name, unit in TIMES.items():
        value = row.get(name)
        if isinstance(value, list) and value:
            return unit * median(value), unit * spread(value)
        if isinstance(value, int | float):
            beside = row.get("spread")
            return unit * value, unit * beside if isinstance(beside, int | float) else None
    return None, None


def _pair(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Pair:
    (a, spread_a), (b, spread_b) = _time(before), _time(after)
    kernels = (str(before.get("kernel") or "-"), str(after.get("kernel") or "-"))
    now, then = after.get("status", "ok"), before.get("status", "ok")
    return Pair(
        *(what, a, b, spread_a, spread_b),
        ratio=a / b if a is not None and b else None,
        count=int(after.get("count") or NO_COUNT),
        kernels=kernels if kernels[0] != kernels[1] else None,
        status=now if now != "ok" and then == "ok" else None,
    )


def _notes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    machines = [record.get("machine", {}).get("name") for record in (before, after)]
    for what, a, b in (
        ("study", before.get("study"), after.get("study")),
        ("machine", *machines),
        ("commit", before.get("commit"), after.get("commit")),
    ):
        if a != b:
            yield f"{what}: {a} and {b}"
    old, new = before.get("versions", {}), after.get("versions", {})
    for package in sorted({*old, *new}):
        if old.get(package) != new.get(package):
            yield f"{package}: {old.get(package, 'none')} and {new.get(package, 'none')}"
