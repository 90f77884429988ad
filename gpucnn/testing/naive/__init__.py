"""The truth: every op as float64 loops over its definition, that anyone can check by eye.

Nothing here shares an algorithm with what it judges: no im2col, no FFT, no reuse of partial results. One file an op,
named as everywhere in gpucnn; a function is the op, and `<op>_grad` or `<op>_<argument>_grad` its gradient. Arrays
in, numpy arrays out. Letters: N images of C channels and H x W elements, K filters of R x S taps, P x Q outputs.
"""

from gpucnn.testing.naive.activation import relu, relu_grad, sigmoid, sigmoid_grad, tanh, tanh_grad
from gpucnn.testing.naive.conv2d import conv2d, conv2d_bias_grad, conv2d_input_grad, conv2d_weight_grad
from gpucnn.testing.naive.conv_transpose2d import (
    conv_transpose2d,
    conv_transpose2d_bias_grad,
    conv_transpose2d_input_grad,
    conv_transpose2d_weight_grad,
)
from gpucnn.testing.naive.linear import linear, linear_bias_grad, linear_input_grad, linear_weight_grad
from gpucnn.testing.naive.loss import cross_entropy, cross_entropy_grad
from gpucnn.testing.naive.optim import adam_step, adamw_step, sgd_step
from gpucnn.testing.naive.pool2d import avg_pool2d, avg_pool2d_grad, max_pool2d, max_pool2d_grad
from gpucnn.testing.naive.sizes import conv_output_size, pool_output_size
from gpucnn.testing.naive.unfold import fold, unfold

__all__ = [
    "adam_step",
    "adamw_step",
    "avg_pool2d",
    "avg_pool2d_grad",
    "conv2d",
    "conv2d_bias_grad",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "conv_output_size",
    "conv_transpose2d",
    "conv_transpose2d_bias_grad",
    "conv_transpose2d_input_grad",
    "conv_transpose2d_weight_grad",
    "cross_entropy",
    "cross_entropy_grad",
    "fold",
    "linear",
    "linear_bias_grad",
    "linear_input_grad",
    "linear_weight_grad",
    "max_pool2d",
    "max_pool2d_grad",
    "pool_output_size",
    "relu",
    "relu_grad",
    "sgd_step",
    "sigmoid",
    "sigmoid_grad",
    "tanh",
    "tanh_grad",
    "unfold",
]
