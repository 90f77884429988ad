"""Image files and folders of them: pixels against pillow and by eye, and every error names its file."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from gpucnn.data import DATASETS, DataLoader, ImageFolder, load_dataset, load_image

Image = pytest.importorskip("PIL.Image")


def pixels_of(height=6, width=9, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_of() if pixels is None else pixels).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    """Two classes of two images each, all 6x9."""
    for number, name in enumerate(["dog/b.png", "dog/a.png", "cat/z.png", "cat/deep/er.png"]):
        save(tmp_path / "set" / name, pixels_of(seed=number))
    return tmp_path / "set"


class TestLoadImage:
    @pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tiff", "a.PNG"])
    def test_pixels_come_back(self, name, tmp_path):
        image = load_image(save(tmp_path / name))
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert image.flags.writeable
        np.testing.assert_array_equal(image, pixels_of())

    def test_grey_and_colour(self, tmp_path):
        grey, colour = pixels_of(channels=1), pixels_of()
        path = save(tmp_path / "grey.png", grey)
        np.testing.assert_array_equal(load_image(path, mode="L"), grey[:, :, None])
        np.testing.assert_array_equal(load_image(path, mode="RGB"), np.stack([grey] * 3, axis=2))
        luma = load_image(save(tmp_path / "colour.png", colour), mode="L")
        assert luma.shape == (6, 9, 1)
        expected = colour @ [0.299, 0.587, 0.114]  # ITU-R 601-2
        assert (np.abs(luma[:, :, 0] - expected) <= 1).all()

    @pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA", "CMYK"])
    def test_other_kinds_of_pixels(self, mode, tmp_path):
        ending = "tiff" if mode == "CMYK" else "png"
        Image.fromarray(np.full((4, 5, 3), 255, np.uint8)).convert(mode).save(tmp_path / f"a.{ending}")
        image = load_image(tmp_path / f"a.{ending}")
        assert image.shape == (4, 5, 3)
        assert (image == 255).all()

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_the_cameras_orientation(self, orientation, tmp_path):
        pixels = pixels_of()
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = load_image(save(tmp_path / "a.png", pixels, exif=exif))
        upright = {  # EXIF 2.3, 4.6.4 A: where the 0th row and the 0th column of the file belong
            1: pixels,
            2: pixels[:, ::-1],
            3: pixels[::-1, ::-1],
            4: pixels[::-1],
            5: pixels.transpose(1, 0, 2),
            6: pixels.transpose(1, 0, 2)[:, ::-1],
            7: pixels.transpose(1, 0, 2)[::-1, ::-1],
            8: pixels.transpose(1, 0, 2)[::-1],
        }
        np.testing.assert_array_equal(image, upright[orientation])

    @pytest.mark.parametrize(
        ("size", "rows", "columns"),
        [
            ((4, 4), slice(0, 4), slice(4, 8)),
            ((4, 12), slice(0, 4), slice(0, 12)),
            ((4, 10), slice(0, 4), slice(1, 11)),
        ],
    )
    def test_the_centre_is_kept_bit_by_bit_where_nothing_is_scaled(self, size, rows, columns, tmp_path):
        pixels = pixels_of(4, 12)
        image = load_image(save(tmp_path / "a.png", pixels), size=size)
        np.testing.assert_array_equal(image, pixels[rows, columns])

    @pytest.mark.parametrize("height_first", [True, False])
    def test_what_lies_outside_the_centre_does_not_show(self, height_first, tmp_path):
        pixels = np.zeros((90, 30, 3), np.uint8)
        pixels[:30, :, 0] = pixels[30:60, :, 1] = pixels[60:, :, 2] = 255
        if not height_first:
            pixels = pixels.transpose(1, 0, 2)
        image = load_image(save(tmp_path / "a.png", np.ascontiguousarray(pixels)), size=(10, 10))
        assert image.shape == (10, 10, 3)
        assert (image[1:-1, 1:-1] == np.array([0, 255, 0])).all()
        assert (image[:, :, 1] >= 200).all()  # at the edge the filter reaches a little beyond

    @pytest.mark.parametrize("size", [(8, 24), (2, 6), (3, 9), (16, 48), (1, 3)])
    def test_resizing_is_bilinear(self, size, tmp_path):
        """A ramp stays a ramp, whose ends bilinear interpolation leaves within half a step of the old ones."""
        ramp = np.broadcast_to(np.linspace(0, 240, 12)[None, :, None], (4, 12, 3)).astype(np.uint8)
        image = load_image(save(tmp_path / "a.png", np.ascontiguousarray(ramp)), size=size)
        assert image.shape == (*size, 3)
        centres = (np.arange(size[1]) + 0.5) * 12 / size[1] - 0.5
        expected = np.interp(centres, np.arange(12), ramp[0, :, 0])
        inner = slice(1, -1)  # at the border there is nothing to average with
        assert (np.abs(image[:, inner, :] - expected[None, inner, None]) <= 1.5).all()

    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
    def test_more_than_8_bits_is_refused(self, dtype, tmp_path):
        path = save(tmp_path / "a.tiff", np.zeros((4, 4), dtype))
        with pytest.raises(ValueError, match=f"{path}: .*more than 8 bits"):
            load_image(path)

    @pytest.mark.parametrize("ending", ["png", "jpeg", "bmp", "gif", "webp"])
    def test_truncated(self, ending, tmp_path):
        path = save(tmp_path / f"a.{ending}", pixels_of(40, 40))
        content = path.read_bytes()
        for part in (0.0, 0.1, 0.5, 0.8):
            path.write_bytes(content[: int(part * len(content))])
            with pytest.raises(ValueError, match=f"{path}: not readable as an image"):
                load_image(path)

    def test_not_an_image(self, tmp_path):
        (tmp_path / "a.png").write_text("hello")
        with pytest.raises(ValueError, match=r"a.png: not readable as an image"):
            load_image(tmp_path / "a.png")
        for path in (tmp_path / "absent.png", tmp_path):
            with pytest.raises(FileNotFoundError, match=f"{path}: there is no such image file"):
                load_image(path)

    @pytest.mark.parametrize("size", [(0, 4), (4, -1), (4,), 4, (4, 4, 3), (4.0, 4), "44"])
    def test_sizes_that_are_none(self, size, tmp_path):
        with pytest.raises(ValueError, match="size must be"):
            load_image(save(tmp_path / "a.png"), size=size)
        with pytest.raises(ValueError, match="size must be"):
            ImageFolder(tmp_path, size=size)

    def test_modes_that_are_none(self, tmp_path):
        with pytest.raises(ValueError, match="mode must be one of RGB, L, got 'CMYK'"):
            load_image(save(tmp_path / "a.png"), mode="CMYK")


class TestImageFolder:
    def test_classes_and_files_are_sorted(self, root):
        dataset = ImageFolder(root)
        assert dataset.classes == ("cat", "dog")
        assert [path.relative_to(root).as_posix() for path in dataset.files] == [
            "cat/deep/er.png",
            "cat/z.png",
            "dog/a.png",
            "dog/b.png",
        ]
        assert [dataset[index][1] for index in range(4)] == dataset.labels.tolist() == [0, 0, 1, 1]
        np.testing.assert_array_equal(dataset[1][0], pixels_of(seed=2))
        np.testing.assert_array_equal(dataset[-1][0], pixels_of(seed=0))
        assert len(dataset) == len(list(dataset)) == 4
        assert dataset.name == "set"
        assert dataset.source == f"4 images in 2 classes from {root}"
        with pytest.raises(IndexError):
            dataset[4]

    def test_what_is_no_image_is_passed_over(self, root):
        (root / "cat" / "notes.txt").write_text("x")
        (root / "cat" / ".hidden.png").write_text("x")
        (root / "cat" / "folder.png").mkdir()
        (root / "list.csv").write_text("x")
        (root / ".git").mkdir()
        save(root / "dog" / "C.JPG")
        dataset = ImageFolder(root)
        assert dataset.classes == ("cat", "dog")
        assert len(dataset) == 5

    def test_batches(self, root):
        for prefetch in (0, 2):
            batches = list(DataLoader(ImageFolder(root, size=(4, 5), mode="L"), 3, prefetch=prefetch))
            assert [images.shape for images, _ in batches] == [(3, 1, 4, 5), (1, 1, 4, 5)]
            assert batches[1][1].numpy().tolist() == [1]

    def test_images_are_decoded_when_they_are_asked_for(self, root):
        (root / "dog" / "b.png").write_text("broken")
        dataset = ImageFolder(root)
        assert dataset[0][0].shape == (6, 9, 3)
        with pytest.raises(ValueError, match=f"{root / 'dog' / 'b.png'}: not readable"):
            dataset[3]
        with pytest.raises(ValueError, match=f"{root / 'dog' / 'b.png'}: not readable"):
            list(DataLoader(dataset, 2))

    def test_several_sizes(self, root):
        save(root / "dog" / "a.png", pixels_of(7, 9))
        words = r"dog/a.png: is 7x9 \(height x width\) where .*cat/deep/er.png is 6x9; give size="
        with pytest.raises(ValueError, match=words):
            ImageFolder(root)[2]
        with pytest.raises(ValueError, match=words):
            list(DataLoader(ImageFolder(root), 4))
        assert ImageFolder(root, size=(6, 9))[2][0].shape == (6, 9, 3)

    def test_folders_without_images(self, root, tmp_path):
        (root / "bird").mkdir()
        with pytest.raises(ValueError, match=f"{root / 'bird'}: expected images .*found none"):
            ImageFolder(root)
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match="expected a folder of images for each class, found no folder"):
            ImageFolder(tmp_path / "empty")
        for path in (tmp_path / "absent", root / "dog" / "a.png"):
            with pytest.raises(FileNotFoundError, match=f"{path}: there is no such folder"):
                ImageFolder(path)


class TestLoadDataset:
    @pytest.mark.parametrize("test_folder", ["test", "val"])
    def test_a_folder_of_folders(self, test_folder, tmp_path, root, caplog):
        (tmp_path / "pets").mkdir()
        root.rename(tmp_path / "pets" / "train")
        for name in ("cat", "dog"):
            save(tmp_path / "pets" / test_folder / name / "a.png", pixels_of(20, 20))
        lines = []
        for path in (tmp_path / "pets", str(tmp_path / "pets")):
            train, test = load_dataset(path, size=(8, 8), mode="L", announce=lines.append)
            assert (len(train), len(test)) == (4, 2)
            assert train[0][0].shape == test[0][0].shape == (8, 8, 1)
            assert train.name == test.name == "pets"
        assert lines == [f"4 training and 2 test images in 2 classes from {tmp_path / 'pets'}"] * 2
        with caplog.at_level(logging.INFO, "gpucnn.data"):
            load_dataset(tmp_path / "pets")
        assert lines[0] in caplog.text
        with pytest.raises(ValueError, match="data_dir is for a data set by name"):
            load_dataset(tmp_path / "pets", tmp_path)

    def test_without_a_part(self, root, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"{root}: expected the folders train and test or val"):
            load_dataset(root)
        root.rename(tmp_path / "train")
        with pytest.raises(FileNotFoundError, match="expected the folders"):
            load_dataset(tmp_path)

    def test_other_classes_in_the_test_set(self, root, tmp_path):
        root.rename(tmp_path / "train")
        save(tmp_path / "test" / "cat" / "a.png")
        save(tmp_path / "test" / "fox" / "a.png")
        with pytest.raises(ValueError, match="must have the same classes; only one of them has dog, fox"):
            load_dataset(tmp_path)

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("mnsit", "mnist"),
            ("MNIST", "mnist"),
            ("cifar", "cifar10"),
            ("CIFAR-10", "cifar10"),
            ("mnist_sample", "mnist-sample"),
        ],
    )
    def test_unknown_names(self, name, near, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=f"unknown data set '{name}': .*the nearest is {near};") as caught:
            load_dataset(name)
        assert all(known in str(caught.value) for known in DATASETS)

    def test_a_name_like_none(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="unknown data set 'xyzzy'") as caught:
            load_dataset("xyzzy")
        assert "nearest" not in str(caught.value)

    def test_paths_that_lead_nowhere(self, tmp_path):
        for path in (tmp_path / "absent", str(tmp_path / "absent"), "./mnist-not-here"):
            with pytest.raises(FileNotFoundError, match="there is no such folder of images"):
                load_dataset(path)

    def test_size_is_for_folders(self):
        with pytest.raises(ValueError, match="size is for a folder of images"):
            load_dataset("mnist-sample", size=(28, 28))
