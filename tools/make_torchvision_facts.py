#!/usr/bin/env python3
"""Writes down what torchvision's networks are made of, so that the tests need no torchvision to compare with it.

usage: python tools/make_torchvision_facts.py [TARGET]

TARGET is by default tests/facts/torchvision.json. For each network: the number of its parameters, and its state as a
tree in the order of `state_dict()`. A list is the shape of a tensor; a number is a batch norm with so many channels,
which stands for its five tensors (weight, bias, running_mean and running_var of that length, and the scalar
num_batches_tracked). The networks are built on PyTorch's meta device: nothing is computed or downloaded.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from gpucnn.bench.peers import OF_TORCHVISION, load_torchvision

TARGET = Path(__file__).resolve().parent.parent / "tests/facts/torchvision.json"

OPTIONS: dict[str, dict[str, Any]] = {"googlenet": {"init_weights": False}}  # left out, it warns


def facts(model: Any) -> dict[str, Any]:
    """Parameter count and state of a torch.nn.Module."""
    tree: dict[str, Any] = {}
    for key, tensor in model.state_dict().items():
        *path, name = key.split(".")
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
        branch[name] = list(tensor.shape)
    return {"parameters": sum(p.numel() for p in model.parameters()), "state": _norms_as_numbers(tree)}


def _norms_as_numbers(tree: Any) -> Any:
    if isinstance(tree, list):
        return tree
    if list(tree) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]:
        return tree["weight"][0]
    return {name: _norms_as_numbers(branch) for name, branch in tree.items()}


def collect() -> dict[str, Any]:
    """The facts of every network, and the version of torchvision that they are of."""
    torch, torchvision = importlib.import_module("torch"), load_torchvision()
    with torch.device("meta"):
        models = {name: getattr(torchvision.models, name)(**OPTIONS.get(name, {})) for name in OF_TORCHVISION}
        segmentation = torchvision.models.segmentation
        models["fcn_resnet50"] = segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    version = torchvision.__version__.partition("+")[0]
    return {"torchvision": version, "models": {name: facts(model) for name, model in models.items()}}


def write(found: dict[str, Any], target: Path) -> None:
    """One network a line."""
    lines = [f'"{name}": {json.dumps(fact, separators=(",", ":"))}' for name, fact in found["models"].items()]
    text = f'{{"torchvision": "{found["torchvision"]}", "models": {{\n' + ",\n".join(lines) + "\n}}\n"
    target.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes down keys, shapes and sizes of torchvision's networks.")
    parser.add_argument("target", type=Path, nargs="?", default=TARGET, help="the JSON file to write")
    write(collect(), parser.parse_args().target)


if __name__ == "__main__":
    main()
