"""Calls of the kind that networks are made of, which together launch every kernel: on them the budgets of
profile_budgets.py are measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, zip_longest

from budget_case import Case
from budget_images import images
from budget_maps import maps
from budget_products import products
from budget_rows import rows


def cases() -> Iterator[Case]:
    """All of them."""
    yield from products()
    yield from images()
    yield from rows()
    yield from maps()


def in_turns(largest: int) -> list[tuple[int, Case, str]]:
    """(number, case, dtype) of all whose tensors have at most `largest` elements; one of each op and dtype after
    another, so that the first few are of many kinds."""
    found: dict[tuple[str, str], list[tuple[int, Case, str]]] = defaultdict(list)
    for number, case in enumerate(cases()):
        if max(map(_elements, case.arguments.values()), default=0) <= largest:
            for dtype in case.dtypes:
                found[case.op, dtype].append((number, case, dtype))
    return [each for each in chain.from_iterable(zip_longest(*found.values())) if each is not None]


def _elements(argument: object) -> int:
    product = 1
    for size in argument if isinstance(argument, tuple) else ():
        product *= size if isinstance(size, int) else 1
    return product
