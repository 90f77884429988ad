"""gpucnn info."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from typing import Any

import click
import numpy as np
from tabulate import tabulate

import gpucnn
from gpucnn import backend, extension

OPTIONAL = {
    "cupy": f"arrays on a GPU: {backend.CUPY_REMEDY}",
    "matplotlib": "the pictures of a run: pip install 'gpucnn[plot]'",
    "torch": "what benchmarks and tests compare with: pip install 'gpucnn[peers]'",
}
FLAVOURS = {
    "plain": "deadlocks, divergent barriers, wrong masks and misaligned accesses are errors",
    "race": "plain, and data races and accesses out of range are reported",
    "asan": "plain, under AddressSanitizer and UndefinedBehaviorSanitizer",
    "profile": "exact counts of what launches ask of memories and arithmetic units: gpucnn profile",
}
DISTRIBUTIONS = {"cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(as_json: bool) -> None:
    """Show devices, memory and backends, and for what is missing why and the remedy."""
    facts = {
        "gpucnn": gpucnn.__version__,
        "python": platform.python_version(),
        "numpy": f"{np.__version__} ({_blas()})",
        "cpu": f"{_cpu_name()}, {len(os.sched_getaffinity(0))} cores, {_memory()}",
        **{f"gpu {index}": text for index, text in enumerate(_gpus())},
        "float32": "multiplied exactly; on tensor cores set_float32_precision('high') rounds factors to 11 bits (TF32)",
    }
    backends = {name: _backend_line(name) for name in backend.BACKENDS}
    flavours = {name: _flavour_line(name) for name in extension.FLAVOURS}
    extras = {name: _version(name) or f"missing; {why}" for name, why in OPTIONAL.items()}
    if as_json:
        click.echo(json.dumps({"facts": facts, "backends": backends, "simt": flavours, "optional": extras}))
        return
    if not any(name.startswith("gpu ") for name in facts):
        facts["gpu"] = _why_no_gpu()
    click.echo(tabulate(facts.items(), tablefmt="plain"))
    click.echo("\nbackends")
    click.echo(tabulate(backends.items(), tablefmt="plain"))
    click.echo("\nflavours of simt, the kernels built for the CPU")
    click.echo(tabulate(flavours.items(), tablefmt="plain"))
    click.echo("\noptional packages")
    click.echo(tabulate(extras.items(), tablefmt="plain"))


def _backend_line(name: str) -> str:
    reason = backend.unavailable(name)
    if reason:
        return f"not usable: {reason}"
    usable = f"usable, flavour {extension.simt_flavour()}" if name == "simt" else "usable"
    return f"{usable}, the default" if name == backend.default_backend() else usable


def _flavour_line(flavour: str) -> str:
    reason = extension.why_missing(f"_simt_{flavour}")
    return f"not usable: {reason}" if reason else f"usable: {FLAVOURS[flavour]}"


def _gpus() -> list[str]:
    lines = []
    for index in range(backend.gpu_count()):
        runtime = backend.cupy().cuda.runtime
        properties = runtime.getDeviceProperties(index)
        with backend.cupy().cuda.Device(index):
            free, total = runtime.memGetInfo()
        lines.append(
            f"{properties['name'].decode()}, compute capability {properties['major']}.{properties['minor']}, "
            f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        )
    return lines


def _why_no_gpu() -> str:
    module = extension.load()
    if module is not None:
        try:
            count, message = module.device_count()
        except RuntimeError as error:  # CUDA itself fails: that is what there is to say of the GPU
            return f"none usable: {error}"
        if count == 0:
            return f"none usable: {message}"
    if _version("cupy") is None:
        return f"none usable without cupy: {backend.CUPY_REMEDY}"
    return "none usable: no driver or no device"


def _version(package: str) -> str | None:
    for name in DISTRIBUTIONS.get(package, (package,)):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _blas() -> str:
    config: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    blas = config["Build Dependencies"]["blas"]
    return f"{blas['name']} {blas['version']}"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
