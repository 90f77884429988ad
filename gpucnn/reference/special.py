"""Functions that array libraries lack, or do not have under one name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpucnn.backend import Array, namespace

Polynomial = tuple[float, ...]
"""Coefficients, of the lowest power first."""


class _Tail(NamedTuple):
    """1 - Phi(t) is exp(-t**2 / 2) * P(t) / Q(t) for t >= 0."""

    P: Polynomial
    Q: Polynomial
    last: float
    """From here on exp(-t**2 / 2) rounds to 0."""


_TAIL = {
    np.dtype("float32"): _Tail(  # relative error 6e-8 up to t = 6
        P=(0.4999999656638746, 0.3346197323405192, 0.10449182721832752, 0.01363507652592379),
        Q=(1.0, 1.467120299141342, 0.879611054184752, 0.2613698579618146, 0.03419863845674826),
        last=15.0,
    ),
    np.dtype("float64"): _Tail(  # 9e-18 up to t = 8.5
        P=(
            *(0.5, 0.6613995910796177, 0.43639101835326954, 0.18079487385681986, 0.050752554939395934),
            *(0.009827414169022402, 0.0012808788538826105, 0.00010309959331320473, 3.9574820989382955e-06),
        ),
        Q=(
            *(1.0, 2.1206837429621026, 2.0648428535615695, 1.214715629841975, 0.4773068021937645),
            *(0.13040832231072888, 0.024892123537037004, 0.003220606431211857, 0.0002584323719300934),
            9.919936333821236e-06,
        ),
        last=39.0,
    ),
}


def normal_tail(x: Array, out: Array, bell: Array, limited: Array) -> None:
    """out = 1 - Phi(|x|) = erfc(|x| / sqrt(2)) / 2, with Phi the normal distribution function; float32 or float64.

    On the way come bell = exp(-x**2 / 2) and limited = |x|, or where that is large enough for both to be 0, less.

    A rational approximation of the ratio of the two, as Cody's of erfc (Mathematics of Computation 23, 1969), in one
    piece. The coefficients are this project's: weighted least squares at 40 digits; all positive, so no sum cancels.
    """
    xp = namespace(x)
    fit = _TAIL[x.dtype]
    xp.abs(x, out=limited)
    xp.minimum(limited, fit.last, out=limited)
    _polynomial(fit.P, limited, out)
    _polynomial(fit.Q, limited, bell)
    out /= bell
    xp.multiply(limited, limited, out=bell)
    bell *= -0.5
    xp.exp(bell, out=bell)
    out *= bell


def _polynomial(coefficients: Polynomial, x: Array, out: Array) -> None:
    """By Horner's rule."""
    namespace(x).multiply(x, coefficients[-1], out=out)
    for coefficient in coefficients[-2:0:-1]:
        out += coefficient
        out *= x
    out += coefficients[0]
