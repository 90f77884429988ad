"""Reads what `ptxas -v` printed while the kernels were compiled: registers, shared memory, frames and spills of each.

python _build/ptxas_report.py [build/cuda]    prints a table; exits 1 on a spill or a frame in local memory, and 2 where
                                              there are no reports
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

_ENTRY = re.compile(r"Compiling entry function '(?P<name>[^']+)' for '(?P<target>[^']+)'")
_FUNCTION = re.compile(r"Function properties for (?P<name>\S+)")
_FRAME = re.compile(r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill")
_REGISTERS = re.compile(r"Used (?P<registers>\d+) registers")
_SHARED = re.compile(r"(?P<bytes>\d+) bytes smem")
_LOG = ".cu.o.log"


@dataclass(frozen=True)
class Usage:
    """What one function takes on one architecture. Sizes are bytes, per thread (`shared`: per block)."""

    name: str
    """As the linker sees it, so templates are told apart; `kernel_names` makes it readable."""
    target: str
    registers: int
    """0 for a function that is called by a kernel and not inlined: ptxas counts its registers with the kernel's."""
    shared: int
    """What is declared; a launch may ask for more."""
    stack: int
    """Of local memory: arrays that are indexed by what only a run knows, and spilled registers."""
    spill_stores: int
    spill_loads: int
    file: str = ""
    """The source, "template.cu"."""

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
    return [
        replace(usage, file=log.name.removesuffix(_LOG) + ".cu")
        for log in sorted(folder.rglob(f"*{_LOG}"))
        for usage in parse(log.read_text(encoding="utf-8"))
    ]


def kernel_names(symbols: Sequence[str]) -> list[str]:
    """Symbols as "scale_kernel<half, true>": no namespaces, no parameters; as the modules for the CPU name kernels too.

    Where there is no c++filt they stay as they are.
    """
    filter_ = shutil.which("c++filt")
    if filter_ is None or not symbols:
        return list(symbols)
    done = subprocess.run([filter_], input="\n".join(symbols), capture_output=True, text=True, check=True)
    return [_without_scopes(name) for name in done.stdout.splitlines()]


def _without_scopes(name: str) -> str:
    name = re.sub(r"\w+::", "", name.replace("(anonymous namespace)::", ""))
    begin = depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if depth == 0 and letter == " ":  # after the return type
            begin = i + 1
        elif depth == 0 and letter == "(":
            name = name[:i]
            break
    return re.sub(r"\b__nv_bfloat16\b", "bfloat16", re.sub(r"\b__half\b", "half", name[begin:]))


def record(usages: Sequence[Usage]) -> list[dict[str, str | int]]:
    """Of the kernels, what an installed package knows of them: plain types, for JSON."""
    kernels = [usage for usage in usages if usage.registers]
    names = kernel_names([usage.name for usage in kernels])
    return [
        {
            **{"file": usage.file, "kernel": name, "target": usage.target, "registers": usage.registers},
            **{"shared": usage.shared, "stack": usage.stack, "spilled": usage.spill_stores + usage.spill_loads},
        }
        for usage, name in zip(kernels, names, strict=True)
    ]


def main(folder: Path) -> int:
    usages = read(folder)
    if not usages:
        print(f"no ptxas report below {folder}: nothing was compiled there", file=sys.stderr)
        return 2
    print("registers  shared  stack  spilled  target   function")
    wrong = 0
    for usage, name in zip(usages, kernel_names([usage.name for usage in usages]), strict=True):
        spilled = usage.spill_stores + usage.spill_loads
        print(f"{usage.registers:9}{usage.shared:8}{usage.stack:7}{spilled:9}  {usage.target:<9}{usage.file}: {name}")
        wrong += usage.spills or usage.stack > 0
    print(f"{len(usages)} functions, {wrong} of them use local memory: spilled registers or arrays")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/cuda")))
