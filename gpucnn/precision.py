"""How exactly float32 is multiplied on tensor cores, and what is multiplied in 16 bits instead: chosen, never silent.

`highest`, which is the default, is as exact as float32: its own arithmetic, or six products of bfloat16 for one,
whichever is faster. `high` is TF32: factors rounded to 11 bits, sums in float32, errors of about 3e-4. It says nothing
of other dtypes.

`autocast` is kept here as a dtype and a place for what was cast; `operators.casts` does it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gpucnn.backend import supported_dtype

F = TypeVar("F", bound=Callable[..., Any])

PRECISIONS = ("highest", "high")
AUTOCAST_DTYPES = ("bfloat16", "float16")

_current = "highest"


def set_float32_precision(precision: str) -> None:
    """Of linear layers, and of convolutions that do not say `precision=...` themselves: from now on, in all threads.

    Args:
        precision: "highest" or "high".

    Raises:
        ValueError: another one.
    """
    global _current
    _current = checked_precision(precision)


def float32_precision() -> str:
    """What was set last: "highest" or "high"."""
    return _current


def checked_precision(precision: str | None, op: str = "") -> str:
    """`precision` if it is one, that in use for None; ValueError names those that there are."""
    if precision is None:
        return _current
    if precision not in PRECISIONS:
        where = f"{op}: " if op else ""
        raise ValueError(f"{where}precision must be {' or '.join(map(repr, PRECISIONS))}, got {precision!r}")
    return precision


class _Autocasting(threading.local):
    def __init__(self) -> None:
        self.dtype: np.dtype[Any] | None = None
        """What this thread multiplies in; None where it casts nothing."""
        self.outside: list[np.dtype[Any] | None] = []
        """What was in force outside the blocks that this thread is in."""
        self.casts: dict[tuple[int, str], Any] = {}
        """Parameters that were cast in the outermost of them; `operators.casts` fills it."""


autocasting = _Autocasting()


class autocast:
    """Mixed precision: `with autocast("bfloat16"): loss = F.cross_entropy(model(x), y)`, or as a decorator.

    Inside, convolutions, linear layers and products of matrices take float32 tensors as 16-bit ones, and answer in
    these: conv1d, conv2d, conv_transpose2d, linear, `@`, prelu, and what is fused with them. What a few bits would harm
    is computed and answered in float32, whatever it is given: losses, softmax and log_softmax, softplus, sum, mean,
    var, std, prod, norm, logsumexp, cumsum, exp, log, powers and reciprocals. All else takes what it gets; where dtypes
    meet, as in a sum or `cat`, the wider stays. Normalisation is computed in float32, with float32 weights and
    statistics, and leaves 16-bit images in 16 bits, for its kernels round nothing before the end. float64 is not cast.

    The lists are those of PyTorch's torch.amp, for what is here; Micikevicius et al., "Mixed precision training"
    (2018).

    Parameters stay float32, and so do their gradients: these are the float32 master weights of the method. Each is cast
    once until it changes or the outermost block ends, not once a use. backward() and the optimiser's step belong
    outside: gradients have the dtypes of what they are gradients of. For "float16", whose range ends at 65,504 and
    2^-24, scale the loss by a `GradScaler`; "bfloat16" has float32's range and needs none.

    Per thread; may be nested, and `autocast(enabled=False)` casts nothing inside (float32 work on 16-bit tensors needs
    `x.to("float32")` there). A block in a block of another dtype is that dtype's.

    Args:
        dtype: "bfloat16" or "float16", or numpy's dtype for one of them.
        enabled: whether to cast at all.

    Raises:
        ValueError: another dtype.
        RuntimeError: bfloat16 where ml_dtypes, which has it, is not installed.
    """

    def __init__(self, dtype: Any = "bfloat16", *, enabled: bool = True) -> None:
        name = checked_autocast(dtype)
        self._dtype: np.dtype[Any] | None = supported_dtype(name) if enabled else None

    def __enter__(self) -> None:
        autocasting.outside.append(autocasting.dtype)
        autocasting.dtype = self._dtype

    def __exit__(self, *_: object) -> None:
        autocasting.dtype = autocasting.outside.pop()
        if not autocasting.outside:
            autocasting.casts.clear()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def casting(*inputs: Any, **options: Any) -> Any:
            with self:
                return function(*inputs, **options)

        return casting  # type: ignore[return-value]


def checked_autocast(dtype: Any) -> str:
    """The name of one of AUTOCAST_DTYPES; ValueError names them where `dtype` is none."""
    name = str(dtype)
    if dtype is not None and not isinstance(dtype, str):
        with contextlib.suppress(TypeError):
            name = np.dtype(dtype).name
    if name not in AUTOCAST_DTYPES:
        raise ValueError(f"autocast: dtype must be {' or '.join(map(repr, AUTOCAST_DTYPES))}, got {name!r}")
    return name


def autocast_dtype() -> np.dtype[Any] | None:
    """What `autocast` has this thread multiply in: the dtype of bfloat16 or float16, or None."""
    return autocasting.dtype
