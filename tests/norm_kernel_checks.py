"""What the tests of the kernels of batch, instance and group norm share: calls of the bindings, against the truth."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from kernel_checks import Memory
from norm_checks import held, rms
from op_checks import draw

from gpucnn.reference import norm as reference
from gpucnn.reference.norm_problem import NormProblem, Wanted
from gpucnn.testing import assert_close, assert_equal, tolerance

INF = math.inf
ALL = Wanted(True, True, True, True)


@dataclass(frozen=True)
class Case:
    """A problem, and which arrays and gradients a call of it has."""

    p: NormProblem
    dtype: str = "float32"
    affine: bool = True
    running: bool = False
    residual: bool = False
    wanted: Wanted = ALL

    def __str__(self) -> str:
        p, extra = self.p, [name for name in ("affine", "running", "residual") if getattr(self, name)]
        return f"{p.B}x{p.M}x{p.C}g{p.groups} limit {p.limit} by {p.momentum} {self.dtype} {' '.join(extra)}"


def batch(M: int, C: int, limit: float | None = None, momentum: float | None = 0.25) -> NormProblem:
    return NormProblem(1, M, C, C, 1e-5, momentum, limit)


@functools.cache
def numbers(case: Case) -> dict[str, np.ndarray]:
    p = case.p
    images, channels = (p.B, p.M, p.C), (p.C,)
    n = {
        "x": held(draw("normal", images) * 2 + draw("normal", (p.B, 1, p.C), 7) * 10),
        "dy": held(draw("normal", images, 1)),
        "residual": held(draw("normal", images, 6)),
        "weight": held(draw("normal", channels, 2)),
        "bias": held(draw("normal", channels, 3)),
        "running_mean": held(draw("normal", channels, 4)),
        "running_var": held(np.abs(draw("normal", channels, 5)) + 0.5),
    }
    if case.dtype == "bfloat16":
        n = {name: array.astype(case.dtype).astype(np.float64) for name, array in n.items()}
    return n


@functools.cache
def truth(case: Case) -> dict[str, np.ndarray | None]:
    """Of the reference in float64, which test_batch_norm.py and its like hold against plain loops."""
    p, n = case.p, numbers(case)
    weight, bias = (n["weight"], n["bias"]) if case.affine else (None, None)
    kept = (n["running_mean"].copy(), n["running_var"].copy())
    with np.errstate(all="ignore"):
        y, mean, inverse = reference.fprop(
            p, n["x"], weight, bias, kept if case.running else None, n["residual"] if case.residual else None
        )
        rounded = y.astype(case.dtype)  # what the kernel is given, so that both cut at the same places
        dx, dweight, dbias, passed = reference.bprop(
            p, n["dy"], n["x"], rounded.astype(np.float64), weight, mean, inverse, case.wanted
        )
    return {
        **{"y": y, "mean": mean, "inverse": inverse, "dx": dx, "dweight": dweight, "dbias": dbias, "passed": passed},
        **dict(zip(("running_mean", "running_var"), kept, strict=True)),
        "saved y": rounded,
    }


def results(module: Any, case: Case, n: dict[str, np.ndarray], t: dict[str, Any]) -> dict[str, np.ndarray | None]:
    """What the bindings make of it; no other memory is touched."""
    __tracebackhide__ = True
    p, memory = case.p, Memory()
    splits, images = module.norm_splits(p, case.dtype), (p.B, p.M, p.C)

    def given(name: str, there: bool = True, dtype: str = "float32") -> Any:
        return memory.given(name, n[name], dtype) if there else None

    def wanted(name: str, shape: tuple[int, ...], there: bool = True, dtype: str = "float32") -> Any:
        return memory.wanted(name, shape, dtype) if there else None

    x, dy = given("x", dtype=case.dtype), given("dy", dtype=case.dtype)
    residual = given("residual", case.residual, case.dtype)
    weight, bias = given("weight", case.affine), given("bias", case.affine)
    kept = [wanted(name, (p.C,), case.running) for name in ("running_mean", "running_var")]
    for array, name in zip(kept, ("running_mean", "running_var"), strict=True):
        if array is not None:
            array[...] = n[name]
    y = wanted("y", images, dtype=case.dtype)
    mean, inverse = (wanted(name, (p.B, p.C), dtype="float64") for name in ("mean", "inverse"))
    own = p.momentum is not None
    scratch = Memory()  # may be left partly unwritten
    partial = scratch.wanted("partial", (p.B, 2 * splits + 1, p.C), some_are_poison=True) if own else None
    linear = scratch.wanted("coefficients", (3, p.B, p.C), some_are_poison=True)
    module.norm_fprop(p, case.dtype, x, weight, bias, *kept, residual, y, mean, inverse, partial, linear, 0)
    if not x.size:
        mean[...], inverse[...] = 0.0, 1.0  # the op's to set
        y = y if y.size else np.empty(images, case.dtype)

    w = case.wanted
    saved = memory.given("saved y", t["saved y"], case.dtype) if p.limit is not None else None
    statistics = [memory.given(f"saved {name}", t[name], np.float64) for name in ("mean", "inverse")]
    dx = wanted("dx", images, w.x, case.dtype)
    passed = wanted("passed", images, w.residual and p.limit is not None, case.dtype)
    dweight, dbias = wanted("dweight", (p.C,), w.weight), wanted("dbias", (p.C,), w.bias)
    sums = w.weight or w.bias or (w.x and own)
    partial = scratch.wanted("partial", (p.B, 2 * splits, p.C), some_are_poison=True) if sums else None
    linear = scratch.wanted("coefficients", (4, p.B, p.C), some_are_poison=True)
    source = x if w.weight or (w.x and own) else None
    module.norm_bprop(
        p, case.dtype, dy, source, saved, weight, *statistics, dx, dweight, dbias, passed, partial, linear, 0
    )
    if x.size:
        memory.check(f"{case}")
    scratch.check(f"{case}")
    return {
        **{"y": y, "mean": mean, "inverse": inverse, "dx": dx, "dweight": dweight, "dbias": dbias, "passed": passed},
        **dict(zip(("running_mean", "running_var"), kept, strict=True)),
    }


def sizes(case: Case, n: dict[str, np.ndarray], t: dict[str, Any]) -> dict[str, float]:
    """What the parts of each result are large, which may cancel in it."""
    p = case.p
    weight = float(np.abs(n["weight"]).max(initial=1.0)) if case.affine else 1.0
    steep = float(t["inverse"].max(initial=0.0))
    spread = float(np.abs(n["x"] - t["mean"][:, None]).max(initial=0.0)) if n["x"].size else 1.0
    gradient = rms(n["dy"])
    return {
        "y": 1.0 + weight * min(spread * steep, p.M**0.5 * 2),
        "mean": 1.0 + rms(n["x"]),
        "inverse": steep,
        "running_mean": 1.0 + rms(n["x"]),
        "running_var": 1.0 + rms(t["running_var"]),
        "dx": 3 * gradient * weight * steep * max(1.0, spread * steep),
        "passed": 1.0,
        "dweight": gradient * (p.B * p.M) ** 0.5 * max(1.0, spread * steep),
        "dbias": gradient * (p.B * p.M) ** 0.5,
    }


def check(module: Any, case: Case) -> None:
    __tracebackhide__ = True
    n, t = numbers(case), truth(case)
    terms = max(1, case.p.M * case.p.C // max(1, case.p.groups))
    large = sizes(case, n, t)
    for name, found in results(module, case, n, t).items():
        if found is None:
            continue
        assert t[name] is not None, f"{case}: {name}"
        if case.p.B * case.p.M == 0 and name in ("mean", "inverse", "running_mean", "running_var", "dweight", "dbias"):
            continue  # nothing is launched; the op sets them
        if name == "passed":
            assert_equal(found, t[name], name=f"{case}: {name}")
            continue
        allowed = tolerance(found.dtype if found.itemsize == 2 else np.float32, terms)
        judged = found.astype(np.float32) if found.dtype == np.float64 else found
        assert_close(judged, t[name], rtol=allowed, atol=allowed * large[name], name=f"{case}: {name}")
