"""Dropout (Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014).

The mask is a function of the seed (`gpucnn.manual_seed`), of how many masks were drawn since, and of the place in it:
the same on every backend.
"""

from __future__ import annotations

from gpucnn import random
from gpucnn.functional.checks import floats_together
from gpucnn.ops import dropout as dropout_ops
from gpucnn.reference.dropout import DropoutProblem
from gpucnn.tensor import Tensor, record


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes each element with probability p and divides the others by 1 - p; the identity if not `training`.

    Any shape. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014. The mask is
    a function of the seed (`gpucnn.manual_seed`) and of how many masks were drawn since.

    Args:
        inplace: changes no result; taken for PyTorch's sake, nothing is done in place.

    Raises:
        ValueError: p is no probability.
        TypeError: input is no floating tensor.
    """
    _check("dropout", input, p)
    return _dropped(input, p, input.shape) if training else input


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """As dropout, for whole channels of (N,C,H,W): all of a channel is zeroed or nothing (Tompson et al., "Efficient
    object localization using convolutional networks", 2015).

    What has three axes is taken for (N,C,L), not for one image, as PyTorch takes it.

    Raises:
        ValueError: p is no probability; input without the axes N and C.
        TypeError: input is no floating tensor.
    """
    _check("dropout2d", input, p)
    if input.ndim < 2:
        raise ValueError(f"dropout2d: input must have shape (N, C, ...), got {input.shape}")
    return _dropped(input, p, input.shape[:2]) if training else input


def _check(op: str, input: Tensor, p: float) -> None:
    floats_together(op, input=input)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{op}: p must be a probability in [0, 1], got {p}")


def _dropped(input: Tensor, p: float, mask: tuple[int, ...]) -> Tensor:
    if p == 0.0:
        return input
    seed, call = random.next_call()
    problem = DropoutProblem(mask, float(p), seed, call)
    return record(dropout_ops.Dropout, (input,), {"problem": problem})  # type: ignore[no-any-return]
