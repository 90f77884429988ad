"""What a training run leaves to look at: four pictures (``plots``) and one page that shows them (``report``).

Works on numpy arrays and mappings alone. matplotlib is loaded by the first picture, never by importing this package.
"""

from gpucnn.vis.plots import MatplotlibMissingError, confusion_matrix, filters, misclassified, training_curve
from gpucnn.vis.report import write_report

__all__ = [
    "MatplotlibMissingError",
    "confusion_matrix",
    "filters",
    "misclassified",
    "training_curve",
    "write_report",
]
