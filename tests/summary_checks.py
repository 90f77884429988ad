"""What the tests of summaries share: the books of networks by name, kept, and layers found in them."""

from __future__ import annotations

import functools

import gpucnn
from gpucnn import models
from gpucnn.books import Layer, Summary
from gpucnn.nn.init import skip_init


@functools.cache
def books(name: str, *shape: int) -> Summary:
    with skip_init():
        model = models.build(name)
    return gpucnn.summary(model, shape or (3, 224, 224))


def layer(of: Summary, path: str, kind: str = "") -> Layer:
    return next(entry for entry in of.layers if entry.path == path and kind in ("", entry.kind))
