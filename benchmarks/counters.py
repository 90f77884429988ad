"""What the kernels of one layer each of ResNet-50, MobileNet v2 and LeNet-5 ask of a GPU, counted without one.

    python benchmarks/counters.py [--only resnet50,lenet5] [--dtype float32] [--device h100] [--json FILE]

Every pass of a layer, forward and backward, runs with every kernel that can run it, the preferred one first; a line is
one launched kernel of one of them. The command is the same before and after a change of kernels. Needs
GPUCNN_SIMT=profile. Bounds are those of a model that is not calibrated: they rank kernels and predict nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import record

from gpucnn import backend
from gpucnn.calls import Call, normals
from gpucnn.ops.registry import KernelTable, observe_calls
from gpucnn.profile import Device, Run, bounds, capture, device, problem_bound
from gpucnn.profile.bounds import RESOURCES


@dataclass(frozen=True)
class Layer:
    """A call by shapes; `sample`: of how many blocks one is counted."""

    network: str
    name: str
    op: str
    arguments: dict[str, Any]
    sample: int = 1


def _conv(network: str, name: str, n: int, c: int, size: int, k: int, r: int, **options: Any) -> Layer:
    weight = (k, c // options.get("groups", 1), r, r)
    given = {"input": (n, c, size, size), "weight": weight, "bias": (k,), "padding": r // 2, **options}
    return Layer(network, name, "conv2d", given)


def _norm(channels: int) -> dict[str, Any]:
    each = ("running_mean", "running_var", "weight", "bias")
    return {"input": (2, channels, 28, 28), "training": True, **{name: (channels,) for name in each}}


LAYERS = (
    _conv("resnet50", "3x3 64->64 28x28", 2, 64, 28, 64, 3),
    _conv("resnet50", "1x1 64->256 28x28", 2, 64, 28, 256, 1),
    Layer("resnet50", "batch norm + relu 64 28x28", "batch_norm_relu", _norm(64)),
    Layer(
        *("resnet50", "max pool 3x3/2 64 112x112", "max_pool2d"),
        {"input": (1, 64, 112, 112), "kernel_size": 3, "stride": 2, "padding": 1},
        sample=8,
    ),
    _conv("mobilenet_v2", "1x1 24->144 28x28", 2, 24, 28, 144, 1),
    _conv("mobilenet_v2", "depthwise 3x3 144 28x28", 2, 144, 28, 144, 3, groups=144),
    _conv("mobilenet_v2", "depthwise 3x3/2 144 28x28", 2, 144, 28, 144, 3, groups=144, stride=2),
    _conv("mobilenet_v2", "1x1 144->24 28x28", 2, 144, 28, 24, 1),
    _conv("lenet5", "5x5 1->6 28x28", 8, 1, 28, 6, 5),
    Layer("lenet5", "max pool 2x2 6 28x28", "max_pool2d", {"input": (8, 6, 28, 28), "kernel_size": 2}),
    Layer("lenet5", "linear 400->120", "linear", {"input": (8, 400), "weight": (120, 400), "bias": (120,)}),
    Layer("lenet5", "cross entropy 10", "cross_entropy", {"input": (8, 10), "target": (8,)}),
)


@dataclass(frozen=True)
class Row:
    """One launched kernel of one pass; ratios are 0 where there is nothing to compare with.

    Attributes:
        chosen: the kernel's name in the op's table; `kernel`: the launched one's in the binary.
        sectors: of global memory, over the ideal.
        conflicts: of shared memory's banks; `wavefronts`: conflicts and what would be without them.
        traffic: bytes moved over those that have to be, each once.
        waste: multiplications of all the pass's launches over those that it needs.
        microseconds: by resource, at least.
        needed: microseconds that the pass needs whichever kernel runs it; `over_needed`: the bounds of all its
            launches, one after another, over that.
    """

    network: str
    layer: str
    direction: str
    chosen: str
    kernel: str
    sampled: float
    sectors: float
    conflicts: float
    wavefronts: float
    traffic: float
    waste: float
    microseconds: dict[str, float]
    bound: float
    binding: str
    needed: float
    over_needed: float


@dataclass(frozen=True)
class Pass:
    """A call of an op's table."""

    table: KernelTable
    problem: Any
    arrays: tuple[Any, ...]
    like: Any

    def kernels(self) -> list[str]:
        """Those that can run it, in order of preference."""
        return [spec.name for spec in self.table.specs("simt") if spec.why_not(self.problem, self.like) is None]


def passes(layer: Layer, dtype: str) -> list[Pass]:
    """What the layer's call, forward and backward, asks of tables."""
    found: list[Pass] = []

    def note(table: KernelTable, problem: Any, arrays: tuple[Any, ...], asked: str | None, like: Any) -> Any:
        found.append(Pass(table, problem, arrays, like))
        return table.pick(problem, like, asked).run(problem, *arrays)

    call = Call.of(layer.op, dtype=dtype, fill=normals, **layer.arguments)
    with backend.use_backend("simt", strict=True), observe_calls(note):
        call.run()
    return found


def rows(layer: Layer, dtype: str, target: Device) -> Iterator[Row]:
    """Of all kernels of all passes."""
    for each in passes(layer, dtype):
        for kernel in each.kernels():
            with capture(layer.sample, only_sampled=layer.sample > 1) as runs:
                each.table(each.problem, *each.arrays, kernel=kernel, like=each.like)
            for run in runs:
                yield from _of_run(layer, run, target)


def _of_run(layer: Layer, run: Run, target: Device) -> Iterator[Row]:
    least = [bounds(launch, target) for launch in run.launches]
    needed = problem_bound(run.bytes, run.products, target.fp32, target)
    products = sum(launch.scale * launch.multiplications for launch in run.launches)
    for launch, bound in zip(run.launches, least, strict=True):
        yield Row(
            *(layer.network, layer.name, f"{run.op} {run.direction}", run.kernel, launch.kernel),
            sampled=launch.sampled_blocks / launch.blocks,
            sectors=_over(launch.total("sectors"), launch.total("ideal_sectors")),
            conflicts=launch.scale * launch.conflicts,
            wavefronts=launch.scale * launch.total("wavefronts"),
            traffic=_over(launch.moved_bytes, launch.compulsory_bytes),
            waste=_over(products, run.products),
            microseconds={name: 1e6 * seconds for name, seconds in bound.seconds.items()},
            bound=1e6 * bound.time,
            binding=bound.binding,
            needed=1e6 * needed,
            over_needed=_over(sum(each.time for each in least), needed),
        )


def _over(value: float, of: float) -> float:
    return value / of if of else 0.0


def table(found: list[Row]) -> str:
    """In columns, a heading for each layer."""
    from tabulate import tabulate

    headers = [
        *("pass", "kernel", "sectors/ideal", "conflicts", "moved/once", "fma waste"),
        *(f"{name} us" for name in RESOURCES if name != "tensor"),
        *("bound us", "by", "x needed"),
    ]
    texts = []
    for layer in dict.fromkeys((row.network, row.layer) for row in found):
        cells, before = [], ()
        for row in [row for row in found if (row.network, row.layer) == layer]:
            of_pass = (row.direction, row.chosen)
            is_first, before = of_pass != before, of_pass
            conflicts = f"{100 * row.conflicts / row.wavefronts:.1f} %" if row.conflicts else "0"
            cells.append(
                [
                    row.direction,
                    f"{row.chosen}: {row.kernel}",
                    *(f"{row.sectors:.2f}", conflicts, f"{row.traffic:.2f}"),
                    f"{row.waste:.2f}" if is_first and row.waste else "",
                    *(f"{row.microseconds[name]:.3g}" for name in RESOURCES if name != "tensor"),
                    *(f"{row.bound:.3g}", row.binding, f"{row.over_needed:.2f}" if is_first else ""),
                ]
            )
        texts.append(f"{layer[0]}: {layer[1]}\n{tabulate(cells, headers=headers, disable_numparse=True)}")
    return "\n\n".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks, separated by commas")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="h100")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    target = device(options.device)
    only = set(options.only.split(",")) if options.only else {layer.network for layer in LAYERS}
    if unknown := sorted(only - {layer.network for layer in LAYERS}):
        raise SystemExit(f"--only: there is no {', '.join(unknown)}; expected any of resnet50, mobilenet_v2, lenet5")
    found = [row for layer in LAYERS if layer.network in only for row in rows(layer, options.dtype, target)]
    print(table(found))
    print(f"\n{target.name}, {options.dtype}: lower bounds of a model that is not calibrated")
    print("conflicts: bank conflicts in 100 wavefronts; fma waste and x needed: of a pass, all its launches together")
    if options.json:
        written = [{"dtype": options.dtype, "bounds_of": target.name, **asdict(row)} for row in found]
        record.write(options.json, "counters", written)


if __name__ == "__main__":
    main()
