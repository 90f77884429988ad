"""Which kernel runs each pass of a call, why, and why each other does not: `gpucnn.explain`.

The call is made as ever, on memory that nobody fills; where it asks a table for a kernel, the question is noted and the
kernel only allocates what it would return. So there is no rule for any op here, and no GPU is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpucnn import backend as backends
from gpucnn.calls import Call
from gpucnn.ops.compiled import Kernel, allocated
from gpucnn.ops.registry import KernelSpec, KernelTable, first_choice, observe_calls


@dataclass(frozen=True)
class Candidate:
    """One kernel of a backend that a pass could run on."""

    kernel: str
    runs: bool
    """Whether it is the one that is chosen."""
    can: bool
    why: str
    """Why it runs, or why it does not."""
    configuration: str | None = None
    """Of the one that is chosen: the tile and the parts of its sums. None where a kernel has no such choice, and where
    there is no compiled module to ask."""


@dataclass(frozen=True)
class Pass:
    """One question to a table: who runs this problem?"""

    op: str
    direction: str
    dtype: str
    problem: str
    candidates: dict[str, tuple[Candidate, ...]]
    """For each backend its kernels, in order of preference."""
    instead: dict[str, str]
    """For a backend of whose kernels none can: what happens."""
    times: int = 1
    """How often the call asks just this."""

    def chosen(self, backend: str) -> str | None:
        """The name of the backend's kernel that runs; None where none of them can."""
        return next((candidate.kernel for candidate in self.candidates[backend] if candidate.runs), None)


@dataclass(frozen=True)
class Explanation:
    """What `explain` found. Its str() is the text."""

    call: str
    passes: tuple[Pass, ...]
    notes: tuple[str, ...]
    """Of backends that can't be used here: why, and what to do."""

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [self.call]
        for each in self.passes:
            times = f", {each.times} times" if each.times > 1 else ""
            lines += ["", f"{each.op} {each.direction} ({each.dtype}{times})  {each.problem}"]
            width = max((len(c.kernel) for found in each.candidates.values() for c in found), default=0)
            for names, found in _together(each.candidates):
                lines.append(f"  {', '.join(names)}")
                for c in found:
                    configuration = f"; {c.configuration}" if c.configuration else ""
                    lines.append(f"    {'>' if c.runs else ' '} {c.kernel:<{width}}  {c.why}{configuration}")
                if instead := each.instead.get(names[0]):
                    lines.append(f"      {instead}")
        if not self.passes:
            lines += ["", "it asks no table of kernels"]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])


def _together(candidates: dict[str, tuple[Candidate, ...]]) -> list[tuple[list[str], tuple[Candidate, ...]]]:
    """Backends with the same kernels and the same answers, once."""
    found: list[tuple[list[str], tuple[Candidate, ...]]] = []
    for name, own in candidates.items():
        for names, others in found:
            if own == others and own:
                names.append(name)
                break
        else:
            found.append(([name], own))
    return found


def explain(
    op: str | Callable[..., Any],
    *inputs: Any,
    dtype: Any = "float32",
    backend: str | None = None,
    backward: bool = True,
    **parameters: Any,
) -> Explanation:
    """Prints which kernel would run each pass of a call, why, and why each other would not.

        gpucnn.explain("conv2d", input=(32, 64, 56, 56), weight=(64, 64, 3, 3), padding=1, backend="cuda")
        gpucnn.explain(model, (32, 3, 224, 224))
        gpucnn.explain(optim.SGD, (64, 64, 3, 3), lr=0.1, momentum=0.9)

    Args:
        op: the name of a function of `gpucnn.functional` or `gpucnn` or of a tensor's method, or "add" and its like; or
            what is called itself: a function, a module, a class of optimisers.
        inputs, parameters: what it is called with. Where it takes a tensor a shape will do; labels, indices and
            conditions get the dtype that they need.
        dtype: of the tensors that are given as shapes.
        backend: the one to ask about; None: all of them. It need not be usable on this machine.
        backward: also the gradients of all floating tensors that are given as shapes.

    Returns:
        The same as data.

    Raises:
        ValueError: no such op or backend, or what the call itself refuses.
        TypeError: as the call.
    """
    found = explain_quietly(op, *inputs, dtype=dtype, backend=backend, backward=backward, **parameters)
    print(found)
    return found


def explain_quietly(
    op: str | Callable[..., Any],
    *inputs: Any,
    dtype: Any = "float32",
    backend: str | None = None,
    backward: bool = True,
    **parameters: Any,
) -> Explanation:
    """As `explain`, without printing."""
    asked = backends.BACKENDS if backend is None else (backend,)
    unusable = {name: backends.unavailable(name) for name in asked}  # also says that there is no such backend
    call = Call.of(op, *inputs, dtype=dtype, **parameters)
    seen = _Questions(asked)
    with backends.use_backend("reference"), observe_calls(seen):
        call.run(backward)
    notes = tuple(f"{name} can't be used here: {why}" for name, why in unusable.items() if why)
    return Explanation(call.words, seen.passes(), notes)


class _Questions:
    """What the tables were asked, and answers that only have the right shapes."""

    def __init__(self, asked: Sequence[str]) -> None:
        self._asked = asked
        self._found: dict[tuple[Any, ...], tuple[Pass, int]] = {}

    def passes(self) -> tuple[Pass, ...]:
        return tuple([Pass(**{**vars(found), "times": times}) for found, times in self._found.values()])

    def __call__(
        self, table: KernelTable, problem: Any, arrays: tuple[Any, ...], kernel: str | None, like: backends.Array
    ) -> Any:
        key = (table.op, table.direction, like.dtype.name, str(problem), kernel)
        found, times = self._found.get(key) or (self._answer(table, problem, kernel, like), 0)
        self._found[key] = found, times + 1
        return allocated(table, problem, arrays, like)

    def _answer(self, table: KernelTable, problem: Any, kernel: str | None, like: backends.Array) -> Pass:
        candidates = {name: _candidates(table, name, problem, kernel, like) for name in self._asked}
        reference = _candidates(table, "reference", problem, None, like)
        in_its_place = next((candidate.kernel for candidate in reference if candidate.runs), None)
        instead = {
            name: _instead(name, kernel, in_its_place)
            for name, found in candidates.items()
            if not any(candidate.runs for candidate in found)
        }
        words = _text(problem)
        return Pass(table.op, table.direction, like.dtype.name, words, candidates, instead)


def _text(problem: Any) -> str:
    return "" if problem is None else str(problem)


def _instead(name: str, kernel: str | None, in_its_place: str | None) -> str:
    if kernel is not None:
        return f"kernel={kernel!r} raises"
    if name == "reference" or in_its_place is None:
        return "none can: the call raises"
    return f"none can: reference's {in_its_place} runs instead; under strict=True the call raises"


def _candidates(
    table: KernelTable, backend: str, problem: Any, kernel: str | None, like: backends.Array
) -> tuple[Candidate, ...]:
    specs = table.specs(backend)
    plain = getattr(problem, "plain", problem) if kernel is None else problem
    reasons = [_why_not(spec, plain, kernel, like) for spec in specs]
    able = [spec for spec, reason in zip(specs, reasons, strict=True) if reason is None]
    chosen, measured = None, False
    if kernel is None:
        chosen = first_choice(able, plain, like)
        if tuned := table.measured(backend, plain, like):
            name, colon, _ = tuned.name.partition(":")
            chosen, measured = next(spec for spec in able if spec.name == name), True
            if colon:
                specs = tuple([tuned if spec is chosen else spec for spec in specs])
                able = [tuned if spec is chosen else spec for spec in able]
                chosen = tuned
    found: list[Candidate] = []
    for spec, reason in zip(specs, reasons, strict=True):
        if reason is not None:
            found.append(Candidate(spec.name, False, False, f"can't: {reason}"))
        elif kernel is not None:
            runs = spec.name == kernel.partition(":")[0]
            why = "runs: asked for" if runs else "can, and is not asked for"
            words = _configuration(_asked(spec, kernel), problem, like) if runs else None
            found.append(Candidate(spec.name, runs, True, why, words))
        elif spec is chosen:
            why = "runs: the first that can" if spec is able[0] else "runs: expected to be the fastest"
            why = why if len(specs) > 1 else "runs"
            why = "runs: measured to be the fastest" if measured else why
            beside = None if plain is problem else spec.why_not(problem, like)
            why += f"; another pass does the rest, for it {beside}" if beside else ""
            found.append(Candidate(spec.name, True, True, why, _configuration(spec, problem, like)))
        else:
            found.append(Candidate(spec.name, False, True, _why_later(spec, able, chosen, measured, plain, like)))
    return tuple(found)


def _why_not(spec: KernelSpec, problem: Any, kernel: str | None, like: backends.Array) -> str | None:
    try:
        if kernel is not None and kernel.partition(":")[0] == spec.name:
            spec = _asked(spec, kernel)
        return spec.why_not(problem, like)
    except ValueError as error:  # it has no such configuration
        return str(error)
    except RuntimeError as error:  # it asks the compiled module, which is not there
        return f"nobody can tell here: {error}"


def _why_later(
    spec: KernelSpec,
    able: Sequence[KernelSpec],
    chosen: KernelSpec | None,
    measured: bool,
    problem: Any,
    like: backends.Array,
) -> str:
    """Why a kernel that can run does not, where `chosen` does."""
    if chosen is None:
        return "can"
    if measured:
        return f"can, but {chosen.name} was measured to be the fastest"
    slower = spec.why_later(problem, like) if able.index(spec) < able.index(chosen) else None
    return f"can, but slower: {slower}" if slower else f"can, but {chosen.name} is preferred"


def _asked(spec: KernelSpec, kernel: str) -> KernelSpec:
    """The kernel in the configuration that is asked for."""
    configuration = kernel.partition(":")[2]
    return spec.configured(configuration) if configuration else spec


def _configuration(spec: KernelSpec, problem: Any, like: backends.Array) -> str | None:
    return spec.run.configuration(problem, like.dtype.name) if isinstance(spec.run, Kernel) else None
