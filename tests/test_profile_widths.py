"""What the profiler counts is what nvcc compiles: accesses by source line, in the calls that budgets are measured on
and in the PTX of the CUDA extension's build."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import machine_code
import pytest
from profile_budgets import calls, measure
from ptx_widths import Line, Lines, Width, drifted, objects, read_ptx, widths

from gpucnn import extension
from gpucnn.profile import Access, Launch

needs_profile = pytest.mark.skipif(
    extension.load("_simt_profile") is None, reason=str(extension.why_missing("_simt_profile"))
)

Seen = dict[Line, set[Width]]

DIFFERING: dict[str, str] = {}
"""Lines of sources where the two differ and are left so, with the reason."""


@functools.cache
def built() -> dict[str, list[Path]]:
    """Objects by source; skips with the reason where they can't be read."""
    found = objects()
    if not found:
        pytest.skip("no CUDA extension was built here from these sources: GPUCNN_CUDA=1 pip install -e .")
    try:
        machine_code.programs("cuobjdump")
    except RuntimeError as error:
        pytest.skip(str(error))
    return found


def seen_widths(launch: Launch) -> Seen:
    """What a launch did, in the words of PTX."""
    found: Seen = {}

    def add(line: Line, width: Width) -> None:
        found.setdefault(line, set()).add(width)

    for access in launch.accesses:
        for width in in_words_of_ptx(access):
            add(access.line, width)
    for name, line in launch.operations:
        if name.startswith("mma_"):
            add(line, ("", name, 0))
    return found


def in_words_of_ptx(access: Access) -> list[Width]:
    if access.purpose == "cp.async store":
        return []  # the other half of the instruction
    if access.purpose == "cp.async load":
        return [("global", "copy", access.bytes)]
    if access.purpose == "ldmatrix":
        return [("shared", "ldmatrix", access.bytes)]
    spaces = [("global", access.requests), ("shared", access.shared_requests)]
    return [(space, access.purpose, access.bytes) for space, requests in spaces if requests]


@functools.cache
def seen() -> dict[str, dict[str, Seen]]:
    """By source and kernel, over all the calls that budgets are measured on."""
    found: dict[str, dict[str, Seen]] = {}
    for case, dtype in calls():
        for launch in [launch for run in measure(case, dtype) for launch in run.launches]:
            lines = found.setdefault(launch.file, {}).setdefault(launch.kernel, {})
            for line, several in seen_widths(launch).items():
                lines.setdefault(line, set()).update(several)
    return found


@needs_profile
def test_accesses_are_as_wide_as_in_machine_code() -> None:
    objects_here = built()
    found: set[str] = set()
    for source, kernels in seen().items():
        code = {
            kernel: lines for path in objects_here.get(source, []) for kernel, lines in widths(read_ptx(path)).items()
        }
        assert set(kernels) <= set(code), f"{source} has changed since the CUDA extension was built"
        found |= {text for kernel, lines in kernels.items() for text in drifted(lines, code[kernel])}
    known = {text for text in found if source_of(text) in DIFFERING}
    assert found == known, "\n".join(sorted(found - known))
    not_needed = set(DIFFERING) - {source_of(text) for text in found}
    assert not not_needed, f"these agree, take them out of DIFFERING: {not_needed}"


def source_of(text: str) -> str:
    """The line that a text of `drifted` begins with."""
    file, number, _ = text.split(":", 2)
    return (machine_code.ROOT / file).read_text(encoding="utf-8").splitlines()[int(number) - 1].strip()


PTX = """
.file 1 "{root}/csrc/conv2d/x.cu"
.file 2 "{root}/csrc/simt/cuda.h"
.file 3 "/usr/local/cuda/include/cuda_fp16.hpp"
.visible .entry _Z8x_kernelIfEvPf(
 .param .u64 _Z8x_kernelIfEvPf_param_0
)
{{
 .loc 1 10 3
 ld.param.u64 %rd1, [_Z8x_kernelIfEvPf_param_0];
 .loc 2 70 10, function_name $L__info_string0, inlined_at 1 12 5
 ld.global.nc.v4.f32 {{%f1, %f2, %f3, %f4}}, [%rd1];
 .loc 3 99 10, function_name $L__info_string1, inlined_at 2 71 9
 .loc 2 71 9, function_name $L__info_string0, inlined_at 1 13 5
 @%p1 st.global.u16 [%rd1], %rs1;
 .loc 1 20 3
 ld.shared.v2.f32 {{%f1, %f2}}, [%r1];
 ld.f32 %f1, [%rd2];
 atom.global.add.u32 %r1, [%rd1], 1;
 .loc 2 80 10, function_name $L__info_string0, inlined_at 1 30 5
 cp.async.cg.shared.global [%r1], [%rd1], 16, %r2;
 cp.async.commit_group;
 ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r1, %r2, %r3, %r4}}, [%r5];
 mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {{%f1}}, {{%r1}}, {{%r2}}, {{%f1}};
 mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {{%f1}}, {{%r1}}, {{%r2}}, {{%f1}};
}}
"""
X = "csrc/conv2d/x.cu"


def of_text(change: tuple[str, str] = ("", "")) -> Lines:
    text = PTX.format(root=machine_code.ROOT)
    assert change[0] in text
    ((name, code),) = widths(text.replace(*change)).items()
    assert name == "x_kernel<float>"
    return code


SEEN: Seen = {
    (X, 12): {("global", "load", 16)},
    (X, 13): {("global", "store", 2)},
    (X, 20): {("shared", "load", 8), ("global", "load", 4), ("global", "atomic", 4)},
    (X, 31): {("global", "copy", 16), ("shared", "ldmatrix", 16), ("", "mma_m16n8k16_bf16", 0)},
}


def test_ptx_is_read() -> None:
    assert {line: set(counts) for line, counts in of_text().items()} == {
        (X, 12): {("global", "load", 16)},
        (X, 13): {("global", "store", 2)},
        (X, 20): {("shared", "load", 8), ("generic", "load", 4), ("global", "atomic", 4)},
        (X, 30): {
            *(("global", "copy", 16), ("shared", "ldmatrix", 16)),
            *(("", "mma_m16n8k16_bf16", 0), ("", "mma_m16n8k8_tf32", 0)),
        },
    }


def test_a_profile_that_agrees_with_the_machine_code() -> None:
    assert list(drifted(SEEN, of_text())) == []


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (
            ("ld.global.nc.v4.f32", "ld.global.nc.f32"),  # narrowed
            [f"{X}:12: the profile saw a global load of 16 bytes, the PTX has 4"],
        ),
        (
            ("ld.shared.v2.f32 {%f1, %f2}, [%r1]", "ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r1]"),  # merged
            [
                f"{X}:20: the profile saw a shared load of 8 bytes, the PTX has 4 and 16",
                f"{X}:20: the PTX has a shared load of 16 bytes, the profile saw 8",
            ],
        ),
        (
            ("ld.f32 %f1, [%rd2];", "ld.shared.v4.f32 {%f1}, [%r1];"),  # another way beside it, that no call took
            [f"{X}:20: the profile saw a global load of 4 bytes, the PTX has none"],
        ),
        (("[%rd1], 16, %r2", "[%rd1], 8, %r2"), [f"{X}:31: the profile saw a global copy of 16 bytes, the PTX has 8"]),
        (("ldmatrix.", "//"), [f"{X}:31: the profile saw a shared ldmatrix of 16 bytes, the PTX has none"]),
        (
            ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16", "//"),
            [f"{X}:31: the profile saw a mma_m16n8k16_bf16 of 0 bytes, the PTX has none"],
        ),
        ((" 1 12 5", " 1 5 5"), []),  # nothing of the kind is near: it may be elsewhere in the kernel
        (
            ("ld.param.u64 %rd1, [_Z8x_kernelIfEvPf_param_0];", "ld.global.nc.f32 %f1, [%rd1];"),
            [],  # what the code has and no call came to
        ),
    ],
    ids=["narrowed", "merged", "another way", "cp.async", "ldmatrix", "mma", "another line", "not run"],
)
def test_what_differs_is_told_by_its_line(change: tuple[str, str], texts: list[str]) -> None:
    assert list(drifted(SEEN, of_text(change))) == texts


def test_objects_that_are_out_of_date_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.cu").write_text("old")
    digest = hashlib.sha256(b"old").hexdigest()
    built_here = tmp_path / "build/cpython/csrc/conv2d"
    built_here.mkdir(parents=True)
    (built_here / "x.cu.o").touch()
    (built_here / "y.cu.o").touch()  # whose compiler was interrupted
    (built_here / "x.cu.o.json").write_text(json.dumps({"inputs": {"x.cu": digest}}))
    assert objects(tmp_path / "build", tmp_path) == {"x.cu": [built_here / "x.cu.o"]}
    (tmp_path / "x.cu").write_text("new")
    assert objects(tmp_path / "build", tmp_path) == {}
