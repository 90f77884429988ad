"""What the whole suite shares: the seed in the header, and PyTorch for those who compare with it."""

from __future__ import annotations

from typing import Any

import pytest

from gpucnn.testing import rotating_seed


def pytest_report_header() -> str:
    return f"GPUCNN_TEST_SEED={rotating_seed()}"


@pytest.fixture(scope="session")
def torch() -> Any:
    """PyTorch on one thread: its own would spin while the code under test computes."""
    module = pytest.importorskip("torch", reason="PyTorch, which results are compared with, is not installed")
    module.set_num_threads(1)
    return module


@pytest.fixture(params=[1 << 20, 1], ids=["whole", "cut"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The reference kernels' scratch memory: as shipped, and so little that every row of an image is a tile of its own."""
    monkeypatch.setattr("gpucnn.reference.common.BLOCK_BYTES", request.param)
    return int(request.param)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that convolution and pooling get uninitialised holds NaN (integers: 0x5A), so that no gap goes unseen."""
    from gpucnn import backend

    def filled(allocate: Any) -> Any:
        def run(shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
            array = allocate(shape, dtype, like)
            array[...] = float("nan") if array.dtype.kind == "f" else 0x5A
            return array

        return run

    for op in ("conv2d", "pool2d"):
        monkeypatch.setattr(f"gpucnn.reference.{op}.empty", filled(backend.empty))
        monkeypatch.setattr(f"gpucnn.reference.{op}.workspace", filled(backend.workspace))
