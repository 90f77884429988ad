"""F.dropout2d and the layer: whole channels, by a mask that every backend draws alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, draw, plant
from test_dropout import SEED, expected_mask

import gpucnn
from gpucnn import backend, nn, random
from gpucnn import functional as F
from gpucnn.ops import dropout as ops
from gpucnn.reference import dropout as reference
from gpucnn.reference.dropout import DropoutProblem
from gpucnn.testing import assert_equal

SHAPES = [(5, 7, 3, 4), (5, 7, 3), (5, 7), (2, 3, 2, 2, 2), (1, 1, 1, 1), (0, 3, 2, 2), (2, 0, 2, 2)]


def check(shape: tuple[int, ...], dtype: str, layout: str = "nhwc", p: float = 0.75) -> None:
    """Forward and gradient by the mask of call 1 under SEED."""
    __tracebackhide__ = True
    gpucnn.manual_seed(SEED)
    F.dropout2d(gpucnn.ones(1, 1))  # call 0
    x, dy = draw("integers", shape), draw("integers", shape, 1)
    leaf = gpucnn.Tensor(LAYOUTS[layout](x.astype(dtype)), requires_grad=True)
    y = F.dropout2d(leaf, p)
    y.backward(LAYOUTS[layout](dy.astype(dtype)))
    keep = expected_mask(shape[:2], p, SEED, 1).reshape(shape[:2] + (1,) * (len(shape) - 2))
    assert_equal(y, x * keep * 4, dtype=dtype, signed_zeros=False)
    assert_equal(leaf.grad, dy * keep * 4, dtype=dtype, signed_zeros=False)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_channels_are_kept_by_the_documented_function(shape: tuple[int, ...], dtype: str) -> None:
    check(shape, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_is_taken(layout: str) -> None:
    check((5, 7, 3, 4), "float32", layout)


def test_bits_that_no_backend_may_change() -> None:
    """Element n * C + c of the mask: pinned, so that a mask drawn today is drawn by every version and backend."""
    gpucnn.manual_seed(2024)
    kept = (F.dropout2d(gpucnn.ones(3, 8, 2, 2), 0.5).numpy()[:, :, 0, 0] != 0).astype(int)
    assert ["".join(map(str, row)) for row in kept] == ["10110110", "01000001", "01100011"]


def test_a_channel_goes_as_a_whole_and_the_images_differ() -> None:
    y = F.dropout2d(gpucnn.ones(64, 32, 3, 5), 0.5).numpy()
    per_channel = y.reshape(64, 32, -1)
    assert_equal(per_channel.min(axis=2), per_channel.max(axis=2))
    rows = {row.tobytes() for row in per_channel[:, :, 0]}
    assert len(rows) == 64
    share = (per_channel[:, :, 0] != 0).mean()
    assert abs(share - 0.5) <= 5 * 0.5 / math.sqrt(64 * 32)


def test_one_seed_one_mask() -> None:
    x = gpucnn.ones(8, 16, 2, 2)

    def two(seed: int) -> list[bytes]:
        gpucnn.manual_seed(seed)
        return [F.dropout2d(x).numpy().tobytes() for _ in range(2)]

    assert two(1) == two(1)
    assert len({*two(1), *two(2)}) == 4


def test_nothing_and_everything() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), requires_grad=True)
    before = random.state()
    assert F.dropout2d(x, 0.0) is x
    assert F.dropout2d(x, 0.7, training=False) is x
    assert random.state() == before
    y = F.dropout2d(x, 1.0)
    y.backward(np.ones(x.shape))
    assert_equal(y, np.zeros(x.shape), signed_zeros=False)
    assert_equal(x.grad, np.zeros(x.shape), signed_zeros=False)


def test_what_is_dropped_is_zero_whatever_it_was() -> None:
    y = F.dropout2d(gpucnn.tensor(np.full((10, 10, 1, 2), math.inf), "float32")).numpy()
    assert set(y.reshape(-1).tolist()) == {0.0, math.inf}


@pytest.mark.parametrize("drop", [F.dropout, F.dropout2d])
def test_in_place_is_a_hint_that_changes_nothing(drop: Any) -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), "float32")
    before = x.numpy().copy()
    results = []
    for inplace in (False, True):
        gpucnn.manual_seed(3)
        results.append(drop(x, 0.5, True, inplace))
    assert_equal(results[0], results[1].numpy())
    assert_equal(x, before)


def test_channels_last_stays_channels_last_without_a_copy() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = F.dropout2d(x, 0.3)
        y.backward(y.detach())
    assert copies.value == 0
    assert all(t.data.transpose(NHWC).flags.c_contiguous for t in (y, x.grad))


def test_the_layers() -> None:
    x = gpucnn.ones(4, 6, 2, 2)
    for kind, function in ((nn.Dropout, F.dropout), (nn.Dropout2d, F.dropout2d)):
        layer = kind(0.25, inplace=True)
        gpucnn.manual_seed(1)
        dropped = layer(x)
        gpucnn.manual_seed(1)
        assert_equal(dropped, function(x, 0.25))
        assert layer.eval()(x) is x
        assert repr(layer) == f"{kind.__name__}(p=0.25)"
        with pytest.raises(ValueError, match=rf"{kind.__name__}: p must be a probability in \[0, 1\], got 2"):
            kind(2)


@pytest.mark.peers
@pytest.mark.parametrize("shape", [(), (4,), (4, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 2, 2)], ids=str)
@pytest.mark.filterwarnings("ignore:dropout2d")
def test_shapes_are_taken_as_pytorch_takes_them(shape: tuple[int, ...], torch: Any) -> None:
    """And channels dropped along the same axes: where an entry is dropped so is all that PyTorch drops with it."""

    def axes_apart(dropped: np.ndarray) -> list[bool]:
        """For each axis: do entries along it differ?"""
        return [bool((dropped != dropped.take([0], axis)).any()) for axis in range(dropped.ndim)]

    def run(library: Any, functional: Any) -> Any:
        size = tuple(20 * s if i < 2 else s for i, s in enumerate(shape))
        try:
            return axes_apart(functional.dropout2d(library.ones(size)).numpy())
        except (ValueError, RuntimeError):
            return "refused"

    assert run(gpucnn, F) == run(torch, torch.nn.functional)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_bad_arguments_are_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"dropout2d: p must be a probability in \[0, 1\], got"):
        F.dropout2d(gpucnn.ones(2, 3, 4, 4), p, training=False)
    with pytest.raises(ValueError, match=r"dropout2d: input must have shape \(N, C, ...\), got \(3,\)"):
        F.dropout2d(gpucnn.ones(3))
    with pytest.raises(TypeError, match="dropout2d: input must have a floating dtype"):
        F.dropout2d(gpucnn.tensor([[1, 2]]))


def images_fastest(problem: DropoutProblem, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    N, C = problem.shape
    keep = reference.mask(DropoutProblem((C, N), problem.p, problem.seed, problem.call), x).T.reshape(
        N, *[1] * (x.ndim - 2), C
    )
    return np.where(keep, x * x.dtype.type(1 / (1 - problem.p)), x.dtype.type(0)), keep


def test_a_wrong_kernel_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, ops.dropout, images_fastest)
    with pytest.raises(AssertionError, match="elements are wrong"):
        check((5, 7, 3, 4), "float32", p=0.75)
