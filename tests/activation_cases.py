"""Every activation of one argument that the tests know, by name: what it is to kernels, to the truth and to users."""

from __future__ import annotations

import functools
from typing import Any

from pointwise_checks import Case

from gpucnn.ops import activation as ops
from gpucnn.ops import rectifier
from gpucnn.reference.activation import SoftplusProblem
from gpucnn.reference.rectifier import EluProblem, HardtanhProblem, ThresholdProblem
from gpucnn.testing import naive

SMOOTH = {
    "sigmoid": Case(ops.sigmoid, ops.sigmoid_grad, naive.sigmoid, naive.sigmoid_grad, lambda m, t: m.sigmoid(t)),
    "tanh": Case(ops.tanh, ops.tanh_grad, naive.tanh, naive.tanh_grad, lambda m, t: m.tanh(t)),
    "tanhshrink": Case(
        *(ops.tanhshrink, ops.tanhshrink_grad, naive.tanhshrink, naive.tanhshrink_grad),
        lambda m, t: m.tanhshrink(t),
        saves_output=False,
    ),
    "softsign": Case(ops.softsign, ops.softsign_grad, naive.softsign, naive.softsign_grad, lambda m, t: m.softsign(t)),
    "logsigmoid": Case(
        ops.logsigmoid, ops.logsigmoid_grad, naive.logsigmoid, naive.logsigmoid_grad, lambda m, t: m.logsigmoid(t)
    ),
    "hardsigmoid": Case(
        *(ops.hardsigmoid, ops.hardsigmoid_grad, naive.hardsigmoid, naive.hardsigmoid_grad),
        lambda m, t: m.hardsigmoid(t, inplace=False),
        saves_output=False,
    ),
    "softplus": Case(
        *(ops.softplus, ops.softplus_grad, naive.softplus, naive.softplus_grad),
        lambda m, t: m.softplus(t),
        SoftplusProblem(1.0, 20.0),
        saves_output=False,
    ),
    "softplus narrow": Case(
        *(ops.softplus, ops.softplus_grad),
        functools.partial(naive.softplus, beta=2.0, threshold=1.5),
        functools.partial(naive.softplus_grad, beta=2.0, threshold=1.5),
        lambda m, t: m.softplus(t, 2.0, 1.5),
        SoftplusProblem(2.0, 1.5),
        saves_output=False,
    ),
    "silu": Case(
        ops.silu, ops.silu_grad, naive.silu, naive.silu_grad, lambda m, t: m.silu(t, inplace=False), saves_output=False
    ),
    "hardswish": Case(
        *(ops.hardswish, ops.hardswish_grad, naive.hardswish, naive.hardswish_grad),
        lambda m, t: m.hardswish(t, inplace=False),
        saves_output=False,
        uncertain_at_nan=True,
    ),
    "mish": Case(ops.mish, ops.mish_grad, naive.mish, naive.mish_grad, lambda m, t: m.mish(t), saves_output=False),
    "gelu": Case(ops.gelu, ops.gelu_grad, naive.gelu, naive.gelu_grad, lambda m, t: m.gelu(t), saves_output=False),
    "gelu tanh": Case(
        *(ops.gelu_tanh, ops.gelu_tanh_grad, naive.gelu_tanh, naive.gelu_tanh_grad),
        lambda m, t: m.gelu(t, approximate="tanh"),
        saves_output=False,
    ),
}


def _with_options(
    tables: tuple[Any, Any], name: str, call: Any, problem: Any, saves_output: bool = True, **options: float
) -> Case:
    truth = functools.partial(getattr(naive, name), **options)
    gradient = functools.partial(getattr(naive, f"{name}_grad"), **options)
    return Case(*tables, truth, gradient, call, problem, saves_output, uncertain_at_nan=name not in _CERTAIN)


_CERTAIN = ("leaky_relu", "threshold")
_HARDTANH, _LEAKY, _ELU = (
    (rectifier.hardtanh, rectifier.hardtanh_grad),
    (rectifier.leaky_relu, rectifier.leaky_relu_grad),
    (rectifier.elu, rectifier.elu_grad),
)
_THRESHOLD, _HARDSHRINK, _SOFTSHRINK = (
    (rectifier.threshold, rectifier.threshold_grad),
    (rectifier.hardshrink, rectifier.hardshrink_grad),
    (rectifier.softshrink, rectifier.softshrink_grad),
)
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848, 1.0507009873554804934

RECTIFIERS = {
    "relu": Case(
        rectifier.relu, rectifier.relu_grad, naive.relu, naive.relu_grad, lambda m, t: m.relu(t, inplace=False)
    ),
    "relu6": _with_options(
        _HARDTANH, "hardtanh", lambda m, t: m.relu6(t), HardtanhProblem(0.0, 6.0), min_val=0.0, max_val=6.0
    ),
    "hardtanh": _with_options(_HARDTANH, "hardtanh", lambda m, t: m.hardtanh(t), HardtanhProblem(-1.0, 1.0)),
    "hardtanh narrow": _with_options(
        _HARDTANH,
        "hardtanh",
        lambda m, t: m.hardtanh(t, -0.5, 3.0),
        HardtanhProblem(-0.5, 3.0),
        min_val=-0.5,
        max_val=3.0,
    ),
    "leaky_relu": _with_options(_LEAKY, "leaky_relu", lambda m, t: m.leaky_relu(t), 0.01),
    "leaky_relu flat": _with_options(_LEAKY, "leaky_relu", lambda m, t: m.leaky_relu(t, 0.0), 0.0, negative_slope=0.0),
    "leaky_relu steep": _with_options(_LEAKY, "leaky_relu", lambda m, t: m.leaky_relu(t, 3.0), 3.0, negative_slope=3.0),
    "leaky_relu folded": _with_options(
        _LEAKY, "leaky_relu", lambda m, t: m.leaky_relu(t, -0.5), -0.5, False, negative_slope=-0.5
    ),
    "rrelu": _with_options(
        _LEAKY, "leaky_relu", lambda m, t: m.rrelu(t), (1 / 8 + 1 / 3) / 2, negative_slope=(1 / 8 + 1 / 3) / 2
    ),
    "elu": _with_options(_ELU, "elu", lambda m, t: m.elu(t), EluProblem(1.0)),
    "elu steep": _with_options(_ELU, "elu", lambda m, t: m.elu(t, 2.5), EluProblem(2.5), alpha=2.5),
    "elu flat": _with_options(_ELU, "elu", lambda m, t: m.elu(t, 0.0), EluProblem(0.0), alpha=0.0),
    "elu folded": _with_options(_ELU, "elu", lambda m, t: m.elu(t, -0.5), EluProblem(-0.5), False, alpha=-0.5),
    "selu": _with_options(
        _ELU,
        "elu",
        lambda m, t: m.selu(t),
        EluProblem(_SELU_ALPHA, _SELU_SCALE),
        alpha=_SELU_ALPHA,
        scale=_SELU_SCALE,
    ),
    "celu": _with_options(
        _ELU, "elu", lambda m, t: m.celu(t, 2.0), EluProblem(2.0, 1.0, 0.5), alpha=2.0, input_scale=0.5
    ),
    "celu folded": _with_options(
        _ELU, "elu", lambda m, t: m.celu(t, -8.0), EluProblem(-8.0, 1.0, -0.125), False, alpha=-8.0, input_scale=-0.125
    ),
    "threshold": _with_options(
        _THRESHOLD,
        "threshold",
        lambda m, t: m.threshold(t, 0.5, 7.0),
        ThresholdProblem(0.5, 7.0),
        False,
        threshold=0.5,
        value=7.0,
    ),
    "hardshrink": _with_options(_HARDSHRINK, "hardshrink", lambda m, t: m.hardshrink(t), 0.5, False),
    "hardshrink of all": _with_options(
        _HARDSHRINK, "hardshrink", lambda m, t: m.hardshrink(t, -1.0), -1.0, False, lambd=-1.0
    ),
    "softshrink": _with_options(_SOFTSHRINK, "softshrink", lambda m, t: m.softshrink(t), 0.5),
    "softshrink none": _with_options(_SOFTSHRINK, "softshrink", lambda m, t: m.softshrink(t, 0.0), 0.0, lambd=0.0),
}

ACTIVATIONS = SMOOTH | RECTIFIERS
