"""The calls of tests/budget_cases.py, which together launch every kernel, on the GPU: what compute-sanitizer watches.

Prints a row for each call that came to its end. Calls of different ops take turns, so that a run that is cut off has
seen some of each. Every array is an allocation of its own (tests/on_gpu.py), straight from the driver: within a pool,
nobody would see a block's end overrun.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import on_gpu  # noqa: E402
from budget_cases import in_turns  # noqa: E402

from gpucnn import backend, extension  # noqa: E402

LARGEST = 1 << 22
"""Elements of the largest tensor: a watched kernel takes a hundred times as long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stand-in", action="store_true", help="the kernels built for the CPU")
    parser.add_argument("--most", type=int, help="calls")
    options = parser.parse_args()
    if options.stand_in:
        module = on_gpu.OnDevice(extension.compiled("simt"), on_gpu.Host())
    else:
        backend.cupy().cuda.set_allocator(None)
        module = on_gpu.OnDevice(extension.require(), on_gpu.Gpu())
    with on_gpu.in_use(module):
        for _, case, dtype in in_turns(LARGEST)[: options.most]:
            with on_gpu.forced(case.kernel):
                case.run(dtype)
            print(json.dumps({"case": case.name, "dtype": dtype, "status": "ok"}), flush=True)


if __name__ == "__main__":
    main()
