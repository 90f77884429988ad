"""The SIMT layer under nvcc: every name compiles for the device, and every instruction is the one that was meant."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from simt_runtime import ROOT

from cuda_toolkit import find_toolkit

EMITTED = [
    r"cp\.async\.ca\.shared\.global \[%r\d+\], \[%rd\d+\], 4, %r\d+;",
    r"cp\.async\.ca\.shared\.global \[%r\d+\], \[%rd\d+\], 8, %r\d+;",
    r"cp\.async\.cg\.shared\.global \[%r\d+\], \[%rd\d+\], 16, %r\d+;",
    r"cp\.async\.commit_group;",
    r"cp\.async\.wait_group 1;",
    r"cp\.async\.wait_all;",
    *(rf"ldmatrix\.sync\.aligned\.m8n8\.x{n}{t}\.shared\.b16 \{{" for n in (1, 2, 4) for t in ("", r"\.trans")),
    r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32",
    r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.f16\.f16\.f32",
    r"mma\.sync\.aligned\.m16n8k8\.row\.col\.f32\.tf32\.tf32\.f32",
    r"redux\.sync\.add\.s32",
    r"vote\.sync\.ballot",
    *(rf"shfl\.sync\.{mode}\.b32" for mode in ("idx", "up", "down", "bfly")),
    r"cvt\.rn\.bf16\.f32",
    r"cvt\.rn\.f16\.f32",
    r"ld\.global\.(nc\.)?v4\.[fb]32",
    r"st\.global\.v4\.[fb]32",
]


@pytest.fixture(scope="module", params=["sm_80", "sm_90a"])
def ptx(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    toolkit = find_toolkit(os.environ, sys.path).toolkit
    if toolkit is None:
        pytest.skip("no nvcc, which the PTX comes from")
    folder: Path = tmp_path_factory.mktemp("ptx")
    common = [str(toolkit.nvcc), "-std=c++17", f"-arch={request.param}", "-Icsrc", "tests/simt/runtime/device.cu"]
    for output in (["-ptx", "-o", str(folder / "device.ptx")], ["-c", "-o", str(folder / "device.o")]):
        done = subprocess.run([*common, *output], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr, done.stderr
    return (folder / "device.ptx").read_text(encoding="utf-8")


def test_nvcc_emits_the_instructions(ptx: str) -> None:
    lines = re.sub(r"[\t ]+", " ", ptx)
    assert [pattern for pattern in EMITTED if not re.search(pattern, lines)] == []


def body(ptx: str, kernel: str) -> str:
    """The kernel's instructions."""
    found = re.search(rf"\.entry {kernel}\(.*?\n\}}", ptx, re.DOTALL)
    assert found is not None, kernel
    return found[0]


def test_what_is_made_of_a_number_anew_is_computed_again(ptx: str) -> None:
    """By no instruction of its own."""
    assert len(re.findall(r"\bdiv\.u32\b", body(ptx, "quotient_kept"))) == 1
    anew = body(ptx, "quotient_anew")
    assert len(re.findall(r"\bdiv\.u32\b", anew)) == 2
    assembly = re.findall(r"// begin inline asm(.*?)// end inline asm", anew, re.DOTALL)
    assert [text.strip() for text in assembly] == [""]


@pytest.mark.parametrize("words", [2, 4])
def test_a_word_is_one_store(ptx: str, words: int) -> None:
    (store,) = re.findall(r"\bst\.[\w.]+", body(ptx, f"store_{words}"))
    assert f".v{words}." in store
    assert ".global" in store


def test_a_wide_store_stays_whole_beside_single_ones_of_the_same(ptx: str) -> None:
    stores = re.findall(r"\bst\.[\w.]+", body(ptx, "store_beside"))
    assert sorted(".v4." in store for store in stores) == [False] * 4 + [True]
