"""gpucnn profile of every public function: its kernels are counted, and what it can't do is said in one line."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import gpucnn.functional as F
from gpucnn import extension, flags
from gpucnn.cli.main import main

pytestmark = pytest.mark.skipif(
    extension.load("_simt_profile") is None, reason=str(extension.why_missing("_simt_profile"))
)

IMAGE, ROWS = ("--shape", "2,8,6,6"), ("--shape", "4,8")
NORM = ("running_mean=8,", "running_var=8,", "weight=8,", "bias=8,", "training=True")
OF_ELEMENTS = (
    *("celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish"),
    *("relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softshrink", "softsign", "tanh", "tanhshrink"),
)

CALLS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*OF_ELEMENTS, "dropout", "dropout2d", "instance_norm"), IMAGE),
    **dict.fromkeys(("glu", "log_softmax", "softmax", "softmin"), (*IMAGE, "dim=1")),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), (*IMAGE, "output_size=2")),
    **dict.fromkeys(("avg_pool2d", "max_pool2d", "unfold"), (*IMAGE, "kernel_size=2")),
    **dict.fromkeys(("bed_of_nails", "interpolate"), (*IMAGE, "scale_factor=2")),
    **dict.fromkeys(("batch_norm", "batch_norm_relu"), (*IMAGE, *NORM)),
    **dict.fromkeys(("conv2d", "conv2d_relu"), (*IMAGE, "--filters", "4,3,3", "bias=4,", "padding=1")),
    **dict.fromkeys(("linear", "linear_relu"), (*ROWS, "weight=3,8", "bias=3,")),
    **dict.fromkeys(("cross_entropy", "nll_loss"), (*ROWS, "target=4,")),
    **dict.fromkeys(
        ("binary_cross_entropy", "binary_cross_entropy_with_logits", "huber_loss", "kl_div", "l1_loss", "mse_loss"),
        (*ROWS, "target=4,8"),
    ),
    "smooth_l1_loss": (*ROWS, "target=4,8"),
    "cat": ("tensors=((2,8,6,6),(2,4,6,6))", "dim=1"),
    "conv1d": ("--shape", "2,8,9", "weight=4,8,3"),
    "conv_transpose2d": (*IMAGE, "--filters", "4,2,2", "stride=2"),
    "flatten": (*IMAGE, "start_dim=1"),
    "fold": ("--shape", "2,32,9", "output_size=6", "kernel_size=2", "stride=2"),
    "group_norm": (*IMAGE, "num_groups=2"),
    "layer_norm": (*ROWS, "normalized_shape=8,", "weight=8,", "bias=8,"),
    "local_response_norm": (*IMAGE, "size=3"),
    "lp_pool2d": (*IMAGE, "norm_type=2", "kernel_size=2"),
    "max_unpool2d": (*IMAGE, "indices=2,8,6,6", "kernel_size=2"),
    "normalize_images": ("--shape", "2,3,6,6", "mean=0.5", "std=0.25", "--dtype", "float16"),
    "pad": (*IMAGE, "pad=1,1,1,1"),
    "pixel_shuffle": (*IMAGE, "upscale_factor=2"),
    "pixel_unshuffle": (*IMAGE, "downscale_factor=2"),
    "prelu": (*IMAGE, "weight=8,"),
    "threshold": (*IMAGE, "threshold=0.1", "value=1.0"),
}

METHODS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum"), (*ROWS, "other=8,")),
    **dict.fromkeys(("sum", "mean", "amax", "amin", "prod", "var", "std", "norm", "cumsum"), (*IMAGE, "dim=1")),
    **dict.fromkeys(("logsumexp", "argmax", "argmin"), (*IMAGE, "dim=1")),
    **dict.fromkeys(("exp", "log", "sqrt", "square", "sign", "negative"), ROWS),
    "matmul": (*ROWS, "other=8,3"),
    "power": (*ROWS, "exponent=3"),
    "clamp": (*ROWS, "min=-1.0", "max=1.0"),
    "where": (*ROWS, "condition=4,8", "other=4,8"),
    "masked_fill": (*ROWS, "mask=4,8", "value=1.0"),
    "roll": (*ROWS, "shifts=1", "dims=0"),
}


def profiled(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["profile", *arguments])


def test_these_are_all_functions() -> None:
    assert set(CALLS) == set(F.__all__)


@pytest.mark.parametrize("op", [*CALLS, *METHODS])
def test_its_kernels_are_counted(op: str) -> None:
    flags.reset()
    result = profiled(op, *{**CALLS, **METHODS}[op], "--json")
    assert result.exit_code == 0, result.output
    assert not flags.is_raised(np.zeros(1)), "numbers that it is not meant for"
    found: dict[str, Any] = json.loads(result.output)
    launches = [launch for run in found["runs"] for launch in run["launches"]]
    assert launches
    assert all(sum(access["sectors"] for access in launch["accesses"]) > 0 for launch in launches)
    assert {row["kernel"] for row in found["rows"]} == {launch["kernel"] for launch in launches}


def refused(*arguments: str) -> str:
    """The one line that says why."""
    __tracebackhide__ = True
    result = profiled(*arguments)
    assert result.exit_code not in (0, None), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    *usage, line = result.output.strip().splitlines()
    assert all(each == "" or each.startswith(("Usage: ", "Try ")) for each in usage), result.output
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize("op", [*CALLS, *METHODS])
def test_an_argument_that_it_does_not_have_is_named(op: str) -> None:
    assert "nonsense" in refused(op, *{**CALLS, **METHODS}[op], "nonsense=1")


VECTOR = ("--shape", "6")
MISFITS: dict[str, tuple[str, ...]] = {
    **{
        op: (*VECTOR, *CALLS[op][2:])
        for op in (
            *("adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d", "lp_pool2d", "unfold", "fold"),
            *(
                "bed_of_nails",
                "interpolate",
                "batch_norm",
                "batch_norm_relu",
                "instance_norm",
                "group_norm",
                "layer_norm",
            ),
            *("local_response_norm", "pixel_shuffle", "pixel_unshuffle", "prelu", "normalize_images", "dropout2d"),
            *("max_unpool2d", "softmax", "log_softmax", "glu", "conv1d", "linear", "linear_relu"),
            *("cross_entropy", "huber_loss", "kl_div", "l1_loss", "mse_loss", "smooth_l1_loss"),
            *("binary_cross_entropy", "binary_cross_entropy_with_logits", "pad", "softmin"),
        )
    },
    **{op: (*VECTOR, "weight=4,8,3,3") for op in ("conv2d", "conv2d_relu", "conv_transpose2d")},
    "cat": ("tensors=((2,8,6,6),(3,4,6,6))", "dim=1"),
    "flatten": (*VECTOR, "start_dim=3"),
    "nll_loss": (*ROWS, "target=3,"),
    "add": (*VECTOR, "other=5,"),
    "matmul": (*ROWS, "other=9,3"),
    "sum": (*VECTOR, "dim=1"),
}
"""Calls whose shapes no kernel could be asked about."""


def test_all_but_functions_of_any_shape_have_misfits() -> None:
    assert set(CALLS) - set(MISFITS) == {*OF_ELEMENTS, "dropout", "threshold"}


@pytest.mark.parametrize("op", MISFITS)
def test_a_shape_that_does_not_fit_is_said(op: str) -> None:
    line = refused(op, *MISFITS[op])
    assert any(words in line for words in ("(6", "for 1 axes", "(3,)", "(9, 3)", "(3, 4, 6, 6)")), line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("max_pool2d", *IMAGE), "max_pool2d needs kernel_size"),
        (("fold", *IMAGE), "fold needs output_size and kernel_size"),
        (("max_pool2d", *IMAGE, "kernel_size=9"), "a window of 9 x 9 is larger than the padded input 6 x 6"),
        (("conv2d", *ROWS, "--filters", "4,3,3"), "--filters needs images (N,C,H,W) or (C,H,W), got (4, 8)"),
        (("conv2d", *IMAGE, "--filters", "4,3,3", "groups=0"), "groups must be a number of at least 1, got 0"),
        (("conv2d", *IMAGE, "weight=4,3,3,3"), "conv2d: "),
        (("linear", *ROWS, "weight=3,9"), "linear: "),
        (("relu", *IMAGE, "dtype=float16"), "dtype=... is given as --dtype"),
        (("relu", *IMAGE, "--dtype", "float7"), "float7"),
        (("relu", "--shape", "2,0"), "is not sizes of at least 1"),
        (("argsort", *ROWS), "argsort forward: backend 'simt' can't run"),
        (("relu6x", *IMAGE), "there is no op 'relu6x'; did you mean relu6"),
    ],
    ids=str,
)
def test_what_it_cannot_count_is_said_in_one_line(arguments: tuple[str, ...], text: str) -> None:
    assert text in refused(*arguments)
