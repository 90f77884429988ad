"""Networks that torchvision does not have: published parameter counts, shapes, gradients, what is special in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from op_checks import SEED
from paper_networks import NARROW, SMALL, small

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn
from gpucnn.models.digit_codes import digit_codes
from gpucnn.models.lenet_early import Subsampling, TableConv2d, squash
from gpucnn.models.resnet_cifar import CifarBlock
from gpucnn.testing import assert_close, assert_equal


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
        ("lenet1", 2578),
        ("lenet4", 4 * 26 + 8 * 2 + 16 * 201 + 16 * 2 + 401 * 120 + 1210),
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


# The papers' tables: a row for each map that is read, a column for each that reads.
LENET1_CONNECTIONS = """
XXX.XX......
.XXXXX......
......XXX.XX
.......XXXXX
"""
LENET5_CONNECTIONS = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


@pytest.mark.parametrize(
    ("name", "layer", "connections", "weights"),
    [("lenet1", "conv2", LENET1_CONNECTIONS, 20 * 25 + 12), ("lenet5_1998", "c3", LENET5_CONNECTIONS, 60 * 25 + 16)],
)
def test_each_map_reads_the_maps_that_the_paper_says(name: str, layer: str, connections: str, weights: int) -> None:
    """As the gradient of each map finds them."""
    model, _ = small(name)
    table: Any = getattr(model, layer)
    expected = np.array([[place == "X" for place in row] for row in connections.split()])
    assert sum(parameter.numel() for parameter in table.parameters()) == weights
    shape = (1, len(expected), 6, 6)
    maps = gpucnn.tensor(np.random.default_rng(SEED).standard_normal(shape), "float32", requires_grad=True)
    for output, inputs in enumerate(expected.T):
        maps.grad = None
        table(maps)[:, output].sum().backward()
        assert maps.grad is not None
        assert_equal(maps.grad.numpy().any(axis=(0, 2, 3)), inputs, name=f"map {output}")


@pytest.mark.parametrize("name", ["lenet1", "lenet4", "lenet5_1998"])
def test_weights_start_within_the_papers_bounds(name: str) -> None:
    model, _ = small(name)
    bounds: dict[str, np.ndarray] = {}
    for key, module in model.named_modules():
        if isinstance(module, TableConv2d):
            bounds[key] = np.repeat([2.4 / (25 * len(inputs)) for inputs in module.table], [*map(len, module.table)])
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            bounds[key] = np.full(len(module.weight), 2.4 / np.prod(module.weight.shape[1:]))
    for key, bound in bounds.items():
        weight = model.state_dict()[f"{key}.weight"].numpy()
        assert not model.state_dict()[f"{key}.bias"].numpy().any()
        share = np.abs(weight).max(axis=tuple(range(1, weight.ndim))) / bound
        assert ((share > 0.5) & (share <= 1)).all(), key


def test_lenet4s_subsampling_reads_each_map_twice() -> None:
    model, x = small("lenet4")
    seen: list[np.ndarray] = []
    inner = model.pool1.forward
    model.pool1.forward = lambda maps: (seen.append(maps.numpy()), inner(maps))[1]
    model(x)
    assert seen[0].shape[1] == 8
    assert_equal(seen[0][:, :4], seen[0][:, 4:])


def test_a_table_of_connections_is_a_convolution_with_zeros() -> None:
    rng = np.random.default_rng(SEED)
    layer = TableConv2d(3, ((0, 2), (1,), (0, 1, 2)), 2)
    layer.load_state_dict({"weight": rng.integers(-3, 4, (6, 2, 2)), "bias": [1, 2, 3]})
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


def test_nin_takes_an_image_without_its_batch() -> None:
    model, x = small("nin")
    model.eval()
    assert_close(model(x[0]), model(x).numpy()[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "behind"),
    [("alexnet_grouped", ("fc6", "fc7")), ("fcn8s", ("fc6", "fc7")), ("nin", ("features.6", "features.14"))],
)
def test_dropout_lies_behind_the_layers_that_the_paper_says(name: str, behind: tuple[str, str]) -> None:
    """What goes into dropout is what comes out of the layer before it, after its ReLU or pooling."""
    model, x = small(name)
    made: list[tuple[str, np.ndarray]] = []
    for key, module in model.named_modules():
        if key in behind:
            module.forward = lambda y, run=module.forward, key=key: (made.append((key, run(y).numpy())), run(y))[1]
        elif type(module) is nn.Dropout:
            module.forward = lambda y: (made.append(("dropout", y.numpy())), y)[1]
    model(x)
    assert [key for key, _ in made] == [behind[0], "dropout", behind[1], "dropout"]
    for (_, output), (_, dropped) in zip(made[::2], made[1::2], strict=True):
        assert_equal(dropped, np.maximum(output, 0))


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.FCNVGG16(4), "stride of 8, 16 or 32, not 4"),
        (lambda: models.unet(padding=2), "padding is 0"),
        (lambda: models.unet(width=1 / 32)(gpucnn.ones(1, 1, 204, 200)), "sides are 188, .*: not 204x200"),
        (lambda: models.unet(width=1 / 32)(gpucnn.ones(1, 1, 188, 172)), "sides are 188, .*: not 188x172"),
        (
            lambda: models.unet(width=1 / 32, padding=1)(gpucnn.ones(1, 1, 40, 32)),
            "multiples of 16: .* 40x32",
        ),
        (lambda: models.CifarResNet(0), "at least 1 block"),
        (lambda: models.WideResNet(16, 0), "at least 1 times as wide"),
        (lambda: models.nin(width=1 / 16)(gpucnn.ones(1, 3, 4, 3)), "window of 3 x 3 is larger"),
        (lambda: models.alexnet_grouped(width=1 / 32)(gpucnn.ones(1, 3, 63, 62)), "window of 3 x 3 is larger"),
        (lambda: models.deconvnet(width=1 / 64)(gpucnn.ones(1, 3, 40, 64)), "multiples of 32, got 40x64"),
        (lambda: models.resnet20(width=0), "width must be positive"),
    ],
)
def test_what_can_not_work_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
