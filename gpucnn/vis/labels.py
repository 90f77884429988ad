"""Class names and other people's text on their way into a picture or a page."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

TIMES, MINUS, NONE = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}", "\N{EN DASH}"  # as a typesetter writes them


def clean(text: str, keep: str = "") -> str:
    """``text`` with the replacement character for what no font and no HTML page can show: controls and surrogates."""
    return "".join(c if c in keep or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in text)


def check_classes(classes: Sequence[str]) -> None:
    """Raises TypeError where ``classes`` is not a sequence of strings."""
    if isinstance(classes, str):
        raise TypeError(f"classes: must be a sequence of names, got the single string {classes!r}")
    for index, name in enumerate(classes):
        if not isinstance(name, str):
            raise TypeError(f"classes[{index}]: must be a string, got {name!r}")
