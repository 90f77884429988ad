"""Who computes a case: gpucnn by kernel, PyTorch as fast as it gets, PyTorch as it comes, and plain array code.

All have the same three methods. `prepare` makes the numbers, computes the pass once and returns what came of it;
`round` says how many seconds a sample takes; `drop` forgets it all. Each makes the same numbers from the same seed,
several sets of them, which samples go through in turn, so that none finds its input where the last one left it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from gpucnn import backend
from gpucnn.backend import Array
from gpucnn.bench.cases import Case, Numbers, gradients, results, walk_back
from gpucnn.bench.turns import sampled
from gpucnn.bench.updates import STEPS, UPDATES
from gpucnn.ops.registry import KernelTable, observe_calls
from gpucnn.precision import float32_precision, set_float32_precision
from gpucnn.profile.needed import needed_bytes, needed_products
from gpucnn.random import manual_seed
from gpucnn.tensor import Tensor
from gpucnn.tuning import clock_for

SETS = 3
"""Of numbers, that samples go through."""
_SAMPLES = 5
"""Of a round on a GPU."""
_FLUSHES = 3
"""Before each of them: PyTorch's engine takes its time to queue a gradient."""


@dataclass
class Prepared:
    """What a rival computed once.

    Attributes:
        outputs: arrays in the user's order of axes, float32 or float64, where a comparer can reach them.
        kernel: the names of the kernels that ran, where they are gpucnn's.
        moved, products: bytes and multiplications that the pass needs whoever computes it; 0 where it is not known.
        failed: why there is nothing else; `idle`: the pass runs no kernel, so that there is nothing to time.
    """

    outputs: list[Array] = field(default_factory=list)
    kernel: str = ""
    moved: int = 0
    products: int = 0
    failed: str = ""
    idle: bool = False


@dataclass(frozen=True)
class _Step:
    """A call of a table of kernels."""

    table: KernelTable
    problem: Any
    arrays: tuple[Any, ...]
    like: Array
    kernel: str | None

    def __call__(self) -> Any:
        return self.table(self.problem, *self.arrays, kernel=self.kernel, like=self.like)


class Timed:
    """What rounds of all rivals have in common."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._runs: dict[str | None, list[Callable[[], Any]]] = {}
        self._next = 0
        self._clock: Callable[[Callable[[], Any]], float] | None = None
        if device != "cpu":
            self._clock = clock_for(backend.cupy().empty(1), _FLUSHES)

    def _turn(self, kernel: str | None) -> Callable[[], Any]:
        runs = self._runs[kernel]
        self._next += 1
        return runs[self._next % len(runs)]

    def round(self, kernel: str | None, at_least: float) -> float:
        """Seconds: on a CPU the median of as many samples as fit into `at_least` seconds, on a GPU that of a few, each
        between two events, with the caches flushed before it."""
        clock = self._clock
        if clock is None:
            return sampled(lambda: self._turn(kernel)(), at_least)
        return median(clock(self._turn(kernel)) for _ in range(_SAMPLES))

    def drop(self) -> None:
        """Forgets what was prepared."""
        self._runs.clear()


class Own(Timed):
    """gpucnn on one of its backends. What is timed is the choice of the kernel, its launch, and the kernel."""

    def __init__(self, name: str, backend_name: str, device: str) -> None:
        super().__init__(device)
        self.name = name
        self._backend = backend_name

    def prepare(self, case: Case, seed: int, kernel: str | None) -> Prepared:
        """With the kernel of this name where the pass has it, the registry's choice where not, and for None."""
        before = float32_precision()
        set_float32_precision(case.precision)
        try:
            with backend.use_backend(self._backend):
                return self._prepare(case, seed, kernel)
        except (ValueError, RuntimeError, MemoryError) as error:
            return Prepared(failed=" ".join(str(error).split()))
        finally:
            set_float32_precision(before)

    def _prepare(self, case: Case, seed: int, kernel: str | None) -> Prepared:
        runs: list[Callable[[], Any]] = []
        prepared: Prepared | None = None
        for number in range(SETS):
            seen = _Pass(case, kernel)
            numbers = Numbers.of(case, seed + number, self.device)
            call = case.call(numbers)
            manual_seed(seed)
            with observe_calls(seen):
                found = results(call)
                seen.is_backward = True
                if case.direction != "fwd":
                    walk_back(case, found, numbers)
            if case.op in UPDATES:
                seen.keep_last()
            runs.append(_in_order(self._backend, seen.steps))
            if prepared is None:
                tensors = list(found) if case.direction == "fwd" else gradients(call, case.direction)
                names = "+".join(dict.fromkeys(seen.names))
                outputs = [_reachable(tensor) for tensor in tensors if tensor is not None]
                prepared = Prepared(outputs, names, seen.moved, seen.products, idle=not seen.steps)
        assert prepared is not None
        self._runs[kernel] = runs
        return prepared


class _Pass:
    """Observes a call: runs the kernels, and keeps the steps of one pass."""

    def __init__(self, case: Case, kernel: str | None) -> None:
        self.is_backward = False
        self.steps: list[_Step] = []
        self.names: list[str] = []
        self.moved = self.products = 0
        self._is_of_backward = case.direction != "fwd"
        self._directions = directions(case)
        self._kernel = kernel

    def __call__(
        self, table: KernelTable, problem: Any, arrays: tuple[Any, ...], kernel: str | None, like: Array
    ) -> Any:
        is_mine = self.is_backward == self._is_of_backward and (
            self._directions is None or table.direction in self._directions
        )
        if not is_mine:
            return table.pick(problem, like, kernel).run(problem, *arrays)
        forced = kernel or self._kernel_of(table)
        spec = table.pick(problem, like, forced)
        result = spec.run(problem, *arrays)
        self.steps.append(_Step(table, problem, arrays, like, forced))
        self.names.append(spec.name)
        self.moved += needed_bytes(arrays, result)
        self.products += needed_products(table.op, table.direction, problem, arrays, result)
        return result

    def keep_last(self) -> None:
        """Of updates that were made STEPS times the last one."""
        first = len(self.steps) - len(self.steps) // STEPS
        self.steps, self.names = self.steps[first:], self.names[first:]
        self.moved //= STEPS

    def _kernel_of(self, table: KernelTable) -> str | None:
        base = (self._kernel or "").partition(":")[0]
        there = {spec.name for spec in table.specs(backend.current_backend())}
        return self._kernel if base in there else None


def directions(case: Case) -> tuple[str, ...] | None:
    """Of the tables that a pass asks while walking forward, or back; None: all."""
    if case.direction == "wgrad":
        return "wgrad", "bgrad"
    if case.direction == "dgrad":  # a transposed convolution's is the convolution that it transposes
        return ("fprop",) if case.op == "conv_transpose2d" else ("dgrad",)
    return None


def _in_order(backend_name: str, steps: list[_Step]) -> Callable[[], Any]:
    def run() -> None:
        for step in steps:
            step()

    def on_backend() -> None:
        with backend.use_backend(backend_name):
            run()

    return run if backend_name == backend.default_backend() else on_backend


def _reachable(tensor: Tensor) -> Array:
    """A tensor's numbers as float32 or float64, where they lie."""
    wide = tensor if tensor.dtype in (np.float32, np.float64) else tensor.to("float32")
    return wide.data


def missing(name: str, kind: str) -> str:
    """Why a baseline can't be had here, on a "cpu" or a "cuda" device; "" if it can."""
    if (name, kind) in (("cupy", "cpu"), ("numpy", "cuda")):
        return f"{name} computes on {'a GPU' if kind == 'cpu' else 'the CPU'}, this is measured on {kind}"
    if name == "cupy":
        try:
            backend.cupy()
        except RuntimeError as error:
            return str(error)
    if name in ("torch", "torch default"):
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed: pip install 'gpucnn[peers]'"
        if kind == "cuda":
            import torch

            if not torch.cuda.is_available():
                return "the torch that is installed sees no GPU: it may be built without CUDA"
    return ""
