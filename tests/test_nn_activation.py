"""Activations and losses as modules: each is its function, with PyTorch's arguments, name and words for itself."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from op_checks import draw

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.autograd import Context
from gpucnn.ops import activation, rectifier
from gpucnn.reference.rectifier import EluProblem, HardtanhProblem
from gpucnn.testing import assert_equal

X = gpucnn.tensor(3 * draw("normal", (2, 4, 3, 6)))

LAYERS: dict[str, tuple[tuple[Any, ...], Any]] = {  # arguments, and the function that it then is
    "ReLU": ((), F.relu),
    "ReLU6": ((), F.relu6),
    "LeakyReLU": ((0.2,), lambda x: F.leaky_relu(x, 0.2)),
    "PReLU": ((4, 0.3), lambda x: F.leaky_relu(x, float(np.float32(0.3)))),
    "RReLU": ((0.2, 0.4), lambda x: F.leaky_relu(x, (0.2 + 0.4) / 2)),
    "ELU": ((0.5,), lambda x: F.elu(x, 0.5)),
    "SELU": ((), F.selu),
    "CELU": ((0.5,), lambda x: F.celu(x, 0.5)),
    "Hardtanh": ((-2.0, 0.5), lambda x: F.hardtanh(x, -2.0, 0.5)),
    "Threshold": ((0.1, 20.0), lambda x: F.threshold(x, 0.1, 20.0)),
    "Hardshrink": ((0.7,), lambda x: F.hardshrink(x, 0.7)),
    "Softshrink": ((0.7,), lambda x: F.softshrink(x, 0.7)),
    "Sigmoid": ((), F.sigmoid),
    "LogSigmoid": ((), F.logsigmoid),
    "Hardsigmoid": ((), F.hardsigmoid),
    "Tanh": ((), F.tanh),
    "Tanhshrink": ((), F.tanhshrink),
    "Softsign": ((), F.softsign),
    "Softplus": ((2.0, 5.0), lambda x: F.softplus(x, 2.0, 5.0)),
    "SiLU": ((), F.silu),
    "Hardswish": ((), F.hardswish),
    "Mish": ((), F.mish),
    "GELU": (("tanh",), lambda x: F.gelu(x, "tanh")),
    "GLU": ((1,), lambda x: F.glu(x, 1)),
    "Softmax": ((1,), lambda x: F.softmax(x, 1)),
    "Softmin": ((1,), lambda x: F.softmin(x, 1)),
    "LogSoftmax": ((1,), lambda x: F.log_softmax(x, 1)),
    "Softmax2d": ((), lambda x: F.softmax(x, 1)),
}
HINTED = [name for name in LAYERS if "inplace" in inspect.signature(getattr(nn, name)).parameters]


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_their_functions(name: str) -> None:
    arguments, function = LAYERS[name]
    layer = getattr(nn, name)(*arguments).eval().to("float64")
    assert_equal(layer(X), function(X))


@pytest.mark.parametrize("name", HINTED)
def test_inplace_changes_no_result_and_no_input(name: str) -> None:
    arguments, function = LAYERS[name]
    x = gpucnn.tensor(X.numpy().copy(), requires_grad=True)
    layer = getattr(nn, name)(*arguments, inplace=True).eval()
    assert_equal(layer(x), function(X))
    layer(x).sum().backward()
    assert_equal(x, X)
    assert "inplace=True" in repr(layer)


def test_weights_of_prelu_start_where_they_are_told_and_are_trained() -> None:
    layer = nn.PReLU(4, 0.5)
    assert layer.weight.tolist() == [0.5] * 4
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    layer(gpucnn.tensor(-np.ones((2, 4), np.float32))).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [-2.0] * 4
    assert nn.PReLU().weight.tolist() == [0.25]


@pytest.mark.peers
@pytest.mark.parametrize("name", LAYERS)
def test_names_arguments_and_words_are_pytorchs(name: str, torch: Any) -> None:
    ours, theirs, arguments = getattr(nn, name), getattr(torch.nn, name), LAYERS[name][0]
    assert repr(ours(*arguments)) == repr(theirs(*arguments))
    mine = inspect.signature(ours).parameters
    shared = [p for p in inspect.signature(theirs).parameters if p in mine]
    assert shared == list(mine)
    for parameter in shared:
        assert mine[parameter].default == inspect.signature(theirs).parameters[parameter].default, parameter


@pytest.mark.peers
@pytest.mark.parametrize(
    "name",
    [
        *("relu", "relu6", "leaky_relu", "rrelu", "elu", "selu", "celu", "hardtanh", "threshold", "hardsigmoid"),
        *("silu", "hardswish", "mish", "softmax", "log_softmax", "softmin", "glu", "mse_loss", "l1_loss"),
        *("smooth_l1_loss", "huber_loss", "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits"),
        *("cross_entropy", "nll_loss"),
    ],
)
def test_functions_have_pytorchs_arguments_in_its_order(name: str, torch: Any) -> None:
    """Less the arguments that PyTorch itself calls deprecated."""
    theirs = inspect.signature(getattr(torch.nn.functional, name)).parameters
    mine = inspect.signature(getattr(F, name)).parameters
    assert [p for p in theirs if p in mine] == list(mine)
    assert set(theirs) - set(mine) <= {"size_average", "reduce", "_stacklevel", "weight"}
    for parameter in mine:
        assert mine[parameter].default == theirs[parameter].default, parameter


@pytest.mark.parametrize(
    ("function", "problem", "saves_output"),
    [
        (activation.Sigmoid, None, True),
        (activation.Tanh, None, True),
        (activation.Softsign, None, True),
        (activation.LogSigmoid, None, True),
        (activation.SiLU, None, False),
        (rectifier.ReLU, None, True),
        (rectifier.Hardtanh, HardtanhProblem(0.0, 6.0), True),
        (rectifier.LeakyReLU, 0.01, True),
        (rectifier.LeakyReLU, -0.01, False),
        (rectifier.ELU, EluProblem(1.0), True),
        (rectifier.ELU, EluProblem(-1.0), False),
        (rectifier.Softshrink, 0.5, True),
    ],
)
def test_one_array_is_kept_for_backward(function: Any, problem: Any, saves_output: bool) -> None:
    """The output where that is enough: the next layer keeps it anyway."""
    context, x = Context((True,)), draw("normal", (4, 5))
    y = function.forward(context, x, problem=problem)
    assert [saved is (y if saves_output else x) for saved in context.saved] == [True]
