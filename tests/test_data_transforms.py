"""Draws that depend on seed, epoch, image and stream alone, and transforms against loops that one can check by eye."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.data import Compose, Draw, Normalize, RandomHorizontalFlip, RandomShift
from gpucnn.data.draw import permutation

SHAPES = [(1, 1, 1, 1), (3, 5, 7, 1), (4, 8, 6, 3), (2, 28, 28, 1), (5, 9, 9, 2), (0, 4, 4, 3)]


def images_of(shape, dtype, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, shape)
    return values.astype(np.uint8) if dtype == "u1" else (values / 255).astype(np.float32)


def philox(counter, key):
    """Philox 4x32-10 in Python's integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c3 ^ k1, a & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


class TestDraw:
    def test_against_philox_in_python(self):
        assert philox((0, 0, 0, 0), (0, 0)) == (
            0x6627E8D5,
            0xE169C58D,
            0xBC57AC4C,
            0x9B00DBD8,
        )  # Random123's own vector
        seed, epoch, places = 0x1234_5678_9ABC_DEF0, 7, [0, 5, 2**33 + 1]
        draw = Draw(seed, epoch, places)
        for stream in (0, 1, 3, 4, 11):
            words = [
                philox((place % 2**32, place // 2**32, epoch, 0xDA7A0000 + stream // 4), (seed % 2**32, seed // 2**32))[
                    stream % 4
                ]
                for place in places
            ]
            assert draw.uniform(stream).tolist() == [word / 2**32 for word in words]
            assert draw.integers(-3, 4, stream).tolist() == [-3 + word * 7 // 2**32 for word in words]

    def test_an_image_draws_the_same_in_any_batch(self):
        whole = Draw(3, 2, np.arange(100)).uniform(1)
        for places in ([7], [99, 0, 7, 7], list(range(50, 60))):
            assert Draw(3, 2, places).uniform(1).tolist() == whole[places].tolist()

    def test_seed_epoch_image_and_stream_all_matter(self):
        draws = {Draw(seed, epoch, [image]).uniform(stream)[0] for seed in (0, 1, 2**32) for epoch in (0, 1)
                 for image in (0, 1, 2**32) for stream in range(6)}  # fmt: skip
        assert len(draws) == 3 * 2 * 3 * 6

    def test_integers_are_uniform_in_their_range(self):
        counts = np.bincount(Draw(0, 0, np.arange(70_000)).integers(0, 7))
        assert counts.shape == (7,)
        assert abs(counts - 10_000).max() <= 5 * 100  # five standard deviations
        assert Draw(0, 0, [1, 2, 3]).integers(5, 6).tolist() == [5, 5, 5]
        assert Draw(0, 0, np.arange(1000)).integers(0, 2**32).max() > 2**31

    def test_uniform_is_uniform(self):
        values = Draw(1, 0, np.arange(100_000)).uniform()
        assert values.dtype == np.float64
        assert 0 <= values.min() <= 1e-3
        assert 1 - 1e-3 <= values.max() < 1
        assert abs(values.mean() - 0.5) <= 5 * (1 / 12 / 100_000) ** 0.5

    def test_windows_number_their_streams_from_0_and_keep_to_them(self):
        draw = Draw(0, 0, [4, 5])
        part = draw.window(3, 4).window(1, 2)
        assert part.uniform(0).tolist() == draw.uniform(4).tolist()
        assert part.uniform(1).tolist() == draw.uniform(5).tolist()
        assert len(part) == 2
        for stream in (-1, 2):
            with pytest.raises(ValueError, match=f"stream {stream} asked for of 2"):
                part.uniform(stream)
        for first, count in ((-1, 1), (2, 1), (0, 3)):
            with pytest.raises(ValueError, match="streams"):
                part.window(first, count)

    @pytest.mark.parametrize(
        "arguments", [(-1, 0, [0]), (2**64, 0, [0]), (0, -1, [0]), (0, 2**32, [0]), (0, 0, [-1]), (0, 0, 5)]
    )
    def test_arguments_out_of_range(self, arguments):
        with pytest.raises(ValueError, match=r"seed|epoch|indices"):
            Draw(*arguments)

    @pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 0), (0, 2**32 + 1)])
    def test_ranges_that_are_none(self, low, high):
        with pytest.raises(ValueError, match="low < high"):
            Draw(0, 0, [0]).integers(low, high)


class TestPermutation:
    @pytest.mark.parametrize("size", [0, 1, 2, 3, 31, 1000, 60_001])
    def test_every_number_once(self, size):
        order = permutation(size, 0, 0)
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(size))

    def test_another_seed_or_epoch_is_another_order(self):
        orders = [tuple(permutation(50, seed, epoch)) for seed in (0, 1, 2**32) for epoch in (0, 1, 2)]
        assert len(set(orders)) == 9
        assert tuple(permutation(50, 1, 2)) in orders
        fixed = sum((permutation(1000, 0, epoch) == np.arange(1000)).sum() for epoch in range(20))
        assert fixed <= 20 + 5 * 20**0.5  # a random order leaves one in place on average

    def test_first_place_is_uniform(self):
        counts = np.bincount([permutation(5, 0, epoch)[0] for epoch in range(2000)], minlength=5)
        assert abs(counts - 400).max() <= 5 * 18

    def test_it_stays_what_it_is(self):
        seed, epoch = 5, 9
        words = [philox((pair, 0, epoch, 0x54070000), (seed, 0)) for pair in range(4)]
        keys = [key for w in words for key in (w[0] << 32 | w[1], w[2] << 32 | w[3])][:7]
        assert permutation(7, seed, epoch).tolist() == sorted(range(7), key=keys.__getitem__)


class TestNormalize:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("dtype", ["u1", "f4"])
    @pytest.mark.parametrize("listed", [True, False])
    def test_against_float64(self, shape, dtype, listed):
        channels = shape[-1]
        mean = [0.1 + 0.2 * channel for channel in range(channels)] if listed else 0.3
        std = [0.2 + 0.1 * channel for channel in range(channels)] if listed else 0.25
        images = images_of(shape, dtype)
        out = Normalize(mean, std)(images, Draw(0, 0, np.arange(len(images))))
        x = images.astype(np.float64) / (255 if dtype == "u1" else 1)
        expected = (x - np.array(mean)) / np.array(std)
        assert out.dtype == np.float32
        assert out.shape == shape
        assert out.flags.c_contiguous
        bound = 2.0**-22 * np.maximum(np.abs(x / std), np.abs(np.array(mean) / std))
        assert (np.abs(out - expected) <= bound).all()

    def test_every_byte(self):
        images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
        out = Normalize(0.0, 1.0)(images)
        assert (np.abs(out.reshape(-1) - np.arange(256) / 255) <= 2.0**-23).all()

    def test_one_mean_with_several_stds(self):
        out = Normalize(0.5, [1.0, 2.0])(np.ones((1, 2, 2, 2), np.float32))
        assert (out == np.array([0.5, 0.25], np.float32)).all()

    @pytest.mark.parametrize(
        ("mean", "std"),
        [(0, 0), (0, -1), (np.nan, 1), (0, np.inf), ([0, 0], [1, 1, 1]), ([], 1), ([[0]], 1), ([0, 0], [1, 0])],
    )
    def test_constants_that_mean_nothing(self, mean, std):
        with pytest.raises(ValueError, match="mean"):
            Normalize(mean, std)

    def test_channels_that_differ(self):
        with pytest.raises(ValueError, match="list 3 channels, the images have 1"):
            Normalize([0, 0, 0], [1, 1, 1])(np.zeros((1, 2, 2, 1), np.uint8))


def shifted(image, down, right, fill):
    """One image moved pixel by pixel."""
    height, width, _ = image.shape
    out = np.full_like(image, fill)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                out[y, x] = image[y - down, x - right]
    return out


class TestRandomShift:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("dtype", ["u1", "f4"])
    @pytest.mark.parametrize("pixels", [0, 1, 2])
    def test_each_image_moves_as_drawn(self, shape, dtype, pixels):
        pixels = min(pixels, shape[1] - 1, shape[2] - 1)
        images = images_of(shape, dtype)
        places = np.arange(100, 100 + len(images))
        out = RandomShift(pixels, fill=1)(images, Draw(9, 1, places))
        top, left = (Draw(9, 1, places).integers(0, 2 * pixels + 1, stream) for stream in (0, 1))
        expected = [shifted(*each, 1) for each in zip(images, pixels - top, pixels - left, strict=True)]
        assert out.dtype == images.dtype
        assert out.flags.c_contiguous
        np.testing.assert_array_equal(out, np.array(expected, images.dtype).reshape(shape))

    def test_every_move_occurs_equally_often(self):
        images = np.zeros((4500, 5, 5, 1), np.uint8)
        images[:, 2, 2] = 1
        out = RandomShift(1)(images, Draw(0, 0, np.arange(len(images))))
        counts = out.sum(axis=(0, 3))
        assert (counts[1:4, 1:4] > 0).all()
        assert counts.sum() == 4500
        assert abs(counts[1:4, 1:4].astype(int) - 500).max() <= 5 * 22

    def test_a_strided_input_is_the_same_images(self):
        images = images_of((6, 8, 8, 3), "u1")
        strided = np.asfortranarray(images)
        draw = Draw(0, 0, np.arange(6))
        np.testing.assert_array_equal(RandomShift(2)(strided, draw), RandomShift(2)(images, draw))

    def test_too_far(self):
        with pytest.raises(ValueError, match="images of 4x9 cannot be shifted by up to 4 pixels"):
            RandomShift(4)(np.zeros((1, 4, 9, 1), np.uint8), Draw(0, 0, [0]))
        with pytest.raises(ValueError, match="pixels must be 0 or more"):
            RandomShift(-1)

    @pytest.mark.parametrize("fill", [-1, 256, 0.5, np.nan])
    def test_a_fill_that_bytes_cannot_hold(self, fill):
        with pytest.raises(ValueError, match=r"fill must be an integer in 0\.\.255"):
            RandomShift(1, fill)(np.zeros((1, 4, 4, 1), np.uint8), Draw(0, 0, [0]))


class TestRandomHorizontalFlip:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("dtype", ["u1", "f4"])
    @pytest.mark.parametrize("p", [0, 0.5, 1])
    def test_each_image_as_drawn(self, shape, dtype, p):
        images = images_of(shape, dtype)
        places = np.arange(len(images))
        out = RandomHorizontalFlip(p)(images, Draw(4, 0, places))
        mirrored = Draw(4, 0, places).uniform() < p
        for index, image in enumerate(images):
            for x in range(shape[2]):
                source = shape[2] - 1 - x if mirrored[index] else x
                np.testing.assert_array_equal(out[index, :, x], image[:, source])
        assert out.dtype == images.dtype
        assert out.flags.c_contiguous

    def test_a_strided_input_is_the_same_images(self):
        images = images_of((6, 8, 8, 3), "f4")
        draw = Draw(0, 0, np.arange(6))
        np.testing.assert_array_equal(
            RandomHorizontalFlip()(np.asfortranarray(images), draw), RandomHorizontalFlip()(images, draw)
        )

    @pytest.mark.parametrize("p", [-0.1, 1.1, np.nan])
    def test_no_probability(self, p):
        with pytest.raises(ValueError, match="probability"):
            RandomHorizontalFlip(p)


EACH = [RandomShift(2), RandomHorizontalFlip(), Normalize(0.1, 0.3), Compose([RandomShift(1), RandomHorizontalFlip()])]


class TestAll:
    @pytest.mark.parametrize("transform", EACH, ids=repr)
    @pytest.mark.parametrize("dtype", ["u1", "f4"])
    def test_the_input_is_left_alone(self, transform, dtype):
        images = images_of((5, 6, 6, 3), dtype)
        before = images.copy()
        out = transform(images, Draw(0, 0, np.arange(5)))
        assert not np.shares_memory(out, images)
        np.testing.assert_array_equal(images, before)

    @pytest.mark.parametrize("transform", EACH, ids=repr)
    def test_an_image_comes_out_the_same_in_any_batch(self, transform):
        images = images_of((9, 6, 6, 1), "u1")
        whole = transform(images, Draw(5, 3, np.arange(9)))
        for places in ([8], [3, 1], [0, 8, 4, 4]):
            np.testing.assert_array_equal(transform(images[places], Draw(5, 3, places)), whole[places])

    @pytest.mark.parametrize("transform", EACH, ids=repr)
    def test_what_is_no_batch_of_images(self, transform):
        draw = Draw(0, 0, [0])
        with pytest.raises(ValueError, match=r"\(N, H, W, C\), got \(6, 6, 1\)"):
            transform(np.zeros((6, 6, 1), np.uint8), draw)
        with pytest.raises(TypeError, match="uint8 or float32, got float64"):
            transform(np.zeros((1, 6, 6, 1)), draw)

    def test_repr_names_the_settings(self):
        shift, flip, normalize = RandomShift(2), RandomHorizontalFlip(0.3), Normalize([0.1, 0.2], [1, 2])
        assert repr(shift) == "RandomShift(pixels=2, fill=0)"
        assert repr(flip) == "RandomHorizontalFlip(p=0.3)"
        assert repr(normalize) == "Normalize(mean=[0.1, 0.2], std=[1.0, 2.0])"
        assert repr(Compose([shift, flip, normalize])) == f"Compose([{shift!r}, {flip!r}, {normalize!r}])"


class TestCompose:
    def test_one_after_another_with_streams_of_their_own(self):
        images = images_of((50, 7, 7, 3), "u1")
        places = np.arange(50)
        draw = Draw(2, 0, places)
        out = Compose([RandomShift(1), RandomHorizontalFlip(), RandomShift(1), Normalize(0.5, 0.5)])(images, draw)
        step = RandomShift(1)(images, draw.window(0, 2))
        step = RandomHorizontalFlip()(step, draw.window(2, 1))
        step = RandomShift(1)(step, draw.window(3, 2))
        np.testing.assert_array_equal(out, Normalize(0.5, 0.5)(step, draw))
        once = Compose([RandomShift(1)])(images, draw)
        assert (RandomShift(1)(once, draw.window(0, 2)) != RandomShift(1)(once, draw.window(2, 2))).any()

    def test_a_plain_function_draws_apart_from_its_neighbours(self):
        seen = {}

        def first(images, draw):
            seen["first"] = draw.uniform(0)
            return images

        def second(images, draw):
            seen["second"] = draw.uniform(0)
            with pytest.raises(ValueError, match="stream 16"):
                draw.uniform(16)
            return images

        Compose([first, second])(images_of((4, 2, 2, 1), "u1"), Draw(0, 0, np.arange(4)))
        assert (seen["first"] != seen["second"]).all()

    def test_nested(self):
        images, draw = images_of((20, 7, 7, 1), "u1"), Draw(0, 0, np.arange(20))
        flat = Compose([RandomShift(1), RandomHorizontalFlip(), RandomShift(2)])
        nested = Compose([Compose([RandomShift(1), RandomHorizontalFlip()]), RandomShift(2)])
        np.testing.assert_array_equal(nested(images, draw), flat(images, draw))
        assert nested.streams == flat.streams == 5

    def test_none_changes_nothing(self):
        images = images_of((2, 3, 3, 1), "u1")
        np.testing.assert_array_equal(Compose([])(images, Draw(0, 0, [0, 1])), images)

    def test_what_cannot_be_called(self):
        with pytest.raises(TypeError, match="3 is not callable"):
            Compose([RandomShift(1), 3])
