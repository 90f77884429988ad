"""How wide the memory accesses are that nvcc makes of a kernel's lines, and its matrix instructions, from its PTX.

    python tools/ptx_widths.py csrc/conv2d/direct_fprop.cu ...

compiles the files and prints them. The profiler counts accesses as the source has them; tests/test_profile_widths.py
compares the two by what is here, so that counts and machine code can't drift apart unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "_build")]

from machine_code import programs  # noqa: E402

from cuda_toolkit import Toolkit  # noqa: E402
from ptxas_report import kernel_names  # noqa: E402

Line = tuple[str, int]
Width = tuple[str, str, int]
"""Space (global, shared, generic where nvcc does not know which; none for a matrix instruction), what is done (load,
store, atomic, copy, ldmatrix, mma_m16n8k16_bf16 and its like), and bytes of a lane's access."""

LAYER = ("csrc/simt/", "csrc/common/pack.h")
"""What kernels access memory through: the line that counts is that of their caller, as in gpucnn/profile/source.py."""

Lines = Mapping[Line, Collection[Width]]
"""A kernel's accesses by source line."""

NEAR, FAR = 3, 12
"""Lines that the two compilers' ideas of where a statement lies may differ by, and of where a value is loaded."""

_FILE = re.compile(r'\s*\.file\s+(\d+)\s+"([^"]+)"')
_POSITION = re.compile(
    r"\s*\.loc\s+(\d+)\s+(\d+)\s+(\d+)(?:,\s*function_name\s+[^,]+,\s*inlined_at\s+(\d+)\s+(\d+)\s+(\d+))?"
)
_ENTRY = re.compile(r"\.entry\s+(\w+)")
_ACCESS = re.compile(r"\s*(?:@!?%\w+\s+)?(ld|st|atom|red|cp\.async|ldmatrix|mma)\b([.\w:]*)(.*)")
_MATRIX = re.compile(r"\.(m\d+n\d+k\d+)\.row\.col\.\w+\.(\w+)\.")
_FACTORS = {"bf16": "bf16", "f16": "fp16", "tf32": "tf32"}
_TYPE = re.compile(r"\.(?:v([248]))?\.?[subf]?(8|16|32|64|128)$")

_Place = tuple[int, int, int]

HALF = 2
"""Bytes of values that are structures for a host compiler, and often loaded where a caller's caller uses them."""


def widths(ptx: str, root: Path = ROOT) -> dict[str, dict[Line, Counter[Width]]]:
    """How often the code has each access, by kernel (its name in the binary) and source line.

    A line is the innermost one of a kernel's source: not of LAYER, nor of CUDA's headers.
    """
    files: dict[int, str] = {}
    for text in ptx.splitlines():
        if match := _FILE.match(text):
            path = Path(match[2])
            files[int(match[1])] = path.relative_to(root).as_posix() if path.is_relative_to(root) else match[2]
    found: dict[str, dict[Line, Counter[Width]]] = {}
    current: dict[Line, Counter[Width]] = {}
    callers: dict[_Place, _Place] = {}
    place: _Place | None = None
    for text in ptx.splitlines():
        if match := _ENTRY.search(text):
            current = found[match[1]] = {}
            callers.clear()
        elif match := _POSITION.match(text):
            place = (int(match[1]), int(match[2]), int(match[3]))
            if match[4]:
                callers[place] = (int(match[4]), int(match[5]), int(match[6]))
            else:
                callers.pop(place, None)
        elif (match := _ACCESS.match(text)) and place is not None and (width := _width(match[1], match[2], match[3])):
            current.setdefault(_outside(place, callers, files), Counter())[width] += 1
    symbols = list(found)
    return dict(zip(kernel_names(symbols), (found[symbol] for symbol in symbols), strict=True))


def _outside(place: _Place, callers: dict[_Place, _Place], files: dict[int, str]) -> Line:
    """The innermost line of a kernel's source that the place is in or inlined into."""
    seen = set()
    while not _is_a_kernels(files.get(place[0], "")) and place in callers and place not in seen:
        seen.add(place)
        place = callers[place]
    return files.get(place[0], "?"), place[1]


def _is_a_kernels(file: str) -> bool:
    return file.startswith("csrc/") and not file.startswith(LAYER)


def _width(operation: str, modifiers: str, operands: str) -> Width | None:
    if operation == "mma":
        kind = _MATRIX.search(modifiers)
        return ("", f"mma_{kind[1]}_{_FACTORS.get(kind[2], kind[2])}", 0) if kind else None
    if operation == "ldmatrix":
        return "shared", "ldmatrix", 16
    if operation == "cp.async":
        if "shared.global" not in modifiers:
            return None  # commit and wait
        return "global", "copy", int(operands.split(",")[2].strip(" ;"))
    match = _TYPE.search(modifiers)
    if match is None or any(f".{space}" in modifiers for space in ("param", "const", "local")):
        return None  # parameters, constants, what lies on the stack
    space = next((space for space in ("global", "shared") if f".{space}" in modifiers), "generic")
    purpose = {"ld": "load", "st": "store"}.get(operation, "atomic")
    return space, purpose, int(match[1] or 1) * int(match[2]) // 8


def drifted(seen: Lines, code: Lines) -> Iterator[str]:
    """Where one kernel's accesses differ, by "file:line": those of a profile (`seen`) and those of its PTX (`code`).

    What the profile saw has to be in the PTX within NEAR lines. The compilers may differ about the line: a value is
    loaded where it is passed, or where it is used. So it may also be within FAR lines where the profile saw no such
    access; if the PTX has nothing of its kind near, or it is a 16-bit value, anywhere in the kernel. Where the PTX has
    something wider in the place of what the profile saw, nvcc has merged what the profile counts one by one.
    """
    unseen: dict[Line, set[Width]] = {}
    for line, widths in code.items():
        unseen[line] = {width for width in widths if width[2] not in _of_kind(width, _near(line, seen))}
    everywhere = {width for widths in code.values() for width in widths}
    for line, widths in sorted(seen.items()):
        for width in sorted(widths):
            here = _of_kind(width, _near(line, code))
            is_moved = not here or width[2] == HALF
            if width[2] not in here | _of_kind(width, everywhere if is_moved else _near(line, unseen, FAR)):
                yield f"{_text(line, 'profile saw', width)}, the PTX has {_sizes(here)}"
    for line, widths in sorted(code.items()):
        for width in sorted(widths):
            there = _of_kind(width, seen.get(line, ()))
            if (
                width in unseen[line]
                and width[2] > max(there, default=width[2])
                and not there <= _of_kind(width, widths)
            ):
                yield f"{_text(line, 'PTX has', width)}, the profile saw {_sizes(there)}"


def _near(line: Line, lines: Lines, reach: int = NEAR) -> Iterator[Width]:
    for number in range(line[1] - reach, line[1] + reach + 1):
        yield from lines.get((line[0], number), ())


def _of_kind(like: Width, several: Iterable[Width]) -> set[int]:
    """The sizes of those that do the same in the same space, or may."""
    space, purpose, _ = like
    return {size for of, what, size in several if what == purpose and (of == space or "generic" in (of, space))}


def _text(line: Line, who: str, width: Width) -> str:
    space, purpose, size = width
    return f"{line[0]}:{line[1]}: the {who} a {space} {purpose} of {size} bytes".replace("a  ", "a ")


def _sizes(several: Iterable[int]) -> str:
    return " and ".join(map(str, sorted(several))) or "none"


def objects(folder: Path = ROOT / "build" / "cuda", root: Path = ROOT) -> dict[str, list[Path]]:
    """The objects of the CUDA extension's build that are up to date, by the name of their source ("gradients.cu")."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.cu.o")):
        try:
            inputs = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))["inputs"]
            digests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in inputs}
        except FileNotFoundError:  # not finished, or of a source that is gone
            continue
        if digests == inputs:
            found.setdefault(path.name.removesuffix(".o"), []).append(path)
    return found


def read_ptx(built: Path) -> str:
    """The PTX in an object. Raises RuntimeError: there is no cuobjdump, or it finds none."""
    (tool,), environment = programs("cuobjdump")
    done = subprocess.run([tool, "-ptx", str(built)], capture_output=True, text=True, env=environment)
    if done.returncode != 0 or ".entry" not in done.stdout:
        raise RuntimeError(f"{tool} finds no PTX in {built}: {done.stderr.strip()}")
    return done.stdout


def compile_to_ptx(source: Path, toolkit: Toolkit, arch: str = "90a", root: Path = ROOT) -> str:
    """The PTX of a kernel file, with lines. Raises subprocess.CalledProcessError where it does not compile."""
    command = [str(toolkit.nvcc), "-std=c++17", "-O3", "-lineinfo", "-ptx", f"-arch=compute_{arch}", f"-I{root}/csrc"]
    return subprocess.run(
        [*command, str(source), "-o", "-"], cwd=root, check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    from cuda_toolkit import find_toolkit

    search = find_toolkit(os.environ, sys.path)
    if search.toolkit is None:
        sys.exit(search.failure)
    for argument in sys.argv[1:]:
        for kernel, code in widths(compile_to_ptx(Path(argument).resolve(), search.toolkit)).items():
            print(kernel)
            for (file, number), counts in sorted(code.items()):
                for (space, purpose, size), times in sorted(counts.items()):
                    print(f"  {file}:{number}  {space} {purpose} {size} x{times}")
