"""LeNet-5 by its recipe on MNIST, several seeds: test error at the end of training, and its mean.

    python benchmarks/lenet5_mnist.py [--data mnist|mnist-sample] [--data-dir DIR] [--seeds 0,1,2] [--json FILE]

Each seed is a run of `gpucnn train` in a process of its own. The error is that of the last epoch, not of the best.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import record
from tabulate import tabulate


def train(data: str, data_dir: str | None, seed: int, folder: Path) -> dict[str, Any]:
    """What one run came to."""
    place = ["--data-dir", data_dir] if data_dir else []
    command = [sys.executable, "-m", "gpucnn", "train", "lenet5", "--data", data, *place]
    subprocess.run([*command, "--seed", str(seed), "--out", str(folder)], check=True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    config = json.loads((folder / "config.json").read_text())
    return {
        "seed": seed,
        "data": config["data"]["source"],
        "options": config["options"],
        "epochs": len(rows),
        "test_error": 1 - rows[-1]["test_accuracy"],
        "best_test_error": 1 - max(row["test_accuracy"] for row in rows),
        "training_seconds": sum(row["seconds"] for row in rows),
        "images_per_second": sum(row["images_per_second"] for row in rows) / len(rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", choices=["mnist", "mnist-sample"])
    parser.add_argument("--data-dir", help="folder with MNIST's four files")
    parser.add_argument("--seeds", default="0,1,2", help="seeds (default: 0,1,2)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            train(options.data, options.data_dir, seed, Path(folder, str(seed)))
            for seed in map(int, options.seeds.split(","))
        ]
    rows = [
        [
            *(run["seed"], run["epochs"], f"{run['test_error']:.2%}"),
            *(f"{run['training_seconds']:.0f}", f"{run['images_per_second']:,.0f}"),
        ]
        for run in runs
    ]
    rows.append(["mean", "", f"{mean(run['test_error'] for run in runs):.3%}", "", ""])
    headers = ["seed", "epochs", "test error", "training s", "images/s"]
    print(runs[0]["data"])
    print(tabulate(rows, headers, disable_numparse=True, colalign=["right"] * 5))
    if options.json:
        record.write(options.json, f"lenet5_{options.data}", runs)


if __name__ == "__main__":
    main()
