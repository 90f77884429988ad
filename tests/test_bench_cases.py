"""gpucnn.bench.cases: passes, numbers that are the same everywhere, and the truth that rivals are held to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn.bench.cases import (
    PASSES,
    Case,
    Numbers,
    Truth,
    asked_passes,
    chosen_passes,
    gradients,
    passes_of,
    results,
    smooth,
    walk_back,
)
from gpucnn.testing import assert_close, naive, rotating_seed, tolerance

CONV = {"input": (2, 6, 9, 8), "weight": (4, 3, 3, 3), "bias": (4,), "padding": 1, "groups": 2}


@pytest.mark.parametrize(
    ("op", "asked", "expected"),
    [
        ("conv2d", PASSES, ["fwd", "dgrad", "wgrad"]),
        ("conv2d", ("wgrad",), ["wgrad"]),
        ("conv2d", ("bwd",), ["dgrad", "wgrad"]),
        ("conv2d", ("fwd",), ["fwd"]),
        ("relu", PASSES, ["fwd", "bwd"]),
        ("relu", ("wgrad", "dgrad"), ["bwd"]),
        ("relu", ("fwd",), ["fwd"]),
    ],
)
def test_passes_are_those_that_a_function_has(op: str, asked: tuple[str, ...], expected: list[str]) -> None:
    assert chosen_passes(op, asked) == expected


def test_a_list_of_passes_is_read_and_refused() -> None:
    assert asked_passes("all") == PASSES
    assert asked_passes("wgrad, fwd") == ("wgrad", "fwd")
    with pytest.raises(ValueError, match="no pass 'dgrd', there are: fwd, dgrad, wgrad, bwd; did you mean 'dgrad'"):
        asked_passes("fwd,dgrd")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_numbers_are_the_same_in_every_dtype(dtype: str) -> None:
    pytest.importorskip("ml_dtypes")
    case = Case("conv2d", CONV, dtype=dtype)
    narrow, wide = (
        [tensor.to("float64").numpy() for tensor in case.call(Numbers.of(case, 5), kind).arguments]
        for kind in (None, "float64")
    )
    for ours, same in zip(narrow, wide, strict=True):
        np.testing.assert_array_equal(ours, same)
    other = case.call(Numbers.of(case, 6)).arguments[0].to("float64").numpy()
    assert (other != narrow[0]).mean() > 0.9
    assert 0.8 < narrow[0].std() < 1.2
    assert narrow[2].min() > 0.4  # a vector, which may be a variance


def test_labels_are_classes_and_limited_functions_get_what_they_take() -> None:
    case = Case("cross_entropy", {"input": (500, 7), "target": (500,)})
    labels = case.call(Numbers.of(case, 0)).arguments[1].numpy()
    assert set(labels) == set(range(7))
    case = Case("binary_cross_entropy", {"input": (50, 3), "target": (50, 3)})
    values = case.call(Numbers.of(case, 0)).arguments[0].numpy()
    assert values.min() >= 0.1
    assert values.max() < 0.9


def test_the_truth_is_the_definition() -> None:
    seed = rotating_seed()
    case = Case("conv2d", CONV, "fwd")
    truth = Truth(case, seed, "cpu")
    numbers = Numbers.of(case, seed)
    call = case.call(numbers)
    x, w, b = (tensor.numpy().astype(np.float64) for tensor in call.arguments)
    y = results(call)[0]
    dy = numbers(y.shape, y.dtype).numpy().astype(np.float64)
    options: Any = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 2}
    expected = {
        "fwd": [naive.conv2d(x, w, b, **options)],
        "dgrad": [naive.conv2d_input_grad(dy, w, x.shape, **options)],
        "wgrad": [naive.conv2d_weight_grad(dy, x, w.shape, **options), dy.sum((0, 2, 3))],
    }
    for direction, arrays in expected.items():
        assert len(truth.outputs[direction]) == len(arrays)
        for ours, by_definition in zip(truth.outputs[direction], arrays, strict=True):
            assert_close(ours, by_definition, rtol=1e-12, atol=1e-12, name=direction)


def test_gradients_are_those_of_the_pass() -> None:
    case = Case("batch_norm_relu", {"input": (2, 3, 4, 4), "running_mean": (3,), "running_var": (3,), "weight": (3,)}
                | {"bias": (3,), "training": True, "residual": (2, 3, 4, 4)})  # fmt: skip
    numbers = Numbers.of(case, 0)
    call = case.call(numbers)
    walk_back(case, results(call), numbers)
    found = gradients(call, "bwd")
    assert [None if grad is None else grad.shape for grad in found] == [(2, 3, 4, 4), (3,), (3,), (2, 3, 4, 4)]
    assert passes_of("batch_norm_relu") == ("fwd", "bwd")


@pytest.mark.parametrize(
    ("case", "terms"),
    [
        (Case("conv2d", CONV, "fwd"), 27),
        (Case("conv2d", CONV, "dgrad"), 18),
        (Case("conv2d", CONV, "wgrad"), 144),
        (Case("conv2d_relu", CONV, "fwd"), 27),
        (Case("conv2d_relu", CONV, "dgrad"), 18 + 27),
        (Case("conv2d_relu", CONV, "wgrad"), 144 + 27),
        (Case("conv_transpose2d", {"input": (2, 6, 5, 5), "weight": (6, 4, 3, 3)}, "fwd"), 54),
        (Case("conv_transpose2d", {"input": (2, 6, 5, 5), "weight": (6, 4, 3, 3)}, "dgrad"), 36),
        (Case("linear", {"input": (7, 5), "weight": (3, 5), "bias": (3,)}, "fwd"), 5),
        (Case("linear", {"input": (7, 5), "weight": (3, 5), "bias": (3,)}, "dgrad"), 3),
        (Case("linear", {"input": (7, 5), "weight": (3, 5), "bias": (3,)}, "wgrad"), 7),
        (Case("softmax", {"input": (4, 9), "dim": 1}, "fwd"), 9),
        (Case("batch_norm", {"input": (2, 3, 4, 5), "running_mean": (3,), "running_var": (3,), "training": True}), 40),
    ],
)
def test_an_error_may_grow_with_the_length_of_the_sums(case: Case, terms: int) -> None:
    truth = Truth(case, 0, "cpu")
    assert truth.allowed_error(case, rounded=False) == tolerance("float32", terms)
    assert truth.allowed_error(case, rounded=True) == 4 * 2.0**-10


def test_making_the_truth_changes_no_setting() -> None:
    with gpucnn.use_backend("reference", strict=True):
        Truth(Case("relu", {"input": (3, 4)}), 0, "cpu")
        assert gpucnn.backend.current_backend() == "reference"


@pytest.mark.parametrize("limit", [None, 6.0])
def test_no_gradient_depends_on_which_side_of_a_corner_a_sum_falls(limit: float | None) -> None:
    """So that a sum that is off by rounding gives nearly the same gradients, though some signs are others."""
    arguments: dict[str, Any] = {"input": (4, 3, 50, 50), "weight": (3,), "bias": (3,), "training": True}
    arguments |= dict.fromkeys(("running_mean", "running_var"), (3,)) | ({} if limit is None else {"max_val": limit})
    case = Case("batch_norm_relu", arguments, "bwd")
    gradient = np.ones(5)
    y = np.array([0.0, 1e-9, 1.0, 6.0, 3.0])
    found = smooth(case, gradient, y)
    assert np.allclose(found[:2], 0, atol=1e-8)
    assert found[4] > 1
    assert (found[3] == 0) == (limit is not None)
    assert smooth(Case("relu", {"input": (5,)}, "bwd"), gradient, y) is gradient
