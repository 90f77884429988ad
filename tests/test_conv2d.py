"""Convolution: every kernel against the truth, F.conv2d and its gradients against PyTorch, and its corners."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from op_checks import LAYOUTS, NCHW, NHWC, SEED, compare, draw, each_kernel, frozen, names, nhwc, plant

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops import conv2d
from gpucnn.ops.registry import KernelTable
from gpucnn.problem import Conv2dProblem, conv2d_problem
from gpucnn.reference import conv2d as reference
from gpucnn.testing import ConvCase, assert_close, assert_equal, conv_cases, gradcheck, naive

CASES = [
    *conv_cases(SEED, 48, max_taps=1024, max_products=400_000),
    ConvCase(2, 5, 6, 7, 4, 2, 2, padding=(1, 1)),
    ConvCase(2, 3, 7, 9, 7, 4, 2, padding=(3, 1)),  # flipped with K > C, even taps
    ConvCase(3, 2, 9, 9, 4, 3, 3, padding=(2, 2), dilation=(2, 2), groups=2),  # depthwise, multiplier 2, dilation
    ConvCase(1, 3, 12, 12, 6, 2, 2, stride=(4, 3), groups=3),  # depthwise, stride beyond the kernel
    ConvCase(20, 1, 6, 6, 3, 3, 3),  # more tiles than lanes
    ConvCase(3, 5, 6, 7, 4, 1, 1),
    ConvCase(1, 3, 2, 9, 70, 1, 1),
    ConvCase(2, 1, 5, 1, 1, 1, 1, bias=False),
    ConvCase(7, 2, 8, 8, 3, 1, 1),
    ConvCase(2, 3, 6, 7, 5, 1, 1, stride=(2, 3), padding=(1, 0)),
    ConvCase(3, 11, 13, 11, 3, 3, 3, padding=(1, 1)),  # weight gradient by rows of taps
    ConvCase(2, 17, 16, 12, 4, 4, 2, padding=(2, 1), dilation=(2, 3)),
    ConvCase(2, 24, 14, 13, 12, 3, 3, padding=(1, 1), groups=2),
    ConvCase(2, 24, 5, 6, 24, 3, 3, padding=(1, 1), groups=12),  # groups joined, to more than one
    ConvCase(2, 10, 7, 6, 15, 2, 3, stride=(2, 1), groups=5),
    ConvCase(2, 4, 9, 8, 3, 3, 2, stride=(4, 3), padding=(1, 1), dilation=(2, 3)),  # strides that share a factor
    ConvCase(1, 3, 2, 3, 4, 3, 3, stride=(5, 2), padding=(3, 3)),  # rows of the input that no window reads
    ConvCase(1, 4, 12, 5, 4, 2, 2, stride=(3, 3), padding=(0, 2)),
    ConvCase(2, 3, 31, 7, 3, 5, 3, padding=(2, 1), groups=3),  # depthwise in bands
]
TABLES = {"y": conv2d.fprop, "dx": conv2d.dgrad, "dw": conv2d.wgrad, "db": conv2d.bgrad}

pytestmark = pytest.mark.usefixtures("poison")


class Truth(NamedTuple):
    """Inputs and results of one case in float64, logical order."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray
    dy: np.ndarray
    y: np.ndarray
    dx: np.ndarray
    dw: np.ndarray
    db: np.ndarray


@functools.cache
def truth(case: ConvCase, kind: str) -> Truth:
    x, w, b = draw(kind, case.x_shape), draw(kind, case.weight_shape, 1), draw(kind, (case.K,), 2)
    dy = draw(kind, case.y_shape, 3)
    return Truth(
        *(x, w, b, dy),
        naive.conv2d(x, w, b if case.bias else None, **case.arguments),
        naive.conv2d_input_grad(dy, w, case.x_shape, **case.arguments),
        naive.conv2d_weight_grad(dy, x, case.weight_shape, **case.arguments),
        naive.conv2d_bias_grad(dy),
    )


def problem_of(case: ConvCase) -> Conv2dProblem:
    return conv2d_problem(case.x_shape, case.weight_shape, case.stride, case.padding, case.dilation, case.groups)


def check_kernels(case: ConvCase, dtype: str, kind: str, passes: tuple[str, ...] = tuple(TABLES)) -> None:
    """Every kernel of the passes on one case: results in the layout of the ops, elementwise right."""
    __tracebackhide__ = True
    t, p = truth(case, kind), problem_of(case)
    x, w, dy = nhwc(t.x, dtype), nhwc(t.w, dtype), nhwc(t.dy, dtype)
    bias = frozen(t.b, dtype) if case.bias else None
    positions = p.N * p.P * p.Q
    plans: dict[str, tuple[tuple[Any, ...], int]] = {
        "y": ((x, w, bias), case.terms + 1),
        "dx": ((dy, w), case.K // case.groups * case.R * case.S),
        "dw": ((x, dy), positions),
        "db": ((dy,), positions),
    }
    for result in passes:
        arrays, terms = plans[result]
        for name, found in each_kernel(TABLES[result], p, *arrays):
            assert found.flags.c_contiguous, name
            assert found.dtype == dtype, name
            logical = found.transpose(NCHW) if found.ndim == 4 else found
            compare(logical, getattr(t, result), terms, f"{name} {dtype}", exact=kind == "integers")


@pytest.fixture
def parts(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small blocks, products are cut into small parts too."""
    if block_bytes < 1 << 20:
        for name, value in (("products._UNPACKED", 500), ("products._SUMMED_ROWS", 8), ("products._FEWEST_ROWS", 2)):
            monkeypatch.setattr(f"gpucnn.reference.{name}", value)
        for name in ("parallel._PIECE_OPERATIONS", "parallel._PIECE_SIDE", "windows._FEW_WINDOWS"):
            monkeypatch.setattr(f"gpucnn.reference.{name}", 9)
        for name in ("conv2d._FEWEST_FILTERS", "conv2d._LONG_RUN", "conv2d._LONG_SUM", "depthwise._WIDE"):
            monkeypatch.setattr(f"gpucnn.reference.{name}", 3)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_are_exact_on_small_integers(case: ConvCase, dtype: str, parts: None) -> None:
    check_kernels(case, dtype, "integers")


@pytest.mark.parametrize("case", CASES[::3], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_relu_in_the_kernels_is_relu_after_them(case: ConvCase, dtype: str) -> None:
    t, p = truth(case, "normal"), problem_of(case)
    arrays = nhwc(t.x, dtype), nhwc(t.w, dtype), frozen(t.b, dtype) if case.bias else None
    after = [np.maximum(y, 0) for _, y in each_kernel(conv2d.fprop, p, *arrays)]
    for (name, found), expected in zip(each_kernel(conv2d.fprop, p, *arrays, True), after, strict=True):
        assert_equal(found, expected, signed_zeros=False, name=name)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1, "groups": 4}])
def test_conv2d_relu_is_relu_of_conv2d(options: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [draw("integers", shape, n).astype("f4") for n, shape in enumerate([(2, 4, 6, 5), (8, 4, 3, 3), (8,)])]
    arrays[1] = arrays[1][:, : 4 // options.get("groups", 1)]
    found = []
    for run in (lambda *a: F.relu(F.conv2d(*a, **options)), lambda *a: F.conv2d_relu(*a, **options)):
        leaves = [gpucnn.tensor(array, requires_grad=True) for array in arrays]
        y = run(*leaves)
        y.backward(gpucnn.tensor(draw("integers", y.shape, 9).astype("f4")))
        found.append([y, *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*found, strict=True):
        assert_equal(ours, theirs, signed_zeros=False)
    assert F.conv2d_relu(gpucnn.tensor(arrays[0][0]), leaves[1], **options).shape == y.shape[1:]
    with pytest.raises(TypeError, match="conv2d_relu: "):
        F.conv2d_relu(arrays[0], leaves[1])


def test_conv2d_relu_keeps_nan_and_its_gradient_is_a_central_difference() -> None:
    w = gpucnn.tensor(draw("normal", (3, 2, 2, 2), 1), requires_grad=True)
    bias = gpucnn.tensor(draw("normal", (3,), 2), requires_grad=True)
    x = gpucnn.tensor(draw("normal", (1, 2, 4, 4)), requires_grad=True)
    assert gradcheck(F.conv2d_relu, [x, w, bias])
    broken = x.detach().numpy().copy()
    broken[0, 0, 0, 0] = math.nan
    assert np.isnan(F.conv2d_relu(gpucnn.tensor(broken), w).numpy()[0, :, 0, 0]).all()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_kernels_round_no_more_than_they_must(case: ConvCase, dtype: str, parts: None) -> None:
    check_kernels(case, dtype, "normal")


def test_the_cases_reach_every_kernel() -> None:
    """And every kernel is one of those that these tests were written for."""
    assert [names(table) for table in TABLES.values()] == [
        ["pointwise", "depthwise", "im2col"],
        ["pointwise", "depthwise", "taps", "im2col"],
        ["depthwise", "im2col", "taps"],
        ["rows"],
    ]
    for table in TABLES.values():
        for spec in table.specs("reference"):
            reached = [case for case in CASES if spec.supports(problem_of(case)) is None]
            assert len(reached) >= 4, f"{table} {spec.name}"


def test_long_sums_keep_their_digits() -> None:
    """50,000 equal addends of one sign: where rounding errors of a running sum all point one way."""
    case = ConvCase(50, 2, 1000, 1, 2, 1, 1, groups=2)
    p = problem_of(case)
    x, dy = np.full((p.N, p.H, p.W, 2), 0.1, np.float32), np.full((p.N, p.P, p.Q, 2), 0.7, np.float32)
    for name, db in each_kernel(conv2d.bgrad, p, dy):
        compare(db, np.full(2, 50_000 * float(np.float32(0.7))), 50_000, name)
    for name, dw in each_kernel(conv2d.wgrad, p, x, dy):
        compare(dw, np.full((2, 1, 1, 1), 50_000 * float(np.float32(0.1)) * float(np.float32(0.7))), 50_000, name)


@pytest.mark.parametrize("rows", [50_000, 50_021])
@pytest.mark.parametrize(("C", "K"), [(1, 1), (2, 3), (8, 16), (33, 40)])
def test_long_sums_of_any_length_keep_their_digits(C: int, K: int, rows: int) -> None:
    """50,021 is a prime: no equal parts."""
    p = conv2d_problem((1, C, rows, 1), (K, C, 1, 1), 1, 0, 1, 1)
    x, dy = np.full((1, rows, 1, C), 0.1, np.float32), np.full((1, rows, 1, K), 0.7, np.float32)
    for name, dw in each_kernel(conv2d.wgrad, p, x, dy):
        compare(dw, np.full((K, 1, 1, C), rows * float(np.float32(0.1)) * float(np.float32(0.7))), rows, name)


@pytest.mark.parametrize("groups", [1, 8])
def test_half_precision_is_added_up_in_float32(groups: int) -> None:
    """The sum before the bias, 76,800, is no float16, the result is; and overflow warns of nothing."""
    shapes = ((1, 8, 60, 5 * groups), (8, 8 // groups, 60, 5 * groups), (8,))
    x, w, b = (gpucnn.tensor(np.full(s, v), "float16") for s, v in zip(shapes, (8, 4, -65504), strict=True))
    assert_equal(F.conv2d(x, w, b, groups=groups), np.full((1, 8, 1, 1), 2400 * 32 - 65504, np.float16))
    assert_equal(F.conv2d(x, w, groups=groups), np.full((1, 8, 1, 1), math.inf, np.float16))


# ------------------------------------------------------------------------------------------------ against PyTorch


def run_both(torch: Any, case: ConvCase, dtype: str, **changes: Any) -> list[tuple[str, Any, Any]]:
    """(name, ours, PyTorch's) for the output and all gradients of one F.conv2d."""
    t = truth(case, "normal")
    arrays = [t.x, t.w] + [t.b] * case.bias
    arguments = case.arguments | changes
    ours = [gpucnn.tensor(a, dtype, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, dtype=getattr(torch, dtype), requires_grad=True) for a in arrays]
    y, expected = F.conv2d(*ours, **arguments), torch.nn.functional.conv2d(*theirs, **arguments)
    dy = draw("normal", y.shape, 3)
    y.backward(gpucnn.tensor(dy, dtype))
    expected.backward(torch.tensor(dy, dtype=expected.dtype))
    pairs = [("y", y, expected.detach())]
    return pairs + [(n, a.grad, b.grad) for n, a, b in zip(("dx", "dw", "db"), ours, theirs, strict=False)]


@pytest.mark.peers
@pytest.mark.parametrize("case", [c for c in CASES if c.N], ids=str)
def test_values_and_gradients_are_pytorchs(case: ConvCase, torch: Any) -> None:
    for name, found, expected in run_both(torch, case, "float64"):
        assert_close(found, expected, rtol=1e-12, atol=1e-11, dtype="float64", name=name)


@pytest.mark.peers
@pytest.mark.parametrize("case", [c for c in CASES if c.N][:18], ids=str)
def test_values_and_gradients_are_pytorchs_in_float32(case: ConvCase, torch: Any) -> None:
    p = problem_of(case)
    terms = {"y": case.terms, "dx": case.K * case.R * case.S, "dw": p.N * p.P * p.Q, "db": p.N * p.P * p.Q}
    for name, found, expected in run_both(torch, case, "float32"):
        assert found.dtype == np.float32
        compare(found, expected.numpy().astype(np.float64), terms[name], name)


@pytest.mark.peers
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 2), (4, 1), (2, 5)], ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_named_paddings_are_pytorchs(padding: str, kernel: tuple[int, int], dilation: Any, torch: Any) -> None:
    case = ConvCase(2, 4, 9, 13, 6, *kernel, groups=2)
    for name, found, expected in run_both(torch, case, "float64", padding=padding, dilation=dilation):
        assert_close(found, expected, rtol=1e-12, atol=1e-12, name=name)
    if padding == "same":
        assert F.conv2d(gpucnn.zeros(1, 4, 9, 13), gpucnn.zeros(6, 2, *kernel), None, 1, "same", dilation, 2).shape == (
            *(1, 6, 9, 13),
        )


@pytest.mark.peers
def test_nan_and_infinity_spread_as_in_pytorch(torch: Any) -> None:
    """And no warning tells of them (warnings are errors here)."""
    x = draw("normal", (2, 3, 6, 6))
    x[0, 1, 2, 2], x[1, 0, 0, 0], x[1, 2, 5, 5] = math.nan, math.inf, -math.inf
    w = draw("normal", (4, 3, 3, 3))
    w[0, 0, 0, 0], w[1] = 0.0, 0.0
    dy = draw("normal", (2, 4, 6, 6))
    dy[0, 0, 1, 1], dy[1, 3, 0, 0] = math.inf, math.nan
    ours = [gpucnn.tensor(a, requires_grad=True) for a in (x, w)]
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, w)]
    y, expected = F.conv2d(*ours, padding=1), torch.nn.functional.conv2d(*theirs, padding=1)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    close = functools.partial(assert_close, rtol=1e-12, atol=1e-12, equal_nan=True)
    close(y, expected.detach(), name="y")
    for a, b in zip(ours, theirs, strict=True):
        close(a.grad, b.grad)


# --------------------------------------------------------------------------------------- gradients, layouts, corners


@pytest.mark.parametrize(
    "case",
    [
        ConvCase(2, 3, 5, 6, 4, 3, 2, padding=(1, 1)),
        ConvCase(2, 2, 7, 5, 4, 2, 3, stride=(2, 1), padding=(0, 2), dilation=(1, 2), groups=2),
        ConvCase(1, 4, 5, 5, 6, 3, 3, groups=2),
    ],
    ids=str,
)
def test_gradients_are_central_differences(case: ConvCase) -> None:
    t = truth(case, "normal")
    assert gradcheck(
        lambda *a: F.conv2d(*a, **case.arguments), [gpucnn.tensor(a, requires_grad=True) for a in (t.x, t.w, t.b)]
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["x", "w", "b", "dy"])
def test_any_memory_layout_is_taken(operand: str, layout: str) -> None:
    case = ConvCase(2, 4, 7, 6, 6, 3, 2, stride=(2, 1), padding=(1, 0), groups=2)
    t = truth(case, "integers")
    arrays = {name: getattr(t, name).astype(np.float32) for name in ("x", "w", "b", "dy")}
    arrays[operand] = LAYOUTS[layout](arrays[operand])
    leaves = [gpucnn.Tensor(arrays[name], requires_grad=True) for name in ("x", "w", "b")]
    y = F.conv2d(*leaves, **case.arguments)
    y.backward(arrays["dy"])
    for name, found in zip(("y", "dx", "dw", "db"), (y, *[leaf.grad for leaf in leaves]), strict=True):
        assert_equal(found, getattr(t, name), dtype="float32", signed_zeros=False, name=name)


def test_an_unbatched_image_is_a_batch_of_one() -> None:
    t = truth(CASES[2], "integers")
    x, w = gpucnn.tensor(t.x[0], requires_grad=True), gpucnn.tensor(t.w)
    y = F.conv2d(x, w, **CASES[2].arguments)
    y.backward(t.dy[0])
    assert y.shape == t.dy.shape[1:]
    assert_equal(y, (t.y - t.b[:, None, None])[0], signed_zeros=False)
    assert_equal(x.grad, t.dx[0], signed_zeros=False)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_an_empty_batch_has_empty_results_and_zero_weight_gradients(groups: int) -> None:
    leaves = [gpucnn.zeros(*s, requires_grad=True) for s in ((0, 4, 6, 5), (4, 4 // groups, 3, 2), (4,))]
    y = F.conv2d(*leaves, stride=2, groups=groups)
    assert (y.shape, y.dtype) == ((0, 4, 2, 2), np.float32)
    y.backward(np.zeros(y.shape, np.float32))
    for leaf in leaves:
        assert leaf.grad is not None
        assert_equal(leaf.grad, np.zeros(leaf.shape, np.float32))


def test_only_the_gradients_that_are_needed_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("computed for nobody")

    w = gpucnn.ones(2, 1, 3, 3, requires_grad=True)
    y = F.conv2d(gpucnn.ones(1, 1, 4, 4), w)
    for table in (conv2d.dgrad, conv2d.bgrad):
        plant(monkeypatch, table, never)
    y.backward(np.ones(y.shape, np.float32))
    assert_equal(w.grad, np.full((2, 1, 3, 3), 4, np.float32))


def test_a_chain_in_channels_last_copies_nothing() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 12, 12)), "float32", requires_grad=True)
    w1, w2 = (gpucnn.tensor(draw("normal", s), "float32", requires_grad=True) for s in ((5, 3, 3, 3), (4, 5, 3, 3)))
    with backend.count_layout_copies() as copies:
        y = F.conv2d(F.max_pool2d(F.relu(F.conv2d(x, w1, padding=1)), 2), w2)
        y.backward(gpucnn.tensor(draw("normal", y.shape), "float32"))
    assert copies.value == 0
    assert all(t.grad.data.transpose(NHWC).flags.c_contiguous for t in (x, w1, w2))


def test_lenet5_copies_where_it_flattens() -> None:
    """Twice a step: flatten reads (N,16,5,5) in the order C,H,W out of H,W,C, and its gradient goes the way back."""
    from gpucnn.models import lenet5

    model, x = lenet5(), gpucnn.tensor(draw("normal", (3, 1, 28, 28)), "float32")
    with backend.count_layout_copies() as copies:
        loss = F.cross_entropy(model(x), [1, 2, 3])
        assert copies.value == 1
        loss.backward()
    assert copies.value == 2


def test_a_kernel_is_forced_by_name() -> None:
    x, w = gpucnn.ones(1, 2, 4, 4), gpucnn.ones(2, 1, 3, 3)
    assert_equal(F.conv2d(x, w, groups=2, kernel="im2col"), F.conv2d(x, w, groups=2, kernel="depthwise").numpy())
    with pytest.raises(
        ValueError, match=r"conv2d fprop: no kernel 'im2co' on backend 'reference'.*did you mean 'im2col'"
    ):
        F.conv2d(x, w, groups=2, kernel="im2co")
    with pytest.raises(
        ValueError, match="kernel 'depthwise' can't run this: needs groups=C of 2 or more, got groups=1"
    ):
        F.conv2d(x, gpucnn.ones(2, 2, 3, 3), kernel="depthwise")


# ----------------------------------------------------------------------------------- wrong kernels must be caught


def off_by_one_padding(p: Conv2dProblem, x: np.ndarray, w: np.ndarray, bias: Any) -> np.ndarray:
    return reference.fprop_im2col(p, np.roll(x, 1, axis=1), w, bias)


def last_channel_missing(p: Conv2dProblem, x: np.ndarray, w: np.ndarray, bias: Any) -> np.ndarray:
    return reference.fprop_im2col(p, x, np.concatenate([w[..., :-1], 0 * w[..., -1:]], -1), bias)


def rounded_to_tf32(p: Conv2dProblem, x: np.ndarray, w: np.ndarray, bias: Any) -> np.ndarray:
    return reference.fprop_im2col(p, (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) * 1.0001, w, bias)


def last_row_unwritten(p: Conv2dProblem, x: np.ndarray, w: np.ndarray, bias: Any) -> np.ndarray:
    y = reference.fprop_im2col(p, x, w, bias)
    y[:, -1] = np.nan
    return y


def filters_not_turned(p: Conv2dProblem, dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    return reference.dgrad_im2col(p, dy, np.ascontiguousarray(w[:, ::-1, ::-1]))


def one_lane_unsummed(p: Conv2dProblem, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    return reference.wgrad_im2col(p, x, np.concatenate([dy[:-1], 0 * dy[-1:]]))


def one_image_unsummed(p: Conv2dProblem, dy: np.ndarray) -> np.ndarray:
    return reference.bgrad(p, dy[1:])


@pytest.mark.parametrize(
    ("result", "wrong", "kind"),
    [
        ("y", off_by_one_padding, "integers"),
        ("y", last_channel_missing, "integers"),
        ("y", rounded_to_tf32, "normal"),
        ("y", last_row_unwritten, "normal"),
        ("dx", filters_not_turned, "integers"),
        ("dw", one_lane_unsummed, "normal"),
        ("db", one_image_unsummed, "normal"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_wrong_kernel_is_caught(result: str, wrong: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = ConvCase(3, 4, 8, 8, 5, 3, 3, padding=(1, 1))
    table: KernelTable = TABLES[result]
    check_kernels(case, "float32", kind, (result,))
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted float32: .* elements are wrong"):
        check_kernels(case, "float32", kind, (result,))
