"""The four pictures of a training run.

Each function checks its arguments, writes one PNG atomically and returns its Path; the same input gives the same bytes.
matplotlib (``pip install 'gpucnn[plot]'``) is loaded on the first picture; where it is missing, the functions raise
``MatplotlibMissingError``, an ``ImportError``.
"""

from gpucnn.vis.confusion import confusion_matrix
from gpucnn.vis.curve import training_curve
from gpucnn.vis.mosaics import filters, misclassified
from gpucnn.vis.style import MatplotlibMissingError

__all__ = ["MatplotlibMissingError", "confusion_matrix", "filters", "misclassified", "training_curve"]
