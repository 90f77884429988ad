"""gpucnn.bench.machine: what a device reaches, and the bounds that are made of it."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from strict_cupy import strict_cupy

import gpucnn
from gpucnn import backend, tuning
from gpucnn.bench import cases, machine
from gpucnn.bench.cases import Case
from gpucnn.bench.machine import Machine, here
from gpucnn.bench.measure import Field, Row
from gpucnn.cli.options import choose


def test_a_bound_is_the_larger_of_bytes_and_operations() -> None:
    found = Machine("cpu", "a test", {}, {100: 10.0, 1000: 5.0}, {"float32": 50.0, "float64": 25.0})
    assert found.bound(80, 0, "float32") == (8.0, "bytes")
    assert found.bound(80, 500, "float32") == (10.0, "operations")
    assert found.bound(80, 500, "float64") == (20.0, "operations")
    assert found.bound(101, 0, "float32") == (pytest.approx(20.2), "bytes"), "a larger working set is slower"
    assert found.bound(9999, 0, "float32")[0] == pytest.approx(9999 / 5), "none is measured beyond the largest"


def test_this_machine_is_measured_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine._COPIED, "cpu", 1 << 18)
    monkeypatch.setitem(machine._PRODUCT, "cpu", 64)
    found = here("cpu")
    assert found.bandwidth == {}
    assert found.bytes_per_second(1) > 0
    assert sorted(found.bandwidth) == [1 << 16, 1 << 18]
    assert found.operations_per_second("float32") > 0
    assert found.operations_per_second("bfloat16") > 0
    assert found.operations_per_second("float32", "high") == found.rates["float32"], "no TF32 on a CPU"
    assert set(found.rates) == {"float32", "bfloat16"}
    assert found.to_dict()["name"] == machine.cpu_name()
    assert found.details["cores"] >= 1


def test_the_ceiling_of_16_bit_products_is_what_anyone_reaches_here(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    dtypes: list[Any] = []

    def best(run: Any) -> float:
        found = run()
        dtypes.append(found.dtype)
        return 0.25 if isinstance(found, torch.Tensor) else 0.5

    monkeypatch.setattr(machine, "_best", best)
    monkeypatch.setitem(machine._PRODUCT, "cpu", 8)
    assert [machine._cpu_rate(name) for name in ("float32", "bfloat16")] == [2 * 8**3 / 0.5, 2 * 8**3 / 0.25]
    assert dtypes == [np.float32, np.float32, torch.bfloat16]
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    assert machine._cpu_rate("bfloat16") == 2 * 8**3 / 0.5


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match="cupy"):
        here("cuda")


# ------------------------------------------------------------------------------------------------ on a GPU


class Event:
    """Of a stream that does everything at once."""

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass


PROPERTIES = {"name": b"Some GPU", "major": 9, "minor": 0, "multiProcessorCount": 132, "totalGlobalMem": 1 << 36}


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stand-in that is as strict as cupy, with a clock."""
    module = strict_cupy()
    module.cuda.Event = Event
    module.cuda.get_elapsed_time = lambda start, stop: 1e3 * (stop.at - start.at)
    module.cuda.runtime = SimpleNamespace(
        **vars(module.cuda.runtime),
        getDeviceProperties=lambda index: {**PROPERTIES, "l2CacheSize": 50 << 20},
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(tuning, "_FLUSHED_BYTES", 1 << 10)
    backend.gpu_count.cache_clear()
    cases._row.cache_clear()
    with gpucnn.use_backend("reference"):
        yield module
    cases._row.cache_clear()
    backend.gpu_count.cache_clear()


def test_a_gpu_says_what_it_is(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = "580.65, 1980 MHz, 1980 MHz, 2619 MHz, 700.00 W, 41, Disabled\n"
    monkeypatch.setattr(machine.subprocess, "run", lambda *a, **o: SimpleNamespace(stdout=answer))
    found = here("cuda")
    assert (found.kind, found.name) == ("cuda", "Some GPU")
    assert found.details["capability"] == "9.0"
    assert found.details["driver_version"] == "580.65"
    assert found.details["clocks.max.sm"] == "1980 MHz"


def test_without_its_tool_a_gpu_is_still_described(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any, **options: Any) -> Any:
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(machine.subprocess, "run", missing)
    assert here("cuda").details["cuda driver"] == 13000


def test_cases_are_computed_and_judged_where_the_arrays_lie(cupy: Any) -> None:
    rows: list[Row] = []
    conv = {"input": (2, 6, 9, 8), "weight": (4, 6, 3, 3), "bias": (4,)}
    found = [Case("conv2d", conv, direction) for direction in ("fwd", "dgrad", "wgrad")]
    found.append(Case("cross_entropy", {"input": (30, 5), "target": (30,)}, "bwd"))
    device = Machine("cuda", "a test", {}, {1 << 40: 1e9}, {"float32": 1e10})
    with Field(device, "cuda", ("reference",), ["cupy"]) as field:
        field.measure(found, None, 2, 0.0, 3, rows.extend)
    assert [(row.contestant, row.status) for row in rows] == [("reference", "ok"), ("cupy", "ok")] * 4
    assert all(row.microseconds > 0 for row in rows)


def test_numbers_are_the_same_on_a_gpu(cupy: Any) -> None:
    case = Case("conv2d", {"input": (3, 40, 70, 300), "weight": (4, 40, 3, 3), "bias": (4,)})
    ours, others = (case.call(cases.Numbers.of(case, 8, device)).arguments for device in ("cpu", "cuda"))
    for one, other in zip(ours, others, strict=True):
        assert other.device == "cuda:0"
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    x = ours[0].numpy()
    assert x.size > cases._DRAWN, "so that the row is laid end to end"
    assert len(np.unique(x[:, :, 3, 5])) == x[:, :, 3, 5].size


def test_the_gpu_that_is_asked_for_is_the_current_one(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    current = [0]

    class Device:
        def __init__(self, index: int | None = None) -> None:
            self.id = current[0] if index is None else index

        def use(self) -> None:
            current[0] = self.id

    cupy.cuda.Device = Device
    cupy.cuda.runtime.getDeviceCount = lambda: 2
    assert choose("cuda:1", None) == "cuda:1"
    with pytest.raises(RuntimeError, match=re.escape("device 'cuda:2' asked for, but 2 GPU(s) are usable")):
        choose("cuda:2", None)
    assert current == [1]
    made: list[str] = []

    def randn(*shape: int, device: str) -> Any:
        made.append(device)
        return torch.zeros(4, 4)

    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "randn", randn)
    assert machine._gpu_rate("tf32") > 0
    assert made == ["cuda:1"] * 2
