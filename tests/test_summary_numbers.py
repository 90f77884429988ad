"""The books of networks: the numbers of the textbook, and published totals and receptive fields."""

from __future__ import annotations

import pytest
from summary_checks import books, layer

from gpucnn import nn
from gpucnn.books import ALL, Reach, Summary, summary
from gpucnn.books.table import si


def share(of: Summary, amount: str, *kinds: str) -> float:
    part = sum(getattr(entry, amount) for entry in of.layers if entry.kind in kinds)
    return float(part / getattr(of, amount))


# ------------------------------------------------------------------------------------------------ the textbook


def test_ten_5x5x3_filters_with_biases_have_760_parameters() -> None:
    found = summary(nn.Conv2d(3, 10, 5, padding=2), (3, 32, 32))
    assert found.parameters == found.layers[1].parameters == 760
    assert found.layers[1].outputs == ((10, 32, 32),)


def test_a_bottleneck_of_256_64_64_256_has_69632_weights() -> None:
    block = nn.Sequential(
        nn.Conv2d(256, 64, 1, bias=False),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.Conv2d(64, 256, 1, bias=False),
    )
    found = summary(block, (256, 4, 4))
    assert [entry.parameters for entry in found.layers[1:]] == [16_384, 36_864, 16_384]
    assert found.parameters == 69_632


def test_a_5x5_over_192_channels_costs_120_million_and_a_tenth_through_a_1x1() -> None:
    direct = summary(nn.Conv2d(192, 32, 5, padding="same"), (192, 28, 28))
    assert direct.macs == 120_422_400
    assert si(direct.macs) == "120.42 M"
    through = summary(nn.Sequential(nn.Conv2d(192, 16, 1), nn.Conv2d(16, 32, 5, padding="same")), (192, 28, 28))
    assert through.macs == 2_408_448 + 10_035_200
    assert si(through.macs) == "12.44 M"


def test_the_first_layer_of_the_original_alexnet() -> None:
    """227x227x3, 96 filters of 11x11 at stride 4: 55x55x96, 35 thousand parameters, 105 million operations."""
    found = summary(nn.Sequential(nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), nn.MaxPool2d(3, 2)), (3, 227, 227))
    assert [entry.outputs for entry in found.layers[1:]] == [((96, 55, 55),), ((96, 55, 55),), ((96, 27, 27),)]
    assert found.layers[1].parameters == 34_944
    assert found.layers[1].macs == 105_415_200
    assert found.layers[1].memory == 290_400 * 4
    assert found.layers[1].unread == ()
    assert summary(nn.Conv2d(3, 96, 11, stride=4), (3, 224, 224)).layers[1].unread == (
        "row 223 of 224",
        "column 223 of 224",
    )


def test_where_alexnet_computes_and_what_it_stores() -> None:
    found = books("alexnet")
    assert share(found, "macs", "Conv2d") > 0.9
    assert share(found, "parameters", "Linear") > 0.95
    early = [entry for entry in found.layers if entry.path in ("", *(f"features.{number}" for number in range(6)))]
    for amount in ("memory", "training_memory"):
        assert sum(getattr(entry, amount) for entry in early if entry.kind != "Reshape") > 0.6 * getattr(found, amount)
        assert share(found, amount, "Linear") < 0.02
    assert found.layers[0].outputs == ((3, 224, 224),)
    assert layer(found, "features.0").outputs == ((64, 55, 55),)


# ------------------------------------------------------------------------------------------ published numbers


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("alexnet", 61_100_840, 714_188_480),
        ("vgg16", 138_357_544, 15_470_264_320),
        ("resnet18", 11_689_512, 1_814_073_344),
        ("resnet50", 25_557_032, 4_089_184_256),
        ("mobilenet_v2", 3_504_872, 300_774_272),
        ("googlenet", 13_004_888, 1_498_376_192),
        ("densenet121", 7_978_856, 2_834_161_664),
        ("squeezenet1_1", 1_235_496, 349_151_936),
    ],
)
def test_totals_are_the_published_ones(name: str, parameters: int, macs: int) -> None:
    """torchvision's parameters, and its GFLOPS (which are multiply-accumulates): 0.71, 15.47, 1.81, 4.09, 0.3, ..."""
    found = books(name)
    assert (found.parameters, found.macs) == (parameters, macs)
    assert sum(entry.parameters for entry in found.layers) == parameters
    assert found.unused_parameters == 0
    assert found.total.unknown == ()


@pytest.mark.parametrize(
    ("name", "path", "pixels", "jump"),
    [
        ("alexnet", "features.12", 195, 32),  # table of the article
        ("vgg16", "features.30", 212, 32),  # likewise
        ("vgg16", "features.28", 196, 16),
        ("resnet50", "layer4.2.relu", 427, 32),  # see test_summary_fields.py on the article's 483
        ("resnet18", "layer4.1.relu", 435, 32),
        ("mobilenet_v2", "features.18.2", 491, 32),
    ],
)
def test_receptive_fields_are_the_published_ones(name: str, path: str, pixels: int, jump: int) -> None:
    field = [entry for entry in books(name).layers if entry.path == path][-1].field
    assert field is not None
    for extent in field:
        assert isinstance(extent, Reach)
        assert (extent.pixels, extent.jump) == (pixels, jump)


def test_after_global_pooling_all_is_seen() -> None:
    found = books("resnet18")
    assert layer(found, "avgpool").field == layer(found, "fc").field == (ALL, ALL)
