"""state_dict and load_state_dict: names as PyTorch's, nothing half loaded, and everything wrong said at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import nn
from gpucnn.testing import assert_close


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3, bias=False))


def contents(model: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.numpy().reshape(-1).tolist() for name, tensor in model.state_dict().items()}


def test_the_state_is_the_modules_own_memory_without_history() -> None:
    model = network()
    state = model.state_dict()
    assert list(state) == ["0.weight", "0.bias", "3.weight"]
    for tensor, parameter in zip(state.values(), model.parameters(), strict=True):
        assert tensor.data is parameter.data
        assert (type(tensor), tensor.requires_grad) == (gpucnn.Tensor, False)


def test_loading_writes_into_the_same_memory() -> None:
    source, target = network(), network()
    assert contents(source) != contents(target)
    memories = [p.data for p in target.parameters()]
    assert target.load_state_dict(source.state_dict()) == ([], [])
    assert contents(source) == contents(target)
    assert all(p.data is memory for p, memory in zip(target.parameters(), memories, strict=True))
    assert not np.shares_memory(target[0].weight.data, source[0].weight.data)  # type: ignore[arg-type]
    assert all(p.requires_grad for p in target.parameters())


@pytest.mark.parametrize(
    "convert", [np.asarray, lambda t: t.tolist(), lambda t: t.to("float64"), lambda t: t.numpy().astype(">f4")]
)
def test_arrays_lists_and_other_dtypes_are_loaded(convert: Any) -> None:
    source, target = network(), network()
    target.load_state_dict({name: convert(tensor) for name, tensor in source.state_dict().items()})
    assert contents(source) == contents(target)
    assert {p.dtype for p in target.parameters()} == {np.dtype("float32")}


def test_filters_stay_channels_last() -> None:
    model = nn.Conv2d(3, 4, 2)
    strides = model.weight.data.strides
    model.load_state_dict({"weight": np.ones((4, 3, 2, 2)), "bias": np.zeros(4)})
    assert model.weight.data.strides == strides


def test_everything_that_does_not_fit_is_said_at_once_and_nothing_is_loaded() -> None:
    model = network()
    before = contents(model)
    state = {
        "0.weight": np.zeros((2, 1, 3, 3)),
        "3.weight": np.zeros((3, 9)),
        "other": np.zeros(1),
        "x": 1.0,
        "y": None,
    }
    with pytest.raises(ValueError, match="state does not fit Sequential") as caught:
        model.load_state_dict(state)
    assert set(str(caught.value).split("\n  ")[1:]) == {
        "3.weight: shape (3, 9), this module has (3, 8)",
        "0.bias: missing",
        "other: unexpected",
        "x: unexpected",
        "y: unexpected",
    }
    assert contents(model) == before


@pytest.mark.parametrize("strict", [True, False])
def test_shapes_and_kinds_that_do_not_fit_are_refused_even_when_lenient(strict: bool) -> None:
    model = network()
    before = contents(model)
    for value, message in (
        (np.zeros((3, 9)), r"3.weight: shape \(3, 9\)"),
        (np.zeros(24), r"3.weight: shape \(24,\)"),
        (None, "3.weight: a tensor holds floats"),
        (np.zeros((3, 8), complex), "3.weight: a tensor holds floats"),
        ([[1.0], [2.0, 3.0]], "3.weight: .*inhomogeneous"),
    ):
        state = {**model.state_dict(), "0.weight": np.zeros((2, 1, 3, 3)), "3.weight": value}
        with pytest.raises(ValueError, match=message):
            model.load_state_dict(state, strict=strict)
        assert contents(model) == before


def test_what_is_no_mapping_is_refused() -> None:
    for state in ("weights.safetensors", [("0.weight", 1)], None):
        with pytest.raises(TypeError, match="takes a mapping of names to tensors, got"):
            network().load_state_dict(state)  # type: ignore[arg-type]


def test_lenient_loading_says_what_it_left_out() -> None:
    model = network()
    bias = model[0].bias.tolist()  # type: ignore[union-attr]
    assert model.load_state_dict({"0.weight": np.ones((2, 1, 3, 3)), "other": None}, strict=False) == (
        ["0.bias", "3.weight"],
        ["other"],
    )
    assert contents(model)["0.weight"] == [1] * 18
    assert contents(model)["0.bias"] == bias
    assert network().load_state_dict({}, strict=False) == (["0.weight", "0.bias", "3.weight"], [])


def test_buffers_are_part_of_the_state() -> None:
    model = nn.CrossEntropyLoss(weight=gpucnn.tensor([1.0, 2.0]))
    assert contents(model) == {"weight": [1, 2]}
    assert list(model.parameters()) == []
    model.load_state_dict({"weight": [3.0, 4.0]})
    assert model.weight is not None
    assert model.weight.tolist() == [3, 4]
    assert nn.CrossEntropyLoss().state_dict() == {}


def test_loading_between_forward_and_backward_is_noticed() -> None:
    model = nn.Linear(2, 1)
    x = gpucnn.ones(1, 2, requires_grad=True)
    loss = model(x).sum()
    model.load_state_dict(nn.Linear(2, 1).state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_converting_between_forward_and_backward_is_no_matter() -> None:
    model = nn.Linear(2, 1)
    x = gpucnn.ones(1, 2, requires_grad=True)
    loss = model(x).sum()
    weights = model.weight.tolist()
    model.to("float64")
    loss.backward()
    assert x.grad is not None
    assert x.grad.tolist() == weights
    assert model.weight.grad is not None
    assert model.weight.grad.dtype == np.float64


# -------------------------------------------------------------------------------------------------- PyTorch


def pair(torch: Any) -> tuple[nn.Module, Any]:
    """The same network twice."""

    def build(layers: Any, sequential: Any, base: Any) -> Any:
        class Net(base):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.features = sequential(
                    layers.Conv2d(3, 4, 3, stride=2, padding=1),
                    layers.ReLU(),
                    layers.Conv2d(4, 4, (3, 1), groups=2, bias=False),
                    layers.MaxPool2d(2),
                    layers.Tanh(),
                    layers.Dropout(0.5),
                )
                self.head = sequential(layers.Flatten(), layers.Linear(16, 5), layers.Sigmoid())
                self.head.append(layers.Linear(5, 2))

            def forward(self, x: Any) -> Any:
                return self.head(self.features(x))

        return Net()

    return build(nn, nn.Sequential, nn.Module), build(torch.nn, torch.nn.Sequential, torch.nn.Module)


@pytest.mark.peers
class TestPyTorch:
    def test_keys_are_the_same_in_the_same_order(self, torch: Any) -> None:
        ours, theirs = pair(torch)
        assert {name: tuple(t.shape) for name, t in ours.state_dict().items()} == {
            name: tuple(t.shape) for name, t in theirs.state_dict().items()
        }
        assert list(ours.state_dict()) == list(theirs.state_dict())

    @pytest.mark.parametrize("ours_first", [True, False])
    def test_values_are_loaded_both_ways(self, torch: Any, ours_first: bool) -> None:
        ours, theirs = pair(torch)
        if ours_first:
            theirs.load_state_dict({name: torch.from_dlpack(t) for name, t in ours.state_dict().items()})
        else:
            ours.load_state_dict(theirs.state_dict())
        images = np.random.default_rng(3).standard_normal((2, 3, 12, 8)).astype(np.float32)
        ours.eval()
        theirs.eval()
        y, z = ours(gpucnn.tensor(images)), theirs(torch.tensor(images))
        assert_close(y.numpy(), z.detach().numpy(), rtol=1e-5, atol=1e-6)
        y.sum().backward()
        z.sum().backward()
        for (name, mine), yours in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert mine.grad is not None
            assert_close(mine.grad.numpy(), yours.grad.numpy(), rtol=1e-4, atol=1e-5, name=name)
