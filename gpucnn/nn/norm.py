"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpucnn import creation
from gpucnn import functional as F
from gpucnn.backend import Array
from gpucnn.functional.checks import a_tensor
from gpucnn.nn import init
from gpucnn.nn.module import Module
from gpucnn.nn.parameter import Parameter
from gpucnn.tensor import Tensor


class _Affine(Module):
    """A layer that may have a weight, at first 1, and with it a bias, at first 0."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, shape: tuple[int, ...], affine: bool, bias: bool) -> None:
        super().__init__()
        self.register_parameter("weight", Parameter(creation.ones(shape)) if affine else None)
        self.register_parameter("bias", Parameter(creation.zeros(shape)) if affine and bias else None)


class _ChannelNorm(_Affine):
    """What batch and instance norm have in common."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    optional_state = ("num_batches_tracked",)  # checkpoints from before PyTorch 0.4.1 do without

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        bias: bool,
    ) -> None:
        if num_features < 1:
            raise ValueError(f"{type(self).__name__}: num_features must be at least 1, got {num_features}")
        super().__init__((num_features,), affine, bias)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        tracked = track_running_stats
        self.register_buffer("running_mean", creation.zeros(num_features) if tracked else None)
        self.register_buffer("running_var", creation.ones(num_features) if tracked else None)
        self.register_buffer("num_batches_tracked", creation.zeros((), dtype="int64") if tracked else None)

    def reset_running_stats(self) -> None:
        """Running mean 0, variance 1, no batches."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                init.constant_(buffer, value)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_ChannelNorm):
    _axes: tuple[int, ...]
    """How many axes an input may have."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias)

    def forward(self, input: Tensor) -> Tensor:
        return self.normalize(input, F.batch_norm)

    def normalize(self, input: Tensor, function: Callable[..., Tensor], **options: Any) -> Tensor:
        """`function`, F.batch_norm or F.batch_norm_relu, with this layer's state, which it moves as in forward."""
        _check_axes(self, input, self._axes)
        mean, var, batches = self.running_mean, self.running_var, self.num_batches_tracked
        if not self.training:
            own = mean is None and var is None
            return function(input, mean, var, self.weight, self.bias, own, eps=self.eps, **options)
        if not self.track_running_stats:
            return function(input, None, None, self.weight, self.bias, True, eps=self.eps, **options)
        momentum = self.momentum
        if momentum is None:
            momentum = 0.0 if batches is None else 1.0 / (int(batches) + 1)
        y = function(input, mean, var, self.weight, self.bias, True, momentum, self.eps, **options)
        if batches is not None:
            batches.data += 1  # where it lies; no op, since it counts and nothing follows from it
        return y

    @property
    def by_own_statistics(self) -> bool:
        """Whether it normalises by the batch's statistics, as it is now."""
        return self.training or (self.running_mean is None and self.running_var is None)

    def scale_shift(self) -> tuple[Array, Array] | None:
        """(scale, shift), float64 (C,), of what evaluation computes, x * scale + shift; None without statistics."""
        if self.running_mean is None or self.running_var is None:
            return None
        mean, var = (kept.data.astype(np.float64) for kept in (self.running_mean, self.running_var))
        scale = 1.0 / (var + self.eps) ** 0.5
        if self.weight is not None:
            scale = scale * self.weight.data.astype(np.float64)
        shift = -mean * scale
        return scale, shift if self.bias is None else shift + self.bias.data.astype(np.float64)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N,C) or (N,C,L): see F.batch_norm.

    In training by the batch's statistics, while `running_mean` and `running_var` (C,) follow them; in evaluation by
    these, or by the batch's where none are tracked. `num_batches_tracked` counts the batches.

    Args:
        num_features: C.
        momentum: share of a batch's statistics in the new running ones; None for the average over all batches.
        affine: have a weight and, with `bias`, a bias (C,).
        track_running_stats: keep running statistics.

    Raises:
        ValueError: `num_features` below 1; on calls what F.batch_norm raises, and an input with other axes.
    """

    _axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N,C,H,W): see F.batch_norm; arguments as BatchNorm1d."""

    _axes = (4,)


class _InstanceNorm(_ChannelNorm):
    _axes: int
    """How many axes one image has; a batch has one more."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias)

    def forward(self, input: Tensor) -> Tensor:
        _check_axes(self, input, (self._axes, self._axes + 1))
        batch = input.unsqueeze(0) if input.ndim == self._axes else input
        y = F.instance_norm(
            batch,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return y if batch is input else y.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (N,C,L) or (C,L): see F.instance_norm.

    By each image's own statistics; in evaluation by the running ones, where they are tracked.

    Args:
        num_features: C.
        momentum: share of a batch's statistics in the new running ones; None leaves these alone.
        affine: have a weight and, with `bias`, a bias (C,).
        track_running_stats: keep running statistics.

    Raises:
        ValueError: as BatchNorm1d.
    """

    _axes = 2


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of images (N,C,H,W) or (C,H,W): see F.instance_norm; arguments as InstanceNorm1d."""

    _axes = 3


class GroupNorm(_Affine):
    """Group normalisation of (N,C,...): see F.group_norm.

    Args:
        num_groups: into how many runs of adjacent channels these fall.
        num_channels: C.
        affine: have a weight and, with `bias`, a bias (C,).

    Raises:
        ValueError: groups that do not divide the channels; on calls what F.group_norm raises.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, bias: bool = True
    ) -> None:
        if num_groups < 1 or num_channels < 1 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_groups={num_groups} must divide num_channels={num_channels}, both at least 1"
            )
        super().__init__((num_channels,), affine, bias)
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LayerNorm(_Affine):
    """Layer normalisation over the last axes: see F.layer_norm.

    Args:
        normalized_shape: the sizes of these axes; an int for the last one alone.
        elementwise_affine: have a weight and, with `bias`, a bias of these sizes.

    Raises:
        ValueError: `normalized_shape` without a size, or with one below 1; on calls what F.layer_norm raises.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        if not shape or min(shape) < 1:
            raise ValueError(f"LayerNorm: normalized_shape takes sizes of at least 1, got {normalized_shape!r}")
        super().__init__(shape, elementwise_affine, bias)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    """Local response normalisation of (N,C,...) over `size` neighbouring channels: see F.local_response_norm."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def _check_axes(layer: Module, input: Any, allowed: tuple[int, ...]) -> None:
    if a_tensor(input, "input", type(layer).__name__).ndim not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise ValueError(f"{type(layer).__name__}: input must have {wanted} axes, got {input.shape}")
