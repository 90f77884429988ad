"""Of tests/budget_cases.py, the calls that go over rows and columns: norms, softmaxes, losses of classes, reductions,
positions and running sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from budget_case import Case
from budget_maps import leaf, numbers

from gpucnn import Tensor, extension
from gpucnn import functional as F
from gpucnn.backend import supported_dtype
from gpucnn.ops import norm
from gpucnn.reference.norm_problem import Moments, NormProblem

IMAGE, ODD = (2, 64, 16, 16), (2, 63, 16, 16)
ROWS = ((64, 64), (64, 256), (16, 2048))
"""Short enough for four lanes, for a warp, and long enough for a block."""
ODD_ROWS = ((64, 63), (64, 255), (16, 2047))

REDUCTIONS = {"sum": 0, "sum_of_squares": 0, "sum_of_powers": 0, "sum_of_exponentials": 1, "largest": 0, "smallest": 0,
              "sum_of_squared_deviations": 1, "count_of_equal": 1, "product": 0}  # fmt: skip
"""By name, whether they are relative to something."""


def _norms(image: tuple[int, ...], aligned: bool) -> Iterator[Case]:
    channels = image[1]
    own = {"weight": (channels,), "bias": (channels,)}
    running = {"running_mean": (channels,), "running_var": (channels,)}
    for training in (True, False):
        yield Case("batch_norm", {"input": image, **running, **own, "training": training}, aligned=aligned)
    many = (1, 1060, channels)  # positions, each a split of its own
    yield Case("batch_norm", {"input": many, "moments": "taken"}, then=_of_taken_moments(many), aligned=aligned)
    rectified = {"input": image, **running, **own, "training": True, "residual": image}
    yield Case("batch_norm_relu", rectified, aligned=aligned)
    yield Case("instance_norm", {"input": image, **running, **own}, aligned=aligned)
    yield Case(
        "group_norm", {"input": image, "num_groups": channels // 8 or 1 if aligned else 9, **own}, aligned=aligned
    )
    yield Case("local_response_norm", {"input": image, "size": 5}, aligned=aligned)


def _of_taken_moments(shape: tuple[int, int, int]) -> Callable[[str], None]:
    def run(dtype: str) -> None:
        x, (_, splits, channels) = numbers(shape, dtype), shape
        moments = Moments(np.abs(numbers((2 * splits + 1, channels), "float32")), 1)
        norm.fprop(NormProblem(1, splits, channels, channels), x, None, None, None, None, moments, like=x)

    return run


def _classes(rows: tuple[int, int], aligned: bool) -> Iterator[Case]:
    """Losses of labels and of probabilities, with and without weights and smoothing."""

    def probable(dtype: str) -> None:
        F.cross_entropy(leaf(rows, dtype), leaf(rows, dtype), Tensor(np.abs(numbers((rows[1],), dtype)))).backward()

    for options in ({}, {"weight": (rows[1],), "label_smoothing": 0.1}):
        yield Case("cross_entropy", {"input": rows, "target": rows[:1], **options}, aligned=aligned)
    yield Case("cross_entropy", {"input": rows, "target": rows}, then=probable, aligned=aligned)


def _reduced(name: str, shape: tuple[int, int, int]) -> Callable[[str], None]:
    def run(dtype: str) -> None:
        module = extension.compiled("simt")
        x = numbers(shape, dtype)
        outer, reduced, inner = shape
        splits = module.reduce_splits(reduced, inner)
        centre = numbers((outer, inner), dtype) if REDUCTIONS[name] else None
        partial = np.empty((outer, splits, inner), np.float32) if splits > 1 else None
        y = np.empty((outer, inner), x.dtype)
        module.reduce(name, dtype, x, y, centre, partial, 1.5, "none", 1.0, 0)

    return run


def _slopes(name: str, shape: tuple[int, ...], **options: Any) -> Callable[[str], None]:
    """A reduction as tensors have it, and its gradient."""

    def run(dtype: str) -> None:
        getattr(leaf(shape, dtype), name)(**options).sum().backward()

    return run


def _largest(name: str, shape: tuple[int, ...], dim: int) -> Callable[[str], None]:
    def run(dtype: str) -> None:
        getattr(leaf(shape, dtype), name)(dim)

    return run


def _picked(kind: str) -> Callable[[str], None]:
    """Each row's elements in some order, and put back."""

    def run(dtype: str) -> None:
        module, held = extension.compiled("simt"), supported_dtype(kind)
        x = np.zeros((64, 256), held)
        index = np.random.default_rng(0).permuted(np.tile(np.arange(256), (64, 1)), axis=1)
        module.take(kind, x, index, np.empty_like(x), 1, 0)
        module.put(kind, x, index, np.zeros_like(x), 1, 0)

    return run


def _reductions() -> Iterator[Case]:
    for name in REDUCTIONS:
        for terms in ((64, 256, 1), (256, 8, 1), (1, 20_480, 1), (2, 64, 64), (1, 512, 64)):
            yield Case(f"{name} reduction", {"shape": terms}, then=_reduced(name, terms))
    for terms in ((64, 255, 1), (2, 64, 63)):
        yield Case("sum reduction", {"shape": terms}, then=_reduced("sum", terms), aligned=False)
    for name, options in (
        *(("amax", {}), ("prod", {}), ("var", {}), ("std", {}), ("logsumexp", {})),
        *(("norm", {"p": 1}), ("norm", {"p": 2}), ("norm", {"p": 3}), ("mean", {}), ("sum", {})),
    ):
        for dim in (1, 3):
            given = {"dim": dim, **options}
            yield Case(name, {"self": IMAGE, **given}, then=_slopes(name, IMAGE, **given))
        yield Case(name, {"self": ROWS[1], "dim": 1, **options}, then=_slopes(name, ROWS[1], dim=1, **options))
    for name in ("argmax", "argmin"):
        yield Case(name, {"self": IMAGE, "dim": 2}, then=_largest(name, IMAGE, 2))
        for shape in (ROWS[1], ROWS[2]):
            yield Case(name, {"self": shape, "dim": 1}, then=_largest(name, shape, 1))
    yield Case("cumsum", {"self": IMAGE, "dim": 2}, then=_slopes("cumsum", IMAGE, dim=2))
    for shape, aligned in ((ROWS[2], True), (ODD_ROWS[2], False)):
        yield Case("cumsum", {"self": shape, "dim": 1}, then=_slopes("cumsum", shape, dim=1), aligned=aligned)


def rows() -> Iterator[Case]:
    """All of them."""
    yield from _norms(IMAGE, True)
    yield from _norms(ODD, False)
    yield Case("local_response_norm", {"input": (1, 2560, 2, 2), "size": 5})
    for shapes, aligned in ((ROWS, True), (ODD_ROWS, False)):
        for shape in shapes:
            for name in ("softmax", "log_softmax"):
                yield Case(name, {"input": shape, "dim": 1}, aligned=aligned)
            yield from _classes(shape, aligned)
            columns = (shape[1],)
            layer = {"input": shape, "normalized_shape": columns, "weight": columns, "bias": columns}
            yield Case("layer_norm", layer, aligned=aligned)
        yield Case("nll_loss", {"input": shapes[1], "target": shapes[1][:1]}, aligned=aligned)
    yield Case("layer_norm", {"input": (1024, 64), "normalized_shape": (64,), "weight": (64,), "bias": (64,)})
    yield Case("softmax", {"input": IMAGE, "dim": 1})
    yield Case("cross_entropy", {"input": (64, 1000), "target": (64,)})
    yield from _reductions()
    for kind in ("uint8", "float16", "float32", "int64"):
        yield Case("take", {"of": kind}, dtypes=("float32",), then=_picked(kind))
