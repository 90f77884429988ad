"""The static table of CUDA kernels: counted, scaled, expected, and marked as what it is."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpucnn
from gpucnn import extension
from gpucnn.bench import counted
from gpucnn.bench.counted import Counter, grown, of_images, questions, stride
from gpucnn.bench.static import StaticRow, static_rows, static_table
from gpucnn.calls import Call
from gpucnn.kernels import Kernel, Usage
from gpucnn.ops.registry import TABLES
from gpucnn.profile import Access, Launch, Report, capture, device

needs_profile = pytest.mark.skipif(
    extension.load("_simt_profile") is None, reason=str(extension.why_missing("_simt_profile"))
)
H100 = device("h100")


def conv(*shape: int, dtype: str = "float32", filters: int = 16) -> Call:
    return Call.of("conv2d", shape, (filters, shape[1], 3, 3), padding=1, dtype=dtype)


def rows_of(call: Call, passes: list[str] | None = None, kernel: str | None = None) -> list[StaticRow]:
    return static_rows(call, passes, kernel, H100)


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


# ---------------------------------------------------------------------------------------------------------------- rows


def test_passes() -> None:
    call = Call.of("conv2d", (2, 8, 6, 6), (8, 8, 3, 3), (8,))
    expected = {
        ("fwd",): ["fprop"],
        ("dgrad",): ["dgrad"],
        ("wgrad", "dgrad"): ["dgrad", "wgrad"],
        ("bwd",): ["dgrad", "wgrad", "bgrad"],
        ("bwd", "dgrad"): ["dgrad", "wgrad", "bgrad"],
        None: ["fprop", "dgrad", "wgrad", "bgrad"],
    }
    for passes, directions in expected.items():
        rows = static_rows(call, passes, None, H100)
        assert [row.direction for row in rows] == directions
        names = {"fprop": "fwd", "dgrad": "dgrad", "wgrad": "wgrad", "bgrad": "bwd"}
        assert [row.to_dict()["pass"] for row in rows] == [names[each] for each in directions]


def test_every_kernel_that_can_run_it_has_a_row_and_one_is_preferred() -> None:
    call = conv(2, 16, 9, 9)
    rows = rows_of(call, ["fwd"], "all")
    (explained,) = gpucnn.explain("conv2d", (2, 16, 9, 9), (16, 16, 3, 3), padding=1, backend="cuda").passes[:1]
    able = {each.kernel: each for each in explained.candidates["cuda"] if each.can}
    assert [row.kernel for row in rows] == list(able)
    assert len(rows) > 2
    (preferred,) = [row.kernel for row in rows if row.is_preferred]
    assert preferred == explained.chosen("cuda")
    assert [row.kernel for row in rows_of(call, ["fwd"])] == [preferred]
    by_name = rows_of(call, None, "direct")
    assert [row.kernel for row in by_name] == ["direct", "direct", "direct"]
    assert not by_name[0].is_preferred


def test_a_configuration_can_be_asked_for() -> None:
    (row,) = rows_of(conv(2, 16, 9, 9), ["fwd"], "implicit_gemm:64x64")
    assert row.kernel == "implicit_gemm:64x64"
    assert row.configuration == "tile 64x64"


def test_a_kernel_that_one_table_has_leaves_the_others_to_the_preferred() -> None:
    rows = rows_of(Call.of("conv2d", (2, 8, 6, 6), (8, 8, 3, 3), (8,)), None, "implicit_gemm")
    assert [row.kernel for row in rows] == ["implicit_gemm", "implicit_gemm", "implicit_gemm", "columns"]


@pytest.mark.parametrize(
    ("direction", "name", "shape", "dtype"),
    [
        ("fprop", "split_bf16", (32, 64, 56, 56), "float32"),
        ("dgrad", "split_bf16_cut", (1, 512, 7, 7), "float32"),
        ("wgrad", "tensor_core", (32, 64, 28, 28), "bfloat16"),
        ("fprop", "implicit_gemm", (32, 64, 56, 56), "float32"),
    ],
)
def test_what_the_model_expects_is_what_explain_says(
    direction: str, name: str, shape: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counted, "why_not", lambda: "not wanted here")
    filters = shape[1]
    found = {
        (row.direction, row.kernel): row for row in rows_of(conv(*shape, dtype=dtype, filters=filters), None, "all")
    }
    expected = found[direction, name].expected
    assert expected is not None
    other = found[direction, "split_bf16" if name == "implicit_gemm" else name].configuration
    told = re.findall(r"([\d.]+) us", str(other))
    assert told[1 if name == "implicit_gemm" else 0] == f"{expected * 1e6:.3g}"
    assert found[direction, "direct"].expected is None


def test_in_groups_the_model_expects_what_explain_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "why_not", lambda: "not wanted here")
    (row,) = rows_of(Call.of("conv2d", (32, 128, 28, 28), (128, 4, 3, 3), groups=32), ["fwd"], "split_bf16")
    assert row.expected is not None
    assert f", {row.expected * 1e6:.3g} us expected" in str(row.configuration)


def test_what_no_kernel_can_run_is_said() -> None:
    call = Call.of("conv2d", (1, 4, 6, 6), (4, 4, 3, 3), dtype="float64")
    (row,) = rows_of(call, ["fwd"])
    assert (row.kernel, row.counts, row.taken) == ("", None, ())
    assert str(row.missing).startswith("no CUDA kernel can: needs float16 or bfloat16, got float64; needs float32, got")
    assert f"conv2d fprop  {row.missing}" in static_table([row], H100)


@pytest.mark.parametrize(
    ("passes", "kernel", "message"),
    [
        (["fdw"], None, r"no pass 'fdw', there are: fwd, dgrad, wgrad, bwd; did you mean 'fwd'\?"),
        (None, "implicit_gem", r"no kernel 'implicit_gem', there are: .*; did you mean 'implicit_gemm'\?"),
        (None, "depthwise", "kernel 'depthwise' can't run this: needs groups=C of 2 or more"),
        (["fwd"], "direct:64x64", "has no configuration '64x64'"),
    ],
)
def test_what_cannot_be_asked_for(passes: list[str] | None, kernel: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows_of(conv(2, 16, 9, 9), passes, kernel)


def test_a_pass_that_the_call_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"relu\(\(2, 3\)\) has no pass dgrad, it has: fwd, bwd"):
        rows_of(Call.of("relu", (2, 3)), ["dgrad"])


def test_without_the_flavour_that_counts_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "why_not", lambda: "the flavour is not there")
    usage = {"sm_90a": Usage(64, 4096, 0, 0), "sm_80": Usage(128, 4096, 0, 0)}
    mine = Kernel("a.cu", "mine<float>", "", ("conv2d fprop: direct",), ("float32",), 256, True, usage)
    wide = dataclasses.replace(mine, name="wide<float>", usage={"sm_90a": Usage(128, 4096, 0, 0)})
    halves = dataclasses.replace(mine, name="mine<half>", dtypes=("float16",))
    monkeypatch.setattr("gpucnn.kernels.kernels", lambda: [mine, wide, halves])
    (row,) = rows_of(conv(2, 16, 9, 9), ["fwd"], "direct")
    assert (row.counts, row.missing) == (None, "the flavour is not there")
    assert [(each.kernel, each.registers, each.blocks, each.limit) for each in row.taken] == [
        ("mine<float>", 64, 4, "registers"),
        ("wide<float>", 128, 2, "registers"),
    ]
    text = static_table([row], H100)
    assert re.search(r"conv2d fprop +direct +64-128 +4096 +2-4", text)
    assert "not counted: the flavour is not there" in text


def test_no_room_is_a_reason_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(*_: Any) -> Any:
        raise MemoryError("no room for 411 MB")

    monkeypatch.setattr(counted, "why_not", lambda: None)
    monkeypatch.setattr(Counter, "count", count)
    rows = rows_of(conv(2, 16, 9, 9), ["fwd", "dgrad"])
    assert [row.missing for row in rows] == ["no room for 411 MB"] * 2


@needs_profile
def test_registers_are_told_where_nvcc_has_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    (unknown,) = rows_of(conv(2, 16, 9, 9), ["fwd"], "direct")
    (taken,) = unknown.taken
    assert (taken.registers, taken.waves) == (None, None)
    assert f" {taken.shared}  " in static_table([unknown], H100)
    assert f"<={taken.blocks}" in static_table([unknown], H100)
    known = {(taken.file, taken.kernel, "sm_90a"): 200}
    monkeypatch.setattr("gpucnn.kernels.registers", lambda: known)
    (row,) = rows_of(conv(2, 16, 9, 9), ["fwd"], "direct")
    assert row.taken[0].registers == 200
    assert row.taken[0].limit == "registers"
    assert row.taken[0].waves == pytest.approx(row.taken[0].grid / (132 * row.taken[0].blocks))  # type: ignore[operator]
    assert re.search(rf"direct +200 +{taken.shared} +{row.taken[0].blocks} ", static_table([row], H100))


@needs_profile
def test_the_table_and_the_data_say_that_nothing_was_measured() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parent.parent / "benchmarks/results/schema.json").read_text(encoding="utf-8"))
    rows = rows_of(conv(2, 16, 9, 9), ["fwd"], "all") + rows_of(Call.of("relu", (2, 3, 4, 4)), ["fwd"])
    text = static_table(rows, H100)
    assert text.startswith("CUDA kernels on H100 SXM, static: nothing is measured\n")
    assert "not calibrated" in text
    assert text.count("pass ") == 2
    assert "conv2d((2, 16, 9, 9), (16, 16, 3, 3), padding=1), float32\n" in text
    assert re.search(r"\nconv2d fprop  > \w+ ", text)
    for row in rows:
        found = json.loads(json.dumps(row.to_dict()))
        jsonschema.validate(found, {"$ref": "#/$defs/measurement", "$defs": schema["$defs"]})
        assert found["status"] == "static: nothing is measured"
        assert found["microseconds"] is None
        assert found["pass"] == "fwd"
        assert found["device"] == "H100 SXM"
        assert found["counts"]["bound"] > 0
        assert found["taken"][0]["kernel"]


@needs_profile
def test_every_op_of_a_network_can_be_counted() -> None:
    """Of each table that a small training step asks, one row with counts."""
    calls = [
        Call.of("max_pool2d", (2, 8, 8, 8), kernel_size=2),
        Call.of("batch_norm", (2, 8, 6, 6), **{name: (8,) for name in ("running_mean", "running_var")}, training=True),
        Call.of("linear", (4, 32), (10, 32), (10,), dtype="bfloat16"),
        Call.of("cross_entropy", (4, 10), (4,)),
        Call.of(gpucnn.optim.SGD, (16, 8), lr=0.1, momentum=0.9),
    ]
    for call in calls:
        rows = rows_of(call)
        assert rows
        for row in rows:
            assert (row.op, row.direction) in TABLES
            assert row.counts is not None, row.missing
            assert row.counts.bound > 0
