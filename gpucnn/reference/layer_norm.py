"""Layer normalisation: x, y, dx and dy (M,L), each of M rows by its own mean and variance; weight and bias (L,).

Block by block of rows, so that memory is read and written once in a pass. Differences are taken from a row's first
number, so that a mean that is large beside the deviation costs no digits; the first number itself is at most sqrt(L)
deviations off.
"""

from __future__ import annotations

import numpy as np

from gpucnn.backend import Array, accumulator, empty, namespace, workspace, zeros
from gpucnn.reference.common import blocks, is_large
from gpucnn.reference.norm_problem import Wanted
from gpucnn.reference.parallel import for_each

_BANDS = 16  # pieces that the gradients of weight and bias are summed in


def fprop(eps: float, x: Array, weight: Array | None, bias: Array | None) -> tuple[Array, Array, Array]:
    """(y, mean, 1 / deviation); the latter two are float64 (M,1)."""
    xp = namespace(x)
    work = accumulator(x.dtype)
    M, L = x.shape
    y = empty(x.shape, x.dtype, x)
    means, inverses = empty((M, 1), np.dtype(np.float64), x), empty((M, 1), np.dtype(np.float64), x)
    weight, bias = (None if a is None else a.astype(work, copy=False) for a in (weight, bias))

    def run(rows: slice) -> None:
        target = y[rows]
        out = target if y.dtype == work else workspace(target.shape, work, x)
        first = x[rows, :1].astype(work, copy=False)
        xp.subtract(x[rows], first, out=out)
        offset = out.sum(axis=1, keepdims=True) / work.type(max(1, L))
        out -= offset
        var = xp.einsum("ml,ml->m", out, out)[:, None] / work.type(max(1, L))
        inverse = 1.0 / xp.sqrt(var.astype(np.float64) + eps)
        out *= inverse.astype(work)
        if weight is not None:
            out *= weight
        if bias is not None:
            out += bias
        if out is not target:
            target[...] = out
        means[rows] = first.astype(np.float64) + offset
        inverses[rows] = inverse

    if x.size:
        for_each(run, blocks(M, 2 * L * work.itemsize), x, share=is_large(2 * x.nbytes))
    return y, means, inverses


def bprop(
    wanted: Wanted, dy: Array, x: Array, weight: Array | None, mean: Array, inverse: Array
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias), the latter two (L,) in float64: all of them, whatever is wanted.

    With g = dy * weight and z = (x - mean) * inverse:  dx = inverse * (g - mean(g) - z * mean(g * z)).
    """
    xp = namespace(x)
    work = accumulator(x.dtype)
    M, L = x.shape
    dx = empty(x.shape, x.dtype, x)
    centre = mean.astype(work)
    rest = (mean - centre).astype(work)  # what rounding the mean took from it
    inverse = inverse.astype(work)
    weight = None if weight is None else weight.astype(work, copy=False)
    bands = blocks(M, 1, -(-M // _BANDS)) if x.size else []
    sums = zeros((2, len(bands), L), work, x)

    def run(band: int) -> None:
        start, stop = bands[band].start, bands[band].stop
        for piece in blocks(stop - start, 4 * L * work.itemsize):
            rows = slice(start + piece.start, start + piece.stop)
            target = dx[rows]
            z, g = workspace((2, *target.shape), work, x)
            xp.subtract(x[rows], centre[rows], out=z)
            z -= rest[rows]
            z *= inverse[rows]
            sums[0, band] += xp.einsum("ml,ml->l", dy[rows], z)
            sums[1, band] += dy[rows].sum(axis=0, dtype=work)
            if weight is None:
                g[...] = dy[rows]
            else:
                xp.multiply(dy[rows], weight, out=g)
            z *= xp.einsum("ml,ml->m", g, z)[:, None] / work.type(L)
            g -= g.sum(axis=1, keepdims=True) / work.type(L)
            g -= z
            xp.multiply(g, inverse[rows], out=target)

    for_each(run, range(len(bands)), x, share=is_large(2 * x.nbytes))
    dweight, dbias = sums.sum(axis=1, dtype=np.float64)
    return dx, dweight, dbias
