"""Declares the compiled modules, whose sources are found: a new kernel or op changes nothing here."""

import sys
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_build"))

from build_extensions import BuildExtensions, extensions  # noqa: E402

setup(ext_modules=extensions(HERE / "csrc"), cmdclass={"build_ext": BuildExtensions})
