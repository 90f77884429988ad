"""What a convolution does to its sums before it stores them: scale, shift, residual, ReLU, moments for a batch norm."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from epilogue_checks import CASES, problem_of, truth_of
from op_checks import LAYOUTS, NCHW, compare, draw, each_kernel, frozen, nhwc, plant

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops import conv2d, epilogue, norm
from gpucnn.problem import EPILOGUES
from gpucnn.reference import conv2d as reference
from gpucnn.reference.epilogue import with_epilogue
from gpucnn.reference.norm_problem import Moments
from gpucnn.testing import ConvCase, assert_close, assert_equal, gradcheck, naive, tolerance

WISHES = [wish for n in range(1, 4) for wish in itertools.combinations(EPILOGUES, n)]
DTYPES = ("float32", "float16", "bfloat16", "float64")

pytestmark = pytest.mark.usefixtures("poison")


def check_kernels(
    case: ConvCase, wish: tuple[str, ...], dtype: str, kind: str, relu: bool, precision: str = "highest"
) -> list[str]:
    """Every kernel that does the epilogue on one case, and its name: y, rounded once, and the moments of y."""
    __tracebackhide__ = True
    t, p = truth_of(case, kind), replace(problem_of(case), epilogue=wish, precision=precision)
    given = t.given(wish)
    wide = np.float64 if dtype == "float64" else np.float32
    arrays = (
        *(nhwc(t.x, dtype), nhwc(t.w, dtype), None if t.bias is None else frozen(t.bias, dtype), relu),
        *(frozen(given[name], wide) if name in given else None for name in ("scale", "shift")),
        nhwc(t.residual, dtype) if "residual" in given else None,
    )
    expected = naive.conv2d_epilogue(t.sums, **given, relu=relu)
    found = []
    for name, result in each_kernel(conv2d.fprop, p, *arrays):
        y, moments = result if "moments" in wish else (result, None)
        assert y.dtype == dtype, name
        stored = expected.astype(dtype).astype(np.float64) if kind == "integers" else expected
        compare(y.transpose(NCHW), stored, case.terms + 3, f"{name} {dtype} {wish}", exact=kind == "integers")
        if moments is not None:
            check_moments(moments, y, name)
        found.append(name)
    return found


def check_moments(moments: Moments, y: np.ndarray, name: str) -> None:
    """Of y as it is stored; but the reference's are of bfloat16 before it is rounded."""
    __tracebackhide__ = True
    truth = naive.conv2d_moments(y.astype(np.float64).transpose(NCHW), moments.rows)
    lines = moments.partial[:-1].astype(np.float64)
    lines[::2] += moments.partial[-1]
    assert moments.splits == -(-y.size // y.shape[-1] // moments.rows), name
    size, count = float(np.abs(y.astype(np.float64)).max()), min(moments.rows, y.size // y.shape[-1])
    allowed = 2.0**-8 if y.dtype.kind == "V" else tolerance(np.float32, count)
    assert_close(lines[::2], truth[::2], rtol=allowed, atol=allowed * size, name=f"{name}: means")
    assert_close(lines[1::2], truth[1::2], rtol=4 * allowed, atol=allowed * count * size**2, name=f"{name}: squares")


@pytest.mark.parametrize("wish", WISHES, ids="+".join)
def test_kernels_are_exact_on_small_integers(wish: tuple[str, ...]) -> None:
    for number, (case, dtype) in enumerate(itertools.product(CASES, DTYPES)):
        check_kernels(case, wish, dtype, "integers", relu=number % 3 == 1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_round_once(case: ConvCase) -> None:
    for number, (wish, dtype) in enumerate(itertools.product(WISHES, DTYPES)):
        check_kernels(case, wish, dtype, "normal", relu=number % 2 == 1)


def test_the_cases_reach_every_kernel_that_does_it() -> None:
    """Also those of TF32, which lose nothing of small integers; where sums are cut no moments are taken."""
    expected = {"pointwise", "depthwise", "im2col"}
    if backend.unavailable("simt") is None:
        names = {"tensor_core", "tf32", "split_bf16"}
        expected |= names | {f"{name}_cut" for name in names}
    reached = set()
    for wish, precision in itertools.product((EPILOGUES, EPILOGUES[:2]), ("high", "highest")):
        for case, dtype in itertools.product(CASES, ("float32", "float16")):
            found = check_kernels(case, wish, dtype, "integers", True, precision)
            assert "moments" not in wish or not any(name.endswith("_cut") for name in found)
            reached |= {name.removeprefix("conv2d fprop ") for name in found}
    assert reached == expected


def test_a_sum_that_16_bits_do_not_hold_is_not_rounded_before_the_epilogue() -> None:
    """2049 is no float16, twice it is: (2049 * 2 - 4000) = 98."""
    x, w = (
        gpucnn.tensor(np.full((1, 1, 1, 1), 2049 / 3), "float16"),
        gpucnn.tensor(np.full((1, 1, 1, 1), 3.0), "float16"),
    )
    scale, shift = gpucnn.tensor([2.0]), gpucnn.tensor([0.0])
    residual = gpucnn.tensor(np.full((1, 1, 1, 1), -4000.0), "float16")
    assert F.conv2d(x, w, scale=scale, shift=shift, residual=residual).item() == 98.0


# ------------------------------------------------------------------------------------------------------ functions


@pytest.mark.parametrize("name", ["reference", "simt"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("wish", [wish for wish in WISHES if "moments" not in wish], ids="+".join)
def test_functions_are_right_whoever_does_the_epilogue(wish: tuple[str, ...], dtype: str, name: str) -> None:
    """Kernels that do it, and such as take another pass for it: both after what was stored is rounded."""
    if reason := backend.unavailable(name):
        pytest.skip(reason)
    for number, case in enumerate(CASES):
        t, function = truth_of(case, "normal"), (F.conv2d_relu, F.conv2d)[number % 2]
        given = {
            key: gpucnn.tensor(value, dtype if key == "residual" or number % 3 == 2 else "float32")
            for key, value in t.given(wish).items()
        }
        inputs = [None if array is None else gpucnn.tensor(array, dtype) for array in (t.x, t.w, t.bias)]
        with backend.use_backend(name, strict=True):
            y = function(*inputs, **case.arguments, **given)
        expected = naive.conv2d_epilogue(t.sums, **t.given(wish), relu=function is F.conv2d_relu)
        sums = naive.conv2d_epilogue(t.sums, **{k: v for k, v in t.given(wish).items() if k == "scale"})
        allowed = 2 * tolerance(y.dtype, case.terms + 3)
        assert_close(y, expected, rtol=allowed, atol=allowed * (1 + float(np.abs(sums).max())), name=f"{case}")


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_those_of_one_op_after_the_other(relu: bool, layout: str) -> None:
    case = CASES[0]
    t = truth_of(case, "integers")
    scale, shift = gpucnn.tensor(t.scale, "float32"), gpucnn.tensor(t.shift, "float32")
    found = []
    for fused in (True, False):
        leaves = [
            gpucnn.Tensor(LAYOUTS[layout](array.astype(np.float32)), requires_grad=True)
            for array in (t.x, t.w, t.bias, t.residual)
        ]
        x, w, b, residual = leaves
        if fused:
            y = (F.conv2d_relu if relu else F.conv2d)(
                *(x, w, b), **case.arguments, scale=scale, shift=shift, residual=residual
            )
        else:
            y = F.conv2d(x, w, b, **case.arguments)
            y = y * scale.reshape(-1, 1, 1) + shift.reshape(-1, 1, 1) + residual
            y = F.relu(y) if relu else y
        y.backward(draw("integers", y.shape, 9).astype(np.float32))
        found.append([y, *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*found, strict=True):
        assert_equal(ours, theirs, signed_zeros=False)


@pytest.mark.parametrize("function", [F.conv2d, F.conv2d_relu])
@pytest.mark.parametrize("given", [("residual",), ("scale", "shift"), ("scale", "shift", "residual")], ids="+".join)
def test_gradients_are_central_differences(function: Callable[..., Any], given: tuple[str, ...]) -> None:
    t = truth_of(CASES[4], "normal")
    constants = {name: gpucnn.tensor(getattr(t, name)) for name in given if name != "residual"}
    inputs = [gpucnn.tensor(array, requires_grad=True) for array in (t.x, t.w, t.bias)]
    inputs += [gpucnn.tensor(t.residual, requires_grad=True)] if "residual" in given else []

    def run(x: Any, w: Any, b: Any, residual: Any = None) -> Any:
        return function(x, w, b, **CASES[4].arguments, **constants, residual=residual)

    assert gradcheck(run, inputs)


@pytest.mark.peers
def test_a_residual_and_its_gradient_are_pytorchs(torch: Any) -> None:
    for case in CASES:
        t = truth_of(case, "normal")
        arrays = [array for array in (t.x, t.w, t.residual, t.bias) if array is not None]
        ours = [gpucnn.tensor(array, requires_grad=True) for array in arrays]
        theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
        y = F.conv2d_relu(ours[0], ours[1], *ours[3:], **case.arguments, residual=ours[2])
        expected = torch.nn.functional.conv2d(theirs[0], theirs[1], *theirs[3:], **case.arguments) + theirs[2]
        expected = torch.relu(expected)
        dy = draw("normal", y.shape, 9)
        y.backward(dy)
        expected.backward(torch.tensor(dy))
        close = functools.partial(assert_close, rtol=1e-12, atol=1e-11)
        close(y, expected.detach())
        for a, b in zip(ours, theirs, strict=True):
            close(a.grad, b.grad)


def test_an_unbatched_image_takes_an_unbatched_residual() -> None:
    t, case = truth_of(CASES[0], "integers"), CASES[0]
    x, w, residual = gpucnn.tensor(t.x[0]), gpucnn.tensor(t.w), gpucnn.tensor(t.residual[0], requires_grad=True)
    y = F.conv2d(x, w, **case.arguments, residual=residual)
    y.backward(np.ones(y.shape))
    assert y.shape == residual.shape
    whole = F.conv2d(gpucnn.tensor(t.x), w, **case.arguments, residual=gpucnn.tensor(t.residual))
    assert_equal(y, whole[0])
    assert_equal(residual.grad, np.ones(y.shape))


def test_an_empty_batch_has_an_empty_result_and_no_moments() -> None:
    w, scale = gpucnn.ones(4, 3, 3, 3), gpucnn.ones(4)
    residual = gpucnn.zeros(0, 4, 3, 3, requires_grad=True)
    for name in ("reference", "simt"):
        if backend.unavailable(name) is None:
            with backend.use_backend(name, strict=True):
                y = F.conv2d_relu(gpucnn.zeros(0, 3, 5, 5), w, scale=scale, shift=scale, residual=residual)
                assert F.conv2d(gpucnn.zeros(0, 3, 5, 5), w, return_moments=True)[1] is None
            y.backward(np.zeros(y.shape, np.float32))
            assert y.shape == residual.grad.shape == (0, 4, 3, 3)


def test_the_residual_and_what_comes_of_it_share_no_memory_that_is_written() -> None:
    x, w = gpucnn.ones(1, 2, 4, 4), gpucnn.ones(2, 2, 1, 1)
    residual = gpucnn.tensor(draw("integers", (1, 2, 4, 4)), "float32", requires_grad=True)
    before = residual.numpy().copy()
    dy = np.ones((1, 2, 4, 4), np.float32)
    y = F.conv2d(x, w, residual=residual)
    y.backward(dy, retain_graph=True)
    y.backward(dy)
    assert_equal(residual, before)
    assert_equal(residual.grad, 2 * dy)
    assert (dy == 1).all()


# ----------------------------------------------------------------------------------------------- who does it


def test_where_the_fast_kernel_does_it_not_another_pass_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """No slow kernel is taken because it could: here the reference's second one."""
    ran: list[str] = []

    def noted(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *a, **options: (ran.append(name), run(*a, **options))[1]

    fast, slow = noted("fast", reference.fprop_im2col), noted("slow", with_epilogue(reference.fprop_im2col))
    plant(monkeypatch, conv2d.fprop, fast)
    specs = conv2d.fprop._by_backend["reference"]
    specs[0] = replace(specs[0], name="fast", supports=epilogue.bias_and_relu_alone())
    specs.append(replace(specs[0], name="slow", run=slow, supports=lambda p: None))
    monkeypatch.setattr(epilogue.norm, "fprop", noted("pass", norm.fprop))
    t, case = truth_of(CASES[0], "integers"), CASES[0]
    x, w, residual = (gpucnn.tensor(array, "float32") for array in (t.x, t.w, t.residual))
    expected = naive.conv2d_epilogue(t.sums - t.bias[:, None, None], residual=t.residual, relu=True)
    assert_equal(F.conv2d_relu(x, w, **case.arguments, residual=residual), expected.astype("f4"), signed_zeros=False)
    assert ran == ["fast", "pass"]
    assert_equal(
        F.conv2d_relu(x, w, **case.arguments, residual=residual, kernel="slow"),
        expected.astype("f4"),
        signed_zeros=False,
    )
    assert ran == ["fast", "pass", "slow"]
    assert F.conv2d(x, w, return_moments=True)[1] is None
    assert F.conv2d(x, w, return_moments=True, kernel="slow")[1] is not None
    assert ran[3:] == ["fast", "slow"]
    with pytest.raises(ValueError, match="kernel 'fast' can't run this: adds no residual to its sums"):
        F.conv2d(x, w, **case.arguments, residual=residual, kernel="fast")


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ({"residual": (2, 8, 5, 5)}, "adds no residual to its sums"),
        ({"scale": (8,), "shift": (8,)}, "multiplies its sums by no scale"),
        ({"return_moments": True}, "takes no moments of its output"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_explain_says_what_a_kernel_does_not_do(wish: dict[str, Any], reason: str, capsys: Any) -> None:
    call: dict[str, Any] = {"input": (2, 3, 5, 5), "weight": (8, 3, 3, 3), "padding": 1, "backend": "simt", **wish}
    question = gpucnn.explain("conv2d", **call, backward=False).passes[0]
    assert next(c.why for c in question.candidates["simt"] if c.runs).endswith(
        f"another pass does the rest, for it {reason}"
    )
    refused = gpucnn.explain("conv2d", **call, kernel="direct", backward=False).passes[0]
    why = next(c.why for c in refused.candidates["simt"] if c.kernel == "direct")
    assert (why, refused.instead) == (f"can't: {reason}", {"simt": "kernel='direct' raises"})


def test_a_kernel_that_is_asked_for_and_can_not_says_why() -> None:
    if reason := backend.unavailable("simt"):
        pytest.skip(reason)
    x, w = gpucnn.ones(1, 3, 5, 5), gpucnn.ones(8, 3, 3, 3)
    with backend.use_backend("simt", strict=True):
        for kernel in ("stem", "implicit_gemm", "direct"):
            with pytest.raises(ValueError, match=f"kernel '{kernel}' can't run this: takes no moments of its output"):
                F.conv2d(x, w, return_moments=True, kernel=kernel)
        with pytest.raises(ValueError, match="kernel 'pointwise' can't run this: needs 1x1 filters"):
            F.conv2d(x, w, residual=gpucnn.ones(1, 8, 3, 3), kernel="pointwise")


# ---------------------------------------------------------------------------------------------------- refusals

X, W = gpucnn.ones(2, 3, 4, 4), gpucnn.ones(5, 3, 1, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"residual": gpucnn.ones(2, 5, 4, 3)}, ValueError, r"residual must have the result's shape \(2, 5, 4, 4\)"),
        ({"residual": gpucnn.ones(5, 4, 4)}, ValueError, r"residual must have .* got \(5, 4, 4\)"),
        (
            {"residual": gpucnn.ones(2, 5, 4, 4, dtype="float64")},
            TypeError,
            "input has dtype float32, but residual has",
        ),
        ({"residual": np.ones((2, 5, 4, 4))}, TypeError, "residual must be a gpucnn.Tensor, got ndarray"),
        ({"scale": gpucnn.ones(5)}, ValueError, "scale and shift go together"),
        ({"shift": gpucnn.ones(5)}, ValueError, "scale and shift go together"),
        ({"scale": gpucnn.ones(3), "shift": gpucnn.ones(5)}, ValueError, r"scale must have shape \(5,\)"),
        ({"scale": gpucnn.ones(5), "shift": gpucnn.ones(5, 1)}, ValueError, r"shift must have shape \(5,\)"),
        ({"scale": 2.0, "shift": 0.0}, TypeError, "scale must be a gpucnn.Tensor, got float"),
        (
            {"scale": gpucnn.ones(5, dtype="float16"), "shift": gpucnn.ones(5)},
            TypeError,
            "input has dtype float32, but scale has float16",
        ),
        (
            {"scale": gpucnn.ones(5, requires_grad=True), "shift": gpucnn.ones(5)},
            ValueError,
            "scale requires a gradient",
        ),
        (
            {"scale": gpucnn.ones(5), "shift": gpucnn.ones(5, requires_grad=True)},
            ValueError,
            "shift requires a gradient",
        ),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    for name in ("conv2d", "conv2d_relu"):
        with pytest.raises(error, match=f"{name}: .*{message}"):
            getattr(F, name)(X, W, **options)


# ------------------------------------------------------------------------------------------------ wrong kernels


WRONG: dict[str, Callable[..., Any]] = {
    "no residual": lambda *a: with_epilogue(reference.fprop_im2col)(*a[:7], np.zeros_like(a[7])),
    "no shift": lambda *a: with_epilogue(reference.fprop_im2col)(*a[:6], np.zeros_like(a[6]), *a[7:]),
    "a scale of the next channel": lambda *a: with_epilogue(reference.fprop_im2col)(*a[:5], np.roll(a[5], 1), *a[6:]),
    "ReLU before the residual": lambda p, x, w, b, relu, scale, shift, residual: (
        with_epilogue(reference.fprop_im2col)(p, x, w, b, True, scale, shift, 0 * residual)[0] + residual,
        Moments(np.zeros((3, p.K)), 84),
    ),
    "moments of other numbers": lambda *a: (
        (result := with_epilogue(reference.fprop_im2col)(*a))[0],
        Moments(result[1].partial * 1.01, result[1].rows),
    ),
    "squares unbiased": lambda *a: (
        (result := with_epilogue(reference.fprop_im2col)(*a))[0],
        Moments(result[1].partial * np.array([[1], [83 / 84], [1]]), result[1].rows),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_kernel_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_kernels(CASES[0], EPILOGUES, "float64", "normal", True)
    plant(monkeypatch, conv2d.fprop, WRONG[wrong])
    with pytest.raises(AssertionError, match="elements are wrong"):
        check_kernels(CASES[0], EPILOGUES, "float64", "normal", True)


def test_infinities_and_nan_pass() -> None:
    x, w = gpucnn.tensor([[[[1.0, math.nan, math.inf]]]]), gpucnn.ones(1, 1, 1, 1)
    y = F.conv2d_relu(x, w, residual=gpucnn.tensor([[[[-math.inf, 1.0, 1.0]]]]))
    assert_equal(y, np.array([[[[0.0, math.nan, math.inf]]]], np.float32))
