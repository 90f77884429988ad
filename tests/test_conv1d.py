"""conv1d, the padding modes of convolution layers, and the depthwise separable block."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, SEED, compare, draw

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive, pairwise

FACTORS = {
    "N": (1, 3),
    "C": (1, 2, 7),
    "L": (1, 2, 9, 33, 129),
    "K": (1, 3, 8),
    "S": (1, 2, 3, 5),
    "stride": (1, 2, 3),
    "padding": (0, 1, 4),
    "dilation": (1, 2),
    "groups": (1, 2),
}


def fits(f: dict[str, Any]) -> bool:
    return bool(f["L"] + 2 * f["padding"] >= f["dilation"] * (f["S"] - 1) + 1)


CASES = [
    {"N": 0, "C": 2, "L": 9, "K": 3, "S": 3, "stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    {"N": 2, "C": 1, "L": 9, "K": 2, "S": 3, "stride": 1, "padding": 1, "dilation": 1, "groups": 4},  # depthwise
    *pairwise(FACTORS, SEED, fits),
]


def arguments_of(case: dict[str, Any]) -> dict[str, Any]:
    return {name: case[name] for name in ("stride", "padding", "dilation", "groups")}


def inputs_of(case: dict[str, Any], kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups, channels, filters = case["groups"], case["C"], case["K"]
    x = draw(kind, (case["N"], channels * groups, case["L"]))
    return x, draw(kind, (filters * groups, channels, case["S"]), 1), draw(kind, (filters * groups,), 2)


def naive_results(case: dict[str, Any], kind: str) -> tuple[np.ndarray, ...]:
    """dy, y, dx, dw, db by the two-dimensional truth, with one column instead of one row."""
    x, w, b = inputs_of(case, kind)
    options = {"groups": case["groups"]}
    options |= {"stride": (case["stride"], 1), "padding": (case["padding"], 0), "dilation": (case["dilation"], 1)}
    image, filters = x[..., None], w[..., None]
    y = naive.conv2d(image, filters, b, **options)
    dy = draw(kind, y.shape, 3)
    dx = naive.conv2d_input_grad(dy, filters, image.shape, **options)
    dw = naive.conv2d_weight_grad(dy, image, filters.shape, **options)
    return dy[..., 0], y[..., 0], dx[..., 0], dw[..., 0], naive.conv2d_bias_grad(dy)


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(f"{n}{v}" for n, v in c.items()))
@pytest.mark.parametrize(
    ("dtype", "kind"), [("float32", "integers"), ("float64", "normal"), ("float32", "normal"), ("float16", "normal")]
)
def test_conv1d_is_the_truth(case: dict[str, Any], dtype: str, kind: str) -> None:
    dy, *expected = naive_results(case, kind)
    leaves = [gpucnn.tensor(a, dtype, requires_grad=True) for a in inputs_of(case, kind)]
    y = F.conv1d(*leaves, **arguments_of(case))
    y.backward(gpucnn.tensor(dy, dtype))
    terms = (case["C"] * case["S"] + 1, case["K"] * case["S"], *(max(1, dy.size // dy.shape[1]),) * 2)
    for name, found, truth, count in zip(
        ("y", "dx", "dw", "db"), (y, *[leaf.grad for leaf in leaves]), expected, terms, strict=True
    ):
        assert found.dtype == dtype, name
        compare(found, truth, count, f"{name} {dtype}", exact=kind == "integers")


@pytest.mark.peers
@pytest.mark.parametrize("padding", [0, 2, (1,), "same", "valid"])
@pytest.mark.parametrize("kernel", [1, 2, 5])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_conv1d_is_pytorchs(padding: Any, kernel: int, torch: Any) -> None:
    """By position, batched and not."""
    for shape in ((3, 4, 11), (4, 11)):
        x, w, b = draw("normal", shape), draw("normal", (6, 2, kernel), 1), draw("normal", (6,), 2)
        ours = [gpucnn.tensor(a, requires_grad=True) for a in (x, w, b)]
        theirs = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
        stride = 1 if padding == "same" else 2
        y = F.conv1d(*ours, stride, padding, 2, 2)
        expected = torch.nn.functional.conv1d(*theirs, stride, padding, 2, 2)
        dy = draw("normal", y.shape, 3)
        y.backward(dy)
        expected.backward(torch.tensor(dy))
        assert_close(y, expected.detach(), rtol=1e-12, atol=1e-12)
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)


def test_gradients_are_central_differences() -> None:
    leaves = [gpucnn.tensor(draw("normal", s), requires_grad=True) for s in ((2, 4, 7), (6, 2, 3), (6,))]
    assert gradcheck(lambda *a: F.conv1d(*a, 2, 1, 1, 2), leaves)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", range(4), ids=["x", "w", "b", "dy"])
def test_any_memory_layout_is_taken(operand: int, layout: str) -> None:
    case = {"N": 2, "C": 3, "L": 8, "K": 2, "S": 3, "stride": 2, "padding": 1, "dilation": 1, "groups": 2}
    dy, *expected = naive_results(case, "integers")
    arrays = [*inputs_of(case, "integers"), dy]
    arrays[operand] = LAYOUTS[layout](arrays[operand])
    leaves = [gpucnn.Tensor(a, requires_grad=True) for a in arrays[:3]]
    y = F.conv1d(*leaves, **arguments_of(case))
    y.backward(arrays[3])
    for found, truth in zip((y, *[leaf.grad for leaf in leaves]), expected, strict=True):
        assert_equal(found, truth, signed_zeros=False)


def test_a_chain_copies_the_users_array_alone() -> None:
    """Its (N,C,L) once; what one convolution hands to the next, there and back, lies as they want it."""
    model = nn.Sequential(nn.Conv1d(3, 5, 3), nn.Conv1d(5, 4, 2))
    x = gpucnn.tensor(draw("normal", (2, 3, 9)), "float32", requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = model(x)
        assert copies.value == 1
        y.backward(y.detach())
    assert copies.value == 1
    assert [model[0].weight.grad.shape, x.grad.shape] == [(5, 3, 3), (2, 3, 9)]


X, W = gpucnn.zeros(2, 4, 8), gpucnn.zeros(6, 4, 3)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"input": gpucnn.zeros(2, 4, 8, 8)},
            ValueError,
            r"input must have shape \(N, C, L\) or \(C, L\), got \(2, 4,",
        ),
        ({"input": gpucnn.zeros(8)}, ValueError, r"input must have shape .*got \(8\)"),
        ({"weight": gpucnn.zeros(6, 4, 3, 3)}, ValueError, r"weight must have shape \(K, C/groups, S\), got \(6, 4, 3"),
        ({"weight": gpucnn.zeros(6, 3, 3)}, ValueError, r"input \(2, 4, 8\) has C=4 .*\(6, 3, 3\) .*expects 3"),
        ({"weight": gpucnn.zeros(6, 4, 9)}, ValueError, r"spans 9 \(weight .* larger than the padded input 8 \(input"),
        ({"weight": gpucnn.zeros(6, 4, 0)}, ValueError, "channels and kernel must not be empty"),
        ({"bias": gpucnn.zeros(4)}, ValueError, r"bias must have shape \(6,\)"),
        ({"groups": 3}, ValueError, "groups must divide the channels"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"stride": (1, 1)}, ValueError, r"stride takes an int or a tuple of one, got \(1, 1\)"),
        ({"dilation": 1.0}, TypeError, "dilation must be an integer"),
        ({"padding": -1}, ValueError, "padding must not be negative"),
        ({"padding": "full"}, ValueError, "padding must be 'same', 'valid' or an int, got 'full'"),
        ({"padding": "same", "stride": 2}, ValueError, "padding='same' needs stride 1, got stride=2"),
        (
            {"weight": gpucnn.zeros(6, 4, 3, dtype="float64")},
            TypeError,
            "input has dtype float32, but weight has float64",
        ),
        ({"input": [[0.0]]}, TypeError, "input must be a gpucnn.Tensor, got list"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="conv1d: .*" + message):
        F.conv1d(**({"input": X, "weight": W} | changes))


# ---------------------------------------------------------------------------------------------------------- layers

LAYERS_1D = [
    ((4, 6, 3), {}),
    ((4, 6, (2,), 3, 2, (2,), 2), {"bias": False}),
    ((4, 4, 5, 1, "same", 1, 4), {}),
    ((4, 2, 3, 2, 1), {"padding_mode": "circular"}),
    ((4, 2, 4, 1, "same"), {"padding_mode": "reflect"}),
    ((4, 2, 2, 1, "valid"), {"padding_mode": "replicate"}),
]
LAYERS_2D = [
    ((4, 6, 3, 1, 1), {"padding_mode": "reflect"}),
    ((4, 6, (3, 5), (2, 1), (1, 2), 1, 2), {"padding_mode": "replicate", "bias": False}),
    ((4, 2, (2, 4), 1, "same", (3, 1)), {"padding_mode": "circular"}),
    ((4, 2, 3, 1, "valid"), {"padding_mode": "circular"}),
    ((4, 2, 3, 2, (0, 1)), {"padding_mode": "zeros"}),
]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "shape", "arguments", "options"),
    [("Conv1d", (2, 4, 11), *layer) for layer in LAYERS_1D] + [("Conv2d", (2, 4, 7, 9), *layer) for layer in LAYERS_2D],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_layers_are_pytorchs(name: str, shape: Any, arguments: Any, options: Any, torch: Any) -> None:
    """Shapes, text (but for quotes), values, gradients; batched and not."""
    layer, theirs = getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments, **options)
    assert repr(layer).replace("'", "") == repr(theirs)
    layer.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    for x in (draw("normal", shape).astype(np.float32), draw("normal", shape[1:]).astype(np.float32)):
        a, b = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, expected = layer(a), theirs(b)
        dy = draw("normal", y.shape, 3).astype(np.float32)
        layer.zero_grad()
        theirs.zero_grad()
        y.backward(dy)
        expected.backward(torch.tensor(dy))
        close = functools.partial(assert_close, rtol=1e-5, atol=1e-5)
        close(y, expected.detach(), name="y")
        close(a.grad, b.grad, name="dx")
        for ours, other in zip(layer.parameters(), theirs.parameters(), strict=True):
            close(ours.grad, other.grad, name="dw")


@pytest.mark.parametrize(("mode", "numpy_mode"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
@pytest.mark.parametrize("padding", [1, (2, 1), "same"])
def test_padding_modes_pad_with_numpys_cells(mode: str, numpy_mode: Any, padding: Any) -> None:
    layer = nn.Conv2d(3, 4, (3, 4), padding=padding, padding_mode=mode)
    x = draw("normal", (2, 3, 6, 7)).astype(np.float32)
    top, left = {1: (1, 1), "same": (1, 1)}.get(padding, padding)
    below, right = (1, 2) if padding == "same" else (top, left)
    wide = np.pad(x, ((0, 0), (0, 0), (top, below), (left, right)), numpy_mode)
    assert_equal(layer(gpucnn.tensor(x)), F.conv2d(gpucnn.tensor(wide), layer.weight, layer.bias).numpy())


def test_conv1d_layer_calls_the_function_and_its_filters_lie_channels_last() -> None:
    for arguments, options in LAYERS_1D[:3]:
        layer = nn.Conv1d(*arguments, **options)
        x = gpucnn.tensor(draw("normal", (2, 4, 11)), "float32")
        given = (layer.stride, layer.padding, layer.dilation, layer.groups)
        assert_equal(layer(x), F.conv1d(x, layer.weight, layer.bias, *given).numpy())
        assert layer.weight.data.transpose(0, 2, 1).flags.c_contiguous


def test_conv1d_layer_trains_and_starts_as_pytorchs_does() -> None:
    gpucnn.manual_seed(22)
    layer = nn.Conv1d(16, 400, 5, groups=2)
    bound = 1 / math.sqrt(8 * 5)
    for values in (layer.weight.numpy(), layer.bias.numpy()):
        assert bound * 0.98 <= np.abs(values).max() <= np.float32(bound)
    before = layer.weight.numpy().copy()
    optimizer = gpucnn.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
    layer(gpucnn.ones(1, 16, 5)).sum().backward()
    optimizer.step()
    assert_equal(layer.weight, before - np.float32(0.5))


@pytest.mark.parametrize(
    ("layer", "arguments", "error", "message"),
    [
        (nn.Conv1d, (0, 1, 1), ValueError, "Conv1d: groups=1 must divide in_channels=0"),
        (nn.Conv1d, (4, 6, 3, 1, 0, 1, 4), ValueError, "Conv1d: groups=4 must divide"),
        (nn.Conv1d, (1, 1, (3, 3)), ValueError, "kernel_size takes an int or a tuple of one"),
        (nn.Conv1d, (1, 1, 3, 2, "same"), ValueError, "Conv1d: padding='same' needs stride 1"),
        (nn.Conv1d, (1, 1, 3, 1, 0, 1, 1, True, "mirror"), ValueError, "Conv1d: padding_mode must be one of zeros, re"),
        (nn.Conv2d, (1, 1, 3, 1, 0, 1, 1, True, "constant"), ValueError, "Conv2d: padding_mode must be .*'constant'"),
        (nn.DepthwiseSeparableConv2d, (3, 0, 3), ValueError, "out_channels=0"),
        (nn.DepthwiseSeparableConv2d, (3, 4, 3, 1, 0, 1, True, 0), ValueError, "out_channels=0"),
    ],
)
def test_layers_refuse(layer: Any, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        layer(*arguments)


# ------------------------------------------------------------------------------------------- depthwise separable


def test_the_separable_block_is_a_filter_a_channel_and_then_a_mixture() -> None:
    block = nn.DepthwiseSeparableConv2d(3, 5, (3, 2), 2, (1, 0), 1, depth_multiplier=2).to("float64")
    assert {name: value.shape for name, value in block.state_dict().items()} == {
        "depthwise.weight": (6, 1, 3, 2),
        "depthwise.bias": (6,),
        "pointwise.weight": (5, 6, 1, 1),
        "pointwise.bias": (5,),
    }
    x = draw("normal", (2, 3, 7, 6))
    weights = [parameter.numpy() for parameter in block.parameters()]
    between = naive.conv2d(x, *weights[:2], (2, 2), (1, 0), (1, 1), 3)
    assert_close(block(gpucnn.tensor(x)), naive.conv2d(between, *weights[2:]), rtol=1e-12, atol=1e-12)
    plain = nn.DepthwiseSeparableConv2d(8, 16, 3, padding="same", bias=False)
    assert sum(parameter.numel() for parameter in plain.parameters()) == 8 * 9 + 8 * 16
    assert plain(gpucnn.zeros(8, 5, 5)).shape == (16, 5, 5)


def test_the_separable_block_copies_nothing() -> None:
    block = nn.DepthwiseSeparableConv2d(4, 6, 3, padding=1)
    x = gpucnn.tensor(draw("normal", (2, 4, 6, 6)), "float32", requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = block(x)
        y.backward(y.detach())
    assert copies.value == 0
