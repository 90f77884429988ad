"""Reshape, permute, indexing and conversion: values and gradients as PyTorch's, and copies only where memory asks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, draw

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.testing import assert_equal, gradcheck

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


def test_flatten_takes_tensors() -> None:
    with pytest.raises(TypeError, match=r"flatten: input must be a gpucnn.Tensor, got ndarray"):
        F.flatten(np.zeros(3))  # type: ignore[arg-type]
    assert F.flatten(gpucnn.tensor(3.0)).shape == (1,)
