"""`gpucnn kernels` and the gate that asks whether every kernel and configuration was compared by a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kernel_coverage
import pytest
from click.testing import CliRunner

import ptxas_report
from gpucnn import extension, kernels
from gpucnn.cli import main

COMPARED = [
    {
        **{"file": "template.cu", "kernel": "scale_kernel<half, true>", "configuration": "float16, aligned"},
        **{"ops": ["scale forward: grid_stride"], "dtypes": ["float16"], "threads": [128, 256], "shared": [0, 4096]},
    }
]
REPORT = [
    {
        **{"file": "template.cu", "kernel": f"scale_kernel<half, {aligned}>", "target": target},
        **{"registers": registers, "shared": 1024, "stack": 0, "spilled": 0},
    }
    for aligned in ("true", "false")
    for target, registers in (("sm_80", 40), ("sm_90a", 32))
]


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed record and a build's, of a machine without modules for the CPU."""
    for name, content in (("COMPARED", COMPARED), ("REPORT", REPORT)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        monkeypatch.setattr(kernels, name, path)
    monkeypatch.setattr(extension, "load", lambda name="_cuda": None)
    return tmp_path


# By hand, as NVIDIA's occupancy calculator has it: registers go by 256 to a warp, warps by four.
@pytest.mark.parametrize(
    ("arch", "registers", "shared", "threads", "blocks"),
    [
        ("sm_80", 32, 0, 256, 8),  # all 64 warps
        ("sm_80", 33, 0, 256, 6),  # 40 registers in fact: 51 warps, of which 48 in blocks of 8
        ("sm_80", 64, 0, 256, 4),
        ("sm_80", 255, 0, 256, 1),
        ("sm_80", 255, 0, 512, 0),  # can't be launched
        ("sm_80", 16, 0, 32, 32),  # no more blocks than that
        ("sm_80", 32, 48 << 10, 256, 3),  # 164 KiB in parts of 49
        ("sm_90a", 32, 48 << 10, 256, 4),  # 228
        ("sm_90a", 32, 227 << 10, 128, 1),
        ("sm_89", 32, 0, 256, 6),
    ],
)
def test_occupancy(arch: str, registers: int, shared: int, threads: int, blocks: int) -> None:
    assert kernels.occupancy(arch, registers, shared, threads) == (blocks, blocks * threads // 32)


def test_what_is_recorded_comes_together(records: Path) -> None:
    narrow, wide = kernels.kernels()
    assert (narrow.name, narrow.compared, narrow.threads) == ("scale_kernel<half, false>", False, None)
    assert narrow.usage["sm_80"].blocks is None
    assert (wide.name, wide.compared, wide.threads) == ("scale_kernel<half, true>", True, 256)
    assert wide.usage["sm_80"] == kernels.Usage(40, 5120, 0, 0, 6, 48, 0.75)
    assert wide.usage["sm_90a"].occupancy == 1


def test_without_nvcc_the_modules_for_the_cpu_name_the_kernels(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (records / "REPORT.json").unlink()
    assert [kernel.name for kernel in kernels.kernels()] == ["scale_kernel<half, true>"]  # the committed record's

    class Module:
        @staticmethod
        def kernels() -> list[tuple[str, str]]:
            return [("a.cu", "a_kernel"), ("template.cu", "scale_kernel<half, true>")]

    monkeypatch.setattr(extension, "load", lambda name="_cuda": Module if name == "_simt_race" else None)
    assert [(kernel.name, kernel.compared) for kernel in kernels.kernels()] == [
        ("a_kernel", False),
        ("scale_kernel<half, true>", True),
    ]
    shown = CliRunner().invoke(main, ["kernels"])
    assert shown.exit_code == 0
    assert "2 of 2 kernels; 1 of these compared by tests" in shown.output
    assert "registers and occupancy are not known: no kernel was compiled by nvcc here" in shown.output


def test_the_command(records: Path) -> None:
    shown = CliRunner().invoke(main, ["kernels", "float16, aligned"])
    assert shown.exit_code == 0
    header, _, line, *rest = shown.output.splitlines()
    assert header.split()[-3:] == ["warps", "sm_90a", "compared"]
    assert line.split() == [
        *("template.cu", "scale_kernel", "float16,", "aligned", "scale", "forward:", "grid_stride", "float16", "256"),
        *("40", "5120", "6", "48", "32", "5120", "8", "64", "yes"),
    ]
    assert rest[-1] == "1 of 2 kernels; 1 of these compared by tests"
    data = json.loads(CliRunner().invoke(main, ["kernels", "--json"]).output)
    assert data["architectures"] == ["sm_80", "sm_90a"]
    assert [kernel["compared"] for kernel in data["kernels"]] == [False, True]
    assert data["kernels"][1]["usage"]["sm_90a"]["warps"] == 64


def test_a_damaged_record_is_named(records: Path) -> None:
    (records / "COMPARED.json").write_text("[{")
    with pytest.raises(RuntimeError, match=r"COMPARED\.json is damaged"):
        kernels.kernels()


# --------------------------------------------------------------------------------- tools/kernel_coverage.py


@pytest.fixture
def run_of_tests(records: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = records / "run.json"
    monkeypatch.setattr(kernel_coverage, "RUN", path)
    monkeypatch.setattr(kernel_coverage, "FIXED_RUN", records / "fixed.json")
    return path


def entry(kernel: str, **fields: Any) -> dict[str, Any]:
    lists: dict[str, Any] = {"threads": [256], "shared": [0], "ops": [], "dtypes": []}
    return {"file": "template.cu", "kernel": kernel, **lists, "comparisons": {}, **fields}


def test_a_kernel_that_no_test_compared_is_named(run_of_tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernel_coverage.main([]) == 2
    run_of_tests.write_text(json.dumps([entry("scale_kernel<half, true>")]))
    assert kernel_coverage.main([]) == 1
    out = capsys.readouterr().out
    assert "no test ran and compared template.cu: scale_kernel<half, false>\n" in out
    assert "2 kernels and configurations, 1 of them run and compared by the tests" in out


def test_a_record_that_is_not_up_to_date_is_named_and_written(
    run_of_tests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ops = ["scale forward: grid_stride"]
    run_of_tests.write_text(
        json.dumps(
            [entry("scale_kernel<half, true>", ops=ops), entry("scale_kernel<half, false>"), entry("gone_kernel")]
        )
    )
    assert kernel_coverage.main([]) == 1
    assert "kernels_compared.json" not in capsys.readouterr().out.replace("COMPARED.json is not up to date", "")
    assert kernel_coverage.main(["--write"]) == 0
    assert kernel_coverage.main([]) == 0
    narrow, wide = json.loads(kernels.COMPARED.read_text())
    assert narrow == {**wide, "kernel": "scale_kernel<half, false>", "configuration": "float16, not aligned"}
    assert wide["configuration"] == "float16, aligned"
    assert wide["ops"] == ops
    assert wide["dtypes"] == ["float16"]


def test_a_kernel_that_only_sampled_cases_compare_is_named(
    run_of_tests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kernel_coverage.main(["--fixed"]) == 2
    fixed = run_of_tests.with_name("fixed.json")
    fixed.write_text(json.dumps([entry("scale_kernel<half, true>")]))
    assert kernel_coverage.main(["--fixed"]) == 1
    assert "no fixed case compares template.cu: scale_kernel<half, false>\n" in capsys.readouterr().out
    fixed.write_text(json.dumps([entry("scale_kernel<half, true>"), entry("scale_kernel<half, false>")]))
    assert kernel_coverage.main(["--fixed"]) == 0


def test_comparisons_are_counted_by_op_and_pass() -> None:
    """Launches by the binding alone count for each op that a kernel of that name serves."""
    entries = [
        entry("a_kernel<1>", ops=["x forward: p", "y forward: q"], comparisons={"x forward: p": 3, "y forward: q": 4}),
        entry("a_kernel<2>", comparisons={"": 5}),
        entry("b_kernel", ops=["x forward: r"], comparisons={"x forward: r": 1, "": 2}),
        entry("gone_kernel", ops=["z forward: s"], comparisons={"z forward: s": 9}),
    ]
    run = {(each["file"], each["kernel"]): each for each in entries}
    found = kernel_coverage.counted([key for key in run if key[1] != "gone_kernel"], run)
    assert {
        label: (each.kernels, len(each.configurations), each.comparisons, each.by_binding)
        for label, each in found.items()
    } == {"x forward": ({"p", "r"}, 3, 4, 7), "y forward": ({"q"}, 2, 4, 5)}
    assert kernel_coverage.table_of(found).splitlines()[2].split() == ["x", "forward", "p,", "r", "3", "4", "7"]


def test_configurations_in_words() -> None:
    names = kernel_coverage.parameters(kernel_coverage.ROOT / "csrc")
    assert names["scale_kernel"] == ["T", "kAligned"]
    words = kernel_coverage.in_words
    assert words("a_kernel<float, Shape<128, 64, 8>, false>", ["T", "Shape", "kWide"]) == (
        "float32, shape Shape<128, 64, 8>, not wide"
    )
    assert words("a_kernel<Relu, half, 2>", ["F", "T", "kInputs"]) == "Relu, float16, inputs 2"
    assert words("a_kernel<unsigned char, 4>", ["Winner", "kTapsAtOnce"]) == "winner uint8, taps at once 4"
    assert words("a_kernel", []) == ""


def test_the_committed_record_is_of_kernels_that_there_are() -> None:
    """What is missing in it is for CI to say, after a run of all tests."""
    committed = json.loads(kernels.COMPARED.read_text())
    assert len({(entry["file"], entry["kernel"]) for entry in committed}) == len(committed)
    sources = {path.name for path in (kernel_coverage.ROOT / "csrc").rglob("*.cu")}
    assert {entry["file"] for entry in committed} <= sources


def test_ptxas_names_kernels_as_the_modules_for_the_cpu_do() -> None:
    unnamed = "50_GLOBAL__N__c86239b6_11_template_cu_d5492838_16489"
    symbols = {
        f"_ZN6gpucnn{unnamed}12scale_kernelI13__nv_bfloat16Lb0EEEvPKT_PS3_fl": "scale_kernel<bfloat16, false>",
        f"_ZN6gpucnn4gemm{unnamed}8a_kernelI6__halfNS0_5ShapeILi128ELi64EEEEEvPKT_": "a_kernel<half, Shape<128, 64> >",
        f"_ZN6gpucnn{unnamed}10sum_kernelEPKfPf": "sum_kernel",
    }
    assert ptxas_report.kernel_names(list(symbols)) == list(symbols.values())
    assert ptxas_report.kernel_names([]) == []
