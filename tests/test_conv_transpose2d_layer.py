"""nn.ConvTranspose2d: its arguments, output_size, how it starts, what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import NHWC, draw

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.testing import assert_close, assert_equal

LAYERS = [
    ((4, 6, 3), {}),
    ((4, 6, 3, 2, 1, 1, 2), {}),
    ((4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, False, (1, 2)), {}),
    ((4, 3, 4), {"stride": 2, "padding": 1, "bias": False}),
]


@pytest.mark.peers
@pytest.mark.parametrize(("arguments", "options"), LAYERS, ids=str)
def test_the_layer_is_pytorchs(arguments: Any, options: Any, torch: Any) -> None:
    """Shapes, text, values, and what output_size does or is refused for."""
    layer, theirs = nn.ConvTranspose2d(*arguments, **options), torch.nn.ConvTranspose2d(*arguments, **options)
    assert repr(layer) == repr(theirs)
    layer.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x = draw("normal", (2, 4, 5, 6)).astype(np.float32)
    refused = 0
    for size in (None, (11, 12), [12, 11], (2, 6, 11, 12), (7, 8), (10, 12), (13, 17), (9, 9)):
        try:
            expected = theirs(torch.tensor(x), size).detach()
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match=r"output_size must lie between .* for an input of \(5, 6\), got"):
                layer(gpucnn.tensor(x), size)
            continue
        assert_close(layer(gpucnn.tensor(x), size), expected, rtol=1e-5, atol=1e-5)
    assert refused >= 3
    assert_close(layer(gpucnn.tensor(x[0])), theirs(torch.tensor(x[0])).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("arguments", "options"), LAYERS, ids=str)
def test_the_layer_calls_the_function(arguments: Any, options: Any) -> None:
    layer = nn.ConvTranspose2d(*arguments, **options)
    x = gpucnn.tensor(draw("normal", (2, 4, 5, 6)), "float32")
    given = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
    assert_equal(layer(x), F.conv_transpose2d(x, layer.weight, layer.bias, *given).numpy())
    assert layer.weight.data.transpose(NHWC).flags.c_contiguous


def test_the_layer_starts_as_pytorchs_does() -> None:
    gpucnn.manual_seed(21)
    layer = nn.ConvTranspose2d(64, 100, (3, 5), groups=2)
    bound = 1 / math.sqrt(50 * 15)
    for values in (layer.weight.numpy(), layer.bias.numpy()):
        assert np.abs(values).max() <= np.float32(bound)
        assert np.abs(values).max() >= 0.9 * bound
    assert abs(layer.weight.numpy().std() * math.sqrt(3) / bound - 1) <= 0.02


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 1, 1), {}, ValueError, "all at least 1"),
        ((4, 6, 3, 1, 0, 0, 4), {}, ValueError, "groups=4 must divide in_channels=4 and out_channels=6"),
        ((1, 1, 0), {}, ValueError, "kernel_size must be at least 1"),
        ((1, 1, 3, 0), {}, ValueError, "stride must be at least 1"),
        ((1, 1, 3, 1, "same"), {}, TypeError, "padding must be an integer, got 'same'"),
        ((1, 1, 3, 1, 0, -1), {}, ValueError, "output_padding must not be negative"),
        ((1, 1, 3), {"padding_mode": "reflect"}, ValueError, "padding_mode must be 'zeros', got 'reflect'"),
    ],
    ids=str,
)
def test_the_layer_refuses(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.ConvTranspose2d(*arguments, **options)


def test_an_output_size_of_the_wrong_length_is_refused() -> None:
    layer = nn.ConvTranspose2d(4, 4, 3)
    for size in ((9,), (4, 9, 9), (1, 1, 4, 9, 9)):
        with pytest.raises(ValueError, match=r"output_size must be \(H, W\) or a whole output shape, got \("):
            layer(gpucnn.zeros(2, 4, 5, 6), size)
