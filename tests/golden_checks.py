"""What an instruction answers beside what the golden file says, by every bit or as near as hardware adds."""

from __future__ import annotations

from typing import Any

import numpy as np

LANE = np.arange(32)
# Of a lane's share: see csrc/simt/ptx.h.
G, T = LANE // 4, LANE % 4


def halves(words: Any) -> Any:
    """The low and the high 16 bits of registers, along a new last axis."""
    return np.stack([words & 0xFFFF, words >> 16], axis=-1).astype(np.uint16)


def matrices(instruction: str, given: Any) -> tuple[Any, Any, Any]:
    """a [16, k], b [k, 8] and d [16, 8] in float64, put together from the 32 lanes' words."""
    wide = "tf32" in instruction
    k = 8 if wide else 16
    a, b, d = np.zeros((16, k)), np.zeros((k, 8)), np.zeros((16, 8))
    for i, value in enumerate(given[:, :4].view(np.float32).T):
        d[G + i // 2 * 8, 2 * T + i % 2] = value
    for i, register in enumerate(given[:, 4:8].T):
        if wide:
            a[G + i % 2 * 8, T + i // 2 * 4] = (register & 0xFFFFE000).view(np.float32)
        else:
            for j, bits in enumerate(halves(register).T):
                a[G + i % 2 * 8, 2 * T + j + i // 2 * 8] = numbers(instruction, bits)
    for i, register in enumerate(given[:, 8:].T):
        if wide:
            b[T + i * 4, G] = (register & 0xFFFFE000).view(np.float32)
        else:
            for j, bits in enumerate(halves(register).T):
                b[2 * T + j + i * 8, G] = numbers(instruction, bits)
    return a, b, d


def numbers(instruction: str, bits: Any) -> Any:
    if "fp16" in instruction:
        return bits.view(np.float16)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def shares(d: Any) -> Any:
    """[32, 4]: what of d [16, 8] the lanes have."""
    return np.stack([d[G + i // 2 * 8, 2 * T + i % 2] for i in range(4)], axis=1)


def wrong_lanes(entry: str, given: Any, found: Any, expected: Any) -> list[tuple[int, ...]]:
    """The places [trial, lane, word] at which `found` is not what is `expected` of this kind of input."""
    if entry.endswith(".bits"):
        return [tuple(map(int, place)) for place in np.argwhere(found != expected)]
    magnitude = np.zeros(found.shape)
    for one, trial in zip(magnitude, given, strict=True):
        a, b, d = matrices(entry, trial)
        one[...] = shares(np.abs(a) @ np.abs(b) + np.abs(d))
    error = np.abs(found.view(np.float32).astype(float) - expected.view(np.float32).astype(float))
    return [tuple(map(int, place)) for place in np.argwhere(~(error <= 2.0**-18 * magnitude))]
