"""Writes the tables of benchmarks/README.md from the newest records in benchmarks/results/.

python tools/benchmark_tables.py            writes everything below the marker anew
python tools/benchmark_tables.py --check    says whether that would change anything, by its exit status

Of each study on each machine the newest record counts: by its date, then by its name. One network trained and run
forward, or in batches of 64 and of 256, or one suite in two precisions, are studies of their own.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gpucnn.ops  # noqa: F401  fills the tables of kernels
from gpucnn.bench import records
from gpucnn.ops.registry import TABLES

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "benchmarks" / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
MARKER = "<!-- below: written by `python tools/benchmark_tables.py` from results/ -->"

OURS = ("cuda", "reference")
"""Contestants that are gpucnn as it is used; kernels built for the CPU are there to be checked."""
PEERS = {"torch": "PyTorch", "torch default": "PyTorch as it comes"}
STEPS = {
    "instructions": "the instruction models against the instructions themselves",
    "tests": "the tests of the kernels on a GPU",
    "sanitizer": "compute-sanitizer: memcheck, racecheck",
    "counters": "the profiler's counts beside `ncu`'s",
    "conv": "the convolutions of networks beside cuDNN",
    "memory_bound": "ops that are bound by memory",
    "training": "training, end to end",
    "overhead": "what the layers of the stack add to a call",
}
"""Of benchmarks/hardware.sh, and what each is about."""

TABLE_OF = {
    **dict.fromkeys(("batch_norm", "batch_norm_relu", "instance_norm", "group_norm"), "norm"),
    **{"conv2d_relu": "conv2d", "relu6": "hardtanh", "binary_cross_entropy": "bce"},
}
"""Of functions whose kernels are in a table of another name."""

Record = Mapping[str, Any]


def load(folder: Path) -> dict[str, Record]:
    """Every record by its file's name."""
    return {path.name: records.read(path) for path in sorted(folder.glob("*.json")) if path.name != "schema.json"}


SETTINGS = ("model", "mode", "fused", "batch", "dtype", "amp", "precision")
"""Of rows: what makes two records of one study answer different questions."""


def newest(found: Mapping[str, Record]) -> dict[str, Record]:
    """Of each study with the same settings on each machine the newest."""
    latest: dict[tuple[Any, ...], tuple[str, str]] = {}
    for name, record in found.items():
        settings = {tuple([row[key] for key in SETTINGS if row.get(key) is not None]) for row in record["rows"]}
        is_whole = record["study"] == "hardware"  # all of what matters, as far as it got
        key = (record["study"], record["machine"]["name"], None if is_whole else frozenset(settings))
        latest[key] = max(latest.get(key, ("", "")), (record["date"], name))
    kept = {name for _, name in latest.values()}
    return {name: record for name, record in found.items() if name in kept}


def text(found: Mapping[str, Record]) -> str:
    """What stands below the marker."""
    kept = newest(found)
    parts = [MARKER, "", "## The newest records", "", *_records(kept)]
    machines = {(record["machine"]["kind"] != "cuda", record["machine"]["name"]) for record in kept.values()}
    for _, machine in sorted(machines):
        mine = [record for record in kept.values() if record["machine"]["name"] == machine]
        if tables := [line for make in (_suites, _networks, _overhead) for line in ("", *make(mine))]:
            told = "\n".join(tables).strip("\n")
            parts += ["", f"## {machine}", "", told] if told else []
    return "\n".join([*parts, "", "## Never run on hardware", "", *_never(kept.values())]) + "\n"


def _records(kept: Mapping[str, Record]) -> Iterator[str]:
    yield from _table(
        ("study", "machine", "date", "commit", "rows", "record"),
        [
            [
                *(record["study"], record["machine"]["name"], record["date"][:10]),
                *((record["commit"] or "installed")[:7], str(len(record["rows"])), f"[{name}](results/{name})"),
            ]
            for name, record in sorted(kept.items(), key=lambda item: (item[1]["study"], item[0]))
        ],
    )


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (headers, ["---"] * len(headers), *rows):
        yield f"| {' | '.join(row)} |"


def _suites(found: Iterable[Record]) -> Iterator[str]:
    """Each suite by dtype and pass: the sums of what a network has, beside each peer, and the worst layer."""
    rows = []
    for record in found:
        groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        for row in record["rows"]:
            if "contestant" in row and "pass" in row and "op" in row:
                groups[_suite(record, row), row["dtype"], row.get("precision") or "", row["pass"]].append(row)
        rows += [_line(key, members) for key, members in groups.items()]
    if rows:
        peers = [f"x {words}" for words in PEERS.values()]
        headers = (
            "what",
            "dtype",
            "precision",
            "pass",
            "layers",
            "gpucnn us",
            *peers,
            "share of the bound",
            "worst layer",
        )
        yield from _table(headers, rows)


def _networks(found: Iterable[Record]) -> Iterator[str]:
    """Each network end to end, by what was done with it."""
    rows = []
    for record in found:
        groups: dict[tuple[str, ...], dict[str, Record]] = defaultdict(dict)
        for row in record["rows"]:
            if "model" in row and "call" not in row:
                numbers = row.get("amp") or row["dtype"]
                what = (row["model"], row["mode"] + (" fused" if row.get("fused") else ""), str(row["batch"]), numbers)
                groups[what][row["contestant"]] = row
        for key, each in groups.items():
            ours = next((each[name] for name in OURS if name in each and _is_right(each[name])), None)
            if ours is None:
                continue
            others = [each.get(peer) for peer in PEERS]
            ratios = [f"{p['microseconds'] / ours['microseconds']:.2f}" if p and _is_right(p) else "-" for p in others]
            memory = [_mebibytes(ours), "-" if others[0] is None else _mebibytes(others[0])]
            time = f"{1e-3 * ours['microseconds']:.2f}"
            rows.append([*key, time, f"{ours['images_per_second']:,.0f}", *ratios, *memory])
    if rows:
        peers = [f"x {words}" for words in PEERS.values()]
        headers = ("network", "", "batch", "dtype", "ms a step", "images/s", *peers, "memory MiB", "PyTorch's")
        yield from _table(headers, rows)


def _mebibytes(row: Record) -> str:
    return f"{row['peak_bytes'] / 2**20:,.0f}" if row.get("peak_bytes") else "-"


def _is_right(row: Record) -> bool:
    return row["status"] == "ok" and row.get("microseconds") is not None


def _overhead(found: Iterable[Record]) -> Iterator[str]:
    """Of each layer of the stack microseconds a call, gpucnn's and PyTorch's."""
    ops: dict[str, dict[str, str]] = defaultdict(dict)
    for record in found:
        for row in record["rows"]:
            if "times" in row and "gpucnn" in row["times"]:
                each = [1e6 * row["times"][name]["seconds"] for name in ("gpucnn", "torch") if name in row["times"]]
                ops[row["op"]][row["layer"]] = " / ".join(f"{time:.1f}" for time in each)
    if ops:
        layers = list(dict.fromkeys(layer for by in ops.values() for layer in by))
        headers = ("us a call, gpucnn / PyTorch", *layers)
        yield from _table(headers, [[op, *(by.get(layer, "") for layer in layers)] for op, by in ops.items()])


def _suite(record: Record, row: Record) -> str:
    """Of a row of hardware.sh its part, else the record's study."""
    return str(row["part"]) if record["study"] == "hardware" else str(record["study"])


def _line(key: tuple[str, ...], members: Sequence[Record]) -> list[str]:
    """Only layers that both sides have measured are compared."""
    best = _best(row for row in members if row["contestant"] in OURS)
    bounds = sum(_count(row) * row["bound_us"] for row in best.values() if row.get("bound_us"))
    total = sum(_count(row) * row["microseconds"] for row in best.values())
    ratios, worst = [], ""
    for peer in PEERS:
        theirs = _best(row for row in members if row["contestant"] == peer)
        both = [what for what in best if what in theirs]
        ours = sum(_count(best[what]) * best[what]["microseconds"] for what in both)
        peers = sum(_count(best[what]) * theirs[what]["microseconds"] for what in both)
        ratios.append(f"{peers / ours:.2f}" if both else "-")
        if both and not worst:
            by = {what: theirs[what]["microseconds"] / best[what]["microseconds"] for what in both}
            least = min(by, key=lambda what: by[what])
            worst = f"{by[least]:.2f} {least}"
    shown = f"{total:,.1f}" if best else "-"
    return [*key, str(len(best)), shown, *ratios, f"{bounds / total:.2f}" if bounds and total else "-", worst or "-"]


def _count(row: Record) -> int:
    return int(row.get("count") or 1)


def _best(rows: Iterable[Record]) -> dict[str, Record]:
    """Each layer's right row by the kernel that a call gets which names none; the fastest of several contestants'."""
    found: dict[str, Record] = {}
    for row in rows:
        what = f"{row['op']} {row.get('layer') or row['problem']}"
        measured = row["microseconds"] if row["status"] == "ok" and row.get("chosen", True) else None
        if measured is not None and measured < found.get(what, {"microseconds": math.inf})["microseconds"]:
            found[what] = row
    return found


def _never(kept: Iterable[Record]) -> Iterator[str]:
    on_gpus = [record for record in kept if record["machine"]["kind"] == "cuda"]
    done = {row["step"] for record in on_gpus for row in record["rows"] if row.get("ended") == "done"}
    if missing := [f"- `{step}`: {words}" for step, words in STEPS.items() if step not in done]:
        yield "Steps of `hardware.sh` of which no record says that they were done on a GPU:"
        yield ""
        yield from missing
        yield ""
    right = [row for record in on_gpus for row in record["rows"] if row.get("status") == "ok" and "op" in row]
    measured = {TABLE_OF.get(row["op"], row["op"]) for row in right if row.get("contestant") == "cuda"}
    ops = sorted({op for (op, _), table in TABLES.items() if table.specs("cuda")} - measured)
    if ops:
        yield f"Ops with CUDA kernels that no record has a right, measured row of: {', '.join(ops)}."
    elif not missing:
        yield "Nothing: every step was done, and every op was measured."


def written(readme: str, found: Mapping[str, Record]) -> str:
    """The README with what is below its marker made anew.

    Raises:
        ValueError: it has no marker.
    """
    above, marker, _ = readme.partition(MARKER)
    if not marker:
        raise ValueError(f"benchmarks/README.md has no line {MARKER!r}")
    return above + text(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file is not up to date")
    options = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    after = written(before, load(RESULTS))
    if options.check:
        raise SystemExit(
            None
            if after == before
            else "benchmarks/README.md is not up to date: python tools/benchmark_tables.py writes it"
        )
    README.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
