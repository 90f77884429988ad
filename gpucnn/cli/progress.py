"""A training run on the terminal: a live bar where there is one, and a line an epoch everywhere."""

from __future__ import annotations

import sys
from typing import Any

import click
from tqdm import tqdm


class TerminalProgress:
    """One bar over the whole run: images seen, images/s, time left, running loss and accuracy."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._epochs = 0

    def start(self, epochs: int, images: int, done: int) -> None:
        self._epochs = epochs
        self._bar = tqdm(
            total=images,
            initial=done,
            unit="img",
            disable=None,  # tqdm's word for "only on a terminal"
            file=sys.stderr,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% |{bar}| {rate_fmt}, {remaining} left{postfix}",
        )

    def batch(self, images: int, loss: float, accuracy: float) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2%}", refresh=False)
            self._bar.update(images)

    def epoch(self, row: dict[str, Any]) -> None:
        train, test = (
            f"{split} loss {row[f'{split}_loss']:.4f}  error {1 - row[f'{split}_accuracy']:6.2%}"
            for split in ("train", "test")
        )
        speed = f"{row['images_per_second']:,.0f} images/s"
        line = f"epoch {row['epoch']:>3}/{self._epochs}  {train}   {test}   {speed}"
        if self._bar is not None and not self._bar.disable:
            self._bar.write(line, file=sys.stdout)
        else:
            click.echo(line)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.close()
