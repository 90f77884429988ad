"""Kernels stay within their budgets (tests/facts/budgets.json): a breach names kernel, count and source line.

After a change for the better, or a new kernel: `python tests/profile_budgets.py` writes them anew.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import profile_budgets as budgets
import pytest
from budget_cases import Case
from profile_budgets import (
    EXCEPTIONS,
    Use,
    above_limits,
    base_name,
    breaches,
    calls,
    key,
    loose,
    measure,
    uses,
)

from gpucnn import extension
from gpucnn.profile import Run

needs_profile = pytest.mark.skipif(
    extension.load("_simt_profile") is None, reason=str(extension.why_missing("_simt_profile"))
)

SHARE_OF_EXCEPTIONS = 0.1
WRITE = "python tests/profile_budgets.py writes them anew"


@needs_profile
@pytest.mark.parametrize(("case", "dtype"), [pytest.param(*call, id=key(*call)) for call in calls()])
def test_a_call_stays_within_its_budgets(case: Case, dtype: str) -> None:
    written = budgets.read().get(key(case, dtype), {})
    runs = measure(case, dtype)
    found = list(breaches(runs, written))
    assert not found, "\n".join(["above the budget:", *found])
    found = list(loose(runs, written))
    assert not found, "\n".join([f"budgets are out of date, {WRITE}:", *found])


@needs_profile
def test_every_kernel_and_configuration_has_a_budget() -> None:
    there = {name for _, name in extension.require("_simt_profile").kernels()}
    budgeted = {kernel for kernels in budgets.read().values() for kernel in kernels}
    assert there == budgeted, WRITE


def test_budgets_are_those_of_the_cases() -> None:
    assert list(budgets.read()) == [key(*call) for call in calls()], WRITE


def on_aligned_calls() -> list[tuple[str, str, Use]]:
    """(call, kernel, budget) of those that the limits are for."""
    written = budgets.read()
    aligned = [key(case, dtype) for case, dtype in calls() if case.aligned]
    return [(call, kernel, use) for call in aligned for kernel, use in written[call].items()]


def test_the_limits_hold_but_for_the_exceptions() -> None:
    above = [
        f"{call}: {kernel}: {', '.join(above_limits(use))} of {use}"
        for call, kernel, use in on_aligned_calls()
        if above_limits(use) and base_name(kernel) not in EXCEPTIONS
    ]
    assert not above, "\n".join(above)


def test_exceptions_are_few_needed_and_have_reasons() -> None:
    kernels = {kernel for _, kernel, _ in on_aligned_calls()}
    above = {kernel for _, kernel, use in on_aligned_calls() if above_limits(use)}
    assert len(above) <= SHARE_OF_EXCEPTIONS * len(kernels), sorted(above)
    names = {base_name(kernel) for kernel in kernels}
    assert len(EXCEPTIONS) <= SHARE_OF_EXCEPTIONS * len(names), sorted(EXCEPTIONS)
    not_needed = sorted(set(EXCEPTIONS) - {base_name(kernel) for kernel in above})
    assert not not_needed, f"these are within the limits, take them out of EXCEPTIONS: {not_needed}"
    assert all(EXCEPTIONS.values()), EXCEPTIONS


@needs_profile
def test_a_kernel_that_gets_worse_is_a_breach_at_its_line() -> None:
    case, dtype = next(call for call in calls() if call[0].op == "linear")
    runs = measure(case, dtype)
    written = uses(runs)
    assert list(breaches(runs, written)) == list(loose(runs, written)) == []
    kernel = runs[0].launches[0].kernel

    def worse(most: str, **factors: int) -> list[Run]:
        """With more of some counts at the first launch's line with the most of one."""

        def changed(launch: Any) -> Any:
            at = max(launch.accesses, key=lambda access: getattr(access, most))
            counts = {name: getattr(at, name) * factor for name, factor in factors.items()}
            rest = [access for access in launch.accesses if access is not at]
            return dataclasses.replace(launch, accesses=(*rest, dataclasses.replace(at, **counts)))

        first = dataclasses.replace(runs[0], launches=(changed(runs[0].launches[0]), *runs[0].launches[1:]))
        return [first, *runs[1:]]

    (sectors, traffic) = breaches(worse("sectors", sectors=3), written)
    assert sectors.startswith(f"{kernel}: sectors ")
    assert f"budget {written[kernel].sectors:g}; at csrc/" in sectors
    assert " sectors, " in sectors
    assert traffic.startswith(f"{kernel}: traffic ")
    (conflicts,) = breaches(worse("wavefronts", wavefronts=2), written)
    assert conflicts.startswith(f"{kernel}: conflicts ")
    assert conflicts.endswith(" conflicts")
    assert next(breaches(runs, {})).endswith("has no budget")
    twice = {name: dataclasses.replace(use, traffic=2 * use.traffic) for name, use in written.items()}
    assert all("traffic" in text and "less than its budget" in text for text in loose(runs, twice))
    assert len(list(loose(runs, twice))) == len(written)
    assert list(loose(runs[:0], written)) == [f"{name} has a budget and is not launched" for name in written]


def test_what_is_above_a_limit() -> None:
    assert above_limits(Use(1.05, 0.0, 9.0, 9.0)) == []
    assert above_limits(Use(1.06, 0.001, 1.0, 1.0)) == ["sectors", "conflicts"]
    assert above_limits(Use(float("nan"), 0.0, 1.0, 1.0)) == ["sectors"]
