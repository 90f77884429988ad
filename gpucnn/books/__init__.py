"""What a network costs and what it sees, layer by layer: `gpucnn.summary(model, shape)`."""

from gpucnn.books.accounts import Layer, Summary, summary
from gpucnn.books.fields import ALL, UNKNOWN, Reach
from gpucnn.books.trace import NetworkEndsError

__all__ = ["ALL", "UNKNOWN", "Layer", "NetworkEndsError", "Reach", "Summary", "summary"]
