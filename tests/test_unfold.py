"""Unfold and fold: every kernel against the truth, F and nn against PyTorch, and what they are to convolution."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NCHW, SEED, compare, draw, each_kernel, frozen, named, names, nhwc, plant

import gpucnn
from gpucnn import backend, nn
from gpucnn import functional as F
from gpucnn.ops import unfold as ops
from gpucnn.problem import Pool2dProblem, unfold_problem
from gpucnn.reference import unfold as reference
from gpucnn.testing import assert_close, assert_equal, gradcheck, naive, pairwise

Pair = tuple[int, int]


@dataclass(frozen=True)
class Case:
    N: int
    C: int
    H: int
    W: int
    kernel_size: Pair
    dilation: Pair = (1, 1)
    padding: Pair = (0, 0)
    stride: Pair = (1, 1)

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.C, self.H, self.W

    @property
    def arguments(self) -> tuple[Pair, Pair, Pair, Pair]:
        return self.kernel_size, self.dilation, self.padding, self.stride

    @property
    def problem(self) -> Pool2dProblem:
        return unfold_problem("unfold", self.x_shape, *self.arguments)

    def __str__(self) -> str:
        named = zip(("k", "dil", "pad", "stride"), self.arguments, strict=True)
        return f"n{self.N}c{self.C}h{self.H}w{self.W}-" + "-".join(f"{name}{a}x{b}" for name, (a, b) in named)


CORNERS = [
    Case(1, 1, 1, 1, (1, 1)),
    Case(2, 3, 5, 6, (3, 2)),
    Case(2, 3, 5, 6, (5, 6)),  # one window
    Case(0, 2, 5, 6, (3, 3)),
    Case(2, 3, 8, 6, (4, 3), stride=(4, 3)),  # apart
    Case(1, 2, 9, 9, (2, 2), stride=(4, 3)),  # cells that no window sees
    Case(2, 2, 7, 5, (3, 3), (2, 1), (2, 1), (1, 2)),
    Case(1, 2, 2, 3, (3, 3), padding=(4, 4)),  # windows that see nothing
    Case(3, 33, 4, 3, (2, 3), padding=(0, 1)),
]
FACTORS = {
    "N": (1, 2, 3),
    "C": (1, 2, 7),
    "H": (1, 2, 5, 8, 9),
    "W": (1, 2, 5, 8, 9),
    "kernel_size": ((1, 1), (2, 2), (3, 3), (1, 4), (3, 2)),
    "dilation": ((1, 1), (2, 2), (1, 3)),
    "padding": ((0, 0), (1, 1), (2, 0), (3, 2)),
    "stride": ((1, 1), (2, 2), (3, 1)),
}


def fits(factors: dict[str, Any]) -> bool:
    try:
        return Case(**factors).problem is not None
    except ValueError:
        return False


CASES = CORNERS + [Case(**factors) for factors in pairwise(FACTORS, SEED, fits)]


@functools.cache
def truth(case: Case, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x and its columns; other columns and the image that they fold to."""
    x = draw(kind, case.x_shape)
    columns = naive.unfold(x, *case.arguments)
    others = draw(kind, columns.shape, 1)
    return x, columns, others, naive.fold(others, (case.H, case.W), *case.arguments)


def check_kernels(case: Case, dtype: str, kind: str) -> None:
    __tracebackhide__ = True
    x, columns, others, image = truth(case, kind)
    for name, found in each_kernel(ops.unfold, case.problem, nhwc(x, dtype)):
        assert found.flags.c_contiguous, name
        assert_equal(found, columns.astype(dtype), signed_zeros=False, name=name)
    for name, found in each_kernel(ops.fold, case.problem, frozen(others, dtype)):
        assert found.flags.c_contiguous, name
        assert found.dtype == dtype, name
        terms = case.kernel_size[0] * case.kernel_size[1]
        compare(found.transpose(NCHW), image, terms, f"{name} {dtype}", exact=kind == "integers")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_are_exact_on_small_integers(case: Case, dtype: str, block_bytes: int) -> None:
    check_kernels(case, dtype, "integers")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_kernels_round_no_more_than_they_must(case: Case, dtype: str) -> None:
    check_kernels(case, dtype, "normal")


def test_these_are_all_kernels() -> None:
    assert (names(ops.unfold), names(ops.fold)) == (["planes"], ["planes"])


def test_the_truth_by_hand() -> None:
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    assert np.array_equal(naive.unfold(x, 2)[0], [[0, 1], [1, 2], [3, 4], [4, 5]])
    assert np.array_equal(naive.unfold(x, (1, 2), 2, (0, 1), (1, 2))[0], [[0, 1, 0, 4], [1, 0, 4, 0]])
    assert np.array_equal(naive.fold(np.ones((1, 4, 2)), (2, 3), 2)[0, 0], [[1, 2, 1], [1, 2, 1]])


@pytest.mark.peers
@pytest.mark.parametrize("case", [c for c in CASES if c.N], ids=str)
def test_values_and_gradients_are_pytorchs(case: Case, torch: Any) -> None:
    x, columns, others, image = truth(case, "normal")
    there = torch.nn.functional
    for ours, theirs, given, cotangent in (
        (F.unfold, there.unfold, (x, *case.arguments), others),
        (F.fold, there.fold, (columns, (case.H, case.W), *case.arguments), image),
    ):
        a, b = gpucnn.tensor(given[0], requires_grad=True), torch.tensor(given[0], requires_grad=True)
        y, expected = ours(a, *given[1:]), theirs(b, *given[1:])
        y.backward(cotangent)
        expected.backward(torch.tensor(cotangent))
        assert_close(y, expected.detach(), rtol=1e-13, atol=1e-13, name=ours.__name__)
        assert_close(a.grad, b.grad, rtol=1e-13, atol=1e-13, name=f"gradient of {ours.__name__}")


@pytest.mark.peers
def test_what_pytorch_refuses_is_refused(torch: Any) -> None:
    rng = np.random.default_rng(SEED)
    done = refused = 0
    for _ in range(300):
        size, kernel, dilation, padding, stride = (
            tuple(rng.integers(low, high, 2).tolist()) for low, high in ((1, 6), (1, 4), (1, 3), (0, 2), (1, 3))
        )
        count, rows = int(rng.integers(1, 9)), int(rng.integers(1, 9))
        for name, shape, arguments in (
            ("unfold", (2, *size), (kernel, dilation, padding, stride)),
            ("fold", (rows, count), (size, kernel, dilation, padding, stride)),
        ):
            try:
                getattr(torch.nn.functional, name)(torch.zeros(shape), *arguments)
            except RuntimeError:
                refused += 1
                with pytest.raises(ValueError, match=name):
                    getattr(F, name)(gpucnn.zeros(shape), *arguments)
                continue
            done += 1
            assert getattr(F, name)(gpucnn.zeros(shape), *arguments).shape is not None
    assert done > 50
    assert refused > 50


# --------------------------------------------------------------------------------------- gradients, layouts, corners


@pytest.mark.parametrize("arguments", [((3, 2), 1, 1, 2), (2, (2, 1), (0, 1), (1, 2))], ids=str)
def test_gradients_are_central_differences(arguments: Any) -> None:
    x = draw("normal", (2, 2, 5, 4))
    columns = naive.unfold(x, *arguments)
    assert gradcheck(lambda a: F.unfold(a, *arguments), [gpucnn.tensor(x, requires_grad=True)])
    assert gradcheck(lambda a: F.fold(a, (5, 4), *arguments), [gpucnn.tensor(columns, requires_grad=True)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operand", ["input", "cotangent"])
def test_any_memory_layout_is_taken(layout: str, operand: str) -> None:
    case = Case(2, 3, 6, 5, (3, 2), (1, 2), (1, 0), (2, 1))
    x, columns, others, image = truth(case, "integers")
    for run, given, cotangent, result, gradient in (
        (lambda t: F.unfold(t, *case.arguments), x, others, columns, image),
        (lambda t: F.fold(t, (6, 5), *case.arguments), others, x, image, columns),
    ):
        if operand == "input":
            given = LAYOUTS[layout](given)
        else:
            cotangent = LAYOUTS[layout](cotangent)
        leaf = gpucnn.Tensor(given, requires_grad=True)
        y = run(leaf)
        y.backward(cotangent)
        assert_equal(y, result, signed_zeros=False)
        assert_equal(leaf.grad, gradient, signed_zeros=False)


def test_unbatched_inputs_are_batches_of_one() -> None:
    case = Case(1, 3, 6, 5, (3, 2), padding=(1, 1))
    x, columns, others, image = truth(case, "integers")
    assert_equal(F.unfold(gpucnn.tensor(x[0]), *case.arguments), columns[0], signed_zeros=False)
    assert_equal(F.fold(gpucnn.tensor(others[0]), (6, 5), *case.arguments), image[0], signed_zeros=False)


def test_a_convolution_is_filters_times_columns() -> None:
    x, w = gpucnn.tensor(draw("integers", (2, 3, 7, 6))), gpucnn.tensor(draw("integers", (4, 3, 3, 2)))
    columns = F.unfold(x, (3, 2), 1, 1, 2).numpy()
    expected = F.conv2d(x, w, None, 2, 1)
    assert_equal((w.numpy().reshape(4, -1) @ columns).reshape(expected.shape), expected.numpy(), signed_zeros=False)


def test_folding_counts_the_windows_that_see_a_cell() -> None:
    x = draw("integers", (2, 3, 7, 6))
    ones = F.fold(F.unfold(gpucnn.ones(1, 1, 7, 6, dtype="float64"), 3, 1, 1), (7, 6), 3, 1, 1)
    assert ones.numpy().max() == 9
    there_and_back = F.fold(F.unfold(gpucnn.tensor(x), 3, 1, 1), (7, 6), 3, 1, 1)
    assert_equal(there_and_back, x * ones.numpy(), signed_zeros=False)


def test_half_precision_is_added_up_in_float32() -> None:
    """What two of the middle cell's four windows have for it add up to more than a float16 holds, whoever begins."""
    columns = np.zeros((1, 4, 4), np.float16)
    columns[0, [0, 1, 2, 3], [3, 2, 1, 0]] = 60_000, 60_000, -60_000, -60_000
    assert_equal(F.fold(gpucnn.tensor(columns), (1, 7), (1, 4)), np.zeros((1, 1, 1, 7), np.float16))


def test_nan_and_infinity_stay_where_they_are() -> None:
    x = draw("normal", (1, 2, 4, 4))
    x[0, 0, 1, 1], x[0, 1, 3, 3] = math.nan, math.inf
    columns = F.unfold(gpucnn.tensor(x), 2, padding=1)
    assert np.isnan(columns.numpy()).sum() == np.isinf(columns.numpy()).sum() == 4


def test_channels_last_images_are_not_copied() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 6, 6)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        F.fold(F.unfold(x, 3), (6, 6), 3).backward(gpucnn.ones(2, 3, 6, 6, dtype="float64"))
    assert copies.value == 0


# --------------------------------------------------------------------------------------------- layers, bad arguments


def test_layers() -> None:
    x = gpucnn.tensor(draw("normal", (2, 3, 7, 6)))
    unfold, fold = nn.Unfold((3, 2), 1, (1, 0), 2), nn.Fold((7, 6), (3, 2), 1, (1, 0), 2)
    assert_equal(unfold(x), F.unfold(x, (3, 2), 1, (1, 0), 2).numpy())
    assert_equal(fold(unfold(x)), F.fold(unfold(x), (7, 6), (3, 2), 1, (1, 0), 2).numpy())
    assert repr(unfold) == "Unfold(kernel_size=(3, 2), dilation=1, padding=(1, 0), stride=2)"
    assert repr(fold) == "Fold(output_size=(7, 6), kernel_size=(3, 2), dilation=1, padding=(1, 0), stride=2)"
    assert list(unfold.parameters()) == []


IMAGE, COLUMNS = gpucnn.zeros(2, 3, 6, 5), gpucnn.zeros(2, 12, 20)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.unfold(gpucnn.zeros(6, 5), 2), ValueError, r"unfold: input must have shape \(N, C, H, W\) or"),
        (lambda: F.unfold(gpucnn.zeros(2, 0, 6, 5), 2), ValueError, "unfold: channels and image must not be empty"),
        (lambda: F.unfold(IMAGE, 7), ValueError, r"unfold: a window of 7 x 7 is larger than the padded image 6 x 5"),
        (lambda: F.unfold(IMAGE, 3, 3), ValueError, r"a window of 7 x 7 is larger .*\(image \(2, 3, 6, 5\), padding=0"),
        (lambda: F.unfold(IMAGE, 0), ValueError, "unfold: kernel_size must be at least 1"),
        (lambda: F.unfold(IMAGE, 2, padding=-1), ValueError, "unfold: padding must not be negative"),
        (lambda: F.unfold(IMAGE, 2, stride=(1, 0)), ValueError, "unfold: stride must be at least 1"),
        (lambda: F.unfold(IMAGE, 2, dilation=(1, 2, 3)), ValueError, "unfold: dilation takes an int or a pair"),
        (lambda: F.unfold(IMAGE, 2.0), TypeError, "unfold: kernel_size must be an integer"),
        (lambda: F.unfold(gpucnn.tensor(np.ones((1, 1, 3, 3), int)), 2), TypeError, "must have a floating dtype"),
        (lambda: F.fold(gpucnn.zeros(1, 2, 12, 20), (6, 5), 2), ValueError, r"fold: input must have shape \(N, C\*R"),
        (lambda: F.fold(COLUMNS, (6, 5), 5), ValueError, "fold: .* 5 x 5 = 25 must divide its length 12"),
        (lambda: F.fold(COLUMNS, (6, 6), 2), ValueError, r"6 x 6 has 5 x 5 = 25 windows .* \(2, 12, 20\) has 20"),
        (lambda: F.fold(COLUMNS, (6, 5), 2, stride=2), ValueError, "fold: an image of 6 x 5 has 3 x 2 = 6 windows"),
        (lambda: F.fold(COLUMNS, (1, 1), 2), ValueError, "fold: a window of 2 x 2 is larger than the padded image"),
        (lambda: F.fold(COLUMNS, (0, 5), 2), ValueError, "fold: output_size must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ----------------------------------------------------------------------------------- wrong kernels must be caught


def taps_exchanged(p: Pool2dProblem, x: np.ndarray) -> np.ndarray:
    by_tap = reference.unfold(p, x).reshape(p.N, p.C, p.R, p.S, -1)
    return np.ascontiguousarray(by_tap[:, :, ::-1]).reshape(p.N, -1, p.P * p.Q)


def overlap_not_added(p: Pool2dProblem, columns: np.ndarray) -> np.ndarray:
    return np.clip(reference.fold(p, columns), -4, 4)


@pytest.mark.parametrize(("table", "wrong"), [(ops.unfold, taps_exchanged), (ops.fold, overlap_not_added)], ids=named)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(2, 3, 7, 6, (3, 3), padding=(1, 1))
    check_kernels(case, "float32", "integers")
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted.* elements are wrong"):
        check_kernels(case, "float32", "integers")
