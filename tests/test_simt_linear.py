"""Fully connected layers on the CPU: the kernels that plain products of matrices do not cover, in any order of
threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Arrays, Planted, sample, stored
from op_checks import SEED, compare, draw

from gpucnn.testing.pairwise import pairwise

DTYPES = ("float32", "float16", "bfloat16")

# --------------------------------------------------------------------------------------------------------------- split


@dataclass(frozen=True)
class Split:
    M: int
    N: int
    K: int
    dtype: str = "float32"
    bias: bool = True
    relu: bool = False
    offset: int = 0


SPLITS = [
    *(Split(9, 24, 520, dtype, offset=offset) for dtype in DTYPES for offset in (0, 1)),
    Split(1, 10, 600),
    Split(1, 136, 1024, "float16"),
    Split(33, 20, 512, "bfloat16", relu=True),
    Split(5, 129, 520, offset=1),
    Split(64, 8, 768),
    Split(3, 7, 513),
    Split(2, 5, 300),  # one part
    Split(0, 5, 600),
    *(
        Split(**case)
        for case in pairwise(
            {
                "M": (1, 2, 7, 31, 32, 33, 64),
                "N": (1, 3, 8, 31, 127, 128, 129),
                "K": (15, 16, 255, 512, 515, 1030),
                "dtype": DTYPES,
                "bias": (True, False),
                "relu": (True, False),
                "offset": (0, 0, 1, 4, 8),
            },
            SEED,
            lambda case: case["M"] * case["N"] * case["K"] < 300_000,
        )
    ),
]


def check_split(module: Any, case: Split, kind: str) -> dict[str, bytes]:
    """Forward of x (M,K) and w (N,K), backward with dy (M,K) and w transposed: K is the depth of both."""
    __tracebackhide__ = True
    arrays, exact = Arrays(case.dtype, case.offset), kind == "integers"
    x, w, bias = (arrays.drawn(kind, s, i) for i, s in enumerate([(case.M, case.K), (case.N, case.K), (case.N,)]))
    parts = module.linear_split_parts(case.N, case.K)
    assert (parts - 1) * 256 < case.K, "parts of 256 or more"
    truth = x @ w.T
    y, dx = arrays.wanted("y", (case.M, case.N)), arrays.wanted("dx", (case.M, case.N))
    partial = [arrays.memory.wanted("partial", (parts, case.M, case.N)) for _ in range(2)]
    few, given_bias = arrays.given("x", x), arrays.given("bias", bias) if case.bias else None
    module.linear_split_fprop(case.dtype, few, arrays.given("w", w), given_bias, y, case.relu, partial[0], 0)
    module.linear_split_dgrad(case.dtype, few, arrays.given("wT", w.T.copy()), dx, partial[1], 0)
    arrays.memory.check(f"{case}")
    expected = truth + bias if case.bias else truth
    expected = np.maximum(expected, 0) if case.relu else expected
    for name, found, wanted in (("y", y, expected), ("dx", dx, truth)):
        wanted = stored(wanted, case.dtype) if exact else wanted
        compare(found, wanted, case.K + 1, f"{case}: {name}", exact=exact)
    return {"y": y.tobytes(), "dx": dx.tobytes()}


def test_split_products(simt: ModuleType) -> None:
    for number, case in enumerate(sample(simt.flavour, SPLITS)):
        simt.set_order(ORDERS[number % len(ORDERS)])
        check_split(simt, case, ("integers", "normal")[number // 4 % 2])


def test_split_products_have_the_same_bits_in_any_order_and_at_any_address(simt: ModuleType) -> None:
    for case in sample(simt.flavour, SPLITS[:8:2]):
        seen = set()
        for order in (*ORDERS, "fwd"):
            simt.set_order(order)
            for offset in (0, 1):
                seen.add(tuple(check_split(simt, replace(case, offset=offset), "normal").values()))
        assert len(seen) == 1, case


def test_a_row_has_the_same_bits_among_any_others(simt: ModuleType) -> None:
    x, w = (draw("normal", shape).astype(np.float32) for shape in ((40, 520), (12, 520)))
    parts = simt.linear_split_parts(12, 520)
    assert parts == 2

    def product(rows: Any) -> Any:
        y, partial = np.empty((len(rows), 12), np.float32), np.empty((parts, len(rows), 12), np.float32)
        simt.linear_split_fprop("float32", rows, w, None, y, False, partial, 0)
        return y

    together = product(x)
    for row in (0, 31, 39):
        assert product(x[row : row + 1].copy()).tobytes() == together[row].tobytes()


def test_parts_and_their_memory_are_bounded(simt: ModuleType) -> None:
    rng = np.random.default_rng(SEED)
    for _ in range(300):
        width, depth = (int(2 ** rng.uniform(0, 18)) for _ in range(2))
        parts = simt.linear_split_parts(width, depth)
        assert parts == 1 or (parts * width <= 1 << 18 and depth / parts > 128), (width, depth)
        rows, columns = (int(2 ** rng.uniform(0, 20)) for _ in range(2))
        parts = simt.column_sums_parts(rows, columns)
        assert parts == 1 or parts * columns * 4 < 4 << 20, (rows, columns)


# --------------------------------------------------------------------------------------------------------- column sums

COLUMNS = [
    *({"rows": 40, "columns": 136, "dtype": dtype, "offset": offset} for dtype in DTYPES for offset in (0, 1)),
    *pairwise(
        {
            "rows": (0, 1, 2, 7, 31, 33, 129, 700),
            "columns": (1, 2, 3, 4, 8, 31, 32, 33, 127, 128, 264),
            "dtype": DTYPES,
            "offset": (0, 0, 1, 4, 8),
        },
        SEED,
    ),
]


def check_columns(module: Any, rows: int, columns: int, dtype: str, offset: int, kind: str) -> bytes:
    __tracebackhide__ = True
    arrays, exact = Arrays(dtype, offset), kind == "integers"
    x = arrays.drawn(kind, (rows, columns))
    sums, parts = arrays.wanted("sums", (columns,)), module.column_sums_parts(rows, columns)
    partial = arrays.memory.wanted("partial", (parts, columns)) if parts > 1 else None
    module.column_sums(dtype, arrays.given("x", x), sums, partial, 0)
    arrays.memory.check(f"{rows} {columns} {dtype}")
    truth = stored(x.sum(0), dtype) if exact else x.sum(0)
    compare(sums, truth, rows, f"{rows} x {columns} {dtype} + {offset}", exact=exact)
    return bytes(sums.tobytes())


def test_column_sums(simt: ModuleType) -> None:
    assert simt.column_sums_parts(700, 8) > 1
    for number, case in enumerate(sample(simt.flavour, COLUMNS)):
        simt.set_order(ORDERS[number % len(ORDERS)])
        check_columns(simt, **case, kind=("integers", "normal")[number // 4 % 2])


def test_column_sums_have_the_same_bits_in_any_order(simt: ModuleType) -> None:
    for case in (("float32", 700, 8), ("float16", 129, 64)):
        seen = set()
        for order in (*ORDERS, "fwd"):
            simt.set_order(order)
            seen.add(check_columns(simt, case[1], case[2], case[0], 0, "normal"))
        assert len(seen) == 1


# ----------------------------------------------------------------------------------------------- what is not accepted


def nudged(output: int) -> Any:
    def run(binding: Any, *arguments: Any) -> None:
        binding(*arguments)
        arguments[output].reshape(-1)[np.abs(arguments[output]).argmax()] *= 1.0001

    return run


WRONG = {
    "fprop: no bias": {"linear_split_fprop": lambda run, *a: run(*a[:3], None, *a[4:])},
    "fprop: no ReLU": {"linear_split_fprop": lambda run, *a: run(*a[:5], False, *a[6:])},
    "fprop: one part": {"linear_split_fprop": lambda run, *a: (run(*a), np.copyto(a[4], a[6][0]))},
    "fprop: one element": {"linear_split_fprop": nudged(4)},
    "dgrad: one element": {"linear_split_dgrad": nudged(3)},
    "dgrad: not run": {"linear_split_dgrad": lambda run, *a: None},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_split_is_caught(simt: ModuleType, wrong: str) -> None:
    case = Split(3, 9, 600, relu=True)
    check_split(simt, case, "normal")
    with pytest.raises(AssertionError, match=r"elements are wrong|never written"):
        check_split(Planted(simt, **WRONG[wrong]), case, "normal")


def test_a_wrong_sum_is_caught(simt: ModuleType) -> None:
    first = Planted(simt, column_sums=lambda run, *a: (run(*a), np.copyto(a[2], a[3][0])))
    with pytest.raises(AssertionError, match="elements are wrong"):
        check_columns(first, 700, 8, "float32", 0, "normal")


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    parts = simt.linear_split_parts(4, 600)

    def arrays() -> dict[str, Any]:
        shapes = {"x": (3, 600), "w": (4, 600), "bias": (4,), "y": (3, 4), "partial": (parts, 3, 4)}
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    y = np.full((3, 4), 7, np.float32)
    read_only = y.copy()
    read_only.flags.writeable = False
    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"x": np.zeros((3, 600))}, TypeError, r"linear: argument 'x' of shape \(3, 600\) must be float32"),
        ({"x": np.zeros((3, 5, 2), np.float32)}, ValueError, r"'x' of shape \(3, 5, 2\) must be a matrix"),
        ({"w": np.zeros((4, 599), np.float32)}, ValueError, r"'w' .*must have shape \(4, 600\): \(N,K\)"),
        ({"bias": np.zeros(3, np.float32)}, ValueError, r"'bias' .*must have shape \(4,\)"),
        ({"y": read_only}, ValueError, "'y' .*is read-only and would be written"),
        ({"x": np.zeros((3, 1200), np.float32)[:, ::2]}, ValueError, "'x' .*must be C-contiguous"),
        ({"partial": np.zeros((parts, 3, 5), np.float32)}, ValueError, "'partial' .*the sums of each part"),
        ({"partial": None}, TypeError, "'partial' must be an array"),
    ]
    for others, error, message in bad:
        given = arrays() | {"y": y} | others
        with pytest.raises(error, match=message):
            simt.linear_split_fprop(
                "float32", given["x"], given["w"], given["bias"], given["y"], False, given["partial"], 0
            )
        assert (y == 7).all(), message
    given = arrays()
    with pytest.raises(ValueError, match="overlap in memory"):
        simt.linear_split_fprop(
            "float32", given["x"], given["w"], None, given["partial"][0], False, given["partial"], 0
        )
    with pytest.raises(ValueError, match=r"'partial' must be an array of shape \(10, 8\)"):
        simt.column_sums("float32", np.zeros((700, 8), np.float32), np.zeros(8, np.float32), None, 0)
