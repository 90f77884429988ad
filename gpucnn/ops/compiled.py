"""Kernels that are compiled: one source, one binding, registered for the GPU and for the CPU alike."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn import extension
from gpucnn.backend import FLOAT_KINDS, current_stream, dtype_name
from gpucnn.ops.registry import KernelTable, Supports, Yields, always

COMPILED = ("cuda", "simt")
"""The backends whose kernels are compiled from csrc/."""

Configuration = Callable[[Any, Any, str], str]
"""(module, problem, dtype) -> which of a kernel's configurations runs it, in words for the user."""

Slower = Callable[[Any, Any, str, int], "str | None"]
"""(module, problem, dtype, device) -> why a kernel further down the table is expected to be faster, or None."""

Expected = Callable[[Any, Any, str], "float | None"]
"""(module, problem, dtype) -> seconds that the cost model expects a kernel to take; None: it says nothing of this."""

FLOATS = ("float32", "float16", "bfloat16")
"""What such kernels store numbers as; their arithmetic is float32's."""


def add(
    table: KernelTable,
    name: str,
    call: Callable[..., Any],
    supports: Supports = always,
    dtypes: tuple[str, ...] | None = None,
    configuration: Configuration | None = None,
    configurations: Callable[[Any], list[str]] | None = None,
    slower: Slower | None = None,
    has_no_choice: Supports = always,
    expected: Expected | None = None,
) -> None:
    """Appends a kernel to `table` for every backend of COMPILED.

    Args:
        table: of the op's pass.
        name: the kernel's, the same on each backend.
        call: `call(module, problem, stream, *arrays)` allocates the outputs with `backend.empty`, calls a binding of
            `module` (gpucnn._cuda or gpucnn._simt_<flavour>) on them and returns them. `stream` is what the binding
            takes for the current stream. The first array, or the first of a list, says where all of them lie.
        supports: problem -> None, or the reason why the kernel can't run it.
        dtypes: the names of those that the kernel computes in; None is any, or what `supports` says.
        configuration: which one runs a problem, for `gpucnn.explain`; None where there is no choice to tell of. It only
            asks the module for plain arithmetic, and takes the arrays for aligned.
        configurations: module -> the names of all of them, each of which can be asked for as "kernel:configuration".
        has_no_choice: why it can't run a problem in a configuration that is asked for, or None.
        slower: where a kernel further down is expected to be faster, and so preferred: why.
        expected: the seconds that it is expected to take; None where there is no model of it. As `configuration` asks.
    """
    for backend in COMPILED:
        kernel = Kernel(f"{table}: {name}", backend, call, configuration, configurations, expected)
        table.add(
            *(name, backend, kernel, supports, dtypes),
            yields=None if slower is None else _asking(backend, slower),
            variants=None if configurations is None else kernel.variants,
            has_no_choice=has_no_choice,
        )


def _asking(backend: str, slower: Slower) -> Yields:
    """Of the module that the backend runs on, or of one that stands in for it."""

    def yields(problem: Any, like: Any) -> str | None:
        module = _arithmetic_of(backend)
        if module is None:
            return None
        device = 0 if isinstance(like, np.ndarray) else like.device.id
        return slower(module, problem, dtype_name(like.dtype), device)

    return yields


def _arithmetic_of(backend: str) -> Any:
    """The backend's module for its plain arithmetic, another one where it is missing; None where there is none."""
    own = extension.load(extension.CUDA if backend == "cuda" else f"_simt_{extension.FLAVOURS[0]}")
    if own is not None:
        return own
    names = [extension.CUDA, *(f"_simt_{flavour}" for flavour in extension.FLAVOURS)]
    if backend == "simt":
        names = [*names[1:], names[0]]
    return next((found for found in map(extension.load, names) if found is not None), None)


def runs(table: KernelTable, problem: Any, like: Any) -> bool:
    """Whether a compiled kernel would run `problem` on data lying where `like` does: one that raises the device flag
    (gpucnn.flags) instead of having its input checked before."""
    return table.pick(problem, like).backend in COMPILED


class Kernel:
    """`run(problem, *arrays)` of one kernel on one backend."""

    def __init__(
        self,
        label: str,
        backend: str,
        call: Callable[..., Any],
        configuration: Configuration | None = None,
        configurations: Callable[[Any], list[str]] | None = None,
        expected: Expected | None = None,
    ) -> None:
        self.label = label
        """What it is for, and its name: "conv2d fprop: direct"."""
        self._backend = backend
        self._call = call
        self._configuration = configuration
        self._configurations = configurations
        self._expected = expected

    def __call__(self, problem: Any, *arrays: Any) -> Any:
        return self.on(extension.compiled(self._backend), problem, *arrays)

    def on(self, module: Any, problem: Any, *arrays: Any) -> Any:
        """As a call, with another module's bindings."""
        first = arrays[0]
        while isinstance(first, (list, tuple)):
            first = first[0]
        return self._call(module, problem, current_stream(first), *arrays)

    def configuration(self, problem: Any, dtype: str) -> str | None:
        """Which of its configurations runs `problem`; None where there is none to tell of, or no module to ask."""
        if self._configuration is None:
            return None
        module = _arithmetic_of(self._backend)
        return None if module is None else self._configuration(module, problem, dtype)

    def expected(self, problem: Any, dtype: str) -> float | None:
        """Seconds that the cost model expects; None where there is none of it, or no module to ask."""
        module = None if self._expected is None else _arithmetic_of(self._backend)
        return None if module is None or self._expected is None else self._expected(module, problem, dtype)

    def variants(self) -> dict[str, Callable[..., Any]]:
        """By the names of its configurations, the kernel in each of them; empty where there is no module to ask."""
        module = _arithmetic_of(self._backend)
        if self._configurations is None or module is None:
            return {}
        return {name: self._in(name) for name in self._configurations(module)}

    def _in(self, configuration: str) -> Kernel:
        def call(module: Any, *arguments: Any) -> Any:
            return self._call(_Configured(module, configuration), *arguments)

        return Kernel(self.label, self._backend, call, lambda *_: f"tile {configuration}")


class _Configured:
    """A module of which the bindings of products are those of one configuration."""

    def __init__(self, module: Any, configuration: str) -> None:
        self._module = module
        self._configuration = configuration

    def __getattr__(self, name: str) -> Any:
        if name.startswith("matmul_"):
            return functools.partial(getattr(self._module, name), configuration=self._configuration)
        stem, splits, _ = name.partition("_splits")
        return getattr(self._module, f"{stem}_{self._configuration}{splits}")


class _Nothing:
    """A module whose bindings do nothing; what they are asked for, such as a number of parts, is 1."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *arguments, **options: 1


def allocated(table: KernelTable, problem: Any, arrays: tuple[Any, ...], like: Any) -> Any:
    """What a kernel of the table would return, of whatever its memory holds: an observer's answer without
    computing. Where none is compiled for this, what the kernel returns that is picked."""
    specs = sorted(table.specs(COMPILED[0]), key=lambda spec: spec.why_not(problem, like) is not None)
    for spec in specs:
        if isinstance(spec.run, Kernel):
            with contextlib.suppress(Exception):  # a shape that it was not written for
                return _blank(spec.run.on(_Nothing(), problem, *arrays))
    return table.pick(problem, like).run(problem, *arrays)  # array code has to compute it


def _blank(result: Any) -> Any:
    """Nothing that is an index may lie outside an array, and what is small is kept from looking like NaN."""
    for array in result if isinstance(result, (tuple, list)) else (result,):
        if isinstance(array, np.ndarray) and (array.dtype.kind not in FLOAT_KINDS or array.nbytes < 1 << 20):
            array[...] = 0
    return result
