"""Holds the kernels of the compiled modules against those that a run of the tests compared.

python tools/kernel_coverage.py            after `make test`: exits 1 and names each kernel that no test compared, and
                                           what gpucnn/kernels_compared.json lacks or has too much
python tools/kernel_coverage.py --write    writes that file anew, from the run (build/kernels_compared.json)
python tools/kernel_coverage.py --counts   prints how many comparisons followed launches, by op and pass
python tools/kernel_coverage.py --fixed    after `pytest --fixed-cases -k plain`: exits 1 and names
                                           each kernel that only cases compare which are sampled anew every day
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from gpucnn import kernels

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "build/kernels_compared.json"
FIXED_RUN = ROOT / "build/kernels_compared_fixed.json"
DTYPES = {"float": "float32", "half": "float16", "bfloat16": "bfloat16", "unsigned char": "uint8"}

Key = tuple[str, str]

_KERNEL = re.compile(
    r"(?:template\s*<(?P<parameters>[^{};]*?)>\s*)?__global__\s+void\s+"
    r"(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s*)?(?P<name>\w+)\s*\("
)


def parameters(csrc: Path) -> dict[str, list[str]]:
    """Of each kernel below `csrc` the names of its template's parameters."""
    found: dict[str, list[str]] = {}
    for path in sorted(csrc.rglob("*")):
        if path.suffix in (".cu", ".cuh", ".h"):
            for kernel in _KERNEL.finditer(re.sub(r"//.*", "", path.read_text(encoding="utf-8"))):
                names = [parameter.partition("=")[0].split()[-1] for parameter in split(kernel["parameters"] or "")]
                found[kernel["name"]] = names
    return found


def split(arguments: str) -> list[str]:
    """What stands between commas, of which those inside <> and () do not count."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter in "<(") - (letter in ">)")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def arguments_of(kernel: str) -> list[str]:
    """ "scale_kernel<half, true>" -> ["half", "true"]"""
    return split(kernel.partition("<")[2].strip().removesuffix(">"))


def in_words(kernel: str, names: list[str]) -> str:
    """A kernel's template arguments: "float16, aligned", "float32, tile 64"."""
    words = []
    for name, value in zip(names, arguments_of(kernel), strict=False):
        plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.removeprefix("k")).lower() if name[:1] == "k" else name
        if value in ("true", "false"):
            words.append(plain if value == "true" else f"not {plain}")
        elif name in ("T", "F"):
            words.append(DTYPES.get(value, value))
        else:
            words.append(f"{plain.lower()} {DTYPES.get(value, value)}")
    return ", ".join(words)


def dtypes_of(kernel: str) -> set[str]:
    """Those of its template arguments."""
    return {DTYPES[word] for word in re.findall(r"\b(?:float|half|bfloat16)\b", kernel.partition("<")[2])}


def gaps(there: Iterable[Key], compared: Iterable[Key]) -> list[Key]:
    """The kernels that are there and were not compared."""
    return sorted(set(there) - set(compared))


def described(there: Iterable[Key], run: Mapping[Key, dict[str, Any]], csrc: Path) -> list[dict[str, Any]]:
    """What is committed: of each kernel that is there and was compared."""
    names = parameters(csrc)
    found = []
    for file, kernel in sorted(set(there) & set(run)):
        entry = run[file, kernel]
        words = in_words(kernel, names.get(kernel.partition("<")[0], []))
        found.append(
            {
                **{"file": file, "kernel": kernel, "configuration": words, "ops": ops_of((file, kernel), run)},
                **{"dtypes": sorted(dtypes_of(kernel) or entry["dtypes"])},
                **{"threads": entry["threads"], "shared": entry["shared"]},
            }
        )
    return found


def ops_of(key: Key, run: Mapping[Key, dict[str, Any]]) -> list[str]:
    """What a kernel is launched for. One that tests launch by its binding alone serves the ops that others of its name
    serve."""

    def name(key: Key) -> Key:
        return key[0], key[1].partition("<")[0]

    alike = {op for other, entry in run.items() if name(other) == name(key) for op in entry["ops"]}
    return sorted(run[key]["ops"] or alike)


@dataclass
class Counts:
    """Of an op's pass."""

    kernels: set[str] = field(default_factory=set)
    """By their names in the table, and """
    configurations: set[Key] = field(default_factory=set)
    """as they are compiled."""
    comparisons: int = 0
    """That passed after launches for this op,"""
    by_binding: int = 0
    """and after launches of its kernels by their bindings alone, which also count for each other op that they serve."""


def counted(there: Iterable[Key], run: Mapping[Key, dict[str, Any]]) -> dict[str, Counts]:
    """By op and pass: "conv2d fprop"."""
    found: dict[str, Counts] = {}
    for key in sorted(set(there) & set(run)):
        comparisons: dict[str, int] = run[key]["comparisons"]
        served = set()
        for op in ops_of(key, run):
            label, _, kernel = op.partition(": ")
            counts = found.setdefault(label, Counts())
            counts.kernels.add(kernel)
            counts.configurations.add(key)
            counts.comparisons += comparisons.get(op, 0)
            served.add(label)
        for label in served:
            found[label].by_binding += comparisons.get("", 0)
    return dict(sorted(found.items()))


def table_of(found: Mapping[str, Counts]) -> str:
    headers = ["op and pass", "kernels", "configurations", "comparisons", "by binding"]
    rows = [
        [label, ", ".join(sorted(each.kernels)), len(each.configurations), each.comparisons, each.by_binding]
        for label, each in found.items()
    ]
    return tabulate(rows, headers)


def text_of(entries: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n"


def main(arguments: list[str]) -> int:
    there = {(kernel.file, kernel.name) for kernel in kernels.kernels()}
    path = FIXED_RUN if "--fixed" in arguments else RUN
    if not path.exists():
        print(f"{path} is not there: run the tests first", file=sys.stderr)
        return 2
    run = {(entry["file"], entry["kernel"]): entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    missing = gaps(there, run)
    if path == FIXED_RUN:
        for file, kernel in missing:
            print(f"no fixed case compares {file}: {kernel}")
        print(f"{len(there)} kernels and configurations, {len(there) - len(missing)} of them in fixed cases")
        return 1 if missing else 0
    for file, kernel in missing:
        print(f"no test ran and compared {file}: {kernel}")
    if "--write" in arguments:
        kernels.COMPARED.write_text(text_of(described(there, run, ROOT / "csrc")), encoding="utf-8")
    if "--counts" in arguments:
        print(table_of(counted(there, run)))
        total = sum(sum(run[key]["comparisons"].values()) for key in there & set(run))
        print(f"{total} comparisons of what a kernel and configuration wrote")
    committed = {(entry["file"], entry["kernel"]) for entry in json.loads(kernels.COMPARED.read_text(encoding="utf-8"))}
    stale = [*gaps(set(run) & there, committed), *gaps(committed, there)]
    for file, kernel in stale:
        print(f"{kernels.COMPARED.name} is not up to date, {file}: {kernel}; tools/kernel_coverage.py --write")
    print(f"{len(there)} kernels and configurations, {len(there) - len(missing)} of them run and compared by the tests")
    return 1 if missing or stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
