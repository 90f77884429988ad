"""Positions of extrema, sorting, picking and running sums: kernels against plain loops, tensors against PyTorch."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn import backend
from gpucnn.ops import ordering as ops
from gpucnn.reference.ordering import CumsumProblem, PutProblem, SortProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck

NAN = math.nan
TIES = np.array([[3.0, 1, 3, -0.0, 0, NAN], [1, NAN, 2, NAN, 1, 2], [-math.inf, 0, math.inf, -math.inf, math.inf, 5]])
DTYPES = ["float64", "float32", "float16", "int16"]


def along(function: Any, array: np.ndarray, axis: int) -> np.ndarray:
    """function(list) -> list for every row along `axis`."""
    moved = np.moveaxis(array, axis, -1)
    found = np.array([function(row.tolist()) for row in moved.reshape(-1, moved.shape[-1])])
    return np.moveaxis(found.reshape(*moved.shape[:-1], -1), -1, axis)


def sorted_positions(row: list[float], descending: bool = False) -> list[int]:
    """Insertion of one position after another; a NaN is greater than any number."""

    def before(a: float, b: float) -> bool:
        if descending:
            a, b = b, a
        return not math.isnan(a) and (math.isnan(b) or a < b)

    order: list[int] = []
    for position, value in enumerate(row):
        place = next((i for i, other in enumerate(order) if before(value, row[other])), len(order))
        order.insert(place, position)
    return order


def first_extremum(row: list[float], largest: bool) -> list[int]:
    best = 0
    for position, value in enumerate(row):
        better = value > row[best] if largest else value < row[best]
        if not math.isnan(row[best]) and (better or math.isnan(value)):
            best = position
    return [best]


def cases(dtype: str) -> list[np.ndarray]:
    images = draw("integers", (2, 3, 4, 5))
    given = [images, TIES] if dtype != "int16" else [images]
    return [frozen(x, dtype) for x in given]


@functools.cache
def truth(what: str, number: int, axis: int) -> np.ndarray:
    x = [draw("integers", (2, 3, 4, 5)), TIES][number]
    run = {
        "argmax": lambda row: first_extremum(row, True),
        "argmin": lambda row: first_extremum(row, False),
        "up": sorted_positions,
        "down": lambda row: sorted_positions(row, True),
    }[what]
    return along(run, x, axis)


def check_kernels(dtype: str) -> None:
    __tracebackhide__ = True
    for number, x in enumerate(cases(dtype)):
        for axis in range(x.ndim):
            for table, what, problem in (
                (ops.argmax, "argmax", axis),
                (ops.argmin, "argmin", axis),
                (ops.argsort, "up", SortProblem(axis, False)),
                (ops.argsort, "down", SortProblem(axis, True)),
            ):
                for kernel, found in each_kernel(table, problem, x):
                    assert_equal(found, truth(what, number, axis), dtype="int64", name=f"{kernel} {dtype}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kernel_that_finds_positions(dtype: str) -> None:
    check_kernels(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kernel_that_picks_and_puts(dtype: str) -> None:
    x = frozen(draw("integers", (2, 3, 4)), dtype)
    for axis in range(3):
        index = frozen(along(lambda row: [1, 0], x, axis))
        picked = along(lambda row: [row[1], row[0]], x, axis).astype(dtype)
        for kernel, found in each_kernel(ops.take, axis, x, index):
            assert_equal(found, picked, name=kernel)
        size = x.shape[axis]
        back = along(lambda row, size=size: [row[1], row[0]] + [0] * (size - 2), picked, axis).astype(dtype)
        for kernel, found in each_kernel(ops.put, PutProblem(axis, size), frozen(picked), index):
            assert_equal(found, back, name=kernel)


@pytest.mark.parametrize(("dtype", "backwards"), [*itertools.product(DTYPES[:3], (False, True)), ("int16", False)])
def test_every_kernel_of_running_sums(dtype: str, backwards: bool) -> None:
    """Backwards is the gradient, which integers have none of."""
    x = frozen(draw("integers", (2, 3, 4)), dtype)
    step = -1 if backwards else 1
    for axis in range(3):
        expected = along(lambda row: [sum(row[::step][: i + 1]) for i in range(len(row))][::step], x, axis)
        for kernel, found in each_kernel(ops.cumsum, CumsumProblem(axis, backwards), x):
            assert_equal(found, expected.astype("int64" if dtype == "int16" else dtype), name=kernel)


def test_these_are_all_kernels() -> None:
    for table in (ops.argmax, ops.argmin, ops.argsort, ops.take, ops.put, ops.cumsum):
        assert names(table) == ["array"]
    compiled = {table: [spec.name for spec in table.specs("cuda")] for table in (ops.argmax, ops.argmin, ops.cumsum)}
    assert set(map(tuple, compiled.values())) == {("rows_or_columns",)}
    assert [spec.name for table in (ops.take, ops.put) for spec in table.specs("cuda")] == ["elements"] * 2
    assert ops.argsort.specs("cuda") == ()


def test_long_running_sums_keep_their_digits() -> None:
    x = gpucnn.tensor(np.full(100_000, 0.1), "float32")
    exact = np.cumsum(x.numpy().astype("float64"))
    assert_close(x.cumsum(0), exact, rtol=1e-7, atol=0)
    half = gpucnn.tensor(np.full(100_000, 0.1), "float16")
    assert_close(half.cumsum(0), np.cumsum(half.numpy().astype("float64")), rtol=1e-3, atol=0)


# ------------------------------------------------------------------------------------------------ against PyTorch

CALLS: dict[str, Any] = {
    "max": lambda t, d: t.max(d),
    "min keepdim": lambda t, d: t.min(d, True),
    "sort": lambda t, d: t.sort(stable=True, dim=d),
    "sort down": lambda t, d: t.sort(stable=True, dim=d, descending=True),
    "topk": lambda t, d: t.topk(2, d),
    "topk of the least": lambda t, d: t.topk(2, d, False),
    "cumsum": lambda t, d: t.cumsum(d),
    "argmax": lambda t, d: t.argmax(d),
    "argmin keepdim": lambda t, d: t.argmin(d, True),
}


@pytest.mark.peers
@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_pytorchs(name: str, dim: int, torch: Any) -> None:
    for kind in ("normal", "integers"):
        if kind == "integers" and "topk" in name:
            continue  # which of equal elements it takes PyTorch leaves open
        x = draw(kind, (2, 3, 4, 5))
        ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        found, expected = CALLS[name](ours, dim), CALLS[name](theirs, dim)
        found, expected = (r if isinstance(r, tuple) else (r,) for r in (found, expected))
        for mine, other in zip(found, expected, strict=True):
            assert_equal(mine, other.detach().numpy()) if name != "cumsum" else assert_close(
                mine, other.detach(), rtol=1e-14, atol=1e-14
            )
        if found[0].requires_grad:
            dy = draw("integers", found[0].shape, 1)
            found[0].backward(dy)
            expected[0].backward(torch.tensor(dy))
            assert_equal(ours.grad, theirs.grad, signed_zeros=False)


@pytest.mark.peers
def test_nan_and_ties_as_in_pytorch(torch: Any) -> None:
    ours, theirs = gpucnn.tensor(TIES), torch.tensor(TIES)
    for run in (
        lambda t: t.max(1),
        lambda t: t.min(1),
        lambda t: t.sort(stable=True, dim=1),
        lambda t: t.sort(stable=True, dim=1, descending=True),
    ):
        for mine, other in zip(run(ours), run(theirs), strict=True):
            assert_equal(mine, other.numpy())


@pytest.mark.peers
def test_a_tensor_without_axes_has_the_axis_0_as_in_pytorch(torch: Any) -> None:
    for run in (
        lambda t: t.max(0),
        lambda t: t.min(-1, True),
        lambda t: t.sort(0),
        lambda t: t.topk(1, 0),
        lambda t: t.topk(1),
        lambda t: (t.cumsum(-1), t.argsort(0)),
        lambda t: (t.max(), t.argmax(0)),
    ):
        ours, theirs = gpucnn.tensor(np.array(3.0), requires_grad=True), torch.tensor(3.0, requires_grad=True)
        for mine, other in zip(run(ours), run(theirs), strict=True):
            assert mine.shape == tuple(other.shape) == ()
            assert mine.item() == other.item()
        run(ours)[0].backward()
        assert ours.grad.item() == 1


def test_results_have_names() -> None:
    x = gpucnn.tensor([[1.0, 5.0, 3.0]])
    top = x.topk(2)
    assert (top.values.tolist(), top.indices.tolist()) == ([[5, 3]], [[1, 2]])
    values, indices = x.max(1)
    assert (values.item(), indices.item()) == (5, 1)
    assert (indices.dtype, indices.requires_grad) == (np.int64, False)


def test_max_of_two_tensors_is_their_maximum() -> None:
    a, b = gpucnn.tensor([1.0, 4.0]), gpucnn.tensor([3.0, 2.0])
    assert a.max(b).tolist() == [3, 4]
    assert a.min(b).tolist() == [1, 2]


def test_the_gradient_goes_to_the_position_taken() -> None:
    x = gpucnn.tensor([[2.0, 2.0, 1.0]], requires_grad=True)
    x.max(1).values.sum().backward()
    assert x.grad.tolist() == [[1, 0, 0]]
    x.grad = None
    x.max().backward()
    assert x.grad.tolist() == [[0.5, 0.5, 0]]


@pytest.mark.parametrize(
    "run",
    [
        lambda t: t.max(1).values * t.min(3, True).values,
        lambda t: t.sort(2).values.cumsum(1),
        lambda t: t.topk(2, 1)[0],
    ],
    ids=["extrema", "sort", "topk"],
)
def test_gradients_are_central_differences(run: Any) -> None:
    numbers = np.random.default_rng(1).permutation(24).reshape(2, 2, 2, 3) / 10  # none within the step of another
    assert gradcheck(run, [gpucnn.tensor(numbers, requires_grad=True)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_is_taken(layout: str) -> None:
    x = draw("normal", (2, 3, 4, 5))
    t = gpucnn.Tensor(LAYOUTS[layout](x))
    for axis in range(4):
        assert_equal(t.sort(axis).values, np.sort(x, axis))
        assert_equal(t.argmax(axis), x.argmax(axis))
        assert_close(t.cumsum(axis), x.cumsum(axis), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("dim", [0, 1, 2, 3])
def test_channels_last_stays_channels_last_without_a_copy(dim: int) -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = (x * 2).sort(dim).values.cumsum(dim) * x.max(dim, keepdim=True).values
        y.backward(y.detach())
    assert copies.value == 0
    for tensor in (y, x.grad):
        assert tensor.data.transpose(NHWC).flags.c_contiguous


def test_what_does_not_fit_is_refused() -> None:
    x = gpucnn.zeros(2, 3)
    for k in (-1, 4):
        with pytest.raises(ValueError, match=f"topk: k must lie between 0 and the size 3 of axis 1, got {k}"):
            x.topk(k)
    for run in (lambda: x.sort(2), lambda: x.cumsum(-3), lambda: x.max(2), lambda: x.argsort(5), lambda: x.topk(1, 2)):
        with pytest.raises(ValueError, match="out of range"):
            run()
    with pytest.raises(TypeError, match="an axis must be an integer"):
        x.max((0, 1))
    with pytest.raises(ValueError, match=r"argmin: a tensor of shape \(0, 3\) has no smallest element"):
        x[:0].argmin(0)
    assert x[:0].sort(0).values.shape == (0, 3)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (ops.argmax, lambda axis, x: x.shape[axis] - 1 - np.flip(x, axis).argmax(axis, keepdims=True)),
        (ops.argmin, lambda axis, x: np.expand_dims(np.where(np.isnan(x), np.inf, x).argmin(axis), axis)),
        (ops.argsort, lambda p, x: np.argsort(-x if p.descending else x, axis=p.axis, kind="stable")),
        (ops.argsort, lambda p, x: np.flip(np.argsort(x, axis=p.axis, kind="stable"), p.axis)),
    ],
    ids=["last-of-ties", "nan-passed-over", "nan-last", "order-of-ties"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted float32: .* elements are wrong"):
        check_kernels("float32")
