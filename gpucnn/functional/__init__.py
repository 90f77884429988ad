"""The operations, with PyTorch's names, signatures and meaning; what a user passes is checked here.

Images are (N,C,H,W) or, unbatched, (C,H,W); filters (K, C/groups, R, S). Wrong arguments raise ValueError or TypeError
before anything is computed.
"""

from __future__ import annotations

from gpucnn.functional.activation import log_softmax, relu, sigmoid, softmax, tanh
from gpucnn.functional.conv import conv1d, conv2d, conv_transpose2d, fold, unfold
from gpucnn.functional.dropout import dropout
from gpucnn.functional.linear import linear
from gpucnn.functional.loss import cross_entropy, mse_loss
from gpucnn.functional.pooling import avg_pool2d, max_pool2d
from gpucnn.functional.shape import flatten, pad

__all__ = [
    "avg_pool2d",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "flatten",
    "fold",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
    "unfold",
]
