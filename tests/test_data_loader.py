"""DataLoader: batches that depend on seed and epoch alone, a thread that always ends, and errors that arrive whole."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import pytest

from gpucnn import Tensor
from gpucnn.data import ArrayDataset, Compose, DataLoader, Normalize, RandomHorizontalFlip, RandomShift
from gpucnn.data.draw import permutation

PREFETCH = [0, 1, 2, 5]


def dataset_of(count, height=6, width=5, channels=1, dtype=np.uint8):
    values = np.random.default_rng(count).integers(0, 256, (count, height, width, channels))
    images = values.astype(np.uint8) if dtype == np.uint8 else (values / 255).astype(dtype)
    return ArrayDataset(images, np.arange(count) % 3, ["a", "b", "c"], "made", "made up")


class Items:
    """A data set without `batch`, which counts what is asked of it."""

    classes, name, source = ("a", "b"), "items", "made up"

    def __init__(self, count, broken=None, error=None, delay=0.0):
        self.count, self.broken, self.error, self.delay, self.asked = count, broken, error, delay, 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked += 1
        time.sleep(self.delay)
        if index == self.broken:
            raise self.error
        return np.full((2, 3, 1), index, np.uint8), index % 2


def values(loader):
    return [(images.numpy().copy(), labels.numpy().copy()) for images, labels in loader]


def assert_same(one, other):
    assert len(one) == len(other)
    for (images, labels), (other_images, other_labels) in zip(one, other, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def fail_on_first(batches):
    for _ in batches:
        raise KeyError


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "gpucnn-data"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    if workers():
        gc.collect()
    deadline = time.monotonic() + 10
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workers() == []


class TestBatches:
    @pytest.mark.parametrize("prefetch", PREFETCH)
    @pytest.mark.parametrize(("count", "size"), [(10, 1), (10, 3), (10, 5), (10, 10), (10, 64), (1, 1)])
    def test_in_order_without_shuffle(self, count, size, prefetch):
        dataset = dataset_of(count, channels=3)
        batches = values(DataLoader(dataset, size, prefetch=prefetch))
        assert [len(labels) for _, labels in batches] == [min(size, count - start) for start in range(0, count, size)]
        images = np.concatenate([images for images, _ in batches])
        expected = (dataset.images / 255).astype(np.float32).transpose(0, 3, 1, 2)
        assert (np.abs(images - expected) <= 6e-8).all()
        assert np.concatenate([labels for _, labels in batches]).tolist() == dataset.labels.tolist()

    @pytest.mark.parametrize("transform", [None, RandomShift(1), Normalize(0.1, 0.3)], ids=repr)
    def test_tensors_are_channels_first_over_channels_last_memory(self, transform):
        for images, labels in DataLoader(dataset_of(5, channels=3), 2, transform=transform):
            assert isinstance(images, Tensor)
            assert isinstance(labels, Tensor)
            assert images.shape[1:] == (3, 6, 5)
            assert images.dtype == np.float32
            assert images.data.transpose(0, 2, 3, 1).flags.c_contiguous
            assert labels.shape == images.shape[:1]
            assert labels.dtype == np.int64
            assert not images.requires_grad

    def test_floats_stay_as_they_are(self):
        dataset = dataset_of(4, dtype=np.float32)
        ((images, _),) = values(DataLoader(dataset, 4))
        np.testing.assert_array_equal(images, dataset.images.transpose(0, 3, 1, 2))

    def test_white_is_exactly_one(self):
        dataset = ArrayDataset(np.full((1, 2, 2, 1), 255, np.uint8), [0], ["a"])
        ((images, _),) = values(DataLoader(dataset))
        assert (images == 1).all()

    @pytest.mark.parametrize(
        ("count", "size", "drop", "expected"),
        [(10, 3, False, 4), (10, 3, True, 3), (9, 3, True, 3), (2, 3, True, 0), (0, 3, False, 0)],
    )
    def test_length_and_last_batch(self, count, size, drop, expected):
        loader = DataLoader(dataset_of(count), size, drop_last=drop)
        assert len(loader) == expected
        batches = values(loader)
        assert len(batches) == expected
        if drop:
            assert all(len(labels) == size for _, labels in batches)

    def test_a_batch_owns_its_memory(self):
        dataset = dataset_of(4, dtype=np.float32)
        before = dataset.images.copy()
        for images, labels in DataLoader(dataset, 2):
            images.data[...] = -1
            labels.data[...] = -1
        np.testing.assert_array_equal(dataset.images, before)
        assert dataset.labels.min() == 0


class TestOrder:
    def test_shuffled_by_seed_and_epoch(self):
        dataset = dataset_of(20)
        loader = DataLoader(dataset, 6, shuffle=True, seed=11)
        for epoch in (0, 1, 5):
            loader.set_epoch(epoch)
            labels = np.concatenate([labels for _, labels in values(loader)])
            assert labels.tolist() == dataset.labels[permutation(20, 11, epoch)].tolist()

    def test_each_iteration_is_the_next_epoch(self):
        loader = DataLoader(dataset_of(50), 50, shuffle=True)
        first, second = values(loader), values(loader)
        assert (first[0][0] != second[0][0]).any()
        loader.set_epoch(0)
        assert_same(first, values(loader))
        assert_same(second, values(loader))

    @pytest.mark.parametrize("prefetch", PREFETCH)
    @pytest.mark.parametrize("start", [0, 1, 3, 6, 7])
    def test_resuming_within_an_epoch_repeats_it_bit_by_bit(self, start, prefetch):
        transform = Compose([RandomShift(2), RandomHorizontalFlip(), Normalize(0.1, 0.3)])
        options = {"shuffle": True, "seed": 3, "transform": transform}
        undisturbed = DataLoader(dataset_of(20), 3, **options, prefetch=2)
        undisturbed.set_epoch(4)
        whole, following = values(undisturbed), values(undisturbed)
        resumed = DataLoader(dataset_of(20), 3, **options, prefetch=prefetch)
        resumed.set_epoch(4, start)
        assert_same(values(resumed), whole[start:])
        assert_same(values(resumed), following)

    def test_an_image_is_transformed_the_same_in_batches_of_any_size(self):
        options = {"shuffle": True, "seed": 8, "transform": Compose([RandomShift(2), RandomHorizontalFlip()])}
        ((expected, _),) = values(DataLoader(dataset_of(17), 17, **options))
        for size in (1, 4, 16):
            images = np.concatenate([images for images, _ in values(DataLoader(dataset_of(17), size, **options))])
            np.testing.assert_array_equal(images, expected)

    def test_two_iterations_at_once_do_not_disturb_each_other(self):
        loader = DataLoader(dataset_of(12), 4, shuffle=True, transform=RandomShift(1))
        first, second = values(loader), values(loader)
        loader.set_epoch(0)
        pairs = list(zip(loader, loader, strict=True))
        assert_same([(x.numpy(), y.numpy()) for (x, y), _ in pairs], first)
        assert_same([(x.numpy(), y.numpy()) for _, (x, y) in pairs], second)


class TestDatasetsOfOthers:
    def test_items_are_stacked(self):
        ((images, labels),) = values(DataLoader(Items(5), 5))
        np.testing.assert_array_equal(images[:, 0, 1, 2], np.arange(5, dtype=np.float32) / np.float32(255))
        assert labels.tolist() == [0, 1, 0, 1, 0]

    def test_a_list_of_pairs(self):
        pairs = [(np.full((2, 2, 1), n, np.float32), np.int32(n)) for n in range(3)]
        ((images, labels),) = values(DataLoader(pairs, 3))
        assert images[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert labels.tolist() == [0, 1, 2]

    def test_images_of_several_shapes(self):
        pairs = [(np.zeros((2, 2, 1), np.uint8), 0), (np.zeros((2, 3, 1), np.uint8), 0)]
        with pytest.raises(ValueError, match=r"image 0 is \(2, 2, 1\) uint8, image 1 is \(2, 3, 1\) uint8"):
            values(DataLoader(pairs, 2))

    @pytest.mark.parametrize("label", [0.5, "cat", None])
    def test_labels_that_are_no_integers(self, label):
        with pytest.raises(TypeError, match="labels must be integers"):
            values(DataLoader([(np.zeros((2, 2, 1), np.uint8), label)]))

    @pytest.mark.parametrize("image", [np.zeros((2, 2, 1)), np.zeros((2, 2, 1), np.int64)])
    def test_dtypes_that_are_no_images(self, image):
        with pytest.raises(TypeError, match="images must be uint8 or float32"):
            values(DataLoader([(image, 0)]))

    def test_images_without_a_channel_axis(self):
        with pytest.raises(ValueError, match=r"\(N, H, W, C\), got \(1, 2, 2\)"):
            values(DataLoader([(np.zeros((2, 2), np.uint8), 0)]))


class TestTransforms:
    def test_of_another_count(self):
        with pytest.raises(ValueError, match="given 3 images and returned 2"):
            values(DataLoader(dataset_of(3), 3, transform=lambda images, draw: images[:2]))

    def test_of_another_dtype(self):
        with pytest.raises(TypeError, match="float64"):
            values(DataLoader(dataset_of(3), 3, transform=lambda images, draw: images / 255.0))

    def test_a_strided_result_is_made_contiguous(self):
        loader = DataLoader(dataset_of(3, channels=2), 3, transform=lambda images, draw: images[:, ::-1, ::2])
        for images, _ in loader:
            assert images.shape == (3, 2, 6, 3)
            assert images.data.transpose(0, 2, 3, 1).flags.c_contiguous


class TestThread:
    def test_batches_are_prepared_ahead_but_not_more_than_asked(self):
        dataset = Items(100)
        batches = iter(DataLoader(dataset, 1, prefetch=3))
        next(batches)
        deadline = time.monotonic() + 10
        while dataset.asked < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert dataset.asked == 4  # the one taken, and three ready
        time.sleep(0.05)
        assert dataset.asked == 4
        batches.close()

    def test_without_prefetch_there_is_no_thread(self):
        batches = iter(DataLoader(dataset_of(4), prefetch=0))
        next(batches)
        assert workers() == []

    @pytest.mark.parametrize(
        "end", ["exhausted", "closed", "dropped", "left by break", "left by an error", "never begun"]
    )
    @pytest.mark.parametrize("delay", [0.0, 0.05])
    def test_it_ends_with_the_iteration(self, end, delay):
        batches = iter(DataLoader(Items(5 if end == "exhausted" else 1000, delay=delay), 1, prefetch=2))
        if end == "exhausted":
            assert len(list(batches)) == 5
        elif end == "closed":
            next(batches)
            assert len(workers()) == 1
            batches.close()
        elif end == "dropped":
            next(batches)
            del batches
        elif end == "left by break":
            for _ in batches:
                break
            del batches
        elif end == "left by an error":
            with pytest.raises(KeyError):
                fail_on_first(batches)
            del batches
        assert workers() == []

    def test_dropped_in_a_cycle(self):
        class Holder:
            pass

        holder = Holder()
        holder.itself, holder.batches = holder, iter(DataLoader(Items(1000), 1))
        next(holder.batches)
        del holder
        gc.collect()
        assert workers() == []


class TestErrors:
    @pytest.mark.parametrize("prefetch", PREFETCH)
    def test_arrive_in_their_place_with_the_traceback_of_where_they_happened(self, prefetch):
        error = RuntimeError("image 7 is broken")
        seen = []
        loader = DataLoader(Items(20, broken=7, error=error), 2, prefetch=prefetch)
        with pytest.raises(RuntimeError, match="image 7 is broken") as caught:
            seen.extend(labels for _, labels in loader)
        assert caught.value is error
        assert len(seen) == 3
        assert "__getitem__" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]

    @pytest.mark.parametrize("prefetch", [0, 2])
    @pytest.mark.parametrize("kind", [StopIteration, GeneratorExit, KeyboardInterrupt, SystemExit])
    def test_none_of_them_passes_for_the_end(self, kind, prefetch):
        with pytest.raises((kind, RuntimeError)):
            values(DataLoader(Items(20, broken=7, error=kind()), 2, prefetch=prefetch))

    def test_the_loader_goes_on_after_one(self):
        dataset = Items(6, broken=3, error=OSError("gone"))
        loader = DataLoader(dataset, 2)
        with pytest.raises(OSError, match="gone"):
            values(loader)
        dataset.broken = None
        assert len(values(loader)) == 3


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
            ({"batch_size": -3}, ValueError, "batch_size must be at least 1, got -3"),
            ({"batch_size": 2.5}, TypeError, "batch_size must be an integer, got 2.5"),
            ({"batch_size": None}, TypeError, "batch_size must be an integer, got None"),
            ({"prefetch": -1}, ValueError, "prefetch must be at least 0, got -1"),
            ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
            ({"seed": 2**64}, ValueError, "seed"),
            ({"seed": "x"}, TypeError, "seed must be an integer, got 'x'"),
            ({"transform": 3}, TypeError, "transform must be callable"),
        ],
    )
    def test_out_of_range(self, options, error, words):
        with pytest.raises(error, match=words):
            DataLoader(dataset_of(3), **options)

    def test_no_data_set(self):
        with pytest.raises(TypeError, match="int does not"):
            DataLoader(3)

    @pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (2**32, 0), (0, -1), (0, 5)])
    def test_epochs_and_batches_that_are_not(self, epoch, start):
        with pytest.raises(ValueError, match=r"epoch must|start_batch must lie in \[0, 4\]"):
            DataLoader(dataset_of(10), 3).set_epoch(epoch, start)

    def test_numpy_integers_are_integers(self):
        assert len(DataLoader(dataset_of(10), np.int64(3), seed=np.uint8(1))) == 4


def test_importing_is_light():
    heavy = "PIL pooch requests tqdm matplotlib click safetensors"
    code = f"import sys, gpucnn.data; print(*(name for name in {heavy.split()} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
