"""The static table of CUDA kernels: counted, scaled, expected, and marked as what it is."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from static_checks import H100, conv, needs_profile, rows_of

import gpucnn
from gpucnn.bench import counted
from gpucnn.bench.cases import Case
from gpucnn.bench.counted import Counter
from gpucnn.bench.static import static_rows, static_table
from gpucnn.calls import Call
from gpucnn.cli.bench.beside import show_static
from gpucnn.kernels import Kernel, Usage
from gpucnn.ops.registry import TABLES
from gpucnn.precision import float32_precision


def test_the_command_shows_the_kernels_of_the_precision_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counted, "why_not", lambda: "not wanted here")
    arguments = {"input": (32, 64, 56, 56), "weight": (64, 64, 3, 3), "padding": 1}
    cases = [Case("conv2d", arguments, "fwd", precision=precision) for precision in ("highest", "high")]
    rows = show_static(cases, None, "h100")
    assert [row["kernel"] for row in rows] == ["split_bf16", "tf32"]
    assert "> tf32" in capsys.readouterr().out
    assert float32_precision() == "highest"


def test_passes() -> None:
    call = Call.of("conv2d", (2, 8, 6, 6), (8, 8, 3, 3), (8,))
    expected = {
        ("fwd",): ["fprop"],
        ("dgrad",): ["dgrad"],
        ("wgrad", "dgrad"): ["dgrad", "wgrad"],
        ("bwd",): ["dgrad", "wgrad", "bgrad"],
        ("bwd", "dgrad"): ["dgrad", "wgrad", "bgrad"],
        None: ["fprop", "dgrad", "wgrad", "bgrad"],
    }
    for passes, directions in expected.items():
        rows = static_rows(call, passes, None, H100)
        assert [row.direction for row in rows] == directions
        names = {"fprop": "fwd", "dgrad": "dgrad", "wgrad": "wgrad", "bgrad": "bwd"}
        assert [row.to_dict()["pass"] for row in rows] == [names[each] for each in directions]


def test_every_kernel_that_can_run_it_has_a_row_and_one_is_preferred() -> None:
    call = conv(2, 16, 9, 9)
    rows = rows_of(call, ["fwd"], "all")
    (explained,) = gpucnn.explain("conv2d", (2, 16, 9, 9), (16, 16, 3, 3), padding=1, backend="cuda").passes[:1]
    able = {each.kernel: each for each in explained.candidates["cuda"] if each.can}
    assert [row.kernel for row in rows] == list(able)
    assert len(rows) > 2
    (preferred,) = [row.kernel for row in rows if row.is_preferred]
    assert preferred == explained.chosen("cuda")
    assert [row.kernel for row in rows_of(call, ["fwd"])] == [preferred]
    by_name = rows_of(call, None, "direct")
    assert [row.kernel for row in by_name] == ["direct", "direct", "direct"]
    assert not by_name[0].is_preferred


def test_a_configuration_can_be_asked_for() -> None:
    (row,) = rows_of(conv(2, 16, 9, 9), ["fwd"], "implicit_gemm:64x64")
    assert row.kernel == "implicit_gemm:64x64"
    assert row.configuration == "tile 64x64"


def test_a_kernel_that_one_table_has_leaves_the_others_to_the_preferred() -> None:
    rows = rows_of(Call.of("conv2d", (2, 8, 6, 6), (8, 8, 3, 3), (8,)), None, "implicit_gemm")
    assert [row.kernel for row in rows] == ["implicit_gemm", "implicit_gemm", "implicit_gemm", "columns"]


@pytest.mark.parametrize(
    ("direction", "name", "shape", "dtype"),
    [
        ("fprop", "split_bf16", (32, 64, 56, 56), "float32"),
        ("dgrad", "split_bf16_cut", (1, 512, 7, 7), "float32"),
        ("wgrad", "tensor_core", (32, 64, 28, 28), "bfloat16"),
        ("fprop", "implicit_gemm", (32, 64, 56, 56), "float32"),
    ],
)
def test_what_the_model_expects_is_what_explain_says(
    direction: str, name: str, shape: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counted, "why_not", lambda: "not wanted here")
    filters = shape[1]
    found = {
        (row.direction, row.kernel): row for row in rows_of(conv(*shape, dtype=dtype, filters=filters), None, "all")
    }
    expected = found[direction, name].expected
    assert expected is not None
    other = found[direction, "split_bf16" if name == "implicit_gemm" else name].configuration
    told = re.findall(r"([\d.]+) us", str(other))
    assert told[1 if name == "implicit_gemm" else 0] == f"{expected * 1e6:.3g}"
    assert found[direction, "direct"].expected is None


def test_in_groups_the_model_expects_what_explain_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "why_not", lambda: "not wanted here")
    (row,) = rows_of(Call.of("conv2d", (32, 128, 28, 28), (128, 4, 3, 3), groups=32), ["fwd"], "split_bf16")
    assert row.expected is not None
    assert f", {row.expected * 1e6:.3g} us expected" in str(row.configuration)


def test_what_no_kernel_can_run_is_said() -> None:
    call = Call.of("conv2d", (1, 4, 6, 6), (4, 4, 3, 3), dtype="float64")
    (row,) = rows_of(call, ["fwd"])
    assert (row.kernel, row.counts, row.taken) == ("", None, ())
    assert str(row.missing).startswith("no CUDA kernel can: needs float16 or bfloat16, got float64; needs float32, got")
    assert f"conv2d fprop  {row.missing}" in static_table([row], H100)


@pytest.mark.parametrize(
    ("passes", "kernel", "message"),
    [
        (["fdw"], None, r"no pass 'fdw', there are: fwd, dgrad, wgrad, bwd; did you mean 'fwd'\?"),
        (None, "implicit_gem", r"no kernel 'implicit_gem', there are: .*; did you mean 'implicit_gemm'\?"),
        (None, "depthwise", "kernel 'depthwise' can't run this: needs groups=C of 2 or more"),
        (["fwd"], "direct:64x64", "has no configuration '64x64'"),
    ],
)
def test_what_cannot_be_asked_for(passes: list[str] | None, kernel: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows_of(conv(2, 16, 9, 9), passes, kernel)


def test_a_pass_that_the_call_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"relu\(\(2, 3\)\) has no pass dgrad, it has: fwd, bwd"):
        rows_of(Call.of("relu", (2, 3)), ["dgrad"])


def test_without_the_flavour_that_counts_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "why_not", lambda: "the flavour is not there")
    usage = {"sm_90a": Usage(64, 4096, 0, 0), "sm_80": Usage(128, 4096, 0, 0)}
    mine = Kernel("a.cu", "mine<float>", "", ("conv2d fprop: direct",), ("float32",), 256, True, usage)
    wide = dataclasses.replace(mine, name="wide<float>", usage={"sm_90a": Usage(128, 4096, 0, 0)})
    halves = dataclasses.replace(mine, name="mine<half>", dtypes=("float16",))
    monkeypatch.setattr("gpucnn.kernels.kernels", lambda: [mine, wide, halves])
    (row,) = rows_of(conv(2, 16, 9, 9), ["fwd"], "direct")
    assert (row.counts, row.missing) == (None, "the flavour is not there")
    assert [(each.kernel, each.registers, each.blocks, each.limit) for each in row.taken] == [
        ("mine<float>", 64, 4, "registers"),
        ("wide<float>", 128, 2, "registers"),
    ]
    text = static_table([row], H100)
    assert re.search(r"conv2d fprop +direct +64-128 +4096 +2-4", text)
    assert "not counted: the flavour is not there" in text


def test_no_room_is_a_reason_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(*_: Any) -> Any:
        raise MemoryError("no room for 411 MB")

    monkeypatch.setattr(counted, "why_not", lambda: None)
    monkeypatch.setattr(Counter, "count", count)
    rows = rows_of(conv(2, 16, 9, 9), ["fwd", "dgrad"])
    assert [row.missing for row in rows] == ["no room for 411 MB"] * 2


@needs_profile
def test_registers_are_told_where_nvcc_has_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpucnn.kernels.registers", dict)
    (unknown,) = rows_of(conv(2, 16, 9, 9), ["fwd"], "direct")
    (taken,) = unknown.taken
    assert (taken.registers, taken.waves) == (None, None)
    assert f" {taken.shared}  " in static_table([unknown], H100)
    assert f"<={taken.blocks}" in static_table([unknown], H100)
    known = {(taken.file, taken.kernel, "sm_90a"): 200}
    monkeypatch.setattr("gpucnn.kernels.registers", lambda: known)
    (row,) = rows_of(conv(2, 16, 9, 9), ["fwd"], "direct")
    assert row.taken[0].registers == 200
    assert row.taken[0].limit == "registers"
    assert row.taken[0].waves == pytest.approx(row.taken[0].grid / (132 * row.taken[0].blocks))  # type: ignore[operator]
    assert re.search(rf"direct +200 +{taken.shared} +{row.taken[0].blocks} ", static_table([row], H100))


@needs_profile
def test_the_table_and_the_data_say_that_nothing_was_measured() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parent.parent / "benchmarks/results/schema.json").read_text(encoding="utf-8"))
    rows = rows_of(conv(2, 16, 9, 9), ["fwd"], "all") + rows_of(Call.of("relu", (2, 3, 4, 4)), ["fwd"])
    text = static_table(rows, H100)
    assert text.startswith("CUDA kernels on H100 SXM, static: nothing is measured\n")
    assert "not calibrated" in text
    assert text.count("pass ") == 2
    assert "conv2d((2, 16, 9, 9), (16, 16, 3, 3), padding=1), float32\n" in text
    assert re.search(r"\nconv2d fprop  > \w+ ", text)
    for row in rows:
        found = json.loads(json.dumps(row.to_dict()))
        jsonschema.validate(found, {"$ref": "#/$defs/measurement", "$defs": schema["$defs"]})
        assert found["status"] == "static: nothing is measured"
        assert found["microseconds"] is None
        assert found["pass"] == "fwd"
        assert found["device"] == "H100 SXM"
        assert found["counts"]["bound"] > 0
        assert found["taken"][0]["kernel"]


@needs_profile
def test_every_op_of_a_network_can_be_counted() -> None:
    """Of each table that a small training step asks, one row with counts."""
    calls = [
        Call.of("max_pool2d", (2, 8, 8, 8), kernel_size=2),
        Call.of("batch_norm", (2, 8, 6, 6), **{name: (8,) for name in ("running_mean", "running_var")}, training=True),
        Call.of("linear", (4, 32), (10, 32), (10,), dtype="bfloat16"),
        Call.of("cross_entropy", (4, 10), (4,)),
        Call.of(gpucnn.optim.SGD, (16, 8), lr=0.1, momentum=0.9),
    ]
    for call in calls:
        rows = rows_of(call)
        assert rows
        for row in rows:
            assert (row.op, row.direction) in TABLES
            assert row.counts is not None, row.missing
            assert row.counts.bound > 0
