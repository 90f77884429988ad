"""What GPUs can do, as data: the figures that lower bounds in time are made of, each with its source.

Sources: [H100] NVIDIA, "H100 Tensor Core GPU Architecture", 2023 (tables of the SXM5 card and of GH100's
multiprocessor), and the H200 data sheet, 2024. [A100] NVIDIA, "A100 Tensor Core GPU Architecture", 2020. [Ada] NVIDIA,
"Ada GPU Architecture", 2023. [Guide] "CUDA C++ Programming Guide", table of technical specifications by compute
capability. [Luo] W. Luo and others, "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture via
Microbenchmarking", 2024: what the second-level cache delivers, and mma.sync. Rates are peaks at the boost clock. The
same figures are in csrc/common/machine.h, which tiles are chosen by.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """One GPU. Rates of a multiprocessor are per cycle of its clock.

    Attributes:
        capability: compute capability.
        multiprocessors: how many there are.
        clock: boost clock, in hertz.
        dram: bytes a second from device memory.
        l2: bytes a cycle that the second-level cache delivers to all multiprocessors together.
        l2_bytes: that it holds.
        fp32: float32 multiplications with addition of a multiprocessor.
        tensor: the same by its tensor cores, dense, by the dtype of the factors.
        mma: what mma.sync reaches of that with 16-bit factors; the rest is wgmma's.
        wavefronts: of the first-level cache and shared memory, 128 bytes each, of a multiprocessor.
        registers, shared_bytes, threads, warps, blocks: that a multiprocessor holds.
        source: of the figures.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    clock: float
    dram: float
    l2: float
    l2_bytes: int
    fp32: int
    tensor: dict[str, int]
    mma: int
    registers: int
    shared_bytes: int
    threads: int
    blocks: int
    source: str
    wavefronts: int = 1

    @property
    def warps(self) -> int:
        return self.threads // 32


_HOPPER = {"bf16": 2048, "fp16": 2048, "tf32": 1024}
_AMPERE = {"bf16": 1024, "fp16": 1024, "tf32": 512}

_GH100 = (5120, 50 << 20, 128, _HOPPER, 1200, 65536, 228 << 10, 2048, 32, "[H100] [Guide] [Luo]")
_GEFORCE = {"bf16": 256, "fp16": 256, "tf32": 128}

DEVICES = {
    "h100": Device("H100 SXM", (9, 0), 132, 1.83e9, 3.35e12, *_GH100),
    "h200": Device("H200 SXM", (9, 0), 132, 1.83e9, 4.8e12, *_GH100),
    "a100": Device(
        *("A100 SXM 80 GB", (8, 0), 108, 1.41e9, 2.039e12, 5120, 40 << 20, 64, _AMPERE, 1024),
        *(65536, 164 << 10, 2048, 32, "[A100] [Guide]"),
    ),
    "rtx4090": Device(
        *("GeForce RTX 4090", (8, 9), 128, 2.52e9, 1.008e12, 2048, 72 << 20, 128, _GEFORCE, 256),
        *(65536, 100 << 10, 1536, 24, "[Ada] [Guide]; second-level cache: that of the A100 by its slices"),
    ),
}
"""By the name that --device takes."""


def device(name: str) -> Device:
    """The description of a GPU. Raises ValueError that names those there are."""
    if name in DEVICES:
        return DEVICES[name]
    near = difflib.get_close_matches(name.lower(), DEVICES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no description of a device {name!r}, there are: {', '.join(DEVICES)}{hint}")
