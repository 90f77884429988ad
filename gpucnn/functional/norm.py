"""Normalisation."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpucnn.arguments import whole
from gpucnn.backend import are_together
from gpucnn.functional.checks import a_floating, a_tensor, channels_fit, floats_together
from gpucnn.graph import wrote
from gpucnn.operators.casts import brought_together
from gpucnn.ops import norm as ops
from gpucnn.reference.local_response_norm import LocalResponseProblem
from gpucnn.reference.norm_problem import Moments, NormProblem
from gpucnn.tensor import Tensor, record


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    moments: Moments | None = None,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, mean and variance being those of each channel of (N,C,...).

    Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift"
    (2015).

    Args:
        running_mean, running_var: (C,). In training they move towards the batch's statistics, in place (the variance
            towards the unbiased one), or are None; otherwise they are what is normalised by. An empty batch leaves
            them as they are.
        weight, bias: (C,) or None for 1 and 0. For an input of float16 they and the statistics may be float32.
        training: normalise by the batch's statistics.
        momentum: share of the batch's statistics in the new running ones.
        moments: in training those of this very input, which came with it from `F.conv2d(..., return_moments=True)`: it
            is then not read for its statistics. None where there are none, and the statistics are taken here.

    Raises:
        ValueError: shapes that do not fit, one value a channel in training, no statistics otherwise, moments that are
            of an array of another shape or not asked for.
        TypeError: not tensors, dtypes that do not go together.
    """
    problem, running = _batch_problem(
        "batch_norm", input, running_mean, running_var, weight, bias, training, momentum, eps
    )
    return _normalized(input, weight, bias, problem, running, None, _of_input("batch_norm", input, problem, moments))


def batch_norm_relu(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    max_val: float = math.inf,
    moments: Moments | None = None,
) -> Tensor:
    """relu(batch_norm(input, ...) + residual), in the passes over memory that the batch norm alone takes.

    Between normalisation, sum and ReLU nothing is rounded to float16. `nn.norm_relu` calls it for modules.

    Args:
        residual: of input's shape, dtype and device, or None for 0.
        max_val: an upper limit of the result, 6 for ReLU6; the gradient at it is 0, as at 0.
        others: as batch_norm.

    Raises:
        ValueError, TypeError: as batch_norm, for a residual that does not fit and a limit that is not positive.
    """
    op = "batch_norm_relu"
    input, residual = brought_together(input, residual)
    problem, running = _batch_problem(op, input, running_mean, running_var, weight, bias, training, momentum, eps)
    if residual is not None:
        floats_together(op, input=input, residual=residual)
        if residual.shape != input.shape:
            raise ValueError(f"{op}: residual must have input's shape {input.shape}, got {residual.shape}")
    limit = _number(op, "max_val", max_val)
    if not limit > 0:
        raise ValueError(f"{op}: max_val must be positive, got {max_val}")
    taken = _of_input(op, input, problem, moments)
    return _normalized(input, weight, bias, _limited(problem, limit), running, residual, taken)


def _of_input(op: str, input: Tensor, problem: NormProblem, moments: Moments | None) -> Moments | None:
    """The moments, if they can be those of input."""
    if moments is None:
        return None
    if not isinstance(moments, Moments):
        raise TypeError(f"{op}: moments are what F.conv2d(..., return_moments=True) returns, got {moments!r}")
    if not problem.own_statistics:
        raise ValueError(f"{op}: moments are of use in training alone, and training is False")
    channels = moments.partial.shape[-1]
    if channels != problem.C or moments.splits != -(-problem.M // moments.rows):
        raise ValueError(
            f"{op}: moments are not those of input {input.shape}: they are of {channels} channels and of "
            f"{(moments.splits - 1) * moments.rows + 1} to {moments.splits * moments.rows} positions"
        )
    return moments


def _batch_problem(
    op: str,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[NormProblem, tuple[Tensor, Tensor] | None]:
    """What a batch norm is to compute, and its running statistics."""
    channels, positions = _channels(op, input)
    eps = _number(op, "eps", eps)
    running = _running(op, running_mean, running_var)
    channels_fit(
        op, input, (channels,), "one number a channel",
        running_mean=running_mean, running_var=running_var, weight=weight, bias=bias,
    )  # fmt: skip
    if training:
        if input.shape[0] * positions == 1:
            raise ValueError(f"{op}: expected more than 1 value per channel when training, got input {input.shape}")
        if not eps > 0:
            raise ValueError(f"{op}: eps must be positive in training, got {eps}")
    elif running is None:
        raise ValueError(f"{op}: running_mean and running_var are needed where training is False")
    moved_by = _number(op, "momentum", momentum) if training else None
    return _problem(1, input.shape[0] * positions, channels, channels, eps, moved_by), running


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As batch_norm, each image of (N,C,...) by itself; running statistics move towards the mean of the images'.

    Ulyanov, Vedaldi and Lempitsky, "Instance normalization: the missing ingredient for fast stylization" (2016).

    Args:
        use_input_stats: normalise by each image's statistics, not by the running ones.

    Raises:
        ValueError, TypeError: as batch_norm; running statistics may be of any floating dtype.
    """
    channels, positions = _channels("instance_norm", input)
    eps = _number("instance_norm", "eps", eps)
    running = _running("instance_norm", running_mean, running_var)
    _of_channels("instance_norm", input, channels, running_mean=running_mean, running_var=running_var)
    channels_fit("instance_norm", input, (channels,), "one number a channel", weight=weight, bias=bias)
    if not use_input_stats:
        if running is None:
            raise ValueError("instance_norm: running_mean and running_var are needed where use_input_stats is False")
        problem = NormProblem(1, input.shape[0] * positions, channels, channels, eps, None)
        return _normalized(input, weight, bias, problem, running)
    if positions == 1:
        raise ValueError(f"instance_norm: expected more than 1 spatial element when training, got input {input.shape}")
    moved_by = _number("instance_norm", "momentum", momentum)
    problem = NormProblem(input.shape[0], positions, channels, channels, eps, moved_by)
    return _normalized(input, weight, bias, problem, running)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """As instance_norm, with one mean and variance for each of `num_groups` runs of adjacent channels of (N,C,...).

    Wu and He, "Group normalization" (2018).

    Args:
        weight, bias: (C,) or None for 1 and 0.

    Raises:
        ValueError: groups that do not divide the channels, shapes that do not fit, a group of one value in a batch of
            one.
        TypeError: not tensors, dtypes that do not go together.
    """
    channels, positions = _channels("group_norm", input)
    eps = _number("group_norm", "eps", eps)
    groups = whole(num_groups, "group_norm: num_groups")
    if groups < 1 or channels % groups:
        raise ValueError(f"group_norm: num_groups={groups} must divide the {channels} channels of input {input.shape}")
    channels_fit("group_norm", input, (channels,), "one number a channel", weight=weight, bias=bias)
    if input.shape[0] * positions * channels == groups:
        raise ValueError(f"group_norm: expected more than 1 value per group, got input {input.shape} in {groups}")
    return _normalized(input, weight, bias, NormProblem(input.shape[0], positions, channels, groups, eps), None)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, mean and variance being those over the last axes of input.

    Ba, Kiros and Hinton, "Layer normalization" (2016).

    Args:
        normalized_shape: the sizes of these axes, one or more.
        weight, bias: of that shape, or None for 1 and 0. For an input of float16 they may be float32.

    Raises:
        ValueError: an input that does not end in `normalized_shape`, weight or bias of another shape.
        TypeError: not tensors, dtypes that do not go together, `normalized_shape` no sequence of integers.
    """
    floats_together("layer_norm", input=input)
    if not isinstance(normalized_shape, (tuple, list)):
        raise TypeError(f"layer_norm: normalized_shape takes a tuple of ints, got {normalized_shape!r}")
    shape = tuple([whole(size, "layer_norm: a size in normalized_shape") for size in normalized_shape])
    if not shape:
        raise ValueError("layer_norm: normalized_shape must name one axis or more, got ()")
    if input.shape[-len(shape) :] != shape:
        raise ValueError(f"layer_norm: input {input.shape} must end in normalized_shape {shape}")
    channels_fit("layer_norm", input, shape, "normalized_shape", weight=weight, bias=bias)
    return record(  # type: ignore[no-any-return]
        ops.LayerNorm, (input, weight, bias), {"axes": len(shape), "eps": _number("layer_norm", "eps", eps)}
    )


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha / size * s)**beta, s being the sum of squares over `size` neighbouring channels of (N,C,...).

    The neighbours of channel c are c - size // 2 to c + (size - 1) // 2, as far as they exist. Krizhevsky, Sutskever
    and Hinton, "ImageNet classification with deep convolutional neural networks" (2012), section 3.3; there alpha is
    not divided by size.

    Raises:
        ValueError: input with fewer than 3 axes, a size below 1.
        TypeError: not a floating tensor, a size that is no integer.
    """
    floats_together("local_response_norm", input=input)
    if input.ndim < 3:
        raise ValueError(f"local_response_norm: input must have 3 axes or more, (N, C, ...), got {input.shape}")
    channels = whole(size, "local_response_norm: size")
    if channels < 1:
        raise ValueError(f"local_response_norm: size must be at least 1, got {size}")
    numbers = [_number("local_response_norm", *pair) for pair in (("alpha", alpha), ("beta", beta), ("k", k))]
    problem = LocalResponseProblem(channels, *numbers)
    return record(ops.LocalResponseNorm, (input,), {"problem": problem})  # type: ignore[no-any-return]


_problem = functools.lru_cache(maxsize=4096)(NormProblem)


@functools.lru_cache(maxsize=4096)
def _limited(problem: NormProblem, limit: float) -> NormProblem:
    return replace(problem, limit=limit)


def _channels(op: str, input: Tensor) -> tuple[int, int]:
    """(channels, positions in each) of an input (N,C,...)."""
    shape = a_floating(input, "input", op).shape
    if len(shape) < 2:
        raise ValueError(f"{op}: input must have shape (N, C, ...), got {shape}")
    return shape[1], math.prod(shape[2:])


def _running(op: str, mean: Tensor | None, var: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Running mean and variance, both or neither."""
    if mean is None and var is None:
        return None
    if mean is None or var is None:
        raise ValueError(f"{op}: running_mean and running_var go together: one is None, the other not")
    for name, kept in (("running_mean", mean), ("running_var", var)):
        if a_tensor(kept, name, op).requires_grad:
            raise ValueError(f"{op}: {name} requires a gradient, and running statistics have none")
    return mean, var


def _of_channels(op: str, input: Tensor, channels: int, **statistics: Tensor | None) -> None:
    """Statistics, where there are any, of any floating dtype."""
    for name, kept in statistics.items():
        if kept is None:
            continue
        array = a_floating(kept, name, op)
        if array.shape != (channels,):
            raise ValueError(f"{op}: {name} must have shape ({channels},), one number a channel, got {array.shape}")
        if not are_together(array, input.data):
            raise ValueError(f"{op}: input is on {input.device}, but {name} on {kept.device}")


def _number(op: str, name: str, value: Any) -> float:
    if not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}")
    return float(value)


def _normalized(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    problem: NormProblem,
    running: tuple[Tensor, Tensor] | None,
    residual: Tensor | None = None,
    moments: Moments | None = None,
) -> Tensor:
    """Records the op."""
    arrays = None if running is None else (running[0].data, running[1].data)
    options: dict[str, Any] = {"problem": problem, "running": arrays}
    if moments is not None:
        options["moments"] = moments
    y: Tensor
    if problem.limit is None:
        y = record(ops.Norm, (input, weight, bias), options)
    else:
        y = record(ops.NormReLU, (input, weight, bias, residual), options)
    if arrays is not None and problem.own_statistics:
        for array in arrays:
            wrote(array)
    return y
