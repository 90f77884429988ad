"""Functions and layers that PyTorch has too take its parameters: the same names, order and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from gpucnn import functional, nn

Parameters = dict[str, inspect.Parameter]
EMPTY, BY_NAME = inspect.Parameter.empty, inspect.Parameter.KEYWORD_ONLY

# PyTorch's parameters that nothing here has: where a layer's tensors are made (`.to(...)` moves them), what reduction=
# replaced in 2018, how deep a warning points, memory for the result, random numbers from elsewhere than manual_seed.
NOT_OURS = {"device", "size_average", "reduce", "_stacklevel", "out", "generator"}
# Of layers alone, whose tensors take on another dtype by `.to(dtype)`.
MADE_IN_FLOAT32 = {"dtype"}
# Ours alone, by name only.
OURS = {"kernel", "precision", "scale", "shift", "residual", "moments", "return_moments"}
# What else differs.
DIFFERENT: dict[str, set[str]] = {
    # By name only: in PyTorch's order _stacklevel is before it.
    "softmax": {"dtype"},
    "softmin": {"dtype"},
    "log_softmax": {"dtype"},
    # The older names of min_val and max_val.
    "Hardtanh": {"min_value", "max_value"},
    # By default () and not None.
    "ModuleDict": {"modules"},
    "ModuleList": {"modules"},
    # Has no default: there are no parameters without numbers.
    "Parameter": {"data"},
    # The number has another name.
    "constant_": {"val", "value"},
    # Any number of arguments, under another name.
    "Sequential": {"args", "modules"},
    "Identity": {"args", "arguments", "kwargs", "options"},
}


def shared(torch: Any) -> list[tuple[str, str, Any, Any]]:
    """(place, name, ours, PyTorch's) of every public function and layer that PyTorch has; functions also in torch."""
    initial = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]
    places = [
        ("functional", functional, functional.__all__, (torch.nn.functional, torch)),
        ("nn", nn, set(nn.__all__) - {"init"}, (torch.nn,)),
        ("init", nn.init, initial, (torch.nn.init,)),
    ]
    return [
        (place, name, getattr(here, name), next(getattr(home, name) for home in homes if hasattr(home, name)))
        for place, here, names, homes in places
        for name in sorted(names)
        if any(hasattr(home, name) for home in homes)
    ]


def parameters(torch: Any, function: Callable[..., Any]) -> Parameters:
    """The parameters of a function or class; of a builtin as the first line of its docstring has them."""
    if isinstance(function, type) and function.__init__ is torch.nn.Module.__init__:
        return {}  # declares whatever arguments, and refuses any
    try:
        found = inspect.signature(function)
    except ValueError:
        found = None
    if found is None or (list(found.parameters) == ["args", "kwargs"] and not isinstance(function, type)):
        line = next(line for line in str(function.__doc__).splitlines() if line.strip())
        text = line.partition("(")[2].rpartition(")")[0]
        found = inspect.signature(eval(f"lambda {text}: 0"))
    return dict(found.parameters)


def differences(
    ours: dict[str, inspect.Parameter], peers: dict[str, inspect.Parameter], allowed: set[str]
) -> list[str]:
    """In words, what `allowed` and the tables above do not have."""
    said = [f"{name} is missing" for name in peers if name not in ours and name not in allowed]
    said += [f"{name} is not PyTorch's" for name in ours if name not in peers and name not in allowed | OURS]
    both = [name for name in ours if name in peers and name not in allowed]
    if both != [name for name in peers if name in both]:
        said.append(f"{', '.join(both)} is the order")
    for name in both:
        if ours[name].kind is BY_NAME and peers[name].kind is not BY_NAME:
            said.append(f"{name} is taken by name only")
        default, expected = ours[name].default, peers[name].default
        if (default is EMPTY) != (expected is EMPTY) or (default is not EMPTY and default != expected):
            said.append(f"{name} has the default {default}, not {expected}")
    return said + [f"{name} is taken by position" for name in OURS if name in ours and ours[name].kind is not BY_NAME]


def allowed(place: str) -> set[str]:
    return NOT_OURS | MADE_IN_FLOAT32 if place == "nn" else NOT_OURS


@pytest.mark.peers
def test_parameters_are_pytorchs(torch: Any) -> None:
    compared = shared(torch)
    assert len(compared) > 120
    for place, name, ours, peer in compared:
        fine = allowed(place) | DIFFERENT.get(name, set())
        said = differences(parameters(torch, ours), parameters(torch, peer), fine)
        assert said == [], f"{place}.{name}: {'; '.join(said)}"


@pytest.mark.peers
def test_every_difference_allowed_is_one(torch: Any) -> None:
    for place, name, ours, peer in shared(torch):
        said = differences(parameters(torch, ours), parameters(torch, peer), allowed(place))
        assert {line.partition(" ")[0] for line in said} == DIFFERENT.get(name, set()), f"{place}.{name}"


@pytest.mark.peers
def test_layers_are_called_as_pytorchs(torch: Any) -> None:
    """Beside their input, whatever that is called."""
    for place, name, *layers in shared(torch):
        if place == "nn" and hasattr(layers[0], "forward") and name not in ("Module", "Sequential"):
            ours, peers = (list(inspect.signature(layer.forward).parameters.items()) for layer in layers)
            said = differences(dict(ours[2:]), dict(peers[2:]), set())
            assert said == [], f"nn.{name}.forward: {'; '.join(said)}"


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        (lambda input, stride=2, padding=0: 0, "stride has the default 2, not 1"),
        (lambda input, padding=0, stride=1: 0, "input, padding, stride is the order"),
        (lambda input, stride=1: 0, "padding is missing"),
        (lambda input, stride, padding=0: 0, "stride has the default"),
        (lambda input, stride=1, padding=0, more=0: 0, "more is not PyTorch's"),
        (lambda input, stride=1, *, padding=0: 0, "padding is taken by name only"),
        (lambda input, stride=1, padding=0, kernel=None: 0, "kernel is taken by position"),
        (lambda input, stride=1, padding=0, *, kernel=None: 0, None),
    ],
)
def test_differences_are_found(ours: Callable[..., Any], message: str | None) -> None:
    expected = dict(inspect.signature(lambda input, stride=1, padding=0: 0).parameters)
    said = differences(dict(inspect.signature(ours).parameters), expected, set())
    assert (said == []) if message is None else any(message in line for line in said)
