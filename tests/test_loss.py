"""Cross-entropies: kernels against the truth, F.* and gradients against PyTorch, corners."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import LAYOUTS, NHWC, SEED, compare, draw, each_kernel, frozen, names, plant

import gpucnn
from gpucnn import backend
from gpucnn import functional as F
from gpucnn.ops import loss as ops
from gpucnn.ops.compiled import FLOATS
from gpucnn.reference import loss as reference
from gpucnn.reference.loss import CrossEntropyProblem
from gpucnn.testing import assert_close, gradcheck, naive

INF, NAN = math.inf, math.nan
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "weights": {"weight": [0.5, 2.0, 1.0, 0.0, 0.25]},
    "smoothing": {"label_smoothing": 0.2},
    "all-smoothing": {"label_smoothing": 1.0, "reduction": "none"},
    "ignore": {"ignore_index": 2},
    "everything": {"weight": [0.5, 2.0, 1.0, 3.0, 0.25], "label_smoothing": 0.1, "ignore_index": 4},
    "everything-none": {
        "weight": [0.5, 2, 1, 3, 0.25],
        "label_smoothing": 0.1,
        "ignore_index": -1,
        "reduction": "none",
    },
}


def labels(*shape: int, ignored: int | None = None) -> np.ndarray:
    """Classes 0 to 4, every third of them `ignored` instead."""
    found = np.random.default_rng([SEED, *shape]).integers(0, 5, shape)
    if ignored is not None:
        found.reshape(-1)[::3] = ignored
    return found


def check_cross_entropy(variant: str, dtype: str) -> None:
    """Both tables, for rows of usual logits and of ones whose exponentials overflow."""
    __tracebackhide__ = True
    options = dict(VARIANTS[variant])
    weight = options.pop("weight", None)
    reduction, ignored = options.pop("reduction", "mean"), options.get("ignore_index", -100)
    logits = draw("normal", (11, 5)) * np.where(np.arange(11) % 4 == 1, 1000, 1)[:, None]
    targets = labels(11, ignored=ignored)
    p = CrossEntropyProblem(ignored, options.get("label_smoothing", 0.0), reduction)
    v = None if weight is None else frozen(np.array(weight), dtype)
    dy = draw("normal", (11,), 1) if reduction == "none" else np.array(0.75)
    truth = naive.cross_entropy(logits, targets, weight, reduction=reduction, **options)
    gradient = naive.cross_entropy_grad(dy, logits, targets, weight, reduction=reduction, **options)
    x = frozen(logits, dtype)
    for name, (loss, statistics, total) in each_kernel(ops.cross_entropy, p, x, targets, v):
        assert isinstance(loss, np.ndarray), name
        assert loss.dtype == dtype, name
        compare(loss, truth, 5, f"{name} {dtype}")
        saved = [None if a is None else frozen(a) for a in (x, statistics, total, targets, v)]
        for grad_name, found in each_kernel(ops.cross_entropy_grad, p, frozen(dy, dtype), *saved):
            assert found.dtype == dtype, grad_name
            compare(found, gradient, 5, f"{grad_name} {dtype}")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", ["float64", *FLOATS])
def test_every_kernel_of_cross_entropy(variant: str, dtype: str) -> None:
    check_cross_entropy(variant, dtype)


def test_these_are_all_kernels() -> None:
    soft = (ops.soft_cross_entropy, ops.soft_cross_entropy_grad, ops.soft_cross_entropy_target_grad)
    tables = (ops.cross_entropy, ops.cross_entropy_grad, ops.nll_loss, ops.nll_loss_grad, *soft)
    assert [names(table) for table in tables] == [["array"]] * 7
    compiled = [[spec.name for spec in table.specs("cuda")] for table in tables]
    assert compiled == [["rows"], ["flat"], ["rows"], ["flat"], ["rows"], ["flat"], ["flat"]]


# ------------------------------------------------------------------------------------------------ against PyTorch


def against_pytorch(
    torch: Any, x: np.ndarray, t: np.ndarray, options: dict[str, Any], tolerance: float = 1e-12
) -> None:
    __tracebackhide__ = True
    weight = options.get("weight")
    ours, theirs = gpucnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    mine = options | {"weight": None if weight is None else gpucnn.tensor(weight, x.dtype)}
    other = options | {"weight": None if weight is None else torch.tensor(weight, dtype=theirs.dtype)}
    loss = F.cross_entropy(ours, t, **mine)
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(t), **other)
    assert loss.shape == tuple(expected.shape)
    dy = draw("normal", loss.shape, 1)
    loss.backward(dy.astype(x.dtype))
    expected.backward(torch.tensor(dy, dtype=theirs.dtype))
    close = {"rtol": tolerance, "atol": tolerance, "dtype": x.dtype, "equal_nan": True}
    assert_close(loss, expected.detach().double().numpy(), name="loss", **close)
    assert_close(ours.grad, theirs.grad.double().numpy(), name="gradient", **close)


@pytest.mark.peers
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(7, 5), (5,), (2, 5, 3), (2, 5, 3, 4)], ids=str)
def test_cross_entropy_is_pytorchs(variant: str, shape: tuple[int, ...], torch: Any) -> None:
    options = VARIANTS[variant]
    places = () if len(shape) == 1 else (shape[0], *shape[2:])
    for ignored in {None, options.get("ignore_index", -100)} if places else {None}:
        against_pytorch(torch, draw("normal", shape), labels(*places, ignored=ignored), options)
    against_pytorch(torch, draw("normal", shape).astype(np.float32), labels(*places), options, 2e-6)


@pytest.mark.peers
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_corners_of_cross_entropy_are_pytorchs(reduction: str, torch: Any) -> None:
    """Nothing to count, no rows, infinite and NaN logits, classes of weight 0; NaN where PyTorch has NaN."""
    options = {"reduction": reduction}
    x = draw("normal", (4, 5))
    against_pytorch(torch, x, np.full(4, -100), options)
    against_pytorch(torch, np.zeros((0, 5)), np.zeros(0, np.int64), options)
    against_pytorch(torch, x, np.array([3, 3, 3, -100]), options | {"weight": [1.0, 1.0, 1.0, 0.0, 1.0]})
    special = x.copy()
    special[0, 1], special[1, 0], special[2], special[3, 4] = NAN, INF, -INF, -INF
    against_pytorch(torch, special, np.array([0, 0, 1, 0]), options)
    against_pytorch(torch, special, np.array([0, 0, 1, 4]), options)
    against_pytorch(torch, x[:, :1], np.zeros(4, np.int64), options)


# --------------------------------------------------------------------------------------- gradients, layouts, corners


@pytest.mark.parametrize("variant", ["plain", "sum", "none", "everything"])
def test_gradients_are_central_differences(variant: str) -> None:
    options = dict(VARIANTS[variant])
    if "weight" in options:
        options["weight"] = gpucnn.tensor(options["weight"], "float64")
    targets = labels(3, 4, ignored=options.get("ignore_index", -100))
    x = gpucnn.tensor(draw("normal", (3, 5, 4)), requires_grad=True)
    assert gradcheck(lambda z: F.cross_entropy(z, targets, **options), [x])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_and_integer_dtype_is_taken(layout: str) -> None:
    x, t = draw("normal", (2, 5, 3, 4)), labels(2, 3, 4)
    expected, gradient = naive.cross_entropy(x, t), naive.cross_entropy_grad(1.0, x, t)
    for dtype in ("int64", "int32", "uint8", "uint64"):
        logits = gpucnn.Tensor(LAYOUTS[layout](x), requires_grad=True)
        loss = F.cross_entropy(logits, LAYOUTS[layout](t.astype(dtype)))
        loss.backward()
        assert_close(loss, expected, rtol=1e-13, atol=0)
        assert_close(logits.grad, gradient, rtol=1e-12, atol=1e-15)
    assert F.cross_entropy(gpucnn.tensor(x[:, :, 0, 0]), t[:, 0, 0].tolist()).ndim == 0


def test_channels_last_images_are_read_as_they_lie() -> None:
    x = gpucnn.tensor(draw("normal", (2, 5, 3, 4)), requires_grad=True)
    with backend.count_layout_copies() as copies:
        F.cross_entropy(x, labels(2, 3, 4)).backward()
        F.cross_entropy(x, F.softmax(x.detach(), 1)).backward()
        F.nll_loss(F.log_softmax(x, 1), labels(2, 3, 4)).backward()
    assert copies.value == 0
    assert x.grad.data.transpose(NHWC).flags.c_contiguous


def test_ignored_labels_may_lie_outside_the_classes() -> None:
    x = draw("normal", (3, 5))
    found = F.cross_entropy(gpucnn.tensor(x), [1, 255, 0], ignore_index=255)
    assert_close(found, naive.cross_entropy(x[[0, 2]], [1, 0]), rtol=1e-14, atol=0)


LOGITS = gpucnn.zeros(2, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.cross_entropy(np.zeros((2, 5)), [0, 1]), TypeError, "input must be a gpucnn.Tensor, got ndarray"),
        (
            lambda: F.cross_entropy(gpucnn.tensor([[1, 2]]), [0]),
            TypeError,
            "input must have a floating dtype, got int64",
        ),
        (
            lambda: F.cross_entropy(LOGITS, [0.0, 1.0]),
            TypeError,
            r"integer class indices, or probabilities in the shape of input, \(2, 5\); got float32 of shape \(2,\)",
        ),
        (
            lambda: F.nll_loss(LOGITS, LOGITS),
            TypeError,
            "nll_loss: target must hold integer class indices, got float32",
        ),
        (
            lambda: F.cross_entropy(LOGITS, gpucnn.zeros(2, 5, dtype="float64")),
            TypeError,
            "cross_entropy: input has dtype float32, but target has float64",
        ),
        (
            lambda: F.cross_entropy(LOGITS, LOGITS, ignore_index=3),
            ValueError,
            "ignore_index=3 is for class indices, target holds probabilities",
        ),
        (lambda: F.nll_loss(LOGITS, [0, 5]), ValueError, r"nll_loss: label 5 at \(1,\) is outside \[0, 5\)"),
        (lambda: F.nll_loss(LOGITS, [0, 1, 2]), ValueError, r"nll_loss: target must have shape \(2,\)"),
        (lambda: F.nll_loss(LOGITS, [0, 1], gpucnn.ones(2)), ValueError, r"nll_loss: weight must have shape \(5,\)"),
        (lambda: F.nll_loss(LOGITS, [0, 1], reduction=None), ValueError, "'none', 'mean' or 'sum', got None"),
        (
            lambda: F.cross_entropy(LOGITS, [0, 1], gpucnn.ones(5).requires_grad_()),
            ValueError,
            r"weight is a constant and gets no gradient, but requires one: pass weight.detach\(\)",
        ),
        (lambda: F.cross_entropy(LOGITS, [True, False]), TypeError, "integer class indices, got bool"),
        (lambda: F.cross_entropy(LOGITS, [0, 5]), ValueError, r"label 5 at \(1,\) is outside \[0, 5\)"),
        (lambda: F.cross_entropy(LOGITS, [-1, 0]), ValueError, r"label -1 at \(0,\) is outside \[0, 5\)"),
        (lambda: F.cross_entropy(LOGITS, [-100, 9]), ValueError, r"label 9 at \(1,\)"),
        (
            lambda: F.cross_entropy(gpucnn.zeros(2, 5, 3), [[0, 1, 2], [3, 7, 9]]),
            ValueError,
            r"cross_entropy: label 7 at \(1, 1\) is outside \[0, 5\)",
        ),
        (
            lambda: F.cross_entropy(LOGITS, [0]),
            ValueError,
            r"target must have shape \(2,\) for input \(2, 5\), got \(1,\)",
        ),
        (lambda: F.cross_entropy(gpucnn.tensor(1.0), 0), ValueError, "needs an axis of classes"),
        (
            lambda: F.cross_entropy(LOGITS, [0, 1], gpucnn.ones(4)),
            ValueError,
            r"weight must have shape \(5,\).*got \(4,\)",
        ),
        (lambda: F.cross_entropy(LOGITS, [0, 1], gpucnn.ones(5, dtype="float64")), TypeError, "but weight has float64"),
        (lambda: F.cross_entropy(LOGITS, [0, 1], reduction="max"), ValueError, "'none', 'mean' or 'sum', got 'max'"),
        (lambda: F.cross_entropy(LOGITS, [0, 1], label_smoothing=1.5), ValueError, r"must lie in \[0, 1\], got 1.5"),
        (lambda: F.cross_entropy(LOGITS, [0, 1], label_smoothing=NAN), ValueError, r"must lie in \[0, 1\], got nan"),
        (
            lambda: F.cross_entropy(LOGITS, [0, 1], ignore_index=0.5),
            TypeError,
            "ignore_index must be an integer, got 0.5",
        ),
    ],
)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ----------------------------------------------------------------------------------- wrong kernels must be caught


def divides_by_rows(p: CrossEntropyProblem, logits: np.ndarray, t: np.ndarray, weight: Any) -> Any:
    _, *saved = reference.cross_entropy(p, logits, t, weight)
    loss, _, _ = reference.cross_entropy(
        CrossEntropyProblem(p.ignore_index, p.label_smoothing, "sum"), logits, t, weight
    )
    return np.asarray(loss / logits.dtype.type(len(t))), *saved


def overflows(p: CrossEntropyProblem, logits: np.ndarray, t: np.ndarray, weight: Any) -> Any:
    _, *saved = reference.cross_entropy(p, logits, t, weight)
    counts = t != p.ignore_index
    with np.errstate(all="ignore"):
        hit = logits[np.arange(len(t)), np.where(counts, t, 0)] - np.log(np.exp(logits).sum(1))
        return np.asarray(-hit[counts].mean()), *saved


def forgets_the_hit(p: CrossEntropyProblem, dy: np.ndarray, logits: np.ndarray, *rest: Any) -> np.ndarray:
    (largest, of_sum), total, *_ = rest
    return np.exp(logits - largest[:, None] - of_sum[:, None]) * (dy / total)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (ops.cross_entropy, divides_by_rows),
        (ops.cross_entropy, overflows),
        (ops.cross_entropy_grad, forgets_the_hit),
    ],
    ids=["divides-by-rows", "overflows", "forgets-the-hit"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check_cross_entropy("plain", "float32")
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted float32: .* elements are wrong"):
        check_cross_entropy("plain", "float32")
