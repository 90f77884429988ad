"""What the tests of pooling and upsampling share: poisoned memory, no copies of layout, bits that stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn import backend
from gpucnn.reference import parallel
from gpucnn.testing import assert_equal

NHWC = (0, 2, 3, 1)


def poison(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Memory that these reference modules get uninitialised holds NaN, or 0x5A in integers: no gap goes unseen."""

    def filled(allocate: Callable[..., Any]) -> Callable[..., Any]:
        def run(shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
            array = allocate(shape, dtype, like)
            array[...] = float("nan") if array.dtype.kind == "f" else 0x5A
            return array

        return run

    for module in modules:
        for name in ("empty", "workspace"):
            place = f"gpucnn.reference.{module}.{name}"
            monkeypatch.setattr(place, filled(getattr(backend, name)), raising=False)


def check_no_copies(run: Callable[[gpucnn.Tensor], Any], shape: tuple[int, ...]) -> None:
    """A channels-last image and gradient stay channels-last through `run` and back, and nothing is laid out anew."""
    x = gpucnn.tensor(np.zeros(shape, np.float32), requires_grad=True)
    with backend.count_layout_copies() as copies:
        y = run(x)
    dy = gpucnn.tensor(np.zeros(y.shape, np.float32))
    with backend.count_layout_copies() as copies_back:
        y.backward(dy)
    assert (copies.value, copies_back.value) == (0, 0)
    assert y.data.transpose(NHWC).flags.c_contiguous
    assert x.grad is not None
    assert x.grad.data.transpose(NHWC).flags.c_contiguous


def check_threads(run: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` gives the same bits on one thread and on three, with passes of any size shared out."""
    monkeypatch.setattr("gpucnn.reference.common.LARGE_BYTES", 0)
    monkeypatch.setattr("gpucnn.reference.common.BLOCK_BYTES", 1000)
    before = parallel.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            parallel.set_num_threads(count)
            results.append([np.array(array) for array in run()])
    finally:
        parallel.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        assert_equal(three, one)
