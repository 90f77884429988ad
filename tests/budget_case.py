"""What a budget is measured on: a call by shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gpucnn.calls import Call, normals

DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Case:
    """A call by shapes, as `gpucnn profile` takes them.

    Attributes:
        op, arguments: the call.
        kernel: to be forced wherever an op has one of that name.
        sample: of how many blocks one is run and counted; above 1 nothing may depend on the results of the others.
        dtypes: of the tensors.
        backward: with the gradients.
        then: what to do instead of a call, given the dtype.
        aligned: whether arrays begin, and their channels end, at a multiple of 16 bytes. The limits are for such calls;
            of others, for which there are configurations of their own, the budget is what they do.
    """

    op: str
    arguments: dict[str, Any] = field(default_factory=dict)
    kernel: str | None = None
    sample: int = 1
    dtypes: tuple[str, ...] = DTYPES
    backward: bool = True
    then: Callable[[str], None] | None = None
    aligned: bool = True

    @property
    def name(self) -> str:
        words = [f"{name}={_short(value)}" for name, value in self.arguments.items()]
        return " ".join([self.op, *words, *([f"kernel={self.kernel}"] if self.kernel else [])])

    def run(self, dtype: str) -> None:
        if self.then is not None:
            self.then(dtype)
        else:
            Call.of(self.op, dtype=dtype, fill=normals, **self.arguments).run(self.backward)


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def conv(
    n: int, c: int, h: int, k: int, r: int, kernel: str, sample: int = 1, aligned: bool = True, **options: Any
) -> Case:
    """A convolution with a bias of square images, whose windows lie on all of them."""
    groups = options.get("groups", 1)
    arguments = {"input": (n, c, h, h), "weight": (k, c // groups, r, r), "bias": (k,), "padding": r // 2, **options}
    return Case("conv2d", arguments, kernel, sample, aligned=aligned)
