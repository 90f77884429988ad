"""How commands read arguments of calls: NAME=VALUE, and sizes such as 3,224,224."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Any

import click


def value(text: str) -> Any:
    """64,64,3,3 as a tuple, 1 and None and True as themselves, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def named_values(arguments: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE by name. Raises click.UsageError for anything else."""
    given = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name.isidentifier():
            raise click.UsageError(f"{argument!r} is not NAME=VALUE, such as input=32,64,56,56")
        given[name] = value(text)
    return given


def sizes(count: int | None = None) -> Callable[..., tuple[int, ...] | None]:
    """A callback that reads sizes of at least 1, separated by commas: as many as `count`, or any number of them."""

    def read(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
        if text is None:
            return None
        parts = [part.strip() for part in text.split(",")]
        fits = count is None or len(parts) == count
        if not fits or not all(part.isdecimal() and int(part) >= 1 for part in parts):
            kind = f"{count} sizes" if count else "sizes"
            raise click.BadParameter(f"{text!r} is not {kind} of at least 1 separated by commas ({option.metavar})")
        return tuple(map(int, parts))

    return read
