"""Receptive fields: against which pixels really change a result, and against published numbers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

import gpucnn
from gpucnn import Tensor, nn
from gpucnn import functional as F
from gpucnn.books import ALL, Lost, Reach, summary
from gpucnn.books.fields import Extent, Field, of_image

Network = Callable[[Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, run: Network) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def field_of(run: Network, shape: tuple[int, ...]) -> Field:
    field = summary(Net(run), shape).layers[-1].field
    assert field is not None
    return field


def conv(size: int, channels: int = 1, outputs: int = 1, **options: object) -> Network:
    """Windows that add up: every tap counts."""
    weight = gpucnn.ones(outputs, channels, size, size)
    return lambda x: F.conv2d(x, weight, **options)  # type: ignore[arg-type]


def transposed(size: int, **options: int) -> Network:
    weight = gpucnn.ones(1, 1, size, size)
    return lambda x: F.conv_transpose2d(x, weight, **options)  # type: ignore[arg-type]


def chain(*parts: Network) -> Network:
    def run(x: Tensor) -> Tensor:
        for part in parts:
            x = part(x)
        return x

    return run


def residual(branch: Network) -> Network:
    return lambda x: branch(x) + x


def unpooled(x: Tensor) -> Tensor:
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, indices, 2)  # type: ignore[no-any-return]


def influence(run: Network, size: int) -> np.ndarray:
    """[o, i]: does output row o change when input row i does? One image of a batch for each row that is raised."""
    rng = np.random.default_rng(3)
    x = np.broadcast_to(rng.uniform(1, 2, (1, 1, size, size)).astype(np.float32), (size + 1, 1, size, size)).copy()
    x[np.arange(size), 0, np.arange(size)] += 64
    with gpucnn.no_grad():
        y = run(gpucnn.tensor(x)).numpy()
    return (y[:-1] != y[-1:]).any(axis=(1, 3)).T


ANTIALIASED = {"mode": "bilinear", "antialias": True}
CASES: dict[str, tuple[Network, int]] = {
    "conv 3": (conv(3), 12),
    "conv 3 padded": (conv(3, padding=1), 12),
    "conv 5 stride 2": (conv(5, stride=2, padding=2), 16),
    "conv 3 dilated": (conv(3, dilation=3, padding=3), 20),
    "conv 4 same": (conv(4, padding="same"), 14),
    "conv 1 stride 3": (conv(1, stride=3), 14),
    "stacked 3x3": (chain(conv(3), conv(3), conv(3)), 16),
    "AlexNet's beginning": (chain(conv(5, stride=2), lambda x: F.max_pool2d(x, 3, 2), conv(3, padding=1)), 40),
    "max pool": (lambda x: F.max_pool2d(x, 2), 12),
    "max pool overlapping": (lambda x: F.max_pool2d(x, 3, 2, 1), 13),
    "max pool dilated": (lambda x: F.max_pool2d(x, 2, 1, 0, 2), 12),
    "average pool": (lambda x: F.avg_pool2d(x, 3, 2, 1), 12),
    "power pool": (lambda x: F.lp_pool2d(x, 2.0, 3, stride=2), 13),
    "adaptive average pool, even": (lambda x: F.adaptive_avg_pool2d(x, 4), 12),
    "adaptive max pool, even": (lambda x: F.adaptive_max_pool2d(x, 6), 12),
    "residual": (residual(chain(conv(3, padding=1), conv(3, padding=1))), 12),
    "residual, off centre": (residual(conv(4, padding="same")), 12),
    "inception": (
        lambda x: gpucnn.cat([x, conv(3, padding=1)(x), conv(5, padding=2)(x), F.max_pool2d(x, 3, 1, 1)], 1),
        14,
    ),
    "strided shortcut": (lambda x: conv(3, stride=2, padding=1)(x) + x[:, :, ::2, ::2], 14),
    "slice": (chain(conv(3), lambda x: x[:, :, 3:-2, 1:]), 16),
    "slice with steps": (chain(lambda x: x[..., 1::2, 1::2], conv(3)), 20),
    "split": (lambda x: conv(3, 2)(gpucnn.cat([x, x], 1).split(1, 1)[0].expand(-1, 2, -1, -1)), 12),
    "padded by itself": (chain(lambda x: F.pad(x, (2, 2, 1, 3), mode="reflect"), conv(3)), 14),
    "cropped by padding": (chain(lambda x: F.pad(x, (-1, -2, -3, -1)), conv(3)), 16),
    "nearest x2": (chain(conv(3), lambda x: F.interpolate(x, scale_factor=2)), 12),
    "nearest x3": (chain(lambda x: F.interpolate(x, scale_factor=3), conv(3)), 9),
    "nearest / 2": (chain(conv(3), lambda x: F.interpolate(x, scale_factor=0.5)), 14),
    "nearest x 3/2": (lambda x: F.interpolate(x, size=(18, 18)), 12),
    "nearest-exact / 2": (lambda x: F.interpolate(x, scale_factor=0.5, mode="nearest-exact"), 12),
    "nearest-exact x 3/2": (lambda x: F.interpolate(x, size=(18, 18), mode="nearest-exact"), 12),
    "bilinear x2": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), 10),
    "bilinear / 3": (lambda x: F.interpolate(x, scale_factor=1 / 3, mode="bilinear"), 15),
    "bilinear, corners aligned": (
        lambda x: F.interpolate(conv(3, padding=1)(x), size=(25, 25), mode="bilinear", align_corners=True),
        13,
    ),
    "antialiased / 2": (chain(conv(3), lambda x: F.interpolate(x, scale_factor=0.5, **ANTIALIASED)), 22),
    "antialiased / 3": (lambda x: F.interpolate(x, scale_factor=1 / 3, **ANTIALIASED), 24),
    "antialiased x 2/3": (lambda x: F.interpolate(x, size=(12, 12), **ANTIALIASED), 18),
    "antialiased x2": (lambda x: F.interpolate(x, scale_factor=2, **ANTIALIASED), 10),
    "transposed 2, stride 2": (chain(conv(3), transposed(2, stride=2)), 12),
    "transposed 3, stride 2": (transposed(3, stride=2, padding=1, output_padding=1), 12),
    "transposed 4, stride 2": (transposed(4, stride=2, padding=1), 12),
    "transposed 5, stride 3": (transposed(5, stride=3, padding=1), 10),
    "transposed 3, stride 1, dilated": (transposed(3, dilation=2, padding=2), 12),
    "pixel shuffle": (chain(conv(3, outputs=4), lambda x: F.pixel_shuffle(x, 2)), 10),
    "pixel unshuffle": (chain(lambda x: F.pixel_unshuffle(x, 2), conv(3, 4)), 20),
    "bed of nails": (chain(conv(3), lambda x: F.bed_of_nails(x, 2)), 12),
    "unpooling": (unpooled, 12),
    "down and up": (chain(conv(3, stride=2, padding=1), conv(3, padding=1), transposed(2, stride=2)), 24),
    "skip connection": (lambda x: F.interpolate(F.max_pool2d(x, 2), scale_factor=2), 12),
    "axes moved and back": (chain(conv(3), lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2), conv(3)), 12),
    "elementwise": (chain(conv(3), F.relu, F.sigmoid, lambda x: x * 2 + 1, lambda x: F.dropout(x, 0.5, False)), 12),
    "flattened channels": (chain(conv(3, outputs=4), lambda x: x.reshape(x.shape[0], 2, 2, *x.shape[2:]).sum(2)), 10),
}


@pytest.mark.parametrize(("run", "size"), CASES.values(), ids=CASES)
def test_fields_cover_exactly_the_pixels_that_change_a_result(run: Network, size: int) -> None:
    vertical, horizontal = field_of(run, (1, size, size))
    seen = influence(run, size)
    assert isinstance(vertical, Reach)
    assert isinstance(horizontal, Reach)
    half = (vertical.size - 1) / 2
    lengths, deviations = [], []
    for row, pixels in enumerate(seen):
        centre = vertical.offset + row * vertical.jump
        if centre - half < 1 or centre + half > size - 2 or not pixels.any():
            continue  # the border cuts fields off, and mirrored padding makes them longer
        first, last = np.flatnonzero(pixels)[[0, -1]].tolist()
        lengths.append(last - first + 1)
        deviations.append(Fraction(first + last, 2) - centre)
    assert len(lengths) >= 2
    assert max(lengths) == vertical.pixels
    assert max(map(abs, deviations)) < 1
    # Where results fall between pixels they do so in turn, and on average not at all.
    count = len(deviations)
    assert any(sum(deviations[: count // period * period]) == 0 for period in range(1, min(count, 6) + 1)), deviations


def test_both_directions_are_kept_apart() -> None:
    weight = gpucnn.ones(1, 1, 3, 7)
    field = field_of(lambda x: F.conv2d(x, weight, stride=(2, 1), padding=(0, 3), dilation=(2, 1)), (1, 20, 20))
    assert field == (Reach(-2, Fraction(5), Fraction(2), Fraction(2)), Reach(-1, Fraction(7), Fraction(1), Fraction(0)))


def test_stacked_3x3_see_3_5_7() -> None:
    net = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)])
    sizes = [layer.field[0].size for layer in summary(net, (1, 9, 9)).layers]  # type: ignore[index, union-attr]
    assert sizes == [1, 3, 5, 7]


def bottleneck_resnet50(stride_in_3x3: bool) -> list[tuple[int, int]]:
    """(taps, stride) of the convolutions and the pooling along the deepest path."""
    path = [(7, 2), (3, 2)]
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            path += [(1, 1), (3, stride), (1, 1)] if stride_in_3x3 else [(1, stride), (3, 1), (1, 1)]
    return path


def closed_form(path: list[tuple[int, int]]) -> tuple[int, int]:
    """Equation 2 of the article: 1 + sum of (taps - 1) times all strides before; and the product of the strides."""
    size, jump = 1, 1
    for taps, stride in path:
        size += (taps - 1) * jump
        jump *= stride
    return size, jump


def test_the_published_field_of_resnet50() -> None:
    """483 pixels, 32 apart (table of the article); 427 where the 3x3 convolution has the stride, as torchvision's."""
    assert closed_form(bottleneck_resnet50(stride_in_3x3=False)) == (483, 32)
    assert closed_form(bottleneck_resnet50(stride_in_3x3=True)) == (427, 32)
    run = chain(*[conv(taps, stride=stride, padding=taps // 2) for taps, stride in bottleneck_resnet50(False)])
    extent = field_of(run, (1, 64, 64))[0]
    assert isinstance(extent, Reach)
    assert (extent.size, extent.jump) == (483, 32)
    assert (extent.size - 1) / 2 - extent.offset == 239 + 2  # their padding is 239 in all, for they pad 3x3/2 by (0, 1)


# ------------------------------------------------------------------------------------------ what is no window


ONE_BY_ONE = Reach(None, Fraction(3), Fraction(1), Fraction(1))

WORDS: dict[str, tuple[Network, tuple[int, ...], tuple[Extent, ...]]] = {
    "global average": (lambda x: F.adaptive_avg_pool2d(x, 1), (2, 6, 6), (ALL, ALL)),
    "global maximum": (lambda x: F.adaptive_max_pool2d(x, (1, 1)), (2, 7, 7), (ALL, ALL)),
    "global by a window": (lambda x: F.avg_pool2d(x, 6), (2, 6, 6), (ALL, ALL)),
    "mean over the image": (lambda x: x.mean((2, 3)), (2, 6, 6), (ALL, ALL)),
    "maximum over rows": (lambda x: x.amax(2, keepdim=True), (2, 6, 6), (ALL, Reach(-1))),
    "sum over rows": (lambda x: x.sum(2), (2, 6, 6), (ALL, Reach(-1))),
    "sum over columns": (lambda x: x.sum(3), (2, 6, 6), (Reach(-1), ALL)),
    "sum over channels": (lambda x: x.sum(1), (2, 6, 6), (Reach(-2), Reach(-1))),
    "flatten": (lambda x: F.flatten(x, 1), (2, 6, 6), (ALL, ALL)),
    "linear on a single position": (
        lambda x: F.linear(F.linear(F.flatten(conv(3)(x), 1), gpucnn.ones(5, 1)), gpucnn.ones(2, 5)),
        (1, 3, 3),
        (ONE_BY_ONE, ONE_BY_ONE),
    ),
    "linear": (lambda x: F.linear(F.flatten(x, 1), gpucnn.ones(2, 18)), (2, 3, 3), (ALL, ALL)),
    "flatten a single position": (lambda x: F.flatten(conv(3)(x), 1), (1, 3, 3), (ONE_BY_ONE, ONE_BY_ONE)),
    "squeeze and excite": (lambda x: x * F.sigmoid(F.adaptive_avg_pool2d(x, 1)), (2, 6, 6), (ALL, ALL)),
    "and on": (lambda x: conv(3)(x * x.mean((2, 3), keepdim=True)), (1, 6, 6), (ALL, ALL)),
    "softmax over channels": (lambda x: F.softmax(x, 1), (3, 4, 4), (Reach(-2), Reach(-1))),
    "softmax over columns": (lambda x: F.softmax(x, 3), (3, 4, 4), (Reach(-2), ALL)),
    "gate of half the channels": (lambda x: F.glu(x, 1), (4, 4, 4), (Reach(-2), Reach(-1))),
    "rows sorted": (lambda x: x.argmax(2, keepdim=True) * 1.0, (1, 4, 4), (ALL, Reach(-1))),
    "batch of vectors": (lambda x: x * 2, (7,), ()),
    "uneven adaptive windows": (
        lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
        (1, 8, 8),
        (Lost(-2), Reach(-1, Fraction(2), Fraction(2), Fraction(1, 2))),
    ),
    "branches of other jumps": (lambda x: F.max_pool2d(x, 2) + x[:, :, :4, :4], (1, 8, 8), (Lost(-2), Lost(-1))),
    "linear after uneven windows": (
        lambda x: F.linear(F.flatten(F.relu(F.adaptive_avg_pool2d(x, 3)), 1), gpucnn.ones(2, 9)),
        (1, 8, 8),
        (ALL, ALL),
    ),
    "all covers what is not known": (lambda x: F.adaptive_avg_pool2d(x, 3) + x.mean(), (1, 8, 8), (ALL, ALL)),
    "joined along rows": (lambda x: gpucnn.cat([x, x], 2), (1, 4, 4), (Lost(-2), Reach(-1))),
    "picked freely": (lambda x: x[:, :, [0, 2]], (1, 4, 4), (Lost(), Lost())),
    "turned": (lambda x: x.flip(3), (1, 4, 4), (Reach(-2), Lost(-1))),
    "copied": (lambda x: x.repeat(1, 3, 2, 1), (1, 4, 4), (Lost(-2), Reach(-1))),
    "spread by broadcasting": (lambda x: conv(4)(x) + x, (1, 4, 4), (Lost(-2), Lost(-1))),
    "spread as a view": (lambda x: x.sum(3, keepdim=True).expand(-1, -1, -1, 5), (1, 4, 4), (Reach(-2), ALL)),
    "divided by its sum": (lambda x: x / x.sum(), (1, 4, 4), (ALL, ALL)),
    "loss": (lambda x: F.mse_loss(x, gpucnn.ones(*x.shape)), (1, 4, 4), (ALL, ALL)),
    "losses": (lambda x: F.mse_loss(x, gpucnn.ones(*x.shape), "none"), (1, 4, 4), (Reach(-2), Reach(-1))),
    "mirrored": (lambda x: x[:, :, ::-1], (1, 4, 4), (Lost(-2), Reach(-1))),
    "windows as a list": (lambda x: F.unfold(x, 2), (1, 4, 4), (Lost(), Lost())),
    "attention": (lambda x: x @ x, (1, 4, 4), (Lost(-2), Lost(-1))),
    "unknown stays unknown": (lambda x: F.relu(F.unfold(x, 2)) + 1, (1, 4, 4), (Lost(), Lost())),
    "rows as channels": (lambda x: conv(1, 4)(x.permute(0, 2, 1, 3)), (1, 4, 4), (ALL, Reach(-1))),
    "one row": (lambda x: x[:, :, 2], (1, 4, 4), (Reach(None, offset=Fraction(2)), Reach(-1))),
    "a new axis": (lambda x: x[:, None, ..., 1:], (1, 4, 4), (Reach(-2), Reach(-1, offset=Fraction(1)))),
}


@pytest.mark.parametrize(("run", "shape", "expected"), WORDS.values(), ids=WORDS)
def test_fields_that_are_the_whole_image_or_not_known(
    run: Network, shape: tuple[int, ...], expected: tuple[Extent, ...]
) -> None:
    assert field_of(run, shape) == expected


def test_what_depends_on_no_pixel_has_no_field() -> None:
    net = Net(lambda x: F.relu(gpucnn.ones(1, 3)) + x.sum() * 0)
    net.unused = nn.ReLU()
    layers = summary(net, (1, 4, 4)).layers
    assert [(layer.kind, layer.field) for layer in layers if layer.kind == "ReLU"] == [("ReLU", None)]
    assert layers[-1].field == (ALL, ALL)


def test_the_input_sees_itself() -> None:
    assert of_image((3, 4, 5)) == (Reach(-2), Reach(-1))
    assert of_image((3, 4)) == (Reach(-1),)
    assert of_image((3,)) == ()


def test_sequences_have_one_direction() -> None:
    assert field_of(lambda x: F.conv1d(x, gpucnn.ones(1, 2, 3), stride=2, padding=1), (2, 9)) == (
        Reach(-1, Fraction(3), Fraction(2), Fraction(0)),
    )
