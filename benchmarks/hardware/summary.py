"""What a file of results says, in at most 150 lines that stand alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]

MOST = 150
OURS = ("cuda", "simt", "reference")
PEER = "torch"
WORST = 8
"""Of a step's rows that are shown because they are bad."""
_SHARES = {"training": 30, "overhead": 20, "memory_bound": 16, "conv": 16}
"""Lines of a step at most; of others 12."""


def lines(head: Row, rows: Sequence[Row], steps: Sequence[str], seconds: float) -> list[str]:
    """The summary of a run, whose rows are those of `Journal.of_this`."""
    machine, versions = head["machine"], head["versions"]
    details = ", ".join(f"{name} {value}" for name, value in machine["details"].items())
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    found = [
        "",
        f"===== {head['study']}: {head['date']}, {seconds:.0f} s",
        f"{machine['name']}: {details}"[:240],
        f"{packages}; commit {head['commit']}"[:240],
    ]
    by_step: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_step[row["step"]].append(row)
    for step in steps:
        found += _of_step(step, by_step[step])
    todo = [step for step in steps if not _is_done(by_step[step])]
    found += ["", f"not done: {','.join(todo)}" if todo else "all steps are done"]
    if len(found) > MOST:
        found = [*found[: MOST - 3], f"... {len(found) - MOST + 1} lines more in the file", *found[-2:]]
    return found


def _is_done(rows: Iterable[Row]) -> bool:
    endings = [row["ended"] for row in rows if "ended" in row]
    return bool(endings) and set(endings) == {"done"}


def _of_step(step: str, rows: Sequence[Row]) -> list[str]:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[row["part"]].append(row)
    if not parts:
        return ["", f"--- {step}: not begun"]
    endings = Counter(next((row["ended"] for row in of if "ended" in row), "cut") for of in parts.values())
    taken = sum(row.get("seconds", 0.0) for row in rows if "ended" in row)
    how = ", ".join(f"{times} {ended}" for ended, times in endings.items())
    told = [text for part, of in parts.items() for text in _of_part(step, part, of)]
    most = _SHARES.get(step, 12)
    if len(told) > most:
        told = [*told[: most - 1], f"  ... {len(told) - most + 1} lines more"]
    return ["", f"--- {step}: {how}; {taken:.0f} s", *told]


def _of_part(step: str, part: str, rows: Sequence[Row]) -> list[str]:
    found = [row for row in rows if "ended" not in row]
    end = next((row for row in rows if "ended" in row), {"ended": "cut", "why": "its end was never written"})
    tell = {"conv": _measured, "memory_bound": _measured, "tests": _tests, "sanitizer": _watched}
    tell |= {"instructions": _instructions, "counters": _counters, "ceilings": _ceilings}
    tell |= {"training": _networks, "overhead": _overhead, "build": _built}
    told = [f"  {text}" for text in tell.get(step, _plain)(found)] if found else []
    if end["ended"] != "done":
        last = [line for line in end.get("tail", []) if line.strip()][-2:]
        told += [f"  {end['ended'].upper()}: {end.get('why') or ' / '.join(last)}"[:220]]
    return [f"{part}: {told[0].strip()}", *told[1:]] if told else [f"{part}: {end['ended']}"]


def _built(rows: Sequence[Row]) -> list[str]:
    (row,) = rows
    code = f"{', '.join(row['targets'])}, CUDA {row['toolkit']}" if row.get("cuda") else "no CUDA"
    return [f"{row['took']} s; {code}; for the CPU: {', '.join(row['simt']['built'])}"]


def _instructions(rows: Sequence[Row]) -> list[str]:
    wrong = [row["instruction"] for row in rows if row["status"] != "ok"]
    where = f"{rows[0]['from']} against {rows[0]['golden']}" if rows else "none answered"
    said = [f"{len(rows) - len(wrong)} of {len(rows)} as the file has them, {where}"]
    return said + ([f"WRONG: {', '.join(wrong)}"[:220]] if wrong else [])


def _ceilings(rows: Sequence[Row]) -> list[str]:
    copies = [1e-9 * row["bytes_per_second"] for row in rows if "copied" in row]
    rates = [f"{row['product']} {1e-12 * row['operations_per_second']:.4g}" for row in rows if "product" in row]
    said = f"copies {min(copies):.4g} to {max(copies):.4g} GB/s" if copies else "no copy was measured"
    return [f"{said}; products in TFLOP/s: {', '.join(rates)}"]


def _tests(rows: Sequence[Row]) -> list[str]:
    counts = Counter[str]()
    for row in rows:
        counts.update(row.get("tests", {}))
    failed = [f"{row['status']}: {row['test']}"[:200] for row in rows if "test" in row]
    more = [f"... and {len(failed) - WORST} more"] if len(failed) > WORST else []
    return [", ".join(f"{times} {how}" for how, times in counts.items()) or "none ran", *failed[:WORST], *more]


def _watched(rows: Sequence[Row]) -> list[str]:
    calls = sum("case" in row for row in rows)
    said = [f"{calls} calls; " + ("; ".join(row["summary"] for row in rows if "summary" in row) or "no summary")]
    findings = Counter(row["finding"] for row in rows if "finding" in row)
    return said + [f"{times} x {finding}"[:200] for finding, times in findings.most_common(WORST)]


def _counters(rows: Sequence[Row]) -> list[str]:
    differing = [row for row in rows if row.get("differs")]
    calls = len({(row["case"], row["dtype"]) for row in rows})
    by = Counter(row["counter"] for row in differing)
    said = [
        f"{len(rows)} counters of {calls} calls, {len(differing)} differ" + "".join(f", {n} {c}" for c, n in by.items())
    ]
    worst = sorted(differing, key=lambda row: -abs((row["hardware"] or 0) / (row["model"] or 1) - 1))
    return said + [
        f"{row['dtype']} {row['kernel'][:60]} {row['counter']}: model {row['model']:g}, hardware {row['hardware']:g}"
        for row in worst[:WORST]
    ]


def _measured(rows: Sequence[Row]) -> list[str]:
    """By dtype and pass the totals beside the peer's, then the worst layers, and what is wrong."""
    rows = [row for row in rows if row.get("status") != "static"]  # of kernels that were not run
    best: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row.get("microseconds") and row.get("chosen", True) and row["status"] == "ok":
            case = row["pass"], row["op"], row.get("layer") or row["problem"]
            best[case]["ours" if row["contestant"] in OURS else row["contestant"]] = row
    told, ratios = [], []
    for direction in dict.fromkeys(case[0] for case in best):
        cases = {case: of for case, of in best.items() if case[0] == direction and "ours" in of}
        both = [of for of in cases.values() if PEER in of]
        ours = sum(_count(of["ours"]) * of["ours"]["microseconds"] for of in both)
        theirs = sum(_count(of["ours"]) * of[PEER]["microseconds"] for of in both)
        alone = sum(_count(of["ours"]) * of["ours"]["microseconds"] for of in cases.values())
        bound = sum(_count(of["ours"]) * (of["ours"].get("bound_us") or 0.0) for of in cases.values())
        ratio = f", x {PEER} {theirs / ours:.2f}" if ours else ""
        share = f", share {bound / alone:.2f}" if alone else ""
        told.append(f"{direction} {alone:,.0f} us of {len(cases)}{ratio}{share}")
        ratios += [
            (of[PEER]["microseconds"] / of["ours"]["microseconds"], case, of["ours"])
            for case, of in cases.items()
            if PEER in of
        ]
    ratios.sort(key=lambda item: item[0])
    worst = "; ".join(
        f"{ratio:.2f} {case[2]} {case[0]} ({row.get('kernel') or '-'})" for ratio, case, row in ratios[:3]
    )
    wrong = Counter((row["contestant"], row["status"]) for row in rows if row.get("status", "ok") != "ok")
    said = ["; ".join(told) or "nothing was measured"]
    said += [f"worst: {worst}"[:220]] if worst else []
    return said + [f"{times} x {name}: {status}"[:200] for (name, status), times in wrong.most_common(2)]


def _count(row: Row) -> int:
    return int(row.get("count") or 1)


def _networks(rows: Sequence[Row]) -> list[str]:
    """A contestant a line, then what most of gpucnn's step goes into."""
    told = []
    whole = [row for row in rows if "call" not in row]
    ours = next((row["microseconds"] for row in whole if row["contestant"] in OURS), None)
    for row in whole:
        if not row.get("microseconds"):
            told.append(f"{row['contestant']}: {row.get('status')}"[:200])
            continue
        peak = row.get("peak_bytes")
        told.append(
            f"{row['contestant']} {1e-3 * row['microseconds']:.3f} ms +- {1e-3 * (row['spread'] or 0.0):.3f}, "
            f"{row['images_per_second']:,.0f} images/s"
            + (f", {peak / 2**20:,.0f} MiB" if peak else "")
            + (f", x {row['microseconds'] / ours:.2f}" if ours and row["contestant"] not in OURS else "")
            + ("" if row.get("status", "ok") == "ok" else f", {row['status']}"[:120])
        )
    parts = sorted((row for row in rows if "call" in row), key=lambda row: -(row["share"] or 0.0))
    if parts:
        told.append("; ".join(f"{row['call']} {100 * row['share']:.0f} %" for row in parts[:6])[:220])
    return told


def _overhead(rows: Sequence[Row]) -> list[str]:
    """An op a line: microseconds of each layer of the stack, gpucnn's over PyTorch's."""
    by_op: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        ours, theirs = (row["times"].get(name) for name in ("gpucnn", "torch"))
        if ours:
            beside = f"/{1e6 * theirs['seconds']:.1f}" if theirs else ""
            by_op[row["op"]].append(f"{row['layer']} {1e6 * ours['seconds']:.1f}{beside}")
    return [f"{op}, us/torch's: {', '.join(layers)}"[:220] for op, layers in by_op.items()]


def _plain(rows: Sequence[Row]) -> list[str]:
    """A row a line: names and numbers, of nested ones those of the first level below."""
    return [", ".join(_words(row))[:220] for row in rows]


def _words(row: Row, inside: bool = False) -> list[str]:
    found = []
    for name, value in row.items():
        if inside is False and name in ("step", "part"):
            continue
        if isinstance(value, dict) and not inside:
            if value:
                found.append(f"{name}: {' '.join(_words(value, inside=True))}")
        elif isinstance(value, float):
            found.append(f"{name} {value:.4g}")
        elif isinstance(value, str | int):
            found.append(f"{name} {value}")
        elif isinstance(value, dict) and "seconds" in value:
            found.append(f"{name} {1e6 * value['seconds']:.2f} us")
    return found
