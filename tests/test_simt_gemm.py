"""The products of matrices on the CPU: every configuration on what it only just fits, in any order of threads."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, sample
from op_checks import SEED, compare, draw

from gpucnn.testing.pairwise import pairwise

CONFIGURATIONS = ("128x128", "128x64", "64x64", "128x32")
DTYPES = ("float32", "float16", "bfloat16")
PASSES = ("nt", "nn", "tn")


@dataclass(frozen=True)
class Case:
    """y (M,N) of x (M,K) and w (N,K); `offset`, in elements, is how far from an address of 256 bytes arrays begin."""

    M: int
    N: int
    K: int
    configuration: str = ""
    dtype: str = "float32"
    bias: bool = True
    relu: bool = False
    offset: int = 0


class Data:
    """Inputs, which the case's dtype holds, and results in float64."""

    def __init__(self, case: Case, kind: str) -> None:
        dtype = np.dtype(case.dtype)

        def drawn(shape: tuple[int, ...], stream: int) -> Any:
            return draw(kind, shape, stream).astype(dtype).astype(np.float64)

        self.x, self.w = drawn((case.M, case.K), 0), drawn((case.N, case.K), 1)
        self.dy, self.bias = drawn((case.M, case.N), 2), drawn((case.N,), 3)
        self.truth = {"nt": self.x @ self.w.T, "nn": self.dy @ self.w, "tn": self.dy.T @ self.x}
        if case.bias:
            self.truth["nt"] += self.bias
        if case.relu:
            self.truth["nt"] = np.maximum(self.truth["nt"], 0)


def results(module: Any, case: Case, data: Data, passes: tuple[str, ...] = PASSES) -> dict[str, Any]:
    """What the bindings make of `data`; no other memory is touched."""
    __tracebackhide__ = True
    memory, dtype = Memory(), np.dtype(case.dtype)

    def given(name: str) -> Any:
        array = getattr(data, name)
        flat = np.concatenate([np.zeros(case.offset), array.reshape(-1)])
        return memory.given(name, flat, dtype)[case.offset :].reshape(array.shape)

    def wanted(name: str, shape: tuple[int, ...]) -> Any:
        flat = memory.wanted(name, (case.offset + int(np.prod(shape)),), dtype)
        flat[: case.offset] = 0
        return flat[case.offset :].reshape(shape)

    x, w, dy = given("x"), given("w"), given("dy")
    bias = given("bias") if case.bias else None
    found = {}
    if "nt" in passes:
        found["nt"] = wanted("y", (case.M, case.N))
        module.matmul_nt(case.dtype, x, w, bias, found["nt"], case.relu, 0, case.configuration)
    if "nn" in passes:
        found["nn"] = wanted("dx", (case.M, case.K))
        module.matmul_nn(case.dtype, dy, w, found["nn"], 0, case.configuration)
    if "tn" in passes:
        found["tn"] = wanted("dw", (case.N, case.K))
        parts = module.matmul_tn_parts(case.M, case.N, case.K, case.configuration)
        partial = memory.wanted("partial", (parts, case.N, case.K)) if parts > 1 else None
        module.matmul_tn(case.dtype, x, dy, found["tn"], partial, 0, case.configuration)
    memory.check(f"{case}")
    return found


def check(module: Any, case: Case, kind: str, passes: tuple[str, ...] = PASSES) -> None:
    __tracebackhide__ = True
    data, exact = Data(case, kind), kind == "integers"
    terms = {"nt": case.K + 1, "nn": case.N, "tn": case.M}
    for name, found in results(module, case, data, passes).items():
        truth = data.truth[name]
        expected = truth.astype(case.dtype).astype(np.float64) if exact else truth
        compare(found, expected, terms[name], f"{case}: {name}", exact=exact)


def fitting(configuration: str) -> list[Case]:
    """Sizes around those of a configuration's tile."""
    rows, columns = map(int, configuration.split("x"))
    sizes = [(rows, columns, 16), (rows + 8, columns - 8, 40), (8, columns + 8, 8), (rows - 8, 8, 24)]
    return [Case(*size, configuration, dtype) for size in sizes for dtype in DTYPES]


FITTING = [case for configuration in CONFIGURATIONS for case in fitting(configuration)]
"""Where every size is a multiple of the packs: the wide path."""

SHAPES = pairwise(
    {
        "M": (0, 1, 7, 31, 33, 64, 127, 129, 300),
        "N": (1, 2, 3, 8, 24, 31, 32, 33, 63, 65, 128),
        "K": (1, 2, 7, 8, 15, 16, 17, 32, 33, 48, 100),
        "configuration": ("", *CONFIGURATIONS),
        "dtype": DTYPES,
        "bias": (True, False),
        "relu": (True, False),
        "offset": (0, 0, 1, 4, 8),
    },
    SEED,
    lambda case: case["M"] * case["N"] * case["K"] < 400_000,
)
SAMPLED = [Case(**case) for case in SHAPES]


@pytest.mark.parametrize("order", ORDERS)
def test_every_configuration_is_exact_on_what_it_only_just_fits(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    for case in sample(simt.flavour, FITTING[ORDERS.index(order) :: len(ORDERS)]):
        check(simt, case, "integers")


def test_sampled_shapes(simt: ModuleType) -> None:
    for number, case in enumerate(sample(simt.flavour, SAMPLED)):
        simt.set_order(ORDERS[number % len(ORDERS)])
        check(simt, case, ("integers", "normal")[number // 4 % 2])
