"""The instruction models against the golden file, and both against numpy's reading of the PTX manual.

The golden file is what tools/make_simt_golden.py wrote: on a GPU its own instructions, before that the models. Not
calibrated against hardware until the file's origin is a GPU.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import make_simt_golden as tool
import ml_dtypes
import numpy as np
import pytest
from golden_checks import LANE, halves, matrices, shares, wrong_lanes
from simt_checks import compiler

from cuda_toolkit import find_toolkit

with np.load(tool.FACTS) as _file:
    GOLDEN: dict[str, Any] = dict(_file)
INSTRUCTIONS = sorted({name.split(".")[0] for name in GOLDEN if name != "origin"})
ENTRIES = sorted({name.rpartition(".")[0] for name in GOLDEN if name != "origin"})
MMA = [name for name in INSTRUCTIONS if name.startswith("mma")]


@pytest.fixture(scope="module")
def models() -> tool.Machine:
    return tool.models(compiler())


@pytest.mark.parametrize("entry", ENTRIES)
def test_model_gives_what_the_file_says(entry: str, models: tool.Machine) -> None:
    given, expected = GOLDEN[f"{entry}.in"], GOLDEN[f"{entry}.out"]
    found = models.run(entry.split(".")[0], given)
    assert wrong_lanes(entry, given, found, expected) == [], f"{GOLDEN['origin']} says otherwise"


def test_the_file_is_of_these_instructions_and_inputs(models: tool.Machine) -> None:
    """Else the tool has to be run again, on a GPU if the file came from one."""
    assert sorted(models.words) == INSTRUCTIONS
    for instruction, (words, _) in models.words.items():
        for kind, given in tool.inputs(instruction, words).items():
            np.testing.assert_array_equal(GOLDEN[f"{instruction}.{kind}.in"], given)
    assert len(ENTRIES) == len(INSTRUCTIONS) + len(MMA)


@pytest.mark.parametrize("instruction", MMA)
@pytest.mark.parametrize("kind", ["bits", "products"])
def test_file_has_the_products_of_the_matrices(instruction: str, kind: str) -> None:
    entry = f"{instruction}.{kind}"
    given = GOLDEN[f"{entry}.in"]
    expected = []
    for trial in given:
        a, b, d = matrices(instruction, trial)
        expected.append(shares(a @ b + d).astype(np.float32).view(np.uint32))
    assert wrong_lanes(entry, given, GOLDEN[f"{entry}.out"], np.array(expected)) == []


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_file_has_the_matrices_where_they_belong(count: int, transposed: bool) -> None:
    entry = f"ldmatrix_x{count}{'_trans' if transposed else ''}.bits"
    for given, found in zip(GOLDEN[f"{entry}.in"], GOLDEN[f"{entry}.out"], strict=True):
        rows = halves(given).reshape(4, 8, 8)[:count]  # matrix, row, column
        if transposed:
            rows = rows.transpose(0, 2, 1)
        np.testing.assert_array_equal(halves(found), rows.reshape(count, 32, 2).transpose(1, 0, 2))


@pytest.mark.parametrize("size", [4, 8, 16])
def test_file_has_copies_and_zeros(size: int) -> None:
    for given, found in zip(GOLDEN[f"cp_async_{size}.bits.in"], GOLDEN[f"cp_async_{size}.bits.out"], strict=True):
        np.testing.assert_array_equal(found, np.where((LANE % 3 != 0)[:, None], given, 0)[LANE ^ 5])


@pytest.mark.parametrize("width", [32, 8])
def test_file_has_the_values_of_other_lanes(width: int) -> None:
    suffix = "" if width == 32 else f"_of_{width}"
    first = LANE // width * width
    sources = {
        "shfl": lambda by: first + by % width,
        "shfl_xor": lambda by: np.where((LANE ^ by) < first + width, LANE ^ by, LANE),
        "shfl_up": lambda by: np.where(LANE - by >= first, LANE - by, LANE),
        "shfl_down": lambda by: np.where(LANE + by < first + width, LANE + by, LANE),
    }
    for name, source in sources.items():
        entry = f"{name}{suffix}.bits"
        for given, found in zip(GOLDEN[f"{entry}.in"], GOLDEN[f"{entry}.out"], strict=True):
            np.testing.assert_array_equal(found[:, 0], given[source(given[:, 1].astype(int)), 0], err_msg=entry)


def test_file_has_reductions_and_votes() -> None:
    expected = {
        "ballot": lambda x: np.sum((x % 2) << LANE.astype(np.uint32)),
        "any": lambda x: np.any(x % 2),
        "all_of": lambda x: np.all(x % 2),
        "reduce_add": lambda x: np.add.reduce(x, dtype=np.uint32),
        "reduce_min": np.min,
        "reduce_max": np.max,
        "reduce_min_int": lambda x: np.min(x.view(np.int32)),
        "reduce_max_int": lambda x: np.max(x.view(np.int32)),
        "reduce_and": np.bitwise_and.reduce,
        "reduce_or": np.bitwise_or.reduce,
        "reduce_xor": np.bitwise_xor.reduce,
    }
    for name, reduce in expected.items():
        for given, found in zip(GOLDEN[f"{name}.bits.in"], GOLDEN[f"{name}.bits.out"], strict=True):
            assert set(map(int, found[:, 0])) == {int(reduce(given[:, 0])) % 2**32}, name


def test_file_has_the_nearest_numbers() -> None:
    """Of 8 bits, even where two are as near, and of 11, away from zero where they are; NaN stay some NaN."""
    bfloat16 = ml_dtypes.bfloat16
    for given, found in zip(GOLDEN["pack_bfloat16.bits.in"], GOLDEN["pack_bfloat16.bits.out"], strict=True):
        expected = given.view(np.float32).astype(bfloat16).astype(np.float32)
        np.testing.assert_array_equal(halves(found[:, 0]).view(bfloat16).astype(np.float32), expected)
    for given, found in zip(GOLDEN["to_tf32.bits.in"], GOLDEN["to_tf32.bits.out"], strict=True):
        number = np.isfinite(given.view(np.float32))
        up = np.where(number, (given + np.uint32(0x1000)) & np.uint32(0xFFFFE000), given)
        np.testing.assert_array_equal(found.view(np.float32), up.view(np.float32))


@pytest.mark.parametrize("entry", ["ldmatrix_x4.bits", "mma_m16n8k16_bf16.bits", "mma_m16n8k8_tf32.products"])
@pytest.mark.parametrize("harm", ["two lanes swapped", "one bit", "NaN"])
def test_a_wrong_answer_is_seen(entry: str, harm: str) -> None:
    given, expected = GOLDEN[f"{entry}.in"], GOLDEN[f"{entry}.out"]
    found = expected.copy()
    if harm == "two lanes swapped":
        found[0, [3, 4]] = found[0, [4, 3]]
    elif harm == "one bit":
        found[1, 7, 0] ^= 2**16
    else:
        found[1, 7, 0] = 0x7FC00000
    assert wrong_lanes(entry, given, found, expected)


@pytest.fixture(scope="module")
def compiled_for_device(tmp_path_factory: pytest.TempPathFactory) -> tool.Machine:
    toolkit = find_toolkit(os.environ, sys.path).toolkit
    if toolkit is None:
        pytest.skip("there is no nvcc, which compiles the instructions for a GPU")
    library = tmp_path_factory.mktemp("device") / "instructions.so"
    tool.compile_for_device(toolkit.nvcc, library)
    return tool.Machine(library)


def test_the_same_kernels_compile_for_a_gpu(compiled_for_device: tool.Machine) -> None:
    assert sorted(compiled_for_device.words) == INSTRUCTIONS


@pytest.mark.gpu
def test_a_gpu_gives_what_the_file_says(compiled_for_device: tool.Machine) -> None:
    if compiled_for_device.name.startswith("no device"):
        pytest.skip(compiled_for_device.name)
    differing = {}
    for entry in ENTRIES:
        given, expected = GOLDEN[f"{entry}.in"], GOLDEN[f"{entry}.out"]
        differing[entry] = wrong_lanes(entry, given, compiled_for_device.run(entry.split(".")[0], given), expected)
    assert {entry: lanes for entry, lanes in differing.items() if lanes} == {}
