"""The layers of the model zoo's networks as cases: each distinct layer once, with its count.

A network runs once in training mode on memory that nobody fills, and what its functions are called with is noted. What
gpucnn joins (a batch norm or a convolution with the sum and the ReLU behind it) is one layer, which PyTorch computes by
several calls. Views, which move nothing, are left out, and so is the loss, which is the training's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn import backend, creation, models
from gpucnn.autograd import Context, Function, observed_by
from gpucnn.backend import Array
from gpucnn.bench.cases import Case, chosen_passes, unknown
from gpucnn.nn.init import skip_init
from gpucnn.ops.compiled import allocated
from gpucnn.ops.registry import KernelTable, observe_calls
from gpucnn.problem import output_size
from gpucnn.tensor import Tensor


@dataclass(frozen=True)
class Suite:
    """A network, its images (C, H, W), and how many at a time on a CPU and on a GPU."""

    network: str
    image: tuple[int, int, int]
    batch: dict[str, int]


_IMAGENET = (3, 224, 224), {"cpu": 1, "cuda": 32}

SUITES = {
    "resnet50": Suite("resnet50", *_IMAGENET),
    "vgg16": Suite("vgg16", *_IMAGENET),
    "alexnet": Suite("alexnet", *_IMAGENET),
    "googlenet": Suite("googlenet", *_IMAGENET),
    "resnext50": Suite("resnext50_32x4d", *_IMAGENET),
    "densenet121": Suite("densenet121", *_IMAGENET),
    "mobilenet_v2": Suite("mobilenet_v2", *_IMAGENET),
    "lenet5": Suite("lenet5", (1, 28, 28), {"cpu": 64, "cuda": 256}),
    "cifar": Suite("resnet20", (3, 32, 32), {"cpu": 32, "cuda": 128}),
}


def suite(name: str) -> Suite:
    """By its name. Raises ValueError that names those there are."""
    if name not in SUITES:
        raise ValueError(unknown("suite", name, SUITES))
    return SUITES[name]


@dataclass
class Layer:
    """A call of a function: its name, its arguments with shapes for tensors, and whether its input has a gradient."""

    op: str
    arguments: dict[str, Any]
    has_dgrad: bool = True
    count: int = 1


def cases(
    name: str, batch: int, passes: Iterable[str], dtype: str, precision: str, ops: Iterable[str] | None = None
) -> list[Case]:
    """The passes of a suite's layers.

    Args:
        name: one of SUITES.
        batch: images at a time.
        passes: as of `chosen_passes`; the first layer's input gradient, which no training needs, is left out.
        ops: names of functions to leave it at; None: all.

    Raises ValueError for an unknown suite, and for an op that it does not have.
    """
    found = layers(suite(name), batch)
    there = list(dict.fromkeys(layer.op for layer in found))
    for op in ops or ():
        if op not in there:
            raise ValueError(unknown(f"op of suite {name}", op, there))
    return [
        Case(layer.op, layer.arguments, direction, dtype, precision, words(layer.op, layer.arguments), layer.count)
        for layer in found
        if ops is None or layer.op in ops
        for direction in chosen_passes(layer.op, passes)
        if layer.has_dgrad or direction != "dgrad"
    ]


def layers(of: Suite, batch: int) -> list[Layer]:
    """Each distinct layer once, in order."""
    with skip_init():
        network = models.build(of.network, in_channels=of.image[0]).train()
    image = creation.zeros((batch, *of.image))
    joined = _Joined()
    with backend.use_backend("reference"):
        with observe_calls(joined):
            network(image)
        seen = _Calls(image, joined)
        with observed_by(seen), observe_calls(_without_computing):
            network(image)
    distinct: dict[str, Layer] = {}
    for layer in seen.layers:
        key = f"{layer.op} {layer.arguments} {layer.has_dgrad}"
        if key in distinct:
            distinct[key].count += 1
        else:
            distinct[key] = layer
    return list(distinct.values())


def _without_computing(
    table: KernelTable, problem: Any, arrays: tuple[Any, ...], kernel: str | None, like: Array
) -> Any:
    return allocated(table, problem, arrays, like)


class _Joined:
    """Observes the kernels of a forward pass: whether each convolution, and each norm, has a ReLU in it."""

    def __init__(self) -> None:
        self.relus: dict[str, list[bool]] = {"Conv2d": [], "Norm": []}

    def __call__(
        self, table: KernelTable, problem: Any, arrays: tuple[Any, ...], kernel: str | None, like: Array
    ) -> Any:
        if str(table) == "conv2d fprop":
            self.relus["Conv2d"].append(len(arrays) > 3 and bool(arrays[3]))
        elif str(table) == "norm fprop":
            self.relus["Norm"].append(problem.limit is not None)
        return allocated(table, problem, arrays, like)


class _Calls:
    """Observes the functions of a forward pass, one by one, and writes them down as calls; what is joined with a ReLU
    when nobody observes them is one call."""

    def __init__(self, image: Tensor, joined: _Joined) -> None:
        self.layers: list[Layer] = []
        self._image = image
        self._relus = {name: iter(relus) for name, relus in joined.relus.items()}
        self._has_relu = False  # the last convolution or norm

    def module(self, module: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return module.forward(*inputs, **options)

    def function(
        self,
        function: type[Function],
        inputs: tuple[Any, ...],
        parameters: Mapping[str, Any],
        ctx: Context,
        outputs: list[Tensor],
    ) -> None:
        name = function.__name__
        if name in _VIEWS:
            return
        if name not in _CALLS:
            raise NotImplementedError(f"a suite can't write {name} down yet")
        op, arguments = _CALLS[name]([None if x is None else tuple(x.shape) for x in inputs], parameters)
        if op in ("relu", "relu6") and self._has_relu:
            self._join(op)
        else:
            self.layers.append(Layer(op, arguments, has_dgrad=inputs[0] is not self._image))
        if name in self._relus:
            self._has_relu = next(self._relus[name])
        elif name != "Add":
            self._has_relu = False

    def _join(self, relu: str) -> None:
        """The last layer, and a sum that is the last but one's, with a ReLU."""
        last = self.layers[-1]
        if last.op == "add":
            shape = self.layers.pop().arguments["other"]
            last = self.layers[-1]
            last.arguments["residual"] = shape
        if relu == "relu6":
            last.arguments["max_val"] = 6.0
        last.op = f"{last.op}_relu"


Shapes = list["tuple[int, ...] | None"]
Described = tuple[str, "dict[str, Any]"]


def _conv2d(shapes: Shapes, parameters: Mapping[str, Any]) -> Described:
    p = parameters["problem"]
    given: dict[str, Any] = {"input": shapes[0], "weight": shapes[1]}
    if shapes[2] is not None:
        given["bias"] = shapes[2]
    return "conv2d", given | _unless(1, stride=p.stride, dilation=p.dilation, groups=p.groups) | _unless(
        0, padding=p.padding
    )


def _norm(shapes: Shapes, parameters: Mapping[str, Any]) -> Described:
    p, channels = parameters["problem"], shapes[1]
    if p.groups != p.C:
        raise NotImplementedError("a suite can write batch norm down, and no other")
    each = dict.fromkeys(("running_mean", "running_var", "weight", "bias"), channels)
    return "batch_norm", {"input": shapes[0], **each, "training": True}


def _pool(op: str) -> Callable[[Shapes, Mapping[str, Any]], Described]:
    def described(shapes: Shapes, parameters: Mapping[str, Any]) -> Described:
        p = parameters["problem"]
        rounded_down = tuple(
            output_size(size, kernel, stride, 2 * padding, dilation)
            for size, kernel, stride, padding, dilation in zip(
                (p.H, p.W), (p.R, p.S), p.stride, p.padding, p.dilation, strict=True
            )
        )
        given = {"input": shapes[0], "kernel_size": _one((p.R, p.S)), "stride": _one(p.stride)}
        given |= _unless(0, padding=p.padding) | ({} if rounded_down == (p.P, p.Q) else {"ceil_mode": True})
        return op, given

    return described


def _dropout(shapes: Shapes, parameters: Mapping[str, Any]) -> Described:
    return "dropout", {"input": shapes[0], "p": parameters["problem"].p}


def _hardtanh(shapes: Shapes, parameters: Mapping[str, Any]) -> Described:
    p = parameters["problem"]
    if (p.min_val, p.max_val) == (0.0, 6.0):
        return "relu6", {"input": shapes[0]}
    return "hardtanh", {"input": shapes[0], "min_val": p.min_val, "max_val": p.max_val}


def _pad(shapes: Shapes, parameters: Mapping[str, Any]) -> Described:
    amounts = parameters["problem"].amounts
    flat = [cells for pair in reversed(amounts) for cells in pair]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        del flat[-2:]
    return "pad", {"input": shapes[0], "pad": list(flat)}


def _linear(shapes: Shapes, parameters: Mapping[str, Any]) -> Described:
    return "linear", dict(zip(("input", "weight", "bias"), shapes, strict=True))


_VIEWS = ("Reshape", "GetItem")

_CALLS: dict[str, Callable[[Shapes, Mapping[str, Any]], Described]] = {
    "Conv2d": _conv2d,
    "Norm": _norm,
    "MaxPool2d": _pool("max_pool2d"),
    "AvgPool2d": _pool("avg_pool2d"),
    "AdaptiveAvgPool2d": lambda shapes, parameters: (
        "adaptive_avg_pool2d",
        {"input": shapes[0], "output_size": (parameters["problem"].P, parameters["problem"].Q)},
    ),
    "ReLU": lambda shapes, parameters: ("relu", {"input": shapes[0]}),
    "Hardtanh": _hardtanh,
    "Dropout": _dropout,
    "Linear": _linear,
    "Add": lambda shapes, parameters: ("add", {"self": shapes[0], "other": shapes[1]}),
    "Cat": lambda shapes, parameters: ("cat", {"tensors": list(shapes), "dim": parameters["axis"]}),
    "Pad": _pad,
}


def _one(pair: tuple[int, int]) -> Any:
    return pair[0] if pair[0] == pair[1] else pair


def _unless(usual: int, **values: Any) -> dict[str, Any]:
    """Of options those that differ from what is usual."""
    found = {name: _one(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {name: value for name, value in found.items() if value != usual}


def words(op: str, arguments: Mapping[str, Any]) -> str:
    """A call in a few words: "3x3/2 64->128 56x56 groups 2"."""
    image = next((value for value in arguments.values() if isinstance(value, (tuple, list)) and value), ())
    if op == "cat":
        shapes = arguments["tensors"]
        return "+".join(str(shape[1]) for shape in shapes[:4]) + ("+..." if len(shapes) > 4 else "") + _size(shapes[0])
    text = f"{image[1]}{_size(image)}" if len(image) > 1 else "x".join(map(str, image))
    if op == "linear":
        return "{1}->{0}".format(*arguments["weight"])
    stride = arguments.get("stride") or arguments.get("kernel_size") or 1
    step = "" if stride == 1 else f"/{stride}".replace(" ", "")
    if op.startswith("conv2d"):
        K, _, R, S = arguments["weight"]
        groups = arguments.get("groups", 1)
        kind = "" if groups == 1 else " depthwise" if groups == K == image[1] else f" groups {groups}"
        return f"{R}x{S}{step} {image[1]}->{K}{_size(image)}{kind}"
    if "kernel_size" in arguments:
        return f"{arguments['kernel_size']}{step} {text}"
    return text + (" + residual" if "residual" in arguments else "")


def _size(shape: Any) -> str:
    return " " + "x".join(map(str, shape[2:])) if len(shape) > 2 else ""


def example(op: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Arguments with which `op` does on an input of `shape` what it is mostly used for; only the input for most."""
    per_channel = (shape[1],) if len(shape) > 1 else shape
    weights = dict.fromkeys(("weight", "bias"), per_channel)
    running = dict.fromkeys(("running_mean", "running_var"), per_channel)
    known: dict[str, dict[str, Any]] = {
        "batch_norm": {**running, **weights, "training": True},
        "batch_norm_relu": {**running, **weights, "training": True},
        "instance_norm": {**weights},
        "group_norm": {"num_groups": int(np.gcd(32, per_channel[0])), **weights},
        "layer_norm": {"normalized_shape": list(shape[1:]), "weight": shape[1:], "bias": shape[1:]},
        "local_response_norm": {"size": 5},
        "max_pool2d": {"kernel_size": 3, "stride": 2, "padding": 1},
        "avg_pool2d": {"kernel_size": 2},
        "lp_pool2d": {"norm_type": 2, "kernel_size": 2},
        "adaptive_avg_pool2d": {"output_size": 1},
        "adaptive_max_pool2d": {"output_size": 1},
        "softmax": {"dim": 1},
        "log_softmax": {"dim": 1},
        "cross_entropy": {"target": (shape[0], *shape[2:])},
        "nll_loss": {"target": (shape[0], *shape[2:])},
        "mse_loss": {"target": shape},
        "interpolate": {"scale_factor": 2, "mode": "nearest"},
        "pixel_shuffle": {"upscale_factor": 2},
        "pad": {"pad": [1, 1, 1, 1]},
        "prelu": {"weight": per_channel},
        "add": {"other": shape},
        "multiply": {"other": shape},
        "sgd": {"grad": shape},
        "adam": {"grad": shape},
    }
    return known.get(op, {})


STEMS = {
    "pool2d": "max_pool2d",
    "norm": "batch_norm",
    "elementwise": "relu",
    "loss": "cross_entropy",
    "upsample": "interpolate",
    "optim": "sgd",
}
"""What a stem of the project's table of names stands for, where no function has that name."""
