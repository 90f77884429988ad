"""The operations, with PyTorch's names, signatures and meaning; what a user passes is checked here.

Images are (N,C,H,W) or, unbatched, (C,H,W); filters (K, C/groups, R, S). Wrong arguments raise ValueError or TypeError
before anything is computed.
"""

from __future__ import annotations

from gpucnn.functional.activation import (
    gelu,
    glu,
    hardsigmoid,
    hardswish,
    logsigmoid,
    mish,
    sigmoid,
    silu,
    softplus,
    softsign,
    tanh,
    tanhshrink,
)
from gpucnn.functional.conv import conv1d, conv2d, conv2d_relu, conv_transpose2d, fold, unfold
from gpucnn.functional.dropout import dropout, dropout2d
from gpucnn.functional.images import normalize_images
from gpucnn.functional.linear import linear, linear_relu
from gpucnn.functional.loss import cross_entropy, nll_loss
from gpucnn.functional.norm import (
    batch_norm,
    batch_norm_relu,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
)
from gpucnn.functional.pooling import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    lp_pool2d,
    max_pool2d,
    max_unpool2d,
)
from gpucnn.functional.rectifier import (
    celu,
    elu,
    hardshrink,
    hardtanh,
    leaky_relu,
    prelu,
    relu,
    relu6,
    rrelu,
    selu,
    softshrink,
    threshold,
)
from gpucnn.functional.regression_loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from gpucnn.functional.shape import cat, flatten, pad
from gpucnn.functional.softmax import log_softmax, softmax, softmin
from gpucnn.functional.upsample import bed_of_nails, interpolate, pixel_shuffle, pixel_unshuffle

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_relu",
    "bed_of_nails",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cat",
    "celu",
    "conv1d",
    "conv2d",
    "conv2d_relu",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "dropout2d",
    "elu",
    "flatten",
    "fold",
    "gelu",
    "glu",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_relu",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "lp_pool2d",
    "max_pool2d",
    "max_unpool2d",
    "mish",
    "mse_loss",
    "nll_loss",
    "normalize_images",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "unfold",
]
