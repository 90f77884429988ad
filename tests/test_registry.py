"""Which kernel runs: the order of preference, forced names, gaps in a backend, and where the data lie."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeArray, fake_cupy

import gpucnn
from gpucnn import backend, use_backend
from gpucnn.ops import registry
from gpucnn.ops.registry import TABLES, KernelTable, kernels_replaced, observe_calls

CPU = np.zeros(1, np.float32)
GPU = FakeArray(CPU, 0)


@dataclass(frozen=True)
class Problem:
    size: int


def runs(name: str) -> Any:
    return lambda problem, *arrays: (name, problem, arrays)


def at_most(limit: int) -> Any:
    return lambda problem: None if problem.size <= limit else f"needs at most {limit}, got {problem.size}"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> KernelTable:
    """small (at most 10), large and never on reference; one for small ones on each other backend; all can be used."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices=1))
    monkeypatch.setattr(backend, "unavailable", lambda name: None)
    monkeypatch.setattr(backend, "runs_kernels", lambda device: device == 0)
    table = KernelTable("op", "fprop")
    table.add("small", "reference", runs("small"), at_most(10))
    table.add("large", "reference", runs("large"), at_most(1000))
    table.add("never", "reference", runs("never"), lambda problem: "never")
    table.add("tiles", "cuda", runs("tiles"), at_most(10))
    table.add("fibers", "simt", runs("fibers"), at_most(10))
    return table


@pytest.fixture(autouse=True)
def on_reference(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "TABLES", {})
    with use_backend("reference"):
        yield


def test_the_first_that_can_is_taken(table: KernelTable) -> None:
    assert [table.pick(Problem(size), CPU).name for size in (1, 10, 11, 1000)] == ["small", "small", "large", "large"]
    assert [spec.name for spec in table.specs("reference")] == ["small", "large", "never"]
    assert str(table) == "op fprop"


def test_a_call_runs_the_kernel_on_the_problem_and_the_arrays(table: KernelTable) -> None:
    assert table(Problem(1), CPU, None, like=CPU) == ("small", Problem(1), (CPU, None))
    assert table(Problem(1), like=CPU, kernel="large") == ("large", Problem(1), ())


def test_a_kernel_is_forced_by_name(table: KernelTable) -> None:
    assert table.pick(Problem(1), CPU, kernel="large").name == "large"
    with pytest.raises(
        ValueError, match=r"op fprop: kernel 'small' can't run this: needs at most 10, got 11 \(Problem"
    ):
        table.pick(Problem(11), CPU, kernel="small")


def test_unknown_kernels_get_the_list_and_the_nearest(table: KernelTable) -> None:
    with pytest.raises(
        ValueError,
        match="op fprop: no kernel 'lrge' on backend 'reference', there are: small, large, never; did you mean 'large'",
    ):
        table.pick(Problem(1), CPU, kernel="lrge")
    with pytest.raises(ValueError, match=r"there are: small, large, never$"):
        table.pick(Problem(1), CPU, kernel="xyz")
    with use_backend("simt"), pytest.raises(ValueError, match=r"on backend 'simt', there are: fibers$"):
        table.pick(Problem(1), CPU, kernel="small")
    with use_backend("simt"), pytest.raises(ValueError, match=r"there are: none$"):
        KernelTable("other", "fprop").pick(Problem(1), CPU, kernel="small")


def test_what_no_kernel_can_run_says_why_of_each(table: KernelTable) -> None:
    with pytest.raises(
        RuntimeError, match=r"small: needs at most 10, got 1001; large: needs at most 1000.*; never: never"
    ):
        table.pick(Problem(1001), CPU)
    with pytest.raises(RuntimeError, match="it has no kernel for this op"):
        KernelTable("empty", "fprop").pick(Problem(1), CPU)


def test_the_backend_and_the_place_of_the_data_decide(table: KernelTable) -> None:
    with use_backend("cuda", strict=True):
        assert table.pick(Problem(1), GPU).name == "tiles"
        assert table.pick(Problem(1), CPU).name == "small"  # a CPU tensor beside the GPU is no gap in the backend
        assert table.pick(Problem(99), CPU).name == "large"
        assert table.pick(Problem(1), FakeArray(CPU, 1)).name == "small"  # nor is one on a GPU too old for the kernels
    with use_backend("simt", strict=True):
        assert table.pick(Problem(1), CPU).name == "fibers"
        with pytest.raises(RuntimeError, match="'simt' works on cpu arrays, got one on cuda:0"):
            table.pick(Problem(1), GPU)
    assert table.pick(Problem(1), GPU).name == "small"


@pytest.mark.parametrize(("name", "like"), [("cuda", GPU), ("simt", CPU)])
def test_a_gap_falls_to_reference_and_is_logged_once(
    table: KernelTable, caplog: pytest.LogCaptureFixture, name: str, like: Any
) -> None:
    caplog.set_level(logging.DEBUG, logger="gpucnn")
    with use_backend(name):
        for _ in range(3):
            assert table.pick(Problem(20), like).name == "large"
        assert table.pick(Problem(2), like).backend == name
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["op fprop"]
    message = caplog.records[0].getMessage()
    assert f"running on reference, backend '{name}' can't" in message
    assert "needs at most 10, got 20" in message
    assert caplog.records[0].levelno == logging.WARNING


def test_strict_raises_where_a_gap_would_fall(table: KernelTable, caplog: pytest.LogCaptureFixture) -> None:
    with use_backend("simt", strict=True):
        with pytest.raises(RuntimeError, match=r"'simt' can't run Problem.*fibers: needs at most 10.*strict=True"):
            table.pick(Problem(20), CPU)
        with pytest.raises(RuntimeError, match="it has no kernel for this op"):
            KernelTable("bare", "fprop").pick(Problem(1), CPU)
    assert not caplog.records


def test_a_gap_that_reference_can_not_fill_either_is_an_error(table: KernelTable) -> None:
    with use_backend("simt"), pytest.raises(RuntimeError, match="no kernel can run"):
        table.pick(Problem(2000), CPU)


def test_duplicates_and_unknown_backends_are_refused(table: KernelTable) -> None:
    with pytest.raises(ValueError, match="op fprop: backend 'reference' has a kernel 'small' already"):
        table.add("small", "reference", runs("again"))
    table.add("small", "cuda", runs("small"))
    with pytest.raises(ValueError, match="unknown backend 'opencl'; there are reference, cuda, simt"):
        table.add("small", "opencl", runs("small"))
    with pytest.raises(ValueError, match="a table of kernels for op fprop already"):
        KernelTable("op", "fprop")
    assert registry.TABLES["op", "fprop"] is table
    assert KernelTable("op", "dgrad").specs("reference") == ()


def test_every_table_of_the_library_can_be_found_and_has_a_reference_kernel() -> None:
    assert {op for op, _ in TABLES} >= {"conv2d", "linear", "max_pool2d", "avg_pool2d", "cross_entropy", "relu", "sgd"}
    for (op, direction), table in TABLES.items():
        assert (table.op, table.direction) == (op, direction)
        assert table.specs("reference")


def test_kernels_give_infinities_and_nan_without_a_warning() -> None:
    x = gpucnn.tensor([0.0, -1.0, 1e38])
    assert str((x / 0).tolist()) == "[nan, -inf, inf]"
    assert str(x.log().tolist()[:2]) == "[-inf, nan]"
    assert (x * 1e10).tolist()[2] == float("inf")


def test_a_forced_kernel_reaches_the_op() -> None:
    x, w = gpucnn.ones(1, 2, 3, 3), gpucnn.ones(2, 2, 3, 3)
    assert gpucnn.functional.conv2d(x, w, kernel="im2col").tolist() == [[[[18.0]], [[18.0]]]]
    with pytest.raises(ValueError, match="did you mean 'im2col'"):
        gpucnn.functional.conv2d(x, w, kernel="im2cool")
    with pytest.raises(ValueError, match="conv2d fprop: kernel 'depthwise' can't run this"):
        gpucnn.functional.conv2d(x, w, kernel="depthwise")


def test_a_kernel_takes_the_dtypes_that_it_names(table: KernelTable) -> None:
    table.add("narrow", "simt", runs("narrow"), at_most(99), dtypes=("float32", "float16"))
    double = np.zeros(1)
    with use_backend("simt", strict=True):
        assert table.pick(Problem(50), CPU).name == "narrow"
        assert table.pick(Problem(50), CPU.astype(np.float16), kernel="narrow").name == "narrow"
        with pytest.raises(ValueError, match="kernel 'narrow' can't run this: needs float32 or float16, got float64"):
            table.pick(Problem(50), double, kernel="narrow")
        with pytest.raises(ValueError, match="kernel 'narrow' can't run this: needs at most 99, got 100"):
            table.pick(Problem(100), CPU, kernel="narrow")
        why = "fibers: needs at most 10, got 50; narrow: needs float32 or float16, got float64"
        with pytest.raises(RuntimeError, match=why):
            table.pick(Problem(50), double)
    with use_backend("simt"):
        assert table.pick(Problem(50), double).name == "large"


def in_bfloat16(run: Any, *arrays: Any, **options: Any) -> Any:
    table = KernelTable("op", "of bfloat16")
    table.add("array", "reference", run, **options)
    return table(None, *[np.array(array, "bfloat16") for array in arrays], like=np.empty(0, "bfloat16"))


def test_array_code_computes_bfloat16_in_float32_and_what_leaves_it_is_rounded() -> None:
    def run(problem: None, x: Any, bias: Any) -> Any:
        assert x.dtype == bias.dtype == np.float32
        return x / 3 + bias, x.astype(np.float64) / 3, [x > 1], None

    y, statistics, (kept,), nothing = in_bfloat16(run, [1.0, 2.0], [0.5, 0.5])
    assert y.dtype == "bfloat16"
    assert y.tolist() == (np.array([1.0, 2.0], np.float32) / 3 + 0.5).astype("bfloat16").tolist()
    assert statistics.tolist() == [1 / 3, 2 / 3]
    assert kept.tolist() == [False, True]
    assert nothing is None


def test_what_array_code_writes_in_place_is_written_in_bfloat16() -> None:
    table = KernelTable("op", "step")

    def run(problem: None, x: Any, dx: Any) -> None:
        x -= dx / 3

    table.add("array", "reference", run)
    x, dx = np.ones(2, "bfloat16"), np.ones(2, "bfloat16")
    dx.flags.writeable = False
    table(None, x, dx, like=x)
    assert x.dtype == "bfloat16"
    assert x.tolist() == np.full(2, 2 / 3, "bfloat16").tolist()


def test_lists_of_arrays_are_widened_too() -> None:
    table = KernelTable("op", "of lists")

    def run(problem: None, several: list[Any]) -> None:
        for x in several:
            x += 1 / 3

    table.add("array", "reference", run)
    x = np.ones(2, "bfloat16")
    table(None, [x, np.ones(2, np.float32)], like=x)
    assert x.tolist() == np.full(2, 4 / 3, "bfloat16").tolist()


def test_a_kernel_may_take_bfloat16_as_it_is() -> None:
    assert in_bfloat16(lambda problem, x: x.dtype.name, [1.0], widens=False) == "bfloat16"


def test_calls_can_be_observed_in_the_kernels_place(table: KernelTable) -> None:
    asked: list[Any] = []

    def observer(*question: Any) -> str:
        asked.append(question)
        return "answer"

    with observe_calls(observer):
        assert table(Problem(1), 5, kernel="large", like=CPU) == "answer"
        with observe_calls(lambda *question: "inner"):
            assert table(Problem(1), like=CPU) == "inner"
        assert table(Problem(2), like=CPU) == "answer"
    assert asked == [(table, Problem(1), (5,), "large", CPU), (table, Problem(2), (), None, CPU)]
    assert table(Problem(1), like=CPU) != "answer"


def test_kernels_can_be_replaced_and_are_chosen_as_ever(table: KernelTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "TABLES", {("op", "fprop"): table})
    with kernels_replaced(lambda of, spec: lambda problem, *arrays: (of, spec.name, arrays)):
        assert table(Problem(1), 5, like=CPU) == (table, "small", (5,))
        assert table(Problem(11), 5, like=CPU) == (table, "large", (5,))
        with kernels_replaced(lambda of, spec: runs("again")):
            assert table(Problem(1), like=CPU)[0] == "again"
        assert table(Problem(1), 5, like=CPU) == (table, "small", (5,))
        with pytest.raises(ValueError, match="no kernel 'tile'"):
            table(Problem(1), kernel="tile", like=CPU)
    assert table(Problem(1), 5, like=CPU) == ("small", Problem(1), (5,))


def test_what_yields_is_asked_once_for_a_problem_a_dtype_and_a_device(table: KernelTable) -> None:
    asked: list[Any] = []

    def yields(problem: Problem, like: Any) -> str | None:
        asked.append((problem.size, like.dtype.name, like.device.id))
        return "the next is faster" if problem.size > 5 else None

    table.add("wide", "cuda", runs("wide"), at_most(10), yields=yields)
    table._by_backend["cuda"].reverse()
    half = FakeArray(CPU.astype(np.float16), 0)
    with use_backend("cuda"):
        for _ in range(2):
            assert table.pick(Problem(5), GPU).name == "wide"
            assert table.pick(Problem(6), GPU).name == "tiles"
            assert table.pick(Problem(6), half).name == "tiles"
        assert asked == [(5, "float32", 0), (6, "float32", 0), (6, "float16", 0)]
        with use_backend("cuda", strict=True), pytest.raises(RuntimeError, match="backend 'cuda' can't run"):
            table.pick(Problem(11), GPU)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(table._by_backend, "cuda", table._by_backend["cuda"][1:])
            assert table.pick(Problem(5), GPU).name == "tiles"
        assert table.pick(Problem(5), GPU).name == "wide"
        del asked[:]
        registry.TABLES["op", "fprop"] = table
        registry.forget()
        assert table.pick(Problem(5), GPU).name == "wide"
        assert asked == [(5, "float32", 0)]


def test_array_code_alone_runs_without_numpys_warnings(table: KernelTable) -> None:
    def kernel(problem: Problem) -> str:
        return str(np.geterr()["over"])

    other = KernelTable("other", "fprop")
    for name in ("reference", "simt"):
        other.add("kernel", name, kernel)
    with np.errstate(over="raise"):
        assert other(Problem(1), like=CPU) == "ignore"
        with use_backend("simt"):
            assert other(Problem(1), like=CPU) == "raise"
