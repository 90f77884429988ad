"""Numbers of channels in networks wider or narrower than their papers'."""

from __future__ import annotations


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded, at least 1. ValueError for a width that is not positive."""
    if not width > 0:
        raise ValueError(f"width must be positive, 1 for the network as published, got {width}")
    return max(1, round(channels * width))


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, or the next one where that would lose more than a tenth.

    How the MobileNets round, so that every layer suits vector units (Sandler et al. 2018, reference implementation).
    """
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * channels else nearest + divisor
