"""Builds the extension in place, for the GPU of this machine alone, and says with which code and for how long.

What stands in for a GPU are the kernels built for the CPU; these are left as they are where they are built already.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time

from gpucnn import extension
from hardware import place


def _is_built(flavour: str) -> bool:
    return importlib.util.find_spec(f"gpucnn._simt_{flavour}") is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stand-in", action="store_true")
    stand_in = parser.parse_args().stand_in
    built = _is_built("plain") and _is_built("profile")
    if stand_in:
        wanted = {"GPUCNN_CUDA": "0", "GPUCNN_SIMT": "plain,profile"}
    else:
        kept = [flavour for flavour in extension.FLAVOURS if flavour == "profile" or _is_built(flavour)]
        wanted = {"GPUCNN_CUDA": "1", "GPUCNN_SIMT": ",".join(kept), "GPUCNN_ARCHS": place.architecture()}
    begin = time.perf_counter()
    if not (stand_in and built):
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(command, env={**os.environ, **wanted}, check=True)
    seconds = time.perf_counter() - begin
    importlib.invalidate_caches()
    found = {**(extension.build_info() or {}), **wanted, "took": round(seconds, 1)}
    if not stand_in:
        count, why = extension.require().device_count()
        if count == 0:
            raise SystemExit(f"the extension is built, but finds no GPU: {why}")
        found["devices"] = count
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
