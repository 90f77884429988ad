"""A LeNet-5 training step on the CPU, side by side: gpucnn, the same array code called by hand, PyTorch eager.

    python benchmarks/lenet5_step.py [--batch 64,256] [--rounds 15] [--steps 20] [--json FILE]

Each contestant is a process of its own with 2 threads and waits for its turn; rounds are interleaved, since in one
process PyTorch's threads slow down and machines drift. A round's figure is the median of its steps, a contestant's the
median of its rounds; the spread is that of the middle half of the rounds. A step is forward, loss, backward and SGD
with Nesterov momentum, on images that are in memory. `direct` is the same kernels without tensors, graph and modules:
what gpucnn takes beyond it is the share of the layers above the array code.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
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


def direct_step(batch: int) -> Callable[[], float]:
    """The kernels that the registry picks, in the order in which the model above runs them."""
    import gpucnn
    from gpucnn.models import lenet5
    from gpucnn.problem import conv2d_problem, pool2d_problem
    from gpucnn.reference import conv2d, elementwise, linear, loss, optim, pool2d

    gpucnn.manual_seed(0)
    state = {name: tensor.numpy() for name, tensor in lenet5().state_dict().items()}
    w = {name: np.ascontiguousarray(a.transpose(0, 2, 3, 1) if a.ndim == 4 else a) for name, a in state.items()}
    velocity = {name: np.zeros_like(a) for name, a in w.items()}
    images, labels = images_and_labels(batch)
    x0 = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    c1 = conv2d_problem((batch, 1, 28, 28), (6, 1, 5, 5), 1, 2, 1, 1)
    c2 = conv2d_problem((batch, 6, 14, 14), (16, 6, 5, 5), 1, 0, 1, 1)
    p1 = pool2d_problem("max_pool2d", (batch, 6, 28, 28), 2, None, 0, 1, False)
    p2 = pool2d_problem("max_pool2d", (batch, 16, 10, 10), 2, None, 0, 1, False)
    entropy = loss.CrossEntropyProblem(-100, 0.0, "mean")
    dgrad2 = conv2d.dgrad_flipped if conv2d.flippable(c2) is None else conv2d.dgrad_taps
    first = True

    def step() -> float:
        nonlocal first
        g: dict[str, np.ndarray] = {}
        a1 = elementwise.relu(None, conv2d.fprop_im2col(c1, x0, w["conv1.weight"], w["conv1.bias"]))
        m1, i1 = pool2d.max_fprop_winners(p1, a1)
        a2 = elementwise.relu(None, conv2d.fprop_im2col(c2, m1, w["conv2.weight"], w["conv2.bias"]))
        m2, i2 = pool2d.max_fprop_winners(p2, a2)
        flat = m2.transpose(0, 3, 1, 2).reshape(batch, -1)
        a3 = elementwise.relu(None, linear.fprop(None, flat, w["fc1.weight"], w["fc1.bias"]))
        a4 = elementwise.relu(None, linear.fprop(None, a3, w["fc2.weight"], w["fc2.bias"]))
        value, log_p, scale = loss.cross_entropy(
            entropy, linear.fprop(None, a4, w["fc3.weight"], w["fc3.bias"]), labels, None
        )
        d = loss.cross_entropy_grad(entropy, np.ones_like(value), log_p, scale, labels, None)
        for name, x, y in (("fc3", a4, None), ("fc2", a3, a4), ("fc1", flat, a3)):
            d = d if y is None else elementwise.relu_grad(None, d, y)
            g[f"{name}.weight"], g[f"{name}.bias"] = linear.wgrad(None, x, d), linear.bgrad(None, d)
            d = linear.dgrad(None, d, w[f"{name}.weight"])
        d = np.ascontiguousarray(d.reshape(batch, 16, 5, 5).transpose(0, 2, 3, 1))
        d = elementwise.relu_grad(None, pool2d.max_dgrad(p2, d, i2), a2)
        g["conv2.weight"], g["conv2.bias"] = conv2d.wgrad_im2col(c2, m1, d), conv2d.bgrad(c2, d)
        d = elementwise.relu_grad(None, pool2d.max_dgrad(p1, dgrad2(c2, d, w["conv2.weight"]), i1), a1)
        g["conv1.weight"], g["conv1.bias"] = conv2d.wgrad_im2col(c1, x0, d), conv2d.bgrad(c1, d)
        problem = optim.SGDProblem(LEARNING_RATE, MOMENTUM, 0.0, 0.0, True, first)
        for name, parameter in w.items():
            optim.sgd(problem, parameter, g[name], velocity[name])
        first = False
        return float(value)

    return step


def torch_step(batch: int, channels_last: bool = False) -> Callable[[], float]:
    import torch
    from torch import nn

    torch.set_num_threads(2)
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


CONTESTANTS: dict[str, Callable[[int], Callable[[], float]]] = {
    "gpucnn": gpucnn_step,
    "direct": direct_step,
    "torch": torch_step,
    "torch channels_last": lambda batch: torch_step(batch, channels_last=True),
}


def contestant(name: str, batch: int, steps: int) -> None:
    """Runs one round of `steps` for each line on standard input and prints its median in seconds."""
    step = CONTESTANTS[name](batch)
    for _ in range(10):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(median(times), flush=True)


def race(batch: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step of each round, by contestant."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    command = [sys.executable, __file__, "--steps", str(steps), "--batch", str(batch), "--contestant"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    running = {name: subprocess.Popen([*command, name], **pipes) for name in CONTESTANTS}
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    try:
        for process in running.values():
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"a contestant did not start: {process.args}")
        for _ in range(rounds):
            for name, process in running.items():
                process.stdin.write("go\n")
                process.stdin.flush()
                times[name].append(float(process.stdout.readline()))
    finally:
        for process in running.values():
            process.stdin.close()
            process.wait()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", default="64,256", help="batch sizes (default: 64,256)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default: 15)")
    parser.add_argument("--steps", type=int, default=20, help="steps a round (default: 20)")
    parser.add_argument("--json", type=Path, help="write every round's figure to this file")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    batches = [int(size) for size in options.batch.split(",")]
    if options.contestant:
        contestant(options.contestant, batches[0], options.steps)
        return
    rows, record = [], []
    for batch in batches:
        times = race(batch, options.rounds, options.steps)
        middle = {name: median(values) for name, values in times.items()}
        fastest_torch = min(middle["torch"], middle["torch channels_last"])
        for name, values in times.items():
            quarter = sorted(values)[len(values) // 4 : -(len(values) // 4) or None]
            rows.append(
                [batch, name, middle[name] * 1e3, (quarter[-1] - quarter[0]) * 1e3, batch / middle[name]]
                + [middle["torch"] / middle[name], fastest_torch / middle[name]]
            )
            record.append({"batch": batch, "contestant": name, "seconds": values})
        share = 1 - middle["direct"] / middle["gpucnn"]
        rows.append([batch, "share above the kernels", f"{share:.1%}"])
    headers = ["batch", "contestant", "ms a step", "spread ms", "images/s", "x torch", "x faster torch"]
    print(tabulate(rows, headers, floatfmt=("d", "s", ".2f", ".2f", ".0f", ".2f", ".2f")))
    if options.json:
        machine = {"machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
        options.json.write_text(json.dumps({"study": "lenet5_step", **machine, "rows": record}, indent=1) + "\n")


if __name__ == "__main__":
    main()
