"""The device flag: what a kernel met that the host can't see without waiting for the GPU.

A training step on a GPU has no host synchronisation inside, so nobody looks at labels before a loss is computed. The
compiled kernels do (csrc/common/flag.h): one that meets a label outside the classes, or whose reduced loss is infinite
or NaN where a gradient will be asked for, notes that in two words of memory on the device. While they hold a note the
optimisers' kernels change nothing. The host reads them where it reads a result anyway, in `Tensor.item()`, and raises
with the step at which the note was made: `BadInputError` or `NonFiniteLossError`. `reset()` lets training go on, with
the parameters as they were before that step. (What the host counts has gone on: schedules, Adam's correction.)

On the CPU the `reference` backend checks labels at once, and leaves the flag alone; on a GPU it waits for that.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from gpucnn.backend import Array, device_of, empty

_CLEAR = 2**63 - 1
_PLACE_BITS, _KIND_BITS = 36, 3

_BAD_INPUT = {
    1: "a label is neither a class nor to be ignored: row {place} of the logits, counted over all axes but the classes",
    2: "binary_cross_entropy: input and target must lie in [0, 1], and element {place} in memory does not",
    3: "max_unpool2d: index {place} in memory lies outside the output; output_size=... can name what was pooled",
}
_WORDS = "{what} (met at step {step}; the optimisers have changed nothing since: gpucnn.flags.reset() lets them go on)"


class FlagError(RuntimeError):
    """A kernel met trouble in an earlier step.

    Attributes:
        step: the optimisers' step in which it did, from 1; counted from `reset`.
        place: which row or element it was.
    """

    def __init__(self, what: str, step: int, place: int) -> None:
        super().__init__(_WORDS.format(what=what, step=step))
        self.step, self.place = step, place


class BadInputError(FlagError, ValueError):
    """A label, probability or index out of range."""


class NonFiniteLossError(FlagError, FloatingPointError):
    """A loss that is infinite or NaN."""


class _Flags:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_device: dict[str, Array] = {}
        self.step = 0  # that flags made from now on begin with
        self.unread: set[str] = set()  # devices of which a kernel has been given the flag since it was read


_flags = _Flags()


def flag_of(like: Array) -> Array:
    """The flag of the device that `like` lies on, for a kernel that may raise it: int64 (2,), a code and a count."""
    device = device_of(like)
    with _flags.lock:
        found = _flags.by_device.get(device)
        if found is None:
            found = _flags.by_device[device] = empty((2,), np.dtype(np.int64), like)
            found[0], found[1] = _CLEAR, _flags.step
        _flags.unread.add(device)
    return found


def flag_if_any(like: Array) -> Array | None:
    """As `flag_of`, for a kernel that heeds it: None where no kernel can have raised it."""
    return _flags.by_device.get(device_of(like)) if _flags.by_device else None


def is_raised(like: Array) -> bool:
    """Whether the flag of the device of `like` is raised. On a GPU this waits for the work before it."""
    return _note(like) is not None


def check(like: Array) -> None:
    """Raises what was noted on the device of `like`; to be called where the host waits for that device anyway.

    Raises:
        BadInputError, NonFiniteLossError: until `reset`, each time.
    """
    note = _note(like) if _flags.unread else None
    if note is None:
        return
    place, rest = note & ((1 << _PLACE_BITS) - 1), note >> _PLACE_BITS
    kind, step = rest & ((1 << _KIND_BITS) - 1), (rest >> _KIND_BITS) + 1
    if kind in _BAD_INPUT:
        raise BadInputError(_BAD_INPUT[kind].format(place=place), step, place)
    raise NonFiniteLossError("the loss is infinite or NaN", step, place)


def _note(like: Array) -> int | None:
    """What a kernel noted; None if nothing, and then nobody looks again until the next is given the flag."""
    device = device_of(like)
    if device not in _flags.unread:
        return None
    note = int(_flags.by_device[device][0])
    if note != _CLEAR:
        return note
    _flags.unread.discard(device)
    return None


def reset(step: int = 0) -> None:
    """Lowers every device's flag; the optimisers' next step is number `step` + 1.

    Raises:
        ValueError: a negative number.
    """
    if step < 0:
        raise ValueError(f"step must not be negative, got {step}")
    with _flags.lock:
        _flags.step = step
        _flags.unread.clear()
        for flag in _flags.by_device.values():
            flag[0], flag[1] = _CLEAR, step


def steps(like: Any) -> int:
    """How many steps optimisers have made on the device of `like` since `reset`. On a GPU this waits."""
    flag = flag_if_any(like)
    return _flags.step if flag is None else int(flag[1])
