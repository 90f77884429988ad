"""gpucnn kernels."""

from __future__ import annotations

import json

import click
from tabulate import tabulate

from gpucnn import kernels as found
from gpucnn.kernels import Kernel


@click.command()
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def kernels(words: tuple[str, ...], as_json: bool) -> None:
    """Show every kernel and configuration: what it is for, what it takes of a GPU, whether a test compared it.

    With WORDS, those alone of which all words are somewhere in the line.
    """
    everything = found.kernels()
    shown = [kernel for kernel in everything if all(word in str(kernel.to_dict()) for word in words)]
    archs = sorted({arch for kernel in everything for arch in kernel.usage})
    if as_json:
        click.echo(json.dumps({"architectures": archs, "kernels": [kernel.to_dict() for kernel in shown]}))
        return
    headers = ["file", "kernel", "configuration", "for", "dtypes", "threads"]
    headers += [f"{what} {arch}" for arch in archs for what in ("registers", "shared", "blocks", "warps")]
    click.echo(tabulate([_row(kernel, archs) for kernel in shown], [*headers, "compared"], disable_numparse=True))
    compared = sum(kernel.compared for kernel in shown)
    click.echo(f"\n{len(shown)} of {len(everything)} kernels; {compared} of these compared by tests")
    if not archs:
        click.echo("registers and occupancy are not known: no kernel was compiled by nvcc here, see `gpucnn info`")


def _row(kernel: Kernel, archs: list[str]) -> list[str]:
    row = [kernel.file, kernel.name.partition("<")[0], kernel.configuration or kernel.name.partition("<")[2][:-1]]
    row += [", ".join(kernel.ops), ", ".join(kernel.dtypes), "" if kernel.threads is None else str(kernel.threads)]
    for arch in archs:
        usage = kernel.usage.get(arch)
        numbers = (usage.registers, usage.shared, usage.blocks, usage.warps) if usage else (None,) * 4
        row += ["" if number is None else str(number) for number in numbers]
    return [*row, "yes" if kernel.compared else "no"]
