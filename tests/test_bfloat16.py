"""bfloat16: tensors of it, what array code computes of them, and what is said where ml_dtypes is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from public_calls import CALLS, Maker

import gpucnn
from gpucnn import Tensor, backend, nn
from gpucnn import functional as F
from gpucnn.testing import assert_equal

B16 = np.dtype(ml_dtypes.bfloat16)


class Rounded(Maker):
    """Operands of another dtype, with the numbers that bfloat16 has."""

    def values(self, *args: Any, **options: Any) -> Tensor:
        made = super().values(*args, **options)
        made.data[...] = made.data.astype(B16).astype(made.dtype)
        return made


def tensors(result: Any) -> list[Tensor]:
    if isinstance(result, (tuple, list)):
        return [tensor for each in result for tensor in tensors(each)]
    return [result] if isinstance(result, Tensor) else []


def run(name: str, make: Maker) -> list[Tensor | None]:
    """What the call returns, and the gradients of its operands."""
    gpucnn.manual_seed(3)
    results = tensors(CALLS[name](make))
    for number, result in enumerate(results):
        if result.requires_grad:
            weights = np.random.default_rng(number).standard_normal(result.shape).astype(B16)
            result.backward(weights.astype(result.dtype.name), retain_graph=True)
    return [*results, *[leaf.grad for leaf in make.leaves]]


OF_ITS_OWN = {"drawn there", "network"}
"""Draws that are rounded, so that the numbers differ; and many layers, each of which rounds."""


@pytest.mark.parametrize("name", CALLS)
def test_array_code_computes_in_float32_and_rounds_what_leaves_it(name: str) -> None:
    with backend.use_backend("reference"):
        found, truth = run(name, Maker("cpu", "bfloat16")), run(name, Rounded("cpu", "float32"))
    for b, f in zip(found, truth, strict=True):
        assert (b is None) == (f is None)
        if b is None or f is None:
            continue
        assert b.dtype == (B16 if f.dtype == np.float32 and name != "drawn there" else f.dtype)
        if name in OF_ITS_OWN:
            continue
        expected = f.numpy().astype(np.float64)
        # A few roundings, of intermediate results of the size of the largest.
        allowed = 2.0**-5 * max(1.0, float(np.nan_to_num(np.abs(expected)).max(initial=0)))
        error = np.abs(b.numpy().astype(np.float64) - expected)
        assert ((error <= allowed) | (np.isnan(expected) & np.isnan(error))).all(), error.max()


def test_tensors_hold_it() -> None:
    x = gpucnn.tensor([[1.0, 2.5], [3.0, -4.0]], "bfloat16", requires_grad=True)
    assert x.dtype == B16
    assert x.to("float32").dtype == np.float32
    assert Tensor(np.ones(3, B16)).data.dtype == B16
    assert gpucnn.zeros(2, 3, 4, 5, dtype="bfloat16").data.transpose(0, 2, 3, 1).flags.c_contiguous
    (x * 2.0).sum().backward()
    assert x.grad is not None
    assert_equal(x.grad, np.full((2, 2), 2.0))
    assert x.grad.dtype == B16
    assert backend.accumulator(B16) == np.float32
    assert "bfloat16" in repr(x)
    assert (gpucnn.ones(2, dtype="bfloat16") + gpucnn.ones(2, dtype="float16")).dtype == np.float32
    assert (gpucnn.ones(2, dtype="bfloat16") + gpucnn.ones(2)).dtype == np.float32
    assert (gpucnn.ones(2, dtype="bfloat16") + 1.5).dtype == B16
    assert (gpucnn.ones(2, dtype="int64") + gpucnn.ones(2, dtype="bfloat16")).dtype == B16


def test_sums_are_kept_in_float32() -> None:
    """In bfloat16 a sum of ones ends at 256."""
    assert gpucnn.ones(1000, dtype="bfloat16").sum().item() == 1000
    assert gpucnn.ones(1, 1000, dtype="bfloat16").mean().item() == 1
    ones = gpucnn.ones(1, 1000, 1, 1, dtype="bfloat16")
    assert F.conv2d(ones, ones).item() == 1000


def test_a_network_trains() -> None:
    gpucnn.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model.to("bfloat16")
    optimizer = gpucnn.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x = gpucnn.randn(8, 1, 6, 6, dtype="bfloat16")
    labels = gpucnn.tensor(np.arange(8) % 3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_files_keep_it_where_that_is_asked_for(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5], [3.25, 0.0]], B16)
    gpucnn.save({"x": gpucnn.tensor(values), "y": np.float32(2)}, tmp_path / "x.safetensors")
    kept = gpucnn.load(tmp_path / "x.safetensors", keep_bfloat16=True)
    assert (kept["x"].dtype, kept["y"].dtype) == (B16, np.float32)
    assert_equal(kept["x"], values)
    wide = gpucnn.load(tmp_path / "x.safetensors")["x"]
    assert wide.dtype == np.float32
    assert_equal(wide, values.astype(np.float32))


@pytest.mark.peers
def test_files_of_pytorch_keep_it_too(tmp_path: Path, torch: Any) -> None:
    torch.save({"x": torch.tensor([1.0, -2.5, 3.0]).bfloat16()[1:]}, tmp_path / "x.pt")
    kept = gpucnn.load(tmp_path / "x.pt", keep_bfloat16=True)["x"]
    assert kept.dtype == B16
    assert_equal(kept, np.array([-2.5, 3.0], B16))
    assert gpucnn.load(tmp_path / "x.pt")["x"].dtype == np.float32


def test_weights_of_a_module_pass_through_a_file(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2).to("bfloat16")
    gpucnn.save(layer.state_dict(), tmp_path / "x.safetensors")
    for keep in (False, True):
        other = nn.Linear(3, 2).to("bfloat16")
        other.load_state_dict(gpucnn.load(tmp_path / "x.safetensors", keep_bfloat16=keep))
        assert_equal(other.weight, layer.weight.numpy())


def test_without_ml_dtypes_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "import gpucnn\n"
        "try: gpucnn.zeros(2, dtype='bfloat16')\n"
        "except RuntimeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("bfloat16 needs ml_dtypes, which is not installed: pip install 'gpucnn[bfloat16]'")


def test_importing_the_engine_does_not_import_it() -> None:
    code = "import sys, gpucnn; print('ml_dtypes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_other_types_of_two_bytes_are_no_numbers() -> None:
    with pytest.raises(TypeError, match="a tensor holds floats"):
        gpucnn.tensor(np.zeros(3, "V2"))
