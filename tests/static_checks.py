"""What tests of the static table of CUDA kernels, and of the counts in it, share."""

from __future__ import annotations

import pytest

from gpucnn import extension
from gpucnn.bench.static import StaticRow, static_rows
from gpucnn.calls import Call
from gpucnn.profile import device

H100 = device("h100")

needs_profile = pytest.mark.skipif(
    extension.load("_simt_profile") is None, reason=str(extension.why_missing("_simt_profile"))
)


def conv(*shape: int, dtype: str = "float32", filters: int = 16) -> Call:
    """A 3 x 3 convolution of images (N, C, H, W)."""
    return Call.of("conv2d", shape, (filters, shape[1], 3, 3), padding=1, dtype=dtype)


def rows_of(call: Call, passes: list[str] | None = None, kernel: str | None = None) -> list[StaticRow]:
    """For an H100."""
    return static_rows(call, passes, kernel, H100)
