"""Options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from gpucnn import backend
from gpucnn.train.run import CHECKPOINTS

F = TypeVar("F", bound=Callable[..., Any])


def _together(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def computing(function: F) -> F:
    """--device and --backend."""
    return _together(
        click.option("--device", help="cpu, cuda or cuda:1.  [default: cuda where backend cuda runs, else cpu]"),
        click.option(
            "--backend",
            "backend_name",
            type=click.Choice(backend.BACKENDS),
            help="What computes: array code, the CUDA kernels, or these on the CPU.  [default: cuda if usable]",
        ),
    )(function)


def run_folder(function: F) -> F:
    """--run and --checkpoint."""
    return _together(
        click.option(
            "--run", "folder", required=True, type=click.Path(file_okay=False), help="Folder of a training run."
        ),
        click.option(
            "--checkpoint",
            type=click.Choice(CHECKPOINTS),
            default="last",
            show_default=True,
            help="Which of the run's checkpoints: the newest, the one with the best test accuracy, or the one before.",
        ),
    )(function)


def data_place(function: F) -> F:
    """--data-dir and --no-download."""
    return _together(
        click.option(
            "--data-dir",
            type=click.Path(file_okay=False),
            help="Folder with the data set's files; without it $GPUCNN_DATA, the cache, a download, then a sample.",
        ),
        click.option("--download/--no-download", default=True, help="Whether the network may be asked for data."),
    )(function)


def choose(device: str | None, backend_name: str | None) -> str:
    """Puts the backend in force, makes a GPU the current one, and returns the device.

    Raises RuntimeError or ValueError if either can't be had.
    """
    if backend_name:
        backend.use_backend(backend_name)
    if device is None:
        return "cuda" if backend.current_backend() == "cuda" else "cpu"
    kind, index = backend.parse_device(device)
    if kind == "cuda":
        cuda = backend.cupy().cuda
        if index >= backend.gpu_count():
            raise RuntimeError(f"device {device!r} asked for, but {backend.gpu_count()} GPU(s) are usable: gpucnn info")
        cuda.Device(index).use()  # of which events and measured ceilings are
    return device
