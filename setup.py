"""Declares the CUDA extension, whose sources are found: a new kernel changes nothing here. The rest is in pyproject."""

import sys
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_build"))

from build_cuda import MODULE, BuildCuda, cuda_sources  # noqa: E402

setup(
    ext_modules=[Extension(MODULE, cuda_sources(HERE / "csrc"))],
    cmdclass={"build_ext": BuildCuda},
)
