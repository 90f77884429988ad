"""Modules in a row, in a list, by name; and those that change shapes or nothing."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import nn
from gpucnn.testing import assert_equal


def linears(*sizes: int) -> list[nn.Linear]:
    return [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_children()]


# ------------------------------------------------------------------------------------------------------ Sequential


def test_a_sequential_takes_an_ordered_dict() -> None:
    model = nn.Sequential(OrderedDict([("first", nn.Linear(3, 4)), ("act", nn.ReLU()), ("last", nn.Linear(4, 2))]))
    assert list(model.state_dict()) == ["first.weight", "first.bias", "last.weight", "last.bias"]
    assert model.first is model[0]
    assert model[-1] is model.last
    assert names(model[1:]) == ["act", "last"]
    assert model(gpucnn.ones(5, 3)).shape == (5, 2)


@pytest.mark.parametrize("kind", [nn.Sequential, nn.ModuleList])
def test_modules_are_put_in_replaced_and_taken_out(kind: Any) -> None:
    a, b, c, d = linears(1, 2, 3, 4, 5)
    row = kind(a, b) if kind is nn.Sequential else kind([a, b])
    assert row.extend([c]) is row
    assert row.insert(1, d) is row
    assert (list(row), names(row)) == ([a, d, b, c], ["0", "1", "2", "3"])
    row[-1] = d
    assert list(row) == [a, d, b, d]
    assert names(row) == ["0", "1", "2", "3"]
    assert row.pop(0) is a
    assert (list(row), names(row)) == ([d, b, d], ["0", "1", "2"])
    del row[1]
    assert (list(row), names(row)) == ([d, d], ["0", "1"])
    assert row.append(c) is row
    del row[:2]
    assert (list(row), names(row), len(row)) == ([c], ["0"], 1)
    assert c in row
    assert row.pop() is c
    assert len(row) == 0


@pytest.mark.parametrize("kind", [nn.Sequential, nn.ModuleList])
def test_positions_and_modules_that_are_none_are_refused(kind: Any) -> None:
    row = kind(nn.ReLU()) if kind is nn.Sequential else kind([nn.ReLU()])
    for run in (lambda: row[1], lambda: row[-2], lambda: row.pop(3), lambda: row.__setitem__(1, nn.ReLU())):
        with pytest.raises(IndexError, match=rf"{kind.__name__}: no module -?\d, there are 1"):
            run()
    for run in (
        lambda: row.append(3),
        lambda: row.insert(0, 3),
        lambda: row.__setitem__(0, 3),
        lambda: row.extend([3]),
    ):
        with pytest.raises(TypeError, match=f"{kind.__name__} takes modules, got int at"):
            run()
    with pytest.raises(TypeError, match="an index must be an integer"):
        row["0"]
    assert len(row) == 1


# ------------------------------------------------------------------------------------------------------ ModuleList


class Branches(nn.Module):
    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: gpucnn.Tensor) -> gpucnn.Tensor:
        return gpucnn.cat([layer(x) for layer in self.layers], 1)


def test_a_list_is_registered_and_trained() -> None:
    model = Branches(nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 4)]))
    assert list(model.state_dict()) == [
        *("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"),
    ]
    model(gpucnn.ones(5, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not model.eval().layers[1].training


def test_a_list_is_sliced_joined_and_not_called() -> None:
    a, b, c = linears(1, 2, 3, 4)
    row = nn.ModuleList([a, b, c])
    assert isinstance(row[1:], nn.ModuleList)
    assert (list(row[1:]), names(row[1:])) == ([b, c], ["0", "1"])
    assert list(row + [a]) == [a, b, c, a]  # noqa: RUF005
    row += [a]
    assert list(row) == [a, b, c, a]
    assert list(nn.ModuleList()) == []
    assert list(nn.ModuleList(iter([a]))) == [a]
    with pytest.raises(NotImplementedError, match="does not define forward"):
        row(gpucnn.ones(1, 1))


# ------------------------------------------------------------------------------------------------------ ModuleDict


def test_a_dict_is_registered_under_its_names() -> None:
    layers = nn.ModuleDict({"conv": nn.Conv2d(1, 2, 3), "act": nn.ReLU()})
    assert list(layers.state_dict()) == ["conv.weight", "conv.bias"]
    assert (list(layers), list(layers.keys()), len(layers)) == (["conv", "act"], ["conv", "act"], 2)
    assert [type(module).__name__ for module in layers.values()] == ["Conv2d", "ReLU"]
    assert dict(layers.items())["act"] is layers["act"]
    assert "act" in layers
    assert "pool" not in layers
    layers["pool"] = nn.MaxPool2d(2)
    layers.update([("act", nn.Tanh()), ("drop", nn.Dropout())])
    assert names(layers) == ["conv", "act", "pool", "drop"]
    assert isinstance(layers["act"], nn.Tanh)
    assert isinstance(layers.pop("drop"), nn.Dropout)
    del layers["conv"]
    assert list(layers.parameters()) == []
    layers.clear()
    assert len(layers) == 0


def test_a_dict_refuses_what_it_can_not_hold() -> None:
    layers = nn.ModuleDict()
    with pytest.raises(KeyError, match="missing"):
        layers["missing"]
    for name, module, error in (("a", 3, TypeError), (1, nn.ReLU(), TypeError), ("a.b", nn.ReLU(), ValueError)):
        with pytest.raises(error):
            layers[name] = module  # type: ignore[index, assignment]
    with pytest.raises(ValueError, match="names an attribute of the class"):
        layers["keys"] = nn.ReLU()
    assert len(layers) == 0


@pytest.mark.peers
def test_names_and_pictures_are_pytorchs(torch: Any) -> None:
    def build(layers: Any) -> Any:
        inner = layers.ModuleDict({"a": layers.Linear(2, 3), "b": layers.Identity()})
        row = layers.ModuleList(
            [layers.Linear(1, 2), inner, layers.Sequential(layers.Flatten(), layers.Unflatten(1, (2, 3)))]
        )
        row.insert(0, layers.ReLU())
        del row[2:3]
        row.append(layers.ZeroPad2d(2))
        return row

    ours, theirs = build(nn), build(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]


# ---------------------------------------------------------------------------------------------------------- shapes


def test_identity_takes_and_returns_anything() -> None:
    x = gpucnn.ones(2)
    assert nn.Identity()(x) is x
    assert nn.Identity(54, unused=True)(None) is None


def test_unflatten() -> None:
    x = gpucnn.tensor(np.arange(24.0).reshape(2, 12))
    for layer in (nn.Unflatten(1, (3, 2, 2)), nn.Unflatten(-1, [3, -1, 2])):  # type: ignore[arg-type]
        assert_equal(layer(x), x.numpy().reshape(2, 3, 2, 2))
    assert repr(nn.Unflatten(1, (3, 2, 2))) == "Unflatten(dim=1, unflattened_size=(3, 2, 2))"
    with pytest.raises(ValueError, match=r"shape \(12,\) has 12 elements, \(5, 2\) does not"):
        nn.Unflatten(1, (5, 2))(x)
    with pytest.raises(TypeError, match="unflattened_size must be a tuple of integers, got 3"):
        nn.Unflatten(1, 3)  # type: ignore[arg-type]
