"""Which kernel runs an op's pass: one ordered table each, asked on every call.

A kernel is a plain callable `run(problem, *arrays)`. On a backend the first kernel runs that takes the data's dtype and
whose `supports(problem)` is None; its answer is otherwise the reason why not, in words for the user. One that yields
runs only where none that can does not. `kernel="name"` forces one or says why not, `kernel="name:configuration"` one of
its configurations.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from gpucnn import backend, tuned
from gpucnn.backend import Array

log = logging.getLogger("gpucnn")

Supports = Callable[[Any], "str | None"]
"""problem -> None if the kernel can run it, else the reason why not."""


Yields = Callable[[Any, Array], "str | None"]
"""(problem, like) -> None, or why a kernel further down the table is expected to be faster."""

Variants = Callable[[], "dict[str, Callable[..., Any]]"]
"""() -> a kernel's code in each of its configurations, by their names."""


_CPU = -1
_MOST_REMEMBERED = 4096


def always(problem: Any) -> None:
    return None


@dataclass(frozen=True)
class KernelSpec:
    """One kernel: its name within the op, the backend that it belongs to, the code, and what it can do.

    `dtypes` are the names of those that it computes in; None is any. `widens`: see `KernelTable.add`. `yields` says
    where it is passed over, `variants` gives it in each of its configurations; None: nowhere, and it has none.
    `has_no_choice` says why it can't run a problem in any of those but its own.
    """

    name: str
    backend: str
    run: Callable[..., Any]
    supports: Supports = always
    dtypes: tuple[str, ...] | None = None
    widens: bool = False
    yields: Yields | None = None
    variants: Variants | None = None
    has_no_choice: Supports = always

    def why_not(self, problem: Any, like: Array) -> str | None:
        """Why it can't run `problem` on data of `like`'s dtype; None if it can."""
        if self.dtypes is not None and (name := backend.dtype_name(like.dtype)) not in self.dtypes:
            return f"needs {' or '.join(self.dtypes)}, got {name}"
        return self.supports(problem)

    def why_later(self, problem: Any, like: Array) -> str | None:
        """Why one further down that can run `problem` goes before it; None if none does."""
        return None if self.yields is None else self.yields(problem, like)

    def configurations(self) -> tuple[str, ...]:
        """The names of those that can be asked for."""
        return () if self.variants is None else tuple(self.variants())

    def configured(self, name: str) -> KernelSpec:
        """The same in one configuration. Raises ValueError that names those there are."""
        variants = {} if self.variants is None else self.variants()
        if name not in variants:
            there = f"there are: {', '.join(variants)}" if variants else "it has none to choose from"
            raise ValueError(f"kernel {self.name!r} has no configuration {name!r}, {there}")
        return replace(self, name=f"{self.name}:{name}", run=variants[name], variants=None, supports=self._can_choose)

    def _can_choose(self, problem: Any) -> str | None:
        return self.supports(problem) or self.has_no_choice(problem)


class KernelTable:
    """The kernels of one pass of one op, in order of preference."""

    def __init__(self, op: str, direction: str) -> None:
        self.op = op
        self.direction = direction
        self._by_backend: dict[str, list[KernelSpec]] = {name: [] for name in backend.BACKENDS}
        self._weighed: set[str] = set()
        """Backends of which some kernel yields: to find out takes longer than many a kernel, so it is done once."""
        self._chosen: dict[tuple[Any, ...], tuple[list[KernelSpec], KernelSpec]] = {}
        """By what was asked of such: the kernels that there were, and the first choice of them."""
        self._is_tuned = op in tuned.OPS
        self._logged: set[tuple[str, str]] = set()
        if (op, direction) in TABLES:
            raise ValueError(f"there is a table of kernels for {self} already")
        TABLES[op, direction] = self

    def add(
        self,
        name: str,
        backend: str,
        run: Callable[..., Any],
        supports: Supports = always,
        dtypes: tuple[str, ...] | None = None,
        widens: bool = True,
        yields: Yields | None = None,
        variants: Variants | None = None,
        has_no_choice: Supports = always,
    ) -> None:
        """Appends a kernel; those added first are preferred, but for those that yield.

        Infinities and NaN are results of array code, as IEEE 754 has them, and not events for numpy to warn of.

        Array code sums in the dtype of its arrays unless told otherwise, and numpy has no common dtype of bfloat16 and
        most others. So a reference kernel gets bfloat16 arrays as float32, and its float32 results leave as bfloat16
        (what it writes in place, if it returns nothing, too). With `widens=False` it gets them as they are.

        Of a backend of which a kernel `yields`, kernels are asked once for a problem, which is hashable, a dtype and a
        device.

        Raises ValueError for an unknown backend, and for a name that the backend has already.
        """
        if backend not in self._by_backend:
            raise ValueError(f"{self}: unknown backend {backend!r}; there are {', '.join(self._by_backend)}")
        if any(spec.name == name for spec in self._by_backend[backend]):
            raise ValueError(f"{self}: backend {backend!r} has a kernel {name!r} already")
        if backend == "reference":
            run = np.errstate(all="ignore")(run)  # as a decorator it costs half of what a `with` costs, 0.4 us
        widens = widens and backend == "reference"
        if yields is not None:
            self._weighed.add(backend)
        self._by_backend[backend].append(
            KernelSpec(name, backend, run, supports, dtypes, widens, yields, variants, has_no_choice)
        )

    def specs(self, backend: str) -> tuple[KernelSpec, ...]:
        """The kernels of a backend, in order of preference."""
        return tuple(self._by_backend[backend])

    def __call__(self, problem: Any, *arrays: Any, kernel: str | None = None, like: Array) -> Any:
        """Runs the chosen kernel; `like` is an array that says where the data are, and of which dtype."""
        if _observers and (observer := _observers.get(threading.get_ident())):
            return observer(self, problem, arrays, kernel, like)
        return self.pick(problem, like, kernel).run(problem, *arrays)

    def pick(self, problem: Any, like: Array, kernel: str | None = None) -> KernelSpec:
        """The kernel that would run `problem` on data lying where `like` does: the one that is asked for, the one that
        was measured to be the fastest (gpucnn.tune), or the first choice.

        Raises:
            ValueError: `kernel` is not one of the backend's, or can't run this problem.
            RuntimeError: no kernel can run it; the backend has none and is strict; it works on another device.
        """
        name = self._backend(like)
        if kernel is not None:
            return ready(self.forced(kernel, name, problem, like), like)
        spec = (self._is_tuned and self.measured(name, problem, like)) or self._expected(name, problem, like)
        return _widened(spec) if spec.widens and like.dtype.kind == "V" else spec

    def pick_unmeasured(self, problem: Any, like: Array) -> KernelSpec:
        """As `pick`, as if nothing had been measured."""
        return ready(self._expected(self._backend(like), problem, like), like)

    def _backend(self, like: Array) -> str:
        """The one that kernels for data lying where `like` does are of."""
        name = backend.current_backend()
        if name == "reference":
            return name
        on_cpu = isinstance(like, np.ndarray)
        if name == "cuda" and (on_cpu or not backend.runs_kernels(like.device.id)):
            return "reference"  # the kernels work on GPU memory; a CPU tensor beside them is no gap in the backend
        if name == "simt" and not on_cpu:
            raise RuntimeError(f"{self}: backend 'simt' works on cpu arrays, got one on {backend.device_of(like)}")
        return name

    def _expected(self, name: str, problem: Any, like: Array) -> KernelSpec:
        specs = self._by_backend[name]
        if name not in self._weighed:
            return first_choice(specs, problem, like) or self._fall_back(name, problem, like)
        key = name, problem, like.dtype, _CPU if isinstance(like, np.ndarray) else like.device.id
        chosen = self._chosen.get(key)
        if chosen is not None and chosen[0] is specs:
            return chosen[1]
        spec = first_choice(specs, problem, like)
        if spec is None:
            return self._fall_back(name, problem, like)
        if len(self._chosen) >= _MOST_REMEMBERED:
            self._chosen.clear()
        self._chosen[key] = specs, spec
        return spec

    def measured(self, name: str, problem: Any, like: Array) -> KernelSpec | None:
        """The backend's kernel that was measured to be the fastest, else of the problem without its epilogue; None
        where nothing was measured, or what was is no longer there or can't run this."""
        if not tuned.is_enabled or not self._is_tuned:
            return None
        choices = tuned.choices(tuned.place(name, like))
        if not choices.by_question:
            return None
        key = (self.op, self.direction, backend.dtype_name(like.dtype), problem)
        if key in choices.remembered:
            found: KernelSpec | None = choices.remembered[key]
            return found
        choice = choices.by_question.get(tuned.question(*key))
        if choice is None and (plain := getattr(problem, "plain", problem)) is not problem:
            choice = choices.by_question.get(tuned.question(*key[:3], plain))
        spec = None
        if choice is not None:
            with contextlib.suppress(ValueError):
                spec = self.forced(choice.kernel, name, problem, like)
        return cast("KernelSpec | None", choices.remember(key, spec))

    def forced(self, kernel: str, name: str, problem: Any, like: Array) -> KernelSpec:
        """The kernel "name" or "name:configuration" of backend `name`. Raises ValueError: it has none of that name, or
        it can't run this."""
        by_name = {spec.name: spec for spec in self._by_backend[name]}
        base, colon, configuration = kernel.partition(":")
        if base not in by_name:
            near = difflib.get_close_matches(base, by_name, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            there = ", ".join(by_name) or "none"
            raise ValueError(f"{self}: no kernel {base!r} on backend {name!r}, there are: {there}{hint}")
        spec = by_name[base]
        if colon:
            try:
                spec = spec.configured(configuration)
            except ValueError as error:
                raise ValueError(f"{self}: {error}") from None
        if reason := spec.why_not(problem, like):
            raise ValueError(f"{self}: kernel {kernel!r} can't run this: {reason} ({problem})")
        return spec

    def _fall_back(self, name: str, problem: Any, like: Array) -> KernelSpec:
        reasons = [f"{spec.name}: {spec.why_not(problem, like)}" for spec in self._by_backend[name]]
        why = "; ".join(reasons) or "it has no kernel for this op"
        if name != "reference":
            if backend.is_strict():
                raise RuntimeError(f"{self}: backend {name!r} can't run {problem} ({why}) and strict=True")
            for spec in self._by_backend["reference"]:
                if spec.why_not(problem, like) is None:
                    if (name, why) not in self._logged:
                        self._logged.add((name, why))
                        log.warning("%s: running on reference, backend %r can't (%s)", self, name, why)
                    return spec
        raise RuntimeError(f"{self}: no kernel can run {problem} ({why})")

    def __str__(self) -> str:
        return f"{self.op} {self.direction}"


def first_choice(specs: Iterable[KernelSpec], problem: Any, like: Array) -> KernelSpec | None:
    """The first that can run `problem` and does not yield; the first that can where all do; None where none can."""
    yielding: KernelSpec | None = None
    for spec in specs:
        if (spec.dtypes is None or backend.dtype_name(like.dtype) in spec.dtypes) and spec.supports(problem) is None:
            if spec.yields is None or spec.yields(problem, like) is None:
                return spec
            yielding = yielding or spec
    return yielding


def ready(spec: KernelSpec, like: Array) -> KernelSpec:
    """The kernel as it is run on data of `like`'s dtype."""
    return _widened(spec) if spec.widens and like.dtype.kind == "V" else spec


def _widened(spec: KernelSpec) -> KernelSpec:
    """The kernel with bfloat16 as float32 on the way in and back on the way out."""

    @functools.wraps(spec.run)
    def run(problem: Any, *arrays: Any) -> Any:
        wide: dict[int, tuple[Array, Array]] = {}  # the array given, and the same in float32

        def widened(given: Any) -> Any:
            if isinstance(given, (tuple, list)):
                return _rebuilt(given, [widened(each) for each in given])
            if getattr(given, "dtype", _NONE).kind != "V":
                return given
            return wide.setdefault(id(given), (given, given.astype(np.float32, order="K")))[1]

        result = spec.run(problem, *[widened(each) for each in arrays])
        if result is None:
            for given, computed in wide.values():
                if not isinstance(given, np.ndarray) or given.flags.writeable:
                    given[...] = computed
        return _narrowed(result, backend.bfloat16())

    return replace(spec, run=run)


_NONE = np.dtype(bool)


def _rebuilt(like: Any, items: list[Any]) -> Any:
    """A list, a tuple or a named tuple, as `like` is."""
    return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)


def _narrowed(result: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(result, (tuple, list)):
        return _rebuilt(result, [_narrowed(each, dtype) for each in result])
    return result.astype(dtype) if getattr(result, "dtype", _NONE) == np.float32 else result


def forget() -> None:
    """Has every table find out anew which of its kernels are expected to be the fastest."""
    for table in TABLES.values():
        table._chosen.clear()


Observer = Callable[[KernelTable, Any, "tuple[Any, ...]", "str | None", Array], Any]
"""(table, problem, arrays, kernel, like) -> what the call returns in the kernel's place."""

_observers: dict[int, Observer] = {}


@contextlib.contextmanager
def observe_calls(observer: Observer) -> Iterator[None]:
    """Inside, this thread's calls of any table go to `observer` instead of a kernel."""
    thread = threading.get_ident()
    outside = _observers.get(thread)
    _observers[thread] = observer
    try:
        yield
    finally:
        if outside is None:
            del _observers[thread]
        else:
            _observers[thread] = outside


@contextlib.contextmanager
def kernels_replaced(stand_in: Callable[[KernelTable, KernelSpec], Callable[..., Any]]) -> Iterator[None]:
    """Inside, in all threads, what `stand_in(table, spec)` returns runs in the place of each kernel.

    They are chosen as ever, at the cost that this has: for whoever times kernels one by one, or all but them.
    """
    before = {table: table._by_backend for table in TABLES.values()}
    try:
        for table, by_backend in before.items():
            table._by_backend = {
                name: [replace(spec, run=stand_in(table, spec)) for spec in specs] for name, specs in by_backend.items()
            }
        yield
    finally:
        for table, by_backend in before.items():
            table._by_backend = by_backend


TABLES: dict[tuple[str, str], KernelTable] = {}
"""Every table by (op, direction), for whoever lists or counts kernels."""
