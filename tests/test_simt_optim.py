"""Update rules over many tensors on the CPU: the array code's bits, in any order of threads, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_checks import ORDERS, Memory, Planted, sample
from op_checks import LAYOUTS, SEED, draw

import gpucnn
from gpucnn import backend
from gpucnn.ops.compiled import FLOATS
from gpucnn.ops.optim import AdamProblem, SGDProblem
from gpucnn.optim import SGD, Adam, AdamW
from gpucnn.reference import optim as reference
from gpucnn.testing import assert_close, assert_equal

SIZES: list[list[int]] = [
    [1],
    [0, 3, 0],
    [7, 8, 9, 31, 32, 33],
    [4095, 4096, 4097, 1],  # elements of a block
    [12_290, 5],
    [*range(63), 2],  # as many as a launch takes, one without elements
    [1] * 64,
    [1 + n % 5 for n in range(65)],
    [n % 3 for n in range(150)],
    [0] * 3,
]
SGD_RULES = [
    SGDProblem(0.1, 0.0, 0.0, 0.0, False, True),
    SGDProblem(0.1, 0.0, 0.0, 0.3, False, True),
    SGDProblem(0.1, 0.9, 0.0, 0.0, False, True),
    SGDProblem(0.1, 0.9, 0.0, 1e-4, False, False),
    SGDProblem(0.1, 0.9, 0.3, 0.0, False, False),
    SGDProblem(0.1, 0.9, 0.0, 0.01, True, False),
    SGDProblem(0.1, 0.9, 0.0, 0.01, True, True),
    SGDProblem(0.0, 0.5, 1.0, 0.0, False, False),
]
ADAM_RULES = [
    AdamProblem(1e-3, 0.9, 0.999, 1e-8, 0.0, False, 1),
    AdamProblem(1e-2, 0.5, 0.75, 1e-3, 0.2, False, 7),
    AdamProblem(1e-3, 0.9, 0.999, 1e-8, 0.01, True, 1000),
    AdamProblem(0.3, 0.0, 0.999, 1e-8, 0.01, True, 1),
]
RULES: list[Any] = [*SGD_RULES, *ADAM_RULES]


def states_of(rule: Any) -> int:
    return 2 if isinstance(rule, AdamProblem) else 1 if rule.momentum else 0


def arrays_of(rule: Any, sizes: Sequence[int], dtype: str) -> list[list[np.ndarray]]:
    """Lists of parameters, gradients and states; second moments are not negative."""
    lists = [[draw("normal", (n,), 4 * i).astype(dtype) for i, n in enumerate(sizes)]]
    lists.append([draw("normal", (n,), 4 * i + 1).astype(dtype) for i, n in enumerate(sizes)])
    for state in range(states_of(rule)):
        drawn = [draw("normal", (n,), 4 * i + 2 + state).astype(np.float32) for i, n in enumerate(sizes)]
        lists.append([array**2 if state else array for array in drawn])
    return lists


def check(module: Any, rule: Any, sizes: Sequence[int], dtype: str) -> None:
    """All arrays have the array code's bits; gradients stay; no other memory is touched."""
    __tracebackhide__ = True
    call = f"{rule} {sizes[:6]} {dtype}"
    expected = arrays_of(rule, sizes, dtype)
    memory, found = Memory(), []
    for role, arrays in enumerate(expected):
        if role == 1:
            found.append([memory.given("gradient", array, array.dtype) for array in arrays])
            continue
        found.append([memory.wanted(f"array {role}", array.shape, array.dtype) for array in arrays])
        for mine, array in zip(found[-1], arrays, strict=True):
            mine[...] = array
    with np.errstate(all="ignore"):
        (reference.adam if isinstance(rule, AdamProblem) else reference.sgd)(rule, *expected)
    step = module.adam_step if isinstance(rule, AdamProblem) else module.sgd_step
    step(dtype, rule, found[0], found[1], tuple(found[2:]), None, True, 0)
    memory.check(call)
    for role, (mine, truth) in enumerate(zip(found, expected, strict=True)):
        assert_equal(np.concatenate(mine), np.concatenate(truth), name=f"{call}: arrays {role}, end to end")


@pytest.mark.parametrize("order", ORDERS)
def test_every_rule_has_the_array_codes_bits(simt: ModuleType, order: str) -> None:
    simt.set_order(order)
    cases = [(rule, sizes) for rule in RULES for sizes in SIZES]
    chosen = np.random.default_rng([SEED, len(order)]).permutation(len(cases))
    for number in sample(simt.flavour, [*chosen[:40]] if order != "fwd" else [*chosen]):
        check(simt, *cases[number], FLOATS[int(number) % 3])


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_rule_in_every_dtype(simt: ModuleType, dtype: str) -> None:
    for rule in RULES:
        check(simt, rule, [5, 70], dtype)


@pytest.mark.parametrize("role", [0, 1, 2, 3])
def test_memory_that_is_not_aligned_takes_the_narrow_path(simt: ModuleType, role: int) -> None:
    rule = ADAM_RULES[1]
    expected = arrays_of(rule, [37], "float32")
    found = [[array.copy() for array in arrays] for arrays in expected]
    shifted = np.empty(38, np.float32)
    shifted[1:] = found[role][0]
    found[role] = [shifted[1:]]
    reference.adam(rule, *expected)
    simt.adam_step("float32", rule, found[0], found[1], tuple(found[2:]), None, True, 0)
    for mine, truth in zip(found, expected, strict=True):
        assert_equal(mine[0], truth[0])


def test_the_step_is_counted_once_and_skipped_while_the_flag_is_raised(simt: ModuleType) -> None:
    rule, clear = SGD_RULES[0], 2**63 - 1
    for sizes in ([3], [1] * 65, [0], [0] * 65, []):
        flag = np.array([clear, 7])
        params, grads = ([np.ones(n, np.float32) for n in sizes] for _ in range(2))
        simt.sgd_step("float32", rule, params, grads, (), flag, False, 0)
        assert flag.tolist() == [clear, 7]
        simt.sgd_step("float32", rule, params, grads, (), flag, True, 0)
        assert flag.tolist() == [clear, 8]
        before = [p.copy() for p in params]
        flag[0] = 1
        simt.sgd_step("float32", rule, params, grads, (), flag, True, 0)
        assert flag.tolist() == [1, 9]
        for mine, truth in zip(params, before, strict=True):
            assert_equal(mine, truth)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "make", [lambda p: SGD(p, 0.1, 0.9, nesterov=True, weight_decay=0.01), lambda p: Adam(p, 0.01), lambda p: AdamW(p)]
)
def test_optimizers_on_it_have_the_references_bits(simt: ModuleType, make: Any, dtype: str) -> None:
    """Parameters in any memory order, one of them without a gradient for a while, one a slice."""
    runs = []
    for name in ("simt", "reference"):
        with backend.use_backend(name, strict=True):
            params = [
                gpucnn.Tensor(LAYOUTS[layout](draw("normal", (3, 2, 4, 5)).astype(dtype)), requires_grad=True)
                for layout in ("nhwc", "nchw", "strided", "fortran")
            ]
            optimizer = make(params)
            for step in range(3):
                for number, param in enumerate(params):
                    gradient = LAYOUTS["nchw"](draw("normal", (3, 2, 4, 5), 1 + step).astype(dtype))
                    param.grad = gpucnn.Tensor(gradient) if step or number else None
                optimizer.step()
            runs.append([param.numpy().copy() for param in params])
            kinds = {state[n].dtype for state in optimizer.state.values() for n in state if n != "step"}
            assert kinds == {np.dtype(np.float32)}
    for mine, truth in zip(*runs, strict=True):
        assert_equal(mine, truth)


def test_sixteen_bit_parameters_keep_what_float32_state_holds(simt: ModuleType) -> None:
    """Ten thousandth parts of a gradient add up in the velocity."""
    param = gpucnn.Tensor(np.zeros(1, np.float16), requires_grad=True)
    optimizer = SGD([param], lr=1.0, momentum=1.0)
    for gradient in [1.0, *[2e-4] * 9]:
        param.grad = gpucnn.Tensor(np.array([gradient], np.float16))
        optimizer.step()
    assert_close(optimizer.state[0]["velocity"], np.array([1.0018]), rtol=1e-4, atol=0)


def test_numbers_that_are_not_finite_spread_as_in_the_reference(simt: ModuleType) -> None:
    for rule in RULES:
        expected = arrays_of(rule, [5], "float32")
        expected[1][0][:3] = math.nan, math.inf, 3e38
        found = [[array.copy() for array in arrays] for arrays in expected]
        with np.errstate(all="ignore"):
            (reference.adam if isinstance(rule, AdamProblem) else reference.sgd)(rule, *expected)
        step = simt.adam_step if isinstance(rule, AdamProblem) else simt.sgd_step
        step("float32", rule, found[0], found[1], tuple(found[2:]), None, False, 0)
        for mine, truth in zip(chain(*found), chain(*expected), strict=True):
            assert_equal(mine, truth, name=str(rule))


def test_a_wrong_kernel_is_caught(simt: ModuleType) -> None:
    def last_tensor_forgotten(
        run: Any, dtype: str, rule: Any, params: Any, grads: Any, states: Any, *rest: Any
    ) -> None:
        run(dtype, rule, params[:-1], grads[:-1], tuple(s[:-1] for s in states), *rest)

    def uncorrected(run: Any, dtype: str, rule: Any, *rest: Any) -> None:
        run(dtype, rule._replace(step=1000), *rest)

    def touches_the_gradient(run: Any, dtype: str, rule: Any, params: Any, grads: Any, *rest: Any) -> None:
        run(dtype, rule, params, [g * np.float32(1.0001) for g in grads], *rest)

    check(simt, ADAM_RULES[0], [5, 9], "float32")
    for wrong in (last_tensor_forgotten, uncorrected, touches_the_gradient):
        with pytest.raises(AssertionError, match="elements are wrong"):
            check(Planted(simt, adam_step=wrong), ADAM_RULES[0], [5, 9], "float32")


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    def arrays(*shapes: Any, dtype: str = "float32") -> list[np.ndarray]:
        return [np.full(shape, 7, dtype) for shape in shapes]

    rule, p = SGD_RULES[3], arrays(4, 3)
    locked = arrays(4, 3)
    locked[1].flags.writeable = False
    good, v = arrays(4, 3), arrays(4, 3)
    calls: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        (("float64", rule, p, good, (v,), None), ValueError, "dtype must be float32, float16 or bfloat16"),
        (("float16", rule, p, good, (v,), None), TypeError, "'parameter' .*must be float16"),
        (("float32", rule, p, good[:1], (v,), None), ValueError, "must be as many of each"),
        (("float32", rule, p, good, (v[:1],), None), ValueError, "must be as many of each"),
        (("float32", rule, p, arrays(4, 4), (v,), None), ValueError, "must have the same shape"),
        (("float32", rule, p, good, (arrays(4, 3, dtype="float16"),), None), TypeError, "'the first state' .*float32"),
        (("float32", rule, locked, good, (v,), None), ValueError, "'parameter' .*is read-only"),
        (("float32", rule, p, p, (v,), None), ValueError, "'parameter' .* and 'gradient' .* overlap"),
        (("float32", rule, p, good, (p,), None), ValueError, "'the first state' .* and 'parameter' .* overlap"),
        (("float32", rule, p, good, (v, v), None), ValueError, "too many lists of state"),
        (("float32", rule, p, good, (v,), np.zeros(3, np.int64)), ValueError, "'flag' .*must have shape"),
        (("float32", rule, p, [good[0], good[1][::-1]], (v,), None), ValueError, "must be C-contiguous"),
    ]
    for arguments, error, message in calls:
        with pytest.raises(error, match=f"^sgd: .*{message}"):
            simt.sgd_step(*arguments, True, 0)
        assert all((a == 7).all() for a in (*p, *good, *v, *locked)), message
    with pytest.raises(ValueError, match=r"^adam: the state is means and squares"):
        simt.adam_step("float32", ADAM_RULES[0], p, good, (v,), None, True, 0)
