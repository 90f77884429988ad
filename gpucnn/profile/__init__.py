"""Exact counts of what kernels do, without a GPU: memory requests, bank conflicts, traffic, arithmetic, bounds in time.

    with gpucnn.profile.capture() as launches:
        F.conv2d(x, w)
    for launch in launches:
        print(launch.kernel, launch.conflicts, bounds(launch, device("h100")).time)

Needs the kernels built for counting: `GPUCNN_SIMT=profile pip install .`, g++ and binutils.
"""

from gpucnn.profile.bounds import Bounds, Occupancy, bounds, occupancy, problem_bound
from gpucnn.profile.devices import DEVICES, Device, device
from gpucnn.profile.launches import Access, Launch, capture

__all__ = [
    "DEVICES",
    "Access",
    "Bounds",
    "Device",
    "Launch",
    "Occupancy",
    "bounds",
    "capture",
    "device",
    "occupancy",
    "problem_bound",
]
