"""A LeNet-5 training step on the CPU, side by side: gpucnn and PyTorch eager.

    python benchmarks/lenet5_step.py [--batch 64,256] [--rounds 15] [--steps 20] [--json FILE]

How they are timed is in race.py. A step is forward, loss, backward and SGD with Nesterov momentum, on images that are
in memory. "above the kernels" is the share of gpucnn's step that is spent outside the kernels of its registry: modules,
checks, graph, backward walk, conversions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import race
import record
from tabulate import tabulate

LEARNING_RATE, MOMENTUM = 0.01, 0.9


def images_and_labels(batch: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(batch, 1, 28, 28)).astype(np.float32), generator.integers(0, 10, batch)


def gpucnn_step(batch: int) -> Callable[[], float]:
    import gpucnn
    from gpucnn import functional as F
    from gpucnn.models import lenet5

    gpucnn.manual_seed(0)
    model = lenet5()
    optimizer = gpucnn.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, nesterov=True)
    images, labels = images_and_labels(batch)
    x = gpucnn.tensor(images)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def torch_step(batch: int, channels_last: bool = False) -> Callable[[], float]:
    import torch
    from torch import nn

    torch.set_num_threads(race.THREADS)
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    images, labels = (torch.from_numpy(a) for a in images_and_labels(batch))
    if channels_last:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, nesterov=True)
    criterion = nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


ABOVE = "above the kernels"
CONTESTANTS: dict[str, Callable[[int], Callable[[], float]]] = {
    "gpucnn": gpucnn_step,
    "torch": torch_step,
    "torch channels_last": lambda batch: torch_step(batch, channels_last=True),
}


def time_kernels() -> list[float]:
    """Makes every kernel of gpucnn's registry add the seconds it takes to the list's only element."""
    from gpucnn.ops.registry import TABLES, KernelSpec

    spent = [0.0]

    def timed(spec: KernelSpec) -> KernelSpec:
        def run(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = spec.run(*arguments)
            spent[0] += time.perf_counter() - start
            return result

        return replace(spec, run=run)

    for table in TABLES.values():
        for specs in table._by_backend.values():  # replaced here, so that picking one costs what it always costs
            specs[:] = map(timed, specs)
    return spent


def share_above_kernels(batch: int, steps: int) -> float:
    """Of a step of gpucnn: the median share outside the kernels (the clocks themselves count as outside)."""
    step, spent, shares = gpucnn_step(batch), time_kernels(), []
    for _ in range(10 + steps):
        spent[0], start = 0.0, time.perf_counter()
        step()
        shares.append(1 - spent[0] / (time.perf_counter() - start))
    return median(shares[10:])


def contestant(name: str, batch: int, steps: int) -> None:
    """Runs one round of `steps` for each line on standard input and prints its median in seconds."""
    if name == ABOVE:
        print(share_above_kernels(batch, steps), flush=True)
        return
    race.take_turns(CONTESTANTS[name](batch), steps)


def start(name: str, batch: int, steps: int) -> race.Process:
    return race.start("--steps", str(steps), "--batch", str(batch), "--contestant", name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", default="64,256", help="batch sizes (default: 64,256)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default: 15)")
    parser.add_argument("--steps", type=int, default=20, help="steps a round (default: 20)")
    parser.add_argument("--json", type=Path, help="write every round's figure to this file")
    parser.add_argument("--contestant", choices=[*CONTESTANTS, ABOVE], help=argparse.SUPPRESS)
    options = parser.parse_args()
    batches = [int(size) for size in options.batch.split(",")]
    if options.contestant:
        contestant(options.contestant, batches[0], options.steps)
        return
    rows: list[list[Any]] = []
    results: list[dict[str, Any]] = []
    for batch in batches:
        times = race.race({name: start(name, batch, options.steps) for name in CONTESTANTS}, options.rounds)
        middle = {name: median(values) for name, values in times.items()}
        fastest_torch = min(middle["torch"], middle["torch channels_last"])
        for name, values in times.items():
            ratios = (middle["torch"] / middle[name], fastest_torch / middle[name])
            figures = [f"{middle[name] * 1e3:.2f}", f"{race.spread(values) * 1e3:.2f}", f"{batch / middle[name]:.0f}"]
            rows.append([batch, name, *figures, *(f"{ratio:.2f}" for ratio in ratios)])
            results.append({"batch": batch, "contestant": name, "seconds": values})
        share = float(start(ABOVE, batch, options.rounds * options.steps).communicate()[0])
        rows.append([batch, ABOVE, f"{share:.1%}"])
        results.append({"batch": batch, "contestant": ABOVE, "share": share})
    headers = ["batch", "contestant", "ms a step", "spread ms", "images/s", "x torch", "x faster torch"]
    print(tabulate(rows, headers, colalign=("right", "left", *["right"] * 5), disable_numparse=True))
    if options.json:
        record.write(options.json, "lenet5_step", results)


if __name__ == "__main__":
    main()
