"""What the environment asks of the build: GPUCNN_CUDA and GPUCNN_ARCHS, checked before anything is compiled."""

from __future__ import annotations

import re
from collections.abc import Mapping

from setuptools.errors import BaseError

DEFAULT_ARCHS = "80;90a"
LOWEST_ARCH = 80
"""Compute capability 8.0: the kernels use cp.async and bfloat16 matrix instructions, which older devices lack."""


class BuildError(BaseError):
    """A build that can't go on. setuptools prints its text without a traceback and exits with an error."""


def cuda_mode(environ: Mapping[str, str]) -> str:
    """GPUCNN_CUDA: "auto" (default: build where there is a driver and a compiler), "1" (build or fail), "0" (don't)."""
    mode = environ.get("GPUCNN_CUDA") or "auto"
    if mode not in ("auto", "1", "0"):
        raise BuildError(f"GPUCNN_CUDA={mode!r}: expected auto, 1 or 0")
    return mode


def parse_archs(environ: Mapping[str, str]) -> tuple[str, ...]:
    """GPUCNN_ARCHS, such as "80;90a", as ("80", "90a"): compute capability without the dot, in the order given.

    Raises:
        BuildError: an entry is not such a number, is below 8.0, or is given twice.
    """
    text = environ.get("GPUCNN_ARCHS") or DEFAULT_ARCHS
    archs = tuple(entry.strip() for entry in text.split(";"))
    for arch in archs:
        if not re.fullmatch(r"[1-9][0-9]{1,2}[af]?", arch):
            raise BuildError(
                f"GPUCNN_ARCHS={text!r}: {arch!r} is not a GPU architecture; expected compute capabilities without the "
                f"dot, separated by ';', such as {DEFAULT_ARCHS!r}"
            )
        if _number(arch) < LOWEST_ARCH:
            raise BuildError(
                f"GPUCNN_ARCHS={text!r}: {arch} is below {LOWEST_ARCH}, the lowest that the kernels run on"
            )
    if len(set(archs)) < len(archs):
        raise BuildError(f"GPUCNN_ARCHS={text!r}: an architecture is given twice")
    return archs


def target_names(archs: tuple[str, ...]) -> list[str]:
    """What the extension will hold: machine code for each architecture, and PTX of the lowest for later devices.

    >>> target_names(("80", "90a"))
    ['sm_80', 'sm_90a', 'compute_80']
    """
    return [*(f"sm_{arch}" for arch in archs), f"compute_{min(map(_number, archs))}"]


def gencode_flags(archs: tuple[str, ...]) -> list[str]:
    """nvcc's flags for `target_names(archs)`.

    Machine code is made of its own architecture's PTX, and of the PTX that goes along where that is of the same number:
    nvcc compiles twice for compute_90 and compute_90a, which takes half as long again.
    """
    targets = target_names(archs)

    def virtual(target: str) -> str:
        own = target.replace("sm_", "compute_")
        return own.rstrip("af") if own.rstrip("af") in targets else own

    return [flag for target in targets for flag in ("-gencode", f"arch={virtual(target)},code={target}")]


def _number(arch: str) -> int:
    return int(arch.rstrip("af"))
