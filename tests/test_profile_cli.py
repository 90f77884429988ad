"""gpucnn profile: its tables, JSON, pictures, and what it says to what can't be profiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from gpucnn import extension
from gpucnn.cli.main import main
from gpucnn.problem import conv2d_problem
from gpucnn.profile.needed import needed_products
from gpucnn.vis.profile import KernelBars, bounds_chart, request_map

needs_profile = pytest.mark.skipif(
    extension.load("_simt_profile") is None, reason=str(extension.why_missing("_simt_profile"))
)


def gpucnn(*arguments: Any, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


CONV = ("profile", "conv2d", "--shape", "1,8,6,6", "--filters", "8,3,3", "padding=1")


@needs_profile
def test_a_convolution_by_kernel() -> None:
    output = gpucnn(*CONV, "--kernel", "direct").output
    for text in ("conv2d fprop", "conv2d dgrad", "conv2d wgrad", "direct: fprop_wide_kernel<float>", "bound us"):
        assert text in output
    assert "H100 SXM: model, not calibrated" in output
    assert "direct_fprop.cu" not in output


@needs_profile
def test_lines_and_passes_and_devices() -> None:
    output = gpucnn(*CONV, "--kernel", "direct", "--pass", "dgrad", "--lines", "--device", "a100").output
    assert "conv2d fprop" not in output
    assert "csrc/conv2d/direct_dgrad.cu:" in output
    assert "A100" in output


@needs_profile
def test_json_is_the_whole_profile() -> None:
    found = json.loads(gpucnn(*CONV, "--kernel", "direct", "--forward", "--json").output)
    (run,) = found["runs"]
    (launch,) = run["launches"]
    assert (run["op"], run["direction"], run["kernel"]) == ("conv2d", "fprop", "direct")
    assert run["needed_bytes"] == 4 * (8 * 36 + 8 * 8 * 9 + 8 * 36)
    assert run["needed_products"] == 8 * 8 * (6 * 3 - 2) ** 2
    assert found["rows"][0]["products"] == sum(count for *_, count in launch["fma"])
    assert found["rows"][0]["binding"] in ("dram", "l2", "l1", "fp32")
    assert found["device"]["name"] == "H100 SXM"


@needs_profile
def test_pictures(tmp_path: Path, written: list[str]) -> None:
    gpucnn(*CONV, "--kernel", "direct", "--plot", tmp_path / "bounds.png")
    found = json.loads(gpucnn(*CONV, "--kernel", "direct", "--forward", "--json").output)["runs"][0]["launches"][0]
    line = next("{}:{}".format(*access["line"]) for access in found["accesses"] if "tile.h" in access["line"][0])
    gpucnn(*CONV, "--kernel", "direct", "--plot", tmp_path / "map.png", "--line", line)
    for name in ("bounds", "map"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width >= 900
    assert "conv2d fprop: direct" in written
    assert any(text.endswith(" would do") for text in written)


@needs_profile
def test_a_training_step_with_its_picture(tmp_path: Path) -> None:
    output = gpucnn("profile", "lenet5", "--input", "1,28,28", "--sample", 4, "--plot", tmp_path / "step.png").output
    for text in ("conv2d wgrad", "max_pool2d dgrad", "cross_entropy backward", "sgd step", "were counted and scaled"):
        assert text in output
    assert (tmp_path / "step.png").exists()


@needs_profile
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((*CONV, "--device", "h10"), "no description of a device 'h10', there are: h100"),
        ((*CONV, "--kernel", "direct", "--pass", "agrad"), "conv2d has no pass 'agrad', it has: fprop"),
        (("profile", "conv3d", "--shape", "1,2,3,4"), "there is no op 'conv3d'"),
        (("profile", "conv2d", "--filters", "8,3,3"), "--filters needs --shape"),
        (("profile", "conv2d", "--shape", "1,x"), "'1,x' is not sizes of at least 1 separated by commas"),
        (("profile", "conv2d", "--shape", "1,8,6,6", "--filters", "8,3"), "'8,3' is not 3 sizes"),
        ((*CONV, "--kernel", "depthwise"), "conv2d fprop: kernel 'depthwise' can't run this: needs groups=C"),
        ((*CONV, "--kernel", "dierct"), "conv2d has no kernel 'dierct', it has: depthwise, direct, "),
        ((*CONV, "--line", "tile.h:1"), "--line needs --plot"),
        ((*CONV, "--plot", "picture.jpg"), "png"),
        (("profile", "resnet20", "--shape", "1,3,32,32"), "resnet20 is a network: it takes --input and --batch"),
        ((*CONV, "--dtype", "float64", "--kernel", "direct"), "float64"),
    ],
    ids=str,
)
def test_what_cannot_be_profiled_gets_one_line(arguments: tuple[str, ...], text: str) -> None:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code != 0
    assert text in result.output
    assert "Traceback" not in result.output


@needs_profile
def test_a_line_without_accesses_is_answered_with_those_that_have_some(tmp_path: Path) -> None:
    result = gpucnn(*CONV, "--kernel", "direct", "--plot", tmp_path / "x.png", "--line", "tile.h:1", code=1)
    assert "tile.h:1 accesses no memory in these launches; these lines do: csrc/" in result.output
    assert not (tmp_path / "x.png").exists()


def test_a_flavour_that_is_not_built_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "_load", lambda name: (None, f"gpucnn.{name} is not built: GPUCNN_SIMT=profile"))
    result = gpucnn(*CONV, code=1)
    assert "_simt_profile" in result.output
    assert "GPUCNN_SIMT=" in result.output


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (1, 1, 1), (2, 3, 1), (1, 2, 3)])
def test_needed_products_leave_the_padding_out(stride: int, padding: int, dilation: int) -> None:
    problem = conv2d_problem((2, 3, 9, 11), (4, 3, 3, 3), stride, padding, dilation, 1)
    count = 0
    for p in range(problem.P):
        for q in range(problem.Q):
            for r in range(3):
                for s in range(3):
                    h, w = p * stride - padding + r * dilation, q * stride - padding + s * dilation
                    count += 0 <= h < 9 and 0 <= w < 11
    for direction in ("fprop", "dgrad", "wgrad"):
        assert needed_products("conv2d", direction, problem, (), None) == 2 * 4 * 3 * count
    assert needed_products("conv2d", "bgrad", problem, (), None) == 0


def test_the_map_of_a_request_is_dark_where_banks_conflict(tmp_path: Path) -> None:
    def darkest(addresses: list[int | None], size: int, is_shared: bool) -> int:
        path = request_map(addresses, size, is_shared, tmp_path / "map.png", "line")
        with Image.open(path) as picture:
            return int(np.asarray(picture.convert("L").crop((77, 127, 640, 690))).min())

    column = [lane * 128 for lane in range(32)]  # 32 words of one bank
    row = [lane * 4 for lane in range(32)]
    assert darkest(list(column), 4, True) < darkest(list(row), 4, True)
    assert darkest(list(column), 4, False) < darkest(list(row), 4, False)
    assert request_map([None] * 31 + [4], 4, True, tmp_path / "one.png", "one lane").exists()
    with pytest.raises(ValueError, match="no lane takes part"):
        request_map([None] * 32, 4, True, tmp_path / "none.png", "none")


def test_the_chart_of_bounds_needs_kernels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kernels: is empty"):
        bounds_chart([], tmp_path / "x.png", "nothing")
    path = bounds_chart([KernelBars("k" * 200, {"dram": 0.0, "fp32": 2.0})], tmp_path / "x.png", "one")
    assert path.exists()
