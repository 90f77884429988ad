"""Of tests/budget_products.py, the calls of convolutions on tensor cores: every configuration of every pass, what is
not in whole units of 16 bytes, groups, sums that are cut, and what a forward pass does to its sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from budget_case import Case, conv

import gpucnn
from gpucnn import functional as F
from gpucnn.backend import supported_dtype
from gpucnn.calls import normals

HALVES, FLOAT = ("float16", "bfloat16"), ("float32",)
TILES, SPLIT_TILES = ("256x64", "128x128", "128x64", "64x64"), ("128x64", "64x64")
KERNELS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], dict[str, str]], ...] = (
    ("tensor_core", HALVES, TILES, {}),
    ("tf32", FLOAT, TILES, {"precision": "high"}),
    ("split_bf16", FLOAT, SPLIT_TILES, {}),
)


def on_tensor_cores() -> Iterator[Case]:
    for kernel, dtypes, tiles, options in KERNELS:
        for case in (
            *(conv(2, 64, 16, 128, 3, f"{kernel}:{tile}", **options) for tile in tiles),
            conv(2, 64, 16, 128, 3, kernel, stride=2, **options),
            conv(33, 64, 32, 64, 3, kernel, sample=48, **options),
            conv(2, 3, 32, 64, 7, kernel, aligned=False, stride=2, **options),
            conv(2, 19, 9, 67, 3, kernel, aligned=False, **options),
            conv(2, 64, 9, 67, 3, kernel, aligned=False, **options),
            conv(4, 256, 8, 256, 3, kernel, groups=32, **options),
            conv(4, 128, 8, 128, 3, kernel, groups=32, stride=2, **options),
            conv(1, 256, 7, 256, 3, f"{kernel}_cut", **options),
            replace(conv(1, 256, 7, 67, 3, f"{kernel}_cut", aligned=False, **options), backward=False),
        ):
            yield replace(case, dtypes=dtypes)
        yield _epilogue(kernel, dtypes, options)
        yield _epilogue(f"{kernel}_cut", dtypes, options)


def _epilogue(kernel: str, dtypes: tuple[str, ...], options: dict[str, str]) -> Case:
    """With scale, shift, residual and ReLU; and, where sums are whole, with the moments of what is stored."""
    cut = kernel.endswith("_cut")
    n, c, k, size = (1, 256, 256, 7) if cut else (2, 64, 128, 16)
    arguments: dict[str, Any] = {"input": (n, c, size, size), "weight": (k, c, 3, 3), "bias": (k,), "padding": 1}
    arguments |= {"residual": (n, k, size, size), "scale": (k,), **options}

    def run(dtype: str) -> None:
        kind = supported_dtype(dtype)
        drawn = {name: normals(shape, kind) for name, shape in arguments.items() if isinstance(shape, tuple)}
        scale, shift = (gpucnn.ones(k), gpucnn.zeros(k))
        given = {**drawn, "scale": scale, "shift": shift, "padding": 1, "kernel": kernel, **options}
        F.conv2d_relu(**given)
        if not cut:
            plain = {name: given[name] for name in ("input", "weight", "bias", "padding", "kernel", *options)}
            F.conv2d(**plain, return_moments=True)

    return replace(Case("conv2d_relu", arguments, kernel, then=run, dtypes=dtypes), backward=False)
