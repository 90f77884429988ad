"""Layers: their arguments, what they compute, how they start, and what they refuse."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.nn import init
from gpucnn.testing import assert_close

IMAGES = np.random.default_rng(7).standard_normal((2, 4, 9, 8)).astype(np.float32)
FEATURES = IMAGES.reshape(2, 32, 9).transpose(0, 2, 1)


# ----------------------------------------------------------------------------------------- they call functional


@pytest.mark.parametrize(
    ("layer", "run"),
    [
        (nn.ReLU(), F.relu),
        (nn.Sigmoid(), F.sigmoid),
        (nn.Tanh(), F.tanh),
        (nn.Flatten(), lambda x: F.flatten(x, 1)),
        (nn.Flatten(2, 3), lambda x: F.flatten(x, 2, 3)),
        (nn.MaxPool2d(2), lambda x: F.max_pool2d(x, 2)),
        (nn.MaxPool2d((3, 2), 2, 1, 2, ceil_mode=True), lambda x: F.max_pool2d(x, (3, 2), 2, 1, 2, True)),
        (nn.AvgPool2d(3, 2, 1, True, False, 5), lambda x: F.avg_pool2d(x, 3, 2, 1, True, False, 5)),
        (nn.AvgPool2d(2), lambda x: F.avg_pool2d(x, 2)),
        (nn.Dropout(0.0), lambda x: x),
        (nn.Dropout(0.9).eval(), lambda x: x),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "",
)
def test_layers_without_parameters(layer: nn.Module, run: Any) -> None:
    x = gpucnn.tensor(IMAGES)
    assert np.array_equal(layer(x).numpy(), run(x).numpy())
    assert list(layer.parameters()) == []


def test_max_pooling_gives_its_indices() -> None:
    x = gpucnn.tensor(IMAGES)
    y, indices = nn.MaxPool2d(2, return_indices=True)(x)
    z, expected = F.max_pool2d(x, 2, return_indices=True)
    assert np.array_equal(y.numpy(), z.numpy())
    assert np.array_equal(indices.numpy(), expected.numpy())


def test_dropout_follows_the_mode_and_the_seed() -> None:
    layer = nn.Dropout(0.25)
    x = gpucnn.ones(1000)

    def mask(seed: int) -> list[float]:
        gpucnn.manual_seed(seed)
        return layer(x).tolist()  # type: ignore[no-any-return]

    assert mask(1) == mask(1) != mask(2)
    assert set(mask(1)) == {0.0, np.float32(1 / 0.75).item()}
    assert layer(x).tolist() != layer(x).tolist()
    assert layer.eval()(x) is x


def test_cross_entropy_keeps_its_arguments() -> None:
    logits, labels = gpucnn.tensor(IMAGES[:, 0]), np.array([[1, 8, -1, 0, 2, 3, 4, 5]] * 2)
    weight = gpucnn.tensor(np.arange(1.0, 10.0, dtype=np.float32))
    for arguments in ({}, {"weight": weight}, {"reduction": "sum", "label_smoothing": 0.1}, {"reduction": "none"}):
        options: Any = {"ignore_index": -1, **arguments}
        found = nn.CrossEntropyLoss(**options)(logits, labels)
        assert np.array_equal(found.numpy(), F.cross_entropy(logits, labels, **options).numpy())


@pytest.mark.parametrize(
    ("arguments", "weight"),
    [
        ((4, 6, 3), (6, 4, 3, 3)),
        ((4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2), (6, 2, 3, 2)),
        ((4, 4, 3, 1, "same", 2, 4), (4, 1, 3, 3)),
        ((4, 2, 1, 1, "valid"), (2, 4, 1, 1)),
        ((4, 2, [2]), (2, 4, 2, 2)),
    ],
    ids=str,
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv2d(arguments: Any, weight: Any, bias: bool) -> None:
    layer = nn.Conv2d(*arguments, **{"bias": bias})
    assert layer.weight.shape == weight
    assert (layer.bias is not None) == bias
    x = gpucnn.tensor(IMAGES)
    options = dict(zip(("stride", "padding", "dilation", "groups"), arguments[3:], strict=False))
    expected = F.conv2d(x, layer.weight, layer.bias, **options)
    assert np.array_equal(layer(x).numpy(), expected.numpy())
    assert_close(layer(x[0]).numpy(), expected.numpy()[0], rtol=1e-5, atol=1e-5)
    # Filters lie channels-last from the start, so that no call has to turn them round.
    assert layer.weight.data.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    layer = nn.Linear(32, 5, bias)
    assert layer.weight.shape == (5, 32)
    assert (layer.bias is not None) == bias
    found = layer(gpucnn.tensor(FEATURES))
    truth = FEATURES.astype(np.float64) @ layer.weight.numpy().T.astype(np.float64)
    truth = truth if layer.bias is None else truth + layer.bias.numpy()
    assert_close(found.numpy(), truth, rtol=1e-5, atol=1e-5)


# ----------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1, 1), ValueError, "all at least 1"),
        ((1, 0, 1), ValueError, "all at least 1"),
        ((4, 6, 3, 1, 0, 1, 0), ValueError, "groups=0"),
        ((4, 6, 3, 1, 0, 1, 4), ValueError, "groups=4 must divide in_channels=4 and out_channels=6"),
        ((3, 6, 3, 1, 0, 1, 2), ValueError, "groups=2 must divide"),
        ((1, 1, 0), ValueError, "kernel_size must be at least 1"),
        ((1, 1, (1, 2, 3)), ValueError, "kernel_size takes an int or a pair"),
        ((1, 1, 1.5), TypeError, "kernel_size"),
        ((1, 1, 3, 0), ValueError, "stride must be at least 1"),
        ((1, 1, 3, 1, -1), ValueError, "padding must not be negative"),
        ((1, 1, 3, 1, "full"), ValueError, "padding must be 'same', 'valid', an int or a pair"),
        ((1, 1, 3, 2, "same"), ValueError, "padding='same' needs stride 1"),
        ((1, 1, 3, 1, 0, 0), ValueError, "dilation must be at least 1"),
    ],
    ids=str,
)
def test_conv2d_refuses(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.Conv2d(*arguments)


def test_other_layers_refuse() -> None:
    for arguments in ((0, 1), (1, 0), (-1, 2)):
        with pytest.raises(ValueError, match="features must be at least 1"):
            nn.Linear(*arguments)
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="a probability"):
            nn.Dropout(p)
    with pytest.raises(ValueError, match="channels"):
        nn.Conv2d(3, 1, 3)(gpucnn.tensor(IMAGES))
    with pytest.raises(ValueError, match="features"):
        nn.Linear(31, 5)(gpucnn.tensor(FEATURES))


# ---------------------------------------------------------------------------------------------- Sequential


def test_sequential_runs_in_order_and_can_be_cut() -> None:
    layers = [nn.Flatten(), nn.Linear(288, 4), nn.ReLU(), nn.Linear(4, 2)]
    model = nn.Sequential(*layers)
    x = gpucnn.tensor(IMAGES)
    y: Any = x
    for layer in layers:
        y = layer(y)
    assert np.array_equal(model(x).numpy(), y.numpy())
    assert (len(model), list(model), model[0], model[-1]) == (4, layers, layers[0], layers[3])
    head, tail = model[:2], model[2:]
    assert isinstance(head, nn.Sequential)
    assert list(head) == layers[:2]
    assert list(tail.state_dict()) == ["3.weight", "3.bias"]
    assert np.array_equal(tail(head(x)).numpy(), y.numpy())
    assert list(model[::-2]) == [layers[3], layers[1]]
    for index in (4, -5):
        with pytest.raises(IndexError):
            model[index]
    assert nn.Sequential()(x) is x
    assert len(model[4:]) == 0


def test_sequential_with_names() -> None:
    for names in ({"a": nn.ReLU(), "b": nn.Linear(1, 1)}, OrderedDict(a=nn.ReLU(), b=nn.Linear(1, 1))):
        model = nn.Sequential(names)
        assert list(model.state_dict()) == ["b.weight", "b.bias"]
        assert model.b is model[1]
    for wrong in ({"a.b": nn.ReLU()}, {"": nn.ReLU()}, {"forward": nn.ReLU()}):
        with pytest.raises(ValueError, match="is empty, has a dot, or names an attribute"):
            nn.Sequential(wrong)
    for arguments in ((1,), (nn.ReLU,), (nn.ReLU(), None), ([nn.ReLU()],), ({"a": 1},), (nn.ReLU(), {"a": nn.ReLU()})):
        with pytest.raises(TypeError, match="Sequential takes modules, got"):
            nn.Sequential(*arguments)


def test_append_never_replaces() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())
    assert model.append(nn.Flatten()) is model
    tail = model[1:]
    tail.append(nn.ReLU())
    assert [type(m).__name__ for m in tail] == ["Tanh", "Sigmoid", "Flatten", "ReLU"]
    assert len({name for name, _ in tail.named_children()}) == 4
    with pytest.raises(TypeError, match="got function"):
        model.append(lambda x: x)  # type: ignore[arg-type]
    assert len(model) == 4


# ---------------------------------------------------------------------------------------------------- print


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.Conv2d(1, 6, 5), "Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1))"),
        (
            nn.Conv2d(4, 6, (3, 1), 2, (1, 0), 2, 2, False),
            "Conv2d(4, 6, kernel_size=(3, 1), stride=(2, 2), padding=(1, 0), dilation=(2, 2), groups=2, bias=False)",
        ),
        (nn.Conv2d(1, 1, 3, padding="same"), "Conv2d(1, 1, kernel_size=(3, 3), stride=(1, 1), padding='same')"),
        (nn.Linear(2, 3, bias=False), "Linear(in_features=2, out_features=3, bias=False)"),
        (nn.ReLU(), "ReLU()"),
        (nn.Flatten(), "Flatten(start_dim=1, end_dim=-1)"),
        (nn.Dropout(0.25), "Dropout(p=0.25)"),
        (nn.MaxPool2d(2), "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1)"),
        (nn.AvgPool2d((2, 1), 3, 1), "AvgPool2d(kernel_size=(2, 1), stride=3, padding=1)"),
        (nn.Sequential(), "Sequential()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_repr(layer: nn.Module, text: str) -> None:
    assert repr(layer) == text


# --------------------------------------------------------------------------------------------- how they start


def uniform_on(values: np.ndarray, bound: float) -> None:
    """As large a sample as it is, it fills [-bound, bound] evenly: range, first two moments and every quarter."""
    n = values.size
    assert np.abs(values).max() <= np.float32(bound)
    assert np.abs(values).max() >= bound * (1 - 20 / n)
    assert abs(values.mean()) <= 5 * bound / math.sqrt(3 * n)
    assert abs(values.var() / (bound**2 / 3) - 1) <= 5 * math.sqrt(0.8 / n)
    quarters = np.histogram(values, 4, (-bound, bound))[0] / n
    assert np.abs(quarters - 0.25).max() <= 5 * math.sqrt(0.1875 / n)


def test_layers_start_as_pytorchs_do() -> None:
    gpucnn.manual_seed(11)
    for layer, fan_in in ((nn.Conv2d(16, 600, (3, 5), groups=2), 8 * 15), (nn.Linear(200, 600), 200)):
        uniform_on(layer.weight.numpy().reshape(-1), 1 / math.sqrt(fan_in))
        assert layer.bias is not None
        uniform_on(layer.bias.numpy(), 1 / math.sqrt(fan_in))
        for parameter in layer.parameters():
            assert (parameter.dtype, parameter.requires_grad, parameter.is_leaf) == (np.float32, True, True)


@pytest.mark.peers
def test_moments_are_those_of_pytorch(torch: Any) -> None:
    gpucnn.manual_seed(12)
    torch.manual_seed(12)
    for make in (lambda layers: layers.Conv2d(32, 64, 5), lambda layers: layers.Linear(300, 200)):
        for ours, theirs in zip(make(nn).parameters(), make(torch.nn).parameters(), strict=True):
            a, b = ours.numpy().reshape(-1), theirs.detach().numpy().reshape(-1)
            assert abs(np.abs(a).max() / np.abs(b).max() - 1) <= 40 / a.size
            assert abs(a.std() / b.std() - 1) <= 8 / math.sqrt(a.size)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_initialisers(dtype: str) -> None:
    gpucnn.manual_seed(13)
    weight = gpucnn.zeros(100, 20, 3, 5, dtype=dtype, requires_grad=True)  # fan in 300, fan out 1500
    memory = weight.data
    for run, bound in (
        (lambda: init.uniform_(weight, -2, 2), 2.0),
        (lambda: init.xavier_uniform_(weight), math.sqrt(6 / 1800)),
        (lambda: init.xavier_uniform_(weight, gain=3), 3 * math.sqrt(6 / 1800)),
        (lambda: init.kaiming_uniform_(weight), math.sqrt(6 / 300)),
        (lambda: init.kaiming_uniform_(weight, math.sqrt(5)), math.sqrt(1 / 300)),
        (lambda: init.kaiming_uniform_(weight, mode="fan_out", nonlinearity="linear"), math.sqrt(3 / 1500)),
        (lambda: init.kaiming_uniform_(weight, nonlinearity="tanh"), 5 / 3 * math.sqrt(3 / 300)),
    ):
        assert run() is weight
        if dtype != "float16":
            uniform_on(weight.numpy().reshape(-1).astype(np.float64), bound)
        assert np.abs(weight.numpy()).max() <= np.dtype(dtype).type(bound)
    for run, std in (
        (lambda: init.normal_(weight, 0, 0.5), 0.5),
        (lambda: init.kaiming_normal_(weight, nonlinearity="relu"), math.sqrt(2 / 300)),
    ):
        assert run() is weight
        values = weight.numpy().astype(np.float64)
        assert abs(values.std() / std - 1) <= 5 / math.sqrt(2 * values.size) + 1e-3
        assert np.abs(values).max() >= 3 * std
        assert abs(values.mean()) <= 5 * std / math.sqrt(values.size)
    assert abs(init.normal_(weight, 7.0, 0.1).numpy().astype(np.float64).mean() - 7) <= 0.01
    for run, value in ((init.zeros_, 0), (init.ones_, 1), (lambda w: init.constant_(w, 2.5), 2.5)):
        assert np.array_equal(run(weight).numpy(), np.full(weight.shape, value))
    assert weight.data is memory
    assert weight.requires_grad


def test_weights_are_drawn_in_logical_order() -> None:
    gpucnn.manual_seed(14)
    laid_out = init.normal_(gpucnn.zeros(4, 3, 2, 2))
    gpucnn.manual_seed(14)
    plain = init.normal_(gpucnn.Tensor(np.zeros((4, 3, 2, 2), np.float32)))
    assert laid_out.data.strides != plain.data.strides
    assert np.array_equal(laid_out.numpy(), plain.numpy())


def test_initialisers_refuse() -> None:
    weight = gpucnn.zeros(3, 4)
    with pytest.raises(ValueError, match=r"2 axes or more, got shape \(3,\)"):
        init.kaiming_uniform_(gpucnn.zeros(3))
    with pytest.raises(ValueError, match="'fan_in' or 'fan_out', got 'fan'"):
        init.kaiming_normal_(weight, mode="fan")
    with pytest.raises(ValueError, match=r"nonlinearity must be one of linear, .*got 'gelu'"):
        init.kaiming_uniform_(weight, nonlinearity="gelu")
    assert not weight.numpy().any()
    assert init.fans(gpucnn.zeros(6, 4, 3, 2)) == (24, 36)
