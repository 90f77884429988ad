"""The fully connected layer by its definition, in float64.

y[..., o] = bias[o] + sum over i of x[..., i] * weight[o, i]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def linear(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> NDArray[np.float64]:
    """(..., inputs) through weight (outputs, inputs) and bias (outputs,) to (..., outputs)."""
    y: NDArray[np.float64] = np.einsum("...i,oi->...o", np.asarray(x, np.float64), np.asarray(weight, np.float64))
    return y if bias is None else y + np.asarray(bias, np.float64)


def linear_input_grad(dy: ArrayLike, weight: ArrayLike) -> NDArray[np.float64]:
    """dx[..., i] = sum over o of dy[..., o] * weight[o, i]."""
    dx: NDArray[np.float64] = np.einsum("...o,oi->...i", np.asarray(dy, np.float64), np.asarray(weight, np.float64))
    return dx


def linear_weight_grad(dy: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
    """dweight[o, i] = sum over the rows of dy[row, o] * x[row, i]; shape (outputs, inputs)."""
    dweight: NDArray[np.float64] = np.einsum("no,ni->oi", _rows(dy), _rows(x))
    return dweight


def linear_bias_grad(dy: ArrayLike) -> NDArray[np.float64]:
    """dbias[o] = sum over the rows of dy[row, o]; shape (outputs,)."""
    dbias: NDArray[np.float64] = np.einsum("no->o", _rows(dy))
    return dbias


def _rows(array: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(array, np.float64)
    count = int(np.prod(array.shape[:-1]))
    return array.reshape(count, array.shape[-1])
