"""The checkers of the SIMT layer, checked: every planted bug is reported with its lines, and no correct kernel is.

The bugs are in tests/simt/planted_*.cu, one case each; the table below says who is meant to catch it. "runtime" is the
layer itself, in every flavour; "race" the race checker; "asan" AddressSanitizer with UndefinedBehaviorSanitizer, in a
child process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from simt_checks import CASES, HERE, RACE_CASES, ROOT, Answer, names_line, place, run_cases

from gpucnn.testing import rotating_seed

ORDERS = ("fwd", "rev", f"rand:{rotating_seed()}", f"prio:{rotating_seed()}")
CATCHERS = {"runtime": ("plain", "race", "asan"), "race": ("race",), "asan": ("asan",), "result": ("plain",)}


@dataclass(frozen=True)
class Bug:
    """`case` is caught by `by`, whose text holds `text` and names the lines with these marks."""

    case: str
    by: str
    text: str
    marks: tuple[str, ...]


def race(case: str, *marks: str, text: str = "data race in") -> Bug:
    return Bug(case, "race", text, marks)


BUGS = [
    # Two threads and nothing between them: a missing barrier of each kind.
    race("barrier_missing_before_read", "before_read.write", "before_read.read"),
    race("barrier_missing_after_read", "after_read.write", "after_read.read"),
    race("barrier_missing_in_double_buffer", "double_buffer.write", "double_buffer.read"),
    race("syncwarp_missing", "syncwarp.write", "syncwarp.read"),
    race("shuffle_taken_for_syncwarp", "syncwarp.write", "syncwarp.read"),
    race("read_between_two_writes", "pair.first", "pair.read"),
    race("read_between_two_writes", "pair.read", "pair.second"),
    race("syncwarp_with_half_a_mask", "half_mask.write", "half_mask.read"),
    race("syncwarp_with_half_a_mask_after_read", "half_mask_after.write", "half_mask_after.read"),
    race("syncwarp_taken_for_barrier", "other_warp.write", "other_warp.read"),
    # Between blocks.
    race("two_blocks_write_one_address", "two_blocks"),
    race("two_blocks_write_the_same_value", "same_value"),
    race("block_reads_what_another_writes", "neighbour.read", "neighbour.write"),
    # Atomics with plain accesses; accesses of different widths.
    race("atomic_and_plain_read_by_first", "atomic.change", "atomic.read"),
    race("atomic_and_plain_read_by_last", "atomic.change", "atomic.read"),
    race("atomic_and_plain_write_in_shared", "atomic_shared.change", "atomic_shared.write"),
    race("byte_store_in_a_wide_one", "widths.byte", "widths.wide"),
    race("memcpy_over_a_store", "memcpy.write", "memcpy.copy"),
    # Copies that are not there yet.
    race("cp_async_wait_too_weak", "wait.copy", "wait.read", text="cp.async not waited for in copy_in_stages<2>"),
    Bug("cp_async_wait_too_weak", "result", "wrong", ()),
    race("cp_async_not_committed", "uncommitted.copy", "uncommitted.read", text="cp.async not waited for"),
    Bug("cp_async_not_committed", "result", "wrong", ()),
    race("cp_async_without_barrier", "own_wait.copy", "own_wait.read"),
    # Shared memory that nobody has written.
    race("uninitialised_shared_read", "uninitialised", text="uninitialised shared memory in read_unwritten"),
    race("uninitialised_shared_atomic", "uninitialised_atomic", text="uninitialised shared memory in"),
    race("shared_kept_from_the_block_before", "uninitialised_block", text="uninitialised shared memory in"),
    # Off by one in global memory.
    race("global_read_past_the_end", "global.read", text="read of 4 bytes by thread (49,0,0)"),
    race("global_read_past_the_end", "global.read", text="0 bytes past the end of buffer"),
    race("global_read_before_the_start", "global.read", text="4 bytes before the start of buffer"),
    race("global_write_past_the_end", "global.write", text="0 bytes past the end of buffer"),
    race("global_write_before_the_start", "global.write", text="4 bytes before the start of buffer"),
    race("global_wide_read_across_the_end", "global.wide", text="outside every registered buffer in wide_copy"),
    race("global_copy_past_the_end", "global.copy", text="past the end of buffer"),
    Bug("global_read_past_the_end", "asan", "heap-buffer-overflow", ("global.read",)),
    Bug("global_read_before_the_start", "asan", "heap-buffer-overflow", ("global.read",)),
    Bug("global_write_past_the_end", "asan", "heap-buffer-overflow", ("global.write",)),
    Bug("global_write_before_the_start", "asan", "heap-buffer-overflow", ("global.write",)),
    Bug("global_wide_read_across_the_end", "asan", "heap-buffer-overflow", ("global.wide",)),
    Bug("global_copy_past_the_end", "asan", "heap-buffer-overflow", ("global.copy",)),
    # Off by one in shared memory.
    race("shared_read_past_the_end", "shared.read_static", text="0 bytes past the end of shared 'tile' (160 bytes)"),
    race("shared_read_before_the_start", "shared.read_static", text="4 bytes before the start of shared 'tile'"),
    race("shared_write_past_the_end", "shared.write_static", text="0 bytes past the end of shared 'tile'"),
    race("shared_write_before_the_start", "shared.write_static", text="4 bytes before the start of shared 'tile'"),
    race("dynamic_shared_read_past_the_end", "shared.read_dynamic", text="0 bytes past the end of shared"),
    race("dynamic_shared_read_before_the_start", "shared.read_dynamic", text="4 bytes before the start of shared"),
    race("dynamic_shared_write_past_the_end", "shared.write_dynamic", text="0 bytes past the end of shared"),
    race("dynamic_shared_write_before_the_start", "shared.write_dynamic", text="4 bytes before the start of shared"),
    Bug("shared_read_past_the_end", "asan", "index 40 out of bounds", ("shared.read_static",)),
    Bug("shared_read_before_the_start", "asan", "index -1 out of bounds", ("shared.read_static",)),
    Bug("shared_write_past_the_end", "asan", "index 40 out of bounds", ("shared.write_static",)),
    Bug("shared_write_before_the_start", "asan", "index -1 out of bounds", ("shared.write_static",)),
    Bug("dynamic_shared_read_past_the_end", "asan", "use-after-poison", ("shared.read_dynamic",)),
    Bug("dynamic_shared_read_before_the_start", "asan", "use-after-poison", ("shared.read_dynamic",)),
    Bug("dynamic_shared_write_past_the_end", "asan", "use-after-poison", ("shared.write_dynamic",)),
    Bug("dynamic_shared_write_before_the_start", "asan", "use-after-poison", ("shared.write_dynamic",)),
    # A thread's own memory and arithmetic.
    Bug("local_array_past_the_end", "asan", "index 8 out of bounds", ("own_array",)),
    Bug("local_pointer_past_the_end", "asan", "stack-buffer-overflow", ("own_pointer",)),
    Bug("signed_overflow", "asan", "signed integer overflow", ("overflow",)),
    # Addresses that hardware refuses.
    Bug("misaligned_vload", "runtime", "misaligned access", ("misaligned.vload",)),
    Bug("misaligned_vstore", "runtime", "misaligned access", ("misaligned.vstore",)),
    Bug("misaligned_load_if", "runtime", "misaligned access", ("misaligned.load_if",)),
    Bug("misaligned_cp_async", "runtime", "misaligned access", ("misaligned.cp_async",)),
    Bug("misaligned_ldmatrix", "runtime", "misaligned access", ("misaligned.ldmatrix",)),
    Bug("misaligned_plain_pointer", "asan", "misaligned address", ("misaligned.plain",)),
    # Meetings to which not all come.
    Bug("early_return_before_barrier", "runtime", "returned from the kernel", ("early_return",)),
    Bug("divergent_barrier", "runtime", "divergent barrier", ("divergent.one", "divergent.other")),
    Bug("barrier_and_shuffle_deadlock", "runtime", "deadlock", ("deadlock.barrier", "deadlock.shuffle")),
    Bug("mask_with_lanes_that_do_not_come", "runtime", "0xffffffff", ("mask.too_many",)),
    Bug("mask_without_the_own_lane", "runtime", "wrong mask", ("mask.too_few",)),
    Bug("masks_that_overlap", "runtime", "0xffff8000", ("mask.overlap",)),
    Bug("lanes_in_different_operations", "runtime", "different operations", ("operations.any", "operations.all")),
]


def cases_of(*files: str) -> list[str]:
    """The names of the cases in these files, in their order there."""
    text = "".join((ROOT / HERE / f"{name}.cu").read_text(encoding="utf-8") for name in files)
    return re.findall(r"^(?:\w*CASE|UNIT)\((\w+)(?=[,)])", re.sub(r"#define .*(\\\n.*)*", "", text), re.MULTILINE)


PLANTED = cases_of(*(name for name in CASES if name.startswith("planted")))
CORRECT = cases_of(*(name for name in CASES if name.startswith("correct")))
UNITS = cases_of("race_units")


@pytest.fixture(scope="module", params=CATCHERS["runtime"])
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[tuple[str, str], Answer]]:
    """By flavour, filled by `answer`: all cases of a flavour run together, once."""
    return {}


def answer(answers: dict[str, dict[tuple[str, str], Answer]], flavour: str, case: str, order: str) -> Answer:
    if flavour not in answers:
        # Bugs of one flavour are not for another: without its checker they would read and write what is not theirs.
        mine = [bug.case for bug in BUGS if flavour in CATCHERS[bug.by]]
        units = UNITS if flavour == "race" else []
        requested = dict.fromkeys([*mine, *units, *CORRECT])  # correct ones last: the process is as good as before
        answers[flavour] = run_cases(flavour, [(one, order) for order in ORDERS for one in requested])
    return answers[flavour][case, order]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.case}-{bug.by}")
def test_bug_is_caught(bug: Bug, order: str, answers: dict[str, dict[tuple[str, str], Answer]]) -> None:
    for flavour in CATCHERS[bug.by]:
        found = answer(answers, flavour, bug.case, order)
        texts = {
            "runtime": [found.outcome],
            "race": found.reports,
            "asan": [found.printed],
            "result": [found.outcome],
        }[bug.by]
        places = [place(mark) for mark in bug.marks]
        assert any(bug.text in text and all(names_line(text, where) for where in places) for text in texts), (
            f"{flavour}: expected {bug.text!r} at {places}, got {found}"
        )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CORRECT)
def test_correct_kernel_is_not_reported(
    case: str, order: str, flavour: str, answers: dict[str, dict[tuple[str, str], Answer]]
) -> None:
    assert answer(answers, flavour, case, order) == Answer("right", [], "")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("unit", UNITS)
def test_what_is_a_race(unit: str, order: str, answers: dict[str, dict[tuple[str, str], Answer]]) -> None:
    found = answer(answers, "race", unit, order)
    assert found.outcome == "right"
    if unit.startswith("race_"):
        assert found.reports
        assert all(report.startswith("data race in ") for report in found.reports), found.reports
    else:
        assert found.reports == []


@pytest.mark.parametrize("order", ORDERS)
def test_random_programs_race_where_the_definition_says(order: str) -> None:
    """2,000 programs of GPUCNN_TEST_SEED; which of them is wrong is printed."""
    case = "programs_race_where_the_definition_says"
    assert run_cases("race", [(case, order)])[case, order].outcome == "right"


def test_an_access_outside_ends_the_launch_before_it_happens(
    answers: dict[str, dict[tuple[str, str], Answer]],
) -> None:
    found = answer(answers, "race", "global_write_past_the_end", "fwd")
    assert found.outcome.startswith("fault: simt: kernel fill, block (0, 0, 0): thread 50: write of 4 bytes at ")
    assert names_line(found.outcome, place("global.write"))
    assert len(found.reports) == 1


def test_equal_findings_are_one_with_a_count(answers: dict[str, dict[tuple[str, str], Answer]]) -> None:
    reports = answer(answers, "race", "shuffle_taken_for_syncwarp", "fwd").reports
    assert len(reports) == 1
    assert reports[0].endswith(" (64 times)")


@pytest.mark.parametrize("order", ORDERS)
def test_the_lane_that_was_not_waited_for_is_named(
    order: str, answers: dict[str, dict[tuple[str, str], Answer]]
) -> None:
    (report,) = answer(answers, "race", "syncwarp_with_half_a_mask_after_read", order).reports
    threads = set(map(int, re.findall(r"by thread \((\d+),0,0\)", report)))
    assert len(threads) == 2
    assert 0 in threads
    assert max(threads) >= 16


def test_an_uninitialised_atomic_is_reported_once(answers: dict[str, dict[tuple[str, str], Answer]]) -> None:
    """And not again by all that follow it, which find what it left."""
    (report,) = answer(answers, "race", "uninitialised_shared_atomic", "fwd").reports
    assert "times" not in report


def test_a_report_names_threads_blocks_and_bytes(answers: dict[str, dict[tuple[str, str], Answer]]) -> None:
    (report,) = answer(answers, "race", "two_blocks_write_the_same_value", "fwd").reports
    assert re.fullmatch(
        r"data race in blocks_write_the_same: write of 4 bytes by thread \(5,0,0\) of block \(1,0,0\) at \S+, "
        r"byte 28 of buffer 0x[0-9a-f]+ \(32 bytes\); earlier write by thread \(5,0,0\) of block \(0,0,0\) at \S+ "
        r"\(3 times\)",
        report,
    )


def test_what_the_checker_remembers_is_bounded() -> None:
    cases = ("bound_kept", "bound_exceeded", "bound_exceeded_in_order", "correct_tree_sum")
    found = run_cases("race", [(case, "fwd") for case in cases])
    kept, exceeded, in_order, afterwards = (found[case, "fwd"] for case in cases)
    assert [report.partition(" in ")[0] for report in kept.reports] == ["data race"]
    assert [report.partition(" ")[0] for report in exceeded.reports] == ["data", "incomplete:"]
    assert [report.partition(" ")[0] for report in in_order.reports] == ["incomplete:"]
    assert afterwards.reports == []
    assert {one.outcome for one in found.values()} == {"right"}
    assert names_line(kept.reports[0], place("bound.write"))


@pytest.mark.parametrize("case", ["findings_of_one_line_are_one", "findings_beyond_the_bound_are_counted"])
def test_what_the_checker_tells_is_bounded(case: str) -> None:
    assert run_cases("race", [(case, "fwd")])[case, "fwd"].outcome == "right"


def test_every_case_is_in_the_tables() -> None:
    assert set(PLANTED) == {bug.case for bug in BUGS}
    assert len(CORRECT) >= 10
    assert all(case.startswith("correct_") for case in CORRECT)
    assert all(unit.startswith(("race_", "ordered_")) for unit in UNITS)
    assert RACE_CASES == ("race_units", "race_bounds", "race_programs")
