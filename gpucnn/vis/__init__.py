"""What a training run leaves to look at: four pictures (``plots``) and one page that shows them (``report``); and the
books of a network over its depth (``books``).

Works on numpy arrays and mappings alone. matplotlib is loaded by the first picture, never by importing this package.
"""

from gpucnn.vis.books import depth_chart
from gpucnn.vis.plots import MatplotlibMissingError, confusion_matrix, filters, misclassified, training_curve
from gpucnn.vis.report import write_report

__all__ = [
    "MatplotlibMissingError",
    "confusion_matrix",
    "depth_chart",
    "filters",
    "misclassified",
    "training_curve",
    "write_report",
]
