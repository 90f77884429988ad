"""What the profiler counted in launches of kernels: as it came, by source line, and summed up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpucnn import backend, extension
from gpucnn.backend import Array
from gpucnn.ops.registry import KernelTable, observe_calls
from gpucnn.profile import source
from gpucnn.profile.needed import needed_bytes, needed_products
from gpucnn.profile.source import Line

FLAVOUR = "profile"
SIMT_MULTIPROCESSORS = 2
"""That the CPU pretends to have (csrc/simt/host.h)."""
_OF_MULTIPROCESSOR = {"stem_fprop.cu": 4}
"""Blocks for each multiprocessor, by source file, of kernels that ask for another number than fills it with threads."""
SECTOR, LINE = 32, 128
"""Bytes of global memory that are moved, and that are looked up, at once."""


@dataclass(frozen=True)
class Access:
    """What warps did at one place of the code.

    Attributes:
        line: of the source.
        purpose: load, store, atomic, cp.async load, cp.async store, ldmatrix.
        bytes: that one lane accesses.
        requests, lanes, sectors, ideal_sectors, lines, unique_bytes: of global memory. `ideal_sectors` would hold the
            bytes that each request's lanes ask for if those lay side by side.
        shared_requests, shared_lanes, wavefronts, ideal_wavefronts: of shared memory; what wavefronts are above the
            ideal ones are bank conflicts.
        worst_is_shared, worst_cost, worst_addresses: the request that took most sectors or wavefronts: of each lane the
            address, or None.
    """

    line: Line
    purpose: str
    bytes: int
    requests: int
    lanes: int
    sectors: int
    ideal_sectors: int
    lines: int
    unique_bytes: int
    shared_requests: int
    shared_lanes: int
    wavefronts: int
    ideal_wavefronts: int
    worst_is_shared: bool
    worst_cost: int
    worst_addresses: tuple[int | None, ...]

    @property
    def conflicts(self) -> int:
        return self.wavefronts - self.ideal_wavefronts

    @property
    def worst_ideal(self) -> int:
        """What the worst request would have cost without conflicts, or with its lanes side by side."""
        lanes = [lane for lane, address in enumerate(self.worst_addresses) if address is not None]
        if self.worst_is_shared:
            return len({lane * max(self.bytes, 4) // LINE for lane in lanes})
        asked = {address + i for address in self.worst_addresses if address is not None for i in range(self.bytes)}
        return -(-len(asked) // SECTOR)


_OPERATIONS = {
    "mma_m16n8k16_bf16": ("bf16", 2048),
    "mma_m16n8k16_fp16": ("fp16", 2048),
    "mma_m16n8k8_tf32": ("tf32", 1024),
}
"""Of matrix instructions, the dtype of the factors and the products that one of a warp adds up."""


@dataclass(frozen=True)
class Launch:
    """One launch's counts; of the sampled blocks, where not all were counted (`scale` says of how many each stands).

    Attributes:
        kernel: its name in the binary, such as fprop_wide_kernel<float>, and the source `file` that it is in.
        grid, block: blocks and threads of a block, x y z.
        shared_bytes: of a block, static and dynamic.
        barriers: that blocks came to.
        sectors_read, sectors_written: different ones.
        least_l2_sectors: that the second-level cache is asked for at least: with a first level that holds all that a
            block reads. `sectors` of all accesses are the most.
        global_wavefronts: passes through the first-level cache.
        steps, longest_warp_steps, longest_block_steps, warps: basic blocks that warps entered, in all and at most.
        fma: float32 multiplications with addition, of lanes, by line.
        operations: warp operations, (name, line) to warps.
    """

    kernel: str
    file: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    blocks: int
    sampled_blocks: int
    barriers: int
    sectors_read: int
    sectors_written: int
    least_l2_sectors: int
    global_wavefronts: int
    steps: int
    longest_warp_steps: int
    longest_block_steps: int
    warps: int
    accesses: tuple[Access, ...]
    fma: dict[Line, int] = field(default_factory=dict)
    operations: dict[tuple[str, Line], int] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        return self.blocks / self.sampled_blocks if self.sampled_blocks else 1.0

    @property
    def threads(self) -> int:
        return self.block[0] * self.block[1] * self.block[2]

    @property
    def is_one_wave(self) -> bool:
        """Whether the grid has as many blocks as one wave of the machine that runs it, as kernels have that go over
        their items in passes (csrc/common/grid.h). On a GPU, with more multiprocessors, it may have more."""
        return self.blocks == SIMT_MULTIPROCESSORS * _OF_MULTIPROCESSOR.get(self.file, 2048 // self.threads)

    def total(self, name: str) -> int:
        """The sum of one of Access's counts over all accesses."""
        return sum(getattr(access, name) for access in self.accesses)

    @property
    def conflicts(self) -> int:
        return self.total("conflicts")

    @property
    def asked_bytes(self) -> int:
        """Of global memory, by all lanes."""
        return sum(access.lanes * access.bytes for access in self.accesses)

    @property
    def moved_bytes(self) -> int:
        """Of global memory, in whole sectors, by all requests."""
        return SECTOR * self.total("sectors")

    @property
    def compulsory_bytes(self) -> int:
        """Each sector that is read once, and each that is written once."""
        return SECTOR * (self.sectors_read + self.sectors_written)

    @property
    def multiplications(self) -> int:
        """float32 multiplications with addition, of all lanes."""
        return sum(self.fma.values())

    @property
    def matrix_products(self) -> dict[str, int]:
        """Products that matrix instructions add up, by the dtype of their factors."""
        found: dict[str, int] = {}
        for (name, _), warps in self.operations.items():
            if name in _OPERATIONS:
                dtype, products = _OPERATIONS[name]
                found[dtype] = found.get(dtype, 0) + products * warps
        return found

    @property
    def warp_imbalance(self) -> float:
        """Steps of the longest warp over the mean."""
        return self.longest_warp_steps * self.warps / self.steps if self.steps else 1.0

    @property
    def block_imbalance(self) -> float:
        """Steps of the longest block over the mean."""
        return self.longest_block_steps * self.sampled_blocks / self.steps if self.steps else 1.0

    def by_line(self) -> dict[Line, list[Access]]:
        """The accesses of each line, in the source's order."""
        found: dict[Line, list[Access]] = {}
        for access in sorted(self.accesses, key=lambda access: (access.line, access.purpose, access.bytes)):
            found.setdefault(access.line, []).append(access)
        return found


@dataclass(frozen=True)
class Run:
    """One pass of an op: what was asked for, and the launches that did it.

    Attributes:
        op, direction: the table that was asked; empty for launches by a binding that was called by itself.
        kernel: the name of the one that was chosen there.
        dtype: of the data.
        problem: in words.
        bytes, products: that it needs whichever kernel runs it: its arrays read and written once, in bytes, and
            multiplications with addition of convolutions and matrix products.
        launches: in order.
    """

    op: str
    direction: str
    kernel: str
    dtype: str
    problem: str
    bytes: int
    products: int
    launches: tuple[Launch, ...]


@contextmanager
def capture(sample: int = 1, kernel: str | None = None, only_sampled: bool = False) -> Iterator[list[Run]]:
    """Within it this thread's ops run on the kernels built for counting, and the list gets what they launched.

    Args:
        sample: of each launch every `sample`-th block is counted, beginning with the first.
        kernel: the name of the kernel to run wherever an op has one of that name; None: the one that is preferred.
        only_sampled: the other blocks are not run, which makes large shapes quick; results are then of no use, and no
            index among the data may depend on them.

    Raises:
        RuntimeError: the flavour `profile` is not built; an op has no kernel (strict=True).
        ValueError: sample below 1; the kernel can't run what it is asked for.
    """
    if sample < 1:
        raise ValueError(f"sample must be at least 1, got {sample}")
    module = extension.require(f"_simt_{FLAVOUR}")
    found: list[Run] = []

    def launched() -> tuple[Launch, ...]:
        return tuple(_launch(Path(str(module.__file__)), counts) for counts in module.take_profile())

    def collect_rest() -> None:
        if rest := launched():
            found.append(Run("", "", "", "", "", 0, 0, rest))

    def run(table: KernelTable, problem: Any, arrays: tuple[Any, ...], asked: str | None, like: Array) -> Any:
        has = kernel is not None and any(spec.name == kernel.partition(":")[0] for spec in table.specs("simt"))
        spec = table.pick(problem, like, asked or (kernel if has else None))
        collect_rest()
        result = spec.run(problem, *arrays)
        needs = needed_bytes(arrays, result), needed_products(table.op, table.direction, problem, arrays, result)
        words = "" if problem is None else str(problem)
        found.append(Run(table.op, table.direction, spec.name, like.dtype.name, words, *needs, launched()))
        return result

    before = os.environ.get("GPUCNN_SIMT_FLAVOUR")
    os.environ["GPUCNN_SIMT_FLAVOUR"] = FLAVOUR
    try:
        module.start_profile(sample, only_sampled)
        with backend.use_backend("simt", strict=True), observe_calls(run):
            yield found
        collect_rest()
    finally:
        module.start_profile(0)
        if before is None:
            del os.environ["GPUCNN_SIMT_FLAVOUR"]
        else:
            os.environ["GPUCNN_SIMT_FLAVOUR"] = before


_TAKEN = (
    *("blocks", "sampled_blocks", "barriers", "sectors_read", "sectors_written", "least_l2_sectors"),
    *("global_wavefronts", "steps", "longest_warp_steps", "longest_block_steps", "warps"),
)


def _launch(module: Path, counts: dict[str, Any]) -> Launch:
    """What `take_profile` said of a launch, in lines of the source."""
    lines = source.lines(module, (access["counter"] for access in counts["accesses"]))
    code = source.arithmetic(module, (block[0] for block in counts["basic_blocks"]))
    fma: dict[Line, int] = {}
    for address, lanes, _ in counts["basic_blocks"]:
        for line, times in code[address].fused.items() if address in code else ():
            fma[line] = fma.get(line, 0) + times * lanes
    operations: dict[tuple[str, Line], int] = {}
    for name, file, number, warps in counts["operations"]:
        operations[name, (file, number)] = operations.get((name, (file, number)), 0) + warps
    return Launch(
        kernel=counts["kernel"],
        file=counts["file"],
        grid=counts["grid"],
        block=counts["block"],
        shared_bytes=counts["static_shared_bytes"] + counts["dynamic_shared_bytes"],
        accesses=_merged(lines, counts["accesses"]),
        fma=fma,
        operations=operations,
        **{name: counts[name] for name in _TAKEN},
    )


def _merged(lines: dict[int, Line], accesses: list[dict[str, Any]]) -> tuple[Access, ...]:
    """One Access for each line, purpose and width: an unrolled loop has many places in the code."""
    merged: dict[tuple[Line, str, int], dict[str, Any]] = {}
    for access in accesses:
        line = lines[access["counter"]]
        into = merged.setdefault((line, access["purpose"], access["bytes"]), {})
        for name, value in access.items():
            if name in ("counter", "purpose", "bytes") or name.startswith("worst"):
                continue
            into[name] = into.get(name, 0) + value
        if access["worst_cost"] > into.get("worst_cost", -1):
            into["worst_is_shared"] = access["worst_is_shared"]
            into["worst_cost"] = access["worst_cost"]
            into["worst_addresses"] = tuple(access["worst_addresses"])
    return tuple(Access(line, purpose, size, **counts) for (line, purpose, size), counts in sorted(merged.items()))
