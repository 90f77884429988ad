"""The products of matrices on the CPU: every configuration on what it only just fits, in any order of threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
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


def test_zeros_of_depth_give_the_bias_and_nothing_else(simt: ModuleType) -> None:
    for dtype in DTYPES:
        check(simt, Case(9, 8, 0, dtype=dtype), "integers")
        check(simt, Case(0, 8, 16, dtype=dtype), "integers")


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_have_the_same_bits_in_every_configuration_and_on_every_path(simt: ModuleType, dtype: str) -> None:
    case = Case(70, 40, 56, dtype=dtype, relu=True)
    data = Data(case, "normal")
    cases = [replace(case, configuration=each, offset=offset) for each in CONFIGURATIONS for offset in (0, 1)]
    found = [results(simt, each, data) for each in cases]
    for name in ("nt", "nn"):
        assert len({each[name].tobytes() for each in found}) == 1, name
    few = Data.__new__(Data)
    few.x, few.w, few.dy, few.bias = data.x[:3], data.w, data.dy[:3], data.bias
    for name, some in results(simt, replace(case, M=3), few, ("nt", "nn")).items():
        assert some.tobytes() == found[0][name][:3].tobytes(), name


def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(simt: ModuleType) -> None:
    case = Case(600, 24, 16)
    assert simt.matmul_tn_parts(case.M, case.N, case.K) > 2
    data, seen = Data(case, "normal"), set()
    for order in sample(simt.flavour, (*ORDERS, "rand:8", "fwd")):
        simt.set_order(order)
        seen.add(tuple(found.tobytes() for found in results(simt, case, data).values()))
    assert len(seen) == 1


def test_a_configuration_is_chosen_that_wastes_little(simt: ModuleType) -> None:
    """Parts fill the machine once or a few times over; none is shorter than is worth it."""
    assert 128 <= simt.matmul_tn_parts(100_352, 64, 64) <= 132  # a tile of 64 x 64 each: all multiprocessors
    assert simt.matmul_tn_parts(100, 1024, 1024) == 1
    assert simt.matmul_tn_parts(0, 8, 8) == 1
    assert tuple(simt.gemm_configurations()) == CONFIGURATIONS


# ------------------------------------------------------------------------------------- what must not pass unnoticed


def after(change: Any, output: int) -> Any:
    def run(binding: Any, *arguments: Any) -> None:
        binding(*arguments)
        change(arguments[output])

    return run


def unwritten(array: Any) -> None:
    array[-1, -1] = np.nan


def nudged(array: Any) -> None:
    array[1, 2] *= 1.0001


def tile_repeated(array: Any) -> None:
    array[:8, 8:16] = array[:8, :8]


WRONG = {
    "no bias": {"matmul_nt": lambda run, dtype, x, w, bias, *rest: run(dtype, x, w, None, *rest)},
    "relu": {"matmul_nt": lambda run, dtype, x, w, bias, y, relu, *rest: run(dtype, x, w, bias, y, True, *rest)},
    "unwritten": {"matmul_nt": after(unwritten, 4)},
    "one element": {"matmul_nn": after(nudged, 3)},
    "a tile": {"matmul_nn": after(tile_repeated, 3)},
    "one part": {"matmul_tn": lambda run, *a: (run(*a), np.copyto(a[3], a[4][0]))},
    "a tile of dw": {"matmul_tn": after(tile_repeated, 3)},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(simt: ModuleType, wrong: str) -> None:
    case = Case(600, 24, 16)
    check(simt, case, "normal")
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check(Planted(simt, **WRONG[wrong]), case, "normal")


# ---------------------------------------------------------------------------------------------- what bindings refuse


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    x, w, bias = np.zeros((3, 4), np.float32), np.zeros((5, 4), np.float32), np.zeros(5, np.float32)
    y, dx, dw = (np.full(shape, 7, np.float32) for shape in ((3, 5), (3, 4), (5, 4)))
    dy, pool = np.zeros((3, 5), np.float32), np.zeros(100, np.float32)
    read_only = np.zeros_like(y)
    read_only.flags.writeable = False
    good: dict[str, tuple[Any, ...]] = {
        "matmul_nt": ("float32", x, w, bias, y, False, 0),
        "matmul_nn": ("float32", dy, w, dx, 0),
        "matmul_tn": ("float32", x, dy, dw, None, 0),
    }
    bad: list[tuple[str, int, Any, type[Exception], str]] = [
        ("matmul_nt", 0, "float64", ValueError, "dtype must be float32, float16 or bfloat16, got float64"),
        ("matmul_nt", 1, x.astype(np.float16), TypeError, "'x' of shape .* must be float32"),
        ("matmul_nt", 1, [1.0], TypeError, "'x' must be an array"),
        ("matmul_nt", 1, x[0], ValueError, r"'x' of shape \(4,\) must be a matrix"),
        ("matmul_nt", 1, x[:, ::2], ValueError, "'x' .*must be C-contiguous"),
        ("matmul_nt", 2, w[:, :3].copy(), ValueError, r"'w' of shape \(5, 3\) must have shape \(5, 4\): \(N,K\)"),
        ("matmul_nt", 3, bias[:4], ValueError, r"'bias' of shape \(4,\) must have shape \(5,\)"),
        ("matmul_nt", 4, y[:2], ValueError, r"'y' of shape \(2, 5\) must have shape \(3, 5\)"),
        ("matmul_nt", 4, read_only, ValueError, "'y' .*is read-only"),
        ("matmul_nt", 4, w.reshape(-1)[:15].reshape(3, 5), ValueError, "'y' .* and 'w' .* overlap in memory"),
        ("matmul_nn", 2, w[:4], ValueError, r"'w' of shape \(4, 4\) must have shape \(5, 4\)"),
        ("matmul_nn", 3, dx[:2], ValueError, r"'dx' of shape \(2, 4\)"),
        ("matmul_nn", 3, w[:3], ValueError, "'dx' .* and 'w' .* overlap in memory"),
        ("matmul_tn", 2, dy[:2], ValueError, r"'dy' of shape \(2, 5\) must have shape \(3, 5\)"),
        ("matmul_tn", 3, dw[:4], ValueError, r"'dw' of shape \(4, 4\)"),
        ("matmul_tn", 4, pool[:40].reshape(2, 5, 4), ValueError, r"'partial' of shape \(2, 5, 4\) must .*\(1, 5, 4\)"),
    ]
    for name, place, value, error, message in bad:
        arguments = [*good[name][:place], value, *good[name][place + 1 :]]
        with pytest.raises(error, match=f"matmul: .*{message}"):
            getattr(simt, name)(*arguments)
    assert all((array == 7).all() for array in (y, dx, dw))
    for name, arguments in good.items():
        with pytest.raises(ValueError, match="no configuration '32x32', there are: 128x128, 128x64, 64x64, 128x32"):
            getattr(simt, name)(*arguments, "32x32")
    with pytest.raises(ValueError, match=r"matmul: .* must be in \[0, 2\^33\]"):
        simt.matmul_tn_parts(1 << 34, 1, 1)
    with pytest.raises(ValueError, match=r"matmul: a matrix has more than 2\^38 elements"):
        simt.matmul_tn_parts(1 << 20, 1 << 19, 1)
