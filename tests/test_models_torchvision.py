"""Networks that torchvision has: the same keys and shapes, and from the same weights the same outputs."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision_checks import FACTS, facts, fill, images, ours, state_shapes, theirs

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn
from gpucnn.models import GoogLeNetOutputs
from gpucnn.testing import assert_close, rotating_seed

SEED = rotating_seed()

# Height and width, different where the network lets them be; near the least that it takes.
SIZES = {
    **dict.fromkeys(facts(), (64, 48)),
    **dict.fromkeys([name for name in facts() if name.startswith("vgg")], (32, 40)),
    "alexnet": (95, 79),
    "fcn_resnet50": (40, 33),
}


# ------------------------------------------------------------------------------------------------- keys and shapes


@pytest.mark.parametrize("name", facts())
def test_state_and_parameters_are_torchvisions(name: str) -> None:
    model = ours(name)
    expected = list(state_shapes(facts()[name]["state"]))
    assert [(key, tensor.shape) for key, tensor in model.state_dict().items()] == expected
    assert sum(p.numel() for p in model.parameters()) == facts()[name]["parameters"]


def test_every_network_of_torchvisions_is_in_the_list() -> None:
    assert len(facts()) == 25
    assert set(facts()) <= set(models.MODELS)


@pytest.mark.peers
def test_the_facts_are_torchvisions(torchvision: Any) -> None:
    tool = runpy.run_path(str(Path(__file__).resolve().parent.parent / "tools/make_torchvision_facts.py"))
    assert tool["collect"]()["models"] == facts()


@pytest.mark.peers
def test_the_tool_writes_the_file_that_is_committed(torchvision: Any, tmp_path: Path) -> None:
    tool = runpy.run_path(str(Path(__file__).resolve().parent.parent / "tools/make_torchvision_facts.py"))
    tool["write"](json.loads(FACTS.read_text()), tmp_path / "facts.json")
    assert (tmp_path / "facts.json").read_text() == FACTS.read_text()


# --------------------------------------------------------------------------------------------------- forward passes


def narrow_classifier(name: str, ours: nn.Module, theirs: Any, torch: Any) -> Any:
    """VGG's first two linear layers hold 120 M parameters: 64 hidden features instead of 4096 do."""
    if name.startswith("vgg"):
        for index, sizes in ((0, (25088, 64)), (3, (64, 64)), (6, (64, 1000))):
            ours.classifier._modules[str(index)] = nn.Linear(*sizes)
            theirs.classifier[index] = torch.nn.Linear(*sizes)
    return theirs.to_empty(device="cpu")


@pytest.mark.peers
@pytest.mark.parametrize("name", facts())
def test_outputs_are_torchvisions(torch: Any, torchvision: Any, name: str) -> None:
    with torch.device("meta"):
        peer = theirs(torchvision, name)
    model = ours(name)
    peer = narrow_classifier(name, model, peer, torch).eval()
    fill(torch, peer, SEED)
    model.load_state_dict(peer.state_dict())
    model.eval()
    x = images(SEED, 2, 3, *SIZES[name])
    with torch.no_grad(), gpucnn.no_grad():
        expected, found = peer(torch.from_numpy(x)), model(gpucnn.tensor(x))
    if name != "fcn_resnet50":
        expected, found = {"logits": expected}, {"logits": found}
    assert list(found) == list(expected)
    for key, theirs_ in expected.items():
        largest = float(theirs_.abs().max())
        assert largest > 0
        assert_close(found[key].numpy(), theirs_.numpy(), rtol=1e-4, atol=1e-4 * largest, name=f"{name} {key}")


# In training: batch statistics, dropout off, float64. Narrow ones are built of torchvision's own classes.
def _googlenet(tv: Any) -> tuple[nn.Module, Any]:
    options = {"num_classes": 7, "dropout": 0.0, "dropout_aux": 0.0, "transform_input": True}
    return ours("googlenet", **options), theirs(tv, "googlenet", **options)


def _squeezenet(tv: Any) -> tuple[nn.Module, Any]:
    options = {"num_classes": 7, "dropout": 0.0}
    return ours("squeezenet1_0", **options), theirs(tv, "squeezenet1_0", **options)


def _resnet18(tv: Any) -> tuple[nn.Module, Any]:
    return ours("resnet18", num_classes=7), theirs(tv, "resnet18", num_classes=7)


def _resnext(tv: Any) -> tuple[nn.Module, Any]:
    options = {"num_classes": 7, "groups": 4, "width_per_group": 8, "replace_stride_with_dilation": [False, True, True]}
    resnet = tv.models.resnet
    mine = models.ResNet(models.resnet.Bottleneck, (1, 2, 1, 2), **options)
    return mine, resnet.ResNet(resnet.Bottleneck, [1, 2, 1, 2], **options)


def _densenet(tv: Any) -> tuple[nn.Module, Any]:
    options = {"growth_rate": 8, "block_config": (2, 3, 1, 2), "num_init_features": 12, "num_classes": 7}
    return models.DenseNet(**options), tv.models.DenseNet(**options)


def _mobilenet(tv: Any) -> tuple[nn.Module, Any]:
    options = {"num_classes": 7, "width_mult": 0.35, "dropout": 0.0}
    return ours("mobilenet_v2", **options), theirs(tv, "mobilenet_v2", **options)


def _mobilenet_wide(tv: Any) -> tuple[nn.Module, Any]:
    options = {"num_classes": 7, "width_mult": 1.1, "round_nearest": 4, "dropout": 0.0}
    return ours("mobilenet_v2", **options), theirs(tv, "mobilenet_v2", **options)


@pytest.mark.peers
@pytest.mark.parametrize(
    "networks", [_googlenet, _squeezenet, _resnet18, _resnext, _densenet, _mobilenet, _mobilenet_wide]
)
def test_a_training_step_is_torchvisions(torch: Any, torchvision: Any, networks: Any) -> None:
    model, peer = networks(torchvision)
    fill(torch, peer, SEED)
    model.to("float64").load_state_dict(peer.double().state_dict())
    assert list(model.state_dict()) == list(peer.state_dict())
    x, labels = images(SEED, 4, 3, 64, 64, dtype="float64"), np.arange(4)
    found, expected = model(gpucnn.tensor(x)), peer(torch.from_numpy(x))
    if isinstance(expected, tuple):
        assert isinstance(found, GoogLeNetOutputs)
        assert found._fields == expected._fields == ("logits", "aux_logits2", "aux_logits1")
    else:
        found, expected = (found,), (expected,)
    loss, their_loss = gpucnn.tensor(0.0, dtype="float64"), torch.zeros((), dtype=torch.float64)
    for weight, mine, their in zip((1.0, 0.3, 0.3), found, expected):  # noqa: B905 (one output or three)
        assert_close(mine.numpy(), their.detach().numpy(), rtol=1e-8, atol=1e-8)
        loss = loss + weight * F.cross_entropy(mine, labels)
        their_loss = their_loss + weight * torch.nn.functional.cross_entropy(their, torch.from_numpy(labels))
    loss.backward()
    their_loss.backward()
    for (name, p), q in zip(model.named_parameters(), peer.parameters(), strict=True):
        assert p.grad is not None, name
        # Where the next layers take a shift off again, the gradient is rounding alone.
        allowed = 1e-6 * float(q.grad.abs().max()) + 1e-11
        assert_close(p.grad.numpy(), q.grad.numpy(), rtol=1e-6, atol=allowed, name=name)
    for (name, p), q in zip(model.named_buffers(), peer.buffers(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-10, atol=1e-12, err_msg=name)


# ------------------------------------------------------------------------------------------------ published weights


def test_densenets_published_keys_are_taken() -> None:
    model = models.densenet121(growth_rate=4, num_init_features=8, num_classes=3)
    state = {name: tensor.numpy() + 1 for name, tensor in model.state_dict().items()}
    old = {
        name.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.").replace("conv1.", "conv.1."): value
        for name, value in state.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert model.load_state_dict(old) == ([], [])
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[name], err_msg=name)
    with pytest.raises(ValueError, match=r"features\.denseblock1\.denselayer1\.norm3\.weight: unexpected"):
        model.load_state_dict({**old, "features.denseblock1.denselayer1.norm3.weight": np.zeros(1)})
    with pytest.raises(TypeError, match="takes a mapping"):
        model.load_state_dict([])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "googlenet", "vgg11_bn"])
def test_weights_from_before_batches_were_counted_load(name: str) -> None:
    narrow = {"densenet121": {"growth_rate": 4}, "mobilenet_v2": {"width_mult": 0.1}}.get(name, {"width": 0.05})
    model = models.build(name, **narrow)
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert len(state) < len(model.state_dict())
    model.load_state_dict(state)
