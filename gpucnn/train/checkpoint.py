"""Checkpoints: one safetensors file with a model, its optimiser and where the training stands.

The model's tensors have their own names, so any safetensors reader finds PyTorch's keys; the optimiser's begin with
`__optimizer__.`; the rest is JSON in the file's metadata. A file is written whole beside its place and then moved
there, and the one that it replaces is kept under another name: no moment is without a good checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpucnn.serialization.files import plain, write_whole

FORMAT, VERSION = "gpucnn-checkpoint", 1
_OPTIMIZER = "__optimizer__."


class CheckpointError(ValueError):
    """A file that is no checkpoint, or a damaged one; the message names it and what can be used instead."""


@dataclass
class Checkpoint:
    """A model's tensors, the optimiser's `state_dict`, and anything that JSON can hold about the training."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    progress: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint, keep_previous_as: Path | None = None) -> None:
    """Writes atomically; a file that was at `path` is first linked to `keep_previous_as`."""
    from safetensors.numpy import save

    tensors = {name: plain(value) for name, value in checkpoint.model.items()}
    counts: dict[str, dict[str, Any]] = {}
    for number, values in checkpoint.optimizer["state"].items():
        for name, value in values.items():
            if isinstance(value, (int, float)):
                counts.setdefault(str(number), {})[name] = value
            else:
                tensors[f"{_OPTIMIZER}{number}.{name}"] = plain(value)
    state = {
        "optimizer": {"param_groups": checkpoint.optimizer["param_groups"], "counts": counts},
        "progress": checkpoint.progress,
    }
    # One key alone: safetensors writes several in an order that changes from run to run.
    metadata = {FORMAT: json.dumps({"version": VERSION, **state})}
    write_whole(path, save(tensors, metadata), keep_previous_as)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads what save_checkpoint wrote.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: truncated, not safetensors, not a checkpoint, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        what = f"damaged or truncated, or not a safetensors file ({error})"
        raise CheckpointError(f"{path}: {what}{_others(path)}") from error
    if FORMAT not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of gpucnn")
    state = json.loads(metadata[FORMAT])
    if state["version"] != VERSION:
        raise CheckpointError(f"{path}: checkpoint version {state['version']}, this gpucnn reads {VERSION}")
    optimizer_state: dict[int, dict[str, Any]] = {int(n): dict(v) for n, v in state["optimizer"]["counts"].items()}
    for name in [name for name in tensors if name.startswith(_OPTIMIZER)]:
        number, _, key = name.removeprefix(_OPTIMIZER).partition(".")
        optimizer_state.setdefault(int(number), {})[key] = tensors.pop(name)
    optimizer = {"state": optimizer_state, "param_groups": state["optimizer"]["param_groups"]}
    return Checkpoint(tensors, optimizer, state["progress"])


def _others(path: Path) -> str:
    there = [other.stem for other in sorted(path.parent.glob("*.safetensors")) if other != path]
    return f"; use another with --checkpoint {' or '.join(there)}" if there else ""
