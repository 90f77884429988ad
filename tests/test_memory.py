"""In which order axes lie in memory: what is recognised, with gaps and repetitions too."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from op_checks import LAYOUTS, NCHW, NHWC

from gpucnn.ops.memory import common_axes, falling, inverse, memory_axes

IMAGES = np.zeros((2, 3, 4, 5)).transpose(0, 1, 2, 3)
CHANNELS_LAST = np.zeros((2, 4, 5, 3)).transpose(NCHW)
PLAIN = (0, 1, 2, 3)


def test_images_that_lie_channels_last_are_recognised() -> None:
    assert memory_axes(IMAGES) == PLAIN
    assert memory_axes(CHANNELS_LAST) == NHWC
    assert memory_axes(CHANNELS_LAST[0]) == (1, 2, 0)
    assert memory_axes(LAYOUTS["nhwc"](IMAGES)) == NHWC


def test_parts_of_them_are_too() -> None:
    for part in (
        CHANNELS_LAST[:, :2],
        CHANNELS_LAST[:, :, 1:3],
        CHANNELS_LAST[:, :, ::2, 1:],
        CHANNELS_LAST[1:],
        CHANNELS_LAST[:, :, ::-1, ::-1],
    ):
        assert memory_axes(part) == NHWC
        assert memory_axes(part.transpose(NHWC)) == PLAIN
    assert memory_axes(CHANNELS_LAST[0, :, 1:]) == (1, 2, 0)
    assert memory_axes(IMAGES[:, 1:, ::2]) == PLAIN


def test_what_is_in_no_order_or_in_both_is_taken_as_it_is() -> None:
    for array in (
        np.zeros((2, 5, 1, 1)),
        CHANNELS_LAST[:, :1],
        np.zeros((2, 1, 4, 5)),
        np.asfortranarray(IMAGES),
        CHANNELS_LAST.transpose(2, 3, 0, 1),
        np.broadcast_to(np.zeros((2, 3, 1, 1)), IMAGES.shape),
        np.zeros((0, 3, 4, 5)),
    ):
        assert memory_axes(array) == PLAIN
    for shape in ((), (3,), (2, 3), (2, 3, 4, 5, 6)):
        assert memory_axes(np.zeros(shape).T) == tuple(range(len(shape)))


def test_repeated_axes_have_no_place_in_the_order() -> None:
    assert falling(np.broadcast_to(np.zeros((2, 1, 1, 3)), (2, 4, 5, 3)))
    assert falling(np.broadcast_to(np.zeros((3, 1)), (2, 3, 5)))
    assert not falling(np.broadcast_to(np.zeros((2, 1, 3)).transpose(2, 1, 0), (3, 5, 2)))


def test_the_first_array_that_knows_an_order_decides() -> None:
    ambiguous = np.zeros((2, 3, 1, 1))
    assert common_axes([ambiguous, CHANNELS_LAST]) == common_axes([IMAGES, CHANNELS_LAST[:, :2]]) == NHWC
    assert common_axes([ambiguous, IMAGES]) == PLAIN


@pytest.mark.parametrize("axes", [*itertools.permutations(range(3)), NHWC, NCHW, ()], ids=str)
def test_the_inverse_undoes(axes: tuple[int, ...]) -> None:
    array = np.zeros(range(len(axes)))
    assert array.transpose(axes).transpose(inverse(axes)).shape == array.shape
    assert inverse(inverse(axes)) == tuple(axes)
