"""Batches of products on the CPU, in any order of threads; and matmul, whichever kernels it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Arrays, Planted, sample, stored
from op_checks import SEED, compare, draw

import gpucnn
from gpucnn.ops import matmul as ops
from gpucnn.testing import assert_equal, naive
from gpucnn.testing.pairwise import pairwise

DTYPES = ("float32", "float16", "bfloat16")

# ------------------------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True)
class Batched:
    M: int
    N: int
    K: int
    batch: tuple[int, ...] = (3,)
    a_batch: tuple[int, ...] | None = None  # None: the whole batch
    b_batch: tuple[int, ...] | None = None
    transposed_a: bool = False
    transposed_b: bool = False
    dtype: str = "float32"
    offset: int = 0

    @property
    def operands(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (
            self.batch if self.a_batch is None else self.a_batch,
            self.batch if self.b_batch is None else self.b_batch,
        )


BATCHED = [
    *(
        Batched(16, 72, 24, (2,), None, None, *transposed, dtype, offset)
        for dtype in DTYPES
        for offset in (0, 1)
        for transposed in ((False, False), (False, True), (True, False), (True, True))
    ),
    Batched(4, 5, 6),
    Batched(65, 64, 16, (2,), transposed_a=True),
    Batched(8, 72, 24, (2, 2), (2, 1), transposed_b=True),
    Batched(16, 8, 40, (2, 3), (3,), (2, 1), True, True, "float16"),
    Batched(3, 3, 3, (2, 2, 2, 2), (2, 1, 2, 1), (2, 1, 2), dtype="bfloat16"),
    Batched(7, 9, 0, (2,)),
    Batched(4, 4, 4, (0,)),
    *(
        Batched(**case)
        for case in pairwise(
            {
                "M": (1, 3, 8, 31, 64, 65),
                "N": (1, 2, 8, 33, 64, 72),
                "K": (1, 7, 8, 16, 17, 48),
                "batch": ((1,), (3,), (2, 2)),
                "transposed_a": (True, False),
                "transposed_b": (True, False),
                "dtype": DTYPES,
                "offset": (0, 0, 1, 8),
            },
            SEED,
        )
    ),
]


def check_batched(module: Any, case: Batched, kind: str) -> bytes:
    __tracebackhide__ = True
    arrays, exact = Arrays(case.dtype, case.offset), kind == "integers"
    of_a, of_b = case.operands
    a = arrays.drawn(kind, (*of_a, case.M, case.K))
    b = arrays.drawn(kind, (*of_b, case.K, case.N), 1)
    sizes, steps = ops._walk(case.batch, of_a, of_b)
    y = arrays.wanted("y", (math.prod(case.batch), case.M, case.N))

    def laid_out(name: str, array: np.ndarray, transposed: bool) -> Any:
        array = array.swapaxes(-1, -2) if transposed else array
        return arrays.given(name, array.reshape(math.prod(array.shape[:-2]), *array.shape[-2:]))

    left, right = laid_out("a", a, case.transposed_a), laid_out("b", b, case.transposed_b)
    module.matmul_batched(case.dtype, left, case.transposed_a, right, case.transposed_b, y, sizes, *steps, 0)
    arrays.memory.check(f"{case}")
    truth = np.matmul(a, b)
    compare(
        y.reshape(*case.batch, case.M, case.N),
        stored(truth, case.dtype) if exact else truth,
        max(1, case.K),
        f"{case}",
        exact=exact,
    )
    return bytes(y.tobytes())


def test_batches_of_products(simt: ModuleType) -> None:
    for number, case in enumerate(sample(simt.flavour, BATCHED)):
        simt.set_order(ORDERS[number % len(ORDERS)])
        check_batched(simt, case, ("integers", "normal")[number // 4 % 2])


def test_batches_have_the_same_bits_in_any_order(simt: ModuleType) -> None:
    for case in sample(simt.flavour, BATCHED[:24:7]):
        seen = set()
        for order in (*ORDERS, "fwd"):
            simt.set_order(order)
            seen.add(check_batched(simt, case, "normal"))
        assert len(seen) == 1, case


# -------------------------------------------------------------------------------------------------------------- matmul

SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((5, 6), (6, 7)),
    ((3, 600), (600, 9)),  # split
    ((70, 600), (600, 1)),
    ((600,), (600, 9)),
    ((9, 600), (600,)),
    ((2, 3, 5), (5, 4)),
    ((2, 3, 5), (2, 5, 4)),
    ((2, 1, 3, 5), (4, 5, 2)),
    ((2, 1, 2, 1, 2, 3, 2), (2, 1, 2, 1, 2, 2, 3)),  # five axes that do not go together
    ((0, 3, 5), (5, 4)),
    ((0, 3, 0), (0, 4)),
    ((2, 3, 0), (2, 0, 4)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("swapped", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_matmul_and_its_gradients(simt: ModuleType, shapes: Any, swapped: tuple[bool, bool]) -> None:
    """With operands as they lie and transposed in memory; strict, so that nothing falls to the reference."""
    if simt.flavour != "plain" and math.prod(shapes[0]) > 100:
        return  # too large for this flavour
    leaves = []
    for shape, turned, stream in zip(shapes, swapped, (0, 1), strict=True):
        array = draw("integers", shape, stream).astype(np.float32)
        turn = turned and array.ndim > 1
        lying = np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2) if turn else array
        leaves.append(gpucnn.Tensor(lying, requires_grad=True))
    y = leaves[0] @ leaves[1]
    dy = draw("integers", y.shape, 2).astype(np.float32)
    y.backward(dy)
    expected = np.matmul(*(leaf.numpy().astype(np.float64) for leaf in leaves))
    assert_equal(y, expected.astype(np.float32), signed_zeros=False)
    a, b = (leaf.numpy() for leaf in leaves)
    wide_a, wide_b = a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b
    wide_dy = dy.reshape(np.matmul(wide_a, wide_b).shape)
    for leaf, truth in zip(leaves, naive.matmul_grad(wide_dy, wide_a, wide_b), strict=True):
        assert_equal(leaf.grad, truth.astype(np.float32).reshape(leaf.shape), signed_zeros=False)


# ----------------------------------------------------------------------------------------------- what is not accepted


def test_a_wrong_batch_is_caught(simt: ModuleType) -> None:
    swapped = Planted(simt, matmul_batched=lambda run, t, a, *rest: run(t, a[::-1].copy(), *rest))
    with pytest.raises(AssertionError, match="elements are wrong"):
        check_batched(swapped, BATCHED[0], "normal")


@pytest.mark.parametrize(
    ("batch", "a_steps", "message"),
    [
        ([2], [2], "lead out of the 2 matrices of 'a'"),
        ([2], [-1], "lead out of the 2 matrices of 'a'"),
        ([2], [1, 1], "lead out of the 2 matrices of 'a'"),
        ([1, 1, 1, 1, 2], [0, 0, 0, 0, 1], "a batch of at most 4 axes"),
        ([1 << 31], [0], r"a batch of less than 2\^31 matrices"),
        ([3], [0], r"'y' of shape \(2, 3, 3\) must have shape \(3, 3, 3\)"),
    ],
)
def test_steps_out_of_a_batch_are_refused(simt: ModuleType, batch: Any, a_steps: Any, message: str) -> None:
    a = np.zeros((2, 3, 3), np.float32)
    y = np.full_like(a, 7)
    with pytest.raises(ValueError, match=message):
        simt.matmul_batched("float32", a, False, a, False, y, batch, a_steps, [0] * len(batch), 0)
    assert (y == 7).all()
