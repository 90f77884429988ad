"""What the whole suite shares: the seed in the header, poisoned memory, PyTorch for those who compare with it."""

from __future__ import annotations

import functools
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes  # noqa: F401  from here on numpy knows bfloat16 by its name
import on_gpu
import pytest
from kernel_record import listen, pytest_runtest_logreport, pytest_runtest_setup, pytest_sessionfinish

from gpucnn import extension, tuned
from gpucnn.bench.peers import load_torchvision
from gpucnn.testing import rotating_seed, shapes

__all__ = ["pytest_runtest_logreport", "pytest_runtest_setup", "pytest_sessionfinish"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fixed-cases",
        action="store_true",
        help="of sampled cases, which change from day to day, none: what tools/kernel_coverage.py --fixed asks for",
    )


def pytest_configure(config: pytest.Config) -> None:
    listen(config)
    if config.getoption("fixed_cases"):
        leave_samples_out()
    os.environ[tuned.SWITCH] = "0"  # what somebody has tuned on this machine is not what is tested
    tuned.set_tuning(False)
    # What workers (pytest -n) and other processes of this run inherit: one seed, also at midnight; the cores, shared.
    os.environ["GPUCNN_TEST_SEED"] = str(rotating_seed())
    if workers := getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))


def leave_samples_out() -> None:
    """Before the tests ask for any: no case is sampled, the corners are all there are."""
    for module in ("gpucnn.testing", "gpucnn.testing.pairwise", "gpucnn.testing.shapes"):
        sys.modules[module].pairwise = lambda *arguments: iter(())  # type: ignore[attr-defined]
    shapes._corners_and_sample = lambda corners, *sampled: list(corners)  # type: ignore[assignment]


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
    return load_torchvision()


@pytest.fixture(params=[1 << 20, 3000, 1], ids=["whole", "tiles", "rows"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The reference kernels' scratch memory: as shipped, of a few rows or images, of one row; and sums of rows."""
    monkeypatch.setattr("gpucnn.reference.common.BLOCK_BYTES", request.param)
    if request.param < 1 << 20:
        for name, value in (("_SUMMED_BYTES", request.param), ("_SUMMED_ROWS", 3), ("_FEW_ROWS", 1)):
            monkeypatch.setattr(f"gpucnn.reference.common.{name}", value)
    return int(request.param)


@pytest.fixture
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of any size are cut into blocks of a thousand bytes and shared among the threads."""
    monkeypatch.setattr("gpucnn.reference.common.LARGE_BYTES", 0)
    monkeypatch.setattr("gpucnn.reference.common.BLOCK_BYTES", 1000)


@pytest.fixture(scope="session", autouse=True)
def poison() -> Iterator[None]:
    """In every test, memory that any module gets uninitialised holds NaN (integers: 0x5A): no gap goes unseen."""
    from gpucnn import backend, ops, reference

    for package in (reference, ops):  # what is imported later finds the poisoned functions
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for allocate in (backend.empty, backend.workspace):
            for module in [module for name, module in sys.modules.items() if name.startswith("gpucnn.")]:
                for name in [name for name, value in vars(module).items() if value is allocate]:
                    monkeypatch.setattr(module, name, poisoned(allocate))
        yield


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests have modules with other cost models stand in, on which the choice of kernels depends; and commands that
    are run in this process choose a backend for all that follows."""
    from gpucnn import backend
    from gpucnn.ops import registry

    registry.forget()
    for name, value in (("name", backend._choice.name), ("strict", backend._choice.strict)):
        monkeypatch.setattr(backend._choice, name, value)


def poisoned(allocate: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(allocate)
    def run(shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
        array = allocate(shape, dtype, like)
        array[...] = float("nan") if array.dtype.kind in "fV" else 0x5A
        return array

    return run


ASAN = [pytest.param("asan", marks=pytest.mark.asan)] if extension.load("_simt_asan") else []
GPU = [pytest.param("cuda", marks=pytest.mark.gpu)] if on_gpu.module() else []


@pytest.fixture(params=["plain", "race", *ASAN, *GPU])
def simt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The kernels built for the CPU, each flavour in turn, in use as backend `simt`; the checker must find nothing.
    Where there is a GPU, those built for it as well, in the place of a flavour: see on_gpu.py.

    Skips with the reason where a flavour can't be loaded. asan can be in a process that was started for it alone:
    test_simt_asan.py starts one for each file of tests that take this fixture.
    """
    from gpucnn import backend, flags

    module = on_gpu.module() if request.param == "cuda" else extension.load(f"_simt_{request.param}")
    if module is None:
        pytest.skip(str(extension.why_missing(f"_simt_{request.param}")))
    if request.param == "cuda":
        monkeypatch.setattr(extension, "compiled", lambda backend: module)
    else:
        monkeypatch.setenv("GPUCNN_SIMT_FLAVOUR", request.param)
    module.reports()
    flags.reset()
    with backend.use_backend("simt", strict=True):
        yield module
    module.set_order("")
    flags.reset()
    assert module.reports() == []


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
