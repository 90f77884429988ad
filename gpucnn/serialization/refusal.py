"""The one way in which a file of weights is refused."""

from __future__ import annotations


class WeightFileError(ValueError):
    """A file that is damaged, of a kind that is not read, or that holds more than tensors and plain containers."""
