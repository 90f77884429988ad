"""F.batch_norm: values, gradients and running statistics against the truth and PyTorch; corners and refusals."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from norm_checks import DTYPES, held, near, rms
from op_checks import LAYOUTS, NHWC, SEED, draw, plant

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops import norm as ops
from gpucnn.reference import norm as reference
from gpucnn.reference.norm_problem import NormProblem
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive

SHAPES = [(2, 3, 4, 5), (1, 1, 2, 2), (5, 7), (2, 1), (3, 4, 6), (2, 6, 3, 2, 2), (3, 33, 3, 5), (4, 129, 1, 1)]
AFFINE = [(True, True), (True, False), (False, True), (False, False)]
WORDS = ["affine", "weight", "bias", "plain"]


@functools.cache
def numbers(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    C = shape[1]
    return {
        "x": held(draw("normal", shape) * 2 + 1),
        "dy": draw("normal", shape, 1),
        "weight": draw("normal", (C,), 2),
        "bias": draw("normal", (C,), 3),
        "mean": draw("normal", (C,), 4),
        "var": held(np.abs(draw("normal", (C,), 5)) + 0.5),
    }


@functools.cache
def truth(shape: tuple[int, ...], weighted: bool, biased: bool, training: bool) -> tuple[np.ndarray, ...]:
    """y, dx, dweight, dbias."""
    n = numbers(shape)
    weight, bias = n["weight"] if weighted else None, n["bias"] if biased else None
    given = {} if training else {"mean": n["mean"], "var": n["var"]}
    y = naive.batch_norm(n["x"], weight, bias, **given)
    return y, *naive.batch_norm_grad(n["dy"], n["x"], weight, **given)


def check(shape: tuple[int, ...], dtype: str, weighted: bool, biased: bool, training: bool, layout: str = "") -> None:
    """Forward, all gradients and the running statistics."""
    __tracebackhide__ = True
    n = numbers(shape)
    change = LAYOUTS[layout or "nhwc"]
    x, dy = (change(n[name].astype(dtype)) for name in ("x", "dy"))
    leaf = gpucnn.Tensor(x, requires_grad=True)
    weight = gpucnn.tensor(n["weight"], dtype, requires_grad=True) if weighted else None
    bias = gpucnn.tensor(n["bias"], dtype, requires_grad=True) if biased else None
    kept = [gpucnn.tensor(n[name], dtype) for name in ("mean", "var")]
    y = F.batch_norm(leaf, *kept, weight, bias, training, momentum=0.25)
    y.backward(dy)
    truths = truth(shape, weighted, biased, training)
    terms = n["x"].size // shape[1]
    deviation = np.sqrt((n["x"].var(axis=(0, *range(2, len(shape)))) if training else n["var"]) + 1e-5)
    size = rms(n["dy"]) * max(1, np.abs(n["weight"]).max() if weighted else 1) / deviation.min()
    near(y, truths[0], terms, name="y")
    near(leaf.grad, truths[1], terms, 3 * size, name="dx")
    for parameter, gradient, name in ((weight, truths[2], "dweight"), (bias, truths[3], "dbias")):
        if parameter is not None:
            assert parameter.grad is not None
            near(parameter.grad, gradient, terms, rms(n["dy"]) * terms**0.5, name=name)
    batch = naive.batch_statistics(n["x"])
    for found, name, seen in zip(kept, ("mean", "var"), batch, strict=True):
        moved = 0.75 * n[name] + 0.25 * seen if training else n[name]
        near(found, moved, terms, name=f"running {name}")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_every_dtype(shape: tuple[int, ...], dtype: str, training: bool) -> None:
    check(shape, dtype, True, True, training)


@pytest.mark.parametrize(("weighted", "biased"), AFFINE, ids=WORDS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_without_weight_or_bias(weighted: bool, biased: bool, training: bool) -> None:
    check((3, 33, 3, 5), "float32", weighted, biased, training)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 6), (5, 7)], ids=str)
def test_any_memory_layout_is_taken(layout: str, shape: tuple[int, ...]) -> None:
    check(shape, "float32", True, True, True, layout)
    check(shape, "float32", True, True, False, layout)


def test_numbers_that_come_out_exactly() -> None:
    """Mean 0, variance 1, eps 3: everything is a dyadic fraction, in every dtype."""
    x = np.array([[-1.0, 1], [1, -1], [1, 1], [-1, -1]])
    dy = np.array([[1.0, 2], [3, 4], [-1, 0], [5, -2]])
    for dtype in DTYPES:
        leaf = gpucnn.tensor(x, dtype, requires_grad=True)
        weight = gpucnn.tensor([2.0, -4], dtype, requires_grad=True)
        bias = gpucnn.tensor([1.0, 2], dtype, requires_grad=True)
        y = F.batch_norm(leaf, None, None, weight, bias, True, eps=3.0)
        y.backward(dy.astype(dtype))
        assert_equal(y, x / 2 * [2, -4] + [1, 2])
        z = x / 2
        truth = (dy - dy.mean(0) - z * (dy * z).mean(0)) / 2 * [2, -4]
        assert_equal(leaf.grad, truth, signed_zeros=False)
        assert_equal(weight.grad, (dy * z).sum(0), signed_zeros=False)
        assert_equal(bias.grad, dy.sum(0))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("weighted", "biased"), AFFINE, ids=WORDS)
def test_gradients_are_central_differences(training: bool, weighted: bool, biased: bool) -> None:
    n = numbers((2, 3, 4, 5))
    kept = [gpucnn.tensor(n[name]) for name in ("mean", "var")]
    inputs = [gpucnn.tensor(n[name], requires_grad=True) for name in ("x", "weight", "bias")]
    x, weight, bias = inputs

    def run(*leaves: gpucnn.Tensor) -> gpucnn.Tensor:
        rest = iter(leaves[1:])
        own = [gpucnn.tensor(k) for k in kept]
        w, b = (next(rest) if there else None for there in (weighted, biased))
        return F.batch_norm(leaves[0], *own, w, b, training)

    assert gradcheck(run, [x] + [weight] * weighted + [bias] * biased)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1)], ids=str)
def test_only_the_gradients_that_are_asked_for(training: bool, wanted: tuple[int, ...]) -> None:
    n = numbers((3, 4, 6))
    leaves = [
        gpucnn.tensor(n[name], requires_grad=bool(needs))
        for name, needs in zip(("x", "weight", "bias"), wanted, strict=True)
    ]
    y = F.batch_norm(leaves[0], gpucnn.tensor(n["mean"]), gpucnn.tensor(n["var"]), *leaves[1:], training)
    y.backward(n["dy"])
    for leaf, gradient in zip(leaves, truth((3, 4, 6), True, True, training)[1:], strict=True):
        assert (leaf.grad is not None) == leaf.requires_grad
        if leaf.grad is not None:
            near(leaf.grad, gradient, 18)


def test_large_means_lose_nothing_in_training() -> None:
    x = (1000 + np.random.default_rng(SEED).standard_normal((16, 3, 32, 32))).astype(np.float32)
    dy = np.random.default_rng(SEED + 1).standard_normal(x.shape).astype(np.float32)
    leaf = gpucnn.tensor(x, requires_grad=True)
    y = F.batch_norm(leaf, None, None, training=True)
    y.backward(dy)
    wide = x.astype(np.float64)
    deviation = np.sqrt(wide.var(axis=(0, 2, 3), keepdims=True) + 1e-5)
    z = (wide - wide.mean(axis=(0, 2, 3), keepdims=True)) / deviation
    dx = dy - dy.mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    dx = (dx - z * (dy * z).mean(axis=(0, 2, 3), keepdims=True)) / deviation
    assert_close(y, z, rtol=1e-6, atol=1e-6)
    assert_close(leaf.grad, dx, rtol=1e-6, atol=1e-6)


# --------------------------------------------------------------------------------------------- running statistics


def test_running_statistics_are_written_in_place_and_not_part_of_the_history() -> None:
    """Two batches before the first backward: what the second moved is not what the first one saved."""
    n = numbers((2, 3, 4, 5))
    mean, var = gpucnn.tensor(n["mean"]), gpucnn.tensor(n["var"])
    memories = mean.data, var.data
    leaf = gpucnn.tensor(n["x"], requires_grad=True)
    y = F.batch_norm(leaf, mean, var, training=True)
    F.batch_norm(leaf, mean, var, training=True)
    y.backward(n["dy"])
    near(leaf.grad, truth((2, 3, 4, 5), False, False, True)[1], 40)
    assert (mean.data is memories[0], var.data is memories[1]) == (True, True)
    assert (mean.requires_grad, var.requires_grad) == (False, False)


def test_evaluation_differentiates_by_the_statistics_that_it_saw() -> None:
    n = numbers((2, 3, 4, 5))
    mean, var = gpucnn.tensor(n["mean"]), gpucnn.tensor(n["var"])
    leaf = gpucnn.tensor(n["x"], requires_grad=True)
    y = F.batch_norm(leaf, mean, var)
    F.batch_norm(leaf, mean, var, training=True, momentum=1.0)
    y.backward(n["dy"])
    near(leaf.grad, truth((2, 3, 4, 5), False, False, False)[1], 40)


def test_who_saved_running_statistics_hears_of_the_change() -> None:
    mean, var = gpucnn.zeros(3), gpucnn.ones(3)
    factor = gpucnn.ones(3, requires_grad=True)
    product = factor * mean
    F.batch_norm(gpucnn.tensor(numbers((2, 3, 4, 5))["x"], "float32"), mean, var, training=True)
    with pytest.raises(RuntimeError, match="changed in place"):
        product.backward(np.ones(3, np.float32))


def test_the_share_of_the_batch() -> None:
    x = gpucnn.tensor([[1.0], [3.0]])
    for momentum, expected in ((0.0, (5, 7)), (1.0, (2, 2)), (0.5, (3.5, 4.5)), (2, (-1, -3))):
        mean, var = gpucnn.tensor([5.0]), gpucnn.tensor([7.0])
        F.batch_norm(x, mean, var, training=True, momentum=momentum)
        assert (mean.item(), var.item()) == expected


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 3, 0, 2), (0, 3)], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_an_empty_batch_moves_nothing(shape: tuple[int, ...], training: bool) -> None:
    mean, var = gpucnn.tensor([5.0, 6, 7]), gpucnn.tensor([1.0, 2, 3])
    x = gpucnn.zeros(shape, requires_grad=True)
    weight = gpucnn.ones(3, requires_grad=True)
    y = F.batch_norm(x, mean, var, weight, weight, training)
    y.backward(np.zeros(shape, np.float32))
    assert (y.shape, x.grad.shape) == (shape, shape)
    assert weight.grad.tolist() == [0, 0, 0]
    assert (mean.tolist(), var.tolist()) == ([5, 6, 7], [1, 2, 3])


def test_infinities_and_nan_stay_in_their_channel() -> None:
    x = np.array(draw("normal", (4, 4, 2, 2)))
    x[1, 0, 0, 0], x[2, 1, 1, 1] = np.inf, np.nan
    mean, var = gpucnn.zeros(4), gpucnn.ones(4)
    leaf = gpucnn.tensor(x, "float32", requires_grad=True)
    y = F.batch_norm(leaf, mean, var, training=True)
    y.backward(np.ones(x.shape, np.float32))
    assert np.isnan(y.numpy()[:, :2]).all()
    assert np.isfinite(y.numpy()[:, 2:]).all()
    assert np.isfinite(leaf.grad.numpy()[:, 2:]).all()
    assert np.isnan(var.numpy()).tolist() == [True, True, False, False]
    assert not np.isfinite(mean.numpy()[:2]).any()


def test_channels_last_stays_channels_last_without_a_copy() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = F.batch_norm(x, None, None, training=True)
        y.backward(y.detach())
    assert copies.value == 0
    assert y.data.strides == x.grad.data.strides == x.data.strides
    sequence = gpucnn.Tensor(np.zeros((2, 5, 3), np.float32).transpose(0, 2, 1))
    with backend.count_layout_copies() as copies:
        y = F.batch_norm(sequence, None, None, training=True)
    assert (copies.value, y.data.strides) == (0, sequence.data.strides)
    assert x.data.transpose(NHWC).flags.c_contiguous


def test_only_the_input_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a training step keeps in memory for a batch norm: its input, and numbers for each channel."""
    x = gpucnn.tensor(draw("normal", (4, 3, 8, 8)), requires_grad=True)
    weight = gpucnn.ones(3, requires_grad=True, dtype="float64")
    y = F.batch_norm(x, None, None, weight, training=True)
    saved = y.node[0].context.saved
    large = [array for array in saved if array is not None and array.size > 3]
    assert [np.shares_memory(array, x.data) for array in large] == [True]
    with gpucnn.no_grad():
        assert F.batch_norm(x, None, None, training=True).node is None


# ---------------------------------------------------------------------------------------------------- PyTorch


def torch_leaf(torch: Any, array: np.ndarray) -> Any:
    return torch.tensor(array, requires_grad=True)


@pytest.mark.peers
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_pytorch_agrees(shape: tuple[int, ...], training: bool, torch: Any) -> None:
    n = numbers(shape)
    theirs = {name: torch.tensor(n[name]) for name in ("mean", "var")}
    leaves = [torch.tensor(n[name], requires_grad=True) for name in ("x", "weight", "bias")]
    y = torch.nn.functional.batch_norm(leaves[0], *theirs.values(), *leaves[1:], training, 0.3, 1e-3)
    y.backward(torch.tensor(n["dy"]))
    ours = {name: gpucnn.tensor(n[name]) for name in ("mean", "var")}
    mine = [gpucnn.tensor(n[name], requires_grad=True) for name in ("x", "weight", "bias")]
    z = F.batch_norm(mine[0], *ours.values(), *mine[1:], training, 0.3, 1e-3)
    z.backward(n["dy"])
    size = float(y.detach().abs().max())
    assert_close(z, y.detach().numpy(), rtol=1e-9, atol=1e-9 * size)
    for a, b in zip(mine, leaves, strict=True):
        assert_close(a.grad, b.grad.numpy(), rtol=1e-9, atol=1e-9 * max(1, float(b.grad.abs().max())))
    for name in ours:
        assert_close(ours[name], theirs[name].numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("x", DTYPES)
@pytest.mark.parametrize("weight", [None, *DTYPES])
@pytest.mark.parametrize("kept", [None, *DTYPES])
def test_dtypes_go_together_as_in_pytorch(x: str, weight: str | None, kept: str | None, torch: Any) -> None:
    def run(library: Any, norm: Any) -> str:
        one = {d: library.ones(3, dtype=d if library is gpucnn else getattr(torch, d)) for d in DTYPES}
        image = library.ones(4, 3, dtype=x if library is gpucnn else getattr(torch, x))
        running = (None, None) if kept is None else (one[kept] + 0, one[kept] + 0)
        try:
            y = norm(image, *running, one.get(weight), one.get(weight), True)
        except (TypeError, RuntimeError):
            return "refused"
        return str(y.dtype).removeprefix("torch.")

    assert run(gpucnn, F.batch_norm) == run(torch, torch.nn.functional.batch_norm)


def test_half_precision_with_single_precision_parameters() -> None:
    n = numbers((3, 33, 3, 5))
    x = gpucnn.tensor(n["x"], "float16", requires_grad=True)
    weight, bias = (gpucnn.tensor(n[name], "float32", requires_grad=True) for name in ("weight", "bias"))
    mean, var = (gpucnn.tensor(n[name], "float32") for name in ("mean", "var"))
    y = F.batch_norm(x, mean, var, weight, bias, True, 0.25)
    y.backward(n["dy"].astype(np.float16))
    assert [t.dtype for t in (y, x.grad, weight.grad, bias.grad, mean)] == ["float16"] * 2 + ["float32"] * 3
    truths = truth((3, 33, 3, 5), True, True, True)
    near(y, truths[0], 45)
    near(weight.grad, truths[2], 45, rms(n["dy"]) * 45**0.5)  # not rounded to float16
    near(mean, 0.75 * n["mean"] + 0.25 * naive.batch_statistics(n["x"])[0], 45)


# ---------------------------------------------------------------------------------------------------- refusals


def ones(*shape: int, dtype: str = "float32") -> gpucnn.Tensor:
    return gpucnn.ones(*shape, dtype=dtype)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ones(3), None, None, None, None, True), r"input must have shape \(N, C, ...\), got \(3,\)"),
        (
            (ones(4, 3), None, None, ones(4), None, True),
            r"weight must have shape \(3,\), one number a channel, got \(4,\)",
        ),
        ((ones(4, 3), None, None, None, ones(3, 1), True), r"bias must have shape \(3,\), .*, got \(3, 1\)"),
        ((ones(4, 3), ones(4), ones(4), None, None, True), r"running_mean must have shape \(3,\)"),
        ((ones(4, 3), ones(3), ones(2), None, None, True), r"running_var must have shape \(3,\)"),
        ((ones(4, 3), ones(3), None, None, None, True), "running_mean and running_var go together"),
        ((ones(4, 3), None, None), "running_mean and running_var are needed where training is False"),
        ((ones(1, 3, 1, 1), None, None, None, None, True), "more than 1 value per channel when training, got input"),
        ((ones(4, 3), None, None, None, None, True, 0.1, 0.0), "eps must be positive in training, got 0.0"),
        ((ones(4, 3), gpucnn.ones(3, requires_grad=True), ones(3)), "running_mean requires a gradient"),
    ],
)
def test_bad_values_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"batch_norm: .*{message}"):
        F.batch_norm(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], None, None), "input must be a gpucnn.Tensor, got list"),
        ((gpucnn.tensor([[1, 2]]), None, None), "input must have a floating dtype, got int64"),
        ((ones(4, 3), None, None, [1.0] * 3, None, True), "weight must be a gpucnn.Tensor"),
        ((ones(4, 3), ones(3, dtype="float64"), ones(3)), "input has dtype float32, but running_mean has float64"),
        (
            (ones(4, 3), None, None, None, ones(3, dtype="float16"), True),
            "input has dtype float32, but bias has float16",
        ),
        (
            (ones(4, 3, dtype="float16"), None, None, ones(3), ones(3, dtype="float16"), True),
            "weight has dtype float32, but bias has float16",
        ),
        ((ones(4, 3), None, None, None, None, True, None), "momentum must be a number, got None"),
        ((ones(4, 3), None, None, None, None, True, 0.1, "1e-5"), "eps must be a number"),
    ],
)
def test_what_is_no_fitting_tensor_or_number_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError, match=f"batch_norm: {message}"):
        F.batch_norm(*arguments)


def test_a_refused_batch_moves_no_statistics() -> None:
    mean, var = ones(3), ones(3)
    with pytest.raises(ValueError, match="more than 1 value"):
        F.batch_norm(ones(1, 3), mean, var, training=True)
    with pytest.raises(ValueError, match="bias must have shape"):
        F.batch_norm(ones(4, 3), mean, var, None, ones(2), True)
    assert (mean.tolist(), var.tolist()) == ([1, 1, 1], [1, 1, 1])


# ----------------------------------------------------------------------------------- wrong kernels must be caught


def dx_as_in_evaluation(p: NormProblem, dy: np.ndarray, *arrays: Any) -> Any:
    return reference.bprop(replace(p, momentum=None), dy, *arrays)


def statistics_of_half(p: NormProblem, x: np.ndarray, weight: Any, bias: Any, *rest: Any) -> Any:
    _, mean, inverse = reference.fprop(replace(p, M=p.M // 2), x[:, : p.M // 2], weight, bias, *rest)
    y = (x - mean[:, None]) * inverse[:, None] * weight + bias
    return y.astype(x.dtype), mean, inverse


@pytest.mark.parametrize(("table", "wrong"), [(ops.bprop, dx_as_in_evaluation), (ops.fprop, statistics_of_half)])
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=r"(y|dx): .* elements are wrong"):
        check((2, 3, 4, 5), "float32", True, True, True)
