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


def facts() -> dict[str, Any]:
    """{"version": ..., "functions": {name: parameters}, "methods": {name: parameters, or None for an attribute}}."""
    import cupy

    functions = {}
    for place, module in (("", cupy), ("add.", cupy.add), ("lib.stride_tricks.", cupy.lib.stride_tricks)):
        twin = {"": np, "add.": np.add, "lib.stride_tricks.": np.lib.stride_tricks}[place]
        for name in sorted(set(dir(module)) & set(dir(twin))):
            value = getattr(module, name)
            if name.startswith("_") or isinstance(value, type) or not callable(value):
                continue
            if place == "add.":
                functions[place + name] = ["*args", "axis=", "dtype=", "out=", "keepdims="]
            elif isinstance(value, cupy.ufunc):
                functions[name] = UFUNC
            elif inspect.isroutine(value) and not inspect.isfunction(value):
                functions[place + name] = of_docstring(value) or ["*args"]
            else:
                functions[place + name] = DOCUMENTED.get(name) or parameters(value)
    methods = {
        name: of_docstring(getattr(cupy.ndarray, name)) for name in dir(cupy.ndarray) if not name.startswith("_")
    }
    return {"version": cupy.__version__, "functions": functions, "methods": methods}


if __name__ == "__main__":
    FACTS.parent.mkdir(exist_ok=True)
    lines = json.dumps(facts(), indent=1).replace("\n   ", " ").replace("\n  ]", "]")
    FACTS.write_text(lines + "\n", encoding="utf-8")
