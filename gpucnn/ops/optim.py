"""Update rules over many parameters at once: not differentiable, so tables alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpucnn import flags
from gpucnn.backend import Array, device_of
from gpucnn.ops import compiled
from gpucnn.ops.memory import contiguous, memory_axes
from gpucnn.ops.registry import KernelTable
from gpucnn.reference import optim as reference
from gpucnn.reference.optim import AdamProblem, SGDProblem

__all__ = ["AdamProblem", "SGDProblem", "adam", "sgd", "step"]


def _table(op: str, array_code: Callable[..., None]) -> KernelTable:
    def run(
        module: Any, p: Any, stream: int, params: Sequence[Array], grads: Sequence[Array], *states: Sequence[Array]
    ) -> None:
        flat: list[list[Array]] = [[] for _ in range(2 + len(states))]
        copies: list[tuple[Array, Array]] = []
        for arrays in zip(params, grads, *states, strict=True):
            order = memory_axes(arrays[0])
            for role, array in enumerate(arrays):
                view = array.transpose(order)
                laid_out = contiguous(view)
                flat[role].append(laid_out)
                if laid_out is not view and role != 1:
                    copies.append((view, laid_out))  # a slice, say, is written back
        update = getattr(module, f"{op}_step")
        flag = flags.flag_if_any(params[0])
        update(params[0].dtype.name, p, flat[0], flat[1], tuple(flat[2:]), flag, p.last, stream)
        for view, laid_out in copies:
            view[...] = laid_out

    table = KernelTable(op, "step")
    compiled.add(table, "multi_tensor", run, dtypes=compiled.FLOATS)
    table.add("array", "reference", array_code, widens=False)  # it computes 16-bit numbers in float32 by itself
    return table


sgd = _table("sgd", reference.sgd)
adam = _table("adam", reference.adam)


def step(table: KernelTable, updates: Iterable[tuple[Any, tuple[Array, ...]]]) -> None:
    """One step: `updates` are (problem, (param, grad, state...)) of each parameter, all changed in place.

    Parameters that share a problem are given to a kernel together. Nothing is changed while the device flag
    (gpucnn.flags) is raised.
    """
    batches: dict[tuple[Any, ...], list[tuple[Array, ...]]] = {}
    for problem, arrays in updates:
        batches.setdefault((problem, arrays[0].dtype, device_of(arrays[0])), []).append(arrays)
    last = {device: number for number, (_, _, device) in enumerate(batches)}
    for number, ((problem, _, device), batch) in enumerate(batches.items()):
        p, like = problem._replace(last=number == last[device]), batch[0][0]
        if compiled.runs(table, p, like) or not _skipped(like, p.last):
            table(p, *map(list, zip(*batch, strict=True)), like=like)


def _skipped(like: Array, last: bool) -> bool:
    """Of array code: whether the flag is raised; the step is counted there too."""
    raised = flags.is_raised(like)
    flag = flags.flag_if_any(like)
    if last and flag is not None:
        flag[1] += 1
    return raised
