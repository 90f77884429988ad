"""What kernels do for a call, counted in some blocks or for fewer images, against all of them counted."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest
from static_checks import H100, conv, needs_profile, rows_of

import gpucnn
from gpucnn.bench import counted
from gpucnn.bench.counted import Counter, grown, of_images, questions, stride
from gpucnn.calls import Call
from gpucnn.profile import Access, Launch, Report, capture

# ------------------------------------------------------------------------------------------------------- what is asked


def test_a_call_asks_its_questions_forward_and_backward() -> None:
    call = Call.of("conv2d", (2, 8, 6, 6), (8, 8, 3, 3), (8,))
    found = questions(call)
    assert [(each.table.direction, each.moment) for each in found] == [
        *(("fprop", "fwd"), ("dgrad", "bwd"), ("wgrad", "bwd"), ("bgrad", "bwd"))
    ]
    assert [each.table.direction for each in questions(call, backward=False)] == ["fprop"]
    assert found[0].bytes == 4 * (2 * 8 * 36 + 8 * 8 * 9 + 8 + 2 * 8 * 16)
    assert found[0].products == 2 * 8 * 8 * 9 * 16
    assert all(argument.grad is None for argument in call.arguments)


def test_the_same_question_is_kept_once_and_counted() -> None:
    x = (2, 8, 6, 6)
    (relu, *_) = questions(Call.of(lambda a: gpucnn.functional.relu(gpucnn.functional.relu(a)), x), backward=False)
    assert (str(relu.table), relu.times) == ("relu forward", 2)


def test_large_calls_fill_no_memory() -> None:
    """6 arrays of 411 MB; in a process of its own, since the tests fill what they allocate."""
    code = (
        "import resource; from gpucnn.bench.counted import questions; from gpucnn.calls import Call\n"
        "def held(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "questions(Call.of('add', (1, 2, 3, 4), (1, 2, 3, 4)))\n"
        "before, big = held(), (32, 64, 224, 224)\n"
        "for call in (Call.of('add', big, big), Call.of('conv2d', big, (64, 64, 3, 3), padding=1)): questions(call)\n"
        "print(held() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64


# ------------------------------------------------------------------------------------------------------------ counting


@needs_profile
def test_a_small_call_is_counted_whole() -> None:
    call = conv(2, 16, 9, 9)
    rows = rows_of(call, ["fwd", "dgrad", "wgrad"])
    with capture() as runs:
        call.run()
    assert [row.direction for row in rows] == [run.direction for run in runs] == ["fprop", "dgrad", "wgrad"]
    for row, run in zip(rows, runs, strict=True):
        assert row.counts is not None
        assert row.counts.counted == "all blocks"
        assert row.kernel == run.kernel
        assert (row.bytes, row.products) == (run.bytes, run.products)
        found = Report([run], H100).rows()
        for name in ("requests", "sectors", "ideal_sectors", "conflicts", "moved_bytes", "products"):
            assert getattr(row.counts, name) == sum(getattr(each, name) for each in found), name
        assert row.counts.seconds == {
            name: pytest.approx(sum(each.seconds[name] for each in found)) for name in found[0].seconds
        }
        assert row.counts.bound == max(row.counts.seconds.values()) == row.counts.seconds[row.counts.binding]
        assert row.counts.needed == found[0].needed
        assert [each.kernel for each in row.taken] == [launch.kernel for launch in run.launches]
        assert [each.grid for each in row.taken] == [launch.blocks for launch in run.launches]


NAMES = ("requests", "sectors", "shared_requests", "moved_bytes", "products")


@needs_profile
@pytest.mark.parametrize("kernel", ["direct", "implicit_gemm", "split_bf16"])
def test_some_blocks_stand_for_all(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = conv(4, 16, 33, 33)
    monkeypatch.setattr(counted, "STEPS", 10**9)
    exact = rows_of(call, ["fwd", "dgrad"], kernel)
    monkeypatch.setattr(counted, "STEPS", 120_000)
    for row, whole in zip(rows_of(call, ["fwd", "dgrad"], kernel), exact, strict=True):
        assert row.counts is not None
        assert whole.counts is not None
        assert whole.counts.counted == "all blocks"
        assert re.fullmatch(r"\d+ of \d+ blocks", row.counts.counted)
        for name in NAMES:
            assert getattr(row.counts, name) == pytest.approx(getattr(whole.counts, name), rel=0.25), name
        assert row.counts.seconds["dram"] <= row.bytes / H100.dram * (1 + 1e-9)
        assert [each.grid for each in row.taken] == [each.grid for each in whole.taken]


@needs_profile
@pytest.mark.parametrize(
    ("call", "passes", "kernel"),
    [
        (lambda: conv(16, 32, 16, 16, filters=64), ["wgrad"], "implicit_gemm"),
        (lambda: conv(32, 16, 24, 24), ["wgrad"], "direct"),
        (lambda: conv(32, 16, 24, 24, dtype="bfloat16"), ["wgrad"], "tensor_core"),
        (lambda: Call.of("conv2d", (32, 3, 32, 32), (16, 3, 5, 5)), ["fwd"], "stem"),
        (lambda: Call.of("relu", (128, 16, 24, 24)), ["fwd", "bwd"], None),
        (lambda: Call.of("add", (128, 16, 24, 24), (128, 16, 24, 24)), ["fwd"], None),
    ],
)
def test_few_images_stand_for_all(
    call: Any, passes: list[str], kernel: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a block has a share of all of them: what is counted for a few is what it is for all, but for the edges (of
    images, and of the tiles of the one block that is counted)."""
    monkeypatch.setattr(counted, "STEPS", 10**9)
    exact = rows_of(call(), passes, kernel)
    monkeypatch.setattr(counted, "STEPS", 1)
    monkeypatch.setattr(counted, "_PRODUCTS", 20_000_000)
    monkeypatch.setattr(counted, "_BYTES", 1 << 20)
    for row, whole in zip(rows_of(call(), passes, kernel), exact, strict=True):
        assert row.counts is not None
        assert whole.counts is not None
        assert whole.counts.counted == "all blocks"
        assert re.fullmatch(r"\d+ of (16|32|128) images, \d+ blocks", row.counts.counted)
        for name in NAMES:
            assert getattr(row.counts, name) == pytest.approx(getattr(whole.counts, name), rel=0.3), name
        assert (row.bytes, row.products, row.problem) == (whole.bytes, whole.products, whole.problem)
        assert row.kernel == whole.kernel
        assert [each.kernel for each in row.taken] == [each.kernel for each in whole.taken]


ACCESS = Access(("a.cu", 1), "load", 4, 100, 3200, 400, 400, 100, 12800, 50, 1600, 60, 50, False, 4, (None,) * 32)
LAUNCH = Launch(
    *("k", "a.cu", (10, 1, 1), (256, 1, 1), 0, 10, 10, 20, 400, 40, 440, 100, 1000, 30, 110, 80, (ACCESS,)),
    fma={("a.cu", 1): 6400},
    operations={("mma_m16n8k16_bf16", ("a.cu", 1)): 7},
)


def test_what_more_images_do_to_a_launch() -> None:
    half_the_grid = dataclasses.replace(LAUNCH, blocks=5, sampled_blocks=5, steps=500)
    more_blocks = grown(LAUNCH, half_the_grid, 8)
    assert (more_blocks.blocks, more_blocks.steps, more_blocks.scale) == (80, 1000, 8)
    fewer = dataclasses.replace(ACCESS, requests=60, wavefronts=30, ideal_wavefronts=25)
    half = dataclasses.replace(
        LAUNCH, steps=500, sectors_written=40, accesses=(fewer,), fma={("a.cu", 1): 3200}, operations={}
    )
    more_in_each = grown(LAUNCH, half, 8)
    assert (more_in_each.blocks, more_in_each.scale, more_in_each.steps, more_in_each.warps) == (10, 1, 8000, 80)
    assert (more_in_each.sectors_read, more_in_each.sectors_written) == (400, 40)  # the same for half: for more too
    assert more_in_each.multiplications == 51200
    assert more_in_each.matrix_products == {"bf16": 8 * 7 * 2048}
    (access,) = more_in_each.accesses
    assert (access.requests, access.wavefronts, access.bytes, access.worst_cost) == (100 + 14 * 40, 480, 4, 4)
    other_grid = dataclasses.replace(half, blocks=8, sampled_blocks=8)
    assert grown(LAUNCH, other_grid, 8).accesses[0].requests == 800
    assert grown(LAUNCH, LAUNCH, 8) is LAUNCH


@pytest.mark.parametrize(("blocks", "several"), [(12544, 5), (50176, 5), (1, 5), (4, 5), (528, 2), (1152, 3), (97, 4)])
def test_blocks_are_from_all_over_the_grid(blocks: int, several: int) -> None:
    step = stride(blocks, several)
    counts = -(-blocks // step)
    assert min(blocks, several) - 1 <= counts <= several + 1
    for size in (2, 3, 7):
        if blocks % size == 0 and counts >= size:  # of a grid with so many columns each is met
            assert {at % size for at in range(0, blocks, step)} == set(range(size))


def test_fewer_images_are_told_by_names() -> None:
    same = 16  # images, channels and filters
    fewer = of_images(Call.of("conv2d", (same, 16, 8, 8), (16, 16, 3, 3), (16,), padding=1, dtype="float16"), 2)
    assert fewer is not None
    assert {name: value.shape for name, value in fewer.options.items() if isinstance(value, gpucnn.Tensor)} == {
        **{"input": (2, 16, 8, 8), "weight": (16, 16, 3, 3), "bias": (16,)}
    }
    assert fewer.options["padding"] == 1
    assert fewer.options["input"].dtype == "float16"
    assert fewer.options["input"].requires_grad
    labels = of_images(Call.of("cross_entropy", (8, 10), (8,)), 4)
    assert labels is not None
    assert labels.options["target"].shape == (4,)
    assert labels.options["target"].dtype == "int64"
    both = of_images(Call.of("cat", ((8, 2), (8, 3)), dim=1), 2)
    assert both is not None
    assert [each.shape for each in both.options["tensors"]] == [(2, 2), (2, 3)]
    assert of_images(Call.of("relu", (8, 2)), 8) is None
    assert of_images(Call.of(lambda *inputs: inputs[0], (8, 2)), 2) is None


@needs_profile
def test_sizes_that_fit_for_all_images_alone_are_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a product whose inner size is the number of images: fewer of them would not fit."""
    monkeypatch.setattr(counted, "_PRODUCTS", 100)
    call = Call.of("matmul", (64, 64), (64, 32))
    assert Counter(call)._ask_of(2) is None
    (row, *_) = rows_of(call, ["fwd"])
    assert row.counts is not None
    assert row.counts.counted == "all blocks"
