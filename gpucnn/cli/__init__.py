"""The command `gpucnn`: one module a subcommand."""

from gpucnn.cli.main import main

__all__ = ["main"]
