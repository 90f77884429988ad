"""Elements chosen by a condition, by bounds, by size: kernels against plain Python, tensors against PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from op_checks import SEED, draw, each_kernel, frozen, names, plant
from test_elementwise import EPS, SHAPES, values

import gpucnn
from gpucnn.ops import elementwise as ops
from gpucnn.reference import elementwise as reference
from gpucnn.testing import assert_close, assert_equal

INF, NAN = math.inf, math.nan


def check_choice(name: str, dtype: str, *arrays: np.ndarray) -> None:
    """Kernels that choose, element by element, written out in Python."""
    __tracebackhide__ = True
    table, formula, problems = CHOICES[name]
    for problem in problems:
        truth = np.array(
            [formula(problem, *element) for element in zip(*[a.ravel().tolist() for a in arrays], strict=True)]
        )
        for kernel, found in each_kernel(table, problem, *[frozen(array) for array in arrays]):
            assert_equal(found, truth.reshape(arrays[0].shape).astype(dtype), signed_zeros=False, name=kernel)


def clamped(bounds: Any, x: float) -> float:
    least, greatest = bounds
    x = least if least is not None and x < least else x
    return greatest if greatest is not None and x > greatest else x


BOUNDS = [(None, 1.0), (-1.0, None), (-1.0, 1.0), (1.0, -1.0), (0.0, 0.0), (-INF, INF)]
CHOICES: dict[str, Any] = {  # name: (table, one element, problems)
    "where": (ops.where, lambda p, c, a, b: a if c else b, [None]),
    "clamp": (ops.clamp, clamped, BOUNDS),
    "clamp_grad": (
        ops.clamp_grad,
        lambda p, dy, x: dy if (p[0] is None or x >= p[0]) and (p[1] is None or x <= p[1]) and x == x else 0,
        BOUNDS,
    ),
    "maximum_grad": (ops.maximum_grad, lambda p, dy, a, b: 0 if a < b else dy / 2 if a == b else dy, [None]),
}


@pytest.mark.parametrize("dtype", EPS)
def test_every_kernel_that_chooses(dtype: str) -> None:
    x, y = (draw("integers", (6, 7), stream).astype(dtype) for stream in (0, 1))
    special = values(6, 7, kind="special").astype(dtype)
    check_choice("where", dtype, draw("normal", (6, 7)) > 0, special, x)
    check_choice("clamp", dtype, x)
    check_choice("clamp", dtype, special)
    check_choice("clamp_grad", dtype, special, x)
    check_choice("clamp_grad", dtype, x, special)
    check_choice("maximum_grad", dtype, special, x, y)
    check_choice("maximum_grad", dtype, x, special, y)


def test_these_are_all_kernels() -> None:
    assert all(names(table) == ["array"] for table, *_ in CHOICES.values())


def test_large_arrays_are_clamped_in_pieces_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "LARGE_BYTES", 1000)
    monkeypatch.setattr(reference, "_PIECE_BYTES", 2000)
    check_choice("clamp", "float32", draw("integers", (40, 50)).astype("float32"))


@pytest.mark.peers
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["maximum", "minimum", "where", "clamp", "clamp min", "clamp max"])
def test_choices_are_pytorchs(name: str, shapes: tuple[Any, Any], torch: Any) -> None:
    """Of small integers, among which are ties."""
    arrays = [draw("integers", s, i) for i, s in enumerate(shapes)]
    keep = np.random.default_rng(SEED).random(np.broadcast_shapes(*shapes)[-1:]) > 0.5

    def run(module: Any, a: Any, b: Any) -> Any:
        if name == "where":
            return module.where(module.tensor(keep), a, b)
        if name == "clamp":
            return module.clamp(a, b, b + 2)
        return module.clamp(a, **{name[6:]: b}) if name.startswith("clamp") else getattr(module, name)(a, b)

    for given in (arrays, arrays[::-1]):
        ours = [gpucnn.tensor(a, requires_grad=True) for a in given]
        theirs = [torch.tensor(a, requires_grad=True) for a in given]
        y, expected = run(gpucnn, *ours), run(torch, *theirs)
        dy = draw("integers", y.shape, 7)
        y.backward(dy)
        expected.backward(torch.tensor(dy))
        assert_equal(y, expected.detach().numpy())
        for a, b in zip(ours, theirs, strict=True):
            assert_equal(a.grad, b.grad, signed_zeros=False, name="gradient")


@pytest.mark.peers
def test_dtypes_of_choices_are_pytorchs(torch: Any) -> None:
    for dtype in ("int32", "int64", "float16", "float32", "float64"):
        x = np.arange(-3, 4).astype(dtype)
        ours, theirs, keep = gpucnn.tensor(x), torch.tensor(x), x > 0
        for run in (
            lambda t, m: m.clamp(t, -1, 2),
            lambda t, m: m.clamp(t, min=0.5),
            lambda t, m: m.clamp(t, max=m.tensor(1.5)),
            lambda t, m, keep=keep: m.where(m.tensor(keep), t, 2),
            lambda t, m, keep=keep: m.where(m.tensor(keep), 2.5, t),
            lambda t, m, keep=keep: m.where(m.tensor(keep), 1, 2.5),
            lambda t, m, keep=keep: t.where(m.tensor(keep), t * 2),
            lambda t, m, keep=keep: t.masked_fill(m.tensor(keep), 3),
            lambda t, m: abs(t) + m.square(t) - m.sign(t),
            lambda t, m: m.sqrt(abs(t)),
        ):
            found, expected = run(ours, gpucnn), run(theirs, torch)
            assert str(found.dtype) == str(expected.dtype).removeprefix("torch.")
            assert_close(found.to("float64"), expected.double(), rtol=1e-3, atol=0)


def test_clamp_passes_nan_on() -> None:
    x = gpucnn.tensor([NAN, -5.0, 5.0])
    for y in (x.clamp(-1, 1), x.clamp(gpucnn.tensor(-1.0), gpucnn.tensor(1.0))):
        assert_equal(y, np.array([NAN, -1, 1], np.float32))
    assert math.isnan(gpucnn.tensor([1.0]).clamp(gpucnn.tensor([NAN])).item())


def test_choices_that_do_not_fit_are_refused() -> None:
    x = gpucnn.zeros(2, 3)
    with pytest.raises(ValueError, match="clamp needs min, max or both"):
        x.clamp()
    with pytest.raises(TypeError, match="where: the condition must hold bools, got float32"):
        gpucnn.where(x, x, x)
    with pytest.raises(TypeError, match=r"where: condition must be a gpucnn.Tensor, got ndarray"):
        gpucnn.where(np.ones(3, bool), x, x)  # type: ignore[arg-type]
    for run in (
        lambda: gpucnn.where(x[:, :2] > 0, x, x),
        lambda: gpucnn.where(x > 0, x, gpucnn.zeros(4)),
        lambda: x.clamp(gpucnn.zeros(2)),
        lambda: x.maximum(gpucnn.zeros(2)),
        lambda: x.masked_fill(gpucnn.zeros(2) == 0, 1),
    ):
        with pytest.raises(ValueError, match="do not broadcast"):
            run()


# ----------------------------------------------------------------------------------- wrong kernels must be caught


def special() -> None:
    check_choice("clamp", "float32", values(6, 7, kind="special").astype("float32"))


def ties() -> None:
    x, y, dy = (draw("integers", (6, 7), i).astype("float32") for i in range(3))
    check_choice("clamp_grad", "float32", dy, x)
    check_choice("maximum_grad", "float32", dy, x, y)


@pytest.mark.parametrize(
    ("table", "wrong", "run"),
    [
        (
            ops.clamp,
            lambda p, x: np.fmin(np.fmax(x, -INF if p[0] is None else p[0]), INF if p[1] is None else p[1]),
            special,
        ),
        (ops.clamp_grad, lambda p, dy, x: dy * ((x > (p[0] or -INF)) & (x < (p[1] or INF))), ties),
        (ops.maximum_grad, lambda p, dy, a, b: dy * (a >= b), ties),
    ],
    ids=["clamp-swallows-nan", "clamp-open-bounds", "all-to-both"],
)
def test_a_wrong_kernel_is_caught(table: Any, wrong: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    plant(monkeypatch, table, wrong)
    with pytest.raises(AssertionError, match=f"{table} planted: .* elements are wrong"):
        run()
