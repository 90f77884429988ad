"""What the bindings of batch, instance and group norm refuse: ValueError and TypeError, and nothing is written."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from norm_kernel_checks import INF

from gpucnn.reference.norm_problem import NormProblem

PROBLEM = NormProblem(2, 6, 8, 8, 1e-5, 0.5, INF)
FORWARD = (
    "x",
    "weight",
    "bias",
    "running_mean",
    "running_var",
    "residual",
    "y",
    "mean",
    "inverse",
    "partial",
    "linear",
)
BACKWARD = (*("dy", "x", "y", "weight", "mean", "inverse", "dx", "dweight", "dbias", "passed", "partial", "linear"),)
IMAGES, CHANNELS, SETS = (2, 6, 8), (8,), (2, 8)


def call(module: Any, name: str, p: NormProblem = PROBLEM, dtype: str = "float32", **changed: Any) -> dict[str, Any]:
    """Calls a binding on zeros and sevens, of which only `changed` do not fit; returns what it was given."""
    splits = module.norm_splits(PROBLEM, "float32")
    lines = 2 * splits + (name == "norm_fprop")
    shapes = dict.fromkeys(("x", "residual", "y", "dy", "dx", "passed"), IMAGES)
    shapes |= dict.fromkeys(("weight", "bias", "running_mean", "running_var", "dweight", "dbias"), CHANNELS)
    shapes |= {"partial": (2, lines, 8), "linear": (3 + (name == "norm_bprop"), 2, 8)}
    arrays: dict[str, Any] = {
        key: np.full(SETS, 7.0) if key in ("mean", "inverse") else np.full(shapes[key], 7, np.float32)
        for key in (FORWARD if name == "norm_fprop" else BACKWARD)
    }
    arrays |= {key: change(arrays) if callable(change) else change for key, change in changed.items()}
    try:
        getattr(module, name)(p, dtype, *arrays.values(), 0)
    except (ValueError, TypeError):
        assert all((array == 7).all() for array in arrays.values() if isinstance(array, np.ndarray)), "written"
        raise
    return arrays


@pytest.mark.parametrize("name", ["norm_fprop", "norm_bprop"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": 3}, "groups must divide C"),
        ({"groups": 0}, "groups must divide C"),
        ({"B": -1}, r"B and C must be in \[0, 2\^31\)"),
        ({"C": 1 << 31, "groups": 1}, r"B and C must be in \[0, 2\^31\)"),
        ({"B": 1 << 20, "M": 1 << 20}, r"\(B,M,C\) has more than 2\^38 elements"),
        ({"B": 1 << 30, "M": 1, "C": 33, "groups": 33}, "more blocks than a launch can have"),
        ({"momentum": None}, "running statistics are those of one set"),
        ({"limit": 0.0}, "limit must be positive"),
        ({"limit": math.nan}, "limit must be positive"),
        ({"M": 5}, r"of shape \(2, 6, 8\) must have shape \(2, 5, 8\)"),
    ],
)
def test_problems_that_no_kernel_could_be_trusted_with(
    simt: ModuleType, name: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"norm: .*{message}"):
        call(simt, name, replace(PROBLEM, **fields))


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(simt: ModuleType) -> None:
    for name in ("norm_fprop", "norm_bprop"):
        call(simt, name)  # fits
    sevens = np.full(IMAGES, 7, np.float32)
    locked = sevens.copy()
    locked.flags.writeable = False
    calls: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        ("norm_fprop", {"x": sevens.astype("f8")}, TypeError, r"'x' .*must be float32"),
        ("norm_fprop", {"x": sevens[:, :5].copy()}, ValueError, r"must have shape \(2, 6, 8\)"),
        ("norm_fprop", {"x": sevens[..., ::-1]}, ValueError, "'x' .*must be C-contiguous"),
        ("norm_fprop", {"y": locked}, ValueError, "'y' .*is read-only"),
        ("norm_fprop", {"y": lambda a: a["x"]}, ValueError, "'y' .* and 'x' .* overlap"),
        ("norm_fprop", {"y": lambda a: a["residual"]}, ValueError, "'y' .* and 'residual' .* overlap"),
        ("norm_fprop", {"residual": sevens[:1]}, ValueError, "'residual' of shape"),
        ("norm_fprop", {"weight": sevens[0, 0, :7]}, ValueError, r"'weight' of shape \(7,\) must have shape \(8,\)"),
        ("norm_fprop", {"bias": np.full(8, 7.0)}, TypeError, "'bias' .*must be float32"),
        ("norm_fprop", {"mean": np.full(SETS, 7, "f4")}, TypeError, "'mean' .*must be float64"),
        ("norm_fprop", {"inverse": lambda a: a["mean"]}, ValueError, "'mean' .* and 'inverse' .* overlap"),
        ("norm_fprop", {"running_var": None}, ValueError, "running_mean and running_var go together"),
        ("norm_fprop", {"running_var": lambda a: a["running_mean"]}, ValueError, "overlap"),
        ("norm_fprop", {"partial": None}, ValueError, "partial is needed"),
        ("norm_fprop", {"partial": np.full((2, 2, 8), 7, "f4")}, ValueError, "'partial' of shape"),
        ("norm_fprop", {"linear": np.full((2, 2, 8), 7, "f4")}, ValueError, "'coefficients' of shape"),
        ("norm_bprop", {"y": None}, ValueError, "y is needed where limit is a number"),
        ("norm_bprop", {"x": None}, ValueError, "x is needed for dweight"),
        ("norm_bprop", {"partial": None}, ValueError, "partial is needed for dweight"),
        ("norm_bprop", {"dx": lambda a: a["dy"]}, ValueError, "'dx' .* and 'dy' .* overlap"),
        ("norm_bprop", {"passed": lambda a: a["dx"]}, ValueError, "overlap"),
        ("norm_bprop", {"dweight": lambda a: a["dbias"]}, ValueError, "overlap"),
        ("norm_bprop", {"dweight": np.full(8, 7.0)}, TypeError, "'dweight' .*must be float32"),
        ("norm_bprop", {"inverse": np.full((8, 2), 7.0)}, ValueError, "'inverse' of shape"),
        ("norm_bprop", {"linear": np.full((3, 2, 8), 7, "f4")}, ValueError, "'coefficients' of shape"),
    ]
    for name, changed, error, message in calls:
        with pytest.raises(error, match=f"norm: .*{message}"):
            call(simt, name, **changed)
    with pytest.raises(ValueError, match="dtype must be float32, float16 or bfloat16, got float64"):
        call(simt, "norm_fprop", dtype="float64")
    with pytest.raises(ValueError, match="running statistics are those of each channel"):
        call(simt, "norm_fprop", replace(PROBLEM, groups=4))
    with pytest.raises(TypeError, match="the problem's limit must be a number or None"):
        call(simt, "norm_fprop", replace(PROBLEM, limit="6"))  # type: ignore[arg-type]
