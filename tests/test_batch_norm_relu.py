"""F.batch_norm_relu and nn.norm_relu: what batch norm, sum and ReLU make one by one, values, gradients and state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from norm_checks import held, near, rms
from op_checks import LAYOUTS, draw, frozen

import gpucnn
from gpucnn import backend, models, nn
from gpucnn import functional as F
from gpucnn.autograd import observed_by
from gpucnn.books.trace import Trace
from gpucnn.ops import norm as ops
from gpucnn.reference import norm as reference
from gpucnn.testing import assert_close, assert_equal, gradcheck, tolerance

SHAPES = [(2, 3, 4, 5), (5, 7), (3, 4, 6), (3, 33, 3, 5), (4, 8, 8, 8)]
NAMES = ("x", "weight", "bias", "residual")


def leaves(shape: tuple[int, ...], dtype: str, with_residual: bool, layout: str = "nhwc") -> dict[str, Any]:
    C = shape[1]
    values = {
        "x": held(draw("normal", shape) * 2 + 1),
        "weight": draw("normal", (C,), 2),
        "bias": draw("normal", (C,), 3),
        "residual": draw("normal", shape, 6),
    }
    if not with_residual:
        del values["residual"]
    return {
        name: gpucnn.Tensor(LAYOUTS[layout](value.astype(dtype)), requires_grad=True) for name, value in values.items()
    }


def statistics(C: int, dtype: str) -> list[gpucnn.Tensor]:
    return [gpucnn.tensor(draw("normal", (C,), 4), dtype), gpucnn.tensor(np.abs(draw("normal", (C,), 5)) + 0.5, dtype)]


def one_by_one(
    x: Any, mean: Any, var: Any, weight: Any, bias: Any, training: bool, limit: float, residual: Any
) -> gpucnn.Tensor:
    y = F.batch_norm(x, mean, var, weight, bias, training, 0.25)
    y = y if residual is None else y + residual
    return F.relu(y) if limit == math.inf else F.hardtanh(y, 0.0, limit)


def check(
    shape: tuple[int, ...],
    dtype: str,
    training: bool,
    with_residual: bool,
    limit: float = math.inf,
    layout: str = "nhwc",
) -> None:
    """Result, gradients and running statistics of both; of float16 as far as the sums that only one rounds let it."""
    __tracebackhide__ = True
    mine, theirs = (leaves(shape, dtype, with_residual, layout) for _ in range(2))
    kept, kept_too = (statistics(shape[1], dtype) for _ in range(2))
    options = {"residual": mine.get("residual"), "max_val": limit}
    y = F.batch_norm_relu(mine["x"], *kept, mine["weight"], mine["bias"], training, 0.25, **options)
    z = one_by_one(theirs["x"], *kept_too, theirs["weight"], theirs["bias"], training, limit, theirs.get("residual"))
    for found, truth in zip(kept, kept_too, strict=True):
        assert_equal(found, truth.numpy())
    if dtype == "float16":
        near(y, z.numpy().astype(np.float64), 8)
        return
    assert_equal(y, z.numpy(), signed_zeros=False)
    dy = LAYOUTS[layout](draw("normal", shape, 1).astype(dtype))
    y.backward(dy)
    z.backward(dy)
    for name, leaf in mine.items():
        truth = theirs[name].grad.numpy().astype(np.float64)
        allowed = tolerance(leaf.grad.dtype, 64) * max(1.0, rms(truth))
        assert_close(leaf.grad, truth, rtol=allowed, atol=4 * allowed, name=name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("with_residual", [True, False], ids=["residual", "alone"])
def test_it_is_batch_norm_sum_and_relu(shape: tuple[int, ...], dtype: str, training: bool, with_residual: bool) -> None:
    check(shape, dtype, training, with_residual)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_limit_makes_it_relu6(training: bool) -> None:
    check((4, 8, 8, 8), "float32", training, True, 1.5)
    check((4, 8, 8, 8), "float64", training, False, 6.0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_is_taken(layout: str) -> None:
    check((2, 3, 4, 5), "float32", True, True, layout=layout)


def test_blocks_of_any_size(block_bytes: int) -> None:
    check((3, 33, 3, 5), "float32", True, True)
    check((3, 33, 3, 5), "float32", False, False)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_gradients_are_central_differences(training: bool) -> None:
    inputs = leaves((2, 3, 4, 5), "float64", True)

    def run(*tensors: gpucnn.Tensor) -> gpucnn.Tensor:
        x, weight, bias, residual = tensors
        kept = statistics(3, "float64")
        return F.batch_norm_relu(x, *kept, weight, bias, training, residual=residual, max_val=1.25)

    assert gradcheck(run, list(inputs.values()))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("wanted", [1, 2, 4, 8, 7, 9, 14, 15], ids=str)
def test_only_the_gradients_that_are_asked_for(training: bool, wanted: int) -> None:
    full, some = (leaves((3, 4, 6), "float64", True) for _ in range(2))
    for number, leaf in enumerate(some.values()):
        leaf.requires_grad_(bool(wanted >> number & 1))
    dy = draw("normal", (3, 4, 6), 1)
    for group in (full, some):
        x, weight, bias, residual = group.values()
        F.batch_norm_relu(x, *statistics(4, "float64"), weight, bias, training, residual=residual).backward(dy)
    for name in NAMES:
        assert (some[name].grad is not None) == some[name].requires_grad
        if some[name].grad is not None:
            assert_close(some[name].grad, full[name].grad.numpy(), rtol=1e-12, atol=1e-12, name=name)


def test_what_was_given_is_not_written() -> None:
    """The gradients go through memory of their own: dy, y and the residual stay what they are."""
    p = reference.NormProblem(1, 12, 4, 4, limit=math.inf)
    x, dy, residual = (frozen(draw("normal", (1, 12, 4), n), "float32") for n in range(3))
    y, mean, inverse = ops.fprop(p, x, None, None, None, residual, like=x)
    y = frozen(y)
    for wanted in (ops.Wanted(True, True, True, True), ops.Wanted(True, False, False, False)):
        dx, *_, passed = ops.bprop(p, dy, x, y, None, mean, inverse, wanted, like=x)
        assert not any(np.shares_memory(dx, array) for array in (dy, y, x))
        assert (passed is not None) == wanted.residual


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("limit", [math.inf, 6.0])
def test_infinities_and_nan_in_evaluation(value: float, limit: float) -> None:
    x = np.array(draw("normal", (4, 3)))
    x[1, 2] = value
    grads = []
    for run in (F.batch_norm_relu, None):
        leaf, kept = gpucnn.tensor(x, "float32", requires_grad=True), (gpucnn.zeros(3), gpucnn.ones(3))
        y = (
            F.batch_norm_relu(leaf, *kept, max_val=limit)
            if run
            else one_by_one(leaf, *kept, None, None, False, limit, None)
        )
        y.backward(np.ones((4, 3), np.float32))
        grads.append((y.numpy(), leaf.grad.numpy()))
    for found, truth in zip(*grads, strict=True):
        assert_equal(found, truth, signed_zeros=False)


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 3, 0, 2)], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_an_empty_batch(shape: tuple[int, ...], training: bool) -> None:
    x, residual = (gpucnn.zeros(shape, requires_grad=True) for _ in range(2))
    weight = gpucnn.ones(3, requires_grad=True)
    kept = gpucnn.tensor([5.0, 6, 7]), gpucnn.tensor([1.0, 2, 3])
    F.batch_norm_relu(x, *kept, weight, weight, training, residual=residual).backward(np.zeros(shape, np.float32))
    assert (x.grad.shape, residual.grad.shape, weight.grad.tolist()) == (shape, shape, [0, 0, 0])
    assert kept[0].tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"residual": gpucnn.ones(2, 3, 1, 4)}, ValueError, r"residual must have input's shape \(2, 3, 4, 4\)"),
        ({"residual": gpucnn.ones(2, 3, 4, 4, dtype="float64")}, TypeError, "residual has float64"),
        ({"residual": np.ones((2, 3, 4, 4))}, TypeError, "residual must be a gpucnn.Tensor"),
        ({"max_val": 0.0}, ValueError, "max_val must be positive, got 0.0"),
        ({"max_val": math.nan}, ValueError, "max_val must be positive, got nan"),
        ({"max_val": None}, TypeError, "max_val must be a number, got None"),
        ({"training": False}, ValueError, "running_mean and running_var are needed"),
        ({"weight": gpucnn.ones(2)}, ValueError, r"weight must have shape \(3,\)"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"batch_norm_relu: .*{message}"):
        F.batch_norm_relu(gpucnn.ones(2, 3, 4, 4), None, None, **{"training": True, **options})


# ------------------------------------------------------------------------------------------------------- modules


def nodes(y: gpucnn.Tensor) -> list[str]:
    """Ops of a graph in a row, the last first."""
    found, edge = [], y.node
    while edge:
        found.append(edge[0].function.__name__)
        edge = next((e for e in edge[0].edges if isinstance(e, tuple)), None)
    return found


def test_modules_in_a_row_run_as_one_op_and_are_observed_one_by_one() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU6(), nn.ReLU())
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 4)), "float32")
    assert nodes(net(x)) == ["ReLU", "NormReLU", "NormReLU", "Conv2d"]
    trace = Trace(net, x)
    assert [layer.kind for layer in trace.layers[1:]] == [type(module).__name__ for module in net]
    assert int(net[1].num_batches_tracked) == 2


class Doubled(nn.ReLU):
    def forward(self, input: gpucnn.Tensor) -> gpucnn.Tensor:
        return F.relu(input) * 2


def test_what_is_no_relu_as_it_comes_runs_by_itself() -> None:
    x = gpucnn.tensor(draw("normal", (2, 4, 3, 3)), "float32")
    norm = nn.BatchNorm2d(4)
    changed = nn.ReLU()
    changed.forward = Doubled().forward  # type: ignore[method-assign]
    for relu in (Doubled(), changed, lambda y: F.relu(y) * 2):
        assert_equal(nn.norm_relu(norm, relu, x), F.relu(norm(x)).numpy() * 2)
    for other in (nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)):
        assert_equal(nn.norm_relu(other, F.relu, x), F.relu(other(x)).numpy())
    with pytest.raises(ValueError, match="BatchNorm2d: input must have 4 axes"):
        nn.norm_relu(norm, F.relu, x[0])


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "mobilenet_v2", "wrn_16_8", "densenet121"])
def test_a_network_computes_the_same_as_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Observed, the modules run by themselves: the same bits, and the same statistics."""

    class Watcher:
        def function(self, *_: Any) -> None: ...
        def module(self, module: Any, inputs: Any, options: Any) -> Any:
            return module.forward(*inputs, **options)

    options = {"width": 0.25} if name in ("resnet20", "resnet18") else {}
    options |= {"wrn_16_8": {"width": 0.05}, "mobilenet_v2": {"width_mult": 0.25}}.get(name, {})
    if name == "densenet121":
        options = {"growth_rate": 4, "block_config": (1, 2, 1, 1), "num_init_features": 8}
    results = []
    for watched in (False, True):
        gpucnn.manual_seed(3)
        net = models.build(name, num_classes=5, **options)
        x = gpucnn.tensor(draw("normal", (2, 3, 32, 32)), "float32")
        net.train()
        with backend.use_backend("reference"):
            if watched:
                with observed_by(Watcher()):
                    y = net(x)
            else:
                y = net(x)
            y.backward(np.ones(y.shape, np.float32))
        results.append((y.numpy(), dict(net.named_buffers()), {n: p.grad.numpy() for n, p in net.named_parameters()}))
    assert_equal(results[0][0], results[1][0])
    for buffer, value in results[0][1].items():
        assert_equal(value, results[1][1][buffer].numpy(), name=buffer)
    for parameter, gradient in results[0][2].items():
        size = float(np.abs(results[1][2][parameter]).max())
        assert_close(gradient, results[1][2][parameter], rtol=1e-3, atol=1e-4 * size + 1e-6, name=parameter)
