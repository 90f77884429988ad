"""gpucnn.profile: counts of the package's own kernels against arithmetic on paper, and bounds in time from counts."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import pytest

import gpucnn
import gpucnn.functional as F
from gpucnn import extension, profile
from gpucnn.profile import (
    DEVICES,
    Access,
    Launch,
    Occupancy,
    Report,
    Run,
    bounds,
    device,
    occupancy,
    problem_bound,
    source,
)

needs_profile = pytest.mark.skipif(
    extension.load("_simt_profile") is None, reason=str(extension.why_missing("_simt_profile"))
)


def images(*shape: int) -> gpucnn.Tensor:
    return gpucnn.tensor(np.ones(shape, np.float32))


def the_launch(runs: list[Run]) -> Launch:
    (launch,) = [launch for run in runs for launch in run.launches]
    return launch


@needs_profile
def test_a_grid_stride_kernel_moves_each_byte_once() -> None:
    x = np.ones(40_000, np.float32)
    with profile.capture() as runs:
        module = extension.compiled("simt")
        y = np.empty_like(x)
        module.scale("float32", x, y, 2.0, 0)
    launch = the_launch(runs)
    assert launch.kernel == "scale_kernel<float, true>"
    assert launch.file == "template.cu"
    assert launch.sectors_read == launch.sectors_written == 40_000 * 4 // 32
    assert launch.moved_bytes == launch.asked_bytes == launch.compulsory_bytes == 2 * 4 * 40_000
    assert launch.conflicts == launch.barriers == launch.shared_bytes == 0
    assert launch.total("sectors") == launch.total("ideal_sectors")
    assert launch.multiplications == 40_000
    assert all(access.bytes == 16 and access.lanes == 10_000 for access in launch.accesses)
    assert {access.purpose for access in launch.accesses} == {"load", "store"}


@needs_profile
def test_the_direct_convolutions_multiplications_are_those_of_its_tiles() -> None:
    with profile.capture() as runs:
        F.conv2d(images(2, 32, 14, 14), images(32, 32, 3, 3), padding=1, kernel="direct")
    launch = the_launch(runs)
    rows, columns, depth = 64 * math.ceil(2 * 14 * 14 / 64), 32, 16 * math.ceil(32 * 9 / 16)
    by_file = {Path(file).name: 0 for file, _ in launch.fma}
    for (file, _), count in launch.fma.items():
        by_file[Path(file).name] += count
    assert by_file["tile.h"] == rows * columns * depth
    assert launch.barriers == launch.blocks * 2 * depth // 16


@needs_profile
def test_every_line_is_one_of_the_sources() -> None:
    root = Path(__file__).resolve().parent.parent
    with profile.capture() as runs:
        F.max_pool2d(images(1, 8, 6, 6), 2)
        F.conv2d(images(1, 4, 6, 6), images(8, 4, 3, 3), kernel="direct")
    launches = [launch for run in runs for launch in run.launches]
    assert len(launches) == 2
    for launch in launches:
        assert launch.accesses
        for (file, number), accesses in launch.by_line().items():
            assert file.startswith("csrc/"), accesses
            assert 1 <= number <= len((root / file).read_text(encoding="utf-8").splitlines())


@needs_profile
def test_sampling_is_said_and_scaled() -> None:
    x, w = images(4, 8, 16, 16), images(8, 8, 3, 3)
    with profile.capture() as all_blocks:
        F.conv2d(x, w, kernel="direct")
    with profile.capture(sample=4) as sampled:
        F.conv2d(x, w, kernel="direct")
    whole, part = the_launch(all_blocks), the_launch(sampled)
    assert whole.blocks == whole.sampled_blocks == part.blocks
    assert part.sampled_blocks == math.ceil(part.blocks / 4)
    assert part.scale == part.blocks / part.sampled_blocks
    assert part.multiplications * part.scale == pytest.approx(whole.multiplications, rel=0.1)
    with profile.capture(sample=4, only_sampled=True) as alone:
        F.conv2d(x, w, kernel="direct")
    assert counts_of(the_launch(alone)) == counts_of(part)


def counts_of(launch: profile.Launch) -> profile.Launch:
    """Without the addresses of the worst requests, which are where this call's arrays were."""
    accesses = tuple(dataclasses.replace(access, worst_addresses=()) for access in launch.accesses)
    return dataclasses.replace(launch, accesses=accesses)


@needs_profile
def test_capture_leaves_the_process_as_it_was() -> None:
    before = os.environ.get("GPUCNN_SIMT_FLAVOUR")
    with pytest.raises(ZeroDivisionError), profile.capture():
        raise ZeroDivisionError
    assert os.environ.get("GPUCNN_SIMT_FLAVOUR") == before
    module = extension.require("_simt_profile")
    module.scale("float32", np.ones(3, np.float32), np.empty(3, np.float32), 2.0, 0)
    assert module.take_profile() == []
    with pytest.raises(ValueError, match="sample must be at least 1, got 0"), profile.capture(0):
        pass


@needs_profile
def test_the_stem_asks_for_blocks_by_multiprocessors() -> None:
    with profile.capture(sample=2, only_sampled=True) as runs:
        F.conv2d(images(8, 3, 40, 40), images(8, 3, 3, 3), kernel="stem")
    (launch,) = runs[-1].launches
    assert launch.file == "stem_fprop.cu"
    assert launch.is_one_wave


def test_other_flavours_say_that_they_do_not_count() -> None:
    module = extension.load("_simt_plain")
    if module is None:
        pytest.skip(str(extension.why_missing("_simt_plain")))
    with pytest.raises(RuntimeError, match="only the flavour 'profile' counts"):
        module.start_profile(1)
    assert module.take_profile() == []


def test_a_tool_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "module.so").touch()
    with pytest.raises(RuntimeError, match=r"profiles need addr2line, which is not installed.*binutils"):
        source.lines(tmp_path / "module.so", [4])


# ----------------------------------------------------------------------------------------------------- bounds


ACCESS = Access(
    *(("a.cu", 1), "load", 4, 10, 320, 40, 40, 10, 1280),
    *(20, 640, 60, 20, True, 4, (0,) * 32),
)
LAUNCH = Launch(
    kernel="k",
    file="a.cu",
    grid=(264, 1, 1),
    block=(256, 1, 1),
    shared_bytes=1000,
    blocks=264,
    sampled_blocks=264,
    barriers=0,
    sectors_read=1000,
    sectors_written=500,
    least_l2_sectors=2000,
    global_wavefronts=300,
    steps=10,
    longest_warp_steps=4,
    longest_block_steps=5,
    warps=4,
    accesses=(ACCESS,),
    fma={("a.cu", 2): 132 * 128 * 1000},
    operations={("mma_m16n8k16_bf16", ("a.cu", 3)): 132 * 50, ("__syncwarp()", ("a.cu", 4)): 7},
)
H100 = device("h100")


def test_bounds_are_counts_over_rates() -> None:
    found = bounds(LAUNCH, H100)
    assert found.seconds == {
        "dram": pytest.approx(1500 * 32 / 3.35e12),
        "l2": pytest.approx(2000 * 32 / (5120 * 1.83e9)),
        "l1": pytest.approx((300 + 60) / 132 / 1.83e9),
        "fp32": pytest.approx(1000 / 1.83e9),
        "tensor": pytest.approx(50 / 1.83e9),
    }
    assert found.binding == "fp32"
    assert found.time == found.seconds["fp32"]


def test_a_grid_that_fills_a_wave_in_part_is_bound_by_its_busiest_multiprocessor() -> None:
    one_more = dataclasses.replace(LAUNCH, blocks=265, sampled_blocks=265, grid=(265, 1, 1))
    ratio = bounds(one_more, H100).seconds["fp32"] / bounds(LAUNCH, H100).seconds["fp32"]
    assert ratio == pytest.approx(3 / 265 * 264 / 2)  # three blocks of 265 in place of two of 264


def test_a_grid_of_one_wave_is_as_large_as_the_device() -> None:
    """Of 16 blocks of 256 here, which are two multiprocessors' full of threads."""
    wave = dataclasses.replace(LAUNCH, blocks=16, sampled_blocks=16, grid=(16, 1, 1))
    assert wave.is_one_wave
    assert not LAUNCH.is_one_wave
    assert bounds(wave, H100).seconds["l1"] == pytest.approx((300 + 60) / 132 / H100.clock)
    fewer = dataclasses.replace(LAUNCH, blocks=15, sampled_blocks=15, grid=(15, 1, 1))
    assert bounds(fewer, H100).seconds["l1"] == pytest.approx((300 + 60) / 15 / H100.clock)
    stem = dataclasses.replace(fewer, file="stem_fprop.cu", blocks=8, sampled_blocks=8, grid=(8, 1, 1))
    assert stem.is_one_wave  # of the number of blocks that it asks for itself
    assert bounds(stem, H100).seconds["l1"] == pytest.approx((300 + 60) / 132 / H100.clock)
    module = extension.load("_simt_profile")
    if module is None:
        return
    with profile.capture() as runs:
        F.relu(images(8, 64, 32, 32))
    assert the_launch(runs).is_one_wave


def test_sampled_counts_are_scaled() -> None:
    sampled = dataclasses.replace(LAUNCH, sampled_blocks=66)
    for name, seconds in bounds(sampled, H100).seconds.items():
        assert seconds == pytest.approx(4 * bounds(LAUNCH, H100).seconds[name])


def test_what_a_launch_sums_up() -> None:
    assert LAUNCH.conflicts == 40
    assert LAUNCH.moved_bytes == 40 * 32
    assert LAUNCH.asked_bytes == 320 * 4
    assert LAUNCH.compulsory_bytes == 1500 * 32
    assert LAUNCH.matrix_products == {"bf16": 132 * 50 * 2048}
    assert LAUNCH.warp_imbalance == pytest.approx(1.6)
    assert LAUNCH.block_imbalance == pytest.approx(5 * 264 / 10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Known answers of NVIDIA's occupancy calculator for compute capability 9.0.
        ((256, 32, 0, 1), (8, 64, "threads")),
        ((256, 128, 0, 1), (2, 16, "registers")),
        ((128, 255, 0, 1), (2, 8, "registers")),
        ((128, 40, 48 << 10, 1), (4, 16, "shared memory")),
        ((32, 16, 0, 1), (32, 32, "blocks")),
        ((1024, 64, 0, 1), (1, 32, "registers")),
        ((1024, 32, 0, 1), (2, 64, "threads")),
    ],
)
def test_occupancy(given: tuple[int, int, int, int], expected: tuple[int, int, str]) -> None:
    found = occupancy(*given, H100)
    assert (found.blocks, found.warps, found.limit) == expected


def test_occupancy_counts_waves_and_what_does_not_fit() -> None:
    assert occupancy(256, 128, 0, 132 * 2 * 3, H100).waves == 3.0
    nothing = occupancy(1024, 128, 0, 10, H100)
    assert (nothing.blocks, nothing.limit, nothing.is_known) == (0, "registers", False)
    assert math.isinf(nothing.waves)
    assert isinstance(nothing, Occupancy)


def test_the_problems_own_bound() -> None:
    assert problem_bound(3.35e12, 1, H100.fp32, H100) == pytest.approx(1.0)
    assert problem_bound(1, 132 * 128 * 1.83e9, H100.fp32, H100) == pytest.approx(1.0)
    assert problem_bound(1, 132 * 128 * 1.83e9, H100.tensor["bf16"], H100) == pytest.approx(1 / 16)


def test_what_a_request_would_have_cost_at_best() -> None:
    def ideal(size: int, is_shared: bool, addresses: list[int | None]) -> int:
        each = tuple([*addresses, *[None] * (32 - len(addresses))])
        return dataclasses.replace(ACCESS, bytes=size, worst_is_shared=is_shared, worst_addresses=each).worst_ideal

    assert [ideal(size, True, [128 * lane for lane in range(32)]) for size in (1, 2, 4, 8, 16)] == [1, 1, 1, 2, 4]
    assert ideal(16, True, [0] * 9) == 2
    assert [ideal(size, False, [128 * lane for lane in range(32)]) for size in (1, 4, 16)] == [1, 4, 16]
    assert ideal(4, False, [0] * 32) == 1


def test_the_costliest_access_of_a_line_is_the_one_farthest_from_the_ideal() -> None:
    side_by_side = tuple(range(0, 128, 4))
    load = dataclasses.replace(ACCESS, worst_is_shared=False, worst_cost=4, worst_addresses=side_by_side)
    store = dataclasses.replace(ACCESS, purpose="store", worst_cost=2, worst_addresses=(0, 128) * 16)
    launch = dataclasses.replace(LAUNCH, accesses=(load, store))
    report = Report([Run("op", "fprop", "chosen", "float32", "", 10, 0, (launch,))], H100)
    assert report.costliest("a.cu:1") == (store, "k")
    with pytest.raises(ValueError, match=r"a.cu:9 accesses no memory in these launches; these lines do: a.cu:1"):
        report.costliest("a.cu:9")


def test_a_report_tells_occupancy_where_registers_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report([Run("op", "fprop", "chosen", "float32", "", 10, 0, (LAUNCH,))], H100)
    known = {("a.cu", "k", "sm_80"): 32, ("a.cu", "k", "sm_90a"): 128, ("a.cu", "other", "sm_90a"): 1}
    monkeypatch.setattr("gpucnn.kernels.registers", lambda: known)
    held = report.occupancy(LAUNCH)
    assert held is not None
    assert (held.blocks, held.limit, held.waves) == (2, "registers", 1.0)
    assert "2 blocks (16 warps) on a multiprocessor, as registers allow; 1.00 waves" in report.lines()
    assert "the longest warp is 1.60 of the mean, the longest block 132.00" in report.lines()
    assert "waves: not known" not in report.table()
    on_a100 = dataclasses.replace(report, device=device("a100"))
    assert on_a100.occupancy(LAUNCH) == occupancy(256, 32, 1000, 264, device("a100"))
    ada = dataclasses.replace(report, device=device("rtx4090"))  # 8.9 runs what is compiled for 8.0
    assert ada.occupancy(LAUNCH) == occupancy(256, 32, 1000, 264, device("rtx4090"))
    monkeypatch.setattr("gpucnn.kernels.registers", dict)
    unknown = Report(report.runs, H100)
    assert unknown.occupancy(LAUNCH) is None
    assert "waves: not known, since nvcc has compiled no kernel here" in unknown.table()
    assert "floating-point atomics: 0" in unknown.table()
    (launch,) = unknown.to_dict()["runs"][0]["launches"]
    assert (launch["occupancy"], launch["floating_point_atomics"], launch["warp_imbalance"]) == (None, 0, 1.6)


def test_devices_are_described_with_sources() -> None:
    assert set(DEVICES) == {"h100", "h200", "a100", "rtx4090"}
    for found in DEVICES.values():
        assert found.source
        assert set(found.tensor) == {"bf16", "fp16", "tf32"}
        assert found.threads % 32 == 0
    peak = H100.multiprocessors * H100.clock * 2
    assert peak * H100.fp32 == pytest.approx(67e12, rel=0.1)  # the data sheet's teraflops; its clock is a little higher
    assert peak * H100.tensor["bf16"] == pytest.approx(989e12, rel=0.01)
    a100 = device("a100")
    assert a100.multiprocessors * a100.clock * 2 * a100.fp32 == pytest.approx(19.5e12, rel=0.01)
    assert a100.multiprocessors * a100.clock * 2 * a100.tensor["fp16"] == pytest.approx(312e12, rel=0.01)
    ada = device("rtx4090")
    assert ada.multiprocessors * ada.clock * 2 * ada.fp32 == pytest.approx(82.6e12, rel=0.01)
    assert ada.multiprocessors * ada.clock * 2 * ada.tensor["fp16"] == pytest.approx(165.2e12, rel=0.01)


def test_an_unknown_device_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"no description of a device 'H10', there are: h100, .*did you mean 'h100'"):
        device("H10")
