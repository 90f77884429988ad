"""What kernels do for a call, counted where they can't be run, in about a second each.

A model of a GPU takes hours for what a GPU does in milliseconds. So of each launch some blocks are run and counted, no
others; and where a block alone has too much to do, as one has that goes over a share of all images, it is counted for
fewer images and what grows with them is multiplied. All on memory that nobody fills.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

from gpucnn import backend as backends
from gpucnn import calls, creation, extension
from gpucnn.autograd import enable_grad
from gpucnn.backend import Array
from gpucnn.calls import Call
from gpucnn.nn import Module
from gpucnn.ops.compiled import Kernel, allocated
from gpucnn.ops.registry import KernelSpec, KernelTable, observe_calls
from gpucnn.profile import Access, Launch, Run, capture
from gpucnn.profile.launches import FLAVOUR
from gpucnn.profile.needed import needed_bytes, needed_products
from gpucnn.profile.source import TOOLS, Line, lacking
from gpucnn.tensor import Tensor

BLOCKS = 5
"""Of a launch that are counted, at least one."""
STEPS = 300_000
"""Basic blocks that warps enter while one kernel is counted, as far as there is a choice: a third of a second."""

ALL = "all blocks"
"""How much was counted where that is everything."""
_PRODUCTS, _BYTES = 200_000_000, 64 << 20
"""What a kernel may have to compute and to move that is counted without a look at fewer images first."""
_FIRST = 2**31 - 1
"""As every how many-th block is counted: of no launch more than the first."""
_OF_IMAGES = {"input", "self", "target", "other", "indices", "index", "mask", "condition", "residual", "tensors"}
"""Names of arguments whose first axis may count images, as that of weights and statistics never does."""


def why_not() -> str | None:
    """Why nothing can be counted here, and what to do; None where it can."""
    return extension.why_missing(f"_simt_{FLAVOUR}") or lacking(*TOOLS)


@dataclass
class Question:
    """What a call asked a table, and an answer of the right shapes. `moment`: "fwd", or "bwd" on the walk back."""

    table: KernelTable
    problem: Any
    arrays: tuple[Any, ...]
    like: Array
    result: Any
    moment: str
    times: int = 1

    @property
    def bytes(self) -> int:
        """That any kernel reads and writes for it."""
        return needed_bytes(self.arrays, self.result)

    @property
    def products(self) -> int:
        """That any kernel computes for it."""
        return needed_products(self.table.op, self.table.direction, self.problem, self.arrays, self.result)


def questions(call: Call, backward: bool = True) -> list[Question]:
    """What the call asks, each once, in order; with `backward` also on the way back from its results."""
    found: dict[tuple[Any, ...], Question] = {}
    moment = "fwd"

    def ask(table: KernelTable, problem: Any, arrays: tuple[Any, ...], kernel: str | None, like: Array) -> Any:
        sizes = [getattr(array, "shape", None) for array in arrays]
        key = (table.op, table.direction, moment, like.dtype.name, str(problem), str(sizes))
        result = allocated(table, problem, arrays, like)
        if key in found:
            found[key].times += 1
        else:
            found[key] = Question(table, problem, arrays, like, result, moment)
        return result

    arguments, options = [_leaf(each) for each in call.arguments], {k: _leaf(v) for k, v in call.options.items()}
    if isinstance(call.function, Module):
        call.function.zero_grad()  # or a second walk would add to what the first has left
    backend = "simt" if backends.unavailable("simt") is None else "reference"
    with backends.use_backend(backend), observe_calls(ask), enable_grad():
        results = call.function(*arguments, **options)
        moment = "bwd"
        for result in (results if isinstance(results, tuple) else (results,)) if backward else ():
            if isinstance(result, Tensor) and result.requires_grad:
                result.backward(creation.zeros_like(result), retain_graph=True)
    return list(found.values())


class _Leaf(Tensor):
    """A tensor that keeps no gradient: to own one that several share is to copy it."""

    def accumulate(self, gradient: Array, given_out: dict[int, Array]) -> None:
        pass


def _leaf(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)([_leaf(each) for each in value]) if type(value) in (list, tuple) else value
    return _Leaf(value.data, value.requires_grad) if type(value) is Tensor and value.is_leaf else value


@dataclass(frozen=True)
class Counted:
    """A kernel's run, its counts scaled to all blocks and all images. `images`: (how many were counted, of how many)
    where these were fewer."""

    run: Run
    images: tuple[int, int] | None = None

    @property
    def is_exact(self) -> bool:
        """Whether every block was counted."""
        return self.images is None and all(launch.sampled_blocks == launch.blocks for launch in self.run.launches)

    @property
    def words(self) -> str:
        """How much was counted."""
        done, all_of_them = (sum(getattr(each, name) for each in self.run.launches) for name in _COUNTED)
        if self.images:
            return f"{self.images[0]} of {self.images[1]:,} images, {done:,} blocks"
        return ALL if self.is_exact else f"{done:,} of {all_of_them:,} blocks"


_COUNTED = ("sampled_blocks", "blocks")


class Counter:
    """Counts the kernels that can answer the questions of one call."""

    def __init__(self, call: Call, backward: bool = True) -> None:
        self.questions = questions(call, backward)
        self._call = call
        self._backward = backward
        self._images = _images(call)
        self._of_fewer: dict[int, list[Question] | None] = {}

    def count(self, number: int, spec: KernelSpec, blocks: int = BLOCKS) -> Counted:
        """What `spec`, of whichever backend, does for the question of this number.

        Raises:
            RuntimeError: `why_not()`.
            MemoryError: there is no room for what it returns.
        """
        question = self.questions[number]
        share = max(question.products / _PRODUCTS, question.bytes / _BYTES)
        if share > 1 and self._images > 2:
            some = 2
            while 2 * some * share <= self._images:
                some *= 2
            pair = [self._asked_of(images, number) for images in (some // 2, some)]
            if pair[0] is not None and pair[1] is not None:
                found = self._of_few(pair[0], pair[1], some, _pinned(spec, question), blocks)
                if found is not None:
                    whole = replace(found.run, bytes=question.bytes, products=question.products)
                    return replace(found, run=replace(whole, problem=str(question.problem), kernel=spec.name))
        return Counted(_counted(question, spec.name, blocks))

    def _of_few(self, few: Question, some: Question, images: int, kernel: str, blocks: int) -> Counted | None:
        """What is counted for a few images, scaled; None where all of them are as well counted."""
        times, run = self._images / images, _run(some, kernel, _FIRST)
        if times * _steps(run) <= 2 * STEPS:  # even if a block has as many times as much to do
            return None
        half = _run(few, kernel, _FIRST)
        if [each.kernel for each in half.launches] != [each.kernel for each in run.launches]:
            return None
        pairs = list(zip(run.launches, half.launches, strict=True))
        if sum(a.steps * (times if a.steps > 1.25 * b.steps else 1) for a, b in pairs) <= 2 * STEPS:
            return None
        if (sample := _sample(run, blocks)) != _FIRST:
            run, half = _run(some, kernel, sample), _run(few, kernel, sample)
        launches = [grown(a, b, times) for a, b in zip(run.launches, half.launches, strict=True)]
        return Counted(replace(run, launches=tuple(launches)), (images, self._images))

    def _asked_of(self, images: int, number: int) -> Question | None:
        """The same question of fewer images; None where there is none that is known to be."""
        if images not in self._of_fewer:
            self._of_fewer[images] = self._ask_of(images)
        found = self._of_fewer[images]
        return None if found is None else found[number]

    def _ask_of(self, images: int) -> list[Question] | None:
        fewer = of_images(self._call, images)
        if fewer is None:
            return None
        try:
            found = questions(fewer, self._backward)
        except ValueError:  # sizes of other axes were the same number
            return None
        alike = [(each.table, each.moment, each.times) for each in found] == [
            (each.table, each.moment, each.times) for each in self.questions
        ]
        return found if alike else None


def _counted(question: Question, kernel: str, blocks: int) -> Run:
    """The first block of each launch and, as far as STEPS go, others: all, or so many, from all over the grid."""
    first = _run(question, kernel, _FIRST)
    sample = _sample(first, blocks)
    return first if sample == _FIRST else _run(question, kernel, sample)


def _sample(first: Run, blocks: int) -> int:
    """As every how many-th block is to be counted, given the first of each launch."""
    if sum(launch.steps * launch.scale for launch in first.launches) <= STEPS:
        return 1
    several = min(blocks, STEPS // max(_steps(first), 1))
    return _FIRST if several < 2 else stride(max(launch.blocks for launch in first.launches), several)


def _steps(run: Run) -> int:
    return sum(launch.steps for launch in run.launches)


def stride(blocks: int, several: int) -> int:
    """As every how many-th of `blocks` that many are counted: a number that shares no divisor with the grid's, so that
    they lie in all its rows and columns."""
    found = max(blocks // several, 1)
    while gcd(found, blocks) > 1:
        found += 1
    return found


def _run(question: Question, kernel: str, sample: int) -> Run:
    with capture(sample, only_sampled=True) as runs:
        question.table(question.problem, *question.arrays, kernel=kernel, like=question.like)
    return runs[-1]  # before it, copies of what does not lie as it must


def _pinned(spec: KernelSpec, question: Question) -> str:
    """The kernel in the configuration in which it runs this, so that fewer images get the same."""
    if not isinstance(spec.run, Kernel):
        return spec.name
    words = spec.run.configuration(question.problem, question.like.dtype.name) or ""
    tile = re.match(r"tile (\w+)", words)
    if tile is None or tile[1] not in spec.configurations():
        return spec.name
    configured = spec.configured(tile[1])
    return configured.name if configured.why_not(question.problem, question.like) is None else spec.name


def _images(call: Call) -> int:
    """Of its first tensor that has some; 0 where there is none."""
    for name, value in _by_name(call):
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if name in _OF_IMAGES and isinstance(each, Tensor) and each.ndim > 1:
                return int(each.shape[0])
    return 0


def of_images(call: Call, images: int) -> Call | None:
    """The call with fewer images; None where it is not told by the names of its arguments what these are in."""
    count = _images(call)
    if count <= images:
        return None

    def cut(name: str, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and any(isinstance(each, Tensor) for each in value):
            return [cut(name, each) for each in value]
        if name in _OF_IMAGES and isinstance(value, Tensor) and value.ndim and value.shape[0] == count:
            fewer = calls.zeros((images, *value.shape[1:]), value.dtype)
            return fewer.requires_grad_() if value.requires_grad else fewer
        return value

    options = {name: cut(name, value) for name, value in _by_name(call)}
    return Call(call.words, call.function, (), options)


def _by_name(call: Call) -> Sequence[tuple[str, Any]]:
    """Arguments and options; nothing where some have no name to be called by."""
    try:
        signature = inspect.signature(call.function)
        bound = signature.bind(*call.arguments, **call.options)
    except (TypeError, ValueError):
        return ()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if any(signature.parameters[name].kind not in named for name in bound.arguments):
        return ()
    return list(bound.arguments.items())


def grown(launch: Launch, of_half: Launch, times: float) -> Launch:
    """A launch as it is for so many times as many images, given the same for half of them: with more blocks, with
    blocks that do more, or, where it did not do more for twice as many, as it is."""
    more = launch.steps * launch.scale / max(of_half.steps * of_half.scale, 1)
    if more < 1.4:
        return launch
    if launch.blocks / of_half.blocks >= _steps_of_block(launch) / max(_steps_of_block(of_half), 1):
        return replace(launch, blocks=round(launch.blocks * times))
    as_many = (launch.blocks, launch.sampled_blocks) == (of_half.blocks, of_half.sampled_blocks)

    def at(value: int, half: int) -> int:
        """With as many blocks: what each does once, such as storing its sums, does not grow."""
        return round(value + (value - half) * 2 * (times - 1)) if as_many and half else round(value * times)

    def access_at(access: Access) -> Access:
        half = halves.get(_key(access))
        grown: dict[str, Any] = {name: at(getattr(access, name), getattr(half, name, 0)) for name in _OF_ACCESSES}
        return replace(access, **grown)

    halves = {_key(access): access for access in of_half.accesses}
    counts: dict[str, Any] = {name: at(getattr(launch, name), getattr(of_half, name)) for name in _OF_BLOCKS}
    return replace(
        launch,
        accesses=tuple([access_at(access) for access in launch.accesses]),
        fma={line: at(count, of_half.fma.get(line, 0)) for line, count in launch.fma.items()},
        operations={each: at(count, of_half.operations.get(each, 0)) for each, count in launch.operations.items()},
        **counts,
    )


def _key(access: Access) -> tuple[Line, str, int]:
    return access.line, access.purpose, access.bytes


_OF_BLOCKS = (
    *("barriers", "sectors_read", "sectors_written", "least_l2_sectors", "global_wavefronts", "steps"),
    *("longest_warp_steps", "longest_block_steps"),
)
_OF_ACCESSES = (
    *("requests", "lanes", "sectors", "ideal_sectors", "lines", "unique_bytes"),
    *("shared_requests", "shared_lanes", "wavefronts", "ideal_wavefronts"),
)


def _steps_of_block(launch: Launch) -> float:
    return launch.steps / max(launch.sampled_blocks, 1)
