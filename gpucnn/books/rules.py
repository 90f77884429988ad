"""What each op costs and what it does to receptive fields: one table, a line an op.

Multiply-accumulates are counted as published figures count them: one for each product of an activation with a weight
(or, in `matmul`, of two activations) that is summed up, in convolutions and matrix products alone. Adding a bias,
normalising, pooling, activations and arithmetic between arrays count as none, though they take time and memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gpucnn.autograd import Function
from gpucnn.books import field_rules
from gpucnn.books.field_rules import Call
from gpucnn.books.fields import Field
from gpucnn.books.unread import unread
from gpucnn.ops import (
    _template,
    activation,
    adaptive_pool2d,
    conv2d,
    conv_transpose2d,
    dropout,
    elementwise,
    images,
    linear,
    loss,
    matmul,
    norm,
    ordering,
    pool2d,
    rectifier,
    reduction,
    regression_loss,
    shape,
    softmax,
    unfold,
    unpool2d,
    upsample,
)


def _no_macs(call: Call) -> int:
    return 0


def _all_read(call: Call) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Rule:
    """Of a call: its `macs`, the `field` of its results, and rows and columns of its input left `unread`."""

    macs: Callable[[Call], int] = _no_macs
    field: Callable[[Call], Field] = field_rules.elementwise
    unread: Callable[[Call], tuple[str, ...]] = _all_read


# -------------------------------------------------------------------------------------- multiply-accumulates


def _conv_macs(call: Call) -> int:
    p = call.problem
    return int(p.N * p.P * p.Q * p.K * (p.C // p.groups) * p.R * p.S)


def _product_macs(call: Call) -> int:
    return math.prod(call.outputs[0]) * call.first[-1]


def _unread(call: Call) -> tuple[str, ...]:
    return unread(call.problem)


# ---------------------------------------------------------------------------------------------------- the table


def _like(rule: Rule, *functions: type[Function]) -> dict[type[Function], Rule]:
    return dict.fromkeys(functions, rule)


RULES: dict[type[Function], Rule] = {
    conv2d.Conv2d: Rule(_conv_macs, field_rules.conv, _unread),
    conv2d.Conv2dReLU: Rule(_conv_macs, field_rules.conv, _unread),
    conv_transpose2d.ConvTranspose2d: Rule(_conv_macs, field_rules.conv_transpose),
    linear.Linear: Rule(_product_macs, field_rules.last_axis),
    linear.LinearReLU: Rule(_product_macs, field_rules.last_axis),
    matmul.Matmul: Rule(_product_macs, field_rules.rows_and_columns),
    **_like(
        Rule(field=field_rules.pool, unread=_unread),
        pool2d.AvgPool2d,
        pool2d.LpPool2d,
        pool2d.MaxPool2d,
    ),
    **_like(
        Rule(field=field_rules.adaptive_pool), adaptive_pool2d.AdaptiveAvgPool2d, adaptive_pool2d.AdaptiveMaxPool2d
    ),
    unpool2d.MaxUnpool2d: Rule(field=field_rules.unpool),
    unfold.Unfold: Rule(field=field_rules.positions_as_list, unread=_unread),
    unfold.Fold: Rule(field=field_rules.positions_as_list),
    upsample.Interpolate: Rule(field=field_rules.interpolate),
    upsample.BedOfNails: Rule(field=field_rules.bed_of_nails),
    upsample.PixelShuffle: Rule(field=field_rules.pixel_shuffle),
    upsample.PixelUnshuffle: Rule(field=field_rules.pixel_unshuffle),
    **_like(
        Rule(field=field_rules.reduction),
        reduction.Sum,
        reduction.Mean,
        reduction.Amax,
        reduction.Amin,
        reduction.Prod,
        reduction.LogSumExp,
        reduction.Var,
        reduction.Norm,
    ),
    shape.Reshape: Rule(field=field_rules.reshape),
    shape.Permute: Rule(field=field_rules.permute),
    shape.GetItem: Rule(field=field_rules.getitem),
    **_like(Rule(field=field_rules.reordered), shape.Flip, shape.Roll),
    shape.Repeat: Rule(field=field_rules.repeated),
    shape.Pad: Rule(field=field_rules.pad),
    **_like(Rule(field=field_rules.along_axis), ordering.Take, shape.Cat, shape.Split),
    **_like(Rule(field=field_rules.running_axis), ordering.ArgExtremum, ordering.Argsort, ordering.Cumsum),
    activation.GLU: Rule(field=field_rules.halves),
    **_like(
        Rule(field=field_rules.loss),
        loss.CrossEntropy,
        loss.NLLLoss,
        loss.SoftCrossEntropy,
        regression_loss.BCE,
        regression_loss.BCEWithLogits,
        regression_loss.Huber,
        regression_loss.KLDiv,
        regression_loss.KLDivLog,
        regression_loss.L1,
        regression_loss.MSE,
    ),
    **_like(Rule(field=field_rules.last_axis), softmax.LogSoftmax, softmax.Softmax),
    **_like(
        Rule(),
        _template.Scale,
        activation.GELU,
        activation.GELUTanh,
        activation.Hardsigmoid,
        activation.Hardswish,
        activation.LogSigmoid,
        activation.Mish,
        activation.Sigmoid,
        activation.SiLU,
        activation.Softplus,
        activation.Softsign,
        activation.Tanh,
        activation.Tanhshrink,
        dropout.Dropout,
        elementwise.Absolute,
        elementwise.Add,
        elementwise.Clamp,
        elementwise.Divide,
        elementwise.Exp,
        elementwise.Log,
        elementwise.Maximum,
        elementwise.Minimum,
        elementwise.Multiply,
        elementwise.Negative,
        elementwise.Power,
        elementwise.Sign,
        elementwise.SquareRoot,
        elementwise.Subtract,
        elementwise.Where,
        images.NormalizeImages,
        norm.LayerNorm,
        norm.LocalResponseNorm,
        norm.Norm,
        norm.NormReLU,
        rectifier.ELU,
        rectifier.Hardshrink,
        rectifier.Hardtanh,
        rectifier.LeakyReLU,
        rectifier.PReLU,
        rectifier.ReLU,
        rectifier.RReLU,
        rectifier.Softshrink,
        rectifier.Threshold,
        shape.Convert,
        shape.Expand,
    ),
}
"""By op. An op that is not here is shown with '?' and named, and no total pretends to include it."""
