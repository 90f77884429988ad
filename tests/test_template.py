"""The op to copy: y = alpha * x, its kernels, its gradient, what it leaves alone; and that no op goes without tests.

A new op's file starts as this one: the check of every kernel of every table, the wrong kernel that the check must
catch, gradcheck, memory layouts, corners.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS
from op_checks import LAYOUTS, compare, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn import backend
from gpucnn.ops import _template as ops
from gpucnn.ops.compiled import FLOATS
from gpucnn.ops.registry import TABLES
from gpucnn.testing import assert_equal, gradcheck, guarded

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
@pytest.mark.parametrize("dtype", ["float64", *FLOATS])
def test_every_kernel(shape: tuple[int, ...], dtype: str) -> None:
    check_kernels(shape, dtype)


def test_these_are_all_kernels() -> None:
    assert names(ops.forward) == ["array"]
    for compiled in ("cuda", "simt"):
        (kernel,) = ops.forward.specs(compiled)
        assert kernel.name == "grid_stride"
        assert kernel.dtypes == FLOATS


SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 127, 128, 129, 1023, 1024, 1025, 4103, 16_384, 16_389, 40_001]
"""Elements: across a pack of 4 or 8, a block's 1,024 or 2,048, and what the whole grid on the CPU moves in one pass:
16,384 floats or 32,768 halves."""


@pytest.mark.parametrize("order", ORDERS)
def test_the_kernel_runs_on_the_cpu_in_any_order(simt: ModuleType, order: str) -> None:
    """Products of numbers of 8 bits each are exact in float32, so that one rounding is all there is."""
    simt.set_order(order)
    for dtype in map(gpucnn.backend.supported_dtype, FLOATS):
        for size in SIZES:
            x = draw("normal", (size,))
            y = ops.forward(ops.ScaleProblem(-1.75, dtype.name), frozen(x, dtype), like=np.empty(0, dtype))
            assert_equal(y, (x * -1.75).astype(dtype), name=f"{size} elements of {dtype}")


@pytest.mark.parametrize(("start", "out"), [(0, 0), (1, 1), (0, 3), (4, 0), (8, 16)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_that_is_not_aligned_to_16_bytes_takes_the_narrow_path(
    simt: ModuleType, start: int, out: int, dtype: str
) -> None:
    """And nothing outside the output is written."""
    for size in SIZES:
        x = draw("integers", (size + 16,)).astype(dtype)
        guard = guarded((size + 16,), dtype)
        before = guard.array.copy()
        simt.scale(dtype, x[start : start + size], guard.array[out : out + size], 3.0, 0)
        guard.check(name=f"{size} elements")
        assert_equal(guard.array[out : out + size], 3 * x[start : start + size])
        untouched = np.delete(guard.array, np.s_[out : out + size])
        assert untouched.tobytes() == np.delete(before, np.s_[out : out + size]).tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_kernel_may_work_in_place(simt: ModuleType, dtype: str) -> None:
    x = draw("integers", (1001,)).astype(dtype)
    y = x.copy()
    simt.scale(dtype, y, y, -2.0, 0)
    assert_equal(y, -2 * x)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_op_and_its_gradient_run_on_the_cpu_kernel(simt: ModuleType, dtype: str) -> None:
    values = draw("integers", (2, 3, 4, 5))
    x = gpucnn.tensor(values, dtype, requires_grad=True)
    y = scale(x, 0.5)
    y.backward(gpucnn.tensor(values, dtype))
    assert_equal(y, values / 2)
    assert_equal(x.grad, values / 2)
    with pytest.raises(
        RuntimeError, match="needs float32 or float16 or bfloat16, got float64"
    ):  # strict: no fall to the reference
        scale(gpucnn.tensor(values), 0.5)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -0.0, 1e-42, 3e38])
def test_the_kernel_multiplies_as_ieee_754_has_it(simt: ModuleType, value: float) -> None:
    x = np.full(7, value, np.float32)
    y = np.empty_like(x)
    simt.scale("float32", x, y, 1.7, 0)
    with np.errstate(all="ignore"):
        assert_equal(y, np.float32(1.7) * x)


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

    rooms = {path.stem for path in Path(gpucnn.ops.__path__[0]).glob("*.py")} - {
        "__init__",
        "compiled",
        "images",
        "registry",
    }
    for room in rooms:
        assert Path(__file__).with_name(f"test_{room.lstrip('_')}.py").exists(), room
    assert {op for op, _ in TABLES} == {
        *("conv2d", "max_pool2d", "avg_pool2d", "linear", "cross_entropy", "log_softmax", "sum", "mean", "dropout"),
        *("add", "subtract", "multiply", "divide", "negative", "power", "exp", "log", "relu", "sigmoid", "tanh"),
        *("sgd", "adam", "scale", "unscale", "next_scale"),
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
        *("normalize_images", "copy", "convert", "cat", "split", "pad", "repeat", "flip", "roll"),
        *("interpolate", "bed_of_nails", "pixel_shuffle", "pixel_unshuffle"),
    }
