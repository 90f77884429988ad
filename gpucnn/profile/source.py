"""From places in a compiled module to lines of its sources, and what its code computes between them.

Both ask the tools of binutils, addr2line, nm and objdump, and remember what these said.
"""

from __future__ import annotations

import bisect
import functools
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Line = tuple[str, int]
"""A source file, from the project's folder on, and a line of it."""

_LAYER = re.compile(r"(^|/)(simt/[^/]*|common/pack)\.h$")
"""Headers that kernels access memory through: the line that counts is that of their caller."""


TOOLS = ("addr2line", "nm", "objdump")


def lacking(*tools: str) -> str | None:
    """Why nothing can be told of a module, and what to do; None where all of `tools` are installed."""
    for name in tools:
        if shutil.which(name) is None:
            return f"profiles need {name}, which is not installed: it is part of binutils (apt install binutils)"
    return None


def _tool(name: str) -> str:
    if reason := lacking(name):
        raise RuntimeError(reason)
    return name


@functools.cache
def _known(module: Path, modified: float) -> dict[int, Line]:
    return {}


def lines(module: Path, addresses: Iterable[int]) -> dict[int, Line]:
    """For each return address (counted from the module's start) the line of the call; ("?", 0) where it is unknown."""
    known = _known(module, module.stat().st_mtime)
    wanted = sorted(set(addresses) - known.keys())
    if wanted:
        command = [_tool("addr2line"), "-a", "-i", "-e", str(module)]
        given = "".join(f"{address - 1:#x}\n" for address in wanted)
        printed = subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout
        frames: dict[int, list[Line]] = {}
        current: list[Line] = []
        for line in printed.splitlines():
            if line.startswith("0x"):
                current = frames[int(line, 16) + 1] = []
                continue
            file, _, number = line.partition(" (discriminator")[0].rpartition(":")
            if number.isdecimal():
                current.append((file.removeprefix("./"), int(number)))
        for address in wanted:
            outside = [frame for frame in frames.get(address, []) if not _LAYER.search(frame[0])]
            known[address] = outside[0] if outside else ("?", 0)
    return known


@dataclass(frozen=True)
class Arithmetic:
    """float32 operations between two entries of basic blocks, by line: the multiplications and the additions."""

    multiplications: Counter[Line]
    additions: Counter[Line]

    @property
    def fused(self) -> Counter[Line]:
        """Instructions that a GPU needs where it multiplies and adds in one: the larger number of the two, by line."""
        return self.multiplications | self.additions


_INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)")
_POSITION = re.compile(r"^(\S+):(\d+)(?: \(discriminator \d+\))?$")
_MULTIPLY, _ADD = re.compile(r"v?mul([sp])s$|fmul$"), re.compile(r"v?(?:add|sub)([sp])s$|f(?:add|sub)$")


_MOST_FUNCTIONS = 64
"""That are disassembled one by one: a module of all kernels takes seconds, which that many take too."""


class _Code:
    """What of a module's code has been disassembled so far: some of its functions, or all."""

    def __init__(self, module: Path) -> None:
        self._module = module
        command = [_tool("nm"), "--defined-only", str(module)]
        symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        self._begins = sorted({int(symbol.split()[0], 16) for symbol in symbols if symbol.split()[1] in "tTwW"})
        self._seen: set[int] = set()
        self.blocks: dict[int, Arithmetic] = {}

    def see(self, addresses: Iterable[int]) -> None:
        """Disassembles the functions around the addresses."""
        new = {bisect.bisect_right(self._begins, address) for address in addresses} - self._seen
        if not new or 0 in self._seen:
            return
        if 0 in new or len(new | self._seen) > _MOST_FUNCTIONS:  # 0: before all that has a name
            self._seen = {0}
            self.blocks |= _disassembled(self._module, [])
            return
        self._seen |= new
        for number in new:
            ends = [f"--stop-address={self._begins[number]}"] if number < len(self._begins) else []
            self.blocks |= _disassembled(self._module, [f"--start-address={self._begins[number - 1]}", *ends])


def _disassembled(module: Path, options: list[str]) -> dict[int, Arithmetic]:
    command = [_tool("objdump"), "-d", "-l", "--no-show-raw-insn", *options, str(module)]
    found: dict[int, Arithmetic] = {}
    current: Arithmetic | None = None
    is_next = False
    position: Line = ("?", 0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if not (match := _INSTRUCTION.match(text)):
                if place := _POSITION.match(text.strip()):
                    position = (place[1].removeprefix("./"), int(place[2]))
                elif text.strip().endswith(">:"):
                    current = None
                continue
            address, operation, operands = int(match[1], 16), match[2], match[3]
            if is_next:
                current = found[address] = Arithmetic(Counter(), Counter())
                is_next = False
            if "__sanitizer_cov_trace_pc" in operands and operation.startswith(("call", "bl")):
                is_next = True
            elif current is not None:
                if product := _MULTIPLY.match(operation):
                    current.multiplications[position] += 4 if product[1] == "p" else 1
                elif addition := _ADD.match(operation):
                    current.additions[position] += 4 if addition[1] == "p" else 1
    return found


@functools.cache
def _code(module: Path, modified: float) -> _Code:
    return _Code(module)


def arithmetic(module: Path, addresses: Iterable[int]) -> dict[int, Arithmetic]:
    """What the module computes after entries of basic blocks, by the address that the entry's call returns to: of all
    functions that `addresses`, such addresses, are in."""
    code = _code(module, module.stat().st_mtime)
    code.see(addresses)
    return code.blocks
