"""Holds the machine code of the CUDA extension against what kernels promise. No GPU is needed.

python tools/machine_code.py [module]            the installed gpucnn._cuda, or another module or object file
python tools/machine_code.py --table [module]    also prints what each kernel loads and stores
python tools/machine_code.py --write [module]    also writes access_widths.json anew: look at the change

For every architecture: no kernel loads or stores local memory (LDL, STL: spilled registers, arrays that are indexed by
what only a run knows); none has a floating-point atomic, whose order would change a sum's bits; each has global loads
and stores as wide as access_widths.json, beside this file, promises (16 bytes where the layout allows it); those on
tensor cores have matrix instructions in a loop; and the file stays below MOST_BYTES. Exits 1 with what is wrong, 2
where nothing can be disassembled. cuobjdump and nvdisasm come with a CUDA toolkit or as wheels:
pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "_build"))

from gpucnn import extension  # noqa: E402
from ptxas_report import kernel_names  # noqa: E402

MOST_BYTES = 20_000_000
"""Of an extension for one architecture."""

WIDTHS = Path(__file__).with_name("access_widths.json")
"""{source file: {kernel: [bytes of its widest load from global memory, of its widest store]}}; 0 where it has none."""

Widths = dict[str, dict[str, list[int]]]

_FUNCTION = re.compile(r"^\s*Function : (\S+)")
_SOURCE = re.compile(r"^identifier = (\S+)")
_OPERATION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[T\d]+\s+)?([A-Z][A-Z0-9_.]*)([^;]*)")
_TARGET = re.compile(r"\b0x([0-9a-f]+)\s*$")
_MATRIX = ("HMMA", "HGMMA")
_ARITHMETIC = re.compile(r"<(Of<|Tf32|Split)")
_LOCAL = ("LDL", "STL")
_ATOMIC = ("ATOM", "ATOMG", "ATOMS", "RED", "REDG", "REDAS")
_FLOATS = ("F16", "F16x2", "BF16", "BF16_V2", "F32", "F64")


@dataclass
class Code:
    """What one kernel's machine code does to memory."""

    symbol: str
    file: str
    local: int = 0
    """Loads from and stores to local memory, in the code and not in a run of it."""
    float_atomics: int = 0
    loads: Counter[int] = field(default_factory=Counter)
    """From global memory, by bytes."""
    stores: Counter[int] = field(default_factory=Counter)
    loop: Counter[str] = field(default_factory=Counter)
    """Instructions, by name, of the shortest loop with a matrix instruction; empty if there is none."""


def parse(lines: Iterable[str]) -> list[Code]:
    """Every kernel in the output of `cuobjdump -sass`."""
    found: list[Code] = []
    file = ""
    operations: list[tuple[int, str]] = []  # of the last kernel: where, and what
    branches: list[tuple[int, int]] = []  # of those, from where to where
    for line in lines:
        if source := _SOURCE.match(line):
            file = Path(source[1]).name
        elif function := _FUNCTION.match(line):
            _set_loop(found, operations, branches)
            found.append(Code(function[1], file))
        elif operation := _OPERATION.match(line):
            name, *modifiers = operation[2].split(".")
            operations.append((int(operation[1], 16), name))
            if name == "BRA" and (target := _TARGET.search(operation[3])):
                branches.append((operations[-1][0], int(target[1], 16)))
            if name in _LOCAL:
                found[-1].local += 1
            elif name in _ATOMIC and any(modifier.startswith(_FLOATS) for modifier in modifiers):
                found[-1].float_atomics += 1
            elif name in ("LDG", "LDGSTS"):
                found[-1].loads[_bytes(modifiers)] += 1
            elif name == "STG":
                found[-1].stores[_bytes(modifiers)] += 1
    _set_loop(found, operations, branches)
    return found


def _set_loop(found: list[Code], operations: list[tuple[int, str]], branches: list[tuple[int, int]]) -> None:
    """Of the kernel that was read last; what was read of it is forgotten."""
    for at, target in sorted(branches, key=lambda branch: branch[0] - branch[1]):
        if target > at:
            continue
        loop = Counter(name for place, name in operations if target <= place <= at)
        if any(loop[name] for name in _MATRIX):
            found[-1].loop = loop
            break
    operations.clear()
    branches.clear()


def _bytes(modifiers: list[str]) -> int:
    for modifier in modifiers:
        if modifier in ("8", "16", "32", "64", "128", "U8", "S8", "U16", "S16"):
            return int(modifier.lstrip("US")) // 8
    return 4


def widest(code: Code) -> list[int]:
    return [max(code.loads, default=0), max(code.stores, default=0)]


def wrong(name: str, code: Code, promised: Widths) -> Iterator[str]:
    """What a kernel does that it should not, in words."""
    if code.local:
        yield f"{code.local} accesses to local memory"
    if code.float_atomics:
        yield f"{code.float_atomics} floating-point atomics"
    if _ARITHMETIC.search(name) and not code.loop:
        yield "no loop has a matrix instruction"
    if name not in promised.get(code.file, {}):
        yield f"{WIDTHS.name} does not say how wide its accesses are; tools/machine_code.py --write"
        return
    for kind, found, least in zip(("load", "store"), widest(code), promised[code.file][name], strict=True):
        if found < least:
            yield f"its widest {kind} has {found} bytes, {least} are promised"


def _in_words(widths: Counter[int]) -> str:
    return ", ".join(f"{count} of {width}" for width, count in sorted(widths.items(), reverse=True)) or "none"


def disassemble(module: Path, arch: str) -> list[Code]:
    """The kernels in a module, for one architecture.

    Raises:
        RuntimeError: there is no cuobjdump, or it can't read the module.
    """
    (tool, _), environment = programs("cuobjdump", "nvdisasm")
    command = [tool, "-sass", "-arch", arch, str(module)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        found = parse(process.stdout)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} fails with exit status {process.returncode}")
    return found


def programs(*names: str) -> tuple[list[str], dict[str, str]]:
    """The paths of CUDA's programs, and the environment in which they find each other.

    Raises:
        RuntimeError: one is missing.
    """
    path = os.pathsep.join(map(str, [*os.environ.get("PATH", "").split(os.pathsep), *_folders()]))
    found = [shutil.which(name, path=path) for name in names]
    if None in found:
        raise RuntimeError(
            f"there is no {' with '.join(names)}: install a CUDA toolkit's, or pip install nvidia-cuda-cuobjdump "
            "nvidia-cuda-nvdisasm"
        )
    return [str(each) for each in found], {**os.environ, "PATH": path}


def _folders() -> list[Path]:
    """Where toolkits and wheels have their programs."""
    spec = importlib.util.find_spec("nvidia")
    wheels = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    return [*[folder for place in wheels for folder in sorted(place.glob("cu*/bin"))], Path("/usr/local/cuda/bin")]


def check(module: Path, archs: list[str], table: bool, write: bool) -> list[str]:
    """What is wrong with a module, one line each."""
    findings: list[str] = []
    size, most = module.stat().st_size, MOST_BYTES * len(archs)
    print(f"{module.name}: {size:,} bytes for {', '.join(archs)}")
    if size > most:
        findings.append(f"{module.name} takes {size:,} bytes, more than {most:,}")
    kernels = {arch: _named(disassemble(module, arch)) for arch in archs}
    if write:
        _write(kernels.values())
    promised: Widths = json.loads(WIDTHS.read_text(encoding="utf-8"))
    for arch, codes in kernels.items():
        if not codes:
            findings.append(f"{module.name} holds no machine code for {arch}")
        for code, name in codes:
            if table:
                print(f"{arch}  {code.file}: {name}  loads {_in_words(code.loads)}; stores {_in_words(code.stores)}")
                if code.loop:
                    matrix = sum(code.loop[each] for each in _MATRIX)
                    print(f"    loop: {code.loop.total()} instructions, {matrix} of them multiply matrices")
            findings += [f"{arch} {code.file}: {name}: {what}" for what in wrong(name, code, promised)]
        print(f"{arch}: {len(codes)} kernels")
    return findings


def _named(codes: list[Code]) -> list[tuple[Code, str]]:
    named = zip(codes, kernel_names([code.symbol for code in codes]), strict=True)
    return sorted(named, key=lambda each: (each[0].file, each[1]))


def _write(kernels: Iterable[list[tuple[Code, str]]]) -> None:
    """What the kernels have on every architecture."""
    found: Widths = {}
    for codes in kernels:
        for code, name in codes:
            of_file = found.setdefault(code.file, {})
            of_file[name] = [*map(min, widest(code), of_file.get(name, widest(code)))]
    files = [
        f"{json.dumps(file)}: {{\n"
        + ",\n".join(f" {json.dumps(name)}: {widths}" for name, widths in sorted(of.items()))
        for file, of in sorted(found.items())
    ]
    WIDTHS.write_text("{\n" + "\n},\n".join(files) + "\n}\n}\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    named = [Path(argument) for argument in arguments if not argument.startswith("-")]
    spec = importlib.util.find_spec("gpucnn._cuda")
    record = extension.build_info() or {}
    if not named and (spec is None or spec.origin is None):
        print(f"there is no machine code to look at: {extension.why_missing()}", file=sys.stderr)
        return 2
    module = named[0] if named else Path(str(spec.origin if spec else ""))
    archs = [target for target in record.get("targets", ("sm_80", "sm_90a")) if target.startswith("sm_")]
    try:
        findings = check(module, archs, "--table" in arguments, "--write" in arguments)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join([*findings, f"{len(findings)} things are wrong" if findings else "nothing is wrong"]))
    if seconds := record.get("seconds"):
        print(f"built in {json.dumps(seconds)} seconds")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
