"""Networks that torchvision does not have: published parameter counts, shapes, gradients, what is special in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from op_checks import SEED

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn
from gpucnn.models.digit_codes import digit_codes
from gpucnn.models.fcn_vgg import bilinear_filters
from gpucnn.models.lenet_early import LENET5_TABLE, Subsampling, TableConv2d, squash
from gpucnn.models.resnet_cifar import CifarBlock
from gpucnn.testing import assert_close, assert_equal

NARROW = {"width": 0.125, "num_classes": 5}
# Options that make the network small, the shape of its input, and of its output.
SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "lenet1": ({}, (3, 1, 28, 28), (3, 10)),
    "lenet4": ({"in_channels": 3}, (3, 3, 28, 28), (3, 10)),
    "lenet5_1998": ({"num_classes": 7, "image_size": 32}, (3, 1, 32, 32), (3, 7)),
    "alexnet_grouped": (NARROW, (2, 3, 95, 79), (2, 5)),
    "nin": (NARROW, (2, 3, 21, 16), (2, 5)),
    **{
        f"{kind}{depth}": (NARROW | {"width": 0.25}, (2, 3, 9, 12), (2, 5))
        for kind in ("resnet", "plain")
        for depth in (20, 32, 44, 56, 110)
    },
    "wrn_16_8": (NARROW | {"dropout": 0.3}, (2, 3, 9, 12), (2, 5)),
    "wrn_28_10": (NARROW, (2, 3, 9, 12), (2, 5)),
    "mobilenet_v1": ({"width_mult": 0.25, "num_classes": 5, "in_channels": 1}, (2, 1, 40, 33), (2, 5)),
    "fcn32s": (NARROW | {"width": 1 / 32}, (1, 3, 37, 20), (1, 5, 37, 20)),
    "fcn16s": (NARROW | {"width": 1 / 32}, (1, 3, 37, 20), (1, 5, 37, 20)),
    "fcn8s": (NARROW | {"width": 1 / 32}, (1, 3, 37, 20), (1, 5, 37, 20)),
    "unet": (NARROW, (1, 1, 188, 204), (1, 5, 4, 20)),
    "deconvnet": (NARROW | {"width": 1 / 16, "window": 2}, (2, 3, 64, 64), (2, 5, 64, 64)),
}


def small(name: str) -> tuple[nn.Module, gpucnn.Tensor]:
    gpucnn.manual_seed(SEED)
    options, shape, _ = SMALL[name]
    x = np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)
    return models.build(name, **options), gpucnn.tensor(x)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns(name: str) -> None:
    model, x = small(name)
    if name.startswith("fcn"):  # whose scores start at 0 as published, and let nothing pass to what is below them
        for child_name, child in model.named_children():
            if child_name.startswith("score"):
                nn.init.normal_(child.weight)
    y = model(x)
    assert y.shape == SMALL[name][2]
    target = np.random.default_rng(SEED).integers(0, y.shape[1], (y.shape[0], *y.shape[2:]))
    F.cross_entropy(y, target).backward()
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert key == "upscore.weight"
            continue
        assert parameter.grad is not None, key
        gradient = parameter.grad.numpy()
        assert np.isfinite(gradient).all(), key
        assert gradient.any(), key


@pytest.mark.parametrize("name", SMALL)
def test_evaluation_is_a_function_of_the_image_alone(name: str) -> None:
    model, x = small(name)
    model.eval()
    with gpucnn.no_grad():
        y = model(x)
        alone = model(x[-1:])
    assert_close(alone, y.numpy()[-1:], rtol=1e-4, atol=1e-5)


def test_all_networks_have_a_test() -> None:
    from torchvision_checks import facts

    assert set(models.MODELS) == {*SMALL, *facts(), "lenet5"}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("lenet1", 4 * 26 + 12 * 101 + 1930),
        ("lenet4", 4 * 26 + 4 * 2 + 16 * 101 + 16 * 2 + 401 * 120 + 1210),
        ("lenet5_1998", 60_000),
        ("alexnet_grouped", 60_965_224),
        ("nin", 966_986),
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
        ("plain20", 269_722),
        ("plain110", 1_727_962),
        ("wrn_16_8", 10_961_370),
        ("wrn_28_10", 36_479_194),
        ("mobilenet_v1", 4_231_976),
        # VGG-16's convolutions, fc6 and fc7, the scores, and filters between all pairs of maps.
        ("fcn32s", 14_714_688 + 102_764_544 + 16_781_312 + 4097 * 21 + 21 * 21 * 64 * 64),
        ("fcn16s", 14_714_688 + 102_764_544 + 16_781_312 + (4097 + 513) * 21 + 21 * 21 * (16 + 32 * 32)),
        ("fcn8s", 14_714_688 + 102_764_544 + 16_781_312 + (4097 + 513 + 257) * 21 + 21 * 21 * (2 * 16 + 16 * 16)),
        ("unet", 31_030_658),
    ],
)
def test_parameters_are_the_published_ones(name: str, count: int) -> None:
    with nn.init.skip_init():
        model = models.build(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_deconvnet_has_about_252_million_parameters() -> None:
    with nn.init.skip_init():
        model = models.deconvnet()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6) == 252


# ---------------------------------------------------------------------------------------------------- the early LeNets


def test_each_map_of_c3_reads_the_maps_that_the_paper_says() -> None:
    """Table I: sixteen rows of connections, 60 in all, found here by the gradient of each map."""
    model, _ = small("lenet5_1998")
    layer: Any = model.c3
    assert sum(map(len, LENET5_TABLE)) == 60
    assert sum(parameter.numel() for parameter in layer.parameters()) == 1516
    maps = gpucnn.tensor(np.random.default_rng(SEED).standard_normal((1, 6, 14, 14)), "float32", requires_grad=True)
    for output, inputs in enumerate(LENET5_TABLE):
        maps.grad = None
        layer(maps)[:, output].sum().backward()
        assert maps.grad is not None
        assert tuple(np.flatnonzero(maps.grad.numpy().any(axis=(0, 2, 3)))) == tuple(sorted(inputs))


def test_a_table_of_connections_is_a_convolution_with_zeros() -> None:
    rng = np.random.default_rng(SEED)
    layer = TableConv2d(3, ((0, 2), (1,), (0, 1, 2)), 2)
    layer.load_state_dict({"weight": rng.integers(-3, 4, (6, 2, 2)), "bias": [1, 2, 3]}, strict=False)
    filters = np.zeros((3, 3, 2, 2))
    for number, place in enumerate([(0, 0), (0, 2), (1, 1), (2, 0), (2, 1), (2, 2)]):
        filters[place] = layer.weight.numpy()[number]
    x = gpucnn.tensor(rng.integers(-3, 4, (2, 3, 5, 4)), "float32")
    expected = F.conv2d(x, gpucnn.tensor(filters, "float32"), layer.bias)
    assert_equal(layer(x), expected.numpy(), signed_zeros=False)


def test_subsampling_is_a_scaled_sum_plus_a_bias() -> None:
    layer = Subsampling(2)
    layer.load_state_dict({"weight": np.reshape([0.5, -1.0], (2, 1, 1)), "bias": np.reshape([1.0, 2.0], (2, 1, 1))})
    x = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
    sums = x.reshape(1, 2, 2, 2, 2, 2).sum(axis=(3, 5))
    assert_equal(layer(gpucnn.tensor(x)), sums * np.float32([[[0.5]], [[-1]]]) + np.float32([[[1]], [[2]]]))


def test_squashing_keeps_one_at_one() -> None:
    y = squash(gpucnn.tensor([-100.0, -1.0, 0.0, 1.0, 100.0]))
    assert_close(y, [-1.7159, -1.0, 0.0, 1.0, 1.7159], rtol=1e-4, atol=1e-5)


def test_lenet5s_outputs_are_distances_to_the_codes() -> None:
    model, x = small("lenet5_1998")
    codes = digit_codes(7)
    assert_equal(model.codes, codes)
    assert "codes" not in dict(model.named_parameters())
    f6: list[np.ndarray] = []
    inner = model.f6.forward
    model.f6.forward = lambda units: (f6.append(squash(inner(units)).numpy()), inner(units))[1]
    y = model(x)
    assert_close(y, -((f6[0][:, None] - codes) ** 2).sum(axis=2), rtol=1e-4, atol=1e-4)


def test_the_codes_are_ten_different_drawings() -> None:
    codes = digit_codes(10)
    assert (codes.shape, codes.dtype, set(np.unique(codes))) == ((10, 84), np.float32, {-1.0, 1.0})
    distances = (codes[:, None] != codes).sum(axis=2)
    assert distances[~np.eye(10, dtype=bool)].min() >= 8
    for count in (0, 11):
        with pytest.raises(ValueError, match="1 to 10 classes"):
            digit_codes(count)


@pytest.mark.parametrize("name", ["lenet4", "lenet5_1998"])
def test_images_that_can_not_be_padded_to_32_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="32x32 or evenly padded to it"):
        models.build(name, image_size=33)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wrong"), [("lenet1", 160), ("lenet5_1998", 120)])
def test_the_early_lenets_learn_digits(name: str, wrong: int) -> None:
    from gpucnn.data import DataLoader, Normalize, load_mnist_sample

    gpucnn.manual_seed(0)
    train, test = load_mnist_sample(announce=lambda line: None)
    normalize = Normalize(mean=(0.13,), std=(0.31,))
    model = models.build(name)
    optimizer = gpucnn.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    for _ in range(2):
        for images, labels in DataLoader(train, 32, shuffle=True, transform=normalize):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    with gpucnn.no_grad():
        errors = sum(int((model(x).argmax(1) != y).sum()) for x, y in DataLoader(test, 250, transform=normalize))
    assert errors < wrong


# ------------------------------------------------------------------------------------------------- residual networks


@pytest.mark.parametrize(("channels", "stride"), [((4, 4), 1), ((4, 8), 2), ((3, 8), 2), ((4, 8), 1)])
def test_a_block_that_adds_nothing_carries_its_input(channels: tuple[int, int], stride: int) -> None:
    block = CifarBlock(*channels, stride, shortcut=True).eval()
    nn.init.zeros_(block.bn2.weight)
    x = np.abs(np.random.default_rng(SEED).standard_normal((2, channels[0], 5, 6))).astype(np.float32)
    y = block(gpucnn.tensor(x)).numpy()
    before = (channels[1] - channels[0]) // 2
    carried = x[:, :, ::stride, ::stride]
    assert_equal(y[:, before : before + channels[0]], carried)
    assert y.shape == (2, channels[1], *carried.shape[2:])
    assert not np.delete(y, range(before, before + channels[0]), axis=1).any()


def test_the_plain_net_differs_in_the_shortcuts_alone() -> None:
    residual, plain = (models.build(name, **NARROW) for name in ("resnet20", "plain20"))
    plain.load_state_dict(residual.state_dict())
    x = gpucnn.tensor(np.random.default_rng(SEED).standard_normal((2, 3, 8, 8)).astype(np.float32))
    for model in (residual, plain):
        for module in model.eval().modules():
            if isinstance(module, CifarBlock):
                nn.init.zeros_(module.bn2.weight)
    assert not np.ptp(plain(x).numpy(), axis=0).any()  # without a shortcut nothing of the image arrives
    assert np.ptp(residual(x).numpy(), axis=0).all()


@pytest.mark.parametrize("depth", [4, 9, 12, 27])
def test_wide_resnets_have_6n_plus_4_layers(depth: int) -> None:
    with pytest.raises(ValueError, match="6 n \\+ 4 layers"):
        models.WideResNet(depth, 2)


@pytest.mark.parametrize("name", ["resnet20", "plain20", "wrn_16_8", "mobilenet_v1"])
def test_a_training_step_copies_nothing_for_layout(name: str) -> None:
    from gpucnn import backend

    model, x = small(name)
    with backend.count_layout_copies() as copies:
        F.cross_entropy(model(x), [0, 1]).backward()
    assert copies.value == 0


# ------------------------------------------------------------------------------------------------------ segmentation


@pytest.mark.parametrize(("size", "channels"), [(4, 2), (16, 3), (64, 1), (3, 2)])
def test_bilinear_filters_keep_a_constant_and_a_slope(size: int, channels: int) -> None:
    stride = (size + 1) // 2
    filters = gpucnn.tensor(bilinear_filters(channels, size))
    assert filters.shape == (channels, channels, size, size)
    slopes = np.arange(1, channels + 1, dtype=np.float32)
    x = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None], (1, channels, 6, 6)) * slopes[:, None, None]
    y = F.conv_transpose2d(gpucnn.tensor(x), filters, stride=stride).numpy()
    inner = y[..., 2 * stride : -2 * stride, 2 * stride : -2 * stride]
    steps = np.diff(inner, axis=2) * stride
    assert_close(steps, np.broadcast_to(slopes[:, None, None], steps.shape), rtol=1e-4, atol=1e-4)
    assert np.ptp(inner, axis=3).max() <= 1e-5


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
@pytest.mark.parametrize("size", [(1, 1), (33, 64), (65, 31), (48, 90)])
def test_fcns_answer_in_the_size_of_the_image(name: str, size: tuple[int, int]) -> None:
    model = models.build(name, num_classes=3, width=1 / 64)
    with gpucnn.no_grad():
        assert model(gpucnn.ones(1, 3, *size)).shape == (1, 3, *size)


def test_fcns_take_vgg16s_weights_over() -> None:
    vgg = models.vgg16(num_classes=2, width=1 / 32)
    fcn = models.fcn8s(num_classes=3, width=1 / 32)
    scores = {name: t.numpy().copy() for name, t in fcn.state_dict().items() if "score" in name}
    fcn.load_vgg16(vgg.state_dict())
    for ours, theirs in zip(fcn.features.parameters(), vgg.features.parameters(), strict=True):
        assert_equal(ours, theirs.numpy())
    x = gpucnn.tensor(np.random.default_rng(SEED).standard_normal((2, 16, 7, 7)).astype(np.float32))
    by_rows = vgg.classifier[3](F.relu(vgg.classifier[0](F.flatten(x, 1))))
    by_windows = fcn.fc7(F.relu(fcn.fc6(x)))
    assert_close(by_windows[:, :, 0, 0], by_rows.numpy(), rtol=1e-5, atol=1e-5)
    assert all(np.array_equal(fcn.state_dict()[name].numpy(), value) for name, value in scores.items())
    before = {name: t.numpy().copy() for name, t in fcn.state_dict().items()}
    with pytest.raises(ValueError, match=r"features\.0\.weight: shape"):
        fcn.load_vgg16(models.vgg16(num_classes=2, width=1 / 16).state_dict())
    with pytest.raises(ValueError, match=r"fc6\.bias: missing"):
        fcn.load_vgg16({name: t for name, t in vgg.state_dict().items() if name != "classifier.0.bias"})
    assert all(np.array_equal(fcn.state_dict()[name].numpy(), value) for name, value in before.items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.FCNVGG16(4), "stride of 8, 16 or 32, not 4"),
        (lambda: models.unet(padding=2), "padding is 0"),
        (lambda: models.unet(width=1 / 32)(gpucnn.ones(1, 1, 200, 200)), "can't be halved"),
        (lambda: models.unet(width=1 / 32, padding=1)(gpucnn.ones(1, 1, 40, 32)), "multiples of 16"),
        (lambda: models.deconvnet(width=1 / 64)(gpucnn.ones(1, 3, 40, 64)), "multiples of 32, got 40x64"),
        (lambda: models.resnet20(width=0), "width must be positive"),
    ],
)
def test_what_can_not_work_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ----------------------------------------------------------------- the same networks, written down once more in PyTorch


class Twin:
    """A network's weights, and PyTorch's functions with them by name."""

    def __init__(self, torch: Any, model: nn.Module) -> None:
        self.F = torch.nn.functional
        self.state = {name: torch.tensor(tensor.numpy()) for name, tensor in model.state_dict().items()}

    def conv(self, x: Any, name: str, **options: Any) -> Any:
        return self.F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), **options)

    def deconv(self, x: Any, name: str, **options: Any) -> Any:
        return self.F.conv_transpose2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), **options)

    def norm_relu(self, x: Any, name: str) -> Any:
        parts = [self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return self.F.batch_norm(x, *parts).relu()


def unet_twin(torch: Any, t: Twin, x: Any) -> Any:
    def double(x: Any, name: str) -> Any:
        return t.conv(t.conv(x, f"{name}.0").relu(), f"{name}.2").relu()

    levels = []
    for i in range(5):
        x = double(x if i == 0 else t.F.max_pool2d(x, 2), f"down.{i}")
        levels.append(x)
    for i in range(4):
        x = t.deconv(x, f"up.{i}", stride=2)
        top, left = ((a - b) // 2 for a, b in zip(levels[3 - i].shape[2:], x.shape[2:], strict=True))
        middle = levels[3 - i][:, :, top : top + x.shape[2], left : left + x.shape[3]]
        x = double(torch.cat([middle, x], 1), f"merge.{i}")
    return t.conv(x, "head")


def deconvnet_twin(torch: Any, t: Twin, x: Any) -> Any:
    places = []
    for stage, depth in enumerate((2, 2, 3, 3, 3)):
        for i in range(0, 3 * depth, 3):
            x = t.norm_relu(t.conv(x, f"encoder.{stage}.{i}", padding=1), f"encoder.{stage}.{i + 1}")
        x, indices = t.F.max_pool2d(x, 2, return_indices=True)
        places.append(indices)
    x = t.norm_relu(t.conv(x, "middle.0"), "middle.1")
    x = t.norm_relu(t.conv(x, "middle.3"), "middle.4")
    x = t.norm_relu(t.deconv(x, "middle.6"), "middle.7")
    for stage, depth in enumerate((3, 3, 3, 2, 2)):
        x = t.F.max_unpool2d(x, places[4 - stage], 2)
        for i in range(0, 3 * depth, 3):
            x = t.norm_relu(t.deconv(x, f"decoder.{stage}.{i}", padding=1), f"decoder.{stage}.{i + 1}")
    return t.conv(x, "score")


def fcn8s_twin(torch: Any, t: Twin, x: Any) -> Any:
    height, width = x.shape[2:]
    y, number, pooled = x, 0, []
    for depth in (2, 2, 3, 3, 3):
        for _ in range(depth):
            y = t.conv(y, f"features.{number}", padding=1 if number else 100).relu()
            number += 2
        y = t.F.max_pool2d(y, 2, ceil_mode=True)
        number += 1
        pooled.append(y)
    y = t.conv(t.conv(t.conv(y, "fc6").relu(), "fc7").relu(), "score_fr")
    for up, score, stage, start in (("upscore2", "score_pool4", 3, 5), ("upscore_pool4", "score_pool3", 2, 9)):
        y = t.deconv(y, up, stride=2)
        y = y + t.conv(pooled[stage], score)[:, :, start:, start:][:, :, : y.shape[2], : y.shape[3]]
    return t.deconv(y, "upscore", stride=8)[:, :, 31:, 31:][:, :, :height, :width]


@pytest.mark.peers
@pytest.mark.parametrize("name", ["unet", "deconvnet", "fcn8s"])
def test_segmentation_networks_are_their_papers(name: str, torch: Any) -> None:
    model, x = small(name)
    for key, tensor in model.eval().state_dict().items():
        if key.endswith(("running_mean", "bias")) or "score" in key:
            nn.init.normal_(tensor, 0, 0.3)
    twin: Callable[..., Any] = globals()[f"{name}_twin"]
    with gpucnn.no_grad(), torch.no_grad():
        expected = twin(torch, Twin(torch, model), torch.tensor(x.numpy()))
        assert_close(model(x), expected.numpy(), rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_unet_with_padding_answers_in_the_size_of_the_image() -> None:
    model = models.unet(width=1 / 32, padding=1)
    assert model(gpucnn.ones(1, 1, 32, 48)).shape == (1, 2, 32, 48)
