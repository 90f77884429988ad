"""Calls of the kind that networks are made of, which together launch every kernel: on them the budgets of
profile_budgets.py are measured."""

from __future__ import annotations

from collections.abc import Iterator

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
