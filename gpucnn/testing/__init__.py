"""What gpucnn is tested with, for its own tests and for those of anybody who adds an op.

- `naive`: the truth, float64 loops over each op's definition.
- `assert_close`, `assert_equal`, `tolerance`: elementwise comparison that NaN cannot pass, and how much to allow.
- `guarded`: outputs full of poison between canaries.
- `gradcheck`: analytic gradients against central differences.
- `conv_cases`, `pool_cases`, `pairwise`, `SIZES`, `rotating_seed`: shapes that straddle tiles, sampled pairwise.
"""

from gpucnn.testing import naive
from gpucnn.testing.compare import assert_close, assert_equal, to_numpy, tolerance
from gpucnn.testing.gradcheck import gradcheck
from gpucnn.testing.guard import Guarded, guarded
from gpucnn.testing.pairwise import pairwise
from gpucnn.testing.shapes import SIZES, ConvCase, PoolCase, conv_cases, pool_cases, rotating_seed

__all__ = [
    "SIZES",
    "ConvCase",
    "Guarded",
    "PoolCase",
    "assert_close",
    "assert_equal",
    "conv_cases",
    "gradcheck",
    "guarded",
    "naive",
    "pairwise",
    "pool_cases",
    "rotating_seed",
    "to_numpy",
    "tolerance",
]
