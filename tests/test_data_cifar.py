"""CIFAR-10 in its binary layout: planes become pixels, and files that are not whole are refused."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from gpucnn.data import cifar as cifar_module
from gpucnn.data import load_cifar10, load_dataset
from gpucnn.data.cifar import extract

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
RECORDS = 6
TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]
NAMES = [*TRAIN, "test_batch.bin", "batches.meta.txt"]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Files of few records, no variable, an empty cache."""
    monkeypatch.setattr(cifar_module, "_RECORDS", RECORDS)
    monkeypatch.delenv("GPUCNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def contents():
    """The files' bytes, and the same images and labels as arrays."""
    rng = np.random.default_rng(0)
    files = {"batches.meta.txt": "".join(name + "\n" for name in CLASSES).encode() + b"\n"}
    images, labels = {}, {}
    for name in [*TRAIN, "test_batch.bin"]:
        images[name] = rng.integers(0, 256, (RECORDS, 32, 32, 3), dtype=np.uint8)
        labels[name] = rng.integers(0, 10, RECORDS).tolist()
        records = bytearray()
        for image, label in zip(images[name], labels[name], strict=True):
            records.append(label)
            for channel in range(3):
                for row in range(32):
                    records += image[row, :, channel].tobytes()
        files[name] = bytes(records)
    return files, images, labels


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    for name, content in contents()[0].items():
        (folder / name).write_bytes(content)
    return folder


def test_images_labels_and_classes(folder):
    _, images, labels = contents()
    lines = []
    train, test = load_cifar10(folder, announce=lines.append)
    np.testing.assert_array_equal(train.images, np.concatenate([images[name] for name in TRAIN]))
    np.testing.assert_array_equal(test.images, images["test_batch.bin"])
    assert train.images.flags.c_contiguous
    assert train.labels.tolist() == [label for name in TRAIN for label in labels[name]]
    assert test.labels.tolist() == labels["test_batch.bin"]
    assert train.classes == test.classes == tuple(CLASSES)
    assert train.name == test.name == "cifar10"
    assert lines == [train.source] == [f"CIFAR-10, 30 training and 6 test images from {folder} (the folder asked for)"]


@pytest.mark.parametrize("below", ["", "cifar10", "cifar-10-batches-bin"])
def test_the_variable(below, folder, tmp_path, monkeypatch):
    (tmp_path / "root" / below).parent.mkdir(parents=True, exist_ok=True)
    folder.rename(tmp_path / "root" / below)
    monkeypatch.setenv("GPUCNN_DATA", str(tmp_path / "root"))
    train, _ = load_dataset("cifar10")
    assert "($GPUCNN_DATA)" in train.source


def test_the_cache(folder, tmp_path):
    cache = tmp_path / "cache" / "gpucnn"
    cache.mkdir(parents=True)
    folder.rename(cache / "cifar10")
    assert "(the cache)" in load_cifar10()[0].source


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_missing(name, folder, tmp_path):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{folder} lacks {name}"):
        load_cifar10(folder)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_cifar10(tmp_path / "absent")


def test_nowhere_says_where_was_looked_and_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as caught:
        load_cifar10(download=False)
    for words in (
        "$GPUCNN_DATA not set",
        str(tmp_path / "cache" / "gpucnn" / "cifar10"),
        "cifar-10-binary.tar.gz",
        "unpack",
    ):
        assert words in str(caught.value)
    monkeypatch.setenv("GPUCNN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"not in \$GPUCNN_DATA"):
        load_cifar10(download=False)


@pytest.mark.parametrize("name", [TRAIN[0], TRAIN[4], "test_batch.bin"])
@pytest.mark.parametrize("change", [-3073, -1, 1, 3073, -RECORDS * 3073])
def test_a_file_of_another_size(name, change, folder):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:change] if change < 0 else content + bytes(change))
    size = RECORDS * 3073
    with pytest.raises(ValueError, match=f"{folder / name}: expected {size} bytes, .*found {size + change}"):
        load_cifar10(folder)


def test_the_size_of_the_real_files_is_what_is_expected(folder, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"expected 30730000 bytes, 10000 records of 3073, found {RECORDS * 3073}"):
        load_cifar10(folder)


def test_labels_that_are_no_classes(folder):
    content = bytearray((folder / TRAIN[2]).read_bytes())
    content[3073] = 10
    (folder / TRAIN[2]).write_bytes(content)
    with pytest.raises(ValueError, match=f"{folder / TRAIN[2]}: expected labels 0 to 9, found 10"):
        load_cifar10(folder)


@pytest.mark.parametrize("content", [b"", b"one\ntwo\n", b"cat\n" * 10, b"\xff\xfe\x00" * 50])
def test_class_names_that_are_not_ten(content, folder):
    (folder / "batches.meta.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"batches.meta.txt: expected the names of 10 classes"):
        load_cifar10(folder)


def archive_of(path, members):
    """A tar.gz with members as (name, content) or TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                information = tarfile.TarInfo(member[0])
                information.size = len(member[1])
                tar.addfile(information, io.BytesIO(member[1]))
    return path


class TestExtract:
    def test_flat_and_whole(self, tmp_path):
        files = contents()[0]
        members = [(f"cifar-10-batches-bin/{name}", content) for name, content in files.items()]
        archive = archive_of(tmp_path / "a.tar.gz", [*members, ("cifar-10-batches-bin/readme.html", b"x")])
        (tmp_path / "target").mkdir()
        extract(archive, tmp_path / "target")
        assert {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()} == files

    @pytest.mark.parametrize("name", ["../test_batch.bin", "/tmp/test_batch.bin", "a/../../test_batch.bin"])
    def test_paths_that_lead_outside(self, name, tmp_path):
        members = [(each, b"x") for each in NAMES]
        archive = archive_of(tmp_path / "a.tar.gz", [*members, (name, b"evil")])
        (tmp_path / "target").mkdir()
        with pytest.raises(ValueError, match=f"{archive}: refused, its member '{name}' leads outside"):
            extract(archive, tmp_path / "target")
        assert list((tmp_path / "target").iterdir()) == []
        assert not (tmp_path / "test_batch.bin").exists()

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
    def test_what_is_no_file_is_none_of_the_files(self, kind, tmp_path):
        link = tarfile.TarInfo("test_batch.bin")
        link.type, link.linkname = kind, "data_batch_1.bin"
        archive = archive_of(tmp_path / "a.tar.gz", [*((n, b"x") for n in NAMES if n != "test_batch.bin"), link])
        (tmp_path / "target").mkdir()
        with pytest.raises(ValueError, match=r"found none named test_batch\.bin"):
            extract(archive, tmp_path / "target")
        assert list((tmp_path / "target").iterdir()) == []

    @pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.9])
    def test_an_archive_cut_short(self, part, tmp_path):
        archive = archive_of(tmp_path / "a.tar.gz", list(contents()[0].items()))
        content = archive.read_bytes()
        archive.write_bytes(content[: int(part * len(content))])
        (tmp_path / "target").mkdir()
        with pytest.raises(ValueError, match=r"a.tar.gz: expected"):
            extract(archive, tmp_path / "target")
        assert list((tmp_path / "target").iterdir()) == []
