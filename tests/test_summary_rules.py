"""The table of rules: no op forgotten, multiply-accumulates by definition, pixels that no window reads."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest
from op_checks import SEED

import gpucnn
import gpucnn.ops
from gpucnn import Tensor, nn
from gpucnn import functional as F
from gpucnn.autograd import Function
from gpucnn.books import Lost, summary
from gpucnn.books.rules import RULES
from gpucnn.books.unread import in_words, unread
from gpucnn.problem import conv2d_problem, pool2d_problem


def ops() -> dict[str, type[Function]]:
    """Every Function that a module of gpucnn.ops offers."""
    found = {}
    for module_info in pkgutil.iter_modules(gpucnn.ops.__path__):
        module = importlib.import_module(f"gpucnn.ops.{module_info.name}")
        for name, value in vars(module).items():
            is_op = isinstance(value, type) and issubclass(value, Function) and value is not Function
            if is_op and not name.startswith("_"):
                found[f"{module_info.name}.{name}"] = value
    return found


@pytest.mark.parametrize("function", ops().values(), ids=ops())
def test_every_op_has_a_rule(function: type[Function]) -> None:
    assert function in RULES, "give the op a line in gpucnn/books/rules.py: what it costs, what its results see"


def test_the_table_names_ops_alone() -> None:
    assert set(RULES) == set(ops().values())


# ------------------------------------------------------------------------------------ multiply-accumulates


def macs(layer: Any, shape: tuple[int, ...]) -> int:
    return summary(layer, shape).macs


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(3, 10, 5), (3, 32, 32), 28 * 28 * 10 * 5 * 5 * 3),
        (nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), (8, 15, 9), 8 * 5 * 12 * 9 * 8),
        (nn.Conv2d(8, 12, (3, 1), dilation=2, groups=4), (8, 9, 9), 5 * 9 * 12 * 3 * 2),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (8, 6, 6), 36 * 8 * 9),
        (nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), (6, 5, 7), 5 * 7 * 6 * 4 * 9),
        (nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2), (6, 5, 7), 5 * 7 * 6 * 2 * 4),
        (nn.Conv1d(4, 6, 3), (4, 10), 8 * 6 * 3 * 4),
        (nn.Linear(7, 5), (7,), 35),
        (nn.Linear(7, 5), (3, 7), 3 * 35),
        (nn.BatchNorm2d(4), (4, 6, 6), 0),
        (nn.MaxPool2d(2), (4, 6, 6), 0),
        (nn.ReLU(), (4, 6, 6), 0),
    ],
    ids=repr,
)
def test_macs_by_definition(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert macs(layer, shape) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [((5, 3), (3, 4), 60), ((2, 5, 3), (3, 4), 120), ((2, 5, 3), (2, 3, 1), 30), ((3,), (3,), 3), ((2, 3), (3,), 6)],
)
def test_macs_of_matrix_products(a: tuple[int, ...], b: tuple[int, ...], expected: int) -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return gpucnn.ones(*a) @ gpucnn.ones(*b) + x.sum()

    assert macs(Product(), (1,)) == expected


# -------------------------------------------------------------------------------------------- unknown ops


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x**3


class Cubed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Cube.apply(x)  # type: ignore[no-any-return]


def test_an_op_without_a_rule_is_shown_and_named() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3), Cubed(), nn.ReLU())
    books = summary(net, (1, 5, 5))
    assert [layer.unknown for layer in books.layers] == [(), (), ("Cube",), ()]
    assert books.layers[2].field == books.layers[3].field == (Lost(), Lost())
    assert books.macs == 81
    lines = str(books).splitlines()
    row = next(line for line in lines if line.startswith("1 "))
    assert row.split()[:4] == ["1", "Cubed", "1x3x3", "?"]
    total = next(line for line in lines if line.startswith("total"))
    assert "81 + ?" in total
    assert "not counted: 1 (Cubed) runs Cube, an op without a rule" in lines
    assert books.to_dict()["totals"]["ops_without_rule"] == ["Cube"]
    assert books.to_dict()["layers"][2]["receptive_field"] == ["?", "?"]


# ---------------------------------------------------------------------------------------- pixels left out


def test_the_textbooks_stride_that_does_not_fit() -> None:
    books = summary(nn.Conv2d(1, 1, 3, stride=3), (1, 7, 7))
    assert books.layers[1].unread == ("row 6 of 7", "column 6 of 7")
    assert "unused pixels: Conv2d never reads row 6 of 7 and column 6 of 7 of its input" in str(books)
    for stride in (1, 2):
        assert summary(nn.Conv2d(1, 1, 3, stride=stride), (1, 7, 7)).layers[1].unread == ()


@pytest.mark.parametrize(
    ("numbers", "size", "words"),
    [
        ([], 7, ""),
        ([6], 7, "row 6 of 7"),
        ([5, 6], 7, "rows 5-6 of 7"),
        ([0, 1, 2, 3, 4], 9, "rows 0-4 of 9"),
        ([0, 6], 7, "rows 0, 6 (2 of 7)"),
        ([1, 3, 5, 7], 8, "rows 1, 3, 5, 7 (4 of 8)"),
        (list(range(1, 56, 2)), 56, "rows 1, 3, 5, ..., 55 (28 of 56)"),
    ],
)
def test_rows_in_words(numbers: list[int], size: int, words: str) -> None:
    assert in_words("row", numbers, size) == words


def test_pixels_that_no_window_reads_by_brute_force() -> None:
    """Against a convolution by ones: a row is unread if raising it changes nothing."""
    rng = np.random.default_rng(SEED)
    checked = 0
    for _ in range(60):
        size, taps, stride, dilation = (int(rng.integers(1, high)) for high in (14, 5, 6, 3))
        padding = int(rng.integers(0, 3))
        if size + 2 * padding < dilation * (taps - 1) + 1:
            continue
        arguments = ((1, 1, size, size), (1, 1, taps, taps), stride, padding, dilation, 1)
        x = np.zeros((size, 1, size, size), np.float32)
        x[np.arange(size), 0, np.arange(size)] = 1
        y = F.conv2d(gpucnn.tensor(x), gpucnn.ones(1, 1, taps, taps), None, stride, padding, dilation).numpy()
        dead = np.flatnonzero(~(y != 0).any(axis=(1, 2, 3))).tolist()
        expected = tuple(words for kind in ("row", "column") if (words := in_words(kind, dead, size)))
        assert unread(conv2d_problem(*arguments)) == expected, (SEED, arguments)
        checked += 1
    assert checked >= 20


def test_pooling_leaves_out_what_its_last_window_does_not_reach() -> None:
    assert unread(pool2d_problem("max_pool2d", (1, 1, 7, 8), 2, None, 0, 1, False)) == ("row 6 of 7",)
    assert unread(pool2d_problem("max_pool2d", (1, 1, 7, 8), 2, None, 0, 1, True)) == ()
    assert unread(pool2d_problem("max_pool2d", (1, 1, 112, 112), 3, 2, 1, 1, False)) == ()


def test_the_shortcut_of_a_residual_network_steps_over_three_quarters() -> None:
    books = summary(nn.Conv2d(2, 4, 1, stride=2), (2, 56, 56))
    assert books.layers[1].unread == ("rows 1, 3, 5, ..., 55 (28 of 56)", "columns 1, 3, 5, ..., 55 (28 of 56)")
