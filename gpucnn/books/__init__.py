"""What a network costs and what it sees, layer by layer: `gpucnn.summary(model, shape)`; and which kernels it runs on:
`gpucnn.explain(op, ...)`."""

from gpucnn.books.accounts import Layer, Summary, summary
from gpucnn.books.choice import Candidate, Explanation, Pass, explain
from gpucnn.books.fields import ALL, Lost, Reach
from gpucnn.books.trace import NetworkEndsError

__all__ = [
    "ALL",
    "Candidate",
    "Explanation",
    "Layer",
    "Lost",
    "NetworkEndsError",
    "Pass",
    "Reach",
    "Summary",
    "explain",
    "summary",
]
