"""What the whole suite shares: the seed in the header, and PyTorch for those who compare with it."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path
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


@pytest.fixture(scope="session")
def torchvision(torch: Any) -> Any:
    """torchvision, also where its compiled operators do not load beside the installed PyTorch: networks use none."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision, which networks are compared with, is not installed")
    tool = Path(__file__).resolve().parent.parent / "tools/make_torchvision_facts.py"
    return runpy.run_path(str(tool))["load_torchvision"]()


@pytest.fixture(params=[1 << 20, 3000, 1], ids=["whole", "tiles", "rows"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The reference kernels' scratch memory: as shipped, of a few rows or images, of one row; and sums of rows."""
    monkeypatch.setattr("gpucnn.reference.common.BLOCK_BYTES", request.param)
    if request.param < 1 << 20:
        for name, value in (("_SUMMED_BYTES", request.param), ("_SUMMED_ROWS", 3), ("_FEW_ROWS", 1)):
            monkeypatch.setattr(f"gpucnn.reference.common.{name}", value)
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

    for module in ("conv2d", "depthwise", "products", "pool2d", "common"):
        monkeypatch.setattr(f"gpucnn.reference.{module}.empty", filled(backend.empty))
    for module in ("pool2d", "common"):
        monkeypatch.setattr(f"gpucnn.reference.{module}.workspace", filled(backend.workspace))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that the pictures of this test show."""
    from gpucnn.vis import style

    texts: list[str] = []
    write = style.write

    def record(figure: Any, text: str, *args: Any, **options: Any) -> None:
        texts.append(text)
        write(figure, text, *args, **options)

    monkeypatch.setattr(style, "write", record)
    return texts
