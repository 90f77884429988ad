"""What the cost model plans: by hand on described GPUs, in words, and the same figures in C++ as in Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from planned_devices import RESNET, figures, layer, module

from gpucnn.ops import planned, tensor_core
from gpucnn.problem import conv2d_problem
from gpucnn.profile import DEVICES

ARITHMETICS = ("fp32", "16-bit", "tf32", "split")
SMALL_MODEL_ERROR = 1e-9


def plan(arithmetic: str, *sizes: Any, on: str = "h100", **options: Any) -> Any:
    return module().product_plan(arithmetic, *sizes, machine=figures(on), **options)


# --------------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("name", DEVICES)
def test_the_profiler_describes_devices_by_the_same_figures(name: str) -> None:
    device = DEVICES[name]
    assert figures(name) == (
        *(device.multiprocessors, device.fp32, device.mma, device.l2, device.l2_bytes),
        *(device.dram / device.clock, device.clock),
    )
    assert device.mma <= device.tensor["bf16"]
    assert device.tensor["tf32"] * 2 == device.tensor["bf16"]


def test_on_the_cpu_tiles_are_chosen_for_an_h100() -> None:
    assert module().machine() == figures("h100")


def test_a_newer_capability_is_planned_for_as_the_newest_before_it() -> None:
    of = module().machine_of
    assert of(10, 3, 148, 1.9e9, 1 << 27, 8e12)[1:4] == figures("h100")[1:4]
    assert of(12, 1, 170, 2.4e9, 1 << 27, 1.8e12)[1:4] == of(12, 0, 170, 2.4e9, 1 << 27, 1.8e12)[1:4]
    assert of(8, 6, 82, 1.7e9, 6 << 20, 9.4e11)[1:4] == (128, 256, 2048)


# ---------------------------------------------------------------------------------------------------------- by hand


def test_one_wave_by_hand() -> None:
    """132 tiles of 128 x 128, one for each multiprocessor, which takes it half as long again to do one alone."""
    found = plan("16-bit", 128 * 132, 128, 1200, configuration="128x128")
    assert found["waves"] == 0.5  # of two blocks a multiprocessor
    assert math.isclose(found["seconds"], 1.5 * 128 * 128 * 1200 / 1200 / 1.83e9, rel_tol=SMALL_MODEL_ERROR)
    one_more = plan("16-bit", 128 * 132 + 1, 128, 1200, configuration="128x128")
    assert math.isclose(one_more["seconds"], 2 / 1.5 * found["seconds"], rel_tol=SMALL_MODEL_ERROR)


def test_the_second_level_cache_bounds_by_hand() -> None:
    """256 x 64 sums read 320 lines a step for as many products as 128 x 128 read 256 for."""
    found = plan("16-bit", 256 * 1320, 64, 64, configuration="256x64")
    cycles = 1320 * (256 + 64) * 2 * 64 / 5120
    assert cycles > 10 * 256 * 64 * 64 / 1200 / 0.95
    assert math.isclose(found["seconds"], cycles / 1.83e9, rel_tol=SMALL_MODEL_ERROR)
    a100 = plan("16-bit", 256 * 1080, 64, 64, on="a100", configuration="256x64")
    assert math.isclose(a100["seconds"], 10 * 256 * 64 * 64 / 1024 / 0.95 / 1.41e9, rel_tol=SMALL_MODEL_ERROR)


def test_parts_are_written_read_and_added_by_hand() -> None:
    found = plan("fp32", 128, 128, 1 << 20, cut=True, configuration="128x128")
    parts = found["parts"]
    assert parts % 132 == 0
    cycles = parts // 132 * 128 * 128 * (1 << 20) / parts / 128
    assert 2 * 4 * 128 * 128 * parts < 50 << 20  # in the second-level cache
    adding = 8 * 128 * 128 * parts / 5120 + 1e-6 * 1.83e9
    assert math.isclose(found["seconds"], (cycles + adding) / 1.83e9, rel_tol=SMALL_MODEL_ERROR)
    more = plan("fp32", 1024, 1024, 1 << 14, configuration="128x128", parts=8)
    cycles = 4 * 128 * 128 * (1 << 14) / 8 / 128  # 512 blocks, 4 for a multiprocessor
    adding = 8 * 1024 * 1024 * 8 / (3.35e12 / 1.83e9) + 1e-6 * 1.83e9
    assert math.isclose(more["seconds"], (cycles + adding) / 1.83e9, rel_tol=SMALL_MODEL_ERROR)


def test_six_products_take_six_times_as_long_and_tf32_twice() -> None:
    sizes = (1 << 20, 64, 1024)
    one, two, six = (
        plan(arithmetic, *sizes, on="rtx4090", configuration="128x64")["seconds"] for arithmetic in ARITHMETICS[1:]
    )
    assert math.isclose(two, 2 * one, rel_tol=SMALL_MODEL_ERROR)
    assert math.isclose(six, 6 * 0.85 / 0.7 * one, rel_tol=SMALL_MODEL_ERROR)  # by their efficiencies


# ------------------------------------------------------------------------------------------------------------ sanity


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_the_choice_is_the_cheapest_and_more_work_takes_no_less(arithmetic: str, name: str) -> None:
    rng = np.random.default_rng(7)
    of = module()
    for _ in range(100):
        rows, columns, depth = (int(2 ** rng.uniform(0, top)) for top in (20, 12, 13))
        own = plan(arithmetic, rows, columns, depth, on=name)
        each = [
            plan(arithmetic, rows, columns, depth, on=name, configuration=configuration)
            for configuration in of.product_configurations(arithmetic)
        ]
        assert own["seconds"] == min(other["seconds"] for other in each)
        assert own["parts"] == 1
        # At least what all multiprocessors together need for the products, and no more than for the next larger tile.
        rate = figures(name)[1 if arithmetic == "fp32" else 2]
        per = {"fp32": 1, "16-bit": 1, "tf32": 2, "split": 6}[arithmetic]
        least = rows * columns * depth * per / rate / figures(name)[0] / figures(name)[6]
        assert own["seconds"] >= least * (1 - SMALL_MODEL_ERROR)
        for more in ((2 * rows, columns, depth), (rows, 2 * columns, depth), (rows, columns, 2 * depth)):
            assert plan(arithmetic, *more, on=name)["seconds"] >= own["seconds"] * (1 - SMALL_MODEL_ERROR)
        cut = plan(arithmetic, rows, columns, depth, on=name, cut=True)
        assert 1 <= cut["parts"] <= max(1, depth // 112)
        if arithmetic != "split":  # whose parts are those of 16 bits
            whole = min(other["seconds"] for other in each)
            assert cut["parts"] == 1 or cut["seconds"] < 1.1 * whole


@pytest.mark.parametrize("N", [32, 128])
def test_layers_of_resnet_get_the_tiles_that_they_fill(N: int) -> None:
    """Few filters the tall one, many the large one, and the smaller ones where there are few windows."""
    wide, narrow = layer("1x1, 64 to 256", N), layer("3x3 of 64", N)
    assert plan("16-bit", *planned.product("fprop", narrow)[:3])["configuration"] == "256x64"
    assert plan("16-bit", *planned.product("fprop", wide)[:3])["configuration"] == "128x128"
    assert plan("16-bit", *planned.product("fprop", layer("3x3 of 128", N))[:3])["configuration"] == "128x128"
    last = plan("16-bit", *planned.product("fprop", layer("3x3 of 512", N))[:3])
    assert last["configuration"] == {32: "64x64", 128: "128x128"}[N]
    for name in RESNET:
        for direction in ("fprop", "dgrad", "wgrad"):
            sizes = planned.product(direction, layer(name, N))
            found = plan("16-bit", *sizes)
            peak = 2048 * 132 * 1.83e9
            share = sizes.rows * sizes.columns * sizes.depth / found["seconds"] / peak
            assert 0.05 < share < 1200 / 2048, (name, direction)


def test_passes_are_products() -> None:
    p = conv2d_problem((2, 8, 9, 7), (16, 8, 3, 3), 1, 1, 1, 1)
    assert planned.product("fprop", p) == (126, 16, 72, False)
    assert planned.product("dgrad", p) == (126, 8, 144, False)
    assert planned.product("wgrad", p) == (16, 72, 126, True)
    strided = conv2d_problem((2, 8, 9, 7), (16, 8, 3, 3), 2, 1, 1, 1)
    assert planned.product("dgrad", strided) == (2 * 10 * 8, 8, 9 * 16 // 4, False)


def test_bad_questions() -> None:
    with pytest.raises(ValueError, match="arithmetic must be 'fp32', '16-bit', 'tf32' or 'split', got 'int8'"):
        module().product_plan("int8", 1, 1, 1)
    with pytest.raises(ValueError, match="there is no configuration '1x1', there are: 128x64, 64x64"):
        module().product_plan("split", 1, 1, 1, configuration="1x1")
    with pytest.raises(ValueError, match="rows, columns and depth must be at least 1"):
        module().product_plan("fp32", 0, 1, 1)
    with pytest.raises(ValueError, match="must all be positive"):
        module().product_plan("fp32", 1, 1, 1, machine=(0, 1, 1, 1, 1, 1, 1))


def test_empty_batches_are_planned_for_too() -> None:
    p = conv2d_problem((0, 16, 5, 5), (16, 16, 3, 3), 1, 0, 1, 1)
    for direction in ("fprop", "dgrad", "wgrad"):
        assert planned.seconds(module(), "split", direction, p, 4) > 0
    assert tensor_core.multiplies(p) is None
