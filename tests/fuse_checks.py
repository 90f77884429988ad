"""What the tests of convolutions with batch norms behind them share."""

from __future__ import annotations

from typing import Any

import numpy as np
from op_checks import draw

from gpucnn import nn
from gpucnn.testing import assert_close

X = draw("normal", (2, 3, 8, 7))


def normed(module: nn.Module, stream: int = 0) -> nn.Module:
    """In evaluation, with statistics and weights that are not those it started with."""
    for number, norm in enumerate(m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        values = draw("normal", (4, norm.num_features), 100 * stream + number)
        pairs = [(norm.running_mean, values[0]), (norm.running_var, np.abs(values[1]) + 0.5)]
        pairs += [(norm.weight, 1 + values[2] / 4), (norm.bias, values[3])]
        for tensor, value in pairs:
            if tensor is not None:
                tensor.data[...] = value
    return module.eval()


def conv_norm(*channels: int, **options: Any) -> nn.Sequential:
    inner, outer = channels or (3, 4)
    return nn.Sequential(nn.Conv2d(inner, outer, 3, **options), nn.BatchNorm2d(outer))


def close(found: Any, truth: Any, allowed: float = 2e-5) -> None:
    __tracebackhide__ = True
    values = truth.numpy().astype(np.float64)
    assert_close(found, values, rtol=allowed, atol=allowed * float(np.abs(values).max(initial=0)))
