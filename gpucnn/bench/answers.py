"""What a network's first step computed, and how far two contestants' first steps are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SKETCHED = 1 << 14
"""Elements at a time."""


@dataclass(frozen=True)
class Answer:
    """What the first step computed.

    Attributes:
        loss: in training, without dropout.
        gradients: in training, by parameter, what `sketch` makes of its gradient.
        outputs: in inference, (N, classes).
    """

    loss: float | None = None
    gradients: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    outputs: NDArray[np.float32] | None = None

    def is_finite(self) -> bool:
        """Whether all of it is."""
        arrays: list[NDArray[Any]] = [*self.gradients.values(), *([] if self.outputs is None else [self.outputs])]
        return math.isfinite(self.loss or 0.0) and all(bool(np.isfinite(array).all()) for array in arrays)

    def off(self, other: Answer) -> Off:
        """How far this is from the other."""
        if not (self.is_finite() and other.is_finite()) or self.gradients.keys() != other.gradients.keys():
            return Off(math.inf, math.inf, math.inf)
        if self.outputs is not None and other.outputs is not None:
            apart = np.abs(self.outputs.astype(np.float64) - other.outputs)
            return Off(float(apart.max() / max(float(np.abs(other.outputs).max()), 1e-30)))
        ours, theirs = self.loss or 0.0, other.loss or 0.0
        loss = abs(ours - theirs) / max(abs(theirs), 1e-30)
        return Off(loss, *_apart(self.gradients, other.gradients))


_ALLOWED = {
    "float64": (1e-8, 1e-6, 1e-6),
    "float32": (1e-4, 0.1, 0.1),
    "tf32": (1e-2, math.inf, 0.5),
    "float16": (1e-2, math.inf, 0.5),
    "bfloat16": (3e-2, math.inf, 0.5),
}
"""What of Off may differ between right answers. Where a ReLU or a window's maximum sits on an edge, rounding decides
where the gradient goes, and batch norms divide by what is left: in float32 two layouts of PyTorch have gradients of
ResNet-50 that are 0.02 apart (4 images of 64 x 64), in bfloat16 1.2, as unrelated ones are. Norms by parameter still
agree within a factor of 1.4 there."""


@dataclass(frozen=True)
class Off:
    """How far an answer is from another, relative; infinite where something is not finite, or not the same parameters
    have gradients.

    Attributes:
        result: of the loss, or of the outputs their largest difference over their largest element.
        gradients: the distance of all gradients as one vector; None in inference.
        norms: the largest difference of the norms of one parameter's gradients, over the larger, of those parameters
            that have a thousandth of the whole norm.
    """

    result: float
    gradients: float | None = None
    norms: float | None = None

    def is_allowed(self, numbers: str) -> bool:
        """Whether both can be right in such numbers: a dtype, or "tf32"."""
        found = (self.result, self.gradients, self.norms)
        return all(value is None or value <= most for value, most in zip(found, _ALLOWED[numbers], strict=True))


def sketch(gradient: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Eight sums of a gradient's elements, in the order of the parameter's axes, with random signs that depend on its
    name and size alone; and its norm last.

    The mean of the squares of how far two sketches' sums are apart is, in expectation, the square of the distance of
    the gradients (D. Achlioptas, "Database-friendly random projections: Johnson-Lindenstrauss with binary coins",
    2003): signs and places count, and eight numbers travel between processes in place of millions.
    """
    flat = np.ascontiguousarray(gradient).reshape(-1).astype(np.float64)
    rng = np.random.default_rng([*name.encode(), flat.size])
    sums = np.zeros(8)
    for begin in range(0, flat.size, _SKETCHED):
        part = flat[begin : begin + _SKETCHED]
        coins = np.unpackbits(rng.integers(0, 256, part.size, np.uint8)).reshape(-1, 8)
        sums += part @ (2.0 * coins - 1.0)
    return np.array([*sums, np.linalg.norm(flat)])


def _apart(found: dict[str, NDArray[np.float64]], expected: dict[str, NDArray[np.float64]]) -> tuple[float, float]:
    """(distance, difference of norms), as Off has them."""
    square = sum(float(((found[name] - expected[name])[:-1] ** 2).mean()) for name in expected)
    norms = {name: (float(found[name][-1]), float(each[-1])) for name, each in expected.items()}
    whole = math.sqrt(sum(theirs**2 for _, theirs in norms.values()))
    if not whole:
        return (math.inf, math.inf) if square else (0.0, 0.0)
    differences = [abs(a - b) / max(a, b) for a, b in norms.values() if max(a, b) >= 1e-3 * whole]
    return math.sqrt(square) / whole, max(differences, default=0.0)
