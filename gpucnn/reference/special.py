"""Functions that numpy lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpucnn.backend import Array, namespace
from gpucnn.reference.pointwise import blend

Polynomial = tuple[float, ...]
"""Coefficients, of the lowest power first."""


class _Erf(NamedTuple):
    """erf(x) is x * P(x**2) / Q(x**2) up to |x| = 1/2, and sign(x) * (1 - exp(-x**2) * R(|x|) / S(|x|)) beyond."""

    P: Polynomial
    Q: Polynomial
    R: Polynomial
    S: Polynomial
    last: float
    """From here on erf rounds to 1."""


_ERF = {
    np.dtype("float32"): _Erf(  # relative errors 1.5e-10 and 5.6e-9
        P=(1.1283791669528345, 0.09082812071004319, 0.01670904003340919),
        Q=(1.0, 0.41382763250021093, 0.05275144766789916),
        R=(1.0001212342541337, 0.6897968814903488, 0.20098044060436726),
        S=(1.0, 1.8192936073983994, 1.2492643786825373, 0.35373199431009533),
        last=3.92,
    ),
    np.dtype("float64"): _Erf(  # 3.4e-20 and 2.4e-17
        P=(1.1283791670955126, 0.13270721295605717, 0.04003218392261942, 0.0011110635030202375, 6.531892950076805e-05),
        Q=(1.0, 0.4509420386567843, 0.08579161216249927, 0.00829717839018444, 0.0003515378862968894),
        R=(
            *(0.999999999374674, 1.258819879571113, 0.7975222720304366, 0.2876939372127385),
            *(0.05876761912341473, 0.005439509429628605, 3.840813230246615e-08),
        ),
        S=(
            *(1.0, 2.3871990366937283, 2.491188006864244, 1.4637519844821403),
            *(0.5150250715667263, 0.10413309887138998, 0.00964332686180369),
        ),
        last=5.93,
    ),
}


def erf(x: Array, out: Array, work: Sequence[Array]) -> None:
    """out = 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x; float32 or float64.

    Rational Chebyshev approximations in pieces after Cody (Mathematics of Computation 23, 1969). The coefficients are
    this project's: a weighted least-squares fit at 40 digits, all of one sign so that no sum cancels. `work` is three
    arrays as x to compute in.
    """
    xp = namespace(x)
    fit = _ERF[x.dtype]
    t, numerator, denominator = work
    xp.abs(x, out=t)
    xp.minimum(t, fit.last, out=t)
    _polynomial(fit.R, t, numerator)
    _polynomial(fit.S, t, denominator)
    numerator /= denominator
    near = t <= 0.5
    xp.multiply(t, t, out=t)
    xp.negative(t, out=out)
    xp.exp(out, out=out)
    out *= numerator
    xp.subtract(1, out, out=out)
    xp.copysign(out, x, out=out)
    _polynomial(fit.P, t, numerator)
    _polynomial(fit.Q, t, denominator)
    numerator /= denominator
    numerator *= x
    blend(~near, out, numerator, out)


def _polynomial(coefficients: Polynomial, x: Array, out: Array) -> None:
    """By Horner's rule."""
    out[...] = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        out *= x
        out += coefficient
