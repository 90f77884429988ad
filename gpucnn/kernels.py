"""Every kernel and configuration that there is: what it is for, what it takes of a GPU, whether a test compared it.

Three sources, of which each may be missing: `kernels_compared.json` beside this file, which is committed and written by
tools/kernel_coverage.py from a run of all tests; the record that a build with nvcc leaves of ptxas's report
(`_kernel_report.json`); and the names in a module for the CPU.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpucnn import extension

COMPARED = Path(__file__).with_name("kernels_compared.json")
REPORT = Path(__file__).with_name("_kernel_report.json")


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor of an architecture has, from the CUDA programming guide's table of capabilities."""

    registers: int
    warps: int
    blocks: int
    shared: int
    """Bytes, of which each block takes `shared_of_a_block` for itself."""
    registers_together: int = 256
    """Registers are given to a warp in so many at a time,"""
    warps_together: int = 4
    """warps to as many schedulers,"""
    shared_together: int = 128
    shared_of_a_block: int = 1024


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(registers=65536, warps=64, blocks=32, shared=164 << 10),
    "sm_86": Multiprocessor(registers=65536, warps=48, blocks=16, shared=100 << 10),
    "sm_87": Multiprocessor(registers=65536, warps=48, blocks=16, shared=164 << 10),
    "sm_89": Multiprocessor(registers=65536, warps=48, blocks=24, shared=100 << 10),
    "sm_90": Multiprocessor(registers=65536, warps=64, blocks=32, shared=228 << 10),
    "sm_90a": Multiprocessor(registers=65536, warps=64, blocks=32, shared=228 << 10),
    "sm_100": Multiprocessor(registers=65536, warps=64, blocks=32, shared=228 << 10),
    "sm_120": Multiprocessor(registers=65536, warps=48, blocks=24, shared=100 << 10),
}


@dataclass(frozen=True)
class Usage:
    """What a kernel takes on one architecture, and how much of it fits there."""

    registers: int
    """Of a thread."""
    shared: int
    """Bytes of a block: declared, and the most that a launch in the tests asked for."""
    stack: int
    """Bytes of local memory of a thread; spilled registers are among them."""
    spilled: int
    blocks: int | None = None
    """That a multiprocessor holds at a time; None where the size of a block or the architecture is not known."""
    warps: int | None = None
    occupancy: float | None = None
    """These warps' share of what a multiprocessor can hold."""


@dataclass(frozen=True)
class Kernel:
    """One instantiation of a kernel."""

    file: str
    name: str
    """Without namespaces: "scale_kernel<half, true>"."""
    configuration: str
    """Its template arguments in words."""
    ops: tuple[str, ...]
    """What tables launch it for, and by what name: "scale forward: grid_stride"."""
    dtypes: tuple[str, ...]
    threads: int | None
    """Of a block, the most that a launch in the tests had."""
    compared: bool
    """Whether it was launched in a test in which a comparison passed afterwards."""
    usage: dict[str, Usage] = field(default_factory=dict)
    """By architecture; empty where nvcc did not compile it."""

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for JSON."""
        return asdict(self)


def occupancy(arch: str, registers: int, shared: int, threads: int) -> tuple[int, int] | None:
    """(blocks, warps) that a multiprocessor holds at a time, by registers of a thread and shared memory and threads of
    a block; None for an architecture that is not in the table."""
    has = MULTIPROCESSORS.get(arch)
    if has is None:
        return None
    warps = -(-threads // 32)
    of_a_warp = _whole(32 * registers, has.registers_together)
    by_registers = has.registers // of_a_warp // has.warps_together * has.warps_together // warps
    by_shared = has.shared // _whole(shared + has.shared_of_a_block, has.shared_together)
    blocks = min(has.blocks, has.warps // warps, by_registers, by_shared)
    return blocks, blocks * warps


def _whole(amount: int, together: int) -> int:
    return -(-amount // together) * together


def kernels() -> list[Kernel]:
    """All kernels of the compiled modules of this installation, sorted; of the committed record where it has none."""
    recorded = {(entry["file"], entry["kernel"]): entry for entry in _read(COMPARED)}
    reported: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for entry in _read(REPORT):
        reported.setdefault((entry["file"], entry["kernel"]), {})[entry["target"]] = entry
    there = {*reported, *_in_modules()} or set(recorded)
    return [_kernel(*key, recorded.get(key), reported.get(key, {})) for key in sorted(there)]


def registers() -> dict[tuple[str, str, str], int]:
    """Of a thread, by (file, kernel, architecture), as ptxas reported them; empty where nvcc has compiled none here."""
    return {(entry["file"], entry["kernel"], entry["target"]): entry["registers"] for entry in _read(REPORT)}


def _in_modules() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for flavour in extension.FLAVOURS:
        module = extension.load(f"_simt_{flavour}")
        if module is not None:
            found |= set(module.kernels())
            break
    return found


def _kernel(file: str, name: str, recorded: dict[str, Any] | None, reported: dict[str, dict[str, Any]]) -> Kernel:
    record = recorded or {"configuration": "", "ops": [], "dtypes": [], "threads": [], "shared": [0]}
    threads = max(record["threads"], default=None)
    dynamic = max(record["shared"], default=0)
    usage = {}
    for arch, entry in reported.items():
        shared = entry["shared"] + dynamic
        held = occupancy(arch, entry["registers"], shared, threads) if threads else None
        blocks, warps = held or (None, None)
        share = None if warps is None else warps / MULTIPROCESSORS[arch].warps
        usage[arch] = Usage(entry["registers"], shared, entry["stack"], entry["spilled"], blocks, warps, share)
    return Kernel(
        file,
        name,
        record["configuration"],
        tuple(record["ops"]),
        tuple(record["dtypes"]),
        threads,
        recorded is not None,
        usage,
    )


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise RuntimeError(f"{path} is damaged ({error}): {extension.REINSTALL} GPUCNN_CUDA=1") from error
