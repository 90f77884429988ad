"""What the tests of normalisation share."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.testing import assert_close, tolerance

DTYPES = ("float64", "float32", "float16")


def near(actual: Any, truth: np.ndarray, terms: int, size: float | None = None, name: str = "") -> None:
    """Within what rounding explains of statistics over `terms` numbers, of results about `size` large (default: rms).

    A gradient can cancel to nothing where its parts do not: its `size` is that of the parts.
    """
    __tracebackhide__ = True
    allowed = tolerance(actual.dtype, max(1, terms))
    scale = rms(truth) if size is None else size
    assert_close(actual, truth, rtol=allowed, atol=allowed * scale, name=name)


def held(values: np.ndarray) -> np.ndarray:
    """float64 numbers rounded to what every dtype holds."""
    return values.astype(np.float16).astype(np.float64)


def rms(values: Any) -> float:
    """Root mean square, 0 of nothing."""
    array = np.asarray(values, np.float64)
    return float(np.sqrt(np.mean(array**2))) if array.size else 0.0
