"""FCN, U-Net and DeconvNet: sizes, crops, weights taken over, and the papers' networks written down in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from op_checks import SEED
from paper_networks import small

import gpucnn
from gpucnn import functional as F
from gpucnn import models, nn
from gpucnn.models.fcn_vgg import bilinear_filters
from gpucnn.testing import assert_close, assert_equal


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


Coordinates = tuple[float, float]
"""Of the centres of cells within the image: (distance of neighbours, place of the first)."""


def after(cells: Coordinates, layer: Any) -> Coordinates:
    """The cells that a layer makes of others."""
    (window, stride, padding), (step, first) = (
        (size[0] if isinstance(size, tuple) else size for size in (layer.kernel_size, layer.stride, layer.padding)),
        cells,
    )
    if isinstance(layer, nn.ConvTranspose2d):
        return step / stride, first - step / stride * ((window - 1) / 2 - padding)
    return step * stride, first + step * ((window - 1) / 2 - padding)


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
def test_fcns_crop_where_the_centres_of_the_cells_coincide(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn.models import fcn_vgg

    model: Any = small(name)[0].eval()
    for child_name, child in model.named_children():
        if child_name.startswith("score"):
            nn.init.normal_(child.weight)
    cells, pools = (1.0, 0.0), []
    for layer in model.features:
        if not isinstance(layer, nn.ReLU):
            cells = after(cells, layer)
        if isinstance(layer, nn.MaxPool2d):
            pools.append(cells)
    cells = after(after(after(cells, model.fc6), model.fc7), model.score_fr)
    expected = []
    for up, pool in (("upscore2", pools[3]), ("upscore_pool4", pools[2])):
        if hasattr(model, up):
            cells = after(cells, getattr(model, up))
            assert cells[0] == pool[0]
            expected.append((cells[1] - pool[1]) / cells[0])
    cells = after(cells, model.upscore)

    added, whole = [], []
    inner, add = model.upscore.forward, fcn_vgg._added
    monkeypatch.setattr(fcn_vgg, "_added", lambda y, scores, start: (added.append(start), add(y, scores, start))[1])
    model.upscore.forward = lambda y: (whole.append(inner(y).numpy()), inner(y))[1]
    with gpucnn.no_grad():
        y = model(gpucnn.tensor(np.random.default_rng(SEED).standard_normal((1, 3, 37, 20)), "float32")).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(whole[0], y.shape)[0, 0]
    places = np.argwhere((windows == y).all(axis=(2, 3, 4, 5)))
    assert (added, places.tolist()) == (expected, [[-cells[1], -cells[1]]])
    assert cells[0] == 1


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
