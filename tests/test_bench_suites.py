"""gpucnn.bench.suites: the layers of networks, as often as the networks have them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import models
from gpucnn.bench import suites
from gpucnn.bench.cases import PASSES, Case, Truth
from gpucnn.bench.measure import judged
from gpucnn.bench.rivals import Own
from gpucnn.bench.suites import STEMS, SUITES, Suite, cases, example, layers, suite, words
from gpucnn.bench.updates import UPDATES
from gpucnn.calls import Call
from gpucnn.nn.init import skip_init
from gpucnn.ops.registry import observe_calls

COUNTS = {
    "resnet50": {"conv2d": 53, "batch_norm": 4, "batch_norm_relu": 49, "max_pool2d": 1, "avg_pool2d": 1, "linear": 1},
    "resnext50": {"conv2d": 53, "batch_norm": 4, "batch_norm_relu": 49, "max_pool2d": 1, "avg_pool2d": 1, "linear": 1},
    "vgg16": {"conv2d_relu": 13, "max_pool2d": 5, "avg_pool2d": 1, "linear": 3, "relu": 2, "dropout": 2},
    "alexnet": {"conv2d_relu": 5, "max_pool2d": 3, "avg_pool2d": 1, "linear": 3, "relu": 2, "dropout": 2},
    "mobilenet_v2": {"conv2d": 52, "batch_norm": 17, "batch_norm_relu": 35, "add": 10, "avg_pool2d": 1}
    | {"dropout": 1, "linear": 1},
    "lenet5": {"conv2d": 2, "relu": 4, "max_pool2d": 2, "linear": 3},
    "cifar": {"conv2d": 19, "batch_norm_relu": 19, "pad": 2, "avg_pool2d": 1, "linear": 1},
}  # fmt: skip


# Of GoogLeNet's two auxiliary classifiers: 1x1 512->128 and 528->128 on 4x4, 2048->1024 and 1024->1000.
ONLY_IN_TRAINING = {"googlenet": (512 + 528) * 128 * 16 + 2 * (2048 * 1024 + 1024 * 1000)}


@pytest.mark.parametrize("name", COUNTS)
def test_each_layer_is_there_as_often_as_the_network_has_it(name: str) -> None:
    found: Counter[str] = Counter()
    distinct = layers(suite(name), 1)
    for layer in distinct:
        found[layer.op] += layer.count
    assert found == COUNTS[name]
    texts = [f"{layer.op} {layer.arguments} {layer.has_dgrad}" for layer in distinct]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", SUITES)
def test_the_products_are_those_of_the_networks_summary(name: str) -> None:
    of = suite(name)
    with skip_init():
        network = models.build(of.network, in_channels=of.image[0]).train()
    total = 0
    for layer in layers(of, 3):
        if layer.op.startswith(("conv2d", "linear")):
            explained = Call.of(layer.op, **layer.arguments)
            output = shape_of(explained)
            weight = layer.arguments["weight"]
            total += layer.count * int(np.prod(output)) * int(np.prod(weight[1:]))
    assert total == 3 * (gpucnn.summary(network, of.image).macs + ONLY_IN_TRAINING.get(name, 0))


def shape_of(call: Call) -> tuple[int, ...]:
    """Of what a call returns, which is not computed."""
    with gpucnn.use_backend("reference"), gpucnn.no_grad(), observe_calls(suites._without_computing):
        return tuple(call.function(*call.arguments, **call.options).shape)


@pytest.mark.parametrize("name", SUITES)
def test_every_layer_can_be_called(name: str) -> None:
    for layer in layers(suite(name), 2):
        assert shape_of(Call.of(layer.op, **layer.arguments))[0] == 2, layer


def test_passes_of_the_first_layer_have_no_gradient_by_the_image() -> None:
    found = cases("lenet5", 4, PASSES, "float32", "highest", ["conv2d"])
    assert [(case.layer, case.direction) for case in found] == [
        *(("5x5 1->6 28x28", "fwd"), ("5x5 1->6 28x28", "wgrad")),
        *(("5x5 6->16 14x14", "fwd"), ("5x5 6->16 14x14", "dgrad"), ("5x5 6->16 14x14", "wgrad")),
    ]
    assert {case.arguments["input"][0] for case in found} == {4}


def test_what_is_joined_computes_what_its_parts_do() -> None:
    """The layers of a small network, one after the other, are the network."""
    for case in cases("cifar", 2, ("fwd", "bwd"), "float32", "highest", ["batch_norm_relu", "pad"]):
        small = dataclasses.replace(case)
        prepared = Own("reference", "reference", "cpu").prepare(small, 4, None)
        assert judged(small, Truth(small, 4, "cpu"), "reference", prepared.outputs)[1]
    joined = [case for case in cases("cifar", 2, ("fwd",), "float32", "highest") if case.op == "batch_norm_relu"]
    assert {"residual" in case.arguments for case in joined} == {True, False}


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no suite 'resnet5', there are: resnet50, vgg16.*; did you mean 'resnet50'"):
        suite("resnet5")
    with pytest.raises(ValueError, match="no op of suite lenet5 'conv', there are: conv2d, relu, max_pool2d, linear"):
        cases("lenet5", 1, PASSES, "float32", "highest", ["conv"])


def test_a_function_that_can_not_be_written_down_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(suites._CALLS, "MaxPool2d")
    with pytest.raises(NotImplementedError, match="MaxPool2d"):
        layers(Suite("lenet5", (1, 28, 28), {"cpu": 1}), 1)


@pytest.mark.parametrize(
    ("op", "arguments", "text"),
    [
        ("conv2d", {"input": (1, 64, 56, 28), "weight": (64, 64, 3, 1)}, "3x1 64->64 56x28"),
        ("conv2d", {"input": (1, 64, 56, 56), "weight": (64, 1, 3, 3), "stride": 2, "groups": 64},
         "3x3/2 64->64 56x56 depthwise"),
        ("conv2d", {"input": (1, 64, 8, 8), "weight": (64, 32, 3, 3), "groups": 2}, "3x3 64->64 8x8 groups 2"),
        ("linear", {"input": (1, 64), "weight": (10, 64)}, "64->10"),
        ("max_pool2d", {"input": (1, 64, 8, 8), "kernel_size": 3, "stride": 2}, "3/2 64 8x8"),
        ("cat", {"tensors": [(1, 64, 8, 8), (1, 32, 8, 8)], "dim": 1}, "64+32 8x8"),
        ("batch_norm_relu", {"input": (1, 64, 8, 8), "residual": (1, 64, 8, 8)}, "64 8x8 + residual"),
    ],
)  # fmt: skip
def test_layers_are_named_in_a_few_words(op: str, arguments: dict[str, Any], text: str) -> None:
    assert words(op, arguments) == text


@pytest.mark.parametrize("op", [*STEMS.values(), "group_norm", "layer_norm", "avg_pool2d", "softmax", "prelu", "gelu"])
def test_examples_can_be_called(op: str) -> None:
    shape = (4, 8, 6, 6)
    first = {"param" if op in UPDATES else "input": shape, **example(op, shape)}
    prepared = Own("reference", "reference", "cpu").prepare(Case(op, first), 0, None)
    assert prepared.failed == ""
    assert prepared.kernel
