"""The compiled CUDA extension `gpucnn._cuda`: loaded on first use, at most once, and explained where it is missing.

The build leaves a record beside this file (`_build_info.json`, written by `_build/build_cuda.py`): whether the
extension was built and, where not, why and what would build it. Nothing here raises at import.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

MODULE = "gpucnn._cuda"
RECORD = Path(__file__).with_name("_build_info.json")
REBUILD = "reinstall with pip's --force-reinstall --no-deps --no-cache-dir and GPUCNN_CUDA=1"


def build_info() -> dict[str, Any] | None:
    """What the build recorded, or None where the package has not been installed (a bare source tree).

    Keys: `cuda` (bool: built), `reason` (why, or why not), `remedy` (what to do; empty if built), and, if
    built, `toolkit` (nvcc's version, "13.0.88") and `targets` (["sm_80", "sm_90a", "compute_80"]).

    Raises:
        RuntimeError: the record is there but can't be read.
    """
    try:
        text = RECORD.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise RuntimeError(f"{RECORD} is damaged ({error}): {REBUILD}") from error


@functools.cache
def _load() -> tuple[ModuleType | None, str | None]:
    """(module, None) or (None, reason with remedy): success and failure are both remembered."""
    if importlib.util.find_spec(MODULE) is None:
        return None, _why_not_built()
    try:
        return importlib.import_module(MODULE), None
    except ImportError as error:
        return None, f"the CUDA extension is installed but can't be loaded ({_one_line(error)}): {REBUILD}"


def _why_not_built() -> str:
    try:
        record = build_info()
    except RuntimeError as error:
        return _one_line(error)
    if record is None:
        return "the CUDA extension is not built: this is a source tree that was never installed; run pip install -e ."
    if record.get("cuda"):
        python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        return f"the CUDA extension was built for another Python than this {python}: {REBUILD}"
    return _one_line(f"the CUDA extension is not built: {record.get('reason')}; {record.get('remedy')}")


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def load() -> ModuleType | None:
    """`gpucnn._cuda`, or None where it is missing or can't be loaded (`why_missing` says why)."""
    return _load()[0]


def why_missing() -> str | None:
    """One line that says why the extension can't be used and what to do about it; None where it is loaded.

    A loaded extension does not mean a usable GPU: ask its `device_count()`.
    """
    return _load()[1]


def require() -> ModuleType:
    """`gpucnn._cuda`. Raises RuntimeError with `why_missing()`'s line where there is none."""
    module, reason = _load()
    if module is None:
        raise RuntimeError(reason)
    return module
