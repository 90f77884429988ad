"""Which kernels were measured to be the fastest here, and the files that say so: one a device, read when it is first
asked for. `gpucnn.tuning` measures and writes them, the tables of kernels ask.

A file holds for one device, one version of gpucnn and one build of its kernels; any other, and one that is broken, is
passed over with a line in the log.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn import backend as backends
from gpucnn import extension
from gpucnn.backend import Array

FOLDER, SWITCH = "GPUCNN_CACHE", "GPUCNN_TUNING"
"""The environment variables that name the folder, and that switch all of this off with 0."""

OPS = ("conv2d", "linear")
"""Whose passes are measured: they have several kernels each, which return new arrays and change none."""

SCHEMA = 1
_CPU = -1
_MOST_REMEMBERED = 4096

log = logging.getLogger("gpucnn")


@dataclass(frozen=True)
class Choice:
    """What was measured of one pass of one problem.

    Attributes:
        kernel: the fastest, or "kernel:configuration".
        seconds: that it took.
        default: the one that is preferred without having been measured.
        default_seconds: that this one took.
    """

    kernel: str
    seconds: float
    default: str
    default_seconds: float


@dataclass
class Choices:
    """All that were measured on one device."""

    by_question: dict[str, Choice] = field(default_factory=dict)
    remembered: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    """What became of them, for the tables, which find it here without a look at words."""

    def remember(self, key: tuple[Any, ...], value: Any) -> Any:
        """`value`, from now on to be found under `key`."""
        if len(self.remembered) >= _MOST_REMEMBERED:
            self.remembered.clear()
        self.remembered[key] = value
        return value


Place = tuple[str, int]
"""A backend, and the index of a GPU or, on the CPU, a negative number."""

is_enabled = os.environ.get(SWITCH) != "0"
"""Whether tables ask at all: see `set_tuning`."""

_known: dict[Place, Choices] = {}


def set_tuning(enabled: bool) -> None:
    """Whether kernels are chosen by what `gpucnn.tune` has measured, where it has: from now on, in all threads.

    They are unless the environment variable GPUCNN_TUNING is 0. Without it, and for all problems that were not
    measured, the kernel that is expected to be the fastest runs.
    """
    global is_enabled
    is_enabled = bool(enabled)


def place(backend: str, like: Array) -> Place:
    """Where a backend's kernels run on data lying where `like` does."""
    return backend, _CPU if isinstance(like, np.ndarray) else int(like.device.id)


def choices(where: Place) -> Choices:
    """What is known of a place; from the file, the first time."""
    found = _known.get(where)
    if found is None:
        found = _known[where] = Choices(_load(where))
    return found


def question(op: str, direction: str, dtype: str, problem: Any) -> str:
    """A pass of a problem in words, by which it is kept."""
    return f"{op} {direction} {dtype} {problem}"


def forget() -> None:
    """Has all files read anew when they are next asked for."""
    _known.clear()


# ------------------------------------------------------------------------------------------------------------- files


def folder() -> Path:
    """$GPUCNN_CACHE, else `gpucnn` in $XDG_CACHE_HOME or ~/.cache; there in `tuning`."""
    named = os.environ.get(FOLDER)
    if not named:
        named = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "gpucnn")
    return Path(os.path.expanduser(named)) / "tuning"


def device(where: Place) -> str:
    """What the kernels of a place run on, in words that other machines with the same thing would use."""
    backend, index = where
    if backend == "simt":
        return f"the CPU as a GPU, {extension.simt_flavour()}"
    if index == _CPU:
        return f"{backend} on {_processor()}"
    properties = extension.require().device_properties(index) if backend == "cuda" else None
    if properties is not None:
        return f"{properties['name']}, {properties['multiprocessors']} multiprocessors"
    name = backends.cupy().cuda.runtime.getDeviceProperties(index)["name"]
    return f"{backend} on {name.decode() if isinstance(name, bytes) else name}"


def path(where: Place) -> Path:
    """The file of a place, whether it is there or not."""
    return folder() / f"{re.sub(r'[^A-Za-z0-9]+', '-', device(where)).strip('-')}.json"


def check_writable() -> None:
    """Raises RuntimeError, with what to do, where no file can be written: before hours of measuring, say."""
    where = folder()
    try:
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=where):
            pass
    except OSError as error:
        raise RuntimeError(_unwritable(where, error)) from error


def save(where: Place, found: Mapping[str, Choice | None]) -> Path:
    """Adds choices, by `question`, to those in the file of a place; None takes one out. Returns the file.

    Processes that do so at the same time wait for one another; who reads sees a whole file, the old or the new.

    Raises:
        RuntimeError: it can't be written; the message says what to do.
    """
    file = path(where)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file.with_suffix(".lock")):
            there = _load(where, quiet=True)
            kept = {name: choice for name, choice in there.items() if name not in found}
            kept |= {name: choice for name, choice in found.items() if choice is not None}
            content = {**_heading(where), "choices": {name: asdict(kept[name]) for name in sorted(kept)}}
            _replace(file, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise RuntimeError(_unwritable(file.parent, error)) from error
    _known[where] = Choices(kept)
    return file


@contextlib.contextmanager
def _locked(lock: Path) -> Iterator[None]:
    with open(lock, "a", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _replace(file: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-")
    try:
        with open(handle, "w", encoding="utf-8") as written:
            os.fchmod(handle, 0o644)
            written.write(text)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def _unwritable(where: Path, error: OSError) -> str:
    why = error.strerror or type(error).__name__
    return f"what is tuned can't be kept in {where} ({why}): set {FOLDER} to a folder that can be written to"


def _load(where: Place, quiet: bool = False) -> dict[str, Choice]:
    """The choices in the file of a place; none where there is no such file, or it is not for here."""
    try:
        file = path(where)
        if not file.exists():
            return {}
        heading = _heading(where)
    except (RuntimeError, ValueError, OSError):  # no such device, no module that could say, no such flavour
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return _passed_over(file, f"it can't be read ({' '.join(str(error).split())})", quiet)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return _passed_over(file, "its format is another one", quiet)
    for key, expected in heading.items():
        if content.get(key) != expected:
            return _passed_over(file, f"it is of {key} {content.get(key)!r}, this is {expected!r}", quiet)
    try:
        return {str(name): _choice(entry) for name, entry in content["choices"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return _passed_over(file, "it is broken", quiet)


def _passed_over(file: Path, why: str, quiet: bool) -> dict[str, Choice]:
    if not quiet:
        log.warning("%s: what was tuned is passed over: %s; gpucnn.tune writes it anew", file, why)
    return {}


def _choice(entry: dict[str, Any]) -> Choice:
    """Raises TypeError or KeyError for what none is."""
    names, times = (entry["kernel"], entry["default"]), (entry["seconds"], entry["default_seconds"])
    if not all(isinstance(name, str) for name in names) or not all(type(time) in (int, float) for time in times):
        raise TypeError("a name or a time is none")
    return Choice(names[0], times[0], names[1], times[1])


def _heading(where: Place) -> dict[str, Any]:
    """What a file has to agree in."""
    version = sys.modules["gpucnn"].__version__  # of the package above, which has imported this
    return {"schema": SCHEMA, "version": version, "build": _build(where[0]), "device": device(where)}


def _build(backend: str) -> str:
    """The kernels' own fingerprint; of array code there is none but the version."""
    if backend == "reference":
        return ""
    module = extension.compiled(backend)
    digest = hashlib.sha256()
    with open(str(module.__file__), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()
