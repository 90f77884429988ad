"""Products of vectors, matrices and batches: kernels against loops, tensors and gradients against PyTorch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, SEED, compare, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn import backend
from gpucnn.ops import matmul as ops
from gpucnn.reference import matmul as reference
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

DTYPES = ["float64", "float32", "float16"]
MATRICES = [
    ((2, 3), (3, 4)),
    ((1, 7), (7, 1)),
    ((31, 33), (33, 2)),
    ((2, 4, 3), (3, 5)),
    ((2, 3), (4, 3, 5)),
    ((4, 2, 3), (4, 3, 5)),
    ((1, 2, 3), (4, 3, 5)),
    ((3, 1, 2, 3), (4, 3, 2)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
    ((0, 2, 3), (0, 3, 4)),
]
VECTORS = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((6, 5, 2, 3), (3,)),
    ((3,), (6, 5, 3, 4)),
    ((0,), (0,)),
]


@functools.cache
def truth(shapes: tuple[Any, Any], kind: str) -> tuple[np.ndarray, ...]:
    """(a, b, y, dy, da, db)."""
    a, b = draw(kind, shapes[0]), draw(kind, shapes[1], 1)
    y = naive.matmul(a, b)
    dy = draw(kind, y.shape, 2)
    return a, b, y, dy, *naive.matmul_grad(dy, a, b)


def check_kernels(shapes: tuple[Any, Any], kind: str, dtype: str) -> None:
    __tracebackhide__ = True
    a, b, y, *_ = truth(shapes, kind)
    for kernel, found in each_kernel(ops.matmul, None, frozen(a, dtype), frozen(b, dtype)):
        assert found.dtype == dtype, kernel
        compare(found, y, shapes[0][-1], f"{kernel} {dtype}", exact=kind == "integers")


@pytest.mark.parametrize("shapes", MATRICES, ids=str)
def test_every_kernel(shapes: Any) -> None:
    for dtype in DTYPES:
        for kind in ("integers", "normal"):
            check_kernels(shapes, kind, dtype)


def test_these_are_all_kernels() -> None:
    assert names(ops.matmul) == ["blas"]


@pytest.mark.parametrize("shapes", MATRICES, ids=str)
def test_gradients_of_matrices(shapes: Any) -> None:
    for dtype in DTYPES:
        a, b, y, dy, da, db = truth(shapes, "normal")
        x, w = (gpucnn.tensor(array, dtype, requires_grad=True) for array in (a, b))
        found = x @ w
        found.backward(dy)
        terms = max(1, y.size)
        for result, expected in ((found, y), (x.grad, da), (w.grad, db)):
            assert result.dtype == dtype
            compare(result.numpy(), expected, terms, dtype)


@pytest.mark.peers
@pytest.mark.parametrize("shapes", MATRICES + VECTORS, ids=str)
def test_values_and_gradients_are_pytorchs(shapes: Any, torch: Any) -> None:
    a, b = draw("normal", shapes[0]), draw("normal", shapes[1], 1)
    for run in (lambda x, y, m: x @ y, lambda x, y, m: m.matmul(x, y), lambda x, y, m: x.matmul(y)):
        ours = [gpucnn.tensor(v, requires_grad=True) for v in (a, b)]
        theirs = [torch.tensor(v, requires_grad=True) for v in (a, b)]
        y, expected = run(*ours, gpucnn), run(*theirs, torch)
        assert y.shape == tuple(expected.shape)
        dy = draw("normal", y.shape, 2)
        y.backward(dy)
        expected.backward(torch.tensor(dy))
        assert_close(y, expected.detach(), rtol=1e-13, atol=1e-13)
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(mine.grad, other.grad, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((2, 2, 3), (3, 2)), ((2, 3), (2, 3, 2)), ((3,), (2, 3, 2))])
def test_gradients_are_central_differences(shapes: Any) -> None:
    inputs = [gpucnn.tensor(draw("normal", shape, i), requires_grad=True) for i, shape in enumerate(shapes)]
    assert gradcheck(lambda a, b: a @ b, inputs)


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_any_memory_layout_is_taken(first: str, second: str) -> None:
    a, b = draw("integers", (2, 3, 4, 5)), draw("integers", (2, 3, 5, 4), 1)
    x = gpucnn.Tensor(LAYOUTS[first](a), requires_grad=True)
    y = gpucnn.Tensor(LAYOUTS[second](b), requires_grad=True)
    z = x @ y
    z.backward(LAYOUTS[first](z.numpy()))
    assert_equal(z, a @ b, signed_zeros=False)
    assert_equal(x.grad, (a @ b) @ b.swapaxes(-1, -2), signed_zeros=False)
    assert_equal(y.grad, a.swapaxes(-1, -2) @ (a @ b), signed_zeros=False)


def test_transposed_matrices_are_multiplied_without_a_layout_copy() -> None:
    q, k = (gpucnn.tensor(draw("normal", (2, 5, 4), i), requires_grad=True) for i in range(2))
    with backend.count_layout_copies() as copies:
        (q @ k.transpose(1, 2)).sum().backward()
    assert copies.value == 0


@pytest.mark.parametrize(
    "shapes", [((40, 30, 20), (40, 20, 30)), ((6, 10, 30, 20), (10, 20, 30)), ((9, 30, 20), (20, 7))]
)
def test_large_batches_are_shared_among_threads_and_exact(shapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "is_large", lambda scratch, operations: True)
    monkeypatch.setattr(reference, "_PIECE_BYTES", 1 << 14)
    rng = np.random.default_rng([SEED, *shapes[0]])
    a, b = (rng.integers(-3, 4, shape).astype(np.float32) for shape in shapes)
    for kernel, found in each_kernel(ops.matmul, None, frozen(a), frozen(b)):
        assert_equal(
            found, (a.astype(np.int64) @ b.astype(np.int64)).astype(np.float32), signed_zeros=False, name=kernel
        )


def test_half_precision_is_multiplied_in_single() -> None:
    x = gpucnn.tensor(np.full((1, 4000), 0.1), "float16")
    assert (x @ x.transpose(0, 1)).item() == np.float16(4000 * float(np.float16(0.1)) ** 2)


def test_integers_and_arrays() -> None:
    a, b = np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 8]])
    for found in (gpucnn.tensor(a) @ gpucnn.tensor(b), gpucnn.tensor(a) @ b, a @ gpucnn.tensor(b)):
        assert type(found) is gpucnn.Tensor
        assert found.dtype == np.int64
        assert found.tolist() == (a @ b).tolist()


def test_what_does_not_fit_is_refused() -> None:
    t = gpucnn.zeros
    for a, b in ((t(2, 3), t(2, 3)), (t(3), t(4)), (t(2, 3), t(4)), (t(3), t(2, 4, 3)), (gpucnn.tensor(1.0), t(1))):
        with pytest.raises(ValueError, match=r"matmul: shapes .* do not go together"):
            a @ b
    with pytest.raises(ValueError, match=r"axes before the last two: shapes \(2,\) and \(3,\) do not broadcast"):
        t(2, 4, 5) @ t(3, 5, 4)
    with pytest.raises(TypeError, match="one dtype of numbers, got float32 and float64"):
        t(2, 3) @ t(3, 2, dtype="float64")
    with pytest.raises(TypeError, match="one dtype of numbers, got bool and bool"):
        t(2, 3, dtype="bool") @ t(3, 2, dtype="bool")
    with pytest.raises(ValueError, match="do not go together"):
        t(3) @ np.float32(2)
    for other in (None, "a"):
        with pytest.raises(TypeError):
            t(3) @ other


@pytest.mark.parametrize(
    "wrong",
    [
        lambda p, a, b: a[..., :-1] @ b[..., :-1, :],
        lambda p, a, b: (a.astype("float16") @ b.astype("float16")).astype(a.dtype),
        lambda p, a, b: np.swapaxes(np.swapaxes(b, -1, -2) @ np.swapaxes(a, -1, -2), -1, -2) * (1 + 2.0**-12),
    ],
    ids=["last-term-missing", "half-precision", "tf32"],
)
def test_a_wrong_kernel_is_caught(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, ops.matmul, wrong)
    with pytest.raises(AssertionError, match=r"matmul forward planted float32: .* elements are wrong"):
        check_kernels(((31, 33), (33, 2)), "normal", "float32")
