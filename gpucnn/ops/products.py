"""Which configuration of csrc/gemm runs a product of matrices, in words for `gpucnn.explain`: what the launchers choose
for arrays that are aligned, asked of a module's plain arithmetic."""

from __future__ import annotations

from typing import Any

from gpucnn.problem import Conv2dProblem


def configurations(module: Any) -> list[str]:
    """The names of all of them."""
    return list(module.gemm_configurations())


def fprop(module: Any, M: int, N: int, K: int, dtype: str) -> str:
    """y (M,N) of x (M,K) and w (N,K)."""
    return tile(module, M, N, _whole_packs(dtype, K))


def dgrad(module: Any, M: int, N: int, K: int, dtype: str) -> str:
    """dx (M,K) of dy (M,N) and w (N,K)."""
    return tile(module, M, K, _whole_packs(dtype, N, K))


def wgrad(module: Any, M: int, N: int, K: int, dtype: str) -> str:
    """dw (N,K) of x (M,K) and dy (M,N)."""
    return cut(module, K, N, M, _whole_packs(dtype, N, K))


def conv2d_fprop(module: Any, p: Conv2dProblem, dtype: str) -> str:
    """Windows by filters."""
    return tile(module, p.N * p.P * p.Q, p.K, _whole_strips(dtype, p.C))


def conv2d_dgrad(module: Any, p: Conv2dProblem, dtype: str) -> str:
    """Pixels, in classes of those that meet the same taps, by channels."""
    pixels = p.N
    for size, stride in zip((p.H, p.W), p.stride, strict=True):
        pixels *= -(-size // stride) * min(stride, size)
    return tile(module, pixels, p.C, _whole_packs(dtype, p.C) and _whole_strips(dtype, p.K))


def conv2d_wgrad(module: Any, p: Conv2dProblem, dtype: str) -> str:
    """Weights of a filter by filters, over all windows."""
    return cut(module, p.R * p.S * p.C, p.K, p.N * p.P * p.Q, _whole_packs(dtype, p.C, p.K))


def tile(module: Any, rows: int, columns: int, wide: bool) -> str:
    return f"tile {module.gemm_configuration(rows, columns, wide)}{_path(wide)}"


def cut(module: Any, rows: int, columns: int, depth: int, wide: bool) -> str:
    """Of sums whose depth may be cut."""
    name, parts = module.gemm_cut(rows, columns, depth, wide)
    return f"tile {name}{_path(wide)}{f', {parts} parts' if parts > 1 else ''}"


def _path(wide: bool) -> str:
    return "" if wide else " by single elements"


def _pack(dtype: str) -> int:
    """Elements in 16 bytes."""
    return 4 if dtype == "float32" else 8


def _whole_packs(dtype: str, *sizes: int) -> bool:
    return all(size % _pack(dtype) == 0 for size in sizes)


def _whole_strips(dtype: str, channels: int) -> bool:
    """Whether what is read of the depth at a time lies within one tap's channels."""
    return _whole_packs(dtype, channels) and channels >= 2 * _pack(dtype)
