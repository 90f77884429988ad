"""Update rules over many parameters at once, and the scale of a loss: not differentiable, so tables alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from gpucnn import flags
from gpucnn.backend import Array, accumulator, device_of, dtype_name, empty
from gpucnn.ops import compiled
from gpucnn.ops.memory import contiguous, memory_axes
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import optim as reference
from gpucnn.reference.optim import AdamProblem, ScaleProblem, SGDProblem

__all__ = ["AdamProblem", "Guard", "SGDProblem", "ScaleProblem", "adam", "next_scale", "sgd", "step", "unscale"]

MOST_FOUND = 64
"""Optimisers of which `next_scale` takes what was found: csrc/optim's kMostFound."""


class Guard(NamedTuple):
    """What a step of an optimiser depends on beside the device flag."""

    loss_scale: Array | None = None
    """float32 (1,), what the gradients are to be divided by."""
    found: Array | None = None
    """int32 (1,), of `unscale`: nothing is changed unless it is 0."""


class _Flat:
    """Lists of arrays, each as a kernel takes it: those of one parameter in its order of memory, without gaps."""

    def __init__(self, *lists: Sequence[Array]) -> None:
        self.lists: list[list[Array]] = [[] for _ in lists]
        self._copies: list[tuple[int, Array, Array]] = []
        for arrays in zip(*lists, strict=True):
            order = memory_axes(arrays[0])
            for role, array in enumerate(arrays):
                view = array.transpose(order)
                laid_out = contiguous(view)
                self.lists[role].append(laid_out)
                if laid_out is not view:
                    self._copies.append((role, view, laid_out))

    def write_back(self, unchanged: int | None = None) -> None:
        """Into what was copied, a slice, say; but for the list number `unchanged`."""
        for role, view, laid_out in self._copies:
            if role != unchanged:
                view[...] = laid_out


def _table(op: str, array_code: Callable[..., None]) -> KernelTable:
    def run(
        module: Any,
        p: Any,
        stream: int,
        params: Sequence[Array],
        grads: Sequence[Array],
        guard: Guard,
        *states: Sequence[Array],
    ) -> None:
        flat = _Flat(params, grads, *states)
        flat_params, flat_grads, *flat_states = flat.lists
        flag = flags.flag_if_any(params[0])
        getattr(module, f"{op}_step")(
            *(dtype_name(params[0].dtype), p, flat_params, flat_grads, tuple(flat_states), flag, p.last, stream),
            *(guard.loss_scale, guard.found),
        )
        flat.write_back(unchanged=1)

    def run_array_code(
        p: Any, params: Sequence[Array], grads: Sequence[Array], guard: Guard, *states: Sequence[Array]
    ) -> None:
        if guard.loss_scale is not None:
            inverse = (1 / guard.loss_scale).reshape(())
            grads = [grad.astype(accumulator(grad.dtype), copy=False) * inverse for grad in grads]
        array_code(p, params, grads, *states)

    table = KernelTable(op, "step")
    compiled.add(table, "multi_tensor", run, dtypes=compiled.FLOATS)
    table.add("array", "reference", run_array_code, widens=False)  # it computes 16-bit numbers in float32 by itself
    return table


sgd = _table("sgd", reference.sgd)
adam = _table("adam", reference.adam)


def step(table: KernelTable, updates: Iterable[tuple[Any, tuple[Array, ...]]], guard: Guard) -> None:
    """One step: `updates` are (problem, (param, grad, state...)) of each parameter, all changed in place.

    Parameters that share a problem are given to a kernel together. Nothing is changed while the device flag
    (gpucnn.flags) is raised, or if `guard.found` is not 0.
    """
    batches: dict[tuple[Any, ...], list[tuple[Array, ...]]] = {}
    for problem, arrays in updates:
        batches.setdefault((problem, arrays[0].dtype, device_of(arrays[0])), []).append(arrays)
    last = {device: number for number, (_, _, device) in enumerate(batches)}
    for number, ((problem, _, device), batch) in enumerate(batches.items()):
        p, like = problem._replace(last=number == last[device]), batch[0][0]
        if compiled.runs(table, p, like) or not _skipped(like, p.last, guard):
            params, grads, *states = map(list, zip(*batch, strict=True))
            table(p, params, grads, guard, *states, like=like)


def _skipped(like: Array, last: bool, guard: Guard) -> bool:
    """Of array code: whether nothing is to be changed; the step is counted there too. On a GPU this waits."""
    raised = flags.is_raised(like)
    flag = flags.flag_if_any(like)
    if last and flag is not None:
        flag[1] += 1
    return raised or (guard.found is not None and int(guard.found[0]) != 0)


# ------------------------------------------------------------------------------------------- the scale of a loss


def _unscale(module: Any, divides: bool, stream: int, grads: Sequence[Array], loss_scale: Array, found: Array) -> None:
    flat = _Flat(grads)
    module.unscale(dtype_name(grads[0].dtype), divides, flat.lists[0], loss_scale, found, stream)
    if divides:
        flat.write_back()


def _next_scale(
    module: Any, p: ScaleProblem, stream: int, scale: Array, clean: Array, found: Sequence[Array]
) -> tuple[Array, Array]:
    results = empty((1,), scale.dtype, scale), empty((1,), clean.dtype, clean)
    module.next_scale(p, scale, clean, list(found), *results, stream)
    return results


unscale = KernelTable("unscale", "step")
compiled.add(unscale, "multi_tensor", _unscale, dtypes=compiled.FLOATS)
unscale.add("array", "reference", reference.unscale, widens=False)

next_scale = KernelTable("next_scale", "step")
compiled.add(next_scale, "one_thread", _next_scale)
next_scale.add("array", "reference", reference.next_scale)
