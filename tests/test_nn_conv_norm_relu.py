"""nn.conv_norm_relu: what is behind a convolution takes part in its op, and in training its moments come with it."""

from __future__ import annotations

import copy
import functools
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fuse_checks import X, conv_norm, normed
from op_checks import draw

import gpucnn
from gpucnn import backend, extension, models, nn
from gpucnn import functional as F
from gpucnn.profile import capture
from gpucnn.testing import assert_close, assert_equal


def steps(model: nn.Module, x: gpucnn.Tensor) -> dict[str, np.ndarray]:
    y = model.train()(x)
    y.backward(draw("normal", y.shape, 9))
    found = {"y": y.numpy(), **{name: buffer.numpy() for name, buffer in model.named_buffers()}}
    return found | {f"{name}'s gradient": p.grad.numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["reference", "simt"])
@pytest.mark.parametrize("layers", ["relu", "relu6", "sigmoid", "alone", "block", "momentum None"])
def test_in_training_moments_come_with_the_convolution(layers: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results, gradients and running statistics are those of one module after the other."""
    if reason := backend.unavailable(name):
        pytest.skip(reason)
    plans: dict[str, Callable[[], nn.Module]] = {
        "relu": lambda: nn.Sequential(*conv_norm(8, 16), nn.ReLU()),
        "relu6": lambda: nn.Sequential(*conv_norm(8, 16), nn.ReLU6()),
        "sigmoid": lambda: nn.Sequential(*conv_norm(8, 16), nn.Sigmoid()),
        "alone": lambda: conv_norm(8, 16),
        "block": lambda: models.resnet.BasicBlock(8, 16, 2),
        "momentum None": lambda: nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16, momentum=None)),
    }
    given: list[bool] = []
    for function in ("batch_norm", "batch_norm_relu"):
        normalize = getattr(F, function)

        def noted(*inputs: Any, normalize: Any = normalize, moments: Any = None, **options: Any) -> Any:
            given.append(moments is not None)
            return normalize(*inputs, moments=moments, **options)

        monkeypatch.setattr(F, function, functools.wraps(normalize)(noted))
    found = []
    for watched in (False, True):
        gpucnn.manual_seed(5)
        model, x = plans[layers](), gpucnn.tensor(draw("normal", (3, 8, 9, 9)), "float32")
        with backend.use_backend(name, strict=True):
            if watched:
                monkeypatch.setattr(sys.modules["gpucnn.nn.norm_relu"], "are_joined", lambda *_: False)
            found.append(steps(model, x))
    norms = 3 if layers == "block" else 1
    if name == "reference":
        assert given == [True] * norms + [False] * norms
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        truth = found[1][key].astype(np.float64)
        size = max(1.0, float(np.abs(truth).max()))
        assert_close(value.astype(np.float32), truth, rtol=1e-4, atol=1e-5 * size, name=key)


def launches_of_a_step(model: nn.Module, x: gpucnn.Tensor) -> Counter[str]:
    with capture() as runs:
        with gpucnn.autocast("bfloat16"):
            y = model(x)
        y.sum().backward()
    return Counter(launch.kernel.partition("<")[0] for run in runs for launch in run.launches)


def test_the_pass_for_moments_is_gone_from_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """But behind convolutions whose sums are cut into parts, of few windows."""
    if extension.load("_simt_profile") is None:
        pytest.skip(str(extension.why_missing("_simt_profile")))
    gpucnn.manual_seed(1)
    model = models.resnet18(num_classes=5, width=0.125)
    x = gpucnn.tensor(draw("normal", (2, 3, 48, 48)), "float32")
    counts = launches_of_a_step(copy.deepcopy(model), x)
    monkeypatch.setattr(sys.modules["gpucnn.nn.norm_relu"], "are_joined", lambda *_: False)
    before = launches_of_a_step(copy.deepcopy(model), x)
    assert before["moments_kernel"] == before["merge_kernel"] == counts["merge_kernel"] == 20
    assert counts["moments_kernel"] == counts["tensor_cut_fprop_kernel"] <= 8
    assert counts["condense_kernel"] == 0
    del before["moments_kernel"], counts["moments_kernel"]
    assert sorted(set(before) - set(counts)) == []


def test_in_evaluation_nothing_is_asked_of_the_convolution() -> None:
    model = normed(nn.Sequential(*conv_norm(), nn.ReLU()))
    x = gpucnn.tensor(X, "float32")
    expected = F.relu(model[1](model[0](x)))
    assert_equal(model(x), expected.numpy(), signed_zeros=False)
    with pytest.raises(ValueError, match="expected more than 1 value per channel"):
        conv_norm()(gpucnn.ones(1, 3, 3, 3))


def ops_of(y: gpucnn.Tensor) -> list[str]:
    """Of a graph in a row, the last first."""
    found, edge = [], y.node
    while edge:
        found.append(edge[0].function.__name__)
        edge = next((e for e in edge[0].edges if isinstance(e, tuple)), None)
    return found


def test_what_follows_a_convolution_alone_is_part_of_it() -> None:
    """A ReLU in a Sequential, a sum: the same numbers as one after the other, and their gradients."""
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Identity(), nn.ReLU())
    x = gpucnn.tensor(X, "float32", requires_grad=True)
    y = net(x)
    assert ops_of(y) == ["Conv2dReLU", "Conv2dReLU"]
    z = nn.conv_norm_relu(net[0], None, F.relu6, y, residual=x)
    assert ops_of(z)[:2] == ["Hardtanh", "Conv2d"]
    z.backward(draw("normal", z.shape, 3))
    twin = gpucnn.tensor(X, "float32", requires_grad=True)
    w = F.relu(net[2](F.relu(net[0](twin))))
    w = F.relu6(net[0](w) + twin)
    w.backward(draw("normal", z.shape, 3))
    assert_equal(z, w.numpy(), signed_zeros=False)
    assert_close(x.grad, twin.grad.numpy().astype(np.float64), rtol=1e-5, atol=1e-5)


class Loud(nn.ReLU):
    def forward(self, input: gpucnn.Tensor) -> gpucnn.Tensor:
        return F.relu(input) * 2


def test_what_is_not_as_it_comes_runs_by_itself() -> None:
    x, residual = gpucnn.tensor(X, "float32"), gpucnn.tensor(draw("normal", (2, 4, 8, 7), 1), "float32")
    conv, norm = normed(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)))
    expected = F.relu(norm(conv(x)) + residual).numpy() * 2
    assert_equal(nn.conv_norm_relu(conv, norm, Loud(), x, residual), expected)
    assert_equal(nn.conv_norm_relu(lambda x: conv(x), norm, Loud(), x, residual), expected)
    assert_equal(nn.conv_norm_relu(conv, lambda y: norm(y), Loud(), x, residual), expected)
    group = nn.GroupNorm(2, 4)
    assert_equal(nn.conv_norm_relu(conv, group, F.relu, x), F.relu(group(conv(x))).numpy())
    with pytest.raises(ValueError, match=r"conv2d_relu: residual must have the result's shape \(2, 4, 8, 7\)"):
        nn.conv_norm_relu(conv, None, F.relu, x, residual=x)
