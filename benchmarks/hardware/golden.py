"""The GPU's own instructions beside the golden file of their models: tests/facts/simt/instructions.npz.

Prints a row for each instruction and kind of input. With --stand-in the models themselves, compiled anew, are asked.
Exit status 1 where any answer is another.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

import make_simt_golden as tool  # noqa: E402
from golden_checks import wrong_lanes  # noqa: E402

from cuda_options import BuildError  # noqa: E402
from cuda_toolkit import host_compiler  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stand-in", action="store_true")
    compiler = host_compiler(os.environ)
    if compiler is None:
        raise SystemExit("there is no C++ compiler (g++)")
    try:
        machine = tool.models(compiler) if parser.parse_args().stand_in else tool.device()
    except BuildError as error:
        raise SystemExit(str(error)) from None
    with np.load(tool.FACTS) as file:
        golden = dict(file)
    origin = str(golden.pop("origin"))
    wrong = 0
    for entry in sorted({name.rpartition(".")[0] for name in golden}):
        given, expected = golden[f"{entry}.in"], golden[f"{entry}.out"]
        row = {"instruction": entry, "of": int(expected.size), "from": machine.name, "golden": origin}
        try:
            places = wrong_lanes(entry, given, machine.run(entry.split(".")[0], given), expected)
        except RuntimeError as error:
            row |= {"status": f"failed: {error}"}
        else:
            row |= {"wrong": len(places), "status": "WRONG" if places else "ok"}
            row |= {"places": [list(place) for place in places[:8]]} if places else {}
        wrong += row["status"] != "ok"
        print(json.dumps(row), flush=True)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
