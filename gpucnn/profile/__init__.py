"""Exact counts of what kernels do, without a GPU: memory requests, bank conflicts, traffic, arithmetic, bounds in time.

    with gpucnn.profile.capture() as runs:
        F.conv2d(x, w)
    print(Report(runs, device("h100")).table())

Needs the kernels built for counting: `GPUCNN_SIMT=profile pip install .`, g++ and binutils.
"""

from gpucnn.profile.bounds import Bounds, Occupancy, bounds, occupancy, problem_bound
from gpucnn.profile.devices import DEVICES, Device, device
from gpucnn.profile.launches import Access, Launch, Run, capture
from gpucnn.profile.report import Report, Row

__all__ = [
    "DEVICES",
    "Access",
    "Bounds",
    "Device",
    "Launch",
    "Occupancy",
    "Report",
    "Row",
    "Run",
    "bounds",
    "capture",
    "device",
    "occupancy",
    "problem_bound",
]
