"""Normalisation layers: what they hold, save, load and pass on, in training and evaluation, as PyTorch's do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_checks import draw

import gpucnn
from gpucnn import nn
from gpucnn.testing import assert_close, assert_equal

X = draw("normal", (4, 6, 3, 5)) * 2 + 1

LAYERS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "batch 2d": ("BatchNorm2d", (6,), {}, (4, 6, 3, 5)),
    "batch 2d, average": ("BatchNorm2d", (6, 1e-3, None), {}, (4, 6, 3, 5)),
    "batch 2d, plain": ("BatchNorm2d", (6,), {"affine": False}, (4, 6, 3, 5)),
    "batch 2d, no bias": ("BatchNorm2d", (6,), {"bias": False, "momentum": 0.3}, (4, 6, 3, 5)),
    "batch 2d, untracked": ("BatchNorm2d", (6,), {"track_running_stats": False}, (4, 6, 3, 5)),
    "batch 1d": ("BatchNorm1d", (6,), {"eps": 1e-2}, (20, 6)),
    "batch 1d, sequences": ("BatchNorm1d", (6,), {}, (4, 6, 5)),
    "instance 2d": ("InstanceNorm2d", (6,), {}, (4, 6, 3, 5)),
    "instance 2d, one image": ("InstanceNorm2d", (6,), {"affine": True}, (6, 3, 5)),
    "instance 2d, tracked": ("InstanceNorm2d", (6,), {"affine": True, "track_running_stats": True}, (4, 6, 3, 5)),
    "instance 2d, still": ("InstanceNorm2d", (6,), {"momentum": None, "track_running_stats": True}, (4, 6, 3, 5)),
    "instance 1d": ("InstanceNorm1d", (6,), {"affine": True, "bias": False}, (4, 6, 5)),
    "instance 1d, one": ("InstanceNorm1d", (6,), {"track_running_stats": True}, (6, 5)),
    "group": ("GroupNorm", (3, 6), {}, (4, 6, 3, 5)),
    "group, plain": ("GroupNorm", (2, 6, 1e-2), {"affine": False}, (4, 6)),
    "group, no bias": ("GroupNorm", (2, 6), {"bias": False}, (4, 6, 3)),
    "layer": ("LayerNorm", ((6, 3, 5),), {}, (4, 6, 3, 5)),
    "layer, last": ("LayerNorm", (5,), {"bias": False}, (4, 6, 3, 5)),
    "layer, plain": ("LayerNorm", ([3, 5], 1e-3, False), {}, (4, 6, 3, 5)),
    "local response": ("LocalResponseNorm", (3,), {"alpha": 0.5}, (4, 6, 3, 5)),
}


def both(name: str, torch: Any) -> tuple[nn.Module, Any, tuple[int, ...]]:
    """Our layer and PyTorch's, in float64, with the same random parameters."""
    kind, arguments, options, shape = LAYERS[name]
    ours = getattr(nn, kind)(*arguments, **options).to("float64")
    theirs = getattr(torch.nn, kind)(*arguments, **options).double()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.tensor(rng.standard_normal(tuple(parameter.shape))))
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs, shape


@pytest.mark.peers
@pytest.mark.parametrize("name", LAYERS)
def test_three_batches_and_evaluation_are_pytorchs(name: str, torch: Any) -> None:
    ours, theirs, shape = both(name, torch)
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, tuple(v.shape)) for k, v in theirs.state_dict().items()
    ]
    for number in range(4):
        if number == 3:
            ours.eval()
            theirs.eval()
        x = draw("normal", shape, number) * (number + 1) + number
        leaf, mine = torch.tensor(x, requires_grad=True), gpucnn.tensor(x, requires_grad=True)
        y, z = theirs(leaf), ours(mine)
        y.backward(torch.ones_like(y) + leaf.detach())
        z.backward(1 + x)
        assert_close(z, y.detach().numpy(), rtol=1e-9, atol=1e-9)
        assert_close(mine.grad, leaf.grad.numpy(), rtol=1e-9, atol=1e-9)
        for key, value in theirs.state_dict().items():
            state = ours.state_dict()[key]
            assert state.dtype.name == str(value.dtype).removeprefix("torch.")
            assert_close(state.to("float64"), value.double().numpy(), rtol=1e-10, atol=1e-10, name=key)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(a.grad, b.grad.numpy(), rtol=1e-9, atol=1e-9 * max(1, float(b.grad.abs().max())))


@pytest.mark.peers
@pytest.mark.parametrize("name", LAYERS)
def test_layers_print_as_pytorchs(name: str, torch: Any) -> None:
    kind, arguments, options, _ = LAYERS[name]
    assert repr(getattr(nn, kind)(*arguments, **options)) == repr(getattr(torch.nn, kind)(*arguments, **options))


def test_what_a_new_batch_norm_holds() -> None:
    layer = nn.BatchNorm2d(3)
    state = layer.state_dict()
    assert list(state) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert {key: (value.tolist(), value.dtype.name) for key, value in state.items()} == {
        "weight": ([1, 1, 1], "float32"),
        "bias": ([0, 0, 0], "float32"),
        "running_mean": ([0, 0, 0], "float32"),
        "running_var": ([1, 1, 1], "float32"),
        "num_batches_tracked": (0, "int64"),
    }
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert list(nn.BatchNorm2d(3, track_running_stats=False).state_dict()) == ["weight", "bias"]
    assert list(nn.InstanceNorm2d(3).state_dict()) == []
    assert nn.LayerNorm(3, bias=False).bias is None


def test_batches_are_counted_in_training_alone() -> None:
    layer = nn.BatchNorm2d(6)
    memory = layer.num_batches_tracked.data
    x = gpucnn.tensor(X, "float32")
    layer(x)
    layer(x)
    layer.eval()(x)
    assert (layer.num_batches_tracked.item(), layer.num_batches_tracked.data is memory) == (2, True)


def test_without_momentum_statistics_are_the_average_of_all_batches() -> None:
    layer = nn.BatchNorm2d(6, momentum=None)
    batches = [draw("normal", (4, 6, 3, 5), stream) for stream in range(5)]
    for batch in batches:
        layer(gpucnn.tensor(batch, "float32"))
    assert_close(layer.running_mean, np.mean([b.mean(axis=(0, 2, 3)) for b in batches], axis=0), rtol=1e-5, atol=1e-6)
    variances = [b.var(axis=(0, 2, 3), ddof=1) for b in batches]
    assert_close(layer.running_var, np.mean(variances, axis=0), rtol=1e-5, atol=0)
    layer.reset_running_stats()
    assert (layer.running_mean.tolist(), layer.running_var.tolist()) == ([0] * 6, [1] * 6)
    assert layer.num_batches_tracked.item() == 0


def test_a_batch_that_is_refused_is_not_counted() -> None:
    layer = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(gpucnn.ones(1, 3))
    assert layer.num_batches_tracked.item() == 0
    assert layer.eval()(gpucnn.ones(1, 3)).shape == (1, 3)


def test_statistics_move_also_where_nothing_is_recorded() -> None:
    layer = nn.BatchNorm2d(6)
    with gpucnn.no_grad():
        layer(gpucnn.tensor(X, "float32"))
    assert layer.running_mean.tolist() != [0] * 6
    assert not layer.running_mean.requires_grad


def test_evaluation_without_statistics_uses_the_batchs() -> None:
    x = gpucnn.tensor(X, "float32")
    layer = nn.BatchNorm2d(6, track_running_stats=False)
    assert_equal(layer(x), layer.eval()(x))


def test_a_float16_network_may_keep_its_norms_in_float32() -> None:
    layer = nn.BatchNorm2d(6)
    x = gpucnn.tensor(X, "float16", requires_grad=True)
    y = layer(x)
    y.backward(y.detach())
    assert (y.dtype, x.grad.dtype, layer.weight.grad.dtype, layer.running_mean.dtype) == (
        *("float16", "float16"),
        *("float32", "float32"),
    )
    half = nn.BatchNorm2d(6).to("float16")
    half(x)
    assert (half.running_mean.dtype, half.num_batches_tracked.dtype) == ("float16", "int64")


# ---------------------------------------------------------------------------------------------------- states


def test_a_state_from_before_batches_were_counted_is_loaded() -> None:
    source, target = nn.Sequential(nn.BatchNorm2d(6)), nn.Sequential(nn.BatchNorm2d(6))
    for layer in (source, target, target):
        layer(gpucnn.tensor(X, "float32"))
    state = source.state_dict()
    del state["0.num_batches_tracked"]
    assert target.load_state_dict(state) == ([], [])
    assert_equal(target[0].running_mean, source[0].running_mean)
    assert target[0].num_batches_tracked.item() == 2  # as it was


def test_anything_else_that_is_missing_is_reported() -> None:
    state = nn.BatchNorm2d(6).state_dict()
    del state["running_var"], state["num_batches_tracked"]
    with pytest.raises(ValueError, match="running_var: missing") as caught:
        nn.BatchNorm2d(6).load_state_dict(state)
    assert "num_batches_tracked" not in str(caught.value)
    assert nn.BatchNorm2d(6).load_state_dict(state, strict=False) == (["running_var"], [])


def test_a_shared_layer_may_lack_its_count_under_both_names() -> None:
    norm = nn.BatchNorm2d(6)
    model = nn.Sequential(norm, norm)
    state = {key: value for key, value in model.state_dict().items() if "num" not in key}
    assert model.load_state_dict(state) == ([], [])


def test_a_count_that_does_not_fit_is_refused() -> None:
    state = {**nn.BatchNorm2d(6).state_dict(), "num_batches_tracked": np.zeros(2)}
    with pytest.raises(ValueError, match=r"num_batches_tracked: shape \(2,\)"):
        nn.BatchNorm2d(6).load_state_dict(state)


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.BatchNorm2d(3), (2, 3, 4), r"BatchNorm2d: input must have 4 axes, got \(2, 3, 4\)"),
        (nn.BatchNorm1d(3), (2, 3, 4, 4), r"BatchNorm1d: input must have 2 or 3 axes"),
        (nn.BatchNorm1d(3), (3,), r"BatchNorm1d: input must have 2 or 3 axes"),
        (nn.InstanceNorm2d(3), (3, 4), r"InstanceNorm2d: input must have 3 or 4 axes"),
        (nn.InstanceNorm1d(3), (2, 3, 4, 4), r"InstanceNorm1d: input must have 2 or 3 axes"),
        (nn.BatchNorm2d(3), (2, 4, 4, 4), r"running_mean must have shape \(4,\)"),
        (nn.GroupNorm(2, 4), (2, 6, 3), r"group_norm: weight must have shape \(6,\)"),
        (nn.LayerNorm(4), (2, 3), "must end in normalized_shape"),
        (nn.LocalResponseNorm(3), (2, 3), "must have 3 axes or more"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(gpucnn.ones(*shape))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.BatchNorm2d(0), "BatchNorm2d: num_features must be at least 1, got 0"),
        (lambda: nn.InstanceNorm1d(-1), "InstanceNorm1d: num_features must be at least 1"),
        (lambda: nn.GroupNorm(4, 6), "num_groups=4 must divide num_channels=6"),
        (lambda: nn.GroupNorm(0, 6), "num_groups=0 must divide"),
        (lambda: nn.LayerNorm(()), "normalized_shape takes sizes of at least 1"),
        (lambda: nn.LayerNorm((3, 0)), "normalized_shape takes sizes of at least 1"),
    ],
)
def test_layers_that_cannot_be_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_no_tensor_is_said_to_be_none() -> None:
    for layer in (nn.BatchNorm2d(3), nn.InstanceNorm2d(3), nn.InstanceNorm1d(3), nn.GroupNorm(1, 3), nn.LayerNorm(4)):
        for value in (np.ones((3, 4, 4), np.float32), [1.0]):
            with pytest.raises(TypeError, match=r"input must be a gpucnn.Tensor, got (ndarray|list)"):
                layer(value)
