"""Layers: objects that own parameters and call gpucnn.functional. Names and defaults are PyTorch's."""

from __future__ import annotations

from gpucnn.nn import init
from gpucnn.nn.activation import ReLU, Sigmoid, Tanh
from gpucnn.nn.container import Flatten, Sequential
from gpucnn.nn.conv import Conv2d
from gpucnn.nn.dropout import Dropout
from gpucnn.nn.linear import Linear
from gpucnn.nn.loss import CrossEntropyLoss
from gpucnn.nn.module import Module
from gpucnn.nn.parameter import Parameter
from gpucnn.nn.pooling import AvgPool2d, MaxPool2d

__all__ = [
    "AvgPool2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Linear",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "init",
]
