"""What a kernel does wrong on the SIMT layer: a Fault that says where, after which everything works as before."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simt_runtime
from simt_runtime import Fault, call, case_names, marked_lines, set_order

ORDERS = ("fwd", "rev", "rand:1", "prio:1")

# What each case's Fault has to say, besides the kernel, the block and every line that is marked "@case".
SAYS = {
    "divergent_barrier": r"divergent barrier: thread \d+ comes to __syncthreads\(\) at .* while threads? [\d, -]+ wait",
    "early_return": r"returned from the kernel",
    "late_barrier": r"thread 127 (waits|returned|comes).*returned|returned.*thread 127 waits",
    "early_return_in_warp": r"returned from the kernel",
    "return_while_awaited": r"returned from the kernel",
    "own_lane_missing": r"wrong mask: thread 3 comes to __syncwarp\(\) at .* mask 0xfffffff7, which lacks its own lane",
    "mask_too_narrow": r"wrong mask: lane 4 .* shuffles from lane 8 .* not among the lanes 0x000000ff",
    "overlapping_masks": r"masks that overlap and differ: .*0x0001ffff",
    "different_operations": r"lanes of a warp in different operations: .*__a(ny|ll)_sync.*__a(ny|ll)_sync",
    "different_lines": r"lanes of a warp in different operations: .*__shfl_xor_sync.*__shfl_xor_sync",
    "width": r"thread \d+ comes to __shfl_sync\(\) at .* with width 12, which is no power of two in \[1, 32\]",
    "deadlock": r"deadlock, no thread can go on: .*__syncthreads\(\).*__syncwarp\(\).* for lanes 0xffffffff",
    "misaligned_load": r"misaligned access: thread \d+: vload .* 16 divides.* 4 bytes beyond",
    "misaligned_store": r"misaligned access: thread \d+: vstore .* 8 divides.* 4 bytes beyond",
    "misaligned_global_store": r"misaligned access: thread \d+: vstore .* 16 divides.* 8 bytes beyond",
    "misaligned_guarded_load": r"misaligned access: thread \d+: load_if .* 16 divides.* 8 bytes beyond",
    "misaligned_copy_to": r"misaligned access: thread 0: cp_async .* 16 divides.* 8 bytes beyond",
    "misaligned_copy_from": r"misaligned access: thread 0: cp_async .* 8 divides.* 4 bytes beyond",
    "copy_to_global": r"cp_async .* 4 bytes that are not inside an array of shared memory",
    "copy_from_shared": r"cp_async .* reads shared memory",
    "copy_past_the_end": r"cp_async .* 16 bytes that are not inside an array of shared memory",
    "misaligned_rows": r"misaligned access: thread \d+: ldmatrix_x2 .* 16 divides",
    "rows_in_global": r"ldmatrix_x1_trans .* 16 bytes that are not inside an array of shared memory",
    "half_a_warp_multiplies": r"mma_m16n8k16_bf16",
    "written_past_the_end": r"shared memory was written 0 bytes past the end of 'tile'",
    "written_before_the_start": r"shared memory was written 4 bytes before the start of 'tile'",
    "written_past_dynamic": r"shared memory was written 0 bytes past the end of dynamic shared memory",
    "no_dynamic_memory": r"dynamic shared memory is used and the launch gives none",
    "too_much_static": r"'too_much' .* has 49156 bytes of static and 0 of dynamic shared memory: 48 KiB may",
    "too_much_together": r"has 4096 bytes of static and 229376 of dynamic shared memory: 227 KiB are all there is",
    "stack_overflow": r"stack overflow: thread \d+ has more .* than 256 KiB at .*faults\.cu:\d+$",
    "null": r"memory fault: thread 9 touches null or an impossible address",
    "wild": r"memory fault: thread 9 touches address 0x[0-9a-f]{8,}",
    "trap": r"thread 9 comes to a trap",
    "zero_division": r"thread 9 divides an integer by zero",
}


@pytest.fixture(autouse=True)
def _library() -> Iterator[None]:
    simt_runtime.library()
    yield
    set_order("")


def results() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """128 floats, aligned to 16 bytes."""
    raw = np.full(132, np.nan, np.float32)
    return raw[(-raw.ctypes.data // 4) % 4 :][:128]


def check_all_is_well() -> None:
    found = results()
    call("run_case", "nothing", found)
    np.testing.assert_array_equal(found, np.arange(128)[::-1])


def test_every_case_is_expected_here() -> None:
    assert set(case_names()) - {"nothing"} == set(SAYS) - (
        set() if "zero_division" in case_names() else {"zero_division"}
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", SAYS)
def test_faults_say_where(case: str, order: str) -> None:
    if case not in case_names():
        pytest.skip("this processor does not signal it")
    set_order(order)
    check_all_is_well()
    with pytest.raises(Fault) as caught:
        call("run_case", case, results())
    text = str(caught.value)
    assert re.match(r"simt: kernel \S+, block \([01], 0, 0\): ", text), text
    assert re.search(SAYS[case], text), text
    for line in marked_lines(case):
        assert line in text, text
    check_all_is_well()


def test_most_cases_are_marked() -> None:
    unmarked = {case for case in case_names() if not marked_lines(case)}
    assert unmarked == {"nothing", "written_past_dynamic", "no_dynamic_memory", "stack_overflow"}


def test_kernels_are_called_by_their_own_names() -> None:
    with pytest.raises(Fault, match=r"simt: kernel named_kernel<3, float>, block \(0, 0, 0\): "):
        call("run_named", 0, (64, 1, 1))
    with pytest.raises(Fault, match=r"simt: kernel hidden_kernel, block \(0, 0, 0\): "):
        call("run_named", 1, (64, 1, 1))


def test_threads_of_several_dimensions_are_named_by_them() -> None:
    set_order("fwd")
    with pytest.raises(Fault, match=r"thread \(1, 0, 0\) returned .* thread \(0, 0, 0\) waits in __syncthreads"):
        call("run_named", 0, (2, 3, 4))
    with pytest.raises(Fault, match=r"thread 1 returned .* thread 0 waits in __syncthreads"):
        call("run_named", 0, (24, 1, 1))


def test_without_addr2line_names_are_missing_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Fault, match=r"simt: kernel \(of unknown name\), block .*: divergent barrier.*faults\.cu:\d+"):
        call("run_case", "divergent_barrier", results())
    with pytest.raises(Fault, match=r"memory fault: thread 9 touches address 0x[0-9a-f]+ at an unknown line"):
        call("run_case", "wild", results())
    check_all_is_well()


def test_faults_leave_nothing_behind() -> None:
    """Abandoned fibers, their stacks and copies under way are used again."""

    def resident_bytes() -> int:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def fail(times: int) -> None:
        for _ in range(times):
            for case in ("deadlock", "stack_overflow", "misaligned_copy_to"):
                with pytest.raises(Fault):
                    call("run_case", case, results())

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc here to ask for the memory in use")
    fail(5)
    before, files = resident_bytes(), len(os.listdir("/proc/self/fd"))
    fail(40)
    assert resident_bytes() - before < 1 << 20
    assert len(os.listdir("/proc/self/fd")) == files


SIGNALS = """
import ctypes, faulthandler, os, signal
import numpy as np
{before}
library = ctypes.CDLL({library!r})
library.run_case.restype = ctypes.c_char_p
results = np.zeros(128, np.float32)
fault = library.run_case(b"wild", ctypes.c_void_p(results.ctypes.data))
assert b"memory fault" in fault, fault
print("still here", flush=True)
{last}
"""


@pytest.mark.parametrize(
    "last", ["os.kill(os.getpid(), signal.SIGSEGV)", "ctypes.string_at(16)"], ids=["sent", "of our own"]
)
@pytest.mark.parametrize("before", ["faulthandler.enable()", ""], ids=["handled", "default"])
def test_signals_outside_kernels_are_nobodys_but_the_processs(before: str, last: str) -> None:
    """After a Fault that a signal led to, who handled signals before does so again."""
    script = SIGNALS.format(library=simt_runtime.library()._name, before=before, last=last)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "still here\n", done.stderr
    assert done.returncode == -11
    assert ("Fatal Python error: Segmentation fault" in done.stderr) == bool(before)
