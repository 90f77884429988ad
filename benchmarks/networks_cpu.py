"""Networks on the CPU, side by side: gpucnn and PyTorch eager, in both of PyTorch's layouts.

    python benchmarks/networks_cpu.py [--only resnet50,mobilenet_v2,resnet20,...] [--rounds 9] [--steps 5] [--json FILE]

Studies: the forward pass of ResNet-50 and MobileNet v2 on one image of 3 x 224 x 224, evaluating; a training step
(forward, loss, backward, SGD with momentum) of the CIFAR ResNet-20 on 128 images; and the peak memory of training steps
of ResNet-20 on 128 images and of ResNet-50 on 4. How contestants are timed is in race.py. Memory is the peak of the
resident set during three steps (VmHWM, reset before them), less what is resident once imports, network, optimiser and
data are there, which is given beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import race
import record
from tabulate import tabulate

LEARNING_RATE, MOMENTUM = 0.1, 0.9
CONTESTANTS = ("gpucnn", "torch", "torch channels_last")


@dataclass(frozen=True)
class Study:
    network: str
    batch: int
    size: int
    classes: int
    training: bool
    memory: bool = False

    def __str__(self) -> str:
        what = "training step" if self.training else "forward"
        return f"{self.network} {what}, {self.batch} x 3 x {self.size} x {self.size}"


STUDIES = {
    "resnet50": Study("resnet50", 1, 224, 1000, training=False),
    "mobilenet_v2": Study("mobilenet_v2", 1, 224, 1000, training=False),
    "resnet20": Study("resnet20", 128, 32, 10, training=True),
    "resnet20_memory": Study("resnet20", 128, 32, 10, training=True, memory=True),
    "resnet50_memory": Study("resnet50", 4, 224, 1000, training=True, memory=True),
}


def images_and_labels(study: Study) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    images = generator.standard_normal((study.batch, 3, study.size, study.size), dtype=np.float32)
    return images, generator.integers(0, study.classes, study.batch)


def gpucnn_step(study: Study) -> Callable[[], float]:
    import gpucnn
    from gpucnn import functional as F
    from gpucnn import models

    gpucnn.manual_seed(0)
    model = getattr(models, study.network)()
    images, labels = images_and_labels(study)
    x = gpucnn.tensor(images)
    if not study.training:
        model.eval()

        def forward() -> float:
            with gpucnn.no_grad():
                return float(model(x).numpy()[0, 0])

        return forward
    optimizer = gpucnn.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def torch_step(study: Study, channels_last: bool) -> Callable[[], float]:
    import torch
    import torch_networks

    torch.set_num_threads(race.THREADS)
    model = torch_networks.build(study.network, channels_last)
    images, labels = (torch.from_numpy(array) for array in images_and_labels(study))
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    if not study.training:
        model.eval()

        def forward() -> float:
            with torch.no_grad():
                return float(model(images)[0, 0])

        return forward
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    criterion = torch.nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def step_of(contestant: str, study: Study) -> Callable[[], float]:
    return gpucnn_step(study) if contestant == "gpucnn" else torch_step(study, contestant.endswith("channels_last"))


def resident(field: str) -> int:
    """VmRSS, what of this process is in memory, or VmHWM, the most there was since it was reset; in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def print_memory(step: Callable[[], float]) -> None:
    """Prints the bytes resident before the first step, and the peak of three steps."""
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    before = resident("VmRSS")
    for _ in range(3):
        step()
    print(before, resident("VmHWM"), flush=True)


def start(contestant: str, study: str, steps: int) -> race.Process:
    return race.start("--only", study, "--steps", str(steps), "--contestant", contestant)


def timed(name: str, rounds: int, steps: int) -> list[dict[str, Any]]:
    times = race.race({contestant: start(contestant, name, steps) for contestant in CONTESTANTS}, rounds)
    return [{"study": name, "contestant": contestant, "seconds": values} for contestant, values in times.items()]


def measured(name: str) -> list[dict[str, Any]]:
    rows = []
    for contestant in CONTESTANTS:
        before, peak = start(contestant, name, 1).communicate()[0].split()
        rows.append({"study": name, "contestant": contestant, "bytes_before": int(before), "bytes_peak": int(peak)})
    return rows


def show_times(title: str, rows: list[dict[str, Any]]) -> None:
    middle = {row["contestant"]: median(row["seconds"]) for row in rows}
    best = min(value for name, value in middle.items() if name != "gpucnn")
    lines = [
        [name, f"{middle[name] * 1e3:.1f}", f"{race.spread(row['seconds']) * 1e3:.1f}", f"{middle[name] / best:.2f}"]
        for name, row in zip(middle, rows, strict=True)
    ]
    show(title, ["contestant", "ms", "spread ms", "x faster torch's time"], lines)


def show_memory(title: str, rows: list[dict[str, Any]]) -> None:
    over = {row["contestant"]: row["bytes_peak"] - row["bytes_before"] for row in rows}
    lines = [
        [name, f"{row['bytes_before'] / 2**20:.0f}", f"{over[name] / 2**20:.0f}"]
        + [f"{over[name] / over[other]:.2f}" for other in CONTESTANTS[1:]]
        for name, row in zip(over, rows, strict=True)
    ]
    headers = ["contestant", "before, MiB", "peak over it, MiB", "x torch's", "x torch channels_last's"]
    show(f"{title}: memory", headers, lines)


def show(title: str, headers: list[str], lines: list[list[str]]) -> None:
    print(f"{title}\n{tabulate(lines, headers, colalign=('left', *['right'] * (len(headers) - 1)))}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(STUDIES), help=f"studies (default: {','.join(STUDIES)})")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (default: 9)")
    parser.add_argument("--steps", type=int, default=5, help="steps a round (default: 5)")
    parser.add_argument("--json", type=Path, help="write every round's figure to this file")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(STUDIES):
        parser.error(f"no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    if options.contestant:
        step = step_of(options.contestant, STUDIES[names[0]])
        if STUDIES[names[0]].memory:
            print_memory(step)
        else:
            race.take_turns(step, options.steps, warm_up=3)
        return
    results: list[dict[str, Any]] = []
    for name in names:
        study = STUDIES[name]
        if study.memory:
            rows = measured(name)
            show_memory(str(study), rows)
        else:
            rows = timed(name, options.rounds, options.steps)
            show_times(str(study), rows)
        results += rows
    if options.json:
        record.write(options.json, "networks_cpu", results)


if __name__ == "__main__":
    main()
