"""What this machine reaches now: bytes a second of copies, operations a second of products; a row each."""

from __future__ import annotations

import argparse
import json

from gpucnn.bench.machine import here


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    machine = here(device)
    machine.bytes_per_second(1 << 30)
    for moved, rate in machine.bandwidth.items():
        print(json.dumps({"copied": moved, "bytes_per_second": rate}), flush=True)
    asked = [("float32", "highest")]
    if machine.kind == "cuda":
        asked += [("float32", "high"), ("bfloat16", "highest"), ("float16", "highest"), ("float64", "highest")]
    for dtype, precision in asked:
        machine.operations_per_second(dtype, precision)
    for factors, rate in machine.rates.items():
        print(json.dumps({"product": factors, "operations_per_second": rate}), flush=True)


if __name__ == "__main__":
    main()
