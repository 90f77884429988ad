"""Networks as contestants: what they are asked to do, that they answer the same, and how far apart answers may be."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_mnist import write_small_mnist

import gpucnn
from gpucnn import models
from gpucnn.bench import memory, peers
from gpucnn.bench.answers import Answer, Off, sketch
from gpucnn.bench.networks import RANDOM, Task, batches, network
from gpucnn.bench.own_network import OwnNetwork
from gpucnn.bench.torch_network import TorchNetwork, TorchPool
from gpucnn.nn import Conv2d
from gpucnn.ops.registry import TABLES
from gpucnn.testing import rotating_seed

RNG = np.random.default_rng(rotating_seed())
SMALL = (3, 16, 16)


def small(model: str = "resnet20", training: bool = True, **options: Any) -> Task:
    return Task.of(model, training, **{"batch": 4, "image": SMALL, "classes": 5, **options})


# ----------------------------------------------------------------------------------------------------------- the task


@pytest.mark.parametrize(
    ("model", "device", "batch", "image", "classes", "data"),
    [
        ("lenet5", "cpu", 64, (1, 28, 28), 10, "mnist-sample"),
        ("lenet1", "cuda", 64, (1, 28, 28), 10, "mnist-sample"),
        ("resnet20", "cpu", 128, (3, 32, 32), 10, RANDOM),
        ("plain56", "cuda:1", 128, (3, 32, 32), 10, RANDOM),
        ("resnet18", "cpu", 4, (3, 224, 224), 1000, RANDOM),
        ("mobilenet_v2", "cuda", 32, (3, 224, 224), 1000, RANDOM),
    ],
)
def test_a_network_is_used_as_in_its_paper(
    model: str, device: str, batch: int, image: tuple[int, ...], classes: int, data: str
) -> None:
    task = Task.of(model, True, device)
    assert (task.batch, task.image, task.classes, task.data) == (batch, image, classes, data)
    assert task == dataclasses.replace(Task.of(model, False, device), training=True)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("resnet5", {}, "unknown model 'resnet5', there are: .*; did you mean 'resnet"),
        ("unet", {}, "labels every pixel"),
        ("lenet5", {"image": (1, 40, 40)}, "LeNet-5 takes images of 32x32"),
        ("alexnet", {"image": (3, 8, 8)}, "can't take images of 8 x 8"),
        ("resnet20", {"amp": "float8"}, "amp must be bfloat16, float16 or tf32, got 'float8'"),
        ("resnet20", {"amp": "tf32", "dtype": "float64"}, "amp='tf32' is for networks of float32"),
        ("resnet20", {"dtype": "int32"}, "computes in floats"),
        ("resnet20", {"dtype": "float16"}, "a network of float16 is for inference; with amp='float16'"),
        ("resnet20", {"fused": True}, "fused networks are for inference"),
        ("lenet5", {"data": "mnist-sample", "batch": 5000}, "mnist-sample has 4000 images, a batch is of 5000"),
        ("resnet20", {"data": "mnist-sample", "classes": 7}, "leave out image and classes"),
        ("resnet20", {"data": "svhn"}, "unknown data set 'svhn'"),
    ],
)
def test_what_can_not_be_is_refused_in_words(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task.of(model, True, **options)


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="MNIST: not in"):
        Task.of("lenet5", True, data="mnist", data_dir=str(tmp_path))


def test_batches_are_the_same_for_all_and_differ_from_one_another() -> None:
    first, again = batches(small()), batches(small())
    for (images, labels), (others, other_labels) in zip(first, again, strict=True):
        assert (images.shape, images.dtype, labels.shape) == ((4, *SMALL), np.float32, (4,))
        assert 0 <= labels.min() <= labels.max() < 5
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)
    assert len(first) >= 3
    assert not np.array_equal(first[0][0], first[1][0])


def test_digits_are_normalised_and_none_comes_twice(tmp_path: Path) -> None:
    task = Task.of("lenet5", True, batch=100, data="mnist", data_dir=str(write_small_mnist(tmp_path)))
    assert (task.image, task.classes) == ((1, 28, 28), 10)
    found = batches(task)
    assert len(found) == 3
    for images, labels in found:
        assert images.shape == (100, 1, 28, 28)
        assert abs(images.mean()) < 1e-5
        assert abs(images.std() - 1) < 1e-5
        assert len(set(labels)) == 10
    assert len(np.unique(np.concatenate([images for images, _ in found]).reshape(300, -1), axis=0)) == 300


# ------------------------------------------------------------------------------------------------- answers and how far


def test_a_sketch_estimates_how_far_gradients_are_apart() -> None:
    gradient = RNG.standard_normal((20, 3, 5, 5))
    ratios = []
    for number in range(60):
        other = gradient + 0.1 * RNG.standard_normal(gradient.shape)
        first, second = (sketch(each, f"weight{number}") for each in (gradient, other))
        ratios.append(((first - second)[:-1] ** 2).mean() / np.linalg.norm(gradient - other) ** 2)
    assert abs(np.mean(ratios) - 1) < 0.35  # of 480 squares of nearly normal numbers: 5 standard deviations
    assert sketch(gradient, "a")[-1] == pytest.approx(np.linalg.norm(gradient))


@pytest.mark.parametrize(
    "harm", [lambda g: -g, lambda g: g[::-1], lambda g: 2 * g, lambda g: g.transpose(1, 0), lambda g: 0 * g]
)
def test_signs_places_and_scales_count(harm: Any) -> None:
    gradient = RNG.standard_normal((30, 30))
    right, wrong = (Answer(1.0, {"w": sketch(each, "w")}) for each in (gradient, harm(gradient)))
    assert wrong.off(right).gradients > 0.3  # type: ignore[operator]
    assert not wrong.off(right).is_allowed("float32")
    assert right.off(right) == Off(0.0, 0.0, 0.0)


@pytest.mark.parametrize("numbers", ["float64", "float32", "tf32", "float16", "bfloat16"])
def test_what_is_not_finite_or_not_there_is_allowed_nowhere(numbers: str) -> None:
    fine = Answer(1.0, {"w": np.ones(9)})
    assert fine.off(fine).is_allowed(numbers)
    for other in (
        Answer(math.nan, {"w": np.ones(9)}),
        Answer(1.0, {"w": np.full(9, math.nan)}),
        Answer(1.0, {}),
        Answer(1.0, {"v": np.ones(9)}),
    ):
        assert not fine.off(other).is_allowed(numbers)
        assert not other.off(fine).is_allowed(numbers)
    halved = Answer(1.0, {"w": np.ones(9), "small": np.full(9, 0.1)})
    assert not Answer(1.0, {"w": np.ones(9), "small": np.zeros(9)}).off(halved).is_allowed(numbers)
    outputs = Answer(outputs=np.ones((2, 3), np.float32))
    assert outputs.off(outputs).is_allowed(numbers)
    assert not Answer(outputs=np.array([[1, 1, 1], [1, np.inf, 1]], np.float32)).off(outputs).is_allowed(numbers)
    assert not Answer(outputs=np.full((2, 3), 1.1, np.float32)).off(outputs).is_allowed(numbers)


TASKS = {
    "training": small(),
    "training in float64": small(dtype="float64"),
    "autocast to bfloat16": small(amp="bfloat16", batch=8),
    "autocast to float16": small(amp="float16", batch=8),
    "tf32": small(amp="tf32"),
    "dropout": small("squeezenet1_1", image=(3, 32, 32)),
    "auxiliary classifiers": small("googlenet", image=(3, 32, 32), batch=2),
    "inference": small(training=False),
    "folded": small(training=False, fused=True),
    "folded, in stacks": small("mobilenet_v1", False, fused=True, image=(3, 32, 32), batch=2),
    "bfloat16": small(training=False, dtype="bfloat16"),
    "float16, folded": small(training=False, dtype="float16", fused=True),
    "digits": Task.of("lenet5", True, batch=8),
}


@pytest.mark.peers
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_pytorch_answers_the_same(torch: Any, torchvision: Any, task: Task) -> None:
    own = OwnNetwork("reference", task, "reference").answer()
    for name in ("torch", "torch default"):
        off = own.off(TorchNetwork(name, task).answer())
        assert off.is_allowed(task.numbers), (name, off)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("passed", "kernel"),
    [(("conv2d", "wgrad"), "im2col"), (("norm", "bprop"), "blocks"), (("relu", "forward"), "array")],
)
@pytest.mark.parametrize("amp", [None, "bfloat16"])
def test_a_wrong_kernel_is_found(
    torch: Any, monkeypatch: pytest.MonkeyPatch, passed: tuple[str, str], kernel: str, amp: str | None
) -> None:
    """One whose results are 4 times too large."""

    def wrong(spec: Any) -> Any:
        def run(*arguments: Any) -> Any:
            found = spec.run(*arguments)
            several = found if isinstance(found, tuple) else (found,)
            larger = tuple([None if each is None else 4 * each for each in several])
            return larger if isinstance(found, tuple) else larger[0]

        return dataclasses.replace(spec, run=run)

    table = TABLES[passed]
    task = small("lenet5" if passed[0] == "relu" else "resnet20", image=(3, 32, 32), amp=amp)
    truth = TorchNetwork("torch", task).answer()
    assert OwnNetwork("reference", task, "reference").answer().off(truth).is_allowed(task.numbers)
    specs = [wrong(spec) for spec in table.specs("reference")]
    assert kernel in [spec.name for spec in specs]
    monkeypatch.setitem(table._by_backend, "reference", specs)
    assert not OwnNetwork("reference", task, "reference").answer().off(truth).is_allowed(task.numbers)


@pytest.mark.peers
def test_the_same_steps_lead_to_the_same_losses(torch: Any) -> None:
    task = small("lenet5", image=(1, 28, 28), dtype="float64")
    own, peer = OwnNetwork("reference", task, "reference"), TorchNetwork("torch", task)
    ours, theirs = [[each.turn(2).loss for _ in range(6)] for each in (own, peer)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert ours[-1] < 0.9 * ours[0]  # type: ignore[operator]


def test_batch_norms_to_be_folded_are_not_the_identity() -> None:
    state = network(small(training=False)).state_dict()
    for name, ordinary in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        assert abs(state[f"layer2.0.bn1.{name}"].numpy() - ordinary).mean() > 0.05
    assert (network(small()).state_dict()["layer2.0.bn1.weight"].numpy() == 1).all()


def test_dropout_is_left_out_of_the_answer_alone() -> None:
    contestant = OwnNetwork("reference", small("nin"), "reference")
    layers = [module.p for module in contestant._network.modules() if isinstance(module, gpucnn.nn.Dropout)]
    assert set(layers) == {0.5}
    weights = {name: tensor.numpy().copy() for name, tensor in contestant._network.state_dict().items()}
    assert contestant.answer().off(contestant.answer()).result == 0.0
    for name, tensor in contestant._network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), weights[name])
    assert all(parameter.grad is None for parameter in contestant._network.parameters())
    assert contestant.turn(1).loss != contestant.answer().loss
    assert [m.p for m in contestant._network.modules() if isinstance(m, gpucnn.nn.Dropout)] == layers


# ----------------------------------------------------------------------------------------------------------- peers


@pytest.mark.peers
@pytest.mark.parametrize("model", peers._OWN)
def test_a_networks_peer_has_its_parameters(torch: Any, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of gpucnn.bench.peers; torchvision's are compared in test_models_torchvision.py."""
    with torch.device("meta"):
        peer = peers._OWN[model](7, 3, 28)
    with gpucnn.nn.init.skip_init():
        options = {"image_size": 28} if model == "lenet5" else {}
        own = models.build(model, num_classes=7, in_channels=3, **options)
    assert [(name, tuple(tensor.shape)) for name, tensor in peer.state_dict().items()] == [
        (name, tensor.shape) for name, tensor in own.state_dict().items()
    ]


@pytest.mark.peers
@pytest.mark.parametrize("model", ["resnet18", "resnext50_32x4d", "plain20", "mobilenet_v1"])
def test_without_torchvision_networks_compute_the_same(torch: Any, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = peers.importlib.util.find_spec
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None if name == "torchvision" else find(name))
    assert peers.missing(model) == ""
    assert peers.missing("vgg11") == "torchvision, which has vgg11, is not installed: pip install 'gpucnn[peers]'"
    task = small(model, False, image=(3, 32, 32), batch=2)
    peer = TorchNetwork("torch default", task)
    assert type(peer._network).__module__ == "gpucnn.bench.peers"
    assert OwnNetwork("reference", task, "reference").answer().off(peer.answer()).is_allowed("float32")


def test_why_there_is_no_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "wrn_16_8 in PyTorch" in peers.missing("wrn_16_8") or "torch is not installed" in peers.missing("wrn_16_8")
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert peers.missing("lenet5") == "torch is not installed: pip install 'gpucnn[peers]'"


@pytest.mark.peers
def test_torchvisions_networks_see_three_channels(torch: Any, torchvision: Any) -> None:
    with pytest.raises(ValueError, match="torchvision's vgg11 takes images of 3 channels, these have 1"):
        peers.build("vgg11", 10, 1, 32)


@pytest.mark.peers
def test_what_is_folded_is_what_gpucnn_folds(torch: Any) -> None:
    task = small(training=False, fused=True)
    own, peer = OwnNetwork("reference", task, "reference"), TorchNetwork("torch", task)
    assert not any(type(module) is Conv2d for module in own._network.modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in peer._network.modules())


def test_networks_start_from_the_same_weights() -> None:
    first, second = (network(small()).state_dict() for _ in range(2))
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor.numpy(), second[name].numpy())
    answers = [OwnNetwork("reference", small(), "reference").answer() for _ in range(2)]
    assert answers[0].off(answers[1]) == Off(0.0, 0.0, 0.0)


@pytest.mark.peers
def test_pytorch_as_it_comes_and_as_fast_as_it_gets(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts; and what is in force on a GPU, with PyTorch's switches and without the GPU."""
    monkeypatch.setattr(torch.cuda, "device", lambda name: memory_of_a_block(name))
    entered: list[str] = []

    class memory_of_a_block:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            entered.append(self.name)

        def __exit__(self, *_: object) -> None: ...

    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    for name, amp, expected in (
        ("torch", None, (True, False, "highest")),
        ("torch", "tf32", (True, True, "high")),
        ("torch default", None, (False, True, "highest")),
        ("torch default", "tf32", (False, True, "highest")),
    ):
        contestant = TorchNetwork(name, small(amp=amp))
        weight = contestant._network.layer1[0].conv1.weight
        images = contestant._batches[0][0]
        assert all(
            each.is_contiguous(memory_format=torch.channels_last) == (name == "torch") for each in (weight, images)
        )
        contestant._on_gpu = True
        with contestant._inside():
            cudnn = torch.backends.cudnn
            assert (cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision()) == expected
    assert entered == ["cpu"] * 4
    after = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    assert after == before


# ----------------------------------------------------------------------------------------------------------- memory


def test_the_most_that_is_resident_is_counted() -> None:
    meter = memory.Process()
    held = np.ones(8 << 20, np.uint8)
    meter.begin()
    for size in (48 << 20, 8 << 20):
        array = np.ones(size, np.uint8)
        del array
    peak = meter.end()
    assert 44 << 20 <= peak.most <= 80 << 20
    assert peak.before >= held.nbytes


def test_a_pool_is_asked_for_what_it_took_over_what_others_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    pool = SimpleNamespace(
        used_bytes=lambda: 100, total_bytes=lambda: 700, free_all_blocks=lambda: happened.append("freed")
    )
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(get_default_memory_pool=lambda: pool))
    meter = memory.CupyPool(memory.CupyPool.in_use())
    meter.begin()
    assert happened == ["freed"]
    assert meter.end() == memory.Peak(most=600, before=100)
    happened.clear()
    cuda = SimpleNamespace(
        empty_cache=lambda: happened.append("emptied"),
        reset_peak_memory_stats=lambda device: happened.append(f"reset {device}"),
        max_memory_reserved=lambda device: 900,
    )
    theirs = TorchPool(SimpleNamespace(cuda=cuda), "cuda:1", 50)
    theirs.begin()
    assert happened == ["emptied", "reset cuda:1"]
    assert theirs.end() == memory.Peak(most=850, before=50)
