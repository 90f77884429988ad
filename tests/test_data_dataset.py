"""ArrayDataset and Subset: what fits together is taken, what does not is named."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.data import ArrayDataset, DataLoader, Subset


def dataset_of(count, channels=1):
    images = np.random.default_rng(count).integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)
    return ArrayDataset(images, np.arange(count) % 3, ["a", "b", "c"], "made", "made up")


class TestArrayDataset:
    def test_items_and_batches(self):
        dataset = dataset_of(10, channels=3)
        image, label = dataset[-1]
        np.testing.assert_array_equal(image, dataset.images[9])
        assert (label, type(label)) == (0, int)
        images, labels = dataset.batch([3, 3, 0])
        np.testing.assert_array_equal(images, dataset.images[[3, 3, 0]])
        assert labels.tolist() == [0, 0, 0]
        assert not np.shares_memory(images, dataset.images)
        for wrong in (10, -11):
            with pytest.raises(IndexError):
                dataset[wrong]
            with pytest.raises(IndexError):
                dataset.batch([wrong])
        assert len(list(dataset)) == 10
        assert repr(dataset) == "ArrayDataset('made', 10 images 6x5x3 uint8, 3 classes)"

    def test_any_order_and_byte_order_becomes_c_and_native(self):
        images = np.asfortranarray(np.random.default_rng(0).random((3, 4, 5, 2)).astype(">f4"))
        dataset = ArrayDataset(images, np.array([0, 1, 0], ">i2"), ["a", "b"])
        assert dataset.images.flags.c_contiguous
        assert dataset.images.dtype == np.float32
        assert dataset.labels.dtype == np.int64
        np.testing.assert_array_equal(dataset.images, images)

    def test_without_images(self):
        dataset = ArrayDataset(np.zeros((0, 2, 2, 1), np.uint8), [], ["a"])
        assert len(dataset) == 0
        assert dataset.labels.dtype == np.int64
        assert list(DataLoader(dataset)) == []

    @pytest.mark.parametrize(
        ("images", "labels", "classes", "error", "words"),
        [
            (
                np.zeros((2, 4, 4), np.uint8),
                [0, 0],
                "a",
                ValueError,
                r"\(N, H, W, C\), got \(2, 4, 4\); add the channel",
            ),
            (np.zeros((2, 16), np.uint8), [0, 0], "a", ValueError, r"got \(2, 16\)"),
            (np.zeros((2, 0, 4, 1), np.uint8), [0, 0], "a", ValueError, "at least one pixel"),
            (np.zeros((2, 4, 4, 1)), [0, 0], "a", TypeError, "uint8 or float32, got float64"),
            (np.zeros((2, 4, 4, 1), np.uint8), [0], "a", ValueError, r"shape \(2,\), one an image, got \(1,\)"),
            (np.zeros((2, 4, 4, 1), np.uint8), [[0], [0]], "a", ValueError, r"got \(2, 1\)"),
            (np.zeros((2, 4, 4, 1), np.uint8), [0, 1], "a", ValueError, r"\[0, 1\), as many as classes; label 1 is 1"),
            (np.zeros((2, 4, 4, 1), np.uint8), [-1, 0], "a", ValueError, "label 0 is -1"),
            (np.zeros((2, 4, 4, 1), np.uint8), [0.0, 0.0], "a", TypeError, "labels must be integers, got float64"),
            (np.zeros((2, 4, 4, 1), np.uint8), [0, 0], "", ValueError, "at least one class"),
        ],
    )
    def test_what_does_not_fit(self, images, labels, classes, error, words):
        with pytest.raises(error, match=words):
            ArrayDataset(images, labels, classes)


class TestSubset:
    def test_images_by_reference_in_the_order_wanted(self):
        dataset = dataset_of(10)
        part = Subset(dataset, [9, 2, 2])
        assert len(part) == 3
        assert (part.classes, part.name, part.source) == (dataset.classes, dataset.name, dataset.source)
        assert np.shares_memory(part[1][0], dataset.images)
        np.testing.assert_array_equal(part[1][0], dataset.images[2])
        assert part[-3][1] == dataset.labels[9]
        images, labels = part.batch([2, 0])
        np.testing.assert_array_equal(images, dataset.images[[2, 9]])
        assert labels.tolist() == dataset.labels[[2, 9]].tolist()
        with pytest.raises(IndexError):
            part[3]

    def test_of_a_data_set_without_batch(self):
        pairs = [(np.full((2, 2, 1), n, np.uint8), n % 2) for n in range(5)]

        class Items(list):
            classes, name, source = ("a", "b"), "items", "made up"

        ((images, labels),) = DataLoader(Subset(Items(pairs), [4, 1]), 2)
        assert (images.numpy()[:, 0, 0, 0] * 255).round().tolist() == [4, 1]
        assert labels.tolist() == [0, 1]

    def test_as_arrays_of_its_own(self):
        dataset = dataset_of(10)
        part = dataset.subset([9, 2, 2])
        assert isinstance(part, ArrayDataset)
        np.testing.assert_array_equal(part.images, dataset.images[[9, 2, 2]])
        assert part.labels.tolist() == dataset.labels[[9, 2, 2]].tolist()
        assert not np.shares_memory(part.images, dataset.images)

    @pytest.mark.parametrize("wrong", [-1, 10])
    def test_places_that_are_not(self, wrong):
        with pytest.raises(IndexError, match=f"the places 0 to 9; there is no {wrong}"):
            Subset(dataset_of(10), [0, wrong])
