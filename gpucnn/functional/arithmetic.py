"""The methods of a Tensor as functions: gpucnn.clamp(x, 0, 1) is x.clamp(0, 1)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from gpucnn.functional.checks import a_tensor
from gpucnn.operators.arithmetic import choose
from gpucnn.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def _function(method: Callable[Concatenate[Tensor, P], R]) -> Callable[Concatenate[Tensor, P], R]:
    """`method` with its signature and documentation, which refuses what is no tensor."""
    name = method.__name__.strip("_")

    @functools.wraps(method)
    def run(input: Tensor, *arguments: P.args, **options: P.kwargs) -> R:
        return method(a_tensor(input, "input", name), *arguments, **options)

    run.__name__ = run.__qualname__ = name
    run.__module__ = __name__
    return run  # type: ignore[return-value]


abs = _function(Tensor.__abs__)
clamp = _function(Tensor.clamp)
exp = _function(Tensor.exp)
log = _function(Tensor.log)
masked_fill = _function(Tensor.masked_fill)
matmul = _function(Tensor.matmul)
maximum = _function(Tensor.maximum)
minimum = _function(Tensor.minimum)
pow = _function(Tensor.pow)
sign = _function(Tensor.sign)
sqrt = _function(Tensor.sqrt)
square = _function(Tensor.square)

all = _function(Tensor.all)
amax = _function(Tensor.amax)
amin = _function(Tensor.amin)
any = _function(Tensor.any)
argmax = _function(Tensor.argmax)
argmin = _function(Tensor.argmin)
argsort = _function(Tensor.argsort)
cumsum = _function(Tensor.cumsum)
logsumexp = _function(Tensor.logsumexp)
max = _function(Tensor.max)
mean = _function(Tensor.mean)
min = _function(Tensor.min)
norm = _function(Tensor.norm)
prod = _function(Tensor.prod)
sort = _function(Tensor.sort)
std = _function(Tensor.std)
sum = _function(Tensor.sum)
topk = _function(Tensor.topk)
var = _function(Tensor.var)

broadcast_to = _function(Tensor.broadcast_to)
chunk = _function(Tensor.chunk)
flip = _function(Tensor.flip)
movedim = _function(Tensor.movedim)
narrow = _function(Tensor.narrow)
permute = _function(Tensor.permute)
reshape = _function(Tensor.reshape)
roll = _function(Tensor.roll)
split = _function(Tensor.split)
squeeze = _function(Tensor.squeeze)
transpose = _function(Tensor.transpose)
unbind = _function(Tensor.unbind)
unsqueeze = _function(Tensor.unsqueeze)


def where(condition: Tensor, input: Any, other: Any) -> Tensor:
    """Elements of `input` where `condition` (bool) is true, else of `other`: tensors or numbers; all broadcast.

    Raises:
        TypeError: a condition that is no tensor of bools, operands that are neither tensors nor numbers nor arrays.
        ValueError: shapes that do not broadcast, different devices.
    """
    return choose("where", a_tensor(condition, "condition", "where"), input, other)  # type: ignore[no-any-return]
