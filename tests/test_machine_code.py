"""The gate on machine code: what it reads in a disassembly, and that it fails where it should."""

from __future__ import annotations

import json
from pathlib import Path

import machine_code
import pytest
from machine_code import Code, parse, wrong

SASS = """
Fatbin elf code:
================
arch = sm_90a
identifier = csrc/_template/template.cu

\tcode for sm_90a
\t\tFunction : _ZN6gpucnn12scale_kernelIfLb1EEEvPKT_PS1_fl
\t.headerflags\t@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                    /* 0x00000a00ff017b82 */
                                                                             /* 0x000fe20000000800 */
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;          /* 0x0000010005027825 */
        /*0020*/              @!P0 LDG.E.64.CONSTANT R4, desc[UR4][R2.64] ;  /* 0x0000010005027825 */
        /*0030*/              @P1  LDG.E.U16 R4, desc[UR4][R2.64] ;          /* 0x0000010005027825 */
        /*0040*/                   LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64] ;
        /*0050*/                   LDGDEPBAR ;
        /*0060*/                   STG.E desc[UR4][R2.64], R9 ;              /* 0x0000010005027825 */
        /*0070*/              @UP0 STG.E.U8 desc[UR4][R2.64], R9 ;
\t\tFunction : _ZN6gpucnn12scale_kernelIfLb0EEEvPKT_PS1_fl
        /*0000*/                   STL.64 [R1], R2 ;
        /*0010*/             @!PT  LDL R2, [R1+0x4] ;
        /*0020*/                   RED.E.ADD.STRONG.GPU desc[UR4][R2.64], R5 ;
        /*0030*/                   RED.E.ADD.F32.FTZ.RN.STRONG.GPU desc[UR4][R2.64], R5 ;
        /*0040*/             @P0   ATOMG.E.ADD.F16x2.RN.STRONG.GPU PT, R2, desc[UR4][R2.64], R5 ;
        /*0020*/                   STG.E.128 desc[UR4][R2.64], R8 ;
"""


def test_a_disassembly_is_read() -> None:
    wide, local = parse(SASS.splitlines())
    assert (wide.file, wide.symbol) == ("template.cu", "_ZN6gpucnn12scale_kernelIfLb1EEEvPKT_PS1_fl")
    assert wide.local == 0
    assert wide.loads == {16: 2, 8: 1, 2: 1}
    assert wide.stores == {4: 1, 1: 1}
    assert (local.local, local.float_atomics, local.stores) == (2, 2, {16: 1})


def test_what_is_wrong_is_said() -> None:
    wide, local = parse(SASS.splitlines())
    promised = {"template.cu": {"a_kernel<float, true>": [16, 16], "a_kernel<float, false>": [4, 4]}}
    assert list(wrong("a_kernel<float, true>", wide, promised)) == ["its widest store has 4 bytes, 16 are promised"]
    assert list(wrong("a_kernel<float, false>", wide, promised)) == []
    assert list(wrong("a_kernel<float, true>", local, promised)) == [
        "2 accesses to local memory",
        "2 floating-point atomics",
        "its widest load has 0 bytes, 16 are promised",
    ]
    (unknown,) = wrong("b_kernel", wide, promised)
    assert unknown.startswith("access_widths.json does not say how wide its accesses are")


LOOP = """
\t\tFunction : tensor
        /*0000*/               @P0 BRA 0x40 ;                                /* 0x0000000000900947 */
        /*0010*/                   LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64], P1 ;
        /*0020*/                   {body} R64, R72.reuse, R68, R64 ;         /* 0x000000444840723c */
        /*0030*/              @!P1 BRA P2, 0x10 ;                            /* 0xfffffffc00b49947 */
        /*0040*/                   HMMA.16816.F32.BF16 R64, R72, R68, R64 ;  /* 0x000000444840723c */
        /*0050*/                   BRA 0x50 ;
"""


def test_products_on_tensor_cores_are_in_a_loop() -> None:
    name, promised = "fprop_kernel<Of<half>, half>", {"": {"fprop_kernel<Of<half>, half>": [16, 0]}}
    (good,) = parse(LOOP.replace("{body}", "HMMA.16816.F32.BF16").splitlines())
    assert good.loop == {"LDGSTS": 1, "HMMA": 1, "BRA": 1}
    assert list(wrong(name, good, promised)) == []
    (bad,) = parse(LOOP.replace("{body}", "FFMA").splitlines())
    assert list(wrong(name, bad, promised)) == ["no loop has a matrix instruction"]
    assert list(wrong("relu_kernel<half>", bad, {"": {"relu_kernel<half>": [16, 0]}})) == []


def test_widths_are_promised_for_kernels_that_there_are() -> None:
    """For which of them is for the gate to say, which has the machine code."""
    sources = {path.name for path in (machine_code.ROOT / "csrc").rglob("*.cu")}
    promised = json.loads(machine_code.WIDTHS.read_text(encoding="utf-8"))
    assert set(promised) <= sources
    assert promised["template.cu"]["scale_kernel<half, true>"] == [16, 16]
    assert promised["template.cu"]["scale_kernel<half, false>"] == [2, 2]


def test_the_gate_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = tmp_path / "_cuda.so"
    module.write_bytes(bytes(2000))
    monkeypatch.setattr(machine_code, "WIDTHS", tmp_path / "widths.json")
    (tmp_path / "widths.json").write_text('{"template.cu": {"scale_kernel<float, true>": [16, 16]}}')
    monkeypatch.setattr(machine_code, "disassemble", lambda module, arch: parse(SASS.splitlines()))
    monkeypatch.setattr(machine_code, "kernel_names", lambda symbols: ["scale_kernel<float, true>"] * len(symbols))
    assert machine_code.main([str(module)]) == 1
    assert "sm_80 template.cu: scale_kernel<float, true>: 2 accesses to local memory" in capsys.readouterr().out
    good = Code("", "template.cu")
    good.loads[16] = good.stores[16] = 1
    monkeypatch.setattr(machine_code, "disassemble", lambda module, arch: [good, good])
    assert machine_code.main([str(module)]) == 0
    good.stores[8] = 1
    del good.stores[16]
    assert machine_code.main([str(module)]) == 1
    assert machine_code.main(["--write", str(module)]) == 0
    assert json.loads((tmp_path / "widths.json").read_text()) == {"template.cu": {"scale_kernel<float, true>": [16, 8]}}
    monkeypatch.setattr(machine_code, "MOST_BYTES", 999)
    assert machine_code.main([str(module)]) == 1
    assert "_cuda.so takes 2,000 bytes, more than 1,998" in capsys.readouterr().out
    monkeypatch.setattr(machine_code, "disassemble", lambda module, arch: [])
    assert machine_code.main([str(module)]) == 1
    assert "holds no machine code for sm_90a" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(machine_code.shutil, "which", lambda name, path=None: None)
    assert machine_code.main([str(module)]) == 2
    assert "pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm" in capsys.readouterr().err
