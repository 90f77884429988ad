"""gpucnn summary: what is printed and drawn, and what bad input gets."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from vis_checks import decode, needs_matplotlib

import gpucnn
from gpucnn.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["summary", *map(str, arguments)])


def test_the_table_is_that_of_the_function() -> None:
    result = run("lenet5", "--input", "1,28,28")
    assert result.exit_code == 0, result.output
    expected = str(gpucnn.summary(gpucnn.models.lenet5(), (1, 28, 28)))
    assert result.output.splitlines()[1:] == expected.splitlines()[1:]
    assert result.output.splitlines()[0].startswith("lenet5 on 1x28x28")


def test_channels_size_and_classes_reach_the_network() -> None:
    found = json.loads(run("lenet5", "--input", "3,32,32", "--num-classes", 7, "--json").output)
    assert found["model"] == "lenet5"
    assert found["input"] == [3, 32, 32]
    assert found["layers"][1]["parameters"] == 6 * (75 + 1)
    assert found["layers"][-1]["outputs"] == [[7]]
    assert found["totals"]["parameters"] == 61_706 + 2 * 6 * 25 - 3 * 85


def test_depth_takes_modules_together() -> None:
    whole, short = (run("squeezenet1_1", "--input", "3,64,64", *depth) for depth in ([], ["--depth", 1]))
    assert len(short.output.splitlines()) < len(whole.output.splitlines()) - 20
    assert any(line.split()[:2] == ["features", "Sequential"] for line in short.output.splitlines())
    totals = [
        next(line for line in text.splitlines() if line.startswith("total")) for text in (whole.output, short.output)
    ]
    assert totals[0].split() == totals[1].split()


def test_networks_that_label_pixels_have_books_too() -> None:
    found = json.loads(run("fcn_resnet50", "--input", "3,33,33", "--num-classes", 5, "--json").output)
    assert found["layers"][-1]["outputs"][0] == [5, 33, 33]


@needs_matplotlib
def test_the_chart_is_drawn_beside_the_table(tmp_path: Path, written: list[str]) -> None:
    result = run("lenet5", "--input", "1,28,28", "--plot", tmp_path / "depth.png", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["totals"]["parameters"] == 61_706
    decode(tmp_path / "depth.png")
    assert "lenet5: where it computes, what it stores" in written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alexnet", "--input", "3,32,32"], "ends at features.12 (MaxPool2d): max_pool2d: a window of 3 x 3 is larger"),
        (["lenet", "--input", "1,28,28"], "unknown model 'lenet', there are:"),
        (["lenet5"], "Missing option '--input'"),
        (["lenet5", "--input", "28,28"], "'28,28' is not channels, height and width, such as 3,224,224"),
        (["lenet5", "--input", "1,28,-28"], "'1,28,-28' is not channels"),
        (["lenet5", "--input", "1,0,28"], "'1,0,28' is not channels"),
        (["lenet5", "--input", "1,a,28"], "'1,a,28' is not channels"),
        (["lenet5", "--input", "1,28,32"], "LeNet5 on input 1x28x32 ends at fc1 (Linear): linear: "),
        (["lenet5", "--input", "1,29,29"], "not of size 29"),
        (["lenet5", "--input", "1,28,28", "--num-classes", 0], "'--num-classes': 0 is not in the range x>=1"),
        (["lenet5", "--input", "1,28,28", "--depth", 0], "'--depth': 0 is not in the range x>=1"),
        (["lenet5", "--input", "1,28,28", "--plot", "depth.jpg"], "must end in .png"),
        (["lenet5", "--input", "1,28,28", "--plot", "nowhere/depth.png"], "the folder 'nowhere' does not exist"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments: list[object], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert "Traceback" not in result.output
    assert "total" not in result.output


def test_every_option_has_help() -> None:
    parameters = main.commands["summary"].params
    assert all(parameter.help for parameter in parameters if isinstance(parameter, click.Option))
    assert "receptive fields" in run("--help").output
