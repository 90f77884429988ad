#!/usr/bin/env python3
"""Draws the sample of MNIST that the package carries, from the original files.

usage: python tools/make_mnist_sample.py SOURCE [TARGET]

SOURCE is a folder with MNIST's four .gz files as published; their checksums are verified. TARGET is by default the
package's own gpucnn/data/embedded/mnist. Written are four IDX files, gzip-compressed, and NOTICE.md, all of which
depend on SOURCE alone (and, for the compressed bytes, on the compressor being zlib's own).

The sample has the same number of images of each class: 400 of the training set's, 100 of the test set's. An image's
rank within its class is a random number that Philox gives for its place in the file, under a fixed key: the images
with the lowest are taken, and keep the order of the originals.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucnn.data.idx import read_idx, write_idx
from gpucnn.data.mnist import CLASSES, SAMPLE_FOLDER, SHA256
from gpucnn.random import philox4x32, split64

SEED = 1998
PER_CLASS = {"train": 400, "t10k": 100}

NOTICE = """\
# A sample of MNIST

The four files beside this one hold {train:,} of the 60,000 training images and {t10k:,} of the 10,000 test images of
the MNIST database of handwritten digits, {train_each} and {t10k_each} of each digit, drawn at random with a fixed seed
by `tools/make_mnist_sample.py`. The images are unchanged.

- Authors: Yann LeCun (Courant Institute, NYU), Corinna Cortes (Google Labs, New York) and Christopher J.C. Burges
  (Microsoft Research, Redmond). MNIST is derived from NIST's Special Databases 1 and 3.
- Source: <http://yann.lecun.com/exdb/mnist/>. Described in LeCun, Bottou, Bengio and Haffner, "Gradient-based learning
  applied to document recognition", Proceedings of the IEEE 86(11), 1998.
- Licence: Creative Commons Attribution-ShareAlike 3.0 (<https://creativecommons.org/licenses/by-sa/3.0/>), under which
  MNIST is commonly distributed. It covers these four files, not the rest of gpucnn.

sha256 of the original files:

{originals}

sha256 of the sample's files, and of the IDX files inside them:

{results}
"""


def choose(labels: NDArray[np.uint8], per_class: int, split: int) -> NDArray[np.int64]:
    """The places of `per_class` random images of each class, ascending."""
    places = np.arange(len(labels), dtype=np.uint64)
    high, low, _, _ = philox4x32((places, 0, 0, split), split64(SEED))
    ranks = high << np.uint64(32) | low
    chosen = []
    for label in range(len(CLASSES)):
        members = np.flatnonzero(labels == label)
        chosen.append(members[np.argsort(ranks[members], kind="stable")[:per_class]])
    return np.sort(np.concatenate(chosen))


def make(source: Path, target: Path) -> None:
    """Writes the sample and its notice into `target`.

    Raises:
        ValueError: a file in `source` is not the published one.
    """
    for name, expected in SHA256.items():
        found = _sha256((source / name).read_bytes())
        if found != expected:
            raise ValueError(f"{source / name}: expected the published file, sha256 {expected}, found {found}")
    target.mkdir(parents=True, exist_ok=True)
    results = []
    for split, (stem, per_class) in enumerate(PER_CLASS.items()):
        images_name, labels_name = f"{stem}-images-idx3-ubyte.gz", f"{stem}-labels-idx1-ubyte.gz"
        images, labels = read_idx(source / images_name), read_idx(source / labels_name)
        places = choose(labels, per_class, split)
        for name, array in ((images_name, images[places]), (labels_name, labels[places])):
            write_idx(target / name, array)
            plain = target / name.removesuffix(".gz")
            write_idx(plain, array)
            results += [_line(target / name), _line(plain)]
            plain.unlink()
    notice = NOTICE.format(
        **{stem: per_class * len(CLASSES) for stem, per_class in PER_CLASS.items()},
        **{f"{stem}_each": per_class for stem, per_class in PER_CLASS.items()},
        originals="\n".join(f"    {digest}  {name}" for name, digest in sorted(SHA256.items())),
        results="\n".join(results),
    )
    (target / "NOTICE.md").write_text(notice, encoding="utf-8")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _line(path: Path) -> str:
    return f"    {_sha256(path.read_bytes())}  {path.name}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the sample of MNIST that gpucnn carries.")
    parser.add_argument("source", type=Path, help="folder with MNIST's four .gz files as published")
    parser.add_argument("target", type=Path, nargs="?", default=SAMPLE_FOLDER, help="folder to write into")
    arguments = parser.parse_args()
    make(arguments.source, arguments.target)


if __name__ == "__main__":
    main()
