"""The op to copy: y = alpha * x, its kernels, its gradient, what it leaves alone; and that no op goes without tests.

A new op's file starts as this one: the check of every kernel of every table, the wrong kernel that the check must
catch, gradcheck, memory layouts, corners.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, compare, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn import backend
from gpucnn.ops import _template as ops
from gpucnn.ops.registry import TABLES
from gpucnn.testing import assert_equal, gradcheck

SHAPES = [(), (1,), (0, 3), (33, 129), (2, 3, 4, 5)]


def scale(x: gpucnn.Tensor, alpha: float) -> gpucnn.Tensor:
    y: gpucnn.Tensor = ops.Scale.apply(x, alpha=alpha)
    return y


def check_kernels(shape: tuple[int, ...], dtype: str) -> None:
    __tracebackhide__ = True
    x = draw("normal", shape)
    for name, found in each_kernel(ops.forward, ops.ScaleProblem(0.7, dtype), frozen(x, dtype)):
        assert found.dtype == dtype, name
        compare(found, x * 0.7, 1, f"{name} {dtype}")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_every_kernel(shape: tuple[int, ...], dtype: str) -> None:
    check_kernels(shape, dtype)


def test_these_are_all_kernels() -> None:
    assert names(ops.forward) == ["array"]
    (cuda,) = ops.forward.specs("cuda")
    assert cuda.supports(ops.ScaleProblem(1.0, "float32")) is None
    assert cuda.supports(ops.ScaleProblem(1.0, "float16")) == "needs float32, got float16"


def test_gradients_are_central_differences() -> None:
    assert gradcheck(lambda x: scale(x, -1.5), [gpucnn.tensor(draw("normal", (2, 3)), requires_grad=True)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_is_taken(layout: str) -> None:
    x = draw("integers", (2, 3, 4, 5))
    leaf = gpucnn.Tensor(LAYOUTS[layout](x), requires_grad=True)
    y = scale(leaf, 0.5)
    y.backward(LAYOUTS[layout](x))
    assert_equal(y, x / 2)
    assert_equal(leaf.grad, x / 2)


def test_channels_last_stays_channels_last_without_a_copy() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = scale(x, 2.0)
        y.backward(y.detach())
    assert copies.value == 0
    assert y.data.strides == x.grad.data.strides == x.data.strides


def test_infinities_and_overflow_warn_of_nothing() -> None:
    x = gpucnn.tensor([math.inf, math.nan, 60_000.0, 1.0], "float16")
    assert_equal(scale(x, 2.0), np.array([math.inf, math.nan, math.inf, 2.0], np.float16))
    assert_equal(scale(x, 1e6), np.array([math.inf, math.nan, math.inf, math.inf], np.float16))


@pytest.mark.parametrize(
    "wrong",
    [lambda p, x: x.copy(), lambda p, x: np.append(x.ravel()[:-1] * 0.7, math.nan).reshape(x.shape).astype(x.dtype)],
    ids=["alpha-forgotten", "last-element-unwritten"],
)
def test_a_wrong_kernel_is_caught(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, ops.forward, wrong)
    with pytest.raises(AssertionError, match=r"scale forward planted float32: .* elements are wrong"):
        check_kernels((33, 129), "float32")


def test_every_op_has_a_file_of_tests() -> None:
    """Named as its file in gpucnn/ops; and the tables that those files pin are all that there are."""
    import gpucnn.ops

    rooms = {path.stem for path in Path(gpucnn.ops.__path__[0]).glob("*.py")} - {"__init__", "registry"}
    for room in rooms:
        assert Path(__file__).with_name(f"test_{room.lstrip('_')}.py").exists(), room
    assert {op for op, _ in TABLES} == {
        *("conv2d", "max_pool2d", "avg_pool2d", "linear", "cross_entropy", "log_softmax", "sum", "mean", "dropout"),
        *("add", "subtract", "multiply", "divide", "negative", "power", "exp", "log", "relu", "sigmoid", "tanh"),
        *("sgd", "adam", "scale"),
        *("tanhshrink", "softsign", "logsigmoid", "hardsigmoid", "softplus", "silu", "hardswish", "mish", "gelu"),
        *("gelu_tanh", "glu", "hardtanh", "leaky_relu", "threshold", "hardshrink", "softshrink", "elu", "prelu"),
        *("rrelu", "softmax", "soft_cross_entropy", "nll_loss", "mse_loss", "l1_loss", "huber_loss", "bce"),
        *("bce_with_logits", "kl_div", "kl_div_log"),
        *("conv_transpose2d", "unfold", "fold"),
        *("lp_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "max_unpool2d"),
        *("norm", "layer_norm", "local_response_norm"),
        *("absolute", "square_root", "sign", "maximum", "maximum_grad", "minimum", "clamp", "clamp_grad", "where"),
        *("amax", "amin", "prod", "logsumexp", "var", "norm", "matmul"),
        *("argmax", "argmin", "argsort", "take", "put", "cumsum"),
        *("cat", "split", "pad", "repeat", "flip", "roll"),
        *("interpolate", "bed_of_nails", "pixel_shuffle", "pixel_unshuffle"),
    }
