"""Imports run one way, `import gpucnn` stays light, and what is public exists and says what it is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import pytest

import gpucnn

PACKAGE = Path(gpucnn.__file__).parent

# From the lowest up. A room imports from rooms below it, and within itself; rooms of one line do not know each other.
LAYERS = [
    ["extension"],
    ["backend", "kernels", "random"],
    ["arguments", "flags", "precision", "tuned"],
    ["problem"],
    ["autograd", "ops.registry", "reference", "testing"],
    ["ops"],
    ["graph"],
    ["operators"],
    ["tensor"],
    ["creation"],
    ["functional"],
    ["nn", "optim", "data", "filters", "vis", "serialization"],
    ["calls"],
    ["models", "train", "books", "profile", "tuning"],
    [""],
    ["bench"],
    ["cli"],
    ["__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Where being below is not enough.
ONLY = {
    "testing": set[str](),
    "vis": set[str](),
    "reference": {"backend", "problem", "random"},
    "autograd": {"backend"},
    "ops.registry": {"backend", "tuned"},
    "flags": {"backend"},
    "ops": {"autograd", "backend", "extension", "flags", "ops.registry", "precision", "problem", "reference"},
    "": {room for rooms in LAYERS[: LEVEL["models"]] for room in rooms} - {"data", "filters", "vis"},
}
EXTENSION_IS_FOR = {"backend", "bench", "kernels", "ops", "cli", "profile", "tuned"}

# Heavy, and not needed by everyone: imported where they are used.
ON_USE = {"PIL", "cupy", "matplotlib", "ml_dtypes", "pooch", "requests", "rich", "safetensors", "tabulate"} | {
    *("threadpoolctl", "torch", "torchvision")
}
AT_THE_TOP = {"numpy": None, "click": "cli", "tabulate": "cli", "tqdm": "cli"}


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name without the leading `gpucnn.`; the package itself is ''."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


MODULES = modules()


def room_of(module: str) -> str:
    return module if module in LEVEL else module.partition(".")[0]


def imports(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """(what is imported, line, inside a function?) of all that runs; names for type checkers alone are left out."""

    def visit(node: ast.AST, in_function: bool) -> Iterator[tuple[str, int, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, in_function
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("gpucnn.") in MODULES else node.module, node.lineno, in_function
        inside = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(tree, False)


def own_imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for name, line, _ in imports(tree):
        if name.partition(".")[0] == "gpucnn":
            yield name.removeprefix("gpucnn").removeprefix("."), line


def broken_rules(module: str, tree: ast.Module) -> list[str]:
    room, broken = room_of(module), []
    for target, line in own_imports(tree):
        other = room_of(target)
        if other == room:
            continue
        if LEVEL[other] >= LEVEL[room]:
            broken.append(f"{module}:{line} imports {target or 'gpucnn'}, which is not below it")
        elif other not in ONLY.get(room, LEVEL):
            broken.append(f"{module}:{line} imports {target}, which {room} has no business with")
        elif other == "extension" and room not in EXTENSION_IS_FOR:
            broken.append(f"{module}:{line} imports the extension")
    return broken


@pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "gpucnn")
def test_imports_run_one_way(module: str) -> None:
    assert room_of(module) in LEVEL, f"{module} has no layer: give its room a place in LAYERS"
    assert broken_rules(module, MODULES[module]) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("ops.conv2d", "from gpucnn.tensor import Tensor"),
        ("ops.conv2d", "from gpucnn import graph"),
        ("ops.conv2d", "import gpucnn.functional"),
        ("reference.conv2d", "from gpucnn.ops import conv2d"),
        ("reference.conv2d", "from gpucnn import extension"),
        ("reference.conv2d", "from gpucnn.autograd import Function"),
        ("ops.registry", "from gpucnn.ops import conv2d"),
        ("nn.linear", "from gpucnn.optim import SGD"),
        ("nn.linear", "import gpucnn"),
        ("nn.linear", "from gpucnn import Tensor"),
        ("testing.compare", "from gpucnn import backend"),
        ("tensor", "def late():\n    from gpucnn import functional"),
        ("backend", "from gpucnn import random"),
        ("train.trainer", "from gpucnn.cli import main"),
        ("", "from gpucnn import data"),
    ],
)
def test_the_rules_catch(module: str, line: str) -> None:
    assert module in MODULES
    assert len(broken_rules(module, ast.parse(line))) == 1


def test_the_layers_are_those_that_exist() -> None:
    assert {room for room in LEVEL if not any(room_of(module) == room for module in MODULES)} == set()


@pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "gpucnn")
def test_heavy_libraries_are_imported_on_use_and_nothing_else_is(module: str) -> None:
    for name, line, in_function in imports(MODULES[module]):
        top = name.partition(".")[0]
        where = f"{module}:{line} imports {name}"
        if in_function:
            assert top in ON_USE, f"{where} inside a function"
        elif top not in sys.stdlib_module_names and top != "gpucnn":
            assert top in AT_THE_TOP, f"{where} when it is imported"
            assert AT_THE_TOP[top] in (None, room_of(module)), where


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name, tree in MODULES.items() if not ast.get_docstring(tree)] == []


# ------------------------------------------------------------------------------------------------ import gpucnn


def loaded_by(code: str) -> set[str]:
    code += "; import sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_gpucnn_adds_to_numpy_only_itself_and_the_standard_library() -> None:
    added = loaded_by("import numpy, gpucnn") - loaded_by("import numpy")
    tops = {name.partition(".")[0] for name in added}
    assert tops - sys.stdlib_module_names == {"gpucnn"} | (tops & {"numpy"})
    ours = {name.removeprefix("gpucnn").removeprefix(".") for name in added if name.partition(".")[0] == "gpucnn"}
    assert {room_of(name) for name in ours} & {"data", "filters", "models", "testing", "train", "vis", "cli"} == set()


def test_rooms_that_are_loaded_on_first_use_are_there() -> None:
    code = "import gpucnn; [getattr(gpucnn, n) for n in ('data', 'filters', 'models', 'testing', 'train', 'vis')]"
    added = loaded_by(code)
    assert {f"gpucnn.{name}" for name in ("data", "filters", "models", "testing", "train", "vis")} <= added
    assert {name.partition(".")[0] for name in added} & ON_USE == set()
    assert {"data", "filters", "models", "testing", "train", "vis", "Tensor", "nn"} <= set(dir(gpucnn))
    with pytest.raises(AttributeError, match="'gpucnn' has no attribute 'nothing'"):
        gpucnn.nothing  # noqa: B018


# --------------------------------------------------------------------------------------------- what is public


@pytest.mark.parametrize(
    "name",
    [
        *("gpucnn", "gpucnn.functional", "gpucnn.nn", "gpucnn.optim", "gpucnn.models", "gpucnn.data", "gpucnn.vis"),
        "gpucnn.filters",
    ],
)
def test_public_names_exist_and_have_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    public: Any = module.__all__
    assert sorted(set(public)) == sorted(public)
    for entry in public:
        value = getattr(module, entry)
        is_alias = get_origin(value) is not None  # of a type: has no docstring of its own
        if not is_alias and (isinstance(value, type) or inspect.isroutine(value) or inspect.ismodule(value)):
            assert (value.__doc__ or "").strip(), f"{name}.{entry}"


@pytest.mark.parametrize("name", gpucnn.functional.__all__)
def test_functions_say_their_shapes_and_what_they_raise(name: str) -> None:
    text = getattr(gpucnn.functional, name).__doc__.lower()
    assert "error" in text
    assert any(word in text for word in ("shape", "(n,", "(..."))


@pytest.mark.parametrize("name", gpucnn.nn.__all__)
def test_layers_say_which_function_they_are(name: str) -> None:
    """Where their shapes, errors and sources stand; containers and the base say what they are themselves."""
    kind = getattr(gpucnn.nn, name)
    if name in ("Identity", "Unflatten", "Module", "ModuleDict", "ModuleList", "Sequential", "Parameter", "init"):
        return
    named = re.findall(r"\bF\.(\w+)", kind.__doc__)
    assert named
    assert set(named) <= set(gpucnn.functional.__all__)


@pytest.mark.parametrize(
    "kind", [gpucnn.Tensor, gpucnn.nn.Module, gpucnn.optim.Optimizer], ids=lambda kind: kind.__name__
)
def test_public_methods_have_docstrings(kind: type) -> None:
    bare = [
        name
        for name, member in inspect.getmembers(kind, lambda m: inspect.isfunction(m) or isinstance(m, property))
        if not name.startswith("_") and not (member.__doc__ or "").strip()
    ]
    assert bare == []


@pytest.mark.parametrize("module", [gpucnn.functional, gpucnn.nn.init], ids=lambda module: module.__name__)
def test_public_functions_have_docstrings(module: Any) -> None:
    functions = inspect.getmembers(module, lambda m: inspect.isfunction(m) and m.__module__.startswith(module.__name__))
    assert [name for name, function in functions if not name.startswith("_") and not function.__doc__] == []
