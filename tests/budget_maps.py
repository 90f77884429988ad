"""Of tests/budget_cases.py, the calls that go over elements: functions of them, losses between them, random numbers for
them, and steps of optimisers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from budget_case import DTYPES, Case

from gpucnn import Tensor, extension, nn, optim
from gpucnn import functional as F
from gpucnn.backend import supported_dtype
from gpucnn.calls import normals
from gpucnn.nn.parameter import Parameter
from gpucnn.ops._template import Scale
from gpucnn.tensor import record

COUNT = 8192
FLAT, CHANNELS, PIXELS = (2, 64, 64), (64,), (2, 64, 1)
"""Shapes of a first array, and of the last one where it is repeated: over rows, or along them."""

# name: (inputs, parameters, whether arrays may broadcast)
ELEMENTWISE: dict[str, tuple[int, int, bool]] = {
    **{name: (2, 0, True) for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum")},
    **{name: (1, 0, False) for name in ("negative", "absolute", "sign", "exp", "log", "square_root", "square")},
    **{"reciprocal": (1, 0, False), "power": (1, 1, False), "divided_by": (1, 1, False), "clamp": (1, 2, False)},
    **{"maximum_grad": (3, 0, True), "clamp_grad": (2, 2, False), "logsumexp_grad": (3, 0, True)},
    **{"norm_2_grad": (3, 0, True), "norm_1_grad": (2, 0, True), "norm_grad": (3, 1, True)},
}
ACTIVATIONS: dict[str, tuple[int, int, bool]] = {
    **{
        name: (1, 0, False)
        for name in (
            *("sigmoid", "tanh", "tanhshrink", "softsign", "logsigmoid", "hardsigmoid", "silu", "hardswish", "mish"),
            *("gelu", "gelu_tanh", "relu"),
        )
    },
    **{
        f"{name}_grad": (2, 0, False)
        for name in (
            *("sigmoid", "tanh", "tanhshrink", "softsign", "logsigmoid", "hardsigmoid", "silu", "hardswish", "mish"),
            *("gelu", "gelu_tanh", "relu"),
        )
    },
    **{"softplus": (1, 2, False), "softplus_grad": (2, 2, False), "glu": (2, 0, True), "gate_grad": (3, 0, True)},
    **{"hardtanh": (1, 2, False), "hardtanh_grad": (2, 2, False), "leaky_relu": (1, 1, False)},
    **{"leaky_relu_grad": (2, 1, False), "threshold": (1, 2, False), "threshold_grad": (2, 1, False)},
    **{"hardshrink": (1, 1, False), "hardshrink_grad": (2, 1, False), "softshrink": (1, 1, False)},
    **{"elu": (1, 3, False), "elu_grad_of_output": (2, 3, False), "elu_grad_of_input": (2, 3, False)},
    **{"prelu": (2, 0, True), "prelu_grad": (3, 0, True), "prelu_weight_grad": (2, 0, True)},
}


def numbers(shape: tuple[int, ...], dtype: str) -> Any:
    """An array of normal numbers."""
    return normals(shape, supported_dtype(dtype)).data


def leaf(shape: tuple[int, ...], dtype: str) -> Tensor:
    """A tensor of them, whose gradient is wanted."""
    return normals(shape, supported_dtype(dtype)).requires_grad_()


def _mapped(binding: str, name: str, inputs: int, parameters: int, *shapes: tuple[int, ...]) -> Callable[[str], None]:
    """A function of single elements of arrays of the last of `shapes`, where there are several: the first array has the
    first."""

    def run(dtype: str) -> None:
        arrays = tuple([numbers(shapes[0] if i == 0 else shapes[-1], dtype) for i in range(inputs)])
        y = np.empty(shapes[0], arrays[0].dtype)
        getattr(extension.compiled("simt"), binding)(name, dtype, arrays, y, (0.5,) * parameters, 0)

    return run


def _losses(name: str, reduction: str = "mean", **options: Any) -> Callable[[str], None]:
    """A loss of probabilities, and its gradients by both; `options` are shapes of factors, or what the loss takes."""

    def run(dtype: str) -> None:
        held = supported_dtype(dtype)
        given = np.random.default_rng(0).uniform(0.1, 0.9, (2, 64, 64)).astype(np.float32).astype(held)
        x, t = Tensor(given.copy()).requires_grad_(), Tensor(given[::-1].copy()).requires_grad_()
        factors = {
            key: Tensor(np.ones(value, held)) if isinstance(value, tuple) else value for key, value in options.items()
        }
        getattr(F, name)(x, t, reduction=reduction, **factors).sum().backward()

    return run


def _steps(kind: Any, **options: Any) -> Callable[[str], None]:
    def run(dtype: str) -> None:
        parameters = [Parameter(numbers((count,), dtype)) for count in (4096, 4096, 64)]
        optimizer = kind(parameters, **options)
        for _ in range(2):
            for parameter in parameters:
                parameter.grad = normals(parameter.shape, supported_dtype(dtype))
            optimizer.step()

    return run


def _scaled_steps(divides: bool) -> Callable[[str], None]:
    """Of a loss that was scaled: gradients looked at, or divided too; and the next scale."""

    def run(dtype: str) -> None:
        parameters = [Parameter(numbers((count,), dtype)) for count in (4096, 4096, 64)]
        optimizer, scaler = optim.SGD(parameters, lr=0.1), optim.GradScaler(8.0)
        scaler.scale(Tensor(np.ones((), np.float32)))
        for parameter in parameters:
            parameter.grad = normals(parameter.shape, supported_dtype(dtype))
        if divides:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    return run


def _scaled(start: int) -> Callable[[str], None]:
    def run(dtype: str) -> None:
        record(Scale, (Tensor(numbers((COUNT + 8,), dtype)[start : start + COUNT]),), {"alpha": 2.0})

    return run


def _mask(dtype: str) -> None:
    extension.compiled("simt").dropout_mask(np.empty(COUNT, np.uint8), (1, 1), (1, 0, 0), 0.5, 1, 2, 0)


def _chosen(itemsize: int) -> Callable[[str], None]:
    """Of elements of so many bytes, those of one array or another."""

    def run(dtype: str) -> None:
        kind = np.dtype(f"uint{8 * itemsize}")
        condition = np.arange(COUNT) % 3 == 0
        a, b, y = np.zeros(COUNT, kind), np.ones(COUNT, kind), np.empty(COUNT, kind)
        extension.compiled("simt").select(condition, a, b, y, 0)

    return run


def _dropped(of_channels: bool) -> Callable[[str], None]:
    def run(dtype: str) -> None:
        x = leaf((2, 64, 16, 16), dtype)
        (nn.Dropout2d(0.5) if of_channels else nn.Dropout(0.5))(x).sum().backward()

    return run


def maps() -> Iterator[Case]:
    """All of them."""
    for binding, functions in (("elementwise", ELEMENTWISE), ("activation", ACTIVATIONS)):
        for name, (inputs, parameters, broadcasts) in functions.items():
            yield Case(f"{name} map", then=_mapped(binding, name, inputs, parameters, (COUNT,)))
            for shape in (CHANNELS, PIXELS) if broadcasts else ():
                yield Case(f"{name} map", {"last": shape}, then=_mapped(binding, name, inputs, parameters, FLAT, shape))
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy"):
        yield Case(name, then=_losses(name))
    for reduction in ("mean", "none"):
        yield Case("kl_div", {"reduction": reduction}, then=_losses("kl_div", reduction))
    yield Case("kl_div", {"log_target": True}, then=_losses("kl_div", log_target=True))
    with_logits: tuple[dict[str, Any], ...] = ({}, {"pos_weight": (64,)}, {"pos_weight": (2, 64, 64)})
    for options in with_logits:
        name = "binary_cross_entropy_with_logits"
        yield Case(name, options, then=_losses(name, **options))
    yield Case("dropout", then=_dropped(False))
    yield Case("dropout2d", then=_dropped(True))
    yield Case("dropout mask", dtypes=("float32",), then=_mask)
    yield Case("rrelu", {"input": (2, 64, 16, 16), "training": True})
    for itemsize in (1, 2, 4, 8):
        yield Case("where", {"itemsize": itemsize}, dtypes=("float32",), then=_chosen(itemsize))
    yield Case("template", then=_scaled(0))
    yield Case("template", {"start": 1}, then=_scaled(1), aligned=False)
    yield Case("sgd", then=_steps(optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4), dtypes=DTYPES)
    yield Case("adamw", then=_steps(optim.AdamW, lr=0.1))
    for name, kind in (("sgd", optim.SGD), ("adamw", optim.AdamW)):
        options = {"lr": 0.1, "master_weights": True}
        yield Case(name, {"master_weights": True}, dtypes=("float16", "bfloat16"), then=_steps(kind, **options))
    yield Case("scaled sgd", then=_scaled_steps(divides=False), dtypes=DTYPES)
    yield Case("scaled sgd", {"divides": True}, then=_scaled_steps(divides=True), dtypes=("float32", "bfloat16"))
