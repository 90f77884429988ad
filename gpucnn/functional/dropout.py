"""Dropout (Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014)."""

from __future__ import annotations

from gpucnn import random
from gpucnn.functional.checks import floats_together
from gpucnn.ops import dropout as dropout_ops
from gpucnn.reference.dropout import DropoutProblem
from gpucnn.tensor import Tensor, record


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zeroes each element with probability p and divides the others by 1 - p; the identity if not `training`.

    The mask is a function of the seed (`gpucnn.manual_seed`), of how many masks were drawn since, and of the element's
    place in (N,C,H,W) order: the same on every backend.
    """
    floats_together("dropout", input=input)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p must be a probability in [0, 1], got {p}")
    if not training or p == 0.0:
        return input
    seed, call = random.next_call()
    problem = DropoutProblem(input.shape, float(p), seed, call)
    return record(dropout_ops.Dropout, (input,), {"problem": problem})  # type: ignore[no-any-return]
