"""Larger images: interpolation, bed of nails, pixel shuffle and its inverse."""

from __future__ import annotations

import math
import numbers
from typing import Any

from gpucnn.arguments import whole
from gpucnn.functional.checks import a_tensor, batched, floats_together
from gpucnn.functional.pooling import adaptive_avg_pool2d
from gpucnn.ops import upsample
from gpucnn.problem import IntPair, pair
from gpucnn.reference.upsample import InterpolateProblem, NailsProblem, ShuffleProblem
from gpucnn.tensor import Tensor, record

MODES = ("nearest", "nearest-exact", "bilinear", "area")

Scale = float | tuple[float, float]
"""By how much both axes grow, or (vertical, horizontal)."""


def interpolate(
    input: Tensor,
    size: IntPair | None = None,
    scale_factor: Scale | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Images (N,C,H,W) resized to (N,C,P,Q): P, Q = `size`, or floor(H * scale_factor), floor(W * scale_factor).

    Output p reads the input around the place p * H / P ('nearest'), or (p + 1/2) * H / P - 1/2, where the centres of
    pixels lie if both images cover the same area ('nearest-exact', 'bilinear'), or p * (H - 1) / (P - 1)
    (`align_corners`). Given a `scale_factor`, 1 / scale_factor stands for H / P, which differs where P was rounded.

    Args:
        mode: 'nearest', 'nearest-exact', 'bilinear' or 'area' (adaptive_avg_pool2d).
        align_corners: for 'bilinear' alone (default False): corner pixels lie on corner pixels.
        recompute_scale_factor: take H / P even where `scale_factor` is given.
        antialias: for 'bilinear' alone: where images shrink, an output is made of all pixels about its place, with
            weights that fall linearly to 0 where the next output's place is, instead of the four around it
            (Turkowski, "Filters for common resampling tasks", 1990).

    Raises:
        ValueError: not four axes, not one of size and scale_factor, sizes below 1, arguments that do not go together.
        TypeError: an input that is no tensor of a floating dtype, sizes or factors that are no numbers.
    """
    floats_together("interpolate", input=input)
    if input.ndim != 4:
        raise ValueError(f"interpolate: input must have shape (N, C, H, W), got {input.shape}")
    if mode not in MODES:
        raise ValueError(f"interpolate: mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
    if align_corners is not None and mode != "bilinear":
        raise ValueError(f"interpolate: align_corners goes with mode='bilinear', not with {mode!r}")
    if antialias and mode != "bilinear":
        raise ValueError(f"interpolate: antialias goes with mode='bilinear', not with {mode!r}")
    N, C, H, W = input.shape
    (P, Q), factors = _output_size((H, W), size, scale_factor, bool(recompute_scale_factor))
    if min(C, H, W) < 1:
        raise ValueError(f"interpolate: channels and image must not be empty, got input {input.shape}")
    if mode == "area":
        return adaptive_avg_pool2d(input, (P, Q))
    problem = InterpolateProblem(N, H, W, C, P, Q, mode, bool(align_corners), factors, bool(antialias))
    return record(upsample.Interpolate, (input,), {"problem": problem})  # type: ignore[no-any-return]


def _output_size(
    image: tuple[int, int], size: Any, scale_factor: Any, recompute: bool
) -> tuple[tuple[int, int], tuple[float, float] | None]:
    """((P, Q), the factors if they tell how far outputs lie apart, else None)."""
    if (size is None) == (scale_factor is None):
        raise ValueError(f"interpolate: give one of size and scale_factor, got {size!r} and {scale_factor!r}")
    name, value = ("size", size) if scale_factor is None else ("scale_factor", scale_factor)
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ValueError(f"interpolate: {name} takes a number or a pair (vertical, horizontal), got {value!r}")
    factors = None
    if scale_factor is None:
        if recompute:
            raise ValueError("interpolate: recompute_scale_factor goes with scale_factor, not with size")
        P, Q = (whole(number, "interpolate: size") for number in values)
    else:
        vertical, horizontal = (_factor(number) for number in values)
        factors = None if recompute else (vertical, horizontal)
        P, Q = math.floor(image[0] * vertical), math.floor(image[1] * horizontal)
    if min(P, Q) < 1:
        raise ValueError(f"interpolate: {name}={value!r} makes {P} x {Q} of the {image[0]} x {image[1]} input")
    return (P, Q), factors


def _factor(value: Any) -> float:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"interpolate: scale_factor must be a number or a pair of them, got {value!r}")
    factor = float(value)
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"interpolate: scale_factor must be finite and above 0, got {value!r}")
    return factor


def bed_of_nails(input: Tensor, scale_factor: IntPair) -> Tensor:
    """Each pixel at the top left of a cell of zeros: (N,C,H,W) -> (N,C,f*H,f*W), or (C,H,W) -> (C,f*H,f*W).

    The unpooling of Dosovitskiy, Springenberg and Brox, "Learning to generate chairs with convolutional neural
    networks" (2015).

    Args:
        scale_factor: f, the size of a cell: int or (vertical, horizontal), at least 1.

    Raises:
        ValueError: an input with other axes, a factor below 1.
        TypeError: not a floating tensor, a factor that is no integer.
    """
    floats_together("bed_of_nails", input=input)
    factor = pair(scale_factor, "bed_of_nails: scale_factor", minimum=1)

    def run(x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ValueError(f"bed_of_nails: input must have shape (N, C, H, W) or (C, H, W), got {x.shape}")
        N, C, H, W = x.shape
        return record(upsample.BedOfNails, (x,), {"problem": NailsProblem(N, H, W, C, factor)})  # type: ignore[no-any-return]

    return batched(input, run)  # type: ignore[no-any-return]


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels become pixels: (..., C*f*f, H, W) -> (..., C, f*H, f*W), any dtype.

    output[c, f*h + i, f*w + j] = input[(c*f + i)*f + j, h, w] (Shi et al., "Real-time single image and video
    super-resolution using an efficient sub-pixel convolutional neural network", 2016).

    Raises:
        ValueError: fewer than 3 axes, a factor below 1, channels that f*f does not divide.
        TypeError: no tensor, a factor that is no integer.
    """
    factor = _shuffle_factor("pixel_shuffle", input, "upscale_factor", upscale_factor)
    *lead, channels, H, W = input.shape
    if channels % factor**2:
        raise ValueError(
            f"pixel_shuffle: upscale_factor**2 = {factor**2} must divide the {channels} channels of input {input.shape}"
        )
    x = input if input.ndim == 4 else input.reshape(math.prod(lead), channels, H, W)
    problem = ShuffleProblem(x.shape[0], H, W, channels // factor**2, factor)
    y: Tensor = record(upsample.PixelShuffle, (x,), {"problem": problem})
    return y if input.ndim == 4 else y.reshape(*lead, *y.shape[1:])


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Pixels become channels, the inverse of `pixel_shuffle`: (..., C, f*H, f*W) -> (..., C*f*f, H, W).

    Raises:
        ValueError: fewer than 3 axes, a factor below 1, a height or width that it does not divide.
        TypeError: no tensor, a factor that is no integer.
    """
    factor = _shuffle_factor("pixel_unshuffle", input, "downscale_factor", downscale_factor)
    *lead, channels, P, Q = input.shape
    if P % factor or Q % factor:
        raise ValueError(
            f"pixel_unshuffle: downscale_factor={factor} must divide height and width of input {input.shape}"
        )
    y = input if input.ndim == 4 else input.reshape(math.prod(lead), channels, P, Q)
    problem = ShuffleProblem(y.shape[0], P // factor, Q // factor, channels, factor)
    x: Tensor = record(upsample.PixelUnshuffle, (y,), {"problem": problem})
    return x if input.ndim == 4 else x.reshape(*lead, *x.shape[1:])


def _shuffle_factor(op: str, input: Tensor, name: str, value: Any) -> int:
    if a_tensor(input, "input", op).ndim < 3:
        raise ValueError(f"{op}: input must have 3 axes or more, (..., C, H, W), got {input.shape}")
    factor = whole(value, f"{op}: {name}")
    if factor < 1:
        raise ValueError(f"{op}: {name} must be at least 1, got {value!r}")
    return factor
