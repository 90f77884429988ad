#!/usr/bin/env bash
# Checks and measures everything that matters on a machine with a GPU, within a budget: bash benchmarks/hardware.sh --help
#
# Needs a C++ compiler, nvcc, a Python (PYTHON names another than python3) with numpy, cupy, pybind11, setuptools and
# pytest; beside these it uses PyTorch, compute-sanitizer and ncu where they are there. No network, nothing is installed.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root:$root/benchmarks:$root/_build${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" -m hardware "$@"
