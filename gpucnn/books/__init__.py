"""What a network costs and what it sees, layer by layer: `gpucnn.summary(model, shape)`."""

from gpucnn.books.accounts import Layer, Summary, summary
from gpucnn.books.fields import ALL, Lost, Reach
from gpucnn.books.trace import NetworkEndsError

__all__ = ["ALL", "Layer", "Lost", "NetworkEndsError", "Reach", "Summary", "summary"]
