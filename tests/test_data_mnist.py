"""MNIST: the places it is looked for in their order, what is refused, and the sample that the package carries."""

from __future__ import annotations

import glob
import gzip
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from gpucnn.data import load_dataset, load_mnist, load_mnist_sample, write_idx
from gpucnn.data import mnist as mnist_module
from gpucnn.data.locate import cache_folder
from gpucnn.data.mnist import FILES, SAMPLE_FOLDER, SHA256

ORIGINALS = next(
    (
        path
        for root in (os.environ.get("GPUCNN_DATA"), cache_folder("mnist"))
        if root
        for path in (Path(root).expanduser() / folder for folder in FILES.folders)
        if all((path / name).is_file() for name in SHA256)
    ),
    None,
)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No variable, an empty cache, and no network."""
    monkeypatch.delenv("GPUCNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist_module, "MIRRORS", ("http://127.0.0.1:9/",))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def make(folder, train=6, test=4, ending=".gz", **other):
    """A folder of MNIST's files with few images; all pixels of image i are i, or `other` in place of an array."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count in (("train", train), ("t10k", test)):
        arrays = {
            f"{stem}-images-idx3-ubyte": np.repeat(np.arange(count, dtype=np.uint8), 784).reshape(count, 28, 28),
            f"{stem}-labels-idx1-ubyte": (np.arange(count) % 10).astype(np.uint8),
        }
        for name, array in arrays.items():
            write_idx(folder / (name + ending), other.get(name.replace("-", "_"), array))
    return folder


class TestPlaces:
    @pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
    @pytest.mark.parametrize("ending", ["", ".gz"])
    @pytest.mark.parametrize("how", ["argument", "variable"])
    def test_folders_and_endings(self, below, ending, how, tmp_path, monkeypatch):
        make(tmp_path / "here" / below, ending=ending)
        if how == "variable":
            monkeypatch.setenv("GPUCNN_DATA", str(tmp_path / "here"))
        train, test = load_mnist(tmp_path / "here" if how == "argument" else None, download=False)
        assert (len(train), len(test)) == (6, 4)
        assert train.images.shape == (6, 28, 28, 1)
        assert train.images.dtype == np.uint8
        assert train.images[:, 5, 7, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert test.labels.tolist() == [0, 1, 2, 3]
        assert train.classes == tuple("0123456789")
        assert train.name == test.name == "mnist"
        assert train.source == test.source
        assert str(tmp_path / "here" / below) in train.source
        assert ("$GPUCNN_DATA" in train.source) == (how == "variable")

    def test_the_order(self, tmp_path, monkeypatch):
        make(tmp_path / "argument", train=1)
        make(tmp_path / "variable", train=2)
        make(tmp_path / "cache" / "gpucnn" / "mnist", train=3)
        monkeypatch.setenv("GPUCNN_DATA", str(tmp_path / "variable"))
        assert len(load_mnist(tmp_path / "argument")[0]) == 1
        assert len(load_mnist()[0]) == 2
        monkeypatch.delenv("GPUCNN_DATA")
        assert len(load_mnist(download=False)[0]) == 4000, (
            "the cache counts only where its checksums are the published ones"
        )
        folder = tmp_path / "cache" / "gpucnn" / "mnist"
        hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SHA256}
        monkeypatch.setattr(mnist_module, "SHA256", hashes)
        train, _ = load_mnist()
        assert len(train) == 3
        assert "the cache" in train.source

    def test_a_variable_without_mnist_is_passed_over(self, tmp_path, monkeypatch):
        (tmp_path / "other").mkdir()
        for named in (tmp_path / "other", tmp_path / "absent"):
            monkeypatch.setenv("GPUCNN_DATA", str(named))
            train, _ = load_mnist(download=False)
            assert train.name == "mnist-sample"
            assert f"not in $GPUCNN_DATA ({named})" in train.source

    def test_a_variable_with_part_of_mnist_is_passed_over_with_a_warning(self, tmp_path, monkeypatch, caplog):
        make(tmp_path / "here")
        (tmp_path / "here" / "t10k-labels-idx1-ubyte.gz").unlink()
        monkeypatch.setenv("GPUCNN_DATA", str(tmp_path / "here"))
        with caplog.at_level(logging.WARNING, "gpucnn.data"):
            train, _ = load_mnist(download=False)
        assert train.name == "mnist-sample"
        assert f"{tmp_path / 'here'} lacks t10k-labels-idx1-ubyte" in caplog.text

    def test_an_argument_without_mnist_is_refused(self, tmp_path, monkeypatch):
        make(tmp_path / "variable")
        monkeypatch.setenv("GPUCNN_DATA", str(tmp_path / "variable"))
        make(tmp_path / "part" / "mnist")
        (tmp_path / "part" / "mnist" / "train-images-idx3-ubyte.gz").unlink()
        for root, words in (
            (tmp_path / "absent", "is not a folder"),
            (tmp_path / "part", "lacks train-images-idx3-ubyte"),
        ):
            with pytest.raises(FileNotFoundError, match=words) as caught:
                load_mnist(root)
            assert str(root / "MNIST/raw") in str(caught.value)
            assert all(name in str(caught.value) for name in FILES.names)

    def test_home_is_understood(self, tmp_path, monkeypatch):
        make(tmp_path / "digits")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert len(load_mnist("~/digits")[0]) == 6
        monkeypatch.setenv("GPUCNN_DATA", "~/digits")
        assert len(load_mnist()[0]) == 6

    def test_one_line_says_what_is_in_use(self, tmp_path, caplog):
        lines = []
        make(tmp_path / "here", train=1200)
        train, _ = load_mnist(tmp_path / "here", announce=lines.append)
        assert lines == [train.source]
        assert lines[0] == f"MNIST, 1,200 training and 4 test images from {tmp_path / 'here'} (the folder asked for)"
        with caplog.at_level(logging.INFO, "gpucnn.data"):
            load_mnist(tmp_path / "here")
        assert [record.getMessage() for record in caplog.records if record.name == "gpucnn.data"] == lines

    def test_by_name(self, tmp_path):
        make(tmp_path)
        assert len(load_dataset("mnist", tmp_path)[0]) == 6


class TestRefusals:
    @pytest.mark.parametrize("how", ["argument", "variable"])
    def test_a_truncated_file(self, how, tmp_path, monkeypatch):
        make(tmp_path, ending="")
        path = tmp_path / "train-images-idx3-ubyte"
        path.write_bytes(path.read_bytes()[:-1])
        monkeypatch.setenv("GPUCNN_DATA", str(tmp_path))
        with pytest.raises(
            ValueError, match=f"{path}: cut short: expected 4704 bytes of data for 6x28x28 uint8, found 4703"
        ):
            load_mnist(tmp_path if how == "argument" else None)

    @pytest.mark.parametrize(
        ("name", "array", "words"),
        [
            (
                "train_images_idx3_ubyte",
                np.zeros((6, 32, 32), np.uint8),
                r"\(N, 28, 28\) uint8, found \(6, 32, 32\) uint8",
            ),
            ("train_images_idx3_ubyte", np.zeros((6, 28, 28), np.float32), r"found \(6, 28, 28\) float32"),
            ("train_images_idx3_ubyte", np.zeros((6, 784), np.uint8), r"found \(6, 784\)"),
            ("t10k_labels_idx1_ubyte", np.zeros(5, np.uint8), r"expected 4 labels uint8, .*found \(5,\)"),
            ("t10k_labels_idx1_ubyte", np.zeros(4, np.int32), r"found \(4,\) int32"),
            ("t10k_labels_idx1_ubyte", np.zeros((4, 1), np.uint8), r"found \(4, 1\)"),
            ("t10k_labels_idx1_ubyte", np.array([0, 1, 10, 2], np.uint8), "expected labels 0 to 9, found 10"),
        ],
    )
    def test_arrays_that_are_not_mnists(self, name, array, words, tmp_path):
        make(tmp_path, **{name: array})
        with pytest.raises(ValueError, match=words) as caught:
            load_mnist(tmp_path)
        assert name.replace("_", "-") in str(caught.value)


class TestSample:
    def test_is_what_the_notice_says(self):
        notice = (SAMPLE_FOLDER / "NOTICE.md").read_text(encoding="utf-8")
        for word in (
            "LeCun",
            "Cortes",
            "Burges",
            "NIST",
            "Attribution-ShareAlike 3.0",
            "http://yann.lecun.com/exdb/mnist/",
        ):
            assert word in notice
        listed = dict(
            reversed(line) for line in re.findall(r"^    ([0-9a-f]{64})  (\S+)$", notice.split("the sample's")[1], re.M)
        )
        assert set(listed) == {name for each in SHA256 for name in (each, each.removesuffix(".gz"))}
        for name in SHA256:
            content = (SAMPLE_FOLDER / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == listed[name]
            assert hashlib.sha256(gzip.decompress(content)).hexdigest() == listed[name.removesuffix(".gz")]
            assert f"{SHA256[name]}  {name}" in notice
        assert sum(path.stat().st_size for path in SAMPLE_FOLDER.iterdir()) <= 1_000_000

    def test_images_and_labels(self):
        train, test = load_mnist_sample()
        assert train.images.shape == (4000, 28, 28, 1)
        assert test.images.shape == (1000, 28, 28, 1)
        assert np.bincount(train.labels).tolist() == [400] * 10
        assert np.bincount(test.labels).tolist() == [100] * 10
        assert train.labels[:8].tolist() != sorted(train.labels[:8].tolist()), "classes come mixed"
        assert int(train.images.sum(dtype=np.int64)) == 106_185_065
        assert int(test.images.sum(dtype=np.int64)) == 26_993_281
        assert (
            abs(train.images.mean() / 255 - 0.13146) <= 5 * 0.00056
        )  # the mean of all classes, and its standard error
        assert len(np.unique(np.concatenate([train.images, test.images]).reshape(5000, -1), axis=0)) == 5000
        assert train.name == "mnist-sample"

    def test_is_part_of_the_package(self):
        tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
        project = Path(__file__).parents[1]
        settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
        patterns = settings["tool"]["setuptools"]["package-data"]["gpucnn"]
        package = project / "gpucnn"
        packed = {name for pattern in patterns for name in glob.glob(pattern, root_dir=package, recursive=True)}
        assert {f"data/embedded/mnist/{name}" for name in (*SHA256, "NOTICE.md")} <= packed

    def test_is_what_remains_without_a_network(self):
        lines = []
        train, test = load_mnist(announce=lines.append)
        assert (len(train), len(test)) == (4000, 1000)
        assert lines == [train.source]
        assert "$GPUCNN_DATA not set" in lines[0]
        assert "download failed: 127.0.0.1:9: ConnectionError" in lines[0]
        assert "download not asked for" in load_mnist(download=False)[0].source

    def test_by_name(self, tmp_path):
        assert len(load_dataset("mnist-sample")[0]) == 4000
        with pytest.raises(ValueError, match="mnist-sample is carried by the package"):
            load_dataset("mnist-sample", tmp_path)


@pytest.fixture(scope="module")
def tool():
    path = Path(__file__).parents[1] / "tools" / "make_mnist_sample.py"
    specification = importlib.util.spec_from_file_location("make_mnist_sample", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class TestTool:
    @pytest.mark.skipif(
        ORIGINALS is None, reason="MNIST's original .gz files are neither in $GPUCNN_DATA nor in the cache"
    )
    def test_makes_the_same_sample_again(self, tool, tmp_path):
        tool.make(ORIGINALS, tmp_path)
        for name in SHA256:
            one, other = (tmp_path / name).read_bytes(), (SAMPLE_FOLDER / name).read_bytes()
            assert gzip.decompress(one) == gzip.decompress(other)
            if "ng" not in zlib.ZLIB_RUNTIME_VERSION:  # zlib-ng finds other matches than zlib
                assert one == other
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in SAMPLE_FOLDER.iterdir())

    def test_draws_as_many_of_each_class_in_the_order_of_the_originals(self, tool):
        labels = (np.random.default_rng(0).integers(0, 10, 3000)).astype(np.uint8)
        places = tool.choose(labels, 50, 0)
        assert (np.diff(places) > 0).all()
        assert np.bincount(labels[places]).tolist() == [50] * 10
        assert tool.choose(labels, 50, 0).tolist() == places.tolist()
        assert tool.choose(labels, 50, 1).tolist() != places.tolist()
        assert set(tool.choose(labels, 20, 0)) < set(places)

    def test_refuses_files_that_are_not_the_published_ones(self, tool, tmp_path):
        shutil.copytree(SAMPLE_FOLDER, tmp_path / "source")
        with pytest.raises(ValueError, match="expected the published file"):
            tool.make(tmp_path / "source", tmp_path / "target")
        assert not (tmp_path / "target").exists()
