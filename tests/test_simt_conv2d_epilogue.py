"""What becomes of a forward convolution's sums on tensor cores: scale, shift, residual and ReLU against float64, and
the moments of what was stored."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conv2d_checks import DTYPES, WIDE, problem_of, truth_of
from kernel_checks import ORDERS, Memory, Planted, sample

from gpucnn.testing import ConvCase

CONFIGURATIONS = {"tensor_core": ("256x64", "128x128", "128x64", "64x64"), "split_tensor_core": ("128x64", "64x64")}
EACH = [(kernel, name) for kernel, names in CONFIGURATIONS.items() for name in names]
PARTS = ("bias", "relu", "scale", "residual", "moments")

CASES = [
    *WIDE[:4],
    ConvCase(3, 16, 10, 10, 72, 1, 1),  # more windows than a tile of 256, more filters than one of 64
    ConvCase(1, 8, 16, 16, 64, 1, 1, bias=False),  # tiles that are full
    ConvCase(2, 8, 9, 7, 13, 3, 3),  # filters that are no whole packs
    ConvCase(1, 8, 1, 1, 8, 1, 1),
]
ONE_TILE = [
    ConvCase(2, 3, 15, 14, 64, 7, 7, stride=(2, 2), padding=(3, 3)),
    ConvCase(1, 20, 12, 11, 70, 1, 1),  # windows and filters beyond a tile
    ConvCase(1, 72, 5, 6, 72, 3, 3, stride=(2, 2), padding=(1, 1), groups=9),  # of the last tile one group exists
    ConvCase(2, 48, 13, 12, 80, 3, 2, padding=(1, 0), groups=2),  # two tiles of a group, and of windows
]
"""That have one configuration."""


class Run:
    """One call with some of the parts of the epilogue, and what it is to give."""

    def __init__(self, case: ConvCase, kind: str, dtype: str, wanted: frozenset[str], offset: int = 0) -> None:
        self.case, self.p, self.dtype, self.wanted = case, problem_of(case), dtype, wanted
        self.t, rng = truth_of(case, kind, dtype), np.random.default_rng(case.K)
        self.shape = (self.p.N, self.p.P, self.p.Q, self.p.K)
        whole = kind == "integers"
        self.scale = (2.0 ** rng.integers(-1, 2, case.K) if whole else rng.standard_normal(case.K)).astype(np.float32)
        self.shift = rng.integers(-4, 5, case.K).astype(np.float32)
        self.residual = rng.integers(-8, 9, self.shape).astype(np.float64)
        self.offset = offset

    def exact(self) -> Any:
        """y in float64, before it is rounded."""
        y = self.t.y.transpose(0, 2, 3, 1)
        if self.t.bias is not None and "bias" not in self.wanted:
            y = y - self.t.bias
        if "scale" in self.wanted:
            y = y * self.scale + self.shift
        if "residual" in self.wanted:
            y = y + self.residual
        return np.maximum(y, 0) if "relu" in self.wanted else y

    def __call__(self, module: Any, kernel: str, configuration: str = "") -> tuple[Any, Any, int]:
        """(y, moments or None, windows that have moments together)."""
        memory, dtype, suffix = Memory(), DTYPES[self.dtype], f"_{configuration}" if configuration else ""
        rows = getattr(module, f"conv2d_{kernel}_moment_rows{suffix}")(self.p, self.dtype)
        lines = 2 * -(-self.p.N * self.p.P * self.p.Q // rows) + 1

        def given(name: str, array: Any, kind: Any = dtype) -> Any:
            flat = np.concatenate([np.zeros(self.offset), array.reshape(-1)])
            return memory.given(name, flat, kind)[self.offset :].reshape(array.shape)

        x, w = (memory.given(name, getattr(self.t, name), dtype) for name in ("x", "w"))
        bias = given("bias", self.t.bias) if "bias" in self.wanted and self.t.bias is not None else None
        options = {}
        if "scale" in self.wanted:
            options = {name: given(name, getattr(self, name), np.float32) for name in ("scale", "shift")}
        if "residual" in self.wanted:
            options["residual"] = given("residual", self.residual)
        if "moments" in self.wanted:
            options["moments"] = memory.wanted("moments", (lines, self.p.K), np.float32)
        y = memory.wanted("y", self.shape, dtype)
        call = getattr(module, f"conv2d_{kernel}_fprop{suffix}")
        call(self.p, self.dtype, x, w, bias, y, "relu" in self.wanted, 0, **options)
        memory.check(f"{self.case}")
        return y, options.get("moments"), rows


def combinations(seed: int) -> list[frozenset[str]]:
    """Each part alone, all of them, and some others."""
    rng = np.random.default_rng(seed)
    some = [frozenset(part for part in PARTS if rng.integers(2)) for _ in range(4)]
    return [frozenset(), *(frozenset([part]) for part in PARTS), frozenset(PARTS), *some]


def check_moments(y: Any, moments: Any, rows: int, call: str) -> None:
    """Of what was stored, of each so many windows, against float64."""
    flat = y.astype(np.float64).reshape(-1, y.shape[-1])
    for split in range(-(-len(flat) // rows)):
        part = flat[split * rows : (split + 1) * rows]
        mean, square = part.mean(0), ((part - part.mean(0)) ** 2).sum(0)
        scale = np.abs(part).max(0) + 1e-30
        assert (np.abs(moments[2 * split] - mean) <= 1e-5 * scale).all(), f"{call}: mean of split {split}"
        bar = 1e-5 * square + 1e-9 * len(part) * scale**2
        assert (np.abs(moments[2 * split + 1] - square) <= bar).all(), f"{call}: squares of split {split}"
    assert not moments[-1].any()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("kernel", "configuration"), EACH)
def test_every_part_of_it_is_exact_on_small_integers(
    simt: ModuleType, kernel: str, configuration: str, order: str
) -> None:
    check_parts(simt, kernel, configuration, order, CASES)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", CONFIGURATIONS)
def test_so_it_is_of_odd_sizes_and_of_groups(simt: ModuleType, kernel: str, order: str) -> None:
    check_parts(simt, kernel, "", order, ONE_TILE)


def check_parts(module: ModuleType, kernel: str, configuration: str, order: str, cases: list[ConvCase]) -> None:
    module.set_order(order)
    dtypes = [*DTYPES] if kernel == "tensor_core" else ["float32"]
    number = ORDERS.index(order)
    for case in sample(module.flavour, cases):
        for wanted in sample(module.flavour, combinations(number)):
            dtype = dtypes[number % len(dtypes)]
            number += 1
            run = Run(case, "integers", dtype, wanted)
            y, moments, rows = run(module, kernel, configuration)
            call = f"{case} {dtype} {sorted(wanted)}"
            assert y.tobytes() == run.exact().astype(DTYPES[dtype]).tobytes(), call
            if moments is not None:
                check_moments(y, moments, rows, call)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_numbers_are_rounded_once(simt: ModuleType, dtype: str) -> None:
    for case in sample(simt.flavour, CASES):
        for wanted in combinations(7):
            run = Run(case, "normal", dtype, wanted)
            y, moments, rows = run(simt, "tensor_core" if dtype != "float32" else "split_tensor_core")
            exact, call = run.exact(), f"{case} {sorted(wanted)}"
            unit = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
            bar = unit * np.abs(exact) + case.terms * 2.0**-22 * (np.abs(exact).max(initial=0) + 1)
            assert (np.abs(y.astype(np.float64) - exact) <= bar).all(), call
            if moments is not None:
                check_moments(y, moments, rows, call)


def test_moments_are_right_where_the_mean_is_large_beside_the_spread(simt: ModuleType) -> None:
    """The mean of y is 1,000 times its deviation: squares of y itself would be all that float32 holds."""
    run = Run(CASES[0], "normal", "float32", frozenset(["scale", "moments"]))
    run.shift[:] = 1000 * np.abs(run.t.y).max()
    y, moments, rows = run(simt, "split_tensor_core")
    flat = y.astype(np.float64).reshape(-1, y.shape[-1])[:rows]
    square = ((flat - flat.mean(0)) ** 2).sum(0)
    assert (np.abs(moments[1] - square) <= 1e-3 * square).all()


@pytest.mark.parametrize("offset", [1, 3])
def test_arrays_may_begin_anywhere(simt: ModuleType, offset: int) -> None:
    wanted = frozenset(PARTS)
    aligned, moments, _ = Run(CASES[0], "integers", "bfloat16", wanted)(simt, "tensor_core")
    y, again, _ = Run(CASES[0], "integers", "bfloat16", wanted, offset)(simt, "tensor_core")
    assert y.tobytes() == aligned.tobytes()
    assert again.tobytes() == moments.tobytes()


def test_a_nan_stays_one(simt: ModuleType) -> None:
    run = Run(CASES[5], "integers", "float32", frozenset(["relu", "residual", "moments"]))
    run.residual[0, 0, 0, 3] = np.nan
    run.residual[0, 0, 1, 5] = -np.inf
    y, moments, _ = run(simt, "split_tensor_core")
    assert np.isnan(y[0, 0, 0, 3])
    assert y[0, 0, 1, 5] == 0
    assert np.isnan(moments[0, 3])
    assert np.isnan(y).sum() == 1
    assert np.isnan(moments).sum() == 2


def test_what_does_not_fit_is_refused(simt: ModuleType) -> None:
    p = problem_of(CASES[5])
    x, w, y = np.zeros((1, 16, 16, 8), np.float32), np.zeros((64, 1, 1, 8), np.float32), np.zeros((1, 16, 16, 64), "f4")

    def call(**options: Any) -> None:
        simt.conv2d_tensor_core_fprop(p, "float32", x, w, None, y, False, 0, **options)

    ones = np.ones(64, np.float32)
    with pytest.raises(ValueError, match="scale and shift are both needed, or neither"):
        call(scale=ones)
    with pytest.raises(ValueError, match="'shift'"):
        call(scale=ones, shift=ones[:5].copy())
    with pytest.raises(TypeError, match="'scale'"):
        call(scale=ones.astype(np.float64), shift=ones)
    with pytest.raises(ValueError, match="'residual'"):
        call(residual=y[:, :8].copy())
    with pytest.raises(ValueError, match="moments"):
        call(moments=np.zeros((2, 64), np.float32))
    with pytest.raises(ValueError, match="memory"):
        call(residual=y)


@pytest.mark.parametrize("part", ["scale", "shift", "residual", "moments"])
def test_a_part_left_out_does_not_pass(simt: ModuleType, part: str) -> None:
    def without(run: Any, *arguments: Any, **options: Any) -> None:
        given = dict(options)
        if part == "moments":
            given["moments"] = np.empty_like(given["moments"])
        elif part == "residual":
            del given["residual"]
        else:
            given[part] = np.full_like(given[part], part == "scale")
        run(*arguments, **given)

    def check(module: Any) -> None:
        y, moments, rows = run(module, "tensor_core")
        assert y.tobytes() == run.exact().astype(np.float32).tobytes()
        check_moments(y, moments, rows, "planted")

    run = Run(CASES[0], "integers", "float32", frozenset(PARTS))
    check(simt)
    with pytest.raises(AssertionError):
        check(Planted(simt, conv2d_tensor_core_fprop=without))
