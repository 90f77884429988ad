"""Reads what `ptxas -v` printed while the kernels were compiled: registers, shared memory and spills of each.

python _build/ptxas_report.py [build/cuda]    prints a table; exits 1 on a spill, and 2 where there are no reports
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

_ENTRY = re.compile(r"Compiling entry function '(?P<name>[^']+)' for '(?P<target>[^']+)'")
_FUNCTION = re.compile(r"Function properties for (?P<name>\S+)")
_FRAME = re.compile(r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill")
_REGISTERS = re.compile(r"Used (?P<registers>\d+) registers")
_SHARED = re.compile(r"(?P<bytes>\d+) bytes smem")


@dataclass(frozen=True)
class Usage:
    """What one function takes on one architecture. Sizes are bytes, per thread (`shared`: per block)."""

    name: str
    """As the linker sees it, so templates are told apart; c++filt makes it readable."""
    target: str
    registers: int
    """0 for a function that is called by a kernel and not inlined: ptxas counts its registers with the kernel's."""
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int

    @property
    def spills(self) -> bool:
        return self.spill_stores > 0 or self.spill_loads > 0


def parse(text: str) -> list[Usage]:
    """Every function in ptxas's output, in its order."""
    usages: list[Usage] = []
    target = name = ""
    frame = (0, 0, 0)
    pending = False  # a frame was read whose registers, on a later line, were not

    def finish(registers: int, shared: int) -> None:
        stack, stores, loads = frame
        usages.append(Usage(name, target, registers, shared, stack, stores, loads))

    for line in text.splitlines():
        if found := _ENTRY.search(line):
            target = found["target"]
        elif found := _FUNCTION.search(line):
            if pending:
                finish(0, 0)
            name = found["name"]
        elif found := _FRAME.search(line):
            frame = (int(found["stack"]), int(found["stores"]), int(found["loads"]))
            pending = True
        elif pending and (found := _REGISTERS.search(line)):
            shared = _SHARED.search(line)
            finish(int(found["registers"]), int(shared["bytes"]) if shared else 0)
            pending = False
    if pending:
        finish(0, 0)
    return usages


def read(folder: Path) -> list[Usage]:
    """Every report below `folder`, where the build keeps one beside each kernel's object."""
    return [usage for log in sorted(folder.rglob("*.cu.o.log")) for usage in parse(log.read_text(encoding="utf-8"))]


def main(folder: Path) -> int:
    usages = read(folder)
    if not usages:
        print(f"no ptxas report below {folder}: nothing was compiled there", file=sys.stderr)
        return 2
    print("registers  shared  stack  spilled  target   function")
    for usage in usages:
        spilled = usage.spill_stores + usage.spill_loads
        print(f"{usage.registers:9}{usage.shared:8}{usage.stack:7}{spilled:9}  {usage.target:<9}{usage.name}")
    spilling = sum(usage.spills for usage in usages)
    print(f"{len(usages)} functions, {spilling} of them spill registers")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/cuda")))
