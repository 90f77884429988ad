"""Budgets of kernels: what each may ask of the memories on aligned shapes, measured, committed, and compared.

    python tests/profile_budgets.py            measures all of tests/budget_cases.py anew and rewrites the budgets
    python tests/profile_budgets.py conv2d ... measures those of these ops, prints them, and writes nothing

A budget that is above the limits stands in EXCEPTIONS with the reason, or the file is not written.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from budget_case import Case
from budget_cases import cases

from gpucnn import extension
from gpucnn.profile import Launch, Run, capture

FILE = Path(__file__).with_name("facts") / "budgets.json"

SECTORS, CONFLICTS = 1.05, 0.0
"""The limits: sectors of global memory over the ideal, and bank conflicts over wavefronts, of a kernel on aligned
shapes."""

SLACK = 1.001
"""By which a count may exceed its budget: rounding in the file."""
LOOSE = 0.95
"""A count below this share of its budget: the budget is of another kernel than this one."""

EXCEPTIONS: dict[str, str] = {
    "long_fprop_kernel": "windows of neighbouring channels, read from the caches, begin between sectors",
    "long_dgrad_kernel": "as long_fprop_kernel",
    "nll_loss_fprop_kernel": "of each row one element is read, that of its label: each lies in a sector of its own",
    "pick_kernel": "elements lie where the positions say",
    "tensor_group_fprop_kernel": "filters, which are few, come element by element, as zeros are put between groups",
    "tensor_group_wgrad_kernel": "of a tile the products of a group with itself are stored: runs of its channels",
    "unpool_number_kernel": "where a channel's value lies is the data's: neighbours have theirs at different pixels",
    "unpool_fetch_kernel": "which of neighbouring channels have a value at a pixel is the data's",
    "unpool_gather_kernel": "as unpool_number_kernel",
}
"""Reasons why kernels, by name without arguments, are above a limit."""


@dataclass(frozen=True)
class Use:
    """What one kernel asked for in one call.

    Attributes:
        sectors: of global memory, over the ideal.
        conflicts: of shared memory's banks, over wavefronts.
        traffic: bytes moved over those that have to be, each once.
        waste: multiplications, those of matrix instructions too, over those that the problem needs; 0 where none are
            known.
    """

    sectors: float
    conflicts: float
    traffic: float
    waste: float


COUNTS = tuple(Use.__dataclass_fields__)


def base_name(kernel: str) -> str:
    return kernel.partition("<")[0]


def uses(runs: Iterable[Run]) -> dict[str, Use]:
    """By kernel, over all its launches."""
    launches: dict[str, list[Launch]] = {}
    needed: dict[str, int] = {}
    for run in runs:
        for i, launch in enumerate(run.launches):
            launches.setdefault(launch.kernel, []).append(launch)
            needed[launch.kernel] = needed.get(launch.kernel, 0) + (run.products if i == 0 else 0)
    found = {}
    for kernel, several in launches.items():

        def total(name: str, of: list[Launch] = several) -> float:
            return sum(launch.scale * launch.total(name) for launch in of)

        compulsory = sum(launch.scale * launch.compulsory_bytes for launch in several)
        products = sum(
            launch.scale * (launch.multiplications + sum(launch.matrix_products.values())) for launch in several
        )
        found[kernel] = Use(
            sectors=_over(total("sectors"), total("ideal_sectors")),
            conflicts=_over(total("conflicts"), total("wavefronts")),
            traffic=_over(sum(launch.scale * launch.moved_bytes for launch in several), compulsory),
            waste=_over(products, needed[kernel]),
        )
    return found


def _over(value: float, of: float) -> float:
    return round(value / of, 4) if of else 0.0


@functools.cache
def _measured(name: str, dtype: str) -> list[Run]:
    case = by_name()[name]
    with capture(case.sample, case.kernel, only_sampled=case.sample > 1) as runs:
        case.run(dtype)
    return runs


def measure(case: Case, dtype: str) -> list[Run]:
    """The case's launches; measured once in a process."""
    return _measured(case.name, dtype)


@functools.cache
def by_name() -> dict[str, Case]:
    """All cases. Raises ValueError for two of one name."""
    found: dict[str, Case] = {}
    for case in cases():
        if case.name in found:
            raise ValueError(f"two cases are called {case.name!r}")
        found[case.name] = case
    return found


def calls() -> list[tuple[Case, str]]:
    """Every case with each of its dtypes."""
    return [(case, dtype) for case in by_name().values() for dtype in case.dtypes]


def key(case: Case, dtype: str) -> str:
    """Of the case in the file."""
    return f"{case.name} {dtype}"


def culprit(runs: Iterable[Run], kernel: str, count: str) -> str:
    """The line of the kernel that is worst in `count`, in words."""
    launches = [launch for run in runs for launch in run.launches if launch.kernel == kernel]
    if count == "waste":
        most: dict[tuple[str, int], float] = {}
        for launch in launches:
            for line, times in launch.fma.items():
                most[line] = most.get(line, 0) + launch.scale * times
        at = max(most, key=lambda line: most[line])
        return f"{at[0]}:{at[1]}, {most[at]:.0f} multiplications"
    accesses = [access for launch in launches for access in launch.accesses]
    if count == "conflicts":
        worst = max(accesses, key=lambda a: a.conflicts)
        return f"{worst.line[0]}:{worst.line[1]}, {worst.purpose} of {worst.bytes}: {worst.conflicts} conflicts"
    worst = max(accesses, key=lambda a: a.sectors if count == "traffic" else a.sectors - a.ideal_sectors)
    return (
        f"{worst.line[0]}:{worst.line[1]}, {worst.purpose} of {worst.bytes}: {worst.sectors} sectors, "
        f"{worst.ideal_sectors} would do"
    )


def breaches(runs: Iterable[Run], budgets: dict[str, Use]) -> Iterator[str]:
    """In words, which kernel is above its budget in which count, and where; and which has none."""
    runs = list(runs)
    for kernel, use in uses(runs).items():
        if kernel not in budgets:
            yield f"{kernel} has no budget"
            continue
        for count in COUNTS:
            found, budget = getattr(use, count), getattr(budgets[kernel], count)
            if not found <= budget * SLACK + 1e-4:
                yield f"{kernel}: {count} {found:g}, budget {budget:g}; at {culprit(runs, kernel, count)}"


def loose(runs: Iterable[Run], budgets: dict[str, Use]) -> Iterator[str]:
    """In words, which budget is of no use since its kernel has become better, or is not launched."""
    found = uses(runs)
    for kernel, budget in budgets.items():
        if kernel not in found:
            yield f"{kernel} has a budget and is not launched"
            continue
        for count in COUNTS:
            least, written = getattr(found[kernel], count), getattr(budget, count)
            if least < written * LOOSE - 1e-4:
                yield f"{kernel}: {count} {least:g}, less than its budget {written:g}"


def above_limits(use: Use) -> list[str]:
    """The counts that are."""
    limits = {"sectors": SECTORS, "conflicts": CONFLICTS}
    return [name for name, most in limits.items() if not getattr(use, name) <= most]


def read() -> dict[str, dict[str, Use]]:
    """By case with its dtype, and kernel."""
    written = json.loads(FILE.read_text(encoding="utf-8"))
    return {case: {kernel: Use(**use) for kernel, use in kernels.items()} for case, kernels in written.items()}


def write(budgets: dict[str, dict[str, Use]]) -> None:
    """A line a kernel, so that a change of one is a change of its lines."""
    texts = [
        f"{json.dumps(case)}: {{\n"
        + ",\n".join(f" {json.dumps(kernel)}: {json.dumps(asdict(use))}" for kernel, use in sorted(kernels.items()))
        + "\n}"
        for case, kernels in budgets.items()
    ]
    FILE.write_text("{\n" + ",\n".join(texts) + "\n}\n", encoding="utf-8")


def main(ops: list[str]) -> int:
    budgets: dict[str, dict[str, Use]] = {}
    wrong = []
    for case, dtype in calls():
        if ops and case.op not in ops:
            continue
        try:
            runs = measure(case, dtype)
        except (RuntimeError, ValueError, TypeError) as error:
            wrong.append(f"{key(case, dtype)}: {error}")
            continue
        found = budgets[key(case, dtype)] = uses(runs)
        for kernel, use in found.items():
            if ops:
                print(f"{key(case, dtype)}: {kernel}: {use}")
            if case.aligned and base_name(kernel) not in EXCEPTIONS:
                wrong += [
                    f"{key(case, dtype)}: {kernel}: {count} {getattr(use, count):g} at {culprit(runs, kernel, count)}"
                    for count in above_limits(use)
                ]
    if not ops:
        there = {name for _, name in extension.require("_simt_profile").kernels()}
        seen = {kernel for kernels in budgets.values() for kernel in kernels}
        wrong += [f"no case launches {kernel}" for kernel in sorted(there - seen)]
        print(f"{len(seen)} of {len(there)} kernels")
    print("\n".join([*wrong, f"{len(wrong)} findings"]))
    if not ops and not wrong:
        write(budgets)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
