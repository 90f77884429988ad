"""The group of commands, and how errors reach the user: one line on standard error and an exit status."""

from __future__ import annotations

import logging
from typing import Any

import click

import gpucnn
from gpucnn.cli.bench import bench
from gpucnn.cli.evaluate import evaluate
from gpucnn.cli.explain import explain
from gpucnn.cli.info import info
from gpucnn.cli.kernels import kernels
from gpucnn.cli.predict import predict
from gpucnn.cli.profile import profile
from gpucnn.cli.summary import summary
from gpucnn.cli.train import train
from gpucnn.cli.tune import tune
from gpucnn.train import InterruptedRunError

INTERRUPTED = 130  # 128 + SIGINT, what a shell expects of a program that Ctrl-C ended
EXPECTED = (ValueError, TypeError, FileNotFoundError, FileExistsError, PermissionError, RuntimeError, MemoryError)


class _Group(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except InterruptedRunError as stopped:
            click.echo(str(stopped), err=True)
            context.exit(INTERRUPTED)
        except click.exceptions.Exit:  # a RuntimeError, but how click says "done"
            raise
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            context.exit(INTERRUPTED)
        except EXPECTED as error:
            if context.find_root().params.get("traceback"):
                raise
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(gpucnn.__version__, prog_name="gpucnn")
@click.option("--traceback", is_flag=True, help="Show where in the code an error arose, for a bug report.")
@click.option("-v", "--verbose", is_flag=True, help="Show log messages too.")
def main(traceback: bool, verbose: bool) -> None:
    """Train and study convolutional networks, on a GPU or without one."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )


for command in (train, evaluate, predict, summary, explain, kernels, profile, tune, bench, info):
    main.add_command(command)
