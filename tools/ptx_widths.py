"""How wide the memory accesses are that nvcc makes of a kernel's lines, from its PTX.

    python tools/ptx_widths.py csrc/conv2d/direct_fprop.cu ...

prints them. The profiler counts accesses as the source has them; tests/test_profile_widths.py compares the two, so that
counts and machine code can't drift apart unseen.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "_build")]

from cuda_toolkit import Toolkit  # noqa: E402
from ptxas_report import kernel_names  # noqa: E402

Line = tuple[str, int]
Width = tuple[str, str, int]
"""Space (global, shared), what is done (load, store, atomic, copy, ldmatrix), and bytes of a lane's access."""

_FILE = re.compile(r'\s*\.file\s+(\d+)\s+"([^"]+)"')
_POSITION = re.compile(
    r"\s*\.loc\s+(\d+)\s+(\d+)\s+(\d+)(?:,\s*function_name\s+[^,]+,\s*inlined_at\s+(\d+)\s+(\d+)\s+(\d+))?"
)
_ENTRY = re.compile(r"\.entry\s+(\w+)")
_ACCESS = re.compile(r"\s*(?:@!?%\w+\s+)?(ld|st|atom|red|cp\.async|ldmatrix)\b([.\w:]*)(.*)")
_TYPE = re.compile(r"\.(?:v([248]))?\.?[subf]?(8|16|32|64|128)$")

_Place = tuple[int, int, int]


def widths(ptx: str, root: Path = ROOT) -> dict[str, dict[Line, Counter[Width]]]:
    """By kernel (its name in the binary) and source line: how often the code has each access.

    A line is the innermost one outside csrc/simt/, whose functions are how kernels access memory.
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
    seen = set()
    while "/simt/" in files.get(place[0], "") and place in callers and place not in seen:
        seen.add(place)
        place = callers[place]
    return files.get(place[0], "?"), place[1]


def _width(operation: str, modifiers: str, operands: str) -> Width | None:
    if operation == "ldmatrix":
        return "shared", "ldmatrix", 16
    if operation == "cp.async":
        if "shared.global" not in modifiers:
            return None  # commit and wait
        return "global", "copy", int(operands.split(",")[2].strip(" ;"))
    space = next((space for space in ("global", "shared") if f".{space}" in modifiers), None)
    match = _TYPE.search(modifiers)
    if space is None or match is None:
        return None  # parameters, constants, what lies on the stack
    purpose = {"ld": "load", "st": "store"}.get(operation, "atomic")
    return space, purpose, int(match[1] or 1) * int(match[2]) // 8


def compile_to_ptx(source: Path, toolkit: Toolkit, arch: str = "90a", root: Path = ROOT) -> str:
    """The PTX of a kernel file, with lines. Raises subprocess.CalledProcessError where it does not compile."""
    command = [str(toolkit.nvcc), "-std=c++17", "-O3", "-lineinfo", "-ptx", f"-arch=compute_{arch}", f"-I{root}/csrc"]
    return subprocess.run(
        [*command, str(source), "-o", "-"], cwd=root, check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    import os

    from cuda_toolkit import find_toolkit

    search = find_toolkit(os.environ, sys.path)
    if search.toolkit is None:
        sys.exit(search.failure)
    for argument in sys.argv[1:]:
        for kernel, by_line in widths(compile_to_ptx(Path(argument).resolve(), search.toolkit)).items():
            print(kernel)
            for (file, number), counts in sorted(by_line.items()):
                for (space, purpose, size), times in sorted(counts.items()):
                    print(f"  {file}:{number}  {space} {purpose} {size} x{times}")
