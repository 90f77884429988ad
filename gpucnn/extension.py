"""The compiled modules: each loaded on first use, at most once, and explained where it is missing.

`gpucnn._cuda` holds the kernels for the GPU, `gpucnn._simt_<flavour>` the same kernels built for the CPU. The build
leaves a record beside this file (`_build_info.json`): what was built and, where not, why and what would build it.
Nothing here raises at import.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

CUDA = "_cuda"
FLAVOURS = ("plain", "race", "asan", "profile")
"""Of the modules for the CPU, in order of preference: as they are, with the race checker, with AddressSanitizer and
UndefinedBehaviorSanitizer, with the profiler."""

RECORD = Path(__file__).with_name("_build_info.json")
REINSTALL = "reinstall with pip's --force-reinstall --no-deps --no-cache-dir and"


def build_info() -> dict[str, Any] | None:
    """What the build recorded, or None where the package has not been installed (a bare source tree).

    Keys: `cuda` (bool: built), `reason` (why, or why not), `remedy` (what to do; empty if built), and, if
    built, `toolkit` (nvcc's version, "13.0.88") and `targets` (["sm_80", "sm_90a", "compute_80"]). `simt` is a dict of
    its own: `built` (flavours), `reason`, `remedy` (of those that are not), and `preload` (the sanitizers' runtimes).
    `seconds` is what compiling took, of `cuda` and of `simt`; what was up to date already took none.

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
        raise RuntimeError(f"{RECORD} is damaged ({error}): {REINSTALL} GPUCNN_CUDA=1") from error


@functools.cache
def _load(name: str) -> tuple[ModuleType | None, str | None]:
    """(module, None) or (None, reason with remedy): success and failure are both remembered."""
    if importlib.util.find_spec(f"gpucnn.{name}") is None:
        return None, _why_not_built(name)
    if name == _module("asan") and not _has_asan():
        return None, _how_to_preload()
    try:
        return importlib.import_module(f"gpucnn.{name}"), None
    except ImportError as error:
        return None, f"{_described(name)} is installed but can't be loaded ({_one_line(error)}): {_rebuild(name)}"


def _module(flavour: str) -> str:
    return f"_simt_{flavour}"


def _described(name: str) -> str:
    return "the CUDA extension" if name == CUDA else f"gpucnn.{name} (the kernels built for the CPU)"


def _rebuild(name: str) -> str:
    return f"{REINSTALL} " + ("GPUCNN_CUDA=1" if name == CUDA else f"GPUCNN_SIMT={name.rpartition('_')[2]}")


def _why_not_built(name: str) -> str:
    try:
        record = build_info()
    except RuntimeError as error:
        return _one_line(error)
    if record is None:
        how = "pip install -e ." if name == CUDA else f"GPUCNN_SIMT={','.join(FLAVOURS)} pip install -e ."
        return f"{_described(name)} is not built: this is a source tree that was never installed; run {how}"
    simt = record.get("simt", {})
    if record.get("cuda") if name == CUDA else name in map(_module, simt.get("built", ())):
        python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        return f"{_described(name)} was built for another Python than this {python}: {_rebuild(name)}"
    why = record if name == CUDA else simt
    return _one_line(f"{_described(name)} is not built: {why.get('reason')}; {why.get('remedy')}")


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _has_asan() -> bool:
    """Whether AddressSanitizer's runtime came into this process first; loaded later, it would end the process."""
    return hasattr(ctypes.CDLL(None), "__asan_init")


def asan_environment() -> dict[str, str]:
    """The environment variables under which a new Python process can load the asan flavour.

    The sanitizers' runtimes have to come before everything else in a process, and its first report ends it, so this
    flavour belongs in a child process: `subprocess.run(command, env={**os.environ, **asan_environment()})`. Python
    itself frees little at exit, so the search for leaks is off.

    Raises:
        RuntimeError: the flavour is not built; the message says why and what to do.
    """
    if importlib.util.find_spec(f"gpucnn.{_module('asan')}") is None:
        raise RuntimeError(_why_not_built(_module("asan")))
    preload = ((build_info() or {}).get("simt") or {}).get("preload", ())
    return {"LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


def _how_to_preload() -> str:
    words = " ".join(f"{name}='{value}'" for name, value in asan_environment().items())
    return f"{_described(_module('asan'))} needs the sanitizers' runtimes first in the process: {words} python ..."


def load(name: str = CUDA) -> ModuleType | None:
    """`gpucnn.<name>`, or None where it is missing or can't be loaded (`why_missing` says why)."""
    return _load(name)[0]


def why_missing(name: str = CUDA) -> str | None:
    """One line that says why the module can't be used and what to do about it; None where it is loaded.

    A loaded CUDA extension does not mean a usable GPU: ask its `device_count()`.
    """
    return _load(name)[1]


def require(name: str = CUDA) -> ModuleType:
    """`gpucnn.<name>`. Raises RuntimeError with `why_missing()`'s line where there is none."""
    module, reason = _load(name)
    if module is None:
        raise RuntimeError(reason)
    return module


def simt_flavour() -> str:
    """The flavour that backend `simt` runs: $GPUCNN_SIMT_FLAVOUR, else the first of FLAVOURS that is built.

    Raises:
        ValueError: GPUCNN_SIMT_FLAVOUR names none that there is.
    """
    flavour = os.environ.get("GPUCNN_SIMT_FLAVOUR")
    if not flavour:
        return _preferred_flavour()
    if flavour not in FLAVOURS:
        raise ValueError(f"GPUCNN_SIMT_FLAVOUR={flavour}: no such flavour; there are {', '.join(FLAVOURS)}")
    return flavour


@functools.cache
def _preferred_flavour() -> str:
    built = (flavour for flavour in FLAVOURS if importlib.util.find_spec(f"gpucnn.{_module(flavour)}"))
    return next(built, FLAVOURS[0])


def compiled(backend: str) -> ModuleType:
    """The module that backend 'cuda' or 'simt' runs on.

    Raises:
        RuntimeError: it is missing; the message says why and what to do.
        ValueError: GPUCNN_SIMT_FLAVOUR names no flavour.
    """
    return require(CUDA if backend == "cuda" else _module(simt_flavour()))
