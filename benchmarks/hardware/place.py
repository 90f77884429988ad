"""Where a run takes place: on a GPU, or on the CPU that stands in for one."""

from __future__ import annotations

import subprocess

from gpucnn import backend


def why_no_gpu() -> str | None:
    """None where there is a GPU that cupy can use."""
    try:
        return None if backend.gpu_count() else "cupy finds no GPU, or is not installed"
    except RuntimeError as error:
        return str(error)


def architecture() -> str:
    """The GPU's, as GPUCNN_ARCHS has it: "90a" for Hopper, whose own instructions the kernels have a use for.

    Raises:
        RuntimeError: nvidia-smi does not say.
    """
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"nvidia-smi does not say of which architecture the GPU is: {error}") from None
    digits = answer.split()[0].replace(".", "")
    return "90a" if digits == "90" else digits
