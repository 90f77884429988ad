"""Holds the kernels of the compiled modules against those that a run of the tests compared.

python tools/kernel_coverage.py            after `make test`: exits 1 and names each kernel that no test compared, and
                                           what gpucnn/kernels_compared.json lacks or has too much
python tools/kernel_coverage.py --write    writes that file anew, from the run (build/kernels_compared.json)
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpucnn import kernels

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "build/kernels_compared.json"
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
        base = kernel.partition("<")[0]
        # One that tests launch by its binding alone serves the ops that others of its name serve.
        alike = {op for (f, k), e in run.items() if (f, k.partition("<")[0]) == (file, base) for op in e["ops"]}
        found.append(
            {
                **{"file": file, "kernel": kernel, "configuration": in_words(kernel, names.get(base, []))},
                **{"ops": sorted(entry["ops"] or alike), "dtypes": sorted(dtypes_of(kernel) or entry["dtypes"])},
                **{"threads": entry["threads"], "shared": entry["shared"]},
            }
        )
    return found


def text_of(entries: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n"


def main(arguments: list[str]) -> int:
    there = {(kernel.file, kernel.name) for kernel in kernels.kernels()}
    if not RUN.exists():
        print(f"{RUN} is not there: run the tests first", file=sys.stderr)
        return 2
    run = {(entry["file"], entry["kernel"]): entry for entry in json.loads(RUN.read_text(encoding="utf-8"))}
    missing = gaps(there, run)
    for file, kernel in missing:
        print(f"no test ran and compared {file}: {kernel}")
    if "--write" in arguments:
        kernels.COMPARED.write_text(text_of(described(there, run, ROOT / "csrc")), encoding="utf-8")
    committed = {(entry["file"], entry["kernel"]) for entry in json.loads(kernels.COMPARED.read_text(encoding="utf-8"))}
    stale = [*gaps(set(run) & there, committed), *gaps(committed, there)]
    for file, kernel in stale:
        print(f"{kernels.COMPARED.name} is not up to date, {file}: {kernel}; tools/kernel_coverage.py --write")
    print(f"{len(there)} kernels and configurations, {len(there) - len(missing)} of them run and compared by the tests")
    return 1 if missing or stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
