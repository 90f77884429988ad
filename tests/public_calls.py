"""One small call, or a few, of every public function: what runs all of the array code once, on any device and dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import gpucnn
from gpucnn import Tensor, nn, optim
from gpucnn import functional as F
from gpucnn.ops._template import Scale
from gpucnn.tensor import record


class Maker:
    """Makes the operands of a call: the same numbers on every device, differentiable ones as leaves."""

    def __init__(self, device: str, dtype: str) -> None:
        self.device, self.dtype = device, dtype
        self.leaves: list[Tensor] = []

    def values(self, shape: tuple[int, ...], low: float = -2.0, high: float = 2.0) -> Tensor:
        """Numbers in [low, high) that every floating dtype holds and of which no two neighbours are equal."""
        rng = np.random.default_rng([len(self.leaves), *shape])
        numbers = low + (high - low) * rng.permutation(np.arange(max(1, math.prod(shape)))) / max(1, np.prod(shape))
        return gpucnn.tensor(numbers.reshape(shape), self.dtype, device=self.device)

    def __call__(self, *shape: int, low: float = -2.0, high: float = 2.0) -> Tensor:
        """A leaf that requires its gradient."""
        leaf = self.values(shape, low, high).requires_grad_()
        self.leaves.append(leaf)
        return leaf

    def positive(self, *shape: int) -> Tensor:
        return self(*shape, low=0.25, high=2.0)

    def integers(self, *shape: int, high: int) -> Tensor:
        return gpucnn.tensor(np.arange(math.prod(shape)).reshape(shape) % high, device=self.device)

    def bools(self, *shape: int) -> Tensor:
        return gpucnn.tensor(np.arange(math.prod(shape)).reshape(shape) % 3 == 0, device=self.device)

    def bytes(self, *shape: int) -> Tensor:
        return gpucnn.tensor(np.arange(math.prod(shape)).reshape(shape) % 256, "uint8", device=self.device)

    def buffer(self, value: float, *shape: int) -> Tensor:
        return gpucnn.tensor(np.full(shape, value), self.dtype, device=self.device)


def _pool_and_back(m: Maker) -> Any:
    y, indices = F.max_pool2d(m(2, 3, 6, 7), 2, return_indices=True)
    return F.max_unpool2d(y, indices, 2, output_size=(6, 7))


def _conv_and_norm(m: Any) -> Any:
    y, moments = F.conv2d(m(2, 3, 7, 6), m(4, 3, 3, 3), return_moments=True)
    return F.batch_norm_relu(y, m.buffer(0, 4), m.buffer(1, 4), m(4), m(4), training=True, moments=moments)


def _trained(m: Maker, kind: Callable[..., optim.Optimizer]) -> Any:
    leaf = m(3, 4)
    m.leaves.clear()
    optimizer = kind([leaf])
    for _ in range(3):
        leaf.grad = m.values((3, 4))
        optimizer.step()
    return leaf.detach()


def _scaled(m: Maker) -> Any:
    """Two steps, the first of which is skipped; its gradient is divided in place where float16 does not forbid it."""
    leaf = m(3, 4)
    m.leaves.clear()
    optimizer = optim.SGD([leaf], 0.1, momentum=0.9, master_weights=True)
    scaler = gpucnn.GradScaler(2.0, growth_interval=1)
    for factor in (math.inf, 1.0):
        leaf.grad = m.values((3, 4)) * factor
        scaler.scale(m.values(()))
        if m.dtype != "float16":
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    return leaf.detach()


def _network(m: Maker, *layers: nn.Module, shape: tuple[int, ...] = (2, 3, 8, 8)) -> Any:
    model = nn.Sequential(*layers).to(m.dtype).to(m.device)
    m.leaves.extend(model.parameters())
    return model(m(*shape))


def _in_place(m: Maker) -> Any:
    x = m.values((3, 4))
    x += 1.5
    x *= m.values((4,))
    x -= m.values((3, 1))
    x /= 2
    return x.copy_(x.flip(0))


CALLS: dict[str, Callable[[Maker], Any]] = {
    # convolution
    "conv2d dense": lambda m: F.conv2d(m(2, 3, 7, 6), m(4, 3, 3, 3), m(4), padding=1),
    "conv2d strided": lambda m: F.conv2d(m(2, 3, 7, 6), m(4, 3, 3, 2), m(4), (2, 1), (1, 2), (1, 2)),
    "conv2d 1x1": lambda m: F.conv2d(m(2, 8, 5, 5), m(4, 8, 1, 1), m(4)),
    "conv2d wide": lambda m: F.conv2d(m(2, 256, 3, 3), m(288, 256, 1, 1)),
    "conv2d 1x1 strided": lambda m: F.conv2d(m(2, 8, 5, 5), m(4, 8, 1, 1), None, 2),
    "conv2d grouped": lambda m: F.conv2d(m(2, 8, 5, 5), m(12, 2, 3, 3), m(12), padding=1, groups=4),
    "conv2d depthwise": lambda m: F.conv2d(m(2, 4, 6, 6), m(8, 1, 3, 3), m(8), 2, 1, groups=4),
    "conv2d depthwise stride 1": lambda m: F.conv2d(m(2, 16, 6, 6), m(16, 1, 3, 3), m(16), padding=1, groups=16),
    "conv2d same": lambda m: F.conv2d(m(2, 3, 7, 6), m(4, 3, 2, 3), m(4), padding="same", dilation=2),
    "conv2d circular": lambda m: _network(m, nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")),
    "conv2d_relu": lambda m: F.conv2d_relu(m(2, 3, 7, 6), m(4, 3, 3, 3), m(4), padding=1),
    "conv2d_relu 1x1": lambda m: F.conv2d_relu(m(2, 8, 5, 5), m(4, 8, 1, 1)),
    "conv2d_relu depthwise": lambda m: F.conv2d_relu(m(2, 4, 6, 6), m(8, 1, 3, 3), m(8), 2, 1, groups=4),
    "conv2d residual": lambda m: F.conv2d(m(2, 3, 7, 6), m(4, 3, 3, 3), m(4), padding=1, residual=m(2, 4, 7, 6)),
    "conv2d_relu scaled": lambda m: F.conv2d_relu(
        m(2, 8, 5, 5), m(4, 8, 1, 1), m(4), scale=m.buffer(2, 4), shift=m.buffer(0.5, 4), residual=m(2, 4, 5, 5)
    ),
    "conv2d moments": _conv_and_norm,
    "conv1d": lambda m: F.conv1d(m(2, 3, 9), m(4, 3, 3), m(4), 2, 1),
    "conv_transpose2d": lambda m: F.conv_transpose2d(m(2, 4, 4, 5), m(4, 3, 3, 3), m(3), 2, 1, 1),
    "conv_transpose2d grouped": lambda m: F.conv_transpose2d(m(2, 4, 4, 5), m(4, 2, 2, 2), None, 2, groups=2),
    "linear": lambda m: F.linear(m(5, 7), m(3, 7), m(3)),
    "linear_relu": lambda m: F.linear_relu(m(5, 7), m(3, 7), m(3)),
    "unfold": lambda m: F.unfold(m(2, 3, 6, 5), (3, 2), 1, 1, 2),
    "fold": lambda m: F.fold(m(2, 12, 20), (6, 5), 2, 1, 0),
    # pooling
    "max_pool2d": lambda m: F.max_pool2d(m(2, 3, 7, 6), 3, 2, 1, return_indices=True),
    "max_pool2d dilated": lambda m: F.max_pool2d(m(2, 3, 9, 8), (3, 2), 2, 1, 2, ceil_mode=True),
    "max_pool2d without history": lambda m: F.max_pool2d(m.values((2, 3, 7, 6)), 2),
    "avg_pool2d": lambda m: F.avg_pool2d(m(2, 3, 7, 6), 3, 2, 1, True, False),
    "adaptive_avg_pool2d": lambda m: F.adaptive_avg_pool2d(m(2, 3, 7, 6), (3, 4)),
    "adaptive_avg_pool2d global": lambda m: F.adaptive_avg_pool2d(m(2, 3, 7, 6), 1),
    "adaptive_avg_pool2d even": lambda m: F.adaptive_avg_pool2d(m(2, 3, 8, 6), (4, 3)),
    "adaptive_max_pool2d": lambda m: F.adaptive_max_pool2d(m(2, 3, 7, 6), (3, 4), return_indices=True),
    "lp_pool2d": lambda m: F.lp_pool2d(m.positive(2, 3, 6, 6), 2, 2),
    "lp_pool2d fractional": lambda m: F.lp_pool2d(m(2, 3, 6, 6), 1.5, 3, 2),
    "lp_pool2d magnitudes": lambda m: F.lp_pool2d(m(2, 3, 6, 6), math.inf, 3, 2),
    "max_unpool2d": _pool_and_back,
    # upsampling
    "interpolate nearest": lambda m: F.interpolate(m(2, 3, 4, 5), scale_factor=2),
    "interpolate nearest-exact": lambda m: F.interpolate(m(2, 3, 4, 5), (7, 3), mode="nearest-exact"),
    "interpolate bilinear": lambda m: F.interpolate(m(2, 3, 4, 5), (7, 9), mode="bilinear"),
    "interpolate area": lambda m: F.interpolate(m(2, 3, 4, 5), (3, 2), mode="area"),
    "interpolate antialias": lambda m: F.interpolate(m(2, 3, 6, 5), (3, 2), mode="bilinear", antialias=True),
    "interpolate corners": lambda m: F.interpolate(m(2, 3, 4, 5), (7, 9), mode="bilinear", align_corners=True),
    "bed_of_nails": lambda m: F.bed_of_nails(m(2, 3, 4, 5), 2),
    "pixel_shuffle": lambda m: F.pixel_shuffle(m(2, 8, 3, 3), 2),
    "pixel_unshuffle": lambda m: F.pixel_unshuffle(m(2, 2, 4, 6), 2),
    # normalisation
    "batch_norm": lambda m: F.batch_norm(m(4, 3, 5, 5), m.buffer(0, 3), m.buffer(1, 3), m(3), m(3), training=True),
    "batch_norm eval": lambda m: F.batch_norm(m(4, 3, 5, 5), m.buffer(0.5, 3), m.buffer(2, 3), m(3), m(3)),
    "batch_norm rows": lambda m: F.batch_norm(m(6, 3), m.buffer(0, 3), m.buffer(1, 3), m(3), m(3), training=True),
    "batch_norm_relu": lambda m: F.batch_norm_relu(
        m(4, 3, 5, 5), m.buffer(0, 3), m.buffer(1, 3), m(3), m(3), training=True, residual=m(4, 3, 5, 5)
    ),
    "batch_norm_relu eval": lambda m: F.batch_norm_relu(
        m(4, 3, 5, 5), m.buffer(0.5, 3), m.buffer(2, 3), m(3), m(3), max_val=6
    ),
    "layer_norm": lambda m: F.layer_norm(m(4, 3, 5, 5), (3, 5, 5), m(3, 5, 5), m(3, 5, 5)),
    "layer_norm rows": lambda m: F.layer_norm(m(4, 6), (6,), m(6), m(6)),
    "instance_norm": lambda m: F.instance_norm(m(4, 3, 5, 5), None, None, m(3), m(3)),
    "group_norm": lambda m: F.group_norm(m(4, 6, 5, 5), 3, m(6), m(6)),
    "local_response_norm": lambda m: F.local_response_norm(m(2, 7, 4, 4), 3),
    # activations
    **{
        name: (lambda m, name=name: getattr(F, name)(m(2, 3, 5, 4)))
        for name in (
            *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "hardtanh", "sigmoid", "logsigmoid", "hardsigmoid"),
            *("tanh", "tanhshrink", "softsign", "softshrink", "hardshrink", "silu", "mish", "gelu", "hardswish"),
            *("softplus", "rrelu"),
        )
    },
    "gelu tanh": lambda m: F.gelu(m(2, 3, 5, 4), approximate="tanh"),
    "rrelu training": lambda m: F.rrelu(m(2, 3, 5, 4), training=True),
    "threshold": lambda m: F.threshold(m(2, 3, 5, 4), 0.1, 20.0),
    "prelu": lambda m: F.prelu(m(2, 3, 5, 4), m(3)),
    "glu": lambda m: F.glu(m(2, 4, 3, 3), 1),
    "softmax": lambda m: F.softmax(m(2, 3, 4, 4), 1),
    "softmin": lambda m: F.softmin(m(4, 5), 1),
    "log_softmax": lambda m: F.log_softmax(m(2, 3, 4, 4), 1),
    "dropout": lambda m: F.dropout(m(2, 3, 5, 4), 0.3),
    "dropout2d": lambda m: F.dropout2d(m(4, 6, 2, 2), 0.3),
    # losses
    "cross_entropy": lambda m: F.cross_entropy(m(5, 4), m.integers(5, high=4), m.values((4,), 0.25)),
    "cross_entropy smoothed": lambda m: F.cross_entropy(m(5, 4), m.integers(5, high=4), label_smoothing=0.1),
    "cross_entropy spatial": lambda m: F.cross_entropy(m(2, 4, 3, 3), m.integers(2, 3, 3, high=4), ignore_index=1),
    "cross_entropy probabilities": lambda m: F.cross_entropy(m(5, 4), m.positive(5, 4)),
    "nll_loss": lambda m: F.nll_loss(m(5, 4), m.integers(5, high=4)),
    "mse_loss": lambda m: F.mse_loss(m(4, 5), m(4, 5)),
    "l1_loss": lambda m: F.l1_loss(m(4, 5), m(4, 5)),
    "smooth_l1_loss": lambda m: F.smooth_l1_loss(m(4, 5), m(4, 5), beta=0.7),
    "huber_loss": lambda m: F.huber_loss(m(4, 5), m(4, 5), delta=0.7),
    "binary_cross_entropy": lambda m: F.binary_cross_entropy(m(4, 5, low=0.1, high=0.9), m.bools(4, 5).to(m.dtype)),
    "binary_cross_entropy of both": lambda m: F.binary_cross_entropy(
        m(4, 5, low=0.1, high=0.9), m(4, 5, low=0.2, high=0.7), m.values((4, 5), 0.25)
    ),
    "binary_cross_entropy_with_logits": lambda m: F.binary_cross_entropy_with_logits(
        m(4, 5), m.bools(4, 5).to(m.dtype), pos_weight=m.values((5,), 0.25)
    ),
    "binary_cross_entropy_with_logits of both": lambda m: F.binary_cross_entropy_with_logits(
        m(4, 5), m(4, 5, low=0.1, high=0.9), reduction="none"
    ),
    "kl_div": lambda m: F.kl_div(m(4, 5), m.positive(4, 5), reduction="batchmean"),
    "kl_div of logarithms": lambda m: F.kl_div(m(4, 5), m(4, 5), reduction="sum", log_target=True),
    "nll_loss spatial": lambda m: F.nll_loss(m(2, 4, 3, 3), m.integers(2, 3, 3, high=4), m.values((4,), 0.25)),
    # shapes and arithmetic
    "pad": lambda m: F.pad(m(2, 3, 4, 5), (1, 2, 0, 1), value=0.5),
    "pad reflect": lambda m: F.pad(m(2, 3, 4, 5), (1, 2, 2, 1), mode="reflect"),
    "pad replicate": lambda m: F.pad(m(2, 3, 4, 5), (1, 2, 2, 1), mode="replicate"),
    "pad circular": lambda m: F.pad(m(2, 3, 4, 5), (1, 2, 2, 1), mode="circular"),
    "normalize_images": lambda m: F.normalize_images(m.bytes(2, 3, 4, 5), 0.5, (0.1, 0.2, 0.4), m.dtype),
    "flatten": lambda m: F.flatten(m(2, 3, 4, 5), 1),
    "cat": lambda m: gpucnn.cat([m(2, 3, 4, 5), m(2, 2, 4, 5)], 1),
    "stack": lambda m: gpucnn.stack([m(2, 3), m(2, 3)], 1),
    "where": lambda m: gpucnn.where(m.bools(2, 3), m(2, 3), m(3)),
    "clamp": lambda m: m(2, 3, 4, 5).clamp(-0.5, 1.0),
    "matmul": lambda m: m(2, 3, 4) @ m(4, 5),
    "matmul vectors": lambda m: m(4) @ m(4),
    "arithmetic": lambda m: (m(2, 3, 4, 4) + m(3, 1, 1)) * m(2, 1, 4, 4) - m(1) / m.positive(2, 3, 4, 4),
    "powers": lambda m: m.positive(3, 4) ** 2.5 + m(3, 4) ** 2 - (-m(3, 4)),
    "exp and log": lambda m: m(3, 4).exp() + m.positive(3, 4).log(),
    "maximum and minimum": lambda m: gpucnn.maximum(m(3, 4), m(4)) + gpucnn.minimum(m(3, 4), m(3, 1)),
    "abs and sqrt": lambda m: m(3, 4).abs() + m.positive(3, 4).sqrt(),
    "sums": lambda m: m(2, 3, 4, 4).sum((0, 2, 3)) + m(2, 3, 4, 4).mean((0, 2, 3)),
    "extremes": lambda m: m(3, 4).amax(1) + m(3, 4).amin(1) + m(3, 4).max(1)[0] + m(3, 4).min(1)[0],
    "var and std": lambda m: m(3, 4, 5).var(1) + m(3, 4, 5).std(1),
    "argmax": lambda m: m.values((3, 4)).argmax(1),
    "cumsum": lambda m: m(2, 3, 4, 5).cumsum(1),
    "clamp to tensors": lambda m: m(3, 4).clamp(m(4), m(3, 1)),
    "repeat, flip, roll": lambda m: m(2, 3, 2, 2).repeat(1, 2, 1, 3).flip(1, 3).roll((1, 2), (0, 3)),
    "slices": lambda m: m(4, 3, 6, 6)[1:3, :, ::2, 1:5],
    "fancy index": lambda m: m(4, 3)[gpucnn.tensor([0, 2, 2], device=m.device)],
    "permute": lambda m: m(2, 3, 4, 5).permute(0, 2, 3, 1).reshape(2, 60).transpose(0, 1),
    "convert to 16 bits": lambda m: m(2, 3, 4, 5).to("float16").to("float32").to(m.dtype),
    "convert": lambda m: m(2, 3, 4, 5).to("float64").to(m.dtype).clone(),
    "logic": lambda m: (m.bools(3, 4) & (m.values((3, 4)) > 0)) | ~(m.values((3, 4)) <= m.values((4,))) ^ m.bools(4),
    "equality": lambda m: (m.integers(3, 4, high=3) == 1) | (m.integers(3, 4, high=3) != m.integers(4, high=3)),
    "any and all": lambda m: (m.bools(3, 4).any(1), m.bools(3, 4).all(0), m.bools(3, 4).any()),
    "masked_fill": lambda m: m(3, 4).masked_fill(m.bools(3, 4), 2.5),
    "sign and square": lambda m: m(3, 4).sign() * m(3, 4).square(),
    "prod and logsumexp": lambda m: m(3, 4).prod(1) + m(3, 4).logsumexp(1) + m(3).prod(),
    "norms": lambda m: m(3, 4).norm() + m(3, 4).norm(1, 1) + m(3, 4).norm(math.inf, 0).sum() + m(3, 4).norm(3, 1),
    "sort": lambda m: m(3, 7, 2).sort(1, descending=True),
    "argsort": lambda m: m.values((3, 7)).argsort(),
    "topk": lambda m: m(3, 7).topk(3),
    "argmin": lambda m: m.values((3, 5)).argmin(0) + m.values((3, 5)).argmin(),
    "masked": lambda m: m(4, 3)[m.bools(4, 3)],
    "repeated rows": lambda m: m(4, 3, 2)[:, m.integers(6, high=3)],
    "pairs": lambda m: m(4, 3, 2)[m.integers(5, high=4), m.integers(5, high=3)],
    "parts": lambda m: gpucnn.cat([*m(6, 4).split([1, 5]), *m(5, 4).chunk(2), *m(2, 3, 4).unbind(1)]),
    "layout": lambda m: m(2, 3, 4).flip(0, 2).roll(1, 1).movedim(0, 2).unsqueeze(0).squeeze(0).unflatten(0, (3, 1)),
    "expand and repeat": lambda m: m(3, 1).expand(2, 3, 4) + m(1, 4).broadcast_to((3, 4)) + m(1, 2).repeat(2, 3, 2),
    "narrow": lambda m: m(4, 6).narrow(1, 2, 3),
    "made there": lambda m: gpucnn.zeros_like(m.values((2, 3))) + gpucnn.full((2, 3), 2, m.dtype, device=m.device),
    "drawn there": lambda m: gpucnn.rand(2, 3, dtype=m.dtype, device=m.device) + gpucnn.randn(2, 3, device=m.device),
    "in place": _in_place,
    "template": lambda m: record(Scale, (m(2, 3, 4, 5),), {"alpha": 2.5}),
    # steps
    "sgd": lambda m: _trained(m, lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "adam": lambda m: _trained(m, lambda p: optim.Adam(p, 0.1, weight_decay=0.01)),
    "adamw": lambda m: _trained(m, lambda p: optim.AdamW(p, 0.1)),
    "scaled": _scaled,
    "network": lambda m: _network(
        m,
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.GroupNorm(2, 8), nn.Hardswish(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(8, 4)),
    ),
}
"""By the function's name, followed by what is special where there are several."""
