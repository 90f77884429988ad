"""Budgets of kernels: what each may ask of the memories on aligned shapes, measured, committed, and compared.

    python tests/profile_budgets.py            measures all of tests/budget_cases.py anew and rewrites the budgets
    python tests/profile_budgets.py conv2d ... measures those of these ops, and writes nothing

A budget that is above the limits stands in EXCEPTIONS with the reason, or the file is not written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
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

EXCEPTIONS: dict[str, str] = {}
"""Reasons why kernels, by name without arguments, are above a limit."""


@dataclass(frozen=True)
class Use:
    """What one kernel asked for in one call.

    Attributes:
        sectors: of global memory, over the ideal.
        conflicts: of shared memory's banks, over wavefronts.
        traffic: bytes moved over those that have to be, each once.
        waste: multiplications over those that the problem needs; 0 where none are known.
    """

    sectors: float
    conflicts: float
    traffic: float
    waste: float


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
        products = sum(launch.scale * launch.multiplications for launch in several)
        found[kernel] = Use(
            sectors=_over(total("sectors"), total("ideal_sectors")),
            conflicts=_over(total("conflicts"), total("wavefronts")),
            traffic=_over(sum(launch.scale * launch.moved_bytes for launch in several), compulsory),
            waste=_over(products, needed[kernel]),
        )
    return found


def _over(value: float, of: float) -> float:
    return round(value / of, 4) if of else 0.0


def measure(case: Case, dtype: str) -> list[Run]:
    """The case's launches."""
    with capture(case.sample, case.kernel, only_sampled=case.sample > 1) as runs:
        case.run(dtype)
    return runs


def culprit(runs: Iterable[Run], kernel: str, count: str) -> str:
    """The line of the kernel that is worst in `count` ("sectors" or "conflicts"), in words."""
    accesses = [a for run in runs for launch in run.launches if launch.kernel == kernel for a in launch.accesses]
    if count == "conflicts":
        worst = max(accesses, key=lambda a: a.conflicts)
        return f"{worst.line[0]}:{worst.line[1]}, {worst.purpose} of {worst.bytes}: {worst.conflicts} conflicts"
    worst = max(accesses, key=lambda a: a.sectors - a.ideal_sectors)
    return (
        f"{worst.line[0]}:{worst.line[1]}, {worst.purpose} of {worst.bytes}: {worst.sectors} sectors, "
        f"{worst.ideal_sectors} would do"
    )


def breaches(found: Use, budget: Use) -> list[str]:
    """In words, what of it is above the budget."""
    return [
        f"{name} {getattr(found, name):g}, budget {getattr(budget, name):g}"
        for name in ("sectors", "conflicts", "traffic", "waste")
        if not getattr(found, name) <= getattr(budget, name) * SLACK + 1e-4
    ]


def above_limits(use: Use) -> list[str]:
    limits = {"sectors": SECTORS, "conflicts": CONFLICTS}
    return [f"{name} {getattr(use, name):g} > {most:g}" for name, most in limits.items() if getattr(use, name) > most]


def read() -> dict[str, dict[str, Use]]:
    """By case with its dtype, and kernel."""
    written = json.loads(FILE.read_text(encoding="utf-8"))
    return {case: {kernel: Use(**use) for kernel, use in kernels.items()} for case, kernels in written.items()}


def main(ops: list[str]) -> int:
    budgets: dict[str, dict[str, dict[str, float]]] = {}
    wrong, seen = [], set()
    for case in cases():
        for dtype in case.dtypes if case.op in ops or not ops else ():
            try:
                runs = measure(case, dtype)
            except (RuntimeError, ValueError, TypeError) as error:
                wrong.append(f"{case.name} {dtype}: {error}")
                continue
            found = uses(runs)
            seen |= set(found)
            budgets[f"{case.name} {dtype}"] = {kernel: asdict(use) for kernel, use in sorted(found.items())}
            for kernel, use in found.items():
                for text in above_limits(use) if case.aligned else ():
                    if base_name(kernel) not in EXCEPTIONS:
                        line = culprit(runs, kernel, text.partition(" ")[0])
                        wrong.append(f"{case.name} {dtype}: {kernel}: {text} at {line}")
    there = {name for _, name in extension.require("_simt_profile").kernels()}
    wrong += [f"no case launches {kernel}" for kernel in sorted(there - seen)]
    print("\n".join(wrong))
    print(f"{len(seen)} of {len(there)} kernels; {len(wrong)} findings")
    if not ops:
        FILE.write_text(json.dumps(budgets, indent=1) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
