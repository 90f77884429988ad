"""Of tests/budget_cases.py, the calls of convolutions, products of matrices, and windows as columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from budget_case import Case, conv
from budget_tensor_core import on_tensor_cores

from gpucnn import backend
from gpucnn.calls import Call, normals


def products() -> Iterator[Case]:
    """All of them."""
    yield from _dense()
    yield from on_tensor_cores()
    yield from _grouped()
    yield from _first_layers()
    yield from _matrices()
    yield Case("unfold", {"input": (2, 32, 16, 16), "kernel_size": 3, "padding": 1})
    yield Case("unfold", {"input": (2, 3, 32, 32), "kernel_size": 3, "padding": 1})


def _dense() -> Iterator[Case]:
    """Of one group. Large calls are of the sizes for which a tile is chosen that small ones do not get."""
    yield conv(2, 64, 16, 64, 3, "direct")
    yield conv(2, 64, 16, 128, 3, "direct", stride=2)
    yield conv(2, 7, 9, 9, 3, "direct", aligned=False)
    yield conv(2, 6, 9, 6, 3, "direct", aligned=False, groups=3)
    for case in (
        conv(2, 64, 16, 64, 3, "implicit_gemm"),
        conv(2, 64, 16, 128, 3, "implicit_gemm", stride=2),
        conv(2, 7, 9, 9, 3, "implicit_gemm", aligned=False),
        conv(6, 16, 16, 1408, 3, "implicit_gemm", sample=48),  # tiles of 128x128, forward
        conv(6, 16, 16, 704, 3, "implicit_gemm", sample=48),  # 128x64
        conv(9, 32, 32, 32, 3, "implicit_gemm", sample=36),  # 128x32
        conv(6, 1408, 16, 16, 3, "implicit_gemm", sample=48),  # the same in the gradient of the input
        conv(6, 704, 16, 16, 3, "implicit_gemm", sample=48),
        conv(1, 160, 16, 1408, 3, "implicit_gemm", sample=48),  # and of the filters
        conv(1, 160, 16, 704, 3, "implicit_gemm", sample=48),
    ):
        yield replace(case, dtypes=("float32",))
    yield conv(2, 64, 16, 128, 1, "pointwise")
    yield conv(2, 7, 9, 9, 1, "pointwise", aligned=False)
    transposed = {"input": (2, 64, 8, 8), "weight": (64, 64, 2, 2), "bias": (64,), "stride": 2}
    yield Case("conv_transpose2d", transposed)
    transposed = {"input": (2, 8, 5, 5), "weight": (8, 7, 2, 2), "bias": (7,), "stride": 2}
    yield Case("conv_transpose2d", transposed, aligned=False)


def _grouped() -> Iterator[Case]:
    yield conv(2, 256, 16, 256, 3, "grouped", groups=32)
    yield conv(2, 256, 32, 256, 3, "grouped", sample=8, groups=32, stride=2)
    yield conv(2, 256, 16, 256, 1, "grouped", groups=32)
    yield conv(2, 9, 9, 9, 3, "grouped", aligned=False, groups=3)
    yield conv(2, 9, 9, 9, 1, "grouped", aligned=False, groups=3)
    for size in (3, 5, 7):
        for stride in (1, 2):
            yield conv(2, 64, 16, 64, size, "depthwise", groups=64, stride=stride)
    yield conv(2, 64, 16, 64, 3, "depthwise", groups=64, dilation=2)
    yield conv(2, 9, 9, 9, 3, "depthwise", aligned=False, groups=9)


def _first_layers() -> Iterator[Case]:
    """Of images of 1 and 3 channels, whose gradients are of no aligned pixels."""
    yield _of_images(1, 3, 32, 64, 7, stride=2)
    yield _of_images(2, 1, 32, 8, 5)
    yield replace(conv(1, 3, 32, 64, 7, "stem", aligned=False, stride=2), dtypes=("float32",))
    yield replace(conv(1, 3, 31, 9, 3, "stem", aligned=False), dtypes=("float32",))


def _of_images(n: int, c: int, h: int, k: int, r: int, **options: Any) -> Case:
    """A first layer, as networks are trained: without the gradient of the images."""
    case = conv(n, c, h, k, r, "stem", **options)

    def run(dtype: str) -> None:
        images = normals((n, c, h, h), backend.supported_dtype(dtype))
        Call.of("conv2d", dtype=dtype, fill=normals, **{**case.arguments, "input": images}).run()

    return replace(case, arguments={**case.arguments, "gradient": False}, dtypes=("float32",), then=run)


def _matrices() -> Iterator[Case]:
    def linear(m: int, k: int, n: int, sample: int = 1, aligned: bool = True, kernel: str = "tiled") -> Case:
        arguments = {"input": (m, k), "weight": (n, k), "bias": (n,)}
        return Case("linear", arguments, kernel, sample=sample, aligned=aligned)

    yield linear(64, 256, 128)
    yield linear(1536, 32, 1408, sample=48)  # tiles of 128x128, forward
    yield linear(1536, 32, 704, sample=48)  # 128x64
    yield linear(8576, 32, 32, sample=24)  # 128x32, and the gradient of the input
    yield linear(1536, 1408, 32, sample=48)
    yield linear(1536, 704, 32, sample=48)
    yield linear(128, 1536, 1408, sample=48)  # and of the weights
    yield linear(128, 1536, 704, sample=48)
    yield linear(128, 8576, 32, sample=24)
    yield linear(70, 33, 65, aligned=False)
    yield linear(8, 512, 512, kernel="split")
    yield linear(7, 513, 515, aligned=False, kernel="split")
    for sizes, aligned in (((4, 64, 64, 64), True), ((4, 63, 65, 61), False)):
        yield _matmul(*sizes, aligned)
        yield _matmul(*sizes, aligned, transposed=True)


def _matmul(matrices: int, m: int, k: int, n: int, aligned: bool, transposed: bool = False) -> Case:
    """`transposed`: of matrices that lie in memory the other way round. The gradients have the other mixtures."""
    shapes = {"self": (matrices, m, k), "other": (matrices, k, n)}

    def run(dtype: str) -> None:
        if not transposed:
            Call.of("matmul", *shapes.values(), dtype=dtype, fill=normals).run()
            return
        kind = backend.supported_dtype(dtype)
        a, b = (normals((count, columns, rows), kind) for count, rows, columns in shapes.values())
        a.transpose(1, 2).matmul(b.transpose(1, 2))

    return Case("matmul", {**shapes, "transposed": transposed}, then=run, aligned=aligned)
