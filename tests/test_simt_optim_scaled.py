"""What a step depends on, on the CPU: the loss's scale, gradients that are not finite, master weights; the array code's
bits, in any order of threads, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from op_checks import SEED, draw

import gpucnn
from gpucnn.ops.compiled import FLOATS
from gpucnn.ops.optim import AdamProblem, ScaleProblem, SGDProblem
from gpucnn.reference import optim as reference
from gpucnn.testing import assert_equal

SIZES: list[list[int]] = [[1], [0, 3, 0], [7, 8, 9, 31, 32, 33], [4095, 4096, 4097, 1], [12_290, 5], [1] * 65, [0] * 3]
RULES: list[Any] = [
    SGDProblem(0.1, 0.0, 0.0, 0.0, False, True),
    SGDProblem(0.1, 0.9, 0.0, 0.01, True, False),
    AdamProblem(1e-2, 0.9, 0.999, 1e-8, 0.01, True, 3),
]
NARROW = ("float16", "bfloat16")


def one(value: float, dtype: Any) -> np.ndarray:
    return np.array([value], dtype)


# ------------------------------------------------------------------------------------------------------- gradients


def check_unscale(
    module: Any, sizes: Sequence[int], dtype: str, divides: bool, spoilt: tuple[int, int, float] | None
) -> None:
    """found and gradients are the array code's; no other memory is touched."""
    __tracebackhide__ = True
    call = f"{sizes[:6]} {dtype} divides={divides} {spoilt}"
    expected = [draw("normal", (n,), i).astype(dtype) for i, n in enumerate(sizes)]
    if spoilt is not None:
        expected[spoilt[0]][spoilt[1]] = spoilt[2]
    memory, scale, truth = Memory(), one(3.0, np.float32), one(0, np.int32)
    grads = [memory.wanted("gradient", array.shape, array.dtype) for array in expected]
    for mine, array in zip(grads, expected, strict=True):
        mine[...] = array
    found = memory.wanted("found", (1,), np.dtype(np.int32))
    found[...] = 0
    with np.errstate(all="ignore"):
        reference.unscale(divides, expected, scale, truth)
    module.unscale(dtype, divides, grads, scale, found, 0)
    memory.check(call)
    assert_equal(found, truth, name=call)
    assert_equal(np.concatenate(grads), np.concatenate(expected), name=f"{call}: gradients, end to end")
    assert bool(truth[0]) == (spoilt is not None and not math.isfinite(spoilt[2]))


@pytest.mark.parametrize("order", ORDERS)
def test_gradients_are_divided_and_what_is_not_finite_is_found(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    rng = np.random.default_rng([SEED, 51])
    cases = [(sizes, dtype, divides) for sizes in SIZES for dtype in FLOATS for divides in (True, False)]
    for number in sample(simt.flavour, [*rng.permutation(len(cases))]):
        sizes, dtype, divides = cases[int(number)]
        check_unscale(simt, sizes, dtype, divides, None)
        full = [i for i, size in enumerate(sizes) if size]
        for value in (math.inf, -math.inf, math.nan, 60000.0) if full else ():
            tensor = int(rng.choice(full))
            check_unscale(simt, sizes, dtype, divides, (tensor, int(rng.integers(sizes[tensor])), value))


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_dtype_and_each_place(simt: ModuleType, dtype: str) -> None:
    for divides in (True, False):
        check_unscale(simt, [5, 70], dtype, divides, None)
        for place in (0, 3, 4, 7, 68, 69):
            check_unscale(simt, [5, 70], dtype, divides, (1, place, math.inf))


def test_gradients_that_are_not_aligned_are_divided_too(simt: ModuleType) -> None:
    memory = np.arange(40, dtype=np.float32)
    found = one(0, np.int32)
    simt.unscale("float32", True, [memory[1:39]], one(2.0, np.float32), found, 0)
    assert_equal(memory, np.concatenate([[0], np.arange(1, 39) / 2, [39]]).astype(np.float32))
    assert_equal(found, one(0, np.int32))


def test_the_next_scale_is_the_array_codes(simt: ModuleType) -> None:
    for problem in (ScaleProblem(2.0, 0.5, 3), ScaleProblem(3.0, 0.3, 1), ScaleProblem(1.7, 0.9, 2**31 - 1)):
        for scale in (1.0, 2.0**16, 3.3e38, 1e-38):
            for clean in (0, 1, 2, 2**31 - 2):
                for found in ([0], [1], [0, 0, 1], [0] * 64, [0] * 63 + [1]):
                    given = one(scale, np.float32), one(clean, np.int32), [one(f, np.int32) for f in found]
                    results = one(math.nan, np.float32), one(-1, np.int32)
                    simt.next_scale(problem, *given, *results, 0)
                    with np.errstate(all="ignore"):
                        truth = reference.next_scale(problem, *given)
                    for mine, expected in zip(results, truth, strict=True):
                        assert_equal(mine, expected, name=f"{problem} {scale} {clean} {found[:4]}")


def test_a_scaled_step_is_the_array_codes_and_none_where_something_was_found(simt: ModuleType) -> None:
    for dtype in FLOATS:
        for rule in RULES:
            for found in (0, 1):
                check_step(simt, rule, [5, 70, 4097], dtype, scale=8.0, found=found)


# ---------------------------------------------------------------------------------------------------- master weights


def lists_of(rule: Any, sizes: Sequence[int], dtype: str) -> list[list[np.ndarray]]:
    """Parameters, gradients and states; of masters half round to the parameters, the others to something else."""
    kept = 2 if isinstance(rule, AdamProblem) else 1 if rule.momentum else 0
    lists = [[draw("normal", (n,), 4 * i + role).astype(dtype) for i, n in enumerate(sizes)] for role in range(2)]
    for role in range(kept):
        drawn = [draw("normal", (n,), 4 * i + 2 + role).astype(np.float32) for i, n in enumerate(sizes)]
        lists.append([array**2 if role else array for array in drawn])
    if rule.master:
        lists.append([p.astype(np.float32) * np.float32(1 + 2.0**-14) for p in lists[0]])
        for master in lists[-1]:
            master[1::2] += 1
    return lists


def check_step(
    module: Any, rule: Any, sizes: Sequence[int], dtype: str, scale: float | None = None, found: int | None = None
) -> None:
    __tracebackhide__ = True
    call = f"{rule} {sizes[:6]} {dtype} scale {scale} found {found}"
    expected = lists_of(rule, sizes, dtype)
    memory, mine = Memory(), []
    for role, arrays in enumerate(expected):
        if role == 1:
            mine.append([memory.given("gradient", array, array.dtype) for array in arrays])
            continue
        mine.append([memory.wanted(f"array {role}", array.shape, array.dtype) for array in arrays])
        for array, values in zip(mine[-1], arrays, strict=True):
            array[...] = values
    params, grads, *states = expected
    if not found:
        if scale is not None:
            grads = [g.astype(np.float32) * np.float32(1 / scale) for g in grads]
        (reference.adam if isinstance(rule, AdamProblem) else reference.sgd)(rule, params, grads, *states)
    conditions = [None if scale is None else one(scale, np.float32), None if found is None else one(found, np.int32)]
    step = module.adam_step if isinstance(rule, AdamProblem) else module.sgd_step
    step(dtype, rule, mine[0], mine[1], tuple(mine[2:]), None, False, 0, *conditions)
    memory.check(call)
    for role, (arrays, truth) in enumerate(zip(mine, expected, strict=True)):
        assert_equal(np.concatenate(arrays), np.concatenate(truth), name=f"{call}: arrays {role}, end to end")


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("order", ORDERS)
def test_steps_of_masters_have_the_array_codes_bits(simt: ModuleType, order: str, dtype: str) -> None:
    simt.set_order(order)
    for rule in RULES:
        check_step(simt, rule._replace(master=True), [5, 70], dtype)
    cases = [(rule, sizes) for rule in RULES for sizes in SIZES]
    for number in sample(simt.flavour, [*np.random.default_rng([SEED, 52]).permutation(len(cases))][:8]):
        rule, sizes = cases[int(number)]
        check_step(simt, rule._replace(master=True), sizes, dtype, scale=4.0, found=0)


def test_a_master_that_is_not_aligned_takes_the_narrow_path(simt: ModuleType) -> None:
    rule = RULES[1]._replace(master=True)
    expected = lists_of(rule, [37], "bfloat16")
    mine = [[array.copy() for array in arrays] for arrays in expected]
    shifted = np.empty(38, np.float32)
    shifted[1:] = mine[3][0]
    mine[3] = [shifted[1:]]
    reference.sgd(rule, *expected)
    simt.sgd_step("bfloat16", rule, mine[0], mine[1], tuple(mine[2:]), None, False, 0)
    for arrays, truth in zip(mine, expected, strict=True):
        assert_equal(arrays[0], truth[0])


def test_scaled_training_in_float16_has_the_references_bits(simt: ModuleType) -> None:
    runs = []
    for name in ("simt", "reference"):
        with gpucnn.use_backend(name, strict=True):
            param = gpucnn.Tensor(draw("normal", (3, 2, 4, 5)).astype(np.float16), requires_grad=True)
            optimizer = gpucnn.optim.Adam([param], 0.01, master_weights=True)
            scaler = gpucnn.GradScaler(2.0**20, growth_interval=2)
            for step in range(6):
                optimizer.zero_grad()
                weights = gpucnn.Tensor(draw("normal", (3, 2, 4, 5), 1 + step).astype(np.float16))
                with gpucnn.autocast("float16"):
                    loss = (param * weights).sum()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            runs.append((param.numpy().copy(), optimizer.state[0]["master"].copy(), scaler.state_dict()))
    assert runs[0][2] == runs[1][2]
    assert runs[0][2]["scale"] < 2.0**20
    for mine, truth in zip(runs[0][:2], runs[1][:2], strict=True):
        assert_equal(mine, truth)


def test_the_kernels_path_never_asks_what_was_found(simt: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where array code has to read the word on the host, which on a GPU waits for it."""

    def read(*arguments: Any) -> bool:
        raise AssertionError("the host read the device")

    monkeypatch.setattr("gpucnn.ops.optim._skipped", read)
    for name in ("get_scale", "_clean"):
        monkeypatch.setattr(gpucnn.GradScaler, name, read)
    param = gpucnn.Tensor(np.ones(3, np.float32), requires_grad=True)
    optimizer, scaler = gpucnn.optim.SGD([param], 0.5), gpucnn.GradScaler(8.0)
    for gradient, expected in ((math.inf, 1.0), (8.0, 0.0), (4.0, -0.5)):
        scaler.scale(gpucnn.tensor(1.0))
        param.grad = gpucnn.Tensor(np.full(3, gradient, np.float32))
        scaler.step(optimizer)
        scaler.update()
        assert_equal(param, np.full(3, expected, np.float32))


# ------------------------------------------------------------------------------------------------ wrong ones, refusals


def test_wrong_kernels_are_caught(simt: ModuleType) -> None:
    def blind(run: Any, dtype: str, divides: bool, grads: Any, scale: Any, found: Any, stream: int) -> None:
        run(dtype, divides, grads, scale, found, stream)
        found[...] = 0

    def masterless(run: Any, dtype: str, rule: Any, params: Any, grads: Any, states: Any, *rest: Any) -> None:
        run(dtype, rule._replace(master=False), params, grads, states[:-1], *rest)

    def unscaled(run: Any, *arguments: Any) -> None:
        run(*arguments[:-2], None, arguments[-1])

    with pytest.raises(AssertionError, match="elements are wrong"):
        check_unscale(Planted(simt, unscale=blind), [5, 9], "float32", True, (1, 3, math.inf))
    for wrong in (masterless, unscaled):
        with pytest.raises(AssertionError, match="elements are wrong"):
            check_step(Planted(simt, sgd_step=wrong), RULES[1]._replace(master=True), [5, 9], "float16", 8.0, 0)


def test_arrays_that_do_not_fit_are_refused(simt: ModuleType) -> None:
    def floats(*sizes: int, dtype: Any = np.float32) -> list[np.ndarray]:
        return [np.ones(size, dtype) for size in sizes]

    (scale, found), grads = (one(2, np.float32), one(0, np.int32)), floats(4, 3)
    refused: list[tuple[Any, type[Exception], str]] = [
        (lambda: simt.unscale("float64", True, grads, scale, found, 0), ValueError, "dtype must be float32, float16"),
        (lambda: simt.unscale("float16", True, grads, scale, found, 0), TypeError, "'gradient' .*must be float16"),
        (lambda: simt.unscale("float32", True, grads, floats(2)[0], found, 0), ValueError, "'loss_scale' .*shape"),
        (lambda: simt.unscale("float32", True, grads, scale, scale, 0), TypeError, "'found' .*must be int32"),
        (lambda: simt.unscale("float32", True, [scale], scale, found, 0), ValueError, "overlap"),
        (lambda: simt.unscale("float32", True, [grads[0][::2]], scale, found, 0), ValueError, "must be C-contiguous"),
    ]
    problem = ScaleProblem(2.0, 0.5, 3)
    results = one(7, np.float32), one(7, np.int32)
    for words, next_scale, message in (
        ([found] * 65, results[0], "more than 64 optimisers"),
        ([np.zeros(2, np.int32)], results[0], "'found' .*shape"),
        ([found], scale, "overlap"),
    ):
        call = (problem, scale, found, words, next_scale, results[1], 0)
        refused.append((lambda call=call: simt.next_scale(*call), ValueError, message))
    rule = RULES[1]._replace(master=True)
    half, velocity = floats(4, dtype=np.float16), floats(4)
    for arguments, message in (
        (("float32", rule, grads, floats(4, 3), (floats(4, 3), floats(4, 3))), "masters, .*are of 16-bit parameters"),
        (("float16", rule, half, floats(4, dtype=np.float16), ()), "masters, the last list of state"),
        (("float16", rule, half, floats(4, dtype=np.float16), (velocity, velocity, velocity)), "too many lists"),
        (("float16", rule, half, floats(4, dtype=np.float16), (velocity, floats(5))), "must have the same shape"),
    ):
        refused.append((lambda a=arguments: simt.sgd_step(*a, None, False, 0), ValueError, message))
    for call, error, message in refused:
        with pytest.raises(error, match=message):
            call()
    for array in (*grads, *half, *velocity):
        assert (array == 1).all()
    assert results[0] == results[1] == 7
