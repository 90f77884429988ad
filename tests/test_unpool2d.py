"""Maximum unpooling: every kernel against the truth, F.max_unpool2d with gradients against PyTorch, corners."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NCHW, SEED, check_no_copies, check_threads, draw, each_kernel, names, nhwc, plant

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.ops import unpool2d as ops
from gpucnn.reference import unpool2d as reference
from gpucnn.reference.unpool2d import Unpool2dProblem
from gpucnn.testing import assert_equal, gradcheck, naive

Case = tuple[int, int, int, int, int, int]
"""N, C, P, Q, H, W."""

CASES: list[Case] = [
    (2, 3, 2, 3, 4, 6),
    (1, 1, 1, 1, 1, 1),
    (0, 2, 2, 2, 4, 4),
    (1, 2, 5, 7, 3, 2),  # more values than places
    (3, 7, 3, 4, 7, 9),
    (1, 33, 4, 4, 5, 3),
    (2, 1, 1, 9, 2, 31),
]


@functools.cache
def truth(case: Case, repeated: bool) -> tuple[np.ndarray, ...]:
    """x, indices (each place once, or drawn with replacement), y, dy, dx."""
    N, C, P, Q, H, W = case
    rng = np.random.default_rng([SEED, *case])
    x, dy = draw("normal", (N, C, P, Q)), draw("normal", (N, C, H, W), 1)
    count, places = P * Q, H * W
    chosen = [rng.choice(places, count, replace=repeated or count > places) for _ in range(N * C)]
    indices = np.array(chosen, np.int64).reshape(x.shape)
    return x, indices, naive.max_unpool2d(x, indices, (H, W)), dy, naive.max_unpool2d_grad(dy, indices)


def check(case: Case, repeated: bool, dtype: str) -> None:
    """Values are moved and none is changed: exact in every dtype."""
    __tracebackhide__ = True
    N, C, P, Q, H, W = case
    x, indices, y, dy, dx = truth(case, repeated)
    p = Unpool2dProblem(N, P, Q, C, H, W)
    for table, array, expected in ((ops.unpool_fprop, x, y), (ops.unpool_dgrad, dy, dx)):
        for name, found in each_kernel(table, p, nhwc(array, dtype), nhwc(indices)):
            assert found.flags.c_contiguous, name
            assert_equal(found.transpose(NCHW), expected.astype(dtype), dtype=dtype, name=name)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("repeated", [False, True], ids=["once", "repeated"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_every_kernel(case: Case, repeated: bool, dtype: str) -> None:
    check(case, repeated, dtype)


def test_these_are_all_kernels() -> None:
    assert names(ops.unpool_fprop) == ["scatter"]
    assert names(ops.unpool_dgrad) == ["gather"]


@pytest.mark.usefixtures("many_blocks")
def test_the_number_of_threads_changes_no_bit() -> None:
    p = Unpool2dProblem(5, 4, 3, 3, 3, 3)
    x, dy = draw("normal", (5, 4, 3, 3)), draw("normal", (5, 3, 3, 3))
    indices = np.random.default_rng(SEED).integers(0, 9, x.shape)
    check_threads(lambda: [reference.unpool_fprop(p, x, indices), reference.unpool_dgrad(p, dy, indices)])


# ----------------------------------------------------------------------------------------------------- against PyTorch

POOLINGS: list[tuple[Any, ...]] = [
    ((6, 8), 2, None, 0),
    ((7, 9), 2, 2, 0),
    ((9, 7), 3, 2, 1),
    ((8, 9), (2, 3), (2, 3), (1, 0)),
    ((5, 6), (1, 2), (1, 2), 0),
    ((8, 8), 3, 1, 0),  # windows overlap: an index may come twice
]


@pytest.mark.peers
@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_unpooling_a_pooling_is_pytorchs(pooling: tuple[Any, ...], torch: Any) -> None:
    size, *arguments = pooling
    image = np.random.default_rng(SEED).permutation(6 * size[0] * size[1]).reshape(2, 3, *size) / 8
    theirs, places = torch.nn.functional.max_pool2d(torch.tensor(image), *arguments, return_indices=True)
    ours, indices = F.max_pool2d(gpucnn.tensor(image), *arguments, return_indices=True)
    ours, theirs = ours.requires_grad_(), theirs.requires_grad_()
    y = F.max_unpool2d(ours, indices, *arguments, output_size=size)
    expected = torch.nn.functional.max_unpool2d(theirs, places, *arguments, output_size=size)
    dy = draw("normal", (2, 3, *size))
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_equal(y, expected.detach(), name="y")
    assert_equal(ours.grad, theirs.grad, name="dx")


@pytest.mark.peers
def test_of_repeated_indices_the_last_stays_and_all_get_the_gradient(torch: Any) -> None:
    values, places, dy = [[[[1.0, 2.0], [3.0, 4.0]]]], [[[[3, 3], [0, 3]]]], np.arange(16.0).reshape(1, 1, 4, 4)
    ours, theirs = gpucnn.tensor(np.array(values), requires_grad=True), torch.tensor(values).double().requires_grad_()
    y = F.max_unpool2d(ours, gpucnn.tensor(np.array(places)), 2)
    expected = torch.nn.functional.max_unpool2d(theirs, torch.tensor(places), 2)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert y.numpy()[0, 0, 0].tolist() == [3, 0, 0, 4]
    assert_equal(y, expected.detach())
    assert_equal(ours.grad, theirs.grad)
    assert ours.grad.tolist() == [[[[3, 3], [0, 3]]]]


# ------------------------------------------------------------------------------------------ sizes, gradients, layouts


def some(dtype: str = "float64") -> tuple[gpucnn.Tensor, gpucnn.Tensor]:
    """(2,3,2,3) values and indices into 4 x 6."""
    x, indices, *_ = truth(CASES[0], repeated=False)
    return gpucnn.tensor(x, dtype, requires_grad=True), gpucnn.tensor(indices)


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ((2,), (4, 6)),
        (((3, 2), (2, 3)), (5, 8)),
        ((5, 4, (1, 2)), (7, 9)),
        ((2, None, 0, (5, 7)), (5, 7)),
        ((2, 2, 0, [4, 6]), (4, 6)),
        ((2, 3, 0, (2, 3, 7, 6)), (7, 6)),
        (([2, 2], [3, 3], [0, 0], None), (5, 8)),
    ],
    ids=str,
)
def test_output_sizes(arguments: tuple[Any, ...], size: tuple[int, int]) -> None:
    x, _ = some()
    indices = gpucnn.tensor(truth((2, 3, 2, 3, 2, 3), repeated=False)[1])
    y = F.max_unpool2d(x, indices, *arguments)
    assert_equal(y, naive.max_unpool2d(x.numpy(), indices.numpy(), size))
    assert_equal(F.max_unpool2d(x[0], indices[0], *arguments), y.numpy()[0])


def test_gradients_are_central_differences() -> None:
    x, indices = some()
    assert gradcheck(lambda values: F.max_unpool2d(values, indices, 2), [x])
    assert gradcheck(lambda values: F.max_unpool2d(values, indices[0], 2), [gpucnn.tensor(x[0], requires_grad=True)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["x", "indices", "dy"])
def test_any_memory_layout_is_taken(operand: str, layout: str) -> None:
    x, indices, y, dy, dx = truth(CASES[0], repeated=False)
    x, indices, dy = (
        LAYOUTS[layout](a) if name == operand else a.copy() for name, a in (("x", x), ("indices", indices), ("dy", dy))
    )
    leaf = gpucnn.Tensor(x, requires_grad=True)
    found = F.max_unpool2d(leaf, gpucnn.Tensor(indices), 2)
    found.backward(dy)
    assert_equal(found, y)
    assert_equal(leaf.grad, dx)


def test_channels_last_stays_channels_last_without_a_copy() -> None:
    _, indices = F.max_pool2d(gpucnn.tensor(draw("normal", (2, 3, 4, 6))), 2, return_indices=True)
    check_no_copies(lambda x: F.max_unpool2d(x, indices, 2), (2, 3, 2, 3))


def test_an_empty_batch() -> None:
    x = gpucnn.zeros(0, 3, 2, 2, dtype="float16", requires_grad=True)
    y = F.max_unpool2d(x, gpucnn.tensor(np.zeros(x.shape, np.int64)), 2)
    assert (y.shape, y.dtype) == ((0, 3, 4, 4), np.dtype("float16"))
    y.backward(np.zeros(y.shape, np.float16))
    assert x.grad.shape == x.shape


def test_the_layer() -> None:
    x, indices = some()
    layer = nn.MaxUnpool2d(2)
    assert repr(layer) == "MaxUnpool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0))"
    assert_equal(layer(x, indices), F.max_unpool2d(x, indices, 2).numpy())
    assert layer(x, indices, output_size=(5, 7)).shape == (2, 3, 5, 7)
    assert nn.MaxUnpool2d((3, 2), 2, (1, 0)).padding == (1, 0)
    with pytest.raises(ValueError, match="MaxUnpool2d: stride must be at least 1, got 0"):
        nn.MaxUnpool2d(2, 0)


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("index", [-1, 24, 10**12, -(10**12)])
def test_an_index_outside_the_output(index: int) -> None:
    x, indices = some()
    wrong = indices.numpy().copy()
    wrong[1, 2, 0, 1] = index
    with pytest.raises(ValueError, match=rf"index {index} at \(1, 2, 0, 1\) lies outside the output of 4 x 6 = 24"):
        F.max_unpool2d(x, gpucnn.Tensor(LAYOUTS["nhwc"](wrong)), 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "kernel_size must be at least 1, got 0"),
        ((2, 0), ValueError, "stride must be at least 1, got 0"),
        ((2, 2, -1), ValueError, "padding must not be negative, got -1"),
        ((2.0,), TypeError, "kernel_size must be an integer, got 2.0"),
        ((2, 2, 3), ValueError, "padding=3 leaves an output of -2 x 0"),
        (
            (2, 2, 0, (6, 6)),
            ValueError,
            r"output_size=\(6, 6\) must lie less than the stride \(2, 2\) away from \(4, 6\)",
        ),
        ((2, 2, 0, (4, 4)), ValueError, r"output_size=\(4, 4\) must lie less"),
        ((2, 2, 0, (4, 5, 6)), ValueError, r"output_size must be \(H, W\) or \(N, C, H, W\), got \(4, 5, 6\)"),
        ((2, 2, 0, 5), ValueError, r"output_size must be \(H, W\)"),
        ((2, 2, 0, (4.0, 6)), TypeError, "output_size must be an integer, got 4.0"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^max_unpool2d: .*{message}"):
        F.max_unpool2d(*some(), *arguments)


def test_bad_tensors() -> None:
    x, indices = some()
    for wrong in (indices.to("int32"), indices.to("float64")):
        with pytest.raises(TypeError, match=f"indices must be int64, as max_pool2d returns them, got {wrong.dtype}"):
            F.max_unpool2d(x, wrong, 2)
    with pytest.raises(TypeError, match=r"indices must be a gpucnn.Tensor, got ndarray"):
        F.max_unpool2d(x, indices.numpy(), 2)
    with pytest.raises(TypeError, match="input must have a floating dtype, got int64"):
        F.max_unpool2d(indices, indices, 2)
    with pytest.raises(ValueError, match=r"indices \(1, 3, 2, 3\) must have the shape of input \(2, 3, 2, 3\)"):
        F.max_unpool2d(x, indices[:1], 2)
    with pytest.raises(ValueError, match=r"input must have shape \(N, C, P, Q\) or \(C, P, Q\), got \(2, 3\)"):
        F.max_unpool2d(x[0, 0], indices[0, 0], 2)
    with pytest.raises(ValueError, match=r"must not be empty, got input \(2, 0, 2, 3\)"):
        F.max_unpool2d(x[:, :0], indices[:, :0], 2)


# ------------------------------------------------------------------------------------- wrong kernels must be caught


def first_stays(p: Unpool2dProblem, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return reference.unpool_fprop(p, x[:, ::-1, ::-1], indices[:, ::-1, ::-1])


def repeated_add_up(p: Unpool2dProblem, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    y = np.zeros((p.N, p.H * p.W, p.C), x.dtype)
    for n, a, b, c in np.ndindex(x.shape):
        y[n, indices[n, a, b, c], c] += x[n, a, b, c]
    return y.reshape(p.N, p.H, p.W, p.C)


def neighbouring_channel(p: Unpool2dProblem, dy: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.roll(reference.unpool_dgrad(p, dy, indices), 1, axis=3)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (ops.unpool_fprop, first_stays),
        (ops.unpool_fprop, repeated_add_up),
        (ops.unpool_dgrad, neighbouring_channel),
    ],
    ids=["first-stays", "repeated-add-up", "neighbouring-channel"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check(CASES[3], True, "float32")
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted.* elements are wrong"):
        check(CASES[3], True, "float32")
