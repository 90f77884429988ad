"""Plain numpy as a rival: what one writes from the definition without loops over pixels, images N,C,H,W.

A convolution is a product of matrices with all windows side by side; its input gradient is added up tap by tap. No
trick is used that would need a second look, and none of gpucnn's code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import gpucnn.functional as F
from gpucnn import backend
from gpucnn.bench.cases import Case, Numbers, results, smooth
from gpucnn.bench.rivals import SETS, Prepared, Timed
from gpucnn.bench.updates import STEPS, UPDATES
from gpucnn.tensor import Tensor

Floats = NDArray[np.floating[Any]]
Pair = tuple[int, int]


class Plain(Timed):
    """Plain numpy."""

    def __init__(self, name: str, device: str) -> None:
        super().__init__(device)
        self.name = name

    def prepare(self, case: Case, seed: int, kernel: None = None) -> Prepared:
        """The pass in plain numpy; `failed` says where nobody wrote it down."""
        make = _MAKERS.get(case.op)
        if make is None:
            return Prepared(failed=f"not written in plain numpy; that are: {', '.join(_MAKERS)}")
        if case.dtype not in ("float32", "float64"):
            return Prepared(failed=f"plain numpy has float32 and float64, not {case.dtype}")
        try:
            runs = [self._run(make, case, seed + number) for number in range(SETS)]
            outputs = [each.copy() for each in runs[0]()]
        except (ValueError, MemoryError) as error:
            return Prepared(failed=str(error))
        self._runs[None] = runs
        return Prepared(outputs)

    def _run(self, make: Maker, case: Case, seed: int) -> Run:
        numbers = Numbers.of(case, seed)
        with backend.use_backend("reference"):
            call = case.call(numbers)
            found = results(call) if case.direction != "fwd" else ()
        given = [smooth(case, numbers(each.shape, each.data.dtype).numpy(), each.numpy()) for each in found]
        named = {**dict(zip(_names(case), call.arguments, strict=False)), **call.options}
        return make(case.direction, {name: _array(value) for name, value in named.items()}, given)


def _names(case: Case) -> list[str]:
    function = UPDATES.get(case.op) or getattr(F, case.op, None)
    return ["input", "other"] if function is None else list(inspect.signature(function).parameters)


def _array(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_array(each) for each in value]
    return np.ascontiguousarray(value.numpy()) if isinstance(value, Tensor) else value


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else tuple(value)


Run = Callable[[], "list[Floats]"]
Maker = Callable[[str, "dict[str, Any]", "list[Floats]"], Run]


def _windows(x: Floats, size: Pair, stride: Pair, padding: Pair, dilation: Pair, value: float = 0.0) -> Floats:
    """All windows, (N, C, P, Q, R, S), of the padded images."""
    wide = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2), constant_values=value)
    spans = [d * (taps - 1) + 1 for d, taps in zip(dilation, size, strict=True)]
    found = sliding_window_view(wide, spans, axis=(2, 3))
    return found[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _scattered(columns: Floats, image: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair) -> Floats:
    """The sum of windows (N, C, P, Q, R, S) in the images that they are of."""
    N, C, H, W = image
    P, Q, R, S = columns.shape[2:]
    wide = np.zeros((N, C, H + 2 * padding[0] + stride[0], W + 2 * padding[1] + stride[1]), columns.dtype)
    for r in range(R):
        for s in range(S):
            rows = slice(r * dilation[0], r * dilation[0] + P * stride[0], stride[0])
            cols = slice(s * dilation[1], s * dilation[1] + Q * stride[1], stride[1])
            wide[:, :, rows, cols] += columns[..., r, s]
    return wide[:, :, padding[0] : padding[0] + H, padding[1] : padding[1] + W]


def _conv2d(direction: str, a: dict[str, Any], given: list[Floats]) -> Run:
    x, w, bias = a["input"], a["weight"], a.get("bias")
    stride, padding, dilation = (
        _pair(a.get(name, one)) for name, one in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    groups, (K, _, R, S) = a.get("groups", 1), w.shape
    channels, filters = x.shape[1] // groups, K // groups
    parts = [(slice(g * channels, (g + 1) * channels), slice(g * filters, (g + 1) * filters)) for g in range(groups)]
    depthwise = channels == filters == 1

    def forward() -> list[Floats]:
        windows = _windows(x, (R, S), stride, padding, dilation)
        if depthwise:
            y = np.einsum("ncpqrs,crs->ncpq", windows, w[:, 0], optimize=True)
        else:
            found = [np.tensordot(windows[:, c], w[k], axes=((1, 4, 5), (1, 2, 3))) for c, k in parts]
            y = np.concatenate(found, axis=3).transpose(0, 3, 1, 2)
        return [y if bias is None else y + bias[:, None, None]]

    def dgrad() -> list[Floats]:
        dy = given[0]
        if depthwise:
            columns = dy[..., None, None] * w[:, 0][None, :, None, None]
        else:
            found = [np.tensordot(dy[:, k], w[k], axes=((1,), (0,))) for _, k in parts]
            columns = np.concatenate(found, axis=3).transpose(0, 3, 1, 2, 4, 5)
        return [_scattered(columns, x.shape, stride, padding, dilation)]

    def wgrad() -> list[Floats]:
        dy, windows = given[0], _windows(x, (R, S), stride, padding, dilation)
        if depthwise:
            dw = np.einsum("ncpq,ncpqrs->crs", dy, windows, optimize=True)[:, None]
        else:
            found = [np.tensordot(dy[:, k], windows[:, c], axes=((0, 2, 3), (0, 2, 3))) for c, k in parts]
            dw = np.concatenate(found)
        return [dw] if bias is None else [dw, dy.sum((0, 2, 3))]

    return {"fwd": forward, "dgrad": dgrad, "wgrad": wgrad}[direction]


def _linear(direction: str, a: dict[str, Any], given: list[Floats]) -> Run:
    x, w, bias = a["input"], a["weight"], a.get("bias")

    def forward() -> list[Floats]:
        return [x @ w.T if bias is None else x @ w.T + bias]

    def wgrad() -> list[Floats]:
        dy, rows = given[0].reshape(-1, w.shape[0]), x.reshape(-1, w.shape[1])
        return [dy.T @ rows] if bias is None else [dy.T @ rows, dy.sum(0)]

    return {"fwd": forward, "dgrad": lambda: [given[0] @ w], "wgrad": wgrad}[direction]


def _batch_norm(direction: str, a: dict[str, Any], given: list[Floats], relu: bool = False) -> Run:
    x, weight, bias, residual = (a.get(name) for name in ("input", "weight", "bias", "residual"))
    assert x is not None
    eps, highest = a.get("eps", 1e-5), a.get("max_val", np.inf)
    axes = (0, *range(2, x.ndim))
    per_channel = (slice(None), *[None] * (x.ndim - 2))

    def normalized() -> tuple[Floats, Floats]:
        if a.get("training", False):
            mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        else:
            mean, variance = a["running_mean"][per_channel], a["running_var"][per_channel]
        scale = 1 / np.sqrt(variance + eps)
        return (x - mean) * scale, scale

    def output(normal: Floats) -> Floats:
        y = normal if weight is None else normal * weight[per_channel]
        y = y if bias is None else y + bias[per_channel]
        y = y if residual is None else y + residual
        return np.clip(y, 0, highest) if relu else y

    def forward() -> list[Floats]:
        return [output(normalized()[0])]

    def backward() -> list[Floats]:
        normal, scale = normalized()
        dy = given[0]
        if relu:
            y = output(normal)
            dy = dy * ((y > 0) & (y < highest))
        of_weight, of_bias = (dy * normal).sum(axes), dy.sum(axes)
        of_normal = dy if weight is None else dy * weight[per_channel]
        dx = of_normal
        if a.get("training", False):
            means = of_normal.mean(axes, keepdims=True), (of_normal * normal).mean(axes, keepdims=True)
            dx = of_normal - means[0] - normal * means[1]
        found = [dx * scale]
        found += [] if weight is None else [of_weight]
        found += [] if bias is None else [of_bias]
        return found if residual is None else [*found, dy]

    return forward if direction == "fwd" else backward


def _batch_norm_relu(direction: str, a: dict[str, Any], given: list[Floats]) -> Run:
    return _batch_norm(direction, a, given, relu=True)


def _relu(direction: str, a: dict[str, Any], given: list[Floats], highest: float = np.inf) -> Run:
    x = a["input"]
    if direction == "fwd":
        return lambda: [np.clip(x, 0, highest)]
    return lambda: [given[0] * ((x > 0) & (x < highest))]


def _relu6(direction: str, a: dict[str, Any], given: list[Floats]) -> Run:
    return _relu(direction, a, given, 6.0)


def _add(direction: str, a: dict[str, Any], given: list[Floats]) -> Run:
    x, y = a["input"], a["other"]
    if x.shape != y.shape and direction == "bwd":
        raise ValueError("plain numpy adds arrays of one shape")
    return (lambda: [x + y]) if direction == "fwd" else lambda: [given[0].copy(), given[0].copy()]


def _pooled(a: dict[str, Any]) -> tuple[Pair, Pair, Pair, Pair]:
    size = _pair(a["kernel_size"])
    stride = size if a.get("stride") is None else _pair(a["stride"])
    if a.get("ceil_mode"):
        raise ValueError("plain numpy has no ceil_mode")
    return size, stride, _pair(a.get("padding", 0)), _pair(a.get("dilation", 1))


def _max_pool2d(direction: str, a: dict[str, Any], given: list[Floats]) -> Run:
    x, (size, stride, padding, dilation) = a["input"], _pooled(a)

    def forward() -> list[Floats]:
        return [_windows(x, size, stride, padding, dilation, -np.inf).max((4, 5))]

    def backward() -> list[Floats]:
        windows = _windows(x, size, stride, padding, dilation, -np.inf)
        flat = windows.reshape(*windows.shape[:4], -1)
        winners = np.arange(flat.shape[4]) == flat.argmax(4)[..., None]
        columns = (given[0][..., None] * winners).reshape(windows.shape)
        return [_scattered(columns, x.shape, stride, padding, dilation)]

    return forward if direction == "fwd" else backward


def _avg_pool2d(direction: str, a: dict[str, Any], given: list[Floats]) -> Run:
    x, (size, stride, padding, dilation) = a["input"], _pooled(a)

    def forward() -> list[Floats]:
        return [_windows(x, size, stride, padding, dilation).mean((4, 5))]

    def backward() -> list[Floats]:
        share = given[0] / np.asarray(size[0] * size[1], x.dtype)
        columns = np.broadcast_to(share[..., None, None], (*share.shape, *size))
        return [_scattered(columns, x.shape, stride, padding, dilation)]

    return forward if direction == "fwd" else backward


def _cat(direction: str, a: dict[str, Any], given: list[Floats]) -> Run:
    tensors, dim = a["tensors"], a.get("dim", 0)
    if direction == "fwd":
        return lambda: [np.concatenate(tensors, axis=dim)]
    cuts = np.cumsum([each.shape[dim] for each in tensors])[:-1]
    return lambda: [each.copy() for each in np.split(given[0], cuts, axis=dim)]


def _sgd(direction: str, a: dict[str, Any], given: list[Floats]) -> Run:
    param, grad = a["param"].copy(), a["grad"]
    lr, momentum = (np.asarray(a.get(name, usual), param.dtype) for name, usual in (("lr", 0.01), ("momentum", 0.9)))
    velocity = np.zeros_like(param)

    def step() -> list[Floats]:
        velocity[...] = momentum * velocity + grad
        param[...] -= lr * velocity
        return [param]

    for _ in range(STEPS - 1):
        step()
    return step


_MAKERS: dict[str, Maker] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "batch_norm_relu": _batch_norm_relu,
    "relu": _relu,
    "relu6": _relu6,
    "add": _add,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "cat": _cat,
    "sgd": _sgd,
}
