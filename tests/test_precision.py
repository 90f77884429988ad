"""What float32 may be rounded to: the setting, the argument, and that gradients keep to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from op_checks import SEED

import gpucnn
from gpucnn import functional as F
from gpucnn.ops.registry import KernelTable, observe_calls


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = gpucnn.float32_precision()
    yield
    gpucnn.set_float32_precision(before)


def drawn(*shape: int, stream: int = 0) -> Any:
    array = np.random.default_rng([SEED, 21, stream]).standard_normal(shape).astype(np.float32)
    tensor = gpucnn.tensor(array)
    tensor.requires_grad = True
    return tensor


def kernels_of(call: Any) -> dict[str, str]:
    """The kernel of each pass of a call and its gradients."""
    found: dict[str, str] = {}

    def note(table: KernelTable, problem: Any, arrays: Any, kernel: str | None, like: Any) -> Any:
        spec = table.pick(problem, like, kernel)
        found[str(table)] = spec.name
        return spec.run(problem, *arrays)

    with observe_calls(note):
        call().sum().backward()
    return found


def test_the_default_is_exact() -> None:
    assert gpucnn.float32_precision() == "highest"


def test_what_is_set_holds_until_it_is_set_again() -> None:
    gpucnn.set_float32_precision("high")
    assert gpucnn.float32_precision() == "high"
    with pytest.raises(ValueError, match="precision must be 'highest' or 'high', got 'medium'"):
        gpucnn.set_float32_precision("medium")
    assert gpucnn.float32_precision() == "high"


@pytest.mark.parametrize("function", [F.conv2d, F.conv2d_relu, F.conv_transpose2d])
def test_an_unknown_one_is_refused_by_name(function: Any) -> None:
    with pytest.raises(ValueError, match=f"{function.__name__}: precision must be 'highest' or 'high', got 'low'"):
        function(drawn(1, 4, 5, 5), drawn(4, 4, 1, 1, stream=1), precision="low")


def test_the_argument_goes_before_the_setting_and_gradients_keep_to_it(simt: Any) -> None:
    x, w = drawn(2, 64, 6, 6), drawn(64, 64, 3, 3, stream=1)

    def call(precision: str | None) -> Any:
        return lambda: F.conv2d(x, w, padding=1, precision=precision)

    passes = ("conv2d fprop", "conv2d dgrad", "conv2d wgrad")
    for setting, argument, rounds in (
        ("highest", None, False),
        ("highest", "high", True),
        ("high", None, True),
        ("high", "highest", False),
    ):
        gpucnn.set_float32_precision(setting)
        found = kernels_of(call(argument))
        assert [found[name].startswith("tf32") for name in passes] == [rounds] * 3, (setting, argument)


def test_linear_layers_keep_to_the_setting(simt: Any) -> None:
    x, w = drawn(70, 64), drawn(64, 64, stream=1)
    for setting, rounds in (("highest", False), ("high", True)):
        gpucnn.set_float32_precision(setting)
        found = kernels_of(lambda: F.linear(x, w))
        assert [found[f"linear {name}"] == "tf32" for name in ("fprop", "dgrad", "wgrad")] == [rounds] * 3


def test_other_dtypes_do_not_care(simt: Any) -> None:
    x, w = drawn(1, 16, 5, 5), drawn(8, 16, 3, 3, stream=1)
    halves = [tensor.detach().to("float16") for tensor in (x, w)]
    found = [F.conv2d(*halves, precision=precision).numpy().tobytes() for precision in ("highest", "high")]
    assert found[0] == found[1]
