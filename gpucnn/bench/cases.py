"""What is measured: a call of a public function, described by shapes, and one of its passes.

A pass is what a user's call needs done: "fwd" the call itself; of convolutions and linear layers "dgrad", the gradient
by the input, and "wgrad", those by all else; of other functions "bwd", all gradients.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpucnn import backend, creation
from gpucnn.autograd import enable_grad, no_grad
from gpucnn.bench.updates import UPDATES
from gpucnn.calls import Call
from gpucnn.random import manual_seed
from gpucnn.tensor import Tensor
from gpucnn.testing import tolerance

PASSES = ("fwd", "dgrad", "wgrad", "bwd")

PRODUCTS = ("conv2d", "conv2d_relu", "conv1d", "conv_transpose2d", "linear", "linear_relu")
"""Functions whose gradients are passes of their own."""

RANDOM = ("dropout", "dropout2d", "rrelu")
"""Functions that draw numbers, of which peers draw others."""

_LIMITED = ("binary_cross_entropy", "kl_div")
"""Functions whose arguments lie between 0 and 1."""

_FACTORS = 2.0**-10
"""Of TF32: what a factor of 11 bits is off by, relative."""


@dataclass(frozen=True)
class Case:
    """One pass of one call.

    Attributes:
        op: a function's name, as `gpucnn.explain` takes it.
        arguments: by name, where a shape stands for a tensor.
        direction: one of PASSES.
        precision: of float32 products.
        layer: the call in a few words.
        count: how often a network has it.
    """

    op: str
    arguments: dict[str, Any]
    direction: str = "fwd"
    dtype: str = "float32"
    precision: str = "highest"
    layer: str = ""
    count: int = 1

    def call(self, numbers: Numbers, dtype: str | None = None) -> Call:
        """The call with tensors of `numbers`. Raises what `Call.of` raises."""
        return Call.of(self.function, dtype=dtype or self.dtype, fill=numbers, **self.arguments)

    @property
    def function(self) -> str | Callable[..., Any]:
        """As `Call.of` and `gpucnn.explain` take it."""
        return UPDATES.get(self.op, self.op)

    @property
    def same_call(self) -> tuple[Any, ...]:
        """What is equal for passes of the same call."""
        return self.op, repr(self.arguments), self.dtype, self.precision


def passes_of(op: str) -> tuple[str, ...]:
    """All passes that a function has; the gradients of a sum are its result's, and an update has none."""
    if op == "add" or op in UPDATES:
        return ("fwd",)
    return ("fwd", "dgrad", "wgrad") if op in PRODUCTS else ("fwd", "bwd")


def asked_passes(text: str) -> tuple[str, ...]:
    """The passes of a comma-separated list, "all" for all. Raises ValueError that names those there are."""
    names = PASSES if text == "all" else tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in PASSES:
            raise ValueError(unknown("pass", name, PASSES))
    return names


def chosen_passes(op: str, asked: Iterable[str]) -> list[str]:
    """Those of `asked` that `op` has: a gradient that it computes with others stands for all of them, and "bwd" for
    those that it has one by one."""
    there = passes_of(op)
    gradients = set(asked) - {"fwd"}
    if "dgrad" not in there:
        wanted = {"bwd"} if gradients else set()
    else:
        wanted = {"dgrad", "wgrad"} if "bwd" in gradients else gradients
    return [name for name in there if name in wanted or (name == "fwd" and name in asked)]


def unknown(what: str, name: str, there: Iterable[str]) -> str:
    """The message of an error: the list, and the nearest name."""
    names = list(there)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no {what} {name!r}, there are: {', '.join(names)}{hint}"


@dataclass
class Numbers:
    """Random tensors for shapes, the same for a seed wherever they are made, and whichever dtype they are given in.

    Images and matrices are standard normals, of which a row of _DRAWN is drawn for a seed, laid end to end, and begun
    elsewhere for each tensor: millions are there in no time. Vectors are uniform in [0.5, 1.5), since one may be a
    variance; bytes are uniform, labels below `classes`. All are rounded to `held` first.
    """

    seed: int
    held: str
    device: str = "cpu"
    classes: int = 1
    limited: bool = False
    made: int = field(default=0, init=False)

    @staticmethod
    def of(case: Case, seed: int, device: str = "cpu") -> Numbers:
        """Those that the case is computed with."""
        shape = case.arguments.get("input", ())
        classes = shape[1] if case.op in ("cross_entropy", "nll_loss") and len(shape) > 1 else 1
        return Numbers(seed, case.dtype, device, classes, case.op in _LIMITED)

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        self.made += 1
        if dtype.kind not in backend.FLOAT_KINDS:
            highest = {"u": 256, "b": 2}.get(dtype.kind, self.classes)
            drawn = np.random.default_rng([self.seed, self.made]).integers(0, highest, shape).astype(dtype)
            return creation.tensor(drawn, device=self.device)
        size = math.prod(shape)
        if len(shape) == 1:
            drawn = np.random.default_rng([self.seed, self.made]).uniform(0.5, 1.5, shape).astype(np.float32)
            return creation.tensor(drawn, self.held, device=self.device).to(dtype)
        row = _row(self.seed, self.device, self.limited)
        begin = self.made * _APART % _DRAWN
        values = row.data[begin : begin + size]
        if values.size < size:
            library = backend.namespace(row.data)
            rest = size - values.size
            values = library.concatenate([values, library.tile(row.data, -(-rest // _DRAWN))[:rest]])
        return creation.tensor(values.reshape(shape), self.held).to(dtype)


_DRAWN = (1 << 21) - 9
"""A prime: what lies at the same place of two rows or images of a tensor are other numbers."""
_APART = 1_234_577


@functools.lru_cache(maxsize=6)
def _row(seed: int, device: str, limited: bool) -> Tensor:
    rng = np.random.default_rng(seed)
    if limited:
        return creation.tensor(rng.uniform(0.1, 0.9, _DRAWN).astype(np.float32), device=device)
    return creation.tensor(rng.standard_normal(_DRAWN, np.float32), device=device)


def results(call: Call) -> tuple[Tensor, ...]:
    """Makes the call; the floating tensors among what it returns."""
    with enable_grad():
        found = call.function(*call.arguments, **call.options)
    found = found if isinstance(found, (tuple, list)) else (found,)
    return tuple(each for each in found if isinstance(each, Tensor) and each.dtype.kind in backend.FLOAT_KINDS)


def walk_back(case: Case, found: tuple[Tensor, ...], numbers: Numbers) -> None:
    """Backward from all results, with random gradients."""
    for result in found:
        if result.requires_grad:
            gradient = numbers(result.shape, result.dtype)
            with no_grad():
                gradient = smooth(case, gradient, result.detach())
            result.backward(gradient, retain_graph=True)


def smooth(case: Case, gradient: Any, result: Any) -> Any:
    """The gradient of a result, in any library's tensors, so that it is 0 where a ReLU that ends a sum has its corner:
    on which side of that a sum of nearly 0 is found is a matter of its rounding."""
    if not case.op.endswith("_relu"):
        return gradient
    limit = case.arguments.get("max_val", math.inf)
    return gradient * result if math.isinf(limit) else gradient * result * (limit - result) * (1 / limit)


def differentiable(call: Call) -> list[Tensor]:
    """The tensors among the arguments that get gradients, in order."""
    given: list[Any] = []
    for value in (*call.arguments, *call.options.values()):
        given += value if isinstance(value, (tuple, list)) else [value]
    return [each for each in given if isinstance(each, Tensor) and each.requires_grad]


def gradients(call: Call, direction: str) -> list[Tensor | None]:
    """After `walk_back`, what a pass has computed."""
    tensors = differentiable(call)
    wanted = {"dgrad": tensors[:1], "wgrad": tensors[1:], "bwd": tensors}[direction]
    return [tensor.grad for tensor in wanted]


class Truth:
    """What the passes of a case's call compute, in float64 by array code, from the numbers that rivals get.

    Attributes:
        outputs: by pass, arrays in the order of the pass's tensors.
    """

    def __init__(self, case: Case, seed: int, device: str) -> None:
        numbers = Numbers.of(case, seed, device)
        manual_seed(seed)
        with backend.use_backend("reference"):
            call = case.call(numbers, "float64")
            found = results(call)
            walk_back(case, found, numbers)
            self.outputs = {"fwd": [result.data for result in found]}
            for direction in passes_of(case.op)[1:]:
                self.outputs[direction] = [tensor.data for tensor in gradients(call, direction) if tensor is not None]
        self._tensors = differentiable(call)

    def allowed_error(self, case: Case, rounded: bool) -> float:
        """What an element may be off by, relative to itself and to its array's root mean square; `rounded` says
        whether factors were rounded to TF32."""
        allowed = tolerance(case.dtype, self._terms(case))
        return max(allowed, 4 * _FACTORS) if rounded else allowed

    @staticmethod
    def _summed(sizes: list[int], outputs: list[int]) -> int:
        return max(sizes, default=1) // max(1, min(outputs, default=1))

    def _terms(self, case: Case) -> int:
        """Of the longest sum among the outputs'."""
        sizes = [int(tensor.data.size) for tensor in self._tensors]
        outputs = [int(array.size) for array in self.outputs[case.direction]]
        if case.op not in PRODUCTS:  # over a row, a channel's pixels, or all that an output is a sum of
            shape = self._tensors[0].shape if self._tensors else (1,)
            channel = sizes[0] // max(1, shape[1] if len(shape) > 2 else 1) if sizes else 1
            return max(1, shape[-1] if shape else 1, channel if len(shape) > 2 else 1, self._summed(sizes, outputs))
        shape, groups = self._tensors[1].shape, int(case.arguments.get("groups", 1))
        # Of filters (K, C/groups, R, S): a sum is over all but K forward, over all but C backward.
        over = {"fwd": sizes[1] // shape[0], "dgrad": sizes[1] // shape[1] // groups}
        channels = shape[0]
        if case.op == "conv_transpose2d":
            over, channels = {"fwd": over["dgrad"], "dgrad": over["fwd"]}, shape[1] * groups
        over["wgrad"] = int(self.outputs["fwd"][0].size) // channels  # images and pixels
        behind = over["fwd"] if case.op.endswith("_relu") and case.direction != "fwd" else 0  # see `smooth`
        return max(1, over[case.direction] + behind)
