"""The books of networks: a model left as it was, what a layer is, depth, the table and JSON, bad input, observers."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from summary_checks import books, layer

import gpucnn
from gpucnn import Tensor, models, nn, random
from gpucnn import functional as F
from gpucnn.autograd import observers
from gpucnn.books import NetworkEndsError, summary
from gpucnn.books.table import si, size

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
