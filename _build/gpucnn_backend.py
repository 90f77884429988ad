"""PEP 517 build backend: setuptools' own, which asks for nvcc's wheels in addition where they are what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from cuda_options import BuildError, cuda_mode
from cuda_toolkit import driver_version, find_toolkit, host_compiler

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

NVCC_WHEELS = [f"nvidia-{name}==13.0.*" for name in ("cuda-nvcc", "nvvm", "cuda-crt", "cuda-runtime", "cuda-cccl")]
"""All that compiling takes, about 100 MB. Pinned to 13.0: a 13.0 driver can't load the PTX that a newer nvcc emits.
For CUDA 12 there are no such wheels (the ones named -cu12 hold ptxas and headers, but no nvcc)."""

WHEELS_DRIVER = 13000
"""The oldest driver, as `driver_version()` counts, that runs what these wheels compile."""


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_this_machines_requirements()]


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    return [*build_meta.get_requires_for_build_editable(config_settings), *_this_machines_requirements()]


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """setuptools' hook, from an empty build/lib*: it packs all it finds there, and an earlier build may have left
    modules that are gone from the source since. Compiled objects are elsewhere and are kept."""
    for leftovers in Path("build").glob("lib*"):
        shutil.rmtree(leftovers)
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def _this_machines_requirements() -> list[str]:
    try:
        return cuda_requirements(os.environ, driver_version())
    except BuildError as error:
        raise SystemExit(f"error: {error}") from None


def cuda_requirements(environ: Mapping[str, str], driver: int | None) -> list[str]:
    """nvcc's wheels where the extension is wanted, no toolkit is found, and the driver can use them (or is not asked).

    Without a C++ compiler they would be of no use; the build itself then says what is missing.

    Args:
        environ: the environment variables.
        driver: as `driver_version()` gives it.

    Raises:
        BuildError: GPUCNN_CUDA or GPUCNN_NVCC is set to something unusable.
    """
    mode = cuda_mode(environ)
    supported = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
    if mode == "0" or not supported or host_compiler(environ) is None:
        return []
    wanted = mode == "1" or (driver is not None and driver >= WHEELS_DRIVER)
    return NVCC_WHEELS if wanted and find_toolkit(environ, sys.path).toolkit is None else []
