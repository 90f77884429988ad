"""F.pad and the padding layers: kernels against the definition, tensors and gradients against PyTorch."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, SEED, compare, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.ops import shape as ops
from gpucnn.reference import shape as reference
from gpucnn.reference.shape import PadProblem
from gpucnn.testing import assert_equal, gradcheck, naive

MODES = ["constant", "reflect", "replicate", "circular"]
DTYPES = ["float64", "float32", "float16"]
SHAPE = (2, 4, 5, 3)
AMOUNTS = [
    ((0, 0), (1, 1), (1, 1), (0, 0)),
    ((0, 0), (3, 0), (0, 4), (0, 0)),
    ((0, 0), (0, 0), (2, 3), (0, 0)),
    ((0, 0), (3, 3), (4, 4), (2, 1)),
    ((1, 0), (0, 2), (1, 0), (0, 0)),
]
CROPS = [((0, 0), (-1, 2), (1, -2), (0, 0)), ((-1, 0), (-2, -2), (-5, 1), (0, 3)), ((0, -2), (1, 1), (0, 0), (0, 0))]


@functools.cache
def truth(amounts: Any, mode: str) -> tuple[np.ndarray, ...]:
    """(x, y, dy, dx)."""
    x = draw("integers", SHAPE)
    y = naive.pad(x, amounts, mode, 7.0)
    dy = draw("integers", y.shape, 1)
    return x, y, dy, naive.pad_grad(dy, SHAPE, amounts, mode)


def check_kernels(amounts: Any, mode: str, dtype: str) -> None:
    __tracebackhide__ = True
    x, y, dy, dx = truth(amounts, mode)
    problem = PadProblem(amounts, mode, 7.0)
    for kernel, found in each_kernel(ops.pad, problem, frozen(x, dtype)):
        assert found.dtype == dtype, kernel
        compare(found, y, 1, f"{kernel} {mode} {dtype}", exact=True)
    for kernel, found in each_kernel(ops.pad_grad, problem, frozen(dy, dtype)):
        assert found.dtype == dtype, kernel
        compare(found, dx, 1, f"{kernel} {mode} {dtype}", exact=True)


@pytest.mark.parametrize("amounts", AMOUNTS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_every_kernel(mode: str, amounts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in DTYPES:
        check_kernels(amounts, mode, dtype)
    monkeypatch.setattr(reference, "_row_blocks", lambda array: [slice(i, i + 1) for i in range(len(array))])
    check_kernels(amounts, mode, "float32")


@pytest.mark.parametrize("amounts", CROPS, ids=str)
def test_every_kernel_cuts_off(amounts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in DTYPES:
        check_kernels(amounts, "constant", dtype)


def test_these_are_all_kernels() -> None:
    assert names(ops.pad) == names(ops.pad_grad) == ["edges"]


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_gradients_are_added_up_in_single(mode: str) -> None:
    x = gpucnn.zeros(1, 1, 3, 3, dtype="float16", requires_grad=True)
    amount = 1000 if mode == "replicate" else 2
    y = F.pad(x, (amount, amount, 0, 0), mode)
    dy = np.full(y.shape, 0.1, np.float16)
    y.backward(dy)
    truth = naive.pad_grad(dy, (1, 1, 3, 3), ((0, 0), (0, 0), (0, 0), (amount, amount)), mode)
    compare(x.grad.numpy(), truth, 1, mode)


# ------------------------------------------------------------------------------------------------ against PyTorch

CASES: dict[tuple[int, ...], list[Any]] = {  # shape: amounts
    (2, 3, 4, 5): [(1, 2, 3, 1), (0, 0, 2, 0), (2, 1, -1, 2), (-2, 1, 0, -1), (0, 0, 0, 0)],
    (3, 4, 5): [(1, 2, 3, 1), (-1, 2, 1, -2), (2, 1)],
    (3, 5): [(3, 1), (-2, 3), (0, -1)],
    (2, 3, 2, 3, 4): [(1, 2, 1, 0, 1, 1), (-1, 1, 0, 0, 0, -1)],
}


def check_like_pytorch(x: np.ndarray, amounts: Any, mode: str, torch: Any) -> None:
    __tracebackhide__ = True
    value = 2.5 if mode == "constant" else None
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = F.pad(ours, amounts, mode, value), torch.nn.functional.pad(theirs, amounts, mode, value)
    assert_equal(y, expected.detach().numpy(), name=f"{mode} {x.shape} {amounts}")
    dy = draw("integers", y.shape, 1)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_equal(ours.grad, theirs.grad, signed_zeros=False, name=f"{mode} {x.shape} {amounts} gradient")


@pytest.mark.peers
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", CASES, ids=str)
def test_values_and_gradients_are_pytorchs(shape: tuple[int, ...], mode: str, torch: Any) -> None:
    for amounts in CASES[shape]:
        check_like_pytorch(draw("integers", shape), amounts, mode, torch)


@pytest.mark.peers
def test_drawn_problems_are_pytorchs_and_refused_where_it_refuses(torch: Any) -> None:
    rng, agreed, refused = np.random.default_rng(SEED), 0, 0
    for _ in range(400):
        axes = int(rng.integers(1, 4))
        shape = tuple(rng.integers(1, 6, axes + int(rng.integers(0, 4))).tolist())
        amounts = tuple(rng.choice([0, 0, 1, 2, 3, -1], 2 * axes).tolist())
        mode = MODES[rng.integers(4)]
        pairs = zip(shape[-axes:], amounts[-2::-2], amounts[::-2], strict=True)
        if any(size + a + b < 1 or size + min(a, 0) + min(b, 0) < max(a, b) for size, a, b in pairs):
            continue  # nothing is left, or less than what is added, where PyTorch reads beyond it
        try:
            torch.nn.functional.pad(torch.zeros(shape), amounts, mode)
        except (RuntimeError, NotImplementedError, AssertionError):
            with pytest.raises(ValueError, match="pad:"):
                F.pad(gpucnn.zeros(*shape), amounts, mode)
            refused += 1
        else:
            check_like_pytorch(draw("integers", shape), amounts, mode, torch)
            agreed += 1
    assert agreed > 50
    assert refused > 20


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_central_differences(mode: str) -> None:
    x = gpucnn.tensor(draw("normal", (2, 2, 3, 4)), requires_grad=True)
    assert gradcheck(lambda t: F.pad(t, (2, 1, 1, 2), mode) ** 2, [x])


# -------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("mode", MODES)
def test_channels_last_stays_channels_last_without_a_copy(mode: str) -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 4, 5)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = F.pad(F.pad(x * 2, (1, 2, 1, 1), mode), (-1, 0, 0, -2))
        y.backward(y.detach())
        single = F.pad(x[0], (1, 1, 1, 1), mode)
    assert copies.value == 0
    for tensor in (y, x.grad):
        assert tensor.data.transpose(NHWC).flags.c_contiguous
    assert single.data.transpose(1, 2, 0).flags.c_contiguous


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
def test_any_memory_layout_is_taken(mode: str, layout: str) -> None:
    x = draw("integers", (2, 3, 4, 5))
    leaf = gpucnn.Tensor(LAYOUTS[layout](x), requires_grad=True)
    amounts = ((0, 0), (0, 0), (2, 0), (1, 3))
    y = F.pad(leaf, (1, 3, 2, 0), mode)
    assert_equal(y, naive.pad(x, amounts, mode), signed_zeros=False)
    dy = draw("integers", y.shape, 1)
    y.backward(LAYOUTS[layout](dy))
    assert_equal(leaf.grad, naive.pad_grad(dy, x.shape, amounts, mode), signed_zeros=False)


def test_large_images_are_padded_by_several_threads_alike() -> None:
    x = np.random.default_rng(SEED).integers(-8, 9, (6, 256, 64, 32)).astype(np.float32)
    for mode in MODES:
        y = F.pad(gpucnn.tensor(x), (1, 2, 3, 0), mode).numpy()
        numpys = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
        assert np.array_equal(y, np.pad(x, ((0, 0), (0, 0), (3, 0), (1, 2)), numpys))  # type: ignore[call-overload]


# -------------------------------------------------------------------------------------------------------- corners


def test_no_images_and_no_amounts() -> None:
    for mode in MODES:
        assert F.pad(gpucnn.zeros(0, 3, 4, 4), (1, 1, 2, 2), mode).shape == ((0, 3, 8, 6))
    x = gpucnn.ones(2, 3)
    y = F.pad(x, ())
    assert_equal(y, x.numpy())
    assert not np.shares_memory(y.data, x.data)
    assert F.pad(gpucnn.tensor(3.0), ()).item() == 3


def test_other_dtypes_and_any_axes() -> None:
    assert F.pad(gpucnn.tensor([1, 2]), (1, 1), value=9).tolist() == [9, 1, 2, 9]
    assert F.pad(gpucnn.tensor([[True]]), (1, 0, 0, 0)).tolist() == [[False, True]]
    assert F.pad(gpucnn.ones(2, 2), (0, 0, 1, 0), value=float("inf")).tolist() == [[float("inf")] * 2, [1, 1], [1, 1]]
    assert F.pad(gpucnn.ones(1, 1, 2, 2), (0, 0, 0, 0, 1, 0, 0, 2)).shape == (3, 2, 2, 2)
    assert F.pad(gpucnn.ones(2, 5), (-2, -3)).shape == (2, 0)


@pytest.mark.parametrize(
    ("shape", "amounts", "mode", "value", "message"),
    [
        ((2, 3), (1,), "constant", None, r"two numbers for each padded axis, got 1 for shape \(2, 3\)"),
        ((2, 3), (1, 1, 1, 1, 1, 1), "constant", None, "got 6"),
        ((2, 3), (-2, -2), "constant", None, r"\(-2, -2\) cuts more off than the 3 cells"),
        ((2, 3), (-4, 2), "constant", None, "cuts more off"),
        ((2, 3), (1, 1), "symmetric", None, "mode must be 'constant', 'reflect'"),
        ((2, 3, 4, 4), (1, 1, 1, 1), "reflect", 1.0, "mode 'reflect' takes no value, got 1.0"),
        ((2, 3, 4, 4), (4, 0, 0, 0), "reflect", None, r"amounts below the size 4 of an axis, got \(4, 0\)"),
        ((2, 3, 4, 4), (5, 0, 0, 0), "circular", None, r"up to what is left of the 4 cells, got \(5, 0\)"),
        ((2, 3, 4, 4), (4, -1, 0, 0), "circular", None, "up to what is left of the 4 cells"),
        ((2, 3, 4, 4), (1, 1), "reflect", None, "2, 4 or 6 amounts for the last 1, 2 or 3 axes"),
        ((2, 3, 4, 4), (1, 1) * 4, "replicate", None, "2, 4 or 6 amounts"),
        ((3,), (1, 1), "replicate", None, "2, 4 or 6 amounts"),
        ((2, 0, 4, 4), (1, 1, 1, 1), "replicate", None, "needs cells to copy"),
        ((2, 3, 0, 4), (1, 1, 0, 0), "circular", None, "needs cells to copy"),
    ],
)
def test_what_does_not_fit_is_refused(shape: Any, amounts: Any, mode: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"pad: .*{message}"):
        F.pad(gpucnn.zeros(*shape), amounts, mode, value)


def test_what_is_no_tensor_and_no_integers_is_refused() -> None:
    with pytest.raises(TypeError, match=r"pad: input must be a gpucnn.Tensor, got ndarray"):
        F.pad(np.zeros((2, 3)), (1, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"pad: an amount must be an integer, got 1\.5"):
        F.pad(gpucnn.zeros(2, 3), (1.5, 0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"pad must be a tuple of integers"):
        F.pad(gpucnn.zeros(2, 3), 1)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- layers

LAYERS: dict[str, tuple[Any, ...]] = {
    "ZeroPad2d": (),
    "ConstantPad2d": (3.5,),
    "ReflectionPad2d": (),
    "ReplicationPad2d": (),
    "CircularPad2d": (),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_pytorchs(name: str, torch: Any) -> None:
    x = draw("integers", (2, 3, 4, 5))
    for padding, batched in itertools.product((1, (1, 2, 0, 3), (2, -1, 0, 0)), (True, False)):
        given = x if batched else x[0]
        layer, theirs = getattr(nn, name)(padding, *LAYERS[name]), getattr(torch.nn, name)(padding, *LAYERS[name])
        assert_equal(layer(gpucnn.tensor(given)), theirs(torch.tensor(given)).numpy())
        assert repr(layer).replace(" ", "") == repr(theirs).replace(" ", "")


def test_layers_take_four_amounts() -> None:
    with pytest.raises(ValueError, match=r"ZeroPad2d: padding is an int or \(left, right, top, bottom\), got \(1, 2\)"):
        nn.ZeroPad2d((1, 2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"ReflectionPad2d: padding must be an integer, got 1\.5"):
        nn.ReflectionPad2d(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "mode", "wrong"),
    [
        ("pad", "reflect", lambda p, x: np.pad(x, p.amounts, "symmetric")),
        ("pad", "constant", lambda p, x: np.pad(x, p.amounts)),
        ("pad_grad", "reflect", lambda p, dy: reference.pad_grad(p._replace(mode="constant"), dy)),
        ("pad_grad", "replicate", lambda p, dy: reference.pad_grad(p._replace(mode="circular"), dy)),
    ],
    ids=["edge-repeated", "value-forgotten", "copies-dropped", "to-the-other-end"],
)
def test_a_wrong_kernel_is_caught(table: str, mode: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, getattr(ops, table), wrong)
    with pytest.raises(AssertionError, match=f"planted {mode} float32: .* elements are wrong"):
        check_kernels(AMOUNTS[0], mode, "float32")
