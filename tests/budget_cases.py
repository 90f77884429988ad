"""Calls on aligned shapes of the kind that networks are made of, which together launch every kernel: on them the
budgets of test_profile_budgets.py are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from budget_case import Case
from budget_products import products

import gpucnn
from gpucnn import optim
from gpucnn.calls import Call, normals
from gpucnn.nn.parameter import Parameter


def _steps(kind: Any, **options: Any) -> Callable[[str], None]:
    def run(dtype: str) -> None:
        parameters = [Parameter(normals((count,), np.dtype(np.float32)).data) for count in (4096, 4096, 64)]
        optimizer = kind(parameters, **options)
        for _ in range(2):
            for parameter in parameters:
                parameter.grad = normals(parameter.shape, np.dtype(np.float32))
            optimizer.step()

    return run


def _images(dtype: str) -> None:
    pixels = np.arange(2 * 3 * 32 * 32, dtype=np.uint8).reshape(2, 3, 32, 32)
    gpucnn.tensor(pixels).to(dtype)


IMAGE = (2, 64, 16, 16)
ROWS = (64, 256)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from products()
    yield Case("max_pool2d", {"input": IMAGE, "kernel_size": 3, "stride": 2, "padding": 1})
    yield Case("avg_pool2d", {"input": IMAGE, "kernel_size": 2})
    yield Case("lp_pool2d", {"input": IMAGE, "norm_type": 2, "kernel_size": 2})
    for size in (1, 4):
        yield Case("adaptive_avg_pool2d", {"input": IMAGE, "output_size": size})
        yield Case("adaptive_max_pool2d", {"input": IMAGE, "output_size": size})
    for mode in ("nearest", "bilinear"):
        yield Case("interpolate", {"input": IMAGE, "scale_factor": 2, "mode": mode})
    yield Case("interpolate", {"input": IMAGE, "scale_factor": 0.5, "mode": "area"})
    yield Case("pixel_shuffle", {"input": IMAGE, "upscale_factor": 2})
    yield Case("pixel_unshuffle", {"input": IMAGE, "downscale_factor": 2})
    yield Case("batch_norm", {"input": IMAGE, "running_mean": (64,), "running_var": (64,), "weight": (64,),
                              "bias": (64,), "training": True})  # fmt: skip
    yield Case("batch_norm_relu", {"input": IMAGE, "running_mean": (64,), "running_var": (64,), "weight": (64,),
                                   "bias": (64,), "training": True, "residual": IMAGE})  # fmt: skip
    yield Case("group_norm", {"input": IMAGE, "num_groups": 8, "weight": (64,), "bias": (64,)})
    yield Case("instance_norm", {"input": IMAGE})
    yield Case("layer_norm", {"input": ROWS, "normalized_shape": (256,), "weight": (256,), "bias": (256,)})
    yield Case("local_response_norm", {"input": IMAGE, "size": 5})
    for name in (
        *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "hardtanh", "sigmoid", "logsigmoid", "hardsigmoid"),
        *("tanh", "tanhshrink", "softsign", "softshrink", "hardshrink", "silu", "mish", "gelu", "hardswish"),
        *("softplus", "rrelu"),
    ):
        yield Case(name, {"input": IMAGE})
    yield Case("prelu", {"input": IMAGE, "weight": (64,)})
    for name in ("softmax", "log_softmax"):
        yield Case(name, {"input": ROWS, "dim": 1})
    yield Case("dropout", {"input": IMAGE, "p": 0.5, "training": True})
    yield Case("cross_entropy", {"input": (64, 1000), "target": (64,)})
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        yield Case(name, {"input": ROWS, "target": ROWS})
    for name in ("add", "subtract", "multiply", "divide"):
        yield Case(name, {}, then=lambda dtype, name=name: Call.of(name, IMAGE, IMAGE, dtype=dtype, fill=normals).run())
    for name, axes in (("sum", (0, 2, 3)), ("mean", (2, 3)), ("amax", (1,))):
        yield Case(name, {"self": IMAGE, "dim": axes})
    yield Case("sgd", {}, dtypes=("float32",), then=_steps(optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4))
    yield Case("adamw", {}, dtypes=("float32",), then=_steps(optim.AdamW, lr=0.1))
    yield Case("images", {}, then=_images)
