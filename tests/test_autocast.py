"""`autocast`: which dtype each op computes and answers in, and PyTorch's answers beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from op_checks import SEED
from public_calls import CALLS, Maker

import gpucnn
from gpucnn import Tensor, autocast, backend, nn
from gpucnn import functional as F
from gpucnn.testing import assert_close

NARROW = ("bfloat16", "float16")


def drawn(*shape: int, dtype: str = "float32", stream: int = 0) -> Tensor:
    numbers = np.random.default_rng([SEED, 31, stream, *shape]).standard_normal(shape).astype(np.float32)
    return gpucnn.tensor(numbers, dtype, requires_grad=True)


def probabilities(*shape: int, dtype: str = "float32") -> Tensor:
    return gpucnn.tensor(np.random.default_rng([SEED, 32]).random(shape).astype(np.float32), dtype, requires_grad=True)


# ------------------------------------------------------------------------------------------------ dtypes, op by op

LABELS = np.array([0, 2, 1])
IN_SIXTEEN: dict[str, Callable[[Tensor], Any]] = {
    "conv1d": lambda x: F.conv1d(x[:, :, 0], drawn(2, 4, 3)),
    "conv2d": lambda x: F.conv2d(x, drawn(2, 4, 3, 3), drawn(2)),
    "conv2d_relu": lambda x: F.conv2d_relu(x, drawn(2, 4, 3, 3)),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, drawn(4, 2, 3, 3), drawn(2)),
    "linear": lambda x: F.linear(x, drawn(2, 6), drawn(2)),
    "linear_relu": lambda x: F.linear_relu(x, drawn(2, 6)),
    "matmul": lambda x: x @ drawn(6, 3),
    "matmul from the right": lambda x: drawn(2, 5) @ x,
    "matmul with an array": lambda x: x @ np.ones((6, 2), np.float32),
    "prelu": lambda x: F.prelu(x, drawn(4)),
    "nn.Conv2d": lambda x: nn.Conv2d(4, 2, 3)(x),
}
IN_FLOAT32: dict[str, Callable[[Tensor], Any]] = {
    "cross_entropy": lambda x: F.cross_entropy(x[:, :, 0, 0], LABELS),
    "cross_entropy, weighted": lambda x: F.cross_entropy(x[:, :, 0, 0], LABELS, Tensor(np.ones(4, x.dtype))),
    "cross_entropy, probabilities": lambda x: F.cross_entropy(x, F.softmax(drawn(3, 4, 5, 6), 1)),
    "nll_loss": lambda x: F.nll_loss(x[:, :, 0, 0], LABELS),
    "mse_loss": lambda x: F.mse_loss(x, drawn(3, 4, 5, 6)),
    "mse_loss, weighted": lambda x: F.mse_loss(x, drawn(3, 4, 5, 6), weight=probabilities(3, 4, 5, 6)),
    "l1_loss": lambda x: F.l1_loss(x, drawn(3, 4, 5, 6)),
    "smooth_l1_loss": lambda x: F.smooth_l1_loss(x, drawn(3, 4, 5, 6)),
    "huber_loss": lambda x: F.huber_loss(x, drawn(3, 4, 5, 6)),
    "kl_div": lambda x: F.kl_div(x, probabilities(3, 4, 5, 6)),
    "binary_cross_entropy": lambda x: F.binary_cross_entropy(x * 0 + 0.5, probabilities(3, 4, 5, 6)),
    "binary_cross_entropy_with_logits": lambda x: F.binary_cross_entropy_with_logits(x, probabilities(3, 4, 5, 6)),
    "softmax": lambda x: F.softmax(x, 1),
    "softmin": lambda x: F.softmin(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "softplus": lambda x: F.softplus(x),
    "sum": lambda x: x.sum((2, 3)),
    "mean": lambda x: x.mean((2, 3)),
    "var": lambda x: x.var(0),
    "std": lambda x: x.std(0),
    "prod": lambda x: x.prod(1),
    "norm": lambda x: x.norm(),
    "greatest size": lambda x: x.norm(float("inf")),
    "logsumexp": lambda x: x.logsumexp(1),
    "cumsum": lambda x: x.cumsum(1),
    "exp": lambda x: x.exp(),
    "log": lambda x: abs(x).log(),
    "pow": lambda x: x**3,
    "square": lambda x: x.square(),
    "reciprocal": lambda x: 1 / (abs(x) + 1),
    "the wider, in a sum": lambda x: x + drawn(3, 4, 5, 6),
    "the wider, in cat": lambda x: gpucnn.cat([x, drawn(3, 4, 5, 6)], 1),
    "the wider, in stack": lambda x: gpucnn.stack([x, drawn(3, 4, 5, 6)]),
    "the wider, in where": lambda x: gpucnn.where(x > 0, x, drawn(3, 4, 5, 6)),
    "the wider, as a shortcut": lambda x: F.batch_norm_relu(
        x, gpucnn.zeros(4), gpucnn.ones(4), residual=drawn(3, 4, 5, 6)
    ),
}
AS_GIVEN: dict[str, Callable[[Tensor], Any]] = {
    "relu": lambda x: F.relu(x),
    "gelu": lambda x: F.gelu(x),
    "sigmoid": lambda x: F.sigmoid(x),
    "abs": lambda x: abs(x),
    "sqrt": lambda x: abs(x).sqrt(),
    "amax": lambda x: x.amax(1),
    "max": lambda x: x.max(1).values,
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2),
    "dropout": lambda x: F.dropout(x, 0.5),
    "pad": lambda x: F.pad(x, (1, 1)),
    "a sum of two": lambda x: x + x,
    "a number more": lambda x: 2 * x + 1,
    "batch_norm": lambda x: F.batch_norm(x, gpucnn.zeros(4), gpucnn.ones(4), drawn(4), drawn(4), training=True),
    "batch_norm_relu": lambda x: F.batch_norm_relu(x, None, None, drawn(4), drawn(4), training=True),
    "instance_norm": lambda x: F.instance_norm(x, weight=drawn(4), bias=drawn(4)),
    "group_norm": lambda x: F.group_norm(x, 2, drawn(4), drawn(4)),
    "layer_norm": lambda x: F.layer_norm(x, (6,), drawn(6), drawn(6)),
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
}


@pytest.mark.parametrize("held", ["float32", *NARROW])
@pytest.mark.parametrize("dtype", NARROW)
def test_each_op_answers_in_its_dtype_and_gradients_in_that_of_what_they_are_of(dtype: str, held: str) -> None:
    listed = [(IN_SIXTEEN, dtype), (IN_FLOAT32, "float32"), (AS_GIVEN, held)]
    for calls, expected in listed:
        for name, call in calls.items():
            x = drawn(3, 4, 5, 6, dtype=held)
            with autocast(dtype):
                y = call(x)
            assert y.dtype.name == expected, f"{name} of {held}"
            y.backward(np.ones(y.shape, y.dtype))
            assert x.grad is not None
            assert x.grad.dtype == x.dtype, name


def test_float64_and_integers_are_not_cast() -> None:
    x = gpucnn.tensor(np.ones((3, 4, 5, 6)))
    counts = gpucnn.tensor(np.arange(6).reshape(2, 3))
    with autocast("bfloat16"):
        assert F.conv2d(x, x[:2, :, :3, :3]).dtype == np.float64
        assert (x @ x.transpose(2, 3)).dtype == x.exp().dtype == x.sum().dtype == np.float64
        assert (counts @ counts.transpose(0, 1)).dtype == counts.sum().dtype == np.int64
        assert (counts**2).dtype == np.int64
        assert F.softmax(drawn(2, 3, dtype="float16"), 1, dtype="float64").dtype == np.float64


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("held", ["float32", "bfloat16"])
def test_every_public_call_runs_in_it(name: str, held: str) -> None:
    make = Maker("cpu", held)
    with backend.use_backend("reference"), autocast("bfloat16"):
        result = CALLS[name](make)
    for y in result if isinstance(result, tuple) else [result]:
        if isinstance(y, Tensor) and y.requires_grad:
            y.backward(np.ones(y.shape, y.dtype), retain_graph=True)
    for leaf in make.leaves:
        assert leaf.grad is None or leaf.grad.dtype == leaf.dtype


# ----------------------------------------------------------------------------------------------------- beside PyTorch

BESIDE: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "conv1d": (lambda f, x, w: f.conv1d(x, w), ((2, 4, 9), (6, 4, 3))),
    "conv2d": (lambda f, x, w, b: f.conv2d(x, w, b, stride=2), ((2, 4, 7, 7), (6, 4, 3, 3), (6,))),
    "conv_transpose2d": (lambda f, x, w: f.conv_transpose2d(x, w), ((2, 4, 5, 5), (4, 6, 3, 3))),
    "linear": (lambda f, x, w, b: f.linear(x, w, b), ((3, 7), (5, 7), (5,))),
    "matmul": (lambda f, x, y: x @ y, ((3, 7), (7, 4))),
    "relu of it": (lambda f, x, w: f.relu(f.conv2d(x, w)), ((2, 4, 7, 7), (6, 4, 3, 3))),
    "batch norm of it": (
        lambda f, x, w, g, b: f.batch_norm(f.conv2d(x, w), None, None, g, b, training=True),
        ((2, 4, 7, 7), (6, 4, 3, 3), (6,), (6,)),
    ),
    "mse of it": (lambda f, x, w, t: f.mse_loss(f.linear(x, w), t), ((3, 7), (5, 7), (3, 5))),
    "l1 of it": (lambda f, x, w, t: f.l1_loss(f.linear(x, w), t), ((3, 7), (5, 7), (3, 5))),
    "huber of it": (lambda f, x, w, t: f.huber_loss(f.linear(x, w), t), ((3, 7), (5, 7), (3, 5))),
    "with a shortcut": (lambda f, x, w: x + f.conv2d(x, w, padding=1), ((2, 4, 7, 7), (4, 4, 3, 3))),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("dtype", NARROW)
def test_dtypes_results_and_gradients_are_pytorchs(name: str, dtype: str, torch: Any) -> None:
    """On the CPU, where torch.amp's list is shorter than on a GPU: of the ops in both."""
    call, shapes = BESIDE[name]
    mine = [drawn(*shape, stream=i) for i, shape in enumerate(shapes)]
    theirs = [torch.tensor(t.numpy().copy(), requires_grad=True) for t in mine]
    with autocast(dtype):
        y = call(F, *mine)
    with torch.autocast("cpu", getattr(torch, dtype)):
        z = call(torch.nn.functional, *theirs)
    assert y.dtype.name == str(z.dtype).removeprefix("torch.")
    step = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    weights = drawn(*y.shape, stream=7).numpy()
    y.backward(weights)
    z.backward(torch.tensor(weights).to(z.dtype))
    pairs = [(y, z.detach()), *[(a.grad, b.grad) for a, b in zip(mine, theirs, strict=True)]]
    for number, (a, b) in enumerate(pairs):
        assert a is not None
        assert number == 0 or a.dtype == np.float32
        truth = b.float().numpy()
        size = float(np.abs(truth).max())
        assert_close(a.to("float32"), truth, rtol=4 * step, atol=4 * step * size, name=f"{name}, {number}")
