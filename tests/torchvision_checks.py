"""torchvision's networks as facts on paper, and as live ones with weights that make every layer count."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn import models, nn
from gpucnn.nn import init

FACTS = Path(__file__).parent / "facts/torchvision.json"
NORM = ("weight", "bias", "running_mean", "running_var")


@functools.cache
def facts() -> dict[str, Any]:
    return json.loads(FACTS.read_text())["models"]  # type: ignore[no-any-return]


def state_shapes(tree: Any, prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    """(key, shape) in the order of state_dict(), of a tree as tools/make_torchvision_facts.py describes it."""
    if isinstance(tree, int):
        yield from ((f"{prefix}.{name}", (tree,)) for name in NORM)
        yield f"{prefix}.num_batches_tracked", ()
    elif isinstance(tree, list):
        yield prefix, tuple(tree)
    else:
        for name, branch in tree.items():
            yield from state_shapes(branch, f"{prefix}.{name}" if prefix else name)


def ours(name: str, **options: Any) -> nn.Module:
    """The network with zeros for weights."""
    if name == "fcn_resnet50":
        options = {"aux_loss": True, **options}
    with init.skip_init():
        return models.build(name, **options)


def theirs(torchvision: Any, name: str, **options: Any) -> Any:
    """The same network of torchvision's, with memory for its weights left as it was found."""
    if name == "fcn_resnet50":
        build, options = torchvision.models.segmentation.fcn_resnet50, {"aux_loss": True, **options}
        options |= {"weights": None, "weights_backbone": None}
    else:
        build = getattr(torchvision.models, name)
    if name == "googlenet":
        options = {"init_weights": False, **options}
    return build(**options)


def fill(torch: Any, model: Any, seed: int) -> None:
    """Weights that keep the size of activations, and batch norms that are far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            kind = name.rpartition(".")[2]
            if kind == "num_batches_tracked":
                tensor.fill_(3)
            elif tensor.ndim > 1:
                fan_in = math.prod(tensor.shape[1:])
                tensor.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            elif kind in ("weight", "running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.normal_(0, 0.2, generator=generator)


def images(seed: int, *shape: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
