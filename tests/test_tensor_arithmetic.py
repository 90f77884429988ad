"""Arithmetic of tensors with tensors, numbers and arrays: values, dtypes, broadcasting, gradients, and in place."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import Tensor
from gpucnn.testing import assert_close, rotating_seed

SEED = rotating_seed()
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv]
IN_PLACE = [operator.iadd, operator.isub, operator.imul, operator.itruediv]
names = {"ids": lambda value: getattr(value, "__name__", None)}


def draw(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    """Normal numbers that are not near 0, so that dividing by them is well conditioned."""
    rng = np.random.default_rng([SEED, *shape])
    return np.asarray((1 + rng.random(shape)) * rng.choice([-1, 1], shape), dtype)


def summed_to(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The transpose of broadcasting, written out: every element of `gradient` goes where it came from."""
    total = np.zeros(shape)
    for index in np.ndindex(gradient.shape):
        kept = index[len(index) - len(shape) :]
        total[tuple(0 if size == 1 else i for i, size in zip(kept, shape, strict=True))] += gradient[index]
    return total


# ------------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("op", OPERATORS, **names)
@pytest.mark.parametrize(
    "shapes",
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (2, 3)),
        ((2, 1), (1, 3)),
        ((), (2, 3)),
        ((2, 3), ()),
        ((), ()),
        ((2, 3, 4, 5), (3, 1, 1)),
        ((1, 3, 1, 1), (2, 3, 4, 5)),
        ((2, 3, 4, 5), (5,)),
        ((2, 3, 4, 5), (2, 1, 4, 1)),
        ((0, 3), (3,)),
        ((2, 0), (1,)),
        ((1, 2, 3, 4, 5), (2, 3, 4, 5)),
        ((2, 2, 2, 2, 2), (2,)),
    ],
    ids=str,
)
def test_broadcasting_and_its_gradients(op: Any, shapes: Any) -> None:
    a, b = draw(*shapes[0]), draw(*shapes[1])
    x, y = gpucnn.tensor(a, requires_grad=True), gpucnn.tensor(b, requires_grad=True)
    z = op(x, y)
    truth = op(a, b)
    assert type(z.data) is np.ndarray
    assert z.dtype == np.float64
    assert_close(z.numpy(), truth, rtol=1e-15, atol=0)
    weights = draw(*truth.shape) if truth.ndim else np.asarray(1.5)
    z.backward(weights)
    ones = np.ones_like(truth)
    slopes = {
        "add": (ones, ones),
        "sub": (ones, -ones),
        "mul": (ones * b, ones * a),
        "truediv": (ones / b, -a / (ones * b) ** 2),
    }[op.__name__]
    for leaf, array, slope in ((x, a, slopes[0]), (y, b, slopes[1])):
        assert leaf.grad is not None
        assert leaf.grad.shape == array.shape
        assert_close(leaf.grad.numpy(), summed_to(weights * slope, array.shape), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("op", OPERATORS, **names)
@pytest.mark.parametrize("other", [2, 2.5, True, np.float64(2.5), np.int64(2), np.float32(2), np.bool_(True)], ids=repr)
def test_numbers_on_both_sides(op: Any, other: Any) -> None:
    for dtype in ("float16", "float32", "float64"):
        a = np.array([1, -2, 4], dtype)
        number = np.dtype(dtype).type(other)
        for found, truth in ((op(Tensor(a), other), op(a, number)), (op(other, Tensor(a)), op(number, a))):
            assert type(found) is Tensor
            assert found.dtype == dtype
            assert np.array_equal(found.numpy(), truth)


@pytest.mark.parametrize("op", OPERATORS, **names)
def test_arrays_and_lists_on_both_sides(op: Any) -> None:
    a, b = draw(2, 3, dtype=np.float32), draw(3, dtype=np.float32)
    for other in (b, b.tolist(), b.astype(">f4"), b.astype(np.float64).astype(np.float32)):
        for found, truth in ((op(Tensor(a), other), op(a, b)), (op(other, Tensor(a)), op(b, a))):
            assert type(found) is Tensor
            assert found.dtype == np.float32
            assert np.array_equal(found.numpy(), truth)


@pytest.mark.parametrize("op", OPERATORS, **names)
def test_gradients_pass_numbers_and_arrays_by(op: Any) -> None:
    for other in (3.0, np.array([3.0, 3.0], np.float32), [3.0, 3.0], gpucnn.tensor(3.0)):
        for swap in (False, True):
            x = gpucnn.tensor([2.0, -4.0], requires_grad=True)
            (op(other, x) if swap else op(x, other)).sum().backward()
            slope = {"add": 1, "sub": -1 if swap else 1, "mul": 3, "truediv": -3 / x.numpy() ** 2 if swap else 1 / 3}
            assert x.grad is not None
            assert_close(x.grad.numpy(), np.broadcast_to(slope[op.__name__], (2,)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, 0.5, 2.0, -1.5, np.int64(2), np.float32(0.5)], ids=repr)
def test_powers(exponent: Any) -> None:
    a = np.abs(draw(4))
    x = gpucnn.tensor(a, requires_grad=True)
    y = x**exponent
    assert_close(y.numpy(), a ** float(exponent), rtol=1e-14, atol=0)
    y.sum().backward()
    assert x.grad is not None
    assert_close(x.grad.numpy(), float(exponent) * a ** (float(exponent) - 1), rtol=1e-14, atol=0)


def test_functions_of_one_tensor() -> None:
    a = draw(5)
    x = gpucnn.tensor(a, requires_grad=True)
    y = (-x).exp() + (x * x).log() + x.relu()
    assert_close(y.numpy(), np.exp(-a) + np.log(a * a) + np.maximum(a, 0), rtol=1e-14, atol=1e-15)
    y.sum().backward()
    assert x.grad is not None
    assert_close(x.grad.numpy(), -np.exp(-a) + 2 / a + (a > 0), rtol=1e-13, atol=0)


def test_results_without_axes_stay_arrays() -> None:
    x = gpucnn.tensor(2.0, requires_grad=True)
    for y in (x + 1, 1 + x, x * x, x / 2, -x, x**2, x.exp(), x.log(), x.relu(), x.sum(), x.mean(), x > 1, x.argmax()):
        assert isinstance(y.data, np.ndarray)
        assert y.shape == ()
    assert isinstance(gpucnn.tensor([1.0, 2.0])[0].data, np.ndarray)
    ((x * x).sum() * x).backward()
    assert x.grad is not None
    assert isinstance(x.grad.data, np.ndarray)
    assert x.grad.item() == 12


# ------------------------------------------------------------------------------------------------------ dtypes


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        (np.ones(2, "float16"), np.ones(2, "float32"), "float32"),
        (np.ones(2, "float32"), np.ones(2, "float64"), "float64"),
        (np.ones(2, "float32"), np.array(1, "float64"), "float32"),
        (np.array(1, "float32"), np.array(1, "float64"), "float64"),
        (np.ones(2, "int64"), np.ones(2, "float32"), "float32"),
        (np.ones(2, "int64"), np.ones(2, "float16"), "float16"),
        (np.ones(2, "int64"), np.array(1, "float32"), "float32"),
        (np.ones(2, "int8"), np.array(1, "int64"), "int8"),
        (np.ones(2, "int8"), np.ones(2, "int32"), "int32"),
        (np.ones(2, "uint8"), np.ones(2, "int8"), "int16"),
        (np.ones(2, "bool"), np.ones(2, "float32"), "float32"),
        (np.ones(2, "bool"), np.ones(2, "int16"), "int16"),
        (np.ones(2, "int64"), 2.5, "float32"),
        (np.ones(2, "float16"), 2.5, "float16"),
        (np.ones(2, "int16"), 2, "int16"),
        (np.ones(2, "bool"), 2, "int64"),
        (np.ones(2, "int64"), np.float16(2.5), "float32"),
        (np.ones(2, "float32"), np.float64(2.5), "float32"),
        (np.ones(2, "int8"), np.int64(2), "int8"),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else str(value),
)
def test_dtypes_of_a_product(a: np.ndarray, b: Any, dtype: str) -> None:
    other = Tensor(b) if isinstance(b, np.ndarray) else b
    for found in (Tensor(a) * other, other * Tensor(a)):
        assert found.dtype == np.dtype(dtype)
        assert found.tolist() == (a * b).tolist()


def test_quotients_of_integers_are_float32() -> None:
    for found in (gpucnn.tensor([1, 3]) / 2, gpucnn.tensor([1, 3]) / gpucnn.tensor([2, 2], dtype="int8")):
        assert found.dtype == np.float32
        assert found.tolist() == [0.5, 1.5]
    assert (1 / gpucnn.tensor([True, True])).dtype == np.float32
    assert (gpucnn.tensor([1]) / gpucnn.tensor([2.0], dtype="float64")).dtype == np.float64
    for one in (gpucnn.tensor([4]).log(), gpucnn.tensor([4], dtype="int8").exp(), gpucnn.tensor([4]) ** 0.5):
        assert one.dtype == np.float32
    assert (gpucnn.tensor([4]) ** 2).dtype == np.int64


def test_gradients_have_the_dtype_of_what_they_belong_to() -> None:
    x, y = gpucnn.tensor([2.0], "float16", requires_grad=True), gpucnn.tensor([3.0], "float64", requires_grad=True)
    (x * y + x.sum() / y).sum().backward()
    for leaf in (x, y):
        assert leaf.grad is not None
        assert leaf.grad.dtype == leaf.dtype


@pytest.mark.peers
def test_dtypes_are_those_of_pytorch(torch: Any) -> None:
    kinds = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
    values = [np.ones(shape, kind) for kind in kinds for shape in ((2,), ())]
    for (a, b), op in itertools.product(itertools.product(values, values), (operator.mul, operator.truediv)):
        theirs = op(torch.tensor(a), torch.tensor(b)).dtype
        assert str(op(Tensor(a), Tensor(b)).dtype) == str(theirs).removeprefix("torch."), (a.dtype, b.dtype, op)
    for a, number in itertools.product(values, (True, 2, 2.5)):
        for op in (operator.add, operator.truediv):
            theirs = op(torch.tensor(a), number).dtype
            assert str(op(Tensor(a), number).dtype) == str(theirs).removeprefix("torch."), (a.dtype, number, op)


# ------------------------------------------------------------------------------------------------- comparisons


@pytest.mark.parametrize("op", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge], **names)
def test_comparisons(op: Any) -> None:
    a, b = np.array([[1, 2, 3], [3, 2, 1]], np.float32), np.array([2, 2, 2], np.float32)
    x = gpucnn.tensor(a, requires_grad=True)
    for other in (Tensor(b), b, 2, 2.0, np.int64(2), [2, 2, 2]):
        found = op(x, other)
        assert type(found) is Tensor
        assert (found.dtype, found.requires_grad, found.is_leaf) == (np.bool_, False, True)
        assert np.array_equal(found.numpy(), op(a, b))
    mirrored = op(b, x)
    assert type(mirrored) is Tensor
    assert np.array_equal(mirrored.numpy(), op(b, a))


def test_a_number_is_compared_at_the_precision_of_the_tensor() -> None:
    for number in (0.1, np.float64(0.1)):
        assert bool(gpucnn.tensor(0.1) == number)


def test_comparisons_with_what_is_no_number() -> None:
    x = gpucnn.tensor([1.0, 2.0])
    assert (x == None).tolist() == [False, False]  # noqa: E711
    assert (x != "a").tolist() == [True, True]
    for wrong in (None, "a"):
        with pytest.raises(TypeError):
            x < wrong  # noqa: B015
    with pytest.raises(ValueError, match="shapes"):
        x == gpucnn.zeros(3)  # noqa: B015
    assert x in {x}
    assert len({x, gpucnn.tensor([1.0, 2.0])}) == 2


# ----------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("op", OPERATORS, **names)
def test_what_does_not_go_together_is_refused(op: Any) -> None:
    for shape in ((3,), (2, 3), (4, 2, 1, 3)):
        with pytest.raises(ValueError, match=r"shapes .* do not broadcast"):
            op(gpucnn.zeros(2), gpucnn.zeros(*shape))
    for other in ("a", None, 1j, object(), np.zeros(2, np.complex64)):
        with pytest.raises(TypeError):
            op(gpucnn.zeros(2), other)
        with pytest.raises(TypeError):
            op(other, gpucnn.zeros(2))


def test_numbers_that_integers_can_not_hold_are_refused() -> None:
    with pytest.raises(OverflowError, match="300"):
        gpucnn.tensor([1], dtype="int8") + 300


def test_exponents_that_are_no_numbers_are_refused() -> None:
    x = gpucnn.tensor([2.0])
    for run in (lambda: x**x, lambda: 2**x, lambda: np.int64(2) ** x, lambda: x ** [2]):
        with pytest.raises(TypeError, match="unsupported operand"):
            run()


# ----------------------------------------------------------------------------------------------------- in place


@pytest.mark.parametrize("op", IN_PLACE, **names)
def test_in_place_writes_into_the_memory(op: Any) -> None:
    array = np.array([1, 2, 4], np.float32)
    for other in (2.0, np.array([2, 2, 2], np.float32), gpucnn.tensor([2.0, 2.0, 2.0]), gpucnn.tensor(2.0, "float64")):
        x = gpucnn.tensor(array)
        alias, memory = x, x.data
        x = op(x, other)
        assert x is alias
        assert x.data is memory
        assert x.tolist() == op(array.copy(), 2).tolist()


@pytest.mark.parametrize("op", IN_PLACE, **names)
def test_a_training_step_written_by_hand_changes_the_parameter(op: Any) -> None:
    parameter = gpucnn.tensor([4.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="no_grad"):
        op(parameter, 2.0)
    assert parameter.tolist() == [4]
    with gpucnn.no_grad():
        for p in [parameter]:
            op(p, 2.0)
    assert parameter.item() == op(4.0, 2.0)
    assert parameter.requires_grad
    assert parameter.is_leaf


def test_in_place_on_history_means_another_tensor() -> None:
    x = gpucnn.tensor([3.0], requires_grad=True)
    y = x * x
    before = y
    y += x
    assert y is not before
    assert before.tolist() == [9]
    y *= 2.0
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [14]
    total = gpucnn.zeros(1)
    total += x * 5
    total.sum().backward()
    assert x.grad.tolist() == [19]


def test_in_place_refuses_what_its_memory_can_not_hold() -> None:
    for x, other in (
        (gpucnn.tensor([1, 2]), 0.5),
        (gpucnn.tensor([1, 2]), gpucnn.tensor([1.0, 2.0])),
        (gpucnn.tensor([True]), 1),
    ):
        with pytest.raises(TypeError, match="in place"):
            x += other
    with pytest.raises(TypeError, match="in place"):
        operator.itruediv(gpucnn.tensor([4]), 2)
    with pytest.raises(ValueError, match="shape"):
        operator.iadd(gpucnn.zeros(3), gpucnn.zeros(2, 3))


# ------------------------------------------------------------------------------------------------------- logic


@pytest.mark.parametrize("op", [operator.and_, operator.or_, operator.xor], **names)
def test_logic_of_bools_and_bits_of_integers(op: Any) -> None:
    a, b = np.array([[True], [False]]), np.array([True, False, True])
    m, n = np.array([5, -3, 12]), np.array([[3], [6]])
    for x, y in ((a, b), (m, n), (m, a)):
        for found in (op(Tensor(x), Tensor(y)), op(Tensor(x), y), op(x, Tensor(y))):
            assert type(found) is Tensor
            assert (found.dtype, found.requires_grad) == (op(x, y).dtype, False)
            assert np.array_equal(found.numpy(), op(x, y))
    assert op(Tensor(b), True).tolist() == op(b, True).tolist()
    assert op(6, Tensor(m)).tolist() == op(6, m).tolist()


def test_not() -> None:
    assert (~gpucnn.tensor([True, False])).tolist() == [False, True]
    assert (~gpucnn.tensor([5, -1])).tolist() == [-6, 0]
    x = gpucnn.tensor([1.0, 5.0, 3.0])
    assert x[~(x > 2) | (x == 5)].tolist() == [1, 5]


def test_logic_of_floats_is_refused() -> None:
    x = gpucnn.tensor([1.0])
    for run in (lambda: x & x, lambda: x | True, lambda: 1 ^ x, lambda: gpucnn.tensor([1]) & 1.5, lambda: ~x):
        with pytest.raises(TypeError, match="takes bools and integers, got float32"):
            run()
    with pytest.raises(ValueError, match=r"&: shapes .* do not broadcast"):
        gpucnn.zeros(2, dtype="bool") & gpucnn.zeros(3, dtype="bool")
