"""Every network, narrow: forward and backward, first weights, the least image, uses, and what bad input gets."""

from __future__ import annotations

import inspect
import itertools
import math
from typing import Any

import numpy as np
import pytest
from torchvision_checks import facts, images, ours, theirs

import gpucnn
from gpucnn import backend, models, nn
from gpucnn import functional as F
from gpucnn.models import GoogLeNetOutputs
from gpucnn.models.channels import make_divisible, scaled
from gpucnn.testing import rotating_seed

SEED = rotating_seed()

# Options that make it narrow, and the least height and width that it takes.
NARROW: dict[str, tuple[dict[str, Any], int]] = {
    "alexnet": ({"width": 1 / 16}, 63),
    **{name: ({"width": 1 / 16}, 32) for name in facts() if name.startswith("vgg")},
    "googlenet": ({"width": 1 / 8}, 15),
    "squeezenet1_0": ({"width": 1 / 4}, 21),
    "squeezenet1_1": ({"width": 1 / 4}, 17),
    **{name: ({"width": 1 / 8}, 1) for name in facts() if name.startswith(("res", "wide"))},
    **{name: ({"growth_rate": 4, "num_init_features": 8}, 29) for name in facts() if name.startswith("densenet")},
    "mobilenet_v2": ({"width_mult": 0.1}, 1),
    "fcn_resnet50": ({"width": 1 / 8, "aux_loss": True}, 1),
}


def narrow(name: str, **options: Any) -> nn.Module:
    gpucnn.manual_seed(SEED)
    return models.build(name, num_classes=5, **NARROW[name][0], **options)


def logits_of(output: Any) -> list[gpucnn.Tensor]:
    """The main logits, then the auxiliary ones."""
    if isinstance(output, dict):
        return list(output.values())
    return list(output) if isinstance(output, tuple) else [output]


def behind_a_norm(model: nn.Module) -> set[str]:
    """Biases that a batch norm takes off again: their gradient is nothing but rounding."""
    pairs = itertools.pairwise(model.named_modules())
    normed = [(name, a) for (name, a), (_, b) in pairs if isinstance(a, nn.Conv2d) and isinstance(b, nn.BatchNorm2d)]
    return {f"{name}.bias" for name, convolution in normed if convolution.bias is not None}


def test_all_are_here() -> None:
    assert set(NARROW) == set(facts())


@pytest.mark.parametrize("name", NARROW)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = narrow(name, in_channels=2)
    size = max(33, NARROW[name][1])
    outputs = logits_of(model(gpucnn.tensor(images(SEED, 4, 2, size, size + 2))))
    loss = gpucnn.tensor(0.0)
    for logits in outputs:
        dense = logits.shape[2:]
        assert logits.shape == (4, 5, *((size, size + 2) if name.startswith("fcn") else ()))
        loss = loss + F.cross_entropy(logits.permute(0, 2, 3, 1).reshape(-1, 5) if dense else logits, _labels(dense))
    loss.backward()
    no_effect = behind_a_norm(model)
    assert bool(no_effect) == name.endswith("_bn")
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert np.isfinite(parameter.grad.numpy()).all(), key
        assert key in no_effect or parameter.grad.numpy().any(), key


def _labels(image: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.arange(4 * math.prod(image)) % 5


@pytest.mark.parametrize("name", NARROW)
def test_a_training_step_copies_no_image_to_another_layout(name: str) -> None:
    # But for maps of more than one pixel that are flattened, in logical order, in front of a linear layer.
    flattened = 2 if name == "googlenet" else 1 if name.startswith(("alexnet", "vgg")) else 0
    model, size = narrow(name), max(33, NARROW[name][1])
    x = gpucnn.tensor(images(SEED, 2, 3, size, size))
    with backend.count_layout_copies() as forward:
        outputs = logits_of(model(x))
    losses = [(logits * logits).mean() for logits in outputs]
    with backend.count_layout_copies() as backward:
        for loss in losses:
            loss.backward(retain_graph=True)
    assert forward.value == flattened
    assert backward.value <= flattened * len(losses)


@pytest.mark.parametrize("name", NARROW)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    model = narrow(name).eval()
    size = max(33, NARROW[name][1])
    x = images(SEED, 3, 3, size, size)
    with gpucnn.no_grad():
        together, alone, none = (model(gpucnn.tensor(part)) for part in (x, x[1:2], x[:0]))
    for several, one, nothing in zip(*map(logits_of, (together, alone, none)), strict=True):
        assert nothing.shape == (0, *one.shape[1:])
        np.testing.assert_allclose(
            several.numpy()[1:2], one.numpy(), rtol=1e-4, atol=1e-5 * np.abs(several.numpy()).max()
        )


@pytest.mark.parametrize("name", NARROW)
def test_the_least_image_runs_and_a_smaller_one_is_refused_by_the_layer_it_ends_at(name: str) -> None:
    model, least = narrow(name).eval(), NARROW[name][1]
    with gpucnn.no_grad():
        assert logits_of(model(gpucnn.zeros(1, 3, least, least)))[0].shape[:2] == (1, 5)
        for smaller in {max(0, least - 1), 0}:
            with pytest.raises(ValueError, match=r"(conv2d|(max|avg)_pool2d|adaptive_avg_pool2d): .*\d"):
                model(gpucnn.zeros(1, 3, smaller, least))


@pytest.mark.parametrize("name", NARROW)
def test_unknown_options_and_wrong_channels_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        models.build(name, depth=3)
    with pytest.raises(ValueError, match=r"conv2d: .*channels"):
        narrow(name)(gpucnn.zeros(1, 1, 64, 64))


@pytest.mark.parametrize("name", NARROW)
def test_it_says_where_it_is_from(name: str) -> None:
    described = inspect.getdoc(models.MODELS[name])
    assert described
    assert "arXiv" in described or "with batch normalisation" in described or "Very deep" in described
    assert models.MODELS[name] is getattr(models, name)


# ----------------------------------------------------------------------------------------------------------- uses


def test_googlenet_returns_one_output_in_evaluation_and_without_auxiliary_classifiers() -> None:
    x = gpucnn.tensor(images(SEED, 2, 3, 33, 33))
    model = narrow("googlenet")
    assert isinstance(model(x), GoogLeNetOutputs)
    assert isinstance(model.eval()(x), gpucnn.Tensor)
    plain = narrow("googlenet", aux_logits=False)
    assert isinstance(plain(x), gpucnn.Tensor)
    assert not any(key.startswith("aux") for key in plain.state_dict())
    state = plain.state_dict()
    assert model.load_state_dict(state, strict=False)[1] == []


def test_googlenets_input_goes_from_imagenets_normalisation_to_the_unit_range() -> None:
    pixels = images(SEED, 2, 3, 33, 33)
    mean, deviation = (np.array(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    plain, transforming = narrow("googlenet").eval(), narrow("googlenet", transform_input=True).eval()
    with gpucnn.no_grad():
        expected = plain(gpucnn.tensor(((pixels - 0.5) / 0.5).astype(np.float32)))
        found = transforming(gpucnn.tensor(((pixels - mean) / deviation).astype(np.float32)))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5 * np.abs(expected.numpy()).max())
    with pytest.raises(ValueError, match="transform_input is for images of three colours, got in_channels=1"):
        models.googlenet(transform_input=True, in_channels=1)


def test_an_fcn_without_auxiliary_classifier_has_one_output() -> None:
    model = models.fcn_resnet50(width=1 / 16)
    assert list(model.eval()(gpucnn.zeros(1, 3, 17, 9))) == ["out"]
    assert {key.partition(".")[0] for key in model.state_dict()} == {"backbone", "classifier"}


@pytest.mark.parametrize(("name", "head"), [("resnet18", "fc"), ("densenet121", "classifier"), ("googlenet", "fc")])
def test_the_head_is_replaced_and_the_rest_frozen(name: str, head: str) -> None:
    model = narrow(name)
    model.requires_grad_(False)
    setattr(model, head, nn.Linear(getattr(model, head).in_features, 3))
    model.eval()
    logits = model(gpucnn.tensor(images(SEED, 2, 3, 33, 33)))
    assert logits.shape == (2, 3)
    F.cross_entropy(logits, np.array([0, 2])).backward()
    trained = {key for key, p in model.named_parameters() if p.grad is not None}
    assert trained == {f"{head}.weight", f"{head}.bias"}


def test_networks_are_built_for_a_data_set() -> None:
    for name in ("resnet18", "mobilenet_v2"):
        model = models.build_for(name, 4, (1, 28, 30))
        assert all(module.training for module in model.modules())
        state = model.state_dict()
        assert not any(tensor.numpy().any() for key, tensor in state.items() if key.endswith("num_batches_tracked"))
        assert model(gpucnn.zeros(2, 1, 28, 30)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"model 'squeezenet1_1' can't take images of 16 x 30: max_pool2d: a window"):
        models.build_for("squeezenet1_1", 4, (3, 16, 30))
    with pytest.raises(ValueError, match="model 'fcn_resnet50' labels every pixel of an image"):
        models.build_for("fcn_resnet50", 10, (3, 64, 64))


# --------------------------------------------------------------------------------------- widths, depths, first weights


@pytest.mark.parametrize(
    ("name", "width"),
    [(name, width) for name in ("alexnet", "vgg11", "googlenet", "squeezenet1_1") for width in (0.01, 0.3)]
    + [(name, width) for name in ("resnet18", "resnext50_32x4d", "googlenet") for width in (0.01, 0.3, 1.7)],
)
def test_any_width_makes_a_network_that_fits_together(name: str, width: float) -> None:
    with nn.init.skip_init():
        model = models.build(name, num_classes=2, width=width).eval()
    with gpucnn.no_grad():
        assert model(gpucnn.zeros(1, 3, 63, 63)).shape == (1, 2)


def test_widths_that_make_no_sense_are_refused() -> None:
    for width in (0, -1, math.nan):
        with pytest.raises(ValueError, match="width must be positive"):
            models.resnet18(width=width)
    assert [scaled(64, w) for w in (1, 0.5, 0.001, 2)] == [64, 32, 1, 128]


def test_channels_divisible_by_eight() -> None:
    found = [make_divisible(c) for c in (1, 8, 11, 12, 19, 20, 24, 31.9, 32 * 1.4, 1280)]
    assert found == [8, 8, 16, 16, 24, 24, 24, 32, 48, 1280]
    assert [make_divisible(c, 1) for c in (0.2, 3.6)] == [1, 4]


def test_options_that_contradict_each_other_are_refused() -> None:
    for options in ({"groups": 2}, {"width_per_group": 32}, {"replace_stride_with_dilation": [False, False, True]}):
        with pytest.raises(ValueError, match=r"networks of basic blocks .* have groups=1, width_per_group=64 and no"):
            models.resnet18(width=1 / 16, **options)
    with pytest.raises(ValueError, match="replace_stride_with_dilation takes three bools"):
        models.resnet50(width=1 / 16, replace_stride_with_dilation=[True])
    with pytest.raises(ValueError, match="version must be '1_0' or '1_1', got '1_2'"):
        models.SqueezeNet("1_2")


def test_residual_blocks_can_start_as_identities() -> None:
    for name, last in (("resnet18", "bn2"), ("resnet50", "bn3")):
        state = narrow(name, zero_init_residual=True).state_dict()
        zero = {key for key, tensor in state.items() if key.endswith(".weight") and not tensor.numpy().any()}
        assert zero == {key for key in state if key.endswith(f"{last}.weight")}


@pytest.mark.parametrize("name", ["vgg11_bn", "googlenet"])
def test_initial_weights_can_be_left_to_the_layers(name: str) -> None:
    model = narrow(name, init_weights=False)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert np.abs(module.weight.numpy()).max() <= 1 / math.sqrt(nn.init.fans(module.weight)[0])


def test_vggs_weights_start_as_torchvisions() -> None:
    model = models.vgg11_bn(width=1 / 4)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_out = nn.init.fans(module.weight)[1]
            expected = math.sqrt(2 / fan_out) if isinstance(module, nn.Conv2d) else 0.01
            assert abs(module.weight.numpy().std() / expected - 1) <= 6 / math.sqrt(2 * module.weight.numel())
            assert module.bias is not None
            assert not module.bias.numpy().any()


@pytest.mark.peers
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "squeezenet1_1", "resnet18", "densenet121", "mobilenet_v2"])
def test_weights_start_as_torchvisions(torchvision: Any, name: str) -> None:
    model, peer = (
        models.build(name),
        theirs(torchvision, name, **({"init_weights": True} if name == "googlenet" else {})),
    )
    for (key, mine), yours in zip(model.state_dict().items(), peer.state_dict().values(), strict=True):
        a, b = mine.numpy(), yours.numpy()
        if np.ptp(b) == 0:
            np.testing.assert_array_equal(a, b, err_msg=key)
        else:
            # Six standard errors of the deviations' ratio; of uniform numbers they are smaller than of normal ones.
            assert abs(a.std() / b.std() - 1) <= 6 / math.sqrt(b.size), key
            assert abs(a.mean() - b.mean()) <= 8 * b.std() / math.sqrt(b.size), key


def test_loading_needs_no_first_weights() -> None:
    model = ours("resnet18", width=1 / 8)
    assert {key for key, p in model.named_parameters() if p.numpy().any()} == {
        key for key, p in model.named_parameters() if p.ndim == 1 and key.endswith("weight")
    }
