"""Lower bounds in time from counts: what each resource of a GPU needs at least for a launch. Pure functions.

They are bounds and no predictions: latencies, the issue of instructions and the launch itself are not in them. Their
use is to rank kernels and to say which resource binds; not calibrated against hardware yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpucnn.profile.devices import Device
from gpucnn.profile.launches import SECTOR, Launch

WAVEFRONT = 128
"""Bytes of the first-level cache or of shared memory that a wavefront reaches."""

RESOURCES = ("dram", "l2", "l1", "fp32", "tensor")


@dataclass(frozen=True)
class Occupancy:
    """How many of a kernel's blocks a multiprocessor holds at once, and what they are limited by."""

    blocks: int
    warps: int
    limit: str
    waves: float

    @property
    def is_known(self) -> bool:
        return self.blocks > 0


def occupancy(threads: int, registers: int, shared_bytes: int, blocks: int, device: Device) -> Occupancy:
    """Of blocks of so many threads, `registers` a thread and `shared_bytes` of shared memory, in a grid of `blocks`.

    Registers are given out by warps in units of 256, warps to four schedulers alike, and shared memory in units of 128
    bytes with 1 KiB a block for the system ("CUDA C++ Programming Guide", technical specifications; the occupancy
    calculator of Nsight Compute).
    """
    warps = -(-threads // 32)
    of_warp = -(-registers * 32 // 256) * 256
    limits = {
        "blocks": device.blocks,
        "threads": device.warps // warps,
        "registers": device.registers // of_warp // 4 * 4 // warps if registers else device.blocks,
        "shared memory": device.shared_bytes // (-(-shared_bytes // 128) * 128 + 1024),
    }
    limit = min(limits, key=lambda name: limits[name])
    held = limits[limit]
    return Occupancy(held, held * warps, limit, blocks / (device.multiprocessors * held) if held else math.inf)


@dataclass(frozen=True)
class Bounds:
    """Seconds that each of RESOURCES needs at least."""

    seconds: dict[str, float]

    @property
    def binding(self) -> str:
        """The resource that needs longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def time(self) -> float:
        """What the binding resource needs."""
        return max(self.seconds.values())


def bounds(launch: Launch, device: Device) -> Bounds:
    """Of one launch. What multiprocessors do each for themselves is bound by the one that has most blocks; of a grid of
    one wave, which has more blocks on the device, all are taken to have as much to do."""
    blocks = launch.blocks
    share = math.ceil(blocks / device.multiprocessors) / blocks if blocks else 0.0
    if launch.is_one_wave:
        share = 1 / device.multiprocessors
    cycles = share * launch.scale / device.clock
    tensor = sum(products / device.tensor[dtype] for dtype, products in launch.matrix_products.items())
    compulsory = launch.compulsory_bytes * launch.scale
    return Bounds(
        {
            "dram": compulsory / device.dram,
            "l2": SECTOR * launch.least_l2_sectors * launch.scale / (device.l2 * device.clock),
            "l1": (launch.global_wavefronts + launch.total("wavefronts")) / device.wavefronts * cycles,
            "fp32": launch.multiplications / device.fp32 * cycles,
            "tensor": tensor * cycles,
        }
    )


def problem_bound(moved_bytes: float, products: float, rate: float, device: Device) -> float:
    """Seconds that any kernel needs: each byte moved once, each product computed once.

    Args:
        moved_bytes: of all inputs and outputs.
        products: multiplications with addition.
        rate: of those, that a multiprocessor does in a cycle: `device.fp32` or one of `device.tensor`.
    """
    return max(moved_bytes / device.dram, products / (rate * device.multiprocessors * device.clock))
