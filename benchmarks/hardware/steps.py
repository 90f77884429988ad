"""What is done, most valuable first; on a GPU, or with the CPU standing in: the same steps on the least there is."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from hardware import readers
from hardware.driver import Part, Step

MEMORY_BOUND = {
    "resnet50": "batch_norm_relu,batch_norm,max_pool2d,avg_pool2d",
    "densenet121": "batch_norm_relu,cat,avg_pool2d",
    "mobilenet_v2": "batch_norm,batch_norm_relu,add",
}
"""What each network has of ops that move memory rather than compute."""

OTHERS = (
    ("softmax", "4096,1000"),
    ("layer_norm", "32,196,768"),
    ("cross_entropy", "4096,1000"),
    ("gelu", "32,196,3072"),
)
"""Ops that those networks don't have, and shapes."""

CONVOLUTIONS = (
    ("resnet50", "bfloat16", "highest", 32, 5.0),
    ("resnet50", "float32", "highest", 32, 4.0),
    ("mobilenet_v2", "bfloat16", "highest", 32, 3.0),
    ("resnet50", "float32", "high", 32, 2.0),
    ("resnext50", "bfloat16", "highest", 32, 2.0),
    ("vgg16", "bfloat16", "highest", 32, 1.0),
    ("resnet50", "float16", "highest", 32, 1.0),
    ("cifar", "float32", "highest", 128, 1.0),
    ("densenet121", "bfloat16", "highest", 32, 1.0),
    ("googlenet", "bfloat16", "highest", 32, 1.0),
)
"""(suite, dtype, precision, batch, weight): what is not reached in one run is where the next goes on."""
JOINED = {"vgg16": "conv2d_relu"}
"""What a suite's convolutions are called where it is not conv2d."""


@dataclass(frozen=True)
class Options:
    """How a run was asked for: what stands in, the folder for passing files, MNIST's folder, processes at a time."""

    stand_in: bool
    folder: Path
    data_dir: str | None
    processes: int = len(os.sched_getaffinity(0))


def steps(options: Options) -> list[Step]:
    """All of them, in order."""
    make = _stand_in if options.stand_in else _on_gpu
    return make(options)


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _lines(name: str, module: str, *arguments: str) -> Part:
    return Part(name, _python(module, *arguments), readers.Lines)


def _bench(options: Options, name: str, *arguments: str, weight: float = 1.0) -> Part:
    """A command of gpucnn bench, whose record is read."""
    file = options.folder / "part.json"
    command = _python("gpucnn", "bench", *arguments, "--json", str(file))
    return Part(name, command, functools.partial(readers.Record, file), weight=weight)


def _tests(name: str, options: Options, *arguments: str, weight: float = 1.0) -> Part:
    """Tests of kernels on the GPU. Warnings of versions that nobody has tested with are no failures here."""
    processes = min(options.processes, 12) if importlib.util.find_spec("xdist") else 1
    several = ("-n", str(processes), "--dist", "worksteal") if processes > 2 else ()
    flags = (
        "-m",
        "gpu",
        "-v",
        "-W",
        "default",
        "-p",
        "no:cacheprovider",
        "--tb=line",
        "--continue-on-collection-errors",
    )
    environment = {"GPUCNN_TEST_STAND_IN": "1" if options.stand_in else "0"}
    return Part(name, _python("pytest", *flags, *several, *arguments), readers.Tests, environment, weight=weight)


def _on_gpu(options: Options) -> list[Step]:
    digits = ("--data", "mnist", "--data-dir", options.data_dir, "--no-download") if options.data_dir else ()
    # Errors of the runtime's own calls, which asks for what the driver may not have, would drown those of kernels.
    quiet = ("--report-api-errors", "no", "--error-exitcode", "1")
    watched = [
        Part(
            tool,
            ("compute-sanitizer", "--tool", tool, *quiet, *_python("hardware.sanitized")),
            readers.Sanitizer,
            needs=("compute-sanitizer",),
        )
        for tool in ("memcheck", "racecheck", "synccheck")
    ]
    counted = (sys.executable, "benchmarks/calibrate_profile.py", "--rows")
    return [
        Step("build", [_lines("extension", "hardware.build")], 10.0, required=True),
        Step("instructions", [_lines("golden", "hardware.golden")], 0.6),
        Step("ceilings", [_lines("measured", "hardware.ceilings")], 0.3),
        Step(
            "tests",
            [
                _tests("public functions", options, "tests/test_on_gpu.py"),
                _tests("kernels", options, "tests", "--ignore", "tests/test_on_gpu.py", weight=4.0),
            ],
            2.2,
        ),
        Step("sanitizer", watched, 1.2),
        Step("counters", [Part("ncu", counted, readers.Lines, needs=("ncu",))], 0.8),
        Step(
            "conv",
            [
                _bench(
                    *(options, f"{name} {dtype} {precision}", "suite", name, "--op", JOINED.get(name, "conv2d")),
                    *("--batch", str(batch)),
                    *("--dtype", dtype, "--precision", precision, "--pass", "fwd,dgrad,wgrad", "--against", "torch"),
                    weight=weight,
                )
                for name, dtype, precision, batch, weight in CONVOLUTIONS
            ],
            2.6,
        ),
        Step(
            "memory_bound",
            [
                *(
                    _bench(
                        *(options, f"{name} {dtype}", "suite", name, "--op", ops, "--batch", "32"),
                        *("--dtype", dtype, "--against", "torch"),
                    )
                    for name, ops in MEMORY_BOUND.items()
                    for dtype in ("bfloat16", "float32")
                ),
                *(
                    _bench(options, f"{op} bfloat16", "op", op, "--shape", shape, "--dtype", "bfloat16")
                    for op, shape in OTHERS
                ),
            ],
            1.0,
        ),
        Step(
            "training",
            [
                _bench(options, "resnet50 amp", "model", "resnet50", "--train", "--amp", "bfloat16", "--batch", "64"),
                _bench(options, "lenet5", "model", "lenet5", "--train", *digits),
                _bench(options, "resnet20", "model", "resnet20", "--train", "--batch", "128"),
                _bench(
                    options, "resnet50 inference", "model", "resnet50", "--inference", "--fused", "--dtype", "bfloat16"
                ),
            ],
            1.6,
        ),
        Step("overhead", [_bench(options, "stack", "overhead")], 0.5),
    ]


def _stand_in(options: Options) -> list[Step]:
    simt = ("--rounds", "2", "--round-ms", "1", "--no-static", "--backend", "simt", "--batch", "1")
    alone = (*simt, "--against", "none")
    beside = (*simt, "--against", "torch")
    briefly = ("--train", "--batch", "8", "--rounds", "2", "--steps", "2", "--against", "none")
    watched = ("hardware.sanitized", "--stand-in", "--most", "6")
    counted = (sys.executable, "benchmarks/calibrate_profile.py", "--rows", "--stand-in", "--most", "2")
    of_lenet = ("suite", "lenet5", "--op")
    return [
        Step("build", [_lines("extension", "hardware.build", "--stand-in")], 10.0, required=True),
        Step("instructions", [_lines("golden", "hardware.golden", "--stand-in")], 1.0),
        Step("ceilings", [_lines("measured", "hardware.ceilings", "--device", "cpu")], 1.0),
        Step("tests", [_tests("kernels", options, "tests/test_simt_dropout.py")], 1.0),
        Step("sanitizer", [Part("no tool", _python(*watched), readers.Sanitizer)], 1.0),
        Step("counters", [Part("no tool", counted, readers.Lines)], 1.0),
        Step(
            "conv",
            [
                _bench(options, "lenet5 float32", *of_lenet, "conv2d", "--pass", "fwd,wgrad", *beside),
                _bench(options, "lenet5 bfloat16", *of_lenet, "conv2d", "--pass", "fwd", "--dtype", "bfloat16", *alone),
            ],
            1.0,
        ),
        Step("memory_bound", [_bench(options, "lenet5 float32", *of_lenet, "max_pool2d", *alone)], 1.0),
        Step("training", [_bench(options, "lenet5", "model", "lenet5", *briefly)], 1.0),
        Step(
            "overhead", [_bench(options, "relu", "overhead", "--ops", "relu", "--rounds", "2", "--device", "cpu")], 1.0
        ),
    ]
