"""Writes the small files of PyTorch weights in tests/facts that the tests of gpucnn.load read; needs PyTorch.

python tools/make_weight_files.py
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

FACTS = Path(__file__).parent.parent / "tests" / "facts"


def contents() -> dict[str, Any]:
    """Every dtype that is read, views that share a storage, and plain containers."""
    import torch

    base = torch.arange(12.0)
    numbers = [0.0, -1.5, 2.0, 0.125]
    floats = {
        str(kind)[6:]: torch.tensor(numbers, dtype=kind) for kind in (torch.float64, torch.float16, torch.bfloat16)
    }
    integers = {str(kind)[6:]: torch.tensor([0, 1, 2], dtype=kind) for kind in (torch.int64, torch.int32, torch.int16)}
    small = {str(kind)[6:]: torch.tensor([0, 1, 1], dtype=kind) for kind in (torch.int8, torch.uint8, torch.bool)}
    state = OrderedDict({"weight": base, "transposed": base[2:8].view(2, 3).t(), **floats, **integers, **small})
    state["parameter"] = torch.nn.Parameter(torch.ones(2, 1, 1, 1))
    state["scalar"], state["nothing"] = torch.tensor(3), torch.zeros(0, 3)
    state["marked"] = torch.nn.Parameter(torch.ones(2))
    setattr(state["marked"], "remark", "an attribute")  # noqa: B010  # which Tensor has not declared
    state["complex"] = torch.tensor([1 + 2j, -3j])
    state["unsigned"] = torch.tensor([0, 1, 65535], dtype=torch.uint16)
    state["expanded"] = base[:2].expand(3, 2)
    plain = [1, (2.5, "x", None, True, b"ab"), {"nested": -(10**30)}]
    return {"state_dict": state, "epoch": 3, "plain": plain, "schedule": {"milestones": Counter([30, 60])}}


def main() -> None:
    import torch

    FACTS.mkdir(exist_ok=True)
    torch.save(contents(), FACTS / "zip.pth")
    torch.save(contents(), FACTS / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Sequential(torch.nn.Linear(1, 1)), FACTS / "module.pth")


if __name__ == "__main__":
    main()
