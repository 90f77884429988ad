"""Module.fuse: convolution, batch norm, sum and ReLU as one convolution, in every network and in what users make."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fuse_checks import X, close, conv_norm, normed
from op_checks import draw
from paper_networks import SMALL, small
from test_models_training import NARROW, logits_of, narrow

import gpucnn
from gpucnn import backend, models, nn
from gpucnn import functional as F
from gpucnn.autograd import no_grad, observed_by
from gpucnn.books.trace import Trace
from gpucnn.ops.registry import KernelTable, observe_calls
from gpucnn.testing import assert_close, assert_equal


def fused(module: nn.Module) -> list[nn.FusedConv2d]:
    return [m for m in module.modules() if isinstance(m, nn.FusedConv2d)]


# -------------------------------------------------------------------------------------------------- every network


def behind_convolutions(model: nn.Module, x: gpucnn.Tensor) -> set[str]:
    """Batch norms that get what a Conv2d has just made, by a watch on the tensors of a pass."""
    names, made, found = {id(module): name for name, module in model.named_modules()}, {}, set()

    class Watcher:
        def function(self, *_: Any) -> None: ...
        def module(self, module: Any, inputs: Any, options: Any) -> Any:
            if type(module) is nn.BatchNorm2d and id(inputs[0]) in made:
                found.add(names[id(module)])
            result = module.forward(*inputs, **options)
            if type(module) is nn.Conv2d:
                made[id(result)] = result
            return result

    with observed_by(Watcher()):
        model(x)
    return found


def build(name: str) -> tuple[nn.Module, gpucnn.Tensor]:
    if name in SMALL:
        return small(name)
    least = max(32, NARROW[name][1])
    return narrow(name), gpucnn.tensor(draw("normal", (2, 3, least, least)), "float32")


LEFT = {name: {"layer1.0.bn1"} for name in ("wrn_16_8", "wrn_28_10")}
"""Batch norms behind a convolution that belongs to another module."""


@pytest.mark.parametrize("name", sorted({*NARROW, *SMALL} & set(models.MODELS)))
def test_every_network_computes_the_same(name: str) -> None:
    """Each batch norm behind a convolution is part of it. In float64: narrow networks make much of rounding."""
    model, x = build(name)
    model, x = model.to("float64"), x.to("float64")
    with no_grad():
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = 1.0
        model.train()(x)
        model.eval()
        behind, before = behind_convolutions(model, x), logits_of(model(x))
        one = copy.deepcopy(model).fuse()
        after = logits_of(one(x))
    gone = {path for path, module in one.named_modules() if type(module) is nn.Identity}
    assert behind - gone == (LEFT.get(name, set()) if behind else set())
    assert len(gone) == len(fused(one))
    for found, expected in zip(after, before, strict=True):
        close(found, expected, 1e-7)
        if not gone:
            assert_equal(found, expected.numpy())
    assert (not gone) == (list(one.state_dict()) == list(model.state_dict()))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vgg11_bn", "googlenet"])
def test_float32_is_as_exact_as_before(name: str) -> None:
    """Against float64, and with statistics of its own: in norm at most half as far again."""
    model = normed(build(name)[0])
    with no_grad():
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum = 1.0
        x = gpucnn.tensor(draw("normal", (4, 3, 64, 64)), "float32")
        model.train()(x)
        model.eval()
        truth = copy.deepcopy(model).to("float64")(x.to("float64")).numpy()
        before, after = model(x), copy.deepcopy(model).fuse()(x)
    errors = [np.linalg.norm(logits_of(y)[0].numpy() - truth) for y in (before, after)]
    assert errors[1] <= 1.5 * errors[0] + 1e-6 * np.linalg.norm(truth)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("backend_name", ["reference", "simt"])
@pytest.mark.parametrize("layers", ["conv", "conv relu", "block", "depthwise"])
def test_in_16_bits_it_is_no_worse_than_before(layers: str, backend_name: str, dtype: str) -> None:
    """Against float64, of weights of 16 bits: what is multiplied is not rounded once more."""
    if reason := backend.unavailable(backend_name):
        pytest.skip(reason)
    plans: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: conv_norm(16, 24, padding=1),
        "conv relu": lambda: nn.Sequential(*conv_norm(16, 16, padding=1), nn.ReLU()),
        "block": lambda: models.resnet.BasicBlock(16, 16),
        "depthwise": lambda: conv_norm(16, 16, padding=1, groups=16),
    }
    errors = np.zeros(2)
    for seed in range(6):
        gpucnn.manual_seed(seed)
        model = normed(plans[layers](), seed).to(dtype)
        x = gpucnn.tensor(draw("normal", (2, 16, 8, 8), seed), dtype)
        truth = copy.deepcopy(model).to("float64")(x.to("float64")).numpy()
        one = copy.deepcopy(model).fuse()
        assert {m.weight.dtype.name for m in fused(one)} == {dtype}
        assert {m.scale.dtype.name for m in fused(one) if m.scale is not None} == {"float32"}
        with backend.use_backend(backend_name, strict=True), no_grad():
            for place, each in enumerate((one, model)):
                errors[place] += np.linalg.norm(each(x).numpy().astype(np.float64) - truth) ** 2
    assert errors[0] <= 1.1 * errors[1]
    assert errors[0] > 0


# -------------------------------------------------------------------------------------------------- what is fused


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_weights_are_those_that_pytorch_folds(torch: Any, dtype: str, bias: bool, affine: bool) -> None:
    ours = nn.Sequential(nn.Conv2d(4, 6, (3, 2), 2, 1, 1, 2, bias), nn.BatchNorm2d(6, eps=1e-3, affine=affine)).to(
        dtype
    )
    normed(ours)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(4, 6, (3, 2), 2, 1, 1, 2, bias), torch.nn.BatchNorm2d(6, eps=1e-3, affine=affine)
    )
    theirs.load_state_dict({name: torch.tensor(value.numpy()) for name, value in ours.state_dict().items()})
    expected = torch.nn.utils.fusion.fuse_conv_bn_eval(*theirs.to(getattr(torch, dtype)).eval())
    ours.fuse()
    allowed = 1e-13 if dtype == "float64" else 4e-7
    assert list(ours.state_dict()) == ["0.weight", "0.bias"]
    for name in ("weight", "bias"):
        found, truth = getattr(ours[0], name), getattr(expected, name).detach().numpy().astype(np.float64)
        assert_close(found, truth, rtol=allowed, atol=allowed * np.abs(truth).max())
    x = draw("normal", (2, 4, 7, 6)).astype(dtype)
    close(ours(gpucnn.tensor(x)), expected(torch.tensor(x)).detach(), 10 * allowed)


class Twice(nn.Module):
    """A module of a user's that says what it runs in a row."""

    conv_norms = (("conv", "norm"),)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: gpucnn.Tensor) -> gpucnn.Tensor:
        x = nn.conv_norm_relu(self.conv, self.norm, F.relu6, x)
        return nn.conv_norm_relu(self.conv, self.norm, None, x, residual=x)


class Backwards(nn.Sequential):
    def forward(self, input: Any) -> Any:
        for module in reversed(list(self)):
            input = module(input)
        return input


class Doubled(nn.Conv2d):
    def forward(self, input: gpucnn.Tensor) -> gpucnn.Tensor:
        return super().forward(input) * 2


class Plain(nn.Sequential):
    """A subclass that runs as ever."""


def changed(module: nn.Module, place: int) -> nn.Module:
    module[place].forward = lambda x: x  # type: ignore[index]
    return module


SHARED = conv_norm(3, 3, padding=1)

FUSED: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "a pair": (conv_norm, 1),
    "with a ReLU": (lambda: nn.Sequential(*conv_norm(), nn.ReLU()), 1),
    "with a ReLU6": (lambda: nn.Sequential(*conv_norm(), nn.ReLU6()), 1),
    "with another activation": (lambda: nn.Sequential(*conv_norm(), nn.Sigmoid()), 1),
    "padded otherwise": (lambda: conv_norm(padding=1, padding_mode="reflect"), 1),
    "strided, dilated, in groups": (lambda: conv_norm(3, 6, stride=2, padding="valid", dilation=2, groups=3), 1),
    "deeper down": (lambda: nn.Sequential(nn.Sequential(conv_norm()), nn.ModuleDict({"a": conv_norm()})["a"][1]), 1),
    "names": (lambda: Twice(), 1),
    "a subclass of Sequential": (lambda: Plain(*conv_norm()), 1),
    "one convolution in two places": (lambda: nn.Sequential(*SHARED, SHARED[0], nn.BatchNorm2d(3)), 2),
    "one pair in two places": (lambda: nn.Sequential(*SHARED, *SHARED), 2),
    "one block in two places": (lambda: nn.Sequential(SHARED, SHARED), 1),
    "no statistics": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), 0),
    "something between": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 0),
    "the batch norm first": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), 0),
    "another norm": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), 0),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)), 0),
    "a convolution of a user's": (lambda: nn.Sequential(Doubled(3, 4, 3), nn.BatchNorm2d(4)), 0),
    "a convolution with a forward of its own": (lambda: changed(conv_norm(3, 3), 0), 0),
    "a batch norm with a forward of its own": (lambda: changed(conv_norm(), 1), 0),
    "a Sequential with a forward of its own": (lambda: Backwards(nn.BatchNorm2d(4), nn.Conv2d(3, 4, 3)), 0),
    "a list": (lambda: nn.Sequential(nn.ModuleList(conv_norm())[0]), 0),
    "nothing": (lambda: nn.Sequential(), 0),
    "a layer": (lambda: nn.Conv2d(3, 4, 3), 0),
}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_what_follows_a_convolution_is_fused_and_nothing_else(name: str, dtype: str) -> None:
    make, count = FUSED[name]
    model = normed(copy.deepcopy(make())).to(dtype)
    names = [path for path, _ in model.named_modules()]
    x = gpucnn.tensor(X, dtype)
    before = model(x)
    required = [p.requires_grad for p in model.parameters()]
    assert model.fuse() is model
    assert len({id(m) for m in fused(model)}) == count
    close(model(x), before, {"float64": 1e-12, "float32": 1e-5, "float16": 4e-3}[dtype])
    assert [path for path, _ in model.named_modules()] == names or name.startswith("one ")
    if not count:
        assert_equal(model(x), before.numpy())
        assert [p.requires_grad for p in model.parameters()] == required
    again = model(x)
    assert model.fuse() is model  # there is nothing left
    assert_equal(model(x), again.numpy())


def test_it_is_one_op_and_no_batch_norm_runs() -> None:
    model = normed(models.build("resnet18", num_classes=5, width=0.125))
    x, asked = gpucnn.tensor(draw("normal", (1, 3, 32, 32)), "float32"), []

    def note(table: KernelTable, problem: Any, arrays: Any, kernel: Any, like: Any) -> Any:
        asked.append(str(table))
        return table.pick(problem, like, kernel).run(problem, *arrays)

    with no_grad(), observe_calls(note):
        model(x)
        unfused = len(asked)
        model.fuse()
        asked.clear()
        model(x)
    assert unfused == 20 + 20 + 3
    assert (len(asked), asked.count("conv2d fprop")) == (20 + 3, 20)


def test_gradients_of_the_image_are_those_of_the_network() -> None:
    model = normed(models.build("resnet20", num_classes=5, width=0.5)).to("float64")
    grads = []
    for each in (model, copy.deepcopy(model).fuse()):
        x = gpucnn.tensor(draw("normal", (2, 3, 8, 8)), requires_grad=True)
        each(x).sum().backward()
        grads.append(x.grad)
    close(grads[1], grads[0], 1e-10)


def test_whoever_observes_sees_the_modules_one_by_one() -> None:
    model = normed(nn.Sequential(*conv_norm(), nn.ReLU())).fuse()
    trace = Trace(model, gpucnn.tensor(X, "float32"))
    assert [layer.kind for layer in trace.layers[1:]] == ["FusedConv2d", "Identity", "ReLU"]
    assert [layer.kind for layer in gpucnn.summary(model, (3, 8, 7)).layers[1:]] == ["FusedConv2d", "Identity", "ReLU"]
    assert "FusedConv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))" in repr(model)


def test_it_takes_autocast() -> None:
    model = normed(models.resnet.BasicBlock(8, 8))
    x = gpucnn.tensor(draw("normal", (2, 8, 6, 6)), "float32")
    truth = model(x)
    with gpucnn.autocast("bfloat16"):
        close(model.fuse()(x).to("float32"), truth, 0.03)


# ---------------------------------------------------------------------------------------------- modes and state


def test_in_training_mode_it_is_refused_and_nothing_changes() -> None:
    model = nn.Sequential(conv_norm(), nn.Dropout())
    with pytest.raises(ValueError, match=r"Sequential\.fuse\(\): it is in training mode.*call eval\(\) first"):
        model.fuse()
    model.eval()
    model[0][1].train()
    with pytest.raises(ValueError, match=r"fuse\(\): 0\.1 is in training mode"):
        model.fuse()
    assert fused(model) == []


def test_what_is_fused_has_no_training_mode() -> None:
    model = nn.Sequential(normed(conv_norm()), nn.Dropout()).eval().fuse()
    for run in (model.train, model.unfreeze):
        with pytest.raises(
            RuntimeError, match=r"Sequential: 0\.0 is a convolution that fuse\(\) folded a batch norm into"
        ):
            run()
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
    assert model.eval() is model
    model.append(nn.Conv2d(4, 2, 1))
    model[0].freeze()
    model.train()
    assert [module.training for module in (model[0][0], model[1], model[2])] == [False, True, True]
    with pytest.raises(RuntimeError, match="folded a batch norm"):
        model.unfreeze()
    assert model[0][0].frozen


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_state_goes_from_one_fused_network_to_another(dtype: str) -> None:
    """And that of a network that is not fused does not fit, which is said by name."""
    first, second = (normed(conv_norm(bias=number == 0), number).to(dtype) for number in range(2))
    plain = first.state_dict()
    first.fuse(), second.fuse()
    names = ["0.weight", "0.bias"] if dtype == "float32" else ["0.weight", "0.scale", "0.shift"]
    assert list(second.state_dict()) == names
    second.load_state_dict(first.state_dict())
    x = gpucnn.tensor(X, dtype)
    assert_equal(second(x), first(x).numpy())
    with pytest.raises(ValueError, match=r"1\.running_mean: unexpected"):
        first.load_state_dict(plain)


@pytest.mark.parametrize("before", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("after", ["float32", "float64", "float16", "bfloat16"])
def test_it_goes_to_another_dtype(before: str, after: str) -> None:
    model = normed(nn.Sequential(*conv_norm(), nn.ReLU())).to(before)
    truth = model(gpucnn.tensor(X, before))
    model.fuse().to(after)
    found = model(gpucnn.tensor(X, after))
    assert found.dtype == after
    close(found.to("float64"), truth.to("float64"), 4e-2 if "b" in (before[0], after[0]) else 4e-3)


def test_the_network_and_what_it_was_made_of_share_no_batch_norm() -> None:
    """Statistics that move later, those of a copy, are not those that were folded in."""
    model = normed(conv_norm())
    one, x = copy.deepcopy(model).fuse(), gpucnn.tensor(X, "float32")
    before = one(x).numpy().copy()
    model.train()(x)
    assert_equal(one(x), before)
