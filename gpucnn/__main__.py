"""python -m gpucnn: the command line."""

from gpucnn.cli import main

if __name__ == "__main__":
    main(prog_name="gpucnn")
