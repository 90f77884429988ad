"""Of tests/budget_cases.py, the calls of convolutions, products of matrices, and windows as columns."""

from __future__ import annotations

from collections.abc import Iterator

from budget_case import Case, conv


def products() -> Iterator[Case]:
    """All of them."""
    for kernel in ("implicit_gemm", "direct"):
        yield conv(2, 64, 16, 64, 3, kernel)
        yield conv(2, 64, 16, 128, 3, kernel, stride=2)
    yield conv(2, 64, 16, 128, 1, "pointwise")
    yield conv(2, 256, 16, 256, 3, "grouped", groups=32)
    for size in (3, 5, 7):
        for stride in (1, 2):
            yield conv(2, 64, 16, 64, size, "depthwise", groups=64, stride=stride)
    yield conv(1, 3, 32, 64, 7, "stem", stride=2)
    yield conv(2, 1, 28, 8, 5, "stem")
    transposed = {"input": (2, 64, 8, 8), "weight": (64, 64, 2, 2), "bias": (64,), "stride": 2}
    yield Case("conv_transpose2d", transposed)
    yield Case("linear", {"input": (64, 256), "weight": (128, 256), "bias": (128,)})
    yield Case("matmul", {"self": (4, 64, 64), "other": (4, 64, 64)})
    yield Case("unfold", {"input": (2, 32, 16, 16), "kernel_size": 3, "padding": 1})
