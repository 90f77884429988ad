"""Kernels that are compiled: one source, one binding, registered for the GPU and for the CPU alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpucnn import extension
from gpucnn.backend import current_stream
from gpucnn.ops.registry import KernelTable, Supports, always

COMPILED = ("cuda", "simt")
"""The backends whose kernels are compiled from csrc/."""

Configuration = Callable[[Any, Any, str], str]
"""(module, problem, dtype) -> which of a kernel's configurations runs it, in words for the user."""

FLOATS = ("float32", "float16", "bfloat16")
"""What such kernels store numbers as; their arithmetic is float32's."""


def add(
    table: KernelTable,
    name: str,
    call: Callable[..., Any],
    supports: Supports = always,
    dtypes: tuple[str, ...] | None = None,
    configuration: Configuration | None = None,
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
            asks the module for plain arithmetic, the same in each, and takes the arrays for aligned.
    """
    for backend in COMPILED:
        table.add(name, backend, Kernel(f"{table}: {name}", backend, call, configuration), supports, dtypes)


def runs(table: KernelTable, problem: Any, like: Any) -> bool:
    """Whether a compiled kernel would run `problem` on data lying where `like` does: one that raises the device flag
    (gpucnn.flags) instead of having its input checked before."""
    return table.pick(problem, like).backend in COMPILED


class Kernel:
    """`run(problem, *arrays)` of one kernel on one backend."""

    def __init__(
        self, label: str, backend: str, call: Callable[..., Any], configuration: Configuration | None = None
    ) -> None:
        self.label = label
        """What it is for, and its name: "conv2d fprop: direct"."""
        self._backend = backend
        self._call = call
        self._configuration = configuration

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
        names = ("_cuda", *(f"_simt_{flavour}" for flavour in extension.FLAVOURS))
        module = next((found for found in map(extension.load, names) if found is not None), None)
        return None if module is None else self._configuration(module, problem, dtype)
