"""The books of networks: the textbook's numbers, published totals, memory as ops hold it, a model left as it was."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import Tensor, models, nn, random
from gpucnn import functional as F
from gpucnn.autograd import observers
from gpucnn.books import ALL, Layer, NetworkEndsError, Reach, Summary, summary
from gpucnn.books.table import si, size
from gpucnn.graph import Node, owner


@functools.cache
def books(name: str, *shape: int) -> Summary:
    return gpucnn.summary(models.build(name), shape or (3, 224, 224))


def layer(of: Summary, path: str, kind: str = "") -> Layer:
    return next(entry for entry in of.layers if entry.path == path and kind in ("", entry.kind))


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


# ------------------------------------------------------------------------------------------------------ memory


def nodes_below(results: list[Tensor]) -> Iterator[Node]:
    waiting, seen = [tensor.node[0] for tensor in results if tensor.node], set()
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            waiting += [edge[0] for edge in node.edges if isinstance(edge, tuple)]


def held_by_graph(model: nn.Module, shape: tuple[int, ...], batch: int) -> int:
    """Bytes of distinct memory that the graph of a training pass holds, with its outputs, without parameters."""
    model.train()
    result = model(gpucnn.zeros(batch, *shape))
    results = [result] if isinstance(result, Tensor) else list(result)
    arrays = [result.data for result in results]
    for node in nodes_below(results):
        assert node.context is not None
        arrays += [array for array in node.context.saved if array is not None]
    state = {id(owner(tensor.data)) for tensor in (*model.parameters(), *model.buffers())}
    return sum({id(o): o.nbytes for o in map(owner, arrays) if id(o) not in state}.values())


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet5", (1, 28, 28)), ("resnet18", (3, 64, 64)), ("mobilenet_v2", (3, 64, 64)), ("googlenet", (3, 64, 64))],
)
def test_training_holds_what_the_graph_holds(name: str, shape: tuple[int, ...]) -> None:
    model = models.build(name)
    found = summary(model, shape)
    assert abs(found.training_memory - held_by_graph(model, shape, 2) / 2) <= len(found.layers)


def test_each_memory_is_booked_to_the_layer_that_made_it() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 5))
    rows = {entry.kind: entry for entry in summary(net, (1, 8, 8)).layers}
    assert rows["input"].training_memory == 64 * 4  # the convolution's weight gradient needs it
    assert rows["Conv2d"].training_memory == 0  # ReLU's gradient follows from its own output
    assert rows["ReLU"].training_memory == 2 * 36 * 4
    assert rows["MaxPool2d"].training_memory == 18 * 1  # a byte for each winner; flattening copies its output
    assert rows["Flatten"].training_memory == 18 * 4
    assert rows["Linear"].training_memory == 5 * 4  # the output
    assert [rows[kind].memory for kind in ("input", "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear")] == [
        256, 288, 288, 72, 72, 20,
    ]  # fmt: skip


def test_a_frozen_beginning_holds_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    net[0].freeze()
    found = summary(net, (1, 8, 8))
    assert [entry.training_memory for entry in found.layers] == [0, 0, 1024, 0, 1024]
    assert (found.parameters, found.trained_parameters) == (40 + 148, 148)
    assert "148 of them trained" in str(found)
    net[2].freeze()
    assert summary(net, (1, 8, 8)).training_memory == 1024  # the output alone


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


def test_what_inference_must_hold_at_once() -> None:
    image = 2 * 16 * 4
    plain = nn.Sequential(*[nn.ReLU() for _ in range(5)])
    assert summary(plain, (2, 4, 4)).peak_memory == 2 * image
    found = summary(Residual(), (2, 4, 4))
    assert found.peak_memory == 3 * image  # the sum, and both of its operands
    assert found.peak_layer == "Add"
    assert found.memory == 4 * image
    narrow = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Conv2d(1, 8, 1), nn.Conv2d(8, 1, 1))
    assert summary(narrow, (2, 4, 4)).peak_memory == (8 + 1) * 64
    assert summary(narrow, (2, 4, 4)).peak_layer == "1 (Conv2d)"
    views = nn.Sequential(nn.Flatten(), nn.Flatten(), nn.Flatten())
    assert summary(views, (4,)).peak_memory == 16
    assert summary(nn.Sequential(), (2, 4, 4)).peak_memory == image


def test_float64_and_float16_take_their_own_bytes() -> None:
    for dtype, factor in (("float64", 2.0), ("float16", 0.5)):
        found = summary(models.lenet5().to(dtype=dtype), (1, 28, 28))
        assert found.dtype == dtype
        assert found.memory == books("lenet5", 1, 28, 28).memory * factor
        assert found.parameter_bytes == 61_706 * 4 * factor


# ---------------------------------------------------------------------------------------------- left as it was


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", gpucnn.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return self.drop(F.relu(self.norm(self.conv(x))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("shape", [(2, 6, 6), (3, 6, 6)], ids=["a pass", "a failing pass"])
def test_the_model_is_afterwards_what_it_was(shape: tuple[int, ...]) -> None:
    model = Stateful()
    model(gpucnn.ones(2, 2, 6, 6)).sum().backward()
    model.norm.eval()
    gpucnn.manual_seed(11)
    gpucnn.nn.init.uniform_(nn.Parameter(gpucnn.zeros(3)))
    flags = [module.training for module in model.modules()]
    buffers = {name: (buffer, buffer.data, buffer.numpy().copy()) for name, buffer in model.named_buffers()}
    gradients = {name: (p.grad, p.grad.numpy().copy()) for name, p in model.named_parameters() if p.grad is not None}
    weights = {name: (p, p.data, p.numpy().copy()) for name, p in model.named_parameters()}
    state = random.state()
    if shape[0] == 2:
        summary(model, shape)
    else:
        with pytest.raises(NetworkEndsError):
            summary(model, shape)
    assert [module.training for module in model.modules()] == flags
    assert random.state() == state
    assert observers == {}
    assert dict(model.named_buffers()).keys() == buffers.keys()
    for name, buffer in model.named_buffers():
        assert buffer is buffers[name][0]
        assert buffer.data is buffers[name][1]
        np.testing.assert_array_equal(buffer.numpy(), buffers[name][2])
    assert len(gradients) == 4
    for name, parameter in model.named_parameters():
        assert parameter is weights[name][0]
        assert parameter.data is weights[name][1]
        np.testing.assert_array_equal(parameter.numpy(), weights[name][2])
        assert parameter.grad is gradients[name][0]
        np.testing.assert_array_equal(parameter.grad.numpy(), gradients[name][1])  # type: ignore[union-attr]


def test_a_graph_recorded_before_can_still_be_walked() -> None:
    model = Stateful()
    result = model(gpucnn.ones(2, 2, 6, 6)).sum()
    summary(model, (2, 6, 6))
    result.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_inside_no_grad_it_is_the_same() -> None:
    with gpucnn.no_grad():
        found = summary(models.lenet5(), (1, 28, 28))
        assert not gpucnn.is_grad_enabled()
    assert found.to_dict() == books("lenet5", 1, 28, 28).to_dict()


def test_it_repeats_itself_exactly() -> None:
    model = models.build("squeezenet1_1")
    assert summary(model, (3, 64, 64)) == summary(model, (3, 64, 64))


# ------------------------------------------------------------------------------------------- what a layer is


class Mixed(nn.Module):
    """Modules and functions, a module used twice, parameters of its own and one that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.act = nn.ReLU()
        self.scale = nn.Parameter(gpucnn.ones(1))
        self.forgotten = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(self.act(self.conv(x))))
        x += 1.0
        return F.sigmoid(x * self.scale)


def test_functions_are_layers_of_the_module_that_calls_them() -> None:
    found = summary(Mixed(), (1, 4, 4))
    assert [(entry.path, entry.kind) for entry in found.layers] == [
        ("", "input"), ("conv", "Conv2d"), ("act", "ReLU"), ("conv", "Conv2d"), ("act", "ReLU"), ("", "Add"),
        ("", "Multiply"), ("", "Sigmoid"),
    ]  # fmt: skip
    assert [entry.parameters for entry in found.layers] == [0, 10, 0, 0, 0, 0, 1, 0]  # shared ones once
    assert [entry.macs for entry in found.layers] == [0, 144, 0, 144, 0, 0, 0, 0]  # but they work twice
    assert found.parameters == 23
    assert found.unused_parameters == 12
    assert "not used by this input: 12 parameters" in str(found)
    assert found.total.parameters == 23


class Unregistered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Conv2d(1, 1, 3)]
        self.shown = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.shown(self.hidden[0](x))  # type: ignore[no-any-return]


def test_modules_that_are_not_registered_are_seen_where_they_run() -> None:
    found = summary(nn.Sequential(Unregistered()), (1, 4, 4))
    assert [(entry.path, entry.kind) for entry in found.layers[1:]] == [("0", "Conv2d"), ("0.shown", "ReLU")]
    assert found.macs == 36
    assert [entry.kind for entry in found.at_depth(1)] == ["input", "Unregistered"]


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 2, 3)
        self.aux = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU())
        self.head = nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.body(x)
        if self.training:
            return {"aux": self.aux(x), "out": self.head(x)}
        return {"out": self.head(x)}


def test_layers_that_only_training_runs_stand_where_it_runs_them() -> None:
    found = summary(TwoHeads(), (1, 5, 5))
    assert [(entry.path, entry.only_in_training) for entry in found.layers] == [
        ("", False), ("body", False), ("aux.0", True), ("aux.1", True), ("head", False),
    ]  # fmt: skip
    aux = layer(found, "aux.0")
    assert (aux.parameters, aux.macs, aux.memory, aux.outputs) == (9, 0, 0, ((3, 3, 3),))
    assert layer(found, "aux.1").training_memory == 27 * 4
    assert found.macs == 9 * (9 * 2 + 2 * 4)
    assert found.unused_parameters == 0
    row = next(line for line in str(found).splitlines() if line.startswith("aux.0"))
    assert row.split()[:6] == ["aux.0", "Conv2d", "3x3x3", "9", "22.0", "-"]


def test_the_auxiliary_heads_of_googlenet_cost_parameters_but_no_inference() -> None:
    heads = [entry for entry in books("googlenet").layers if entry.path.startswith("aux")]
    assert sum(entry.parameters for entry in heads) == 13_004_888 - 6_624_904
    assert all(entry.only_in_training and not entry.macs for entry in heads)


def test_evaluation_and_training_may_differ_in_single_ops() -> None:
    class Modes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(F.relu(x), 0.5, self.training) if self.training else F.sigmoid(F.relu(x))

    net = Modes()
    net.child = nn.ReLU()
    found = summary(net, (4,))
    assert [(entry.kind, entry.only_in_training) for entry in found.layers] == [
        ("input", False), ("ReLU", False), ("Dropout", True), ("Sigmoid", False),
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------- depth


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v2"])
def test_taking_modules_together_loses_nothing(name: str, depth: int) -> None:
    found = books(name)
    together = found.at_depth(depth)
    for amount in ("parameters", "macs", "memory", "training_memory"):
        assert sum(getattr(entry, amount) for entry in together) == getattr(found, amount)
    assert sum(len(entry.unread) for entry in together) == sum(len(entry.unread) for entry in found.layers)
    assert together[-1].outputs == found.layers[-1].outputs
    assert max(len(entry.path.split(".")) for entry in together) <= depth


def test_depth_1_of_resnet18() -> None:
    together = books("resnet18").at_depth(1)
    assert [(entry.path, entry.kind) for entry in together] == [
        ("", "input"), ("conv1", "Conv2d"), ("bn1", "BatchNorm2d"), ("relu", "ReLU"), ("maxpool", "MaxPool2d"),
        ("layer1", "Sequential"), ("layer2", "Sequential"), ("layer3", "Sequential"), ("layer4", "Sequential"),
        ("avgpool", "AdaptiveAvgPool2d"), ("", "Reshape"), ("fc", "Linear"),
    ]  # fmt: skip
    assert together[5].outputs == ((64, 56, 56),)
    assert together[5].field == layer(books("resnet18"), "layer1.1").field
    assert books("resnet18").at_depth(2)[5].kind == "BasicBlock"
    assert books("resnet18").at_depth(None) == books("resnet18").layers


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_below_1_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="depth must be at least 1"):
        books("resnet18").at_depth(depth)


# ------------------------------------------------------------------------------------------------------ output


def test_the_table_has_a_line_for_each_layer_and_totals() -> None:
    found = books("alexnet")
    lines = str(found).splitlines()
    assert lines[0] == "AlexNet on 3x224x224, float32; operations and activations of one image"
    body = lines[lines.index("") + 3 :]
    rows = body[: len(found.layers) + 1]
    assert rows[1].split() == [
        *("features.0", "Conv2d", "64x55x55", "23,296", "0.0", "70.28", "M", "9.8", "756.2", "KiB", "11", "4", "3"),
    ]
    assert rows[-1].split()[:6] == ["total", "61,100,840", "100.0", "714.19", "M", "100.0"]
    assert "parameters: 61,100,840 (233.1 MiB), all trained" in lines
    assert any(line.startswith("inference holds at once: 1.5 MiB, at features.1 (ReLU)") for line in lines)
    kinds = {line.split()[0]: line for line in body[len(found.layers) + 1 :] if line}
    assert kinds["Linear"].split()[1:3] == ["58,631,144", "96.0"]
    assert len(found.table(1).splitlines()) < len(lines) - 15


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, ""),
        (999, "999"),
        (1000, "1.00 k"),
        (12_443_648, "12.44 M"),
        (15_470_264_320, "15.47 G"),
        (2 * 10**12, "2.00 T"),
    ],
)
def test_counts_in_words(number: int, text: str) -> None:
    assert si(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, ""), (1023, "1023 B"), (1024, "1.0 KiB"), (602_112, "588.0 KiB"), (5 << 30, "5.0 GiB")]
)
def test_bytes_in_words(number: int, text: str) -> None:
    assert size(number) == text


def test_json_holds_the_same_numbers() -> None:
    found = books("resnet18")
    loaded = json.loads(json.dumps(found.to_dict()))
    assert loaded["totals"]["macs"] == found.macs
    assert loaded["totals"]["parameters"] == 11_689_512
    assert [entry["path"] for entry in loaded["layers"]] == [entry.path for entry in found.layers]
    assert loaded["layers"][1]["receptive_field"] == [{"size": 7, "jump": 2.0, "offset": 0.0}] * 2
    assert loaded["layers"][-1]["receptive_field"] == ["all", "all"]
    assert sum(entry["training_memory_bytes"] for entry in loaded["layers"]) == found.training_memory
    shortcut = next(entry for entry in loaded["layers"] if entry["path"] == "layer2.0.downsample.0")
    assert shortcut["unread"] == ["rows 1, 3, 5, ..., 55 (28 of 56)", "columns 1, 3, 5, ..., 55 (28 of 56)"]


# --------------------------------------------------------------------------------------------------- bad input


def test_a_shape_too_small_names_the_layer_where_the_network_ends() -> None:
    with pytest.raises(
        NetworkEndsError,
        match=r"^AlexNet on input 3x32x32 ends at features.12 \(MaxPool2d\): max_pool2d: a window of 3 x 3 is larger",
    ) as caught:
        summary(models.build("alexnet"), (3, 32, 32))
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(NetworkEndsError, match=r"^LeNet5 on input 1x4x4 ends at conv2 \(Conv2d\): conv2d: a kernel"):
        summary(models.lenet5(), (1, 4, 4))
    with pytest.raises(NetworkEndsError, match=r"^Sequential on input 1x3x3 ends at 0.blocks \(Ends\): max_pool2d: "):
        summary(nn.Sequential(nn.Sequential({"blocks": Ends()})), (1, 3, 3))
    with pytest.raises(NetworkEndsError, match=r"^Ends on input 1x3x3 ends in Ends itself: max_pool2d: "):
        summary(Ends(), (1, 3, 3))


class Ends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(x), 4)  # type: ignore[no-any-return]


def test_wrong_channels_name_the_layer_too() -> None:
    with pytest.raises(NetworkEndsError, match=r"ends at conv1 \(Conv2d\): conv2d: input .* has C=3 channels"):
        summary(models.lenet5(), (3, 28, 28))


def test_an_error_that_the_network_deals_with_is_no_end() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.last = Ends(), nn.Conv2d(1, 1, 9)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.pool(x)  # type: ignore[no-any-return]
            except ValueError:
                return self.last(x)  # type: ignore[no-any-return]

    with pytest.raises(NetworkEndsError, match=r"ends at last \(Conv2d\): conv2d"):
        summary(Careful(), (1, 3, 3))


@pytest.mark.parametrize("shape", [(), (0, 4, 4), (1, -3, 3)])
def test_shapes_that_no_image_has_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape is that of one input, such as"):
        summary(nn.ReLU(), shape)


def test_what_is_no_module_or_no_size_is_refused() -> None:
    with pytest.raises(TypeError, match=r"model must be a gpucnn.nn.Module, got str"):
        summary("alexnet", (3, 224, 224))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"shape must be an integer, got 2.5"):
        summary(nn.ReLU(), (2.5, 4))  # type: ignore[arg-type]


def test_an_interruption_passes_through_and_leaves_no_observer() -> None:
    class Interrupted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    model = Interrupted().train()
    with pytest.raises(KeyboardInterrupt):
        summary(model, (1,))
    assert observers == {}
    assert model.training


# --------------------------------------------------------------------------------------------------- observing


def test_other_threads_are_not_observed() -> None:
    class Waits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            worker = threading.Thread(target=lambda: results.append(nn.ReLU()(gpucnn.ones(2) - 3)))
            worker.start()
            worker.join()
            return F.relu(x)

    results: list[Tensor] = []
    net = Waits()
    net.child = nn.ReLU()
    assert [entry.kind for entry in summary(net, (2,)).layers] == ["input", "ReLU"]
    assert [result.tolist() for result in results] == [[0, 0], [0, 0]]


def test_a_summary_within_a_summary_keeps_to_itself() -> None:
    class Curious(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(1, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            counts.append(len(summary(nn.Sequential(nn.ReLU(), nn.ReLU()), (3,)).layers))
            return self.inner(x)  # type: ignore[no-any-return]

    counts: list[int] = []
    found = summary(Curious(), (1, 4, 4))
    assert layer(found, "inner").macs == found.macs == 36
    assert "ReLU" not in [entry.kind for entry in found.layers]
    assert counts == [3, 3]
    assert observers == {}


def test_gpucnn_summary_is_the_function() -> None:
    assert gpucnn.summary is summary
    assert gpucnn.books.summary is summary
