"""Rows and columns of an image that no window reads: a stride that does not fit, or one longer than the window."""

from __future__ import annotations

from typing import Any

import numpy as np


def unread(problem: Any) -> tuple[str, ...]:
    """In words, for the windows of a convolution or pooling; empty if each pixel is read."""
    p = problem
    found = (
        _skipped("row", p.H, p.P, p.R, p.stride[0], p.padding[0], p.dilation[0]),
        _skipped("column", p.W, p.Q, p.S, p.stride[1], p.padding[1], p.dilation[1]),
    )
    return tuple(words for words in found if words)


def _skipped(word: str, size: int, windows: int, taps: int, stride: int, padding: int, dilation: int) -> str:
    read = np.add.outer(np.arange(windows) * stride - padding, np.arange(taps) * dilation)
    return in_words(word, np.setdiff1d(np.arange(size), read).tolist(), size)


def in_words(word: str, numbers: list[int], size: int) -> str:
    """'row 6 of 7', 'rows 5-6 of 7', 'rows 1, 3, 5, ..., 55 (28 of 56)'; '' for none."""
    if not numbers:
        return ""
    if len(numbers) == 1:
        return f"{word} {numbers[0]} of {size}"
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{word}s {numbers[0]}-{numbers[-1]} of {size}"
    shown = [str(number) for number in numbers]
    if len(shown) > 4:
        shown[3:-1] = ["..."]
    return f"{word}s {', '.join(shown)} ({len(numbers)} of {size})"
