"""Reductions by their definitions, in float64; the reduced axes stay with size 1.

For each place of the result its terms are written out as a list, and a formula makes one number of them. A `_grad`
takes dy (of the result's shape) and x, and returns dy times the derivative by each term.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Axes = tuple[int, ...]


def sum(x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """The exactly rounded sum."""
    return _reduced(math.fsum, x, axes)


def sum_grad(dy: ArrayLike, x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """dy to every term."""
    return _gradient(lambda terms: [1.0] * len(terms), dy, x, axes)


def mean(x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """The sum over the number of terms."""
    return _reduced(_mean, x, axes)


def mean_grad(dy: ArrayLike, x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """dy over the number of terms."""
    return _gradient(lambda terms: [1.0 / len(terms)] * len(terms), dy, x, axes)


def _mean(terms: list[float]) -> float:
    return math.fsum(terms) / len(terms) if terms else math.nan


def var(x: ArrayLike, axes: Axes, correction: float = 1) -> NDArray[np.float64]:
    """The sum of squared deviations from the mean over the number of terms less `correction`."""
    return _reduced(lambda terms: _var(terms, correction), x, axes)


def var_grad(dy: ArrayLike, x: ArrayLike, axes: Axes, correction: float = 1) -> NDArray[np.float64]:
    """dy * 2 (x - mean) / (number of terms - correction)."""

    def slopes(terms: list[float]) -> list[float]:
        return [2 * (term - _mean(terms)) / (len(terms) - correction) for term in terms]

    return _gradient(slopes, dy, x, axes)


def _var(terms: list[float], correction: float) -> float:
    return math.fsum([(term - _mean(terms)) ** 2 for term in terms]) / (len(terms) - correction)


def std(x: ArrayLike, axes: Axes, correction: float = 1) -> NDArray[np.float64]:
    """The root of the variance."""
    return _reduced(lambda terms: math.sqrt(_var(terms, correction)), x, axes)


def std_grad(dy: ArrayLike, x: ArrayLike, axes: Axes, correction: float = 1) -> NDArray[np.float64]:
    """dy * (x - mean) / (number of terms - correction) / std."""

    def slopes(terms: list[float]) -> list[float]:
        root = math.sqrt(_var(terms, correction))
        return [(term - _mean(terms)) / (len(terms) - correction) / root if root else 0.0 for term in terms]

    return _gradient(slopes, dy, x, axes)


def amax(x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """The greatest term."""
    return _reduced(max, x, axes)


def amax_grad(dy: ArrayLike, x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """dy in equal parts to the terms that are the greatest."""
    return _gradient(lambda terms: [(t == max(terms)) / terms.count(max(terms)) for t in terms], dy, x, axes)


def amin(x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """The least term."""
    return _reduced(min, x, axes)


def amin_grad(dy: ArrayLike, x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """dy in equal parts to the terms that are the least."""
    return _gradient(lambda terms: [(t == min(terms)) / terms.count(min(terms)) for t in terms], dy, x, axes)


def prod(x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """The product."""
    return _reduced(math.prod, x, axes)


def prod_grad(dy: ArrayLike, x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """dy times the product of all other terms."""
    return _gradient(lambda terms: [math.prod(terms[:i] + terms[i + 1 :]) for i in range(len(terms))], dy, x, axes)


def logsumexp(x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """log of the sum of e to the power of each term."""
    return _reduced(lambda terms: math.log(math.fsum(map(math.exp, terms))), x, axes)


def logsumexp_grad(dy: ArrayLike, x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """dy times the term's share in the sum."""
    return _gradient(lambda terms: [math.exp(t) / math.fsum(map(math.exp, terms)) for t in terms], dy, x, axes)


def norm(x: ArrayLike, axes: Axes, p: float = 2) -> NDArray[np.float64]:
    """(sum |x|**p) ** (1/p); the number of terms that are not 0 for p = 0."""
    return _reduced(lambda terms: _norm(terms, p), x, axes)


def norm_grad(dy: ArrayLike, x: ArrayLike, axes: Axes, p: float = 2) -> NDArray[np.float64]:
    """dy * sign(x) |x|**(p - 1) / norm**(p - 1); 0 where x is 0."""

    def slopes(terms: list[float]) -> list[float]:
        whole = _norm(terms, p)
        return [math.copysign(abs(t) ** (p - 1) / whole ** (p - 1), t) if t and p else 0.0 for t in terms]

    return _gradient(slopes, dy, x, axes)


def _norm(terms: list[float], p: float) -> float:
    if p == 0:
        return float(len(terms) - terms.count(0))
    return float(math.fsum([abs(term) ** p for term in terms]) ** (1 / p))


def _places(shape: tuple[int, ...], axes: Axes) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Each place of the result, and the places of its terms."""
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    reduced = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    for place in np.ndindex(*kept):
        yield place, [tuple(i + j for i, j in zip(place, step, strict=True)) for step in np.ndindex(*reduced)]


def _reduced(formula: Callable[[list[float]], float], x: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    x = np.asarray(x, np.float64)
    result = np.empty([1 if axis in axes else size for axis, size in enumerate(x.shape)])
    for place, terms in _places(x.shape, axes):
        result[place] = formula([float(x[term]) for term in terms])
    return result


def _gradient(
    slopes: Callable[[list[float]], list[float]], dy: ArrayLike, x: ArrayLike, axes: Axes
) -> NDArray[np.float64]:
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    dx = np.zeros(x.shape)
    for place, terms in _places(x.shape, axes):
        for term, slope in zip(terms, slopes([float(x[term]) for term in terms]), strict=True):
            dx[term] = dy[place] * slope
    return dx
