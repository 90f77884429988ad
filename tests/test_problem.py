"""Problem descriptions: THE output sizes against the truth and PyTorch, and every bad argument in the user's terms."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops import conv2d, linear, pool2d
from gpucnn.problem import Conv2dProblem, Pool2dProblem, conv2d_problem, pool2d_problem
from gpucnn.testing import naive

# --------------------------------------------------------------------------------------------------- output sizes


def test_output_sizes_of_convolution_are_the_truths() -> None:
    """Every small combination: the same size, or refused by both; and the padding after is what windows reach."""
    compared = refused = 0
    for H, R, stride, padding, dilation in product(range(1, 8), range(1, 5), range(1, 5), range(4), range(1, 4)):
        arguments = ((1, 1, H, 5), (1, 1, R, 1), (stride, 1), (padding, 0), (dilation, 1), 1)
        try:
            expected = naive.conv_output_size(H, R, stride, padding, dilation)
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match="is larger than the padded input"):
                conv2d_problem(*arguments)
            continue
        compared += 1
        p = conv2d_problem(*arguments)
        assert (expected, 5) == (p.P, p.Q), arguments
        last = (p.P - 1) * stride + dilation * (R - 1)
        assert p.padding_after == (max(0, last + 1 - padding - H), 0), arguments
    assert compared > 900
    assert refused > 100


def test_output_sizes_of_pooling_are_the_truths() -> None:
    compared = refused = 0
    ranges = (range(1, 8), range(1, 5), range(1, 5), range(4), range(1, 4), (False, True))
    for H, R, stride, padding, dilation, ceil_mode in product(*ranges):
        arguments = ("max_pool2d", (1, 1, H, 5), (R, 1), (stride, 1), (padding, 0), (dilation, 1), ceil_mode)
        try:
            expected = naive.pool_output_size(H, R, stride, padding, dilation, ceil_mode)
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match=r"at most half|larger than the padded input"):
                pool2d_problem(*arguments)
            continue
        compared += 1
        assert (expected, 5) == (pool2d_problem(*arguments).P, pool2d_problem(*arguments).Q), arguments
    assert compared > 900
    assert refused > 100


@pytest.mark.parametrize("kernel", range(1, 7))
@pytest.mark.parametrize("dilation", range(1, 4))
def test_same_padding_keeps_the_size_and_puts_the_odd_cell_after(kernel: int, dilation: int) -> None:
    p = conv2d_problem((1, 1, 9, 9), (1, 1, kernel, kernel), 1, "same", dilation, 1)
    taps = dilation * (kernel - 1)
    assert (p.P, p.Q) == (9, 9)
    assert (p.padding, p.padding_after) == ((taps // 2,) * 2, (taps - taps // 2,) * 2)


def test_ways_to_write_a_pair() -> None:
    expected = conv2d_problem((1, 1, 9, 9), (1, 1, 3, 3), (2, 2), (1, 1), (1, 1), 1)
    assert isinstance(expected, Conv2dProblem)
    for two, one in ((2, 1), ((2,), (1,)), (np.int64(2), np.int32(1)), ((2, np.int8(2)), (1, 1))):
        assert conv2d_problem((1, 1, 9, 9), (1, 1, 3, 3), two, one, 1, 1) == expected
    x, w = gpucnn.ones(1, 1, 9, 9), gpucnn.ones(1, 1, 3, 3)
    assert F.conv2d(x, w, stride=[2, 2], padding=[1]).shape == (1, 1, 5, 5)  # type: ignore[list-item, arg-type]
    assert F.max_pool2d(x, [3, 2], [2]).shape == (1, 1, 4, 4)  # type: ignore[arg-type]
    pooled = pool2d_problem("avg_pool2d", (1, 1, 9, 9), (3, 2), None, 0, 1, False)
    assert isinstance(pooled, Pool2dProblem)
    assert pooled.stride == (3, 2)


# ---------------------------------------------------------------------------------------------------- bad arguments

X, W = gpucnn.zeros(2, 4, 8, 8), gpucnn.zeros(6, 4, 3, 3)


def conv(**changes: Any) -> Any:
    arguments: dict[str, Any] = {"input": X, "weight": W} | changes
    return lambda: F.conv2d(**arguments)


def pool(**changes: Any) -> Any:
    arguments: dict[str, Any] = {"input": X, "kernel_size": 2} | changes
    return lambda: F.max_pool2d(**arguments)


def average(**changes: Any) -> Any:
    arguments: dict[str, Any] = {"input": X, "kernel_size": 2} | changes
    return lambda: F.avg_pool2d(**arguments)


def fully(**changes: Any) -> Any:
    arguments: dict[str, Any] = {"input": gpucnn.zeros(2, 4), "weight": gpucnn.zeros(3, 4)} | changes
    return lambda: F.linear(**arguments)


F64, F16, INTS = (
    gpucnn.zeros(6, 4, 3, 3, dtype="float64"),
    gpucnn.zeros(6, dtype="float16"),
    gpucnn.tensor([1, 2, 3, 4]),
)
REFUSED = [
    # shapes
    (
        conv(weight=gpucnn.zeros(6, 3, 3, 3)),
        ValueError,
        r"input \(2, 4, 8, 8\) has C=4 .*weight \(6, 3, 3, 3\) .*expects 3",
    ),
    (conv(input=gpucnn.zeros(3, 8, 8)), ValueError, r"input \(1, 3, 8, 8\) has C=3 channels, but .* expects 4"),
    (conv(input=gpucnn.zeros(8, 8)), ValueError, r"input must have shape \(N, C, H, W\) or \(C, H, W\), got \(8, 8\)"),
    (conv(input=gpucnn.zeros(1, 2, 4, 8, 8)), ValueError, r"got \(1, 2, 4, 8, 8\)"),
    (conv(weight=gpucnn.zeros(4, 3, 3)), ValueError, r"weight must have shape \(K, C/groups, R, S\), got \(4, 3, 3\)"),
    (conv(bias=gpucnn.zeros(5)), ValueError, r"bias must have shape \(6,\), one number an output channel, got \(5,\)"),
    (conv(bias=gpucnn.zeros(6, 1)), ValueError, r"bias must have shape \(6,\).*got \(6, 1\)"),
    (conv(weight=gpucnn.zeros(6, 4, 9, 3)), ValueError, r"spans 9 x 3 .*larger than the padded input 8 x 8"),
    (conv(weight=gpucnn.zeros(6, 4, 9, 3), padding="valid"), ValueError, r"padding='valid'"),
    (conv(dilation=(1, 4)), ValueError, r"spans 3 x 9 .*dilation=\(1, 4\).*larger than the padded input"),
    (
        conv(weight=gpucnn.zeros(6, 4, 0, 3)),
        ValueError,
        r"channels and kernel must not be empty.*weight \(6, 4, 0, 3\)",
    ),
    (conv(weight=gpucnn.zeros(0, 4, 3, 3)), ValueError, "channels and kernel must not be empty"),
    (conv(input=gpucnn.zeros(1, 0, 8, 8), weight=gpucnn.zeros(6, 0, 3, 3)), ValueError, "must not be empty, got input"),
    # groups
    (conv(groups=3), ValueError, r"groups must divide the channels .*groups=3, input has C=4, weight .* K=6"),
    (conv(weight=gpucnn.zeros(6, 1, 3, 3), groups=4), ValueError, "groups=4, input has C=4, weight .* has K=6"),
    (conv(groups=2), ValueError, r"weight \(6, 4, 3, 3\) with groups=2 expects 8"),
    (conv(groups=0), ValueError, "groups must be at least 1, got 0"),
    (conv(groups=(2, 2)), TypeError, r"groups must be an integer, got \(2, 2\)"),
    # numbers
    (conv(stride=0), ValueError, "conv2d: stride must be at least 1, got 0"),
    (conv(stride=(1, -1)), ValueError, r"stride must be at least 1, got \(1, -1\)"),
    (conv(dilation=0), ValueError, "dilation must be at least 1, got 0"),
    (conv(padding=-1), ValueError, "padding must not be negative, got -1"),
    (conv(padding="full"), ValueError, "padding must be 'same', 'valid', an int or a pair, got 'full'"),
    (conv(padding="same", stride=2), ValueError, "padding='same' needs stride 1, got stride=2"),
    (conv(stride=(1, 1, 1)), ValueError, r"stride takes an int or a pair \(vertical, horizontal\), got \(1, 1, 1\)"),
    (conv(stride=()), ValueError, "stride takes an int or a pair"),
    (conv(stride=1.0), TypeError, "conv2d: stride must be an integer, got 1.0"),
    (conv(stride=None), TypeError, "stride must be an integer, got None"),
    (conv(padding=(1, "1")), TypeError, "padding must be an integer, got '1'"),
    (conv(dilation=np.array([1, 1])), TypeError, "dilation takes an int or a tuple of ints, got array"),
    # tensors, dtypes
    (
        conv(input=np.zeros((2, 4, 8, 8))),
        TypeError,
        r"conv2d: input must be a gpucnn.Tensor, got ndarray; gpucnn.tensor",
    ),
    (conv(weight=None), TypeError, "conv2d: weight must be a gpucnn.Tensor, got NoneType"),
    (conv(bias=[0.0] * 6), TypeError, "bias must be a gpucnn.Tensor, got list"),
    (conv(input=gpucnn.tensor(np.zeros((2, 4, 8, 8), int))), TypeError, "input must have a floating dtype, got int64"),
    (conv(weight=F64), TypeError, "input has dtype float32, but weight has float64"),
    (conv(bias=F16), TypeError, "input has dtype float32, but bias has float16"),
    # pooling
    (pool(input=gpucnn.zeros(8, 8)), ValueError, r"max_pool2d: input must have shape .* got \(8, 8\)"),
    (pool(input=X.numpy()), TypeError, "max_pool2d: input must be a gpucnn.Tensor"),
    (pool(input=INTS.reshape(1, 1, 2, 2)), TypeError, "max_pool2d: input must have a floating dtype, got int64"),
    (pool(kernel_size=9), ValueError, r"max_pool2d: a window of 9 x 9 is larger than the padded input 8 x 8"),
    (pool(kernel_size=(2, 0)), ValueError, r"kernel_size must be at least 1, got \(2, 0\)"),
    (pool(stride=0), ValueError, "max_pool2d: stride must be at least 1"),
    (pool(dilation=0), ValueError, "dilation must be at least 1"),
    (pool(padding=2), ValueError, "padding=2 must be at most half of kernel_size=2"),
    (pool(padding=-1), ValueError, "padding must not be negative"),
    (pool(kernel_size=None), TypeError, "kernel_size must be an integer, got None"),
    (pool(input=gpucnn.zeros(1, 2, 0, 4), kernel_size=1), ValueError, "channels and image must not be empty"),
    (average(kernel_size=(3, 2), padding=(2, 0)), ValueError, r"avg_pool2d: padding=\(2, 0\) must be at most half"),
    (average(divisor_override=0), ValueError, "divisor_override must not be 0"),
    (average(divisor_override=2.5), TypeError, "divisor_override must be an integer, got 2.5"),
    # fully connected
    (
        fully(weight=gpucnn.zeros(3, 5)),
        ValueError,
        r"linear: input \(2, 4\) must end in the 5 features of weight \(3, 5\)",
    ),
    (fully(weight=gpucnn.zeros(4)), ValueError, r"weight must have shape \(out_features, in_features\), got \(4,\)"),
    (fully(input=gpucnn.tensor(1.0)), ValueError, r"input \(\) must end in the 4 features"),
    (fully(bias=gpucnn.zeros(4)), ValueError, r"linear: bias must have shape \(3,\)"),
    (fully(input=INTS), TypeError, "linear: input must have a floating dtype, got int64"),
    (fully(weight=F16.reshape(1, 6)), TypeError, "input has dtype float32, but weight has float16"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_bad_arguments_are_refused_before_anything_is_computed(
    call: Any, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a kernel was run")

    for table in (conv2d.fprop, pool2d.max_fprop, pool2d.average_fprop, linear.fprop):
        monkeypatch.setattr(table, "pick", never)
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda there: F.conv2d(X, there(6, 4, 3, 3)), "conv2d: input is on cpu, but weight on cuda:1"),
        (lambda there: F.conv2d(X, W, there(6)), "conv2d: input is on cpu, but bias on cuda:1"),
        (lambda there: F.conv2d(there(2, 4, 8, 8), W), "conv2d: input is on cuda:1, but weight on cpu"),
        (lambda there: F.linear(X, there(3, 8)), "linear: input is on cpu, but weight on cuda:1"),
        (lambda there: F.mse_loss(W, there(6, 4, 3, 3)), "mse_loss: input is on cpu, but target on cuda:1"),
        (lambda there: F.cross_entropy(gpucnn.zeros(2, 6), [1, 2], there(6)), "input is on cpu, but weight on cuda:1"),
        (lambda there: F.cross_entropy(there(2, 6), [1, 2]), "input is on cuda:1, but target on cpu"),
    ],
)
def test_operands_on_two_devices_are_refused(call: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of a subclass stand for those of a GPU."""

    class OnGpu(np.ndarray[Any, Any]):
        pass

    def there(*shape: int) -> gpucnn.Tensor:
        tensor = gpucnn.zeros(*shape)
        tensor.data = tensor.data.view(OnGpu)
        return tensor

    monkeypatch.setattr(backend, "device_of", lambda array: "cuda:1" if isinstance(array, OnGpu) else "cpu")
    with pytest.raises(ValueError, match=message):
        call(there)
