"""The truth for convolution: by hand, by its own adjoints, and against PyTorch."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from gpucnn.testing import ConvCase, assert_close, assert_equal, conv_cases, naive, rotating_seed

SEED = rotating_seed()
CASES = conv_cases(SEED, 60)

ONE_TO_NINE = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
DIAGONAL = np.array([[1.0, 0.0], [0.0, -1.0]]).reshape(1, 1, 2, 2)


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch, which the truth is compared with, is not installed")


def integers(*shape: int) -> np.ndarray:
    """Small integers, of which every sum here is exact."""
    return np.random.default_rng([SEED, *shape]).integers(-4, 5, shape).astype(np.float64)


def test_conv2d_by_hand() -> None:
    def conv(**arguments: Any) -> list[Any]:
        return naive.conv2d(ONE_TO_NINE, DIAGONAL, **arguments)[0, 0].tolist()

    assert conv() == [[-4, -4], [-4, -4]]
    assert conv(bias=[10.0]) == [[6, 6], [6, 6]]
    assert conv(stride=2, padding=1) == [[-1, -3], [-7, -4]]
    assert conv(stride=(1, 2), padding=(1, 0)) == [[-2], [-4], [-4], [7]]
    assert conv(dilation=2) == [[-8]]
    assert conv(dilation=(2, 1)) == [[1 - 8, 2 - 9]]


def test_groups_by_hand() -> None:
    x = np.array([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1, 1)
    weight = np.arange(1.0, 9.0).reshape(4, 2, 1, 1)
    assert naive.conv2d(x, weight, groups=2).ravel().tolist() == [21, 43, 6500, 8700]
    assert naive.conv2d(x, weight[:, :1], groups=4).ravel().tolist() == [1, 30, 500, 7000]


def test_gradients_by_hand() -> None:
    dy = np.ones((1, 1, 2, 2))
    dx = naive.conv2d_input_grad(dy, DIAGONAL, (1, 1, 3, 3))
    assert dx[0, 0].tolist() == [[1, 1, 0], [1, 0, -1], [0, -1, -1]]
    dweight = naive.conv2d_weight_grad(dy, ONE_TO_NINE, (1, 1, 2, 2))
    assert dweight[0, 0].tolist() == [[12, 16], [24, 28]]
    assert naive.conv2d_bias_grad(np.arange(8.0).reshape(1, 2, 2, 2)).tolist() == [6, 22]


def test_the_definition_in_seven_plain_loops() -> None:
    case = ConvCase(2, 4, 5, 6, 6, 3, 2, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    x, weight, bias = integers(*case.x_shape), integers(*case.weight_shape), integers(case.K)
    expected = np.zeros(case.y_shape)
    channels, filters = case.C // case.groups, case.K // case.groups
    for n, k, p, q in np.ndindex(case.y_shape):
        total = bias[k]
        for c, r, s in product(range(channels), range(case.R), range(case.S)):
            h = p * case.stride[0] - case.padding[0] + r * case.dilation[0]
            w = q * case.stride[1] - case.padding[1] + s * case.dilation[1]
            if 0 <= h < case.H and 0 <= w < case.W:
                total += x[n, k // filters * channels + c, h, w] * weight[k, c, r, s]
        expected[n, k, p, q] = total
    assert_equal(naive.conv2d(x, weight, bias, **case.arguments), expected, signed_zeros=False)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_adjoints(case: ConvCase) -> None:
    """<conv(x, weight), dy> = <x, dx> = <weight, dweight>, exactly in integers."""
    print(f"GPUCNN_TEST_SEED={SEED}")
    x, weight, dy = integers(*case.x_shape), integers(*case.weight_shape), integers(*case.y_shape)
    inner = float(np.sum(naive.conv2d(x, weight, **case.arguments) * dy))
    dx = naive.conv2d_input_grad(dy, weight, case.x_shape, **case.arguments)
    dweight = naive.conv2d_weight_grad(dy, x, case.weight_shape, **case.arguments)
    assert float(np.sum(dx * x)) == inner
    assert float(np.sum(dweight * weight)) == inner
    assert float(naive.conv2d_bias_grad(dy).sum()) == float(dy.sum())


@pytest.mark.peers
@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv2d_is_pytorchs(case: ConvCase, torch: Any) -> None:
    print(f"GPUCNN_TEST_SEED={SEED}")
    x, weight, dy = integers(*case.x_shape), integers(*case.weight_shape), integers(*case.y_shape)
    bias = integers(case.K) if case.bias else None
    leaves = [torch.tensor(array, requires_grad=True) for array in (x, weight, bias) if array is not None]
    y = torch.nn.functional.conv2d(*leaves, **case.arguments)
    y.backward(torch.tensor(dy))

    assert case.y_shape == tuple(y.shape)
    found = [
        naive.conv2d_input_grad(dy, weight, case.x_shape, **case.arguments),
        naive.conv2d_weight_grad(dy, x, case.weight_shape, **case.arguments),
        naive.conv2d_bias_grad(dy),
    ]
    assert_equal(naive.conv2d(x, weight, bias, **case.arguments), y.detach(), signed_zeros=False, name="y")
    for name, gradient, leaf in zip(("dx", "dweight", "dbias"), found, leaves, strict=False):
        assert_equal(gradient, leaf.grad, signed_zeros=False, name=name)


@pytest.mark.peers
def test_conv2d_is_pytorchs_for_fractions_and_nan(torch: Any) -> None:
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((2, 5, 9, 8)), rng.standard_normal((4, 5, 3, 2)), rng.standard_normal(4)
    y = torch.nn.functional.conv2d(*map(torch.tensor, (x, weight, bias)), stride=(2, 1), padding=1)
    assert_close(naive.conv2d(x, weight, bias, stride=(2, 1), padding=1), y, rtol=1e-13, atol=1e-13)
    x[0, 1, 4, 4] = math.nan
    y = torch.nn.functional.conv2d(*map(torch.tensor, (x, weight, bias)), padding=1)
    assert torch.isnan(y).any()
    assert_close(naive.conv2d(x, weight, bias, padding=1), y, rtol=1e-13, atol=1e-13, equal_nan=True)


def test_narrow_inputs_are_computed_in_float64() -> None:
    x = np.array([1.0, 2.0**-11], np.float16).reshape(1, 2, 1, 1)
    y = naive.conv2d(x, np.ones((1, 2, 1, 1), np.float16))
    assert y.dtype == np.float64
    assert y.item() == 1 + 2.0**-11


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "arguments", "message"),
    [
        ((1, 3, 4, 4), (2, 4, 3, 3), {}, "weight needs 3 channels"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"groups": 2}, "groups of 2 must divide the 3 channels"),
        ((1, 4, 4, 4), (3, 2, 3, 3), {"groups": 2}, "and the 3 filters"),
        ((1, 4, 4, 4), (2, 4, 3, 3), {"groups": 0}, "groups of 0"),
        ((1, 3, 4, 4), (2, 3, 5, 3), {}, "longer than the padded input of 4"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"dilation": (1, 2)}, "extent 5"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"stride": 0}, "stride must be at least 1"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"padding": -1}, "padding must be at least 0"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"dilation": 0}, "dilation must be at least 1"),
        ((1, 3, 4, 4), (2, 3, 3, 3), {"bias": np.ones(3)}, r"bias must have shape \(2,\)"),
        ((3, 4, 4), (2, 3, 3, 3), {}, "must be 4-D"),
    ],
)
def test_conv2d_refuses(x_shape: Any, weight_shape: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        naive.conv2d(np.ones(x_shape), np.ones(weight_shape), **arguments)


def test_gradients_refuse_a_cotangent_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"dy must have the output's shape \(1, 1, 2, 2\)"):
        naive.conv2d_input_grad(np.ones((1, 1, 3, 2)), DIAGONAL, (1, 1, 3, 3))
    with pytest.raises(ValueError, match="dy must have the output's shape"):
        naive.conv2d_weight_grad(np.ones((2, 1, 2, 2)), ONE_TO_NINE, (1, 1, 2, 2))


def test_conv_output_size_by_hand() -> None:
    assert naive.conv_output_size(28, 5) == 24
    assert naive.conv_output_size(224, 7, stride=2, padding=3) == 112
    assert naive.conv_output_size(7, 3, stride=2) == 3
    assert naive.conv_output_size(8, 3, stride=2) == 3
    assert naive.conv_output_size(9, 3, dilation=4) == 1
    assert naive.conv_output_size(0, 2, padding=1) == 1
    with pytest.raises(ValueError, match="size must be at least 0"):
        naive.conv_output_size(-1, 1, padding=1)
    with pytest.raises(ValueError, match="kernel must be at least 1"):
        naive.conv_output_size(4, 0)
    with pytest.raises(TypeError):
        naive.conv2d(ONE_TO_NINE, DIAGONAL, stride=1.5)  # type: ignore[arg-type]
