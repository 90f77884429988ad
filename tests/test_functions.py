"""The methods of a Tensor as functions of the package, as PyTorch has them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn.functional import arithmetic
from gpucnn.testing import assert_equal

METHODS = sorted(
    name for name, value in vars(arithmetic).items() if inspect.isfunction(value) and not name.startswith("_")
)
FUNCTIONS = [name for name in METHODS if name not in ("a_tensor", "choose", "where")]
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "argsort": (1,),
    "broadcast_to": ((2, 2, 3),),
    "chunk": (2, 1),
    "clamp": (-1, 1),
    "cumsum": (0,),
    "flip": ((0,),),
    "logsumexp": (1,),
    "masked_fill": (np.array([True, False, True]), 2),
    "matmul": (gpucnn.ones(3, 2, dtype="float64"),),
    "maximum": (gpucnn.ones(3),),
    "minimum": (gpucnn.ones(3),),
    "movedim": (0, 1),
    "narrow": (1, 0, 2),
    "permute": ((1, 0),),
    "pow": (2,),
    "reshape": ((3, 2),),
    "roll": (1,),
    "split": (1,),
    "topk": (2,),
    "transpose": (0, 1),
    "unsqueeze": (0,),
}
X = np.array([[0.5, 2.0, 3.0], [1.5, 0.25, 4.0]])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_the_method(name: str) -> None:
    x, arguments = gpucnn.tensor(X), ARGUMENTS.get(name, ())
    found, expected = getattr(gpucnn, name)(x, *arguments), getattr(x, name)(*arguments)
    for ours, truth in zip(*[r if isinstance(r, tuple) else (r,) for r in (found, expected)], strict=True):
        assert_equal(ours, truth.numpy())
    assert getattr(gpucnn, name).__doc__ == getattr(gpucnn.Tensor, name).__doc__
    assert getattr(gpucnn, name).__name__ == name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_refuses_what_is_no_tensor(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}: input must be a gpucnn.Tensor, got ndarray"):
        getattr(gpucnn, name)(X, *ARGUMENTS.get(name, ()))


def test_input_may_be_named_as_in_pytorch() -> None:
    assert gpucnn.sum(input=gpucnn.tensor(X), dim=0).tolist() == X.sum(0).tolist()  # type: ignore[call-arg]


@pytest.mark.peers
def test_pytorch_has_them_all(torch: Any) -> None:
    ours = set(FUNCTIONS) | {"where", "cat", "stack", "flatten", "arange", "eye", "full", "rand", "randn", "zeros_like"}
    assert {name for name in ours if not hasattr(torch, name)} == set()
    assert ours <= set(gpucnn.__all__)
    methods = set(FUNCTIONS) | {"expand", "repeat", "unflatten", "view", "where"}
    assert {name for name in methods if not hasattr(torch.Tensor, name)} == set()
    assert {name for name in methods if not hasattr(gpucnn.Tensor, name)} == set()
