"""Weights in files: reading what PyTorch and safetensors wrote without running any of it, and writing safetensors."""

from __future__ import annotations

from gpucnn.serialization.files import load, save
from gpucnn.serialization.refusal import WeightFileError

__all__ = ["WeightFileError", "load", "save"]
