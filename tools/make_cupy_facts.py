"""Writes which functions and methods cupy has, with their parameters: tests/facts/cupy.json. Needs cupy, but no GPU.

python tools/make_cupy_facts.py
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

FACTS = Path(__file__).parent.parent / "tests" / "facts" / "cupy.json"
# The keyword arguments of all ufuncs, which are no Python functions (cupy's reference, "Universal functions").
UFUNC = ["*args", "out=", "dtype=", "casting="]
# What a ufunc may have beside __call__; which has what: `methods`.
METHODS = {
    "outer": ["A", "B", "out=", "dtype=", "casting="],
    "at": ["a", "indices", "b="],
    "reduce": ["array", "axis=", "dtype=", "out=", "keepdims="],
    "accumulate": ["array", "axis=", "dtype=", "out="],
    "reduceat": ["array", "indices", "axis=", "dtype=", "out="],
}
# Functions that declare **kwargs and say in their text what these may be.
DOCUMENTED = {
    "einsum": ["*operands", "dtype=", "optimize="],
    "pad": ["array", "pad_width", "mode=", "constant_values="],
}


def parameters(function: Any) -> list[str]:
    """Names in order: "x" must be given, "x=" may be, "*x" takes the rest, and "*" begins those given by name alone."""
    found: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not any(name.startswith("*") for name in found):
            found.append("*")
        prefix = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else ""
        suffix = "=" if parameter.default is not inspect.Parameter.empty else ""
        found.append(prefix + parameter.name + suffix)
    return found


def of_docstring(method: Any) -> list[str] | None:
    """The parameters of a compiled method or function, whose signature is the first line of its docstring."""
    match = re.match(r"[\w.]+\((?:self(?:, )?)?(.*?)\)(?: ->.*)?$", (method.__doc__ or "").split("\n")[0])
    if match is None:
        return None
    given = [part.strip() for part in match[1].split(",") if part.strip()]
    return [part.split("=")[0].split(" ")[-1] + ("=" if "=" in part else "") for part in given]


def methods(ufunc: Any) -> list[str]:
    """Those of METHODS that do not raise NotImplementedError for this ufunc."""
    found = ["outer"] if ufunc.nin == 2 else []
    if ufunc._scatter_op is not None:
        found.append("at")
    if ufunc.name in ("cupy_add", "cupy_multiply"):
        found += ["reduce", "accumulate"]
    if ufunc.name == "cupy_add":
        found.append("reduceat")
    return found


_BFLOAT16 = "E"  # cupy's loops for it are there only where ml_dtypes is; the reference computes in float32 instead


def facts() -> dict[str, Any]:
    """What tests/strict_cupy.py goes by.

    {"version": ..., "functions": {name: parameters}, "loops": {name of a ufunc: its dtypes, as "ff->f"},
    "methods": {name: parameters, or None for an attribute}}.
    """
    import cupy

    functions: dict[str, list[str]] = {}
    loops: dict[str, list[str]] = {}
    for place, module, twin in (("", cupy, np), ("lib.stride_tricks.", cupy.lib.stride_tricks, np.lib.stride_tricks)):
        for name in sorted(set(dir(module)) & set(dir(twin))):
            value = getattr(module, name)
            if name.startswith("_") or isinstance(value, type) or not callable(value):
                continue
            if isinstance(value, cupy.ufunc):
                functions[name] = UFUNC
                loops[name] = [loop for loop in value.types if _BFLOAT16 not in loop]
                functions |= {f"{name}.{method}": METHODS[method] for method in methods(value)}
            elif inspect.isroutine(value) and not inspect.isfunction(value):
                functions[place + name] = of_docstring(value) or ["*args"]
            else:
                functions[place + name] = DOCUMENTED.get(name) or parameters(value)
    of_arrays = {
        name: of_docstring(getattr(cupy.ndarray, name)) for name in dir(cupy.ndarray) if not name.startswith("_")
    }
    return {"version": cupy.__version__, "functions": functions, "loops": loops, "methods": of_arrays}


if __name__ == "__main__":
    FACTS.parent.mkdir(exist_ok=True)
    lines = json.dumps(facts(), indent=1).replace("\n   ", " ").replace("\n  ]", "]")
    FACTS.write_text(lines + "\n", encoding="utf-8")
