"""A process that runs cases of a library made from this folder: run_cases.py LIBRARY [--apart] < requests > answers.

Requests are one JSON list of [case, order]. For each, one line of JSON: `outcome` ("right", "wrong", "fault: ..." or
"ended by ..."), `reports` (what the race checker found) and `printed` (on the error stream, by a sanitizer). With
--apart each case runs in a process of its own, for a sanitizer's first report is the last thing that a process does.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from typing import Any


def run(library: ctypes.CDLL, case: str, order: str) -> dict[str, Any]:
    outcome = library.run_case(case.encode(), order.encode()).decode()
    return {"outcome": outcome, "reports": library.take_reports().decode().splitlines(), "printed": ""}


def run_apart(library: ctypes.CDLL, case: str, order: str) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as answer, tempfile.TemporaryFile("w+") as printed:
        child = os.fork()
        if child == 0:
            os.dup2(printed.fileno(), 2)
            json.dump(run(library, case, order), answer)
            answer.flush()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer.seek(0)
        printed.seek(0)
        result = json.loads(answer.read() or '{"reports": []}')
        result.setdefault("outcome", f"ended by {status}")
        return {**result, "printed": printed.read()}


def main() -> None:
    library = ctypes.CDLL(sys.argv[1])
    for function in (library.case_names, library.run_case, library.take_reports):
        function.restype = ctypes.c_char_p
    one = run_apart if "--apart" in sys.argv else run
    for case, order in json.load(sys.stdin):
        print(json.dumps(one(library, case, order)), flush=True)


if __name__ == "__main__":
    main()
