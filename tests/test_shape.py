"""Reshape, permute, parts, repetitions and putting together: values and gradients as PyTorch's, and copies only where
memory asks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.autograd import Context
from gpucnn.ops import shape as ops
from gpucnn.reference import shape as reference
from gpucnn.reference.shape import SplitProblem
from gpucnn.testing import assert_equal, gradcheck, naive

SHAPE = (2, 3, 4, 5)


CHANGES: dict[str, Any] = {
    "merge": lambda x: x.reshape(6, 20),
    "infer": lambda x: x.reshape(-1, 3, 2),
    "tuple": lambda x: x.reshape((4, -1)),
    "flatten": lambda x: x.flatten(),
    "flatten from 1": lambda x: x.flatten(1),
    "flatten 1 to 2": lambda x: x.flatten(1, 2),
    "to nhwc": lambda x: x.permute(0, 2, 3, 1),
    "permute": lambda x: x.permute(3, 1, 0, 2),
    "permute negative": lambda x: x.permute(-1, 0, 2, 1),
    "transpose": lambda x: x.transpose(1, -1),
    "unsqueeze": lambda x: x.unsqueeze(0),
    "unsqueeze last": lambda x: x.unsqueeze(-1),
    "squeeze": lambda x: x[:1].squeeze(0),
    "squeeze nothing": lambda x: x.squeeze(1),
    "one image": lambda x: x[1],
    "ellipsis": lambda x: x[..., 2],
    "slices": lambda x: x[:, ::2, 1:, -3:],
    "new axis": lambda x: x[:, None, 0],
    "rows twice": lambda x: x[[1, 0, 1]],
    "columns twice": lambda x: x[:, [2, 2, 2], 1],
    "pairs": lambda x: x[[0, 1, 1], :, [3, 3, 3]],
    "unflatten": lambda x: x.unflatten(2, (2, -1)),
    "unflatten last": lambda x: x.unflatten(-1, [1, 5]),
    "movedim": lambda x: x.movedim(1, -1),
    "movedim of two": lambda x: x.movedim((0, 1), (-1, 0)),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "narrow from the end": lambda x: x.narrow(3, -2, 1),
    "split": lambda x: x.split(2, 3)[2],
    "split in two": lambda x: x.split((1, 2), 1)[1],
    "chunk": lambda x: x.chunk(3, -1)[0],
    "unbind": lambda x: x.unbind(2)[-1],
    "expand": lambda x: x[:, :1].expand(-1, 6, 4, 5),
    "expand in front": lambda x: x.expand(2, 2, -1, 4, 5),
    "broadcast": lambda x: x[:, :, :, :1].broadcast_to((3, 2, 3, 4, 2)),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "repeat in front": lambda x: x.repeat((2, 1, 2, 1, 1)),
    "repeat not at all": lambda x: x.repeat(1, 0, 1, 1),
    "flip": lambda x: x.flip(1, -1),
    "flip images": lambda x: x.flip((0,)),
    "flip nothing": lambda x: x.flip(()),
    "roll": lambda x: x.roll(2, 1),
    "roll two": lambda x: x.roll((1, -7), (2, 3)),
    "roll twice": lambda x: x.roll((1, 1), (2, 2)),
    "roll all": lambda x: x.roll(-3),
}


@pytest.mark.peers
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CHANGES)
def test_values_and_gradients_are_pytorchs(name: str, layout: str, torch: Any) -> None:
    x = draw("normal", SHAPE)
    ours, theirs = gpucnn.Tensor(LAYOUTS[layout](x), requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = CHANGES[name](ours), CHANGES[name](theirs)
    dy = draw("integers", y.shape, 1)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_equal(y, expected.detach())
    assert_equal(ours.grad, theirs.grad, signed_zeros=False)


@pytest.mark.peers
def test_indexing_with_tensors_and_masks_is_pytorchs(torch: Any) -> None:
    x = draw("normal", (4, 5))
    keep, rows = x > 0, np.array([3, 0, 3])
    for index in (keep, rows, (rows, rows), (slice(None), rows)):
        ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        parts = index if isinstance(index, tuple) else (index,)
        y = ours[tuple(gpucnn.Tensor(p) if isinstance(p, np.ndarray) else p for p in parts)]
        expected = theirs[tuple(torch.tensor(p) if isinstance(p, np.ndarray) else p for p in parts)]
        (y * y).sum().backward()
        (expected * expected).sum().backward()
        assert_equal(y, expected.detach())
        assert_equal(ours.grad, theirs.grad, signed_zeros=False)


def test_gradients_are_central_differences() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 2, 3)), requires_grad=True)
    assert gradcheck(lambda t: t.permute(0, 2, 3, 1).reshape(4, 9)[[0, 3, 0], 1:].flatten() ** 2, [x])
    assert gradcheck(lambda t: (t[:, 0] * t.transpose(2, 3)[:, 1, :2, :2].sum((1, 2), True)).clone(), [x])


@pytest.mark.parametrize(
    ("change", "copies"),
    [
        (lambda x: x.flatten(1), 1),  # C,H,W out of H,W,C
        (lambda x: x.permute(0, 2, 3, 1).reshape(2, -1), 0),  # the order in which it lies
        (lambda x: x[1:].squeeze(0).unsqueeze(0), 0),
        (lambda x: x.reshape(2, 3, 20), 0),  # H and W together are a plain stride
        (lambda x: x.reshape(1, 2, 3, 4, 5), 0),
        (lambda x: x[..., :1, :1].flatten(1), 0),
    ],
    ids=["flatten", "flatten-nhwc", "unbatch", "merge-hw", "add-axis", "flatten-1x1"],
)
def test_only_what_memory_order_asks_for_is_copied(change: Any, copies: int) -> None:
    x = gpucnn.tensor(draw("normal", SHAPE))
    with backend.count_layout_copies() as counted:
        y = change(x)
    assert counted.value == copies
    assert np.shares_memory(y.data, x.data) == (copies == 0)


def test_a_nested_count_goes_into_the_outer_one() -> None:
    x = gpucnn.tensor(draw("normal", SHAPE))
    with backend.count_layout_copies() as outer:
        x.flatten()
        with backend.count_layout_copies() as inner:
            x.flatten()
        x.flatten()
    x.flatten()
    assert (inner.value, outer.value) == (1, 3)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_conversion_keeps_the_layout_and_returns_the_gradient_in_the_old_dtype(dtype: str) -> None:
    x = gpucnn.tensor(draw("integers", SHAPE), "float32", requires_grad=True)
    y = x.to(dtype)
    y.backward(np.full(SHAPE, 3, dtype))
    assert y.dtype == dtype
    assert y.data.transpose(NHWC).flags.c_contiguous
    assert_equal(y, x.numpy().astype(dtype))
    assert_equal(x.grad, np.full(SHAPE, 3, np.float32))


def test_conversion_to_a_narrow_dtype_warns_of_nothing() -> None:
    x = gpucnn.tensor([1e6, math.nan, -1e6, 1.0])
    assert_equal(x.to("float16"), np.array([math.inf, math.nan, -math.inf, 1.0], np.float16))
    assert x.to("int32").numpy()[3] == 1


def test_a_clone_has_memory_of_its_own() -> None:
    x = gpucnn.tensor(draw("integers", SHAPE), requires_grad=True)
    y = x.clone()
    assert not np.shares_memory(x.data, y.data)
    assert y.data.strides == x.data.strides
    y.backward(np.ones(SHAPE))
    assert_equal(x.grad, np.ones(SHAPE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.reshape(7, -1), r"reshape: shape \(2, 3, 4, 5\) has 120 elements, \(7, -1\) does not"),
        (lambda x: x.reshape(-1, -1), "one at most -1"),
        (lambda x: x.reshape(-2, 60), "sizes must be 0 or more"),
        (lambda x: x[:0].reshape(0, -1), "ambiguous"),
        (lambda x: x.permute(0, 1, 2), "no permutation of the 4 axes"),
        (lambda x: x.permute(0, 1, 2, 2), "no permutation"),
        (lambda x: x.transpose(0, 4), "axis 4 is out of range for 4 axes"),
        (lambda x: F.flatten(x, 2, 1), "start_dim=2 comes after end_dim=1"),
        (lambda x: F.flatten(x, 5), "axis 5 is out of range"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(gpucnn.zeros(*SHAPE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.unflatten(2, (3, 2)), r"shape \(4,\) has 4 elements"),
        (lambda x: x.movedim((0, 1), 0), "movedim: as many sources as destinations"),
        (lambda x: x.movedim((0, 1), (0,)), "movedim: as many sources as destinations"),
        (lambda x: x.movedim((0, 0), (0, 1)), "names an axis twice"),
        (lambda x: x.narrow(1, 2, 2), "narrow: 2 elements from 2 on leave the axis 1 of size 3"),
        (lambda x: x.narrow(1, -4, 1), "narrow: 1 elements from -4 on"),
        (lambda x: x.split((1, 1), 1), r"split: the sizes \(1, 1\) do not add up to the size 3"),
        (lambda x: x.split((4, -1), 1), "do not add up"),
        (lambda x: x.split(0, 1), "split: the size of a part must be at least 1, got 0"),
        (lambda x: x.chunk(0), "chunk: chunks must be at least 1"),
        (lambda x: x.expand(2, 6, 4, 5), r"expand: shape \(2, 3, 4, 5\) can't be repeated to \(2, 6, 4, 5\)"),
        (lambda x: x.expand(4, 5), "can't be repeated"),
        (lambda x: x.expand(-1, 2, 3, 4, 5), "can't be repeated"),
        (lambda x: x.expand(2, 3, 4, -2), "can't be repeated"),
        (lambda x: x.repeat(2, 2), "repeat: takes a count of 0 or more for each axis"),
        (lambda x: x.repeat(1, 1, 1, -1), "repeat: takes a count of 0 or more"),
        (lambda x: x.flip(0, 0), "names an axis twice"),
        (lambda x: x.roll((1, 2), 0), "roll: shifts and dims must be as many"),
        (lambda x: x.roll((1, 2)), "roll: without dims there is one shift"),
        (lambda x: gpucnn.cat([]), "cat needs at least one tensor"),
        (
            lambda x: gpucnn.cat([x, x[:, :1]], 0),
            r"cat: all sizes but that of axis 0 must be equal, tensor 0 has shape",
        ),
        (lambda x: gpucnn.cat([x, x[0]], 0), "cat: all sizes but that of axis 0"),
        (lambda x: gpucnn.cat([gpucnn.tensor(1.0)]), "stack gives them an axis"),
        (lambda x: gpucnn.cat([x, x], 4), "axis 4 is out of range"),
        (lambda x: gpucnn.stack([x, x[:1]]), r"stack: tensor 0 has shape \(2, 3, 4, 5\), but tensor 1 \(1, 3, 4, 5\)"),
        (lambda x: gpucnn.stack([x], 5), "axis 5 is out of range"),
    ],
)
def test_parts_and_repetitions_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(gpucnn.zeros(*SHAPE))


def test_what_takes_no_tensors_is_refused() -> None:
    for function in (gpucnn.cat, gpucnn.stack):
        with pytest.raises(TypeError, match="takes a list or tuple of tensors, got Tensor"):
            function(gpucnn.zeros(2))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"tensors\[1\] must be a gpucnn.Tensor, got int"):
            function([gpucnn.zeros(2), 3])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["split", "chunk", "unbind"])
def test_all_parts_with_gradients_of_some(name: str) -> None:
    x = gpucnn.tensor(draw("normal", SHAPE), requires_grad=True)
    parts = {"split": lambda: x.split((1, 2), 1), "chunk": lambda: x.chunk(2, 1), "unbind": lambda: x.unbind(1)}[name]()
    assert all(np.shares_memory(part.data, x.data) for part in parts)
    parts[-1].sum().backward()
    assert x.grad is not None
    expected = np.zeros(SHAPE)
    expected[:, -parts[-1].shape[1] if name != "unbind" else -1 :] = 1
    assert_equal(x.grad, expected)


def test_parts_of_nothing() -> None:
    x = gpucnn.zeros(0, 3)
    assert [part.shape for part in x.split(2)] == [(0, 3)]
    assert [part.shape for part in x.chunk(2)] == [(0, 3), (0, 3)]
    assert x.unbind() == ()
    assert x.roll(1).shape == x.flip(0).shape == x.expand(0, -1).shape == (0, 3)
    assert x.repeat(2, 2).shape == (0, 6)


# ---------------------------------------------------------------------------------------------------- in a row


def check_kernels(sizes: tuple[int, ...], axis: int, dtype: str) -> None:
    """cat of arrays with these sizes along the axis, and its gradient."""
    __tracebackhide__ = True
    shapes = [(*SHAPE[:axis], size, *SHAPE[axis + 1 :]) for size in sizes]
    arrays = [draw("integers", shape, i) for i, shape in enumerate(shapes)]
    whole = naive.cat(arrays, axis)
    for kernel, found in each_kernel(ops.concatenate, axis, *[frozen(array, dtype) for array in arrays]):
        assert_equal(found, whole.astype(dtype), name=f"{kernel} {dtype}")
        assert found.flags.c_contiguous
    wanted = tuple(i != 1 for i in range(len(sizes)))
    for kernel, parts in each_kernel(ops.split, SplitProblem(axis, sizes, wanted), frozen(whole, dtype)):
        for part, array, asked in zip(parts, arrays, wanted, strict=True):
            assert (part is not None) == asked
            if asked:
                assert_equal(part, array.astype(dtype), name=f"{kernel} {dtype}")
                assert part.flags.c_contiguous


@pytest.mark.parametrize("large", [False, True], ids=["small", "in-pieces"])
@pytest.mark.parametrize("axis", range(4))
def test_every_kernel(axis: int, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "is_large", lambda scratch: large)
    monkeypatch.setattr(reference, "_row_blocks", lambda array: [slice(i, i + 1) for i in range(len(array))])
    for dtype in ("float64", "float32", "float16", "int32", "bool"):
        for sizes in ((2,), (1, 3), (3, 1, 2), (0, 2, 1), (1, 0)):
            check_kernels(sizes, axis, dtype)


def test_these_are_all_kernels() -> None:
    assert names(ops.concatenate) == names(ops.split) == ["parts"]
    assert names(ops.repeat) == names(ops.flip) == names(ops.roll) == ["array"]


@pytest.mark.peers
@pytest.mark.parametrize("layouts", [("nhwc", "nhwc"), ("nhwc", "nchw"), ("nchw", "nhwc"), ("strided", "reversed")])
@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1])
def test_cat_and_stack_are_pytorchs(dim: int, layouts: Any, torch: Any) -> None:
    arrays = [draw("normal", SHAPE, i) for i in range(2)]
    for name in ("cat", "stack"):
        ours = [gpucnn.Tensor(LAYOUTS[lay](a), requires_grad=True) for lay, a in zip(layouts, arrays, strict=True)]
        theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
        y = getattr(gpucnn, name)([ours[0], ours[1], ours[0]], dim)
        expected = getattr(torch, name)([theirs[0], theirs[1], theirs[0]], dim)
        assert_equal(y, expected.detach())
        dy = draw("integers", y.shape, 1)
        y.backward(dy)
        expected.backward(torch.tensor(dy))
        for mine, other in zip(ours, theirs, strict=True):
            assert_equal(mine.grad, other.grad, signed_zeros=False)


@pytest.mark.peers
def test_cat_takes_different_dtypes_and_empty_tensors_as_pytorch(torch: Any) -> None:
    kinds = ["bool", "int8", "int64", "float16", "float32", "float64"]
    for a in kinds:
        for b in kinds:
            arrays = [np.ones(2, a), np.ones(3, b)]
            theirs = torch.cat([torch.tensor(array) for array in arrays])
            assert str(gpucnn.cat([gpucnn.Tensor(array) for array in arrays]).dtype) == str(theirs.dtype)[6:]
    x = gpucnn.ones(2, 3, requires_grad=True)
    y = gpucnn.cat([gpucnn.zeros(0), x, gpucnn.zeros(0)], 1)
    y.sum().backward()
    assert_equal(y, np.ones((2, 3), np.float32))
    assert_equal(x.grad, np.ones((2, 3), np.float32))
    assert gpucnn.cat([gpucnn.zeros(0), gpucnn.zeros(0)]).shape == (0,)


@pytest.mark.parametrize("axis", range(4))
def test_channels_last_stays_channels_last_without_a_copy(axis: int) -> None:
    x = gpucnn.tensor(draw("normal", SHAPE), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = gpucnn.cat([x * 2, (x[:, :2] * 3).repeat(1, 2, 1, 1)[:, 1:] if axis == 1 else x], axis)
        y = gpucnn.cat([y.flip(2).roll(1, 3), gpucnn.cat(y.split(1, 0), 0)], axis)
        y.backward(y.detach())
    assert copies.value == 0
    for tensor in (y, x.grad):
        assert tensor is not None
        assert tensor.data.transpose(NHWC).flags.c_contiguous


@pytest.mark.parametrize(
    "index",
    [1, (slice(None), slice(0, 2)), (..., slice(None, None, 2)), (slice(None), [0, 2, 2]), (0, slice(1, 3))],
    ids=str,
)
def test_the_gradient_of_a_part_lies_as_the_whole(index: Any) -> None:
    x = gpucnn.tensor(draw("normal", SHAPE), requires_grad=True)
    with backend.count_layout_copies() as copies:
        part = (x * 2)[index]
        part.backward(part.detach())
    assert copies.value == 0
    assert x.grad is not None
    assert x.grad.data.transpose(NHWC).flags.c_contiguous
    expected = np.zeros(SHAPE)
    np.add.at(expected, index, 4 * x.numpy()[index])
    assert_equal(x.grad, expected, signed_zeros=False)


def test_the_gradient_of_images_in_a_row_is_views_of_it() -> None:
    context = Context((True, True))
    x, y = (gpucnn.tensor(draw("normal", SHAPE, i)).data for i in range(2))
    dy = ops.Cat.forward(context, x, y, axis=0)
    for part, given in zip(ops.Cat.backward(context, dy), (x, y), strict=True):
        assert np.shares_memory(part, dy)
        assert_equal(part, given)


def test_gradients_of_all_that_is_copied_are_central_differences() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 2, 2)), requires_grad=True)
    assert gradcheck(lambda t: gpucnn.cat([t.repeat(1, 1, 2, 1), t.roll(1, 1).expand(2, 3, 2, 2) ** 2], 2).flip(1), [x])
    assert gradcheck(lambda t: gpucnn.stack([t[0], t[1] * 2, t[0]], -1).unbind(2)[1] ** 2, [x])


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (ops.concatenate, lambda axis, *arrays: np.concatenate(arrays[::-1], axis)),
        (
            ops.split,
            lambda p, x: [np.ascontiguousarray(part[::-1]) for part in np.split(x, np.cumsum(p.sizes)[:-1], p.axis)],
        ),
    ],
    ids=["order", "rows-exchanged"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError):
        check_kernels((1, 1, 2), 0, "float32")


def test_flatten_takes_tensors() -> None:
    with pytest.raises(TypeError, match=r"flatten: input must be a gpucnn.Tensor, got ndarray"):
        F.flatten(np.zeros(3))  # type: ignore[arg-type]
    assert F.flatten(gpucnn.tensor(3.0)).shape == (1,)
