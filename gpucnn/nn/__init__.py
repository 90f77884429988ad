"""Layers: objects that own parameters and call gpucnn.functional. Names and defaults are PyTorch's."""

from __future__ import annotations

from gpucnn.nn import init
from gpucnn.nn.activation import ReLU, Sigmoid, Tanh
from gpucnn.nn.container import ModuleDict, ModuleList, Sequential
from gpucnn.nn.conv import Conv1d, Conv2d, ConvTranspose2d, DepthwiseSeparableConv2d
from gpucnn.nn.dropout import Dropout
from gpucnn.nn.linear import Linear
from gpucnn.nn.loss import CrossEntropyLoss
from gpucnn.nn.module import Module
from gpucnn.nn.padding import CircularPad2d, ConstantPad2d, ReflectionPad2d, ReplicationPad2d, ZeroPad2d
from gpucnn.nn.parameter import Parameter
from gpucnn.nn.pooling import AvgPool2d, MaxPool2d
from gpucnn.nn.shape import Flatten, Identity, Unflatten
from gpucnn.nn.unfold import Fold, Unfold

__all__ = [
    "AvgPool2d",
    "CircularPad2d",
    "ConstantPad2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "DepthwiseSeparableConv2d",
    "Dropout",
    "Flatten",
    "Fold",
    "Identity",
    "Linear",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "Parameter",
    "ReLU",
    "ReflectionPad2d",
    "ReplicationPad2d",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "Unflatten",
    "Unfold",
    "ZeroPad2d",
    "init",
]
