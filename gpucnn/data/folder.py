"""Image files: one, or a folder of them by class, decoded by pillow when they are asked for."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MODES = ("RGB", "L")


def load_image(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, mode: str = "RGB"
) -> NDArray[np.uint8]:
    """An image file's pixels.

    The orientation that a camera noted (EXIF) is applied, transparency is dropped, and of an animation the first frame
    is taken. To come to `size`, the image is resized bilinearly until it just covers it, and its centre kept.

    Args:
        path: a file in any format that pillow reads, with 8 bits a channel.
        size: (height, width) in pixels; None leaves the image's own.
        mode: "RGB", or "L" for grey.

    Returns:
        (H, W, 3) or (H, W, 1) uint8, C-contiguous.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an image that pillow reads, damaged, with more than 8 bits a channel, or a bad argument.
    """
    _check(size, mode)
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such image file")
    try:
        with Image.open(path) as file:
            if file.mode[0] in "IF":
                raise ValueError(f"more than 8 bits a channel (pillow's mode {file.mode}); convert it first")
            image: Image.Image = ImageOps.exif_transpose(file).convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not readable as an image: {error}") from error
    if size is not None:
        height, width = size
        image = ImageOps.fit(image, (width, height), method=Image.Resampling.BILINEAR)
    pixels = np.array(image, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


class ImageFolder:
    """The data set in a folder that has one subfolder of images for each class.

    Classes and, within them, files are sorted by name; files below deeper subfolders count as their class's. Files are
    images by the ending of their name (`ENDINGS`); others and hidden ones are passed over. Images are decoded when they
    are asked for.

    Args:
        root: the folder.
        size: (height, width) that images are brought to, as `load_image` does; None expects all to have one size.
        mode: "RGB", or "L" for grey.

    Raises:
        FileNotFoundError: `root` is no folder.
        ValueError: no classes, a class without images, a bad argument; and from `dataset[i]`: a file that cannot be
            read, or one whose size is not the first one's where `size` is None. The message names the file.
    """

    classes: tuple[str, ...]
    name: str
    source: str

    def __init__(self, root: str | os.PathLike[str], size: tuple[int, int] | None = None, mode: str = "RGB") -> None:
        _check(size, mode)
        self.root, self.size, self.mode = Path(root), size, mode
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: there is no such folder of images")
        folders = sorted(path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not folders:
            raise ValueError(f"{self.root}: expected a folder of images for each class, found no folder")
        self.classes = tuple(folder.name for folder in folders)
        self.files: list[Path] = []
        labels: list[int] = []
        for label, folder in enumerate(folders):
            files = sorted(path for path in folder.rglob("*") if _is_image(path))
            if not files:
                raise ValueError(f"{folder}: expected images ({', '.join(sorted(ENDINGS))}), found none")
            self.files += files
            labels += [label] * len(files)
        self.labels = np.array(labels, dtype=np.int64)
        self.name = self.root.name
        self.source = f"{len(self.files):,} images in {len(self.classes)} classes from {self.root}"
        self._shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: SupportsIndex) -> tuple[NDArray[np.uint8], int]:
        """Image (H, W, C) uint8 and its label."""
        index = operator.index(index)
        path = self.files[index]
        pixels = load_image(path, self.size, self.mode)
        if self.size is None and pixels.shape != self._first_shape():
            sizes = [f"{shape[0]}x{shape[1]}" for shape in (self._first_shape(), pixels.shape)]
            raise ValueError(
                f"{path}: is {sizes[1]} (height x width) where {self.files[0]} is {sizes[0]}; "
                f"give size=(height, width) to bring all images to one size"
            )
        return pixels, int(self.labels[index])

    def _first_shape(self) -> tuple[int, ...]:
        if self._shape is None:
            self._shape = load_image(self.files[0], None, self.mode).shape
        return self._shape

    def __repr__(self) -> str:
        return f"ImageFolder({str(self.root)!r}, {len(self)} images, {len(self.classes)} classes)"


def _check(size: object, mode: str) -> None:
    """Raises where a size is not None or (height, width), both positive, or a mode is not one of `MODES`.

    Raises:
        ValueError: in these cases.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if size is not None and not (
        isinstance(size, tuple) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    ):
        raise ValueError(f"size must be (height, width) in pixels, both positive, got {size!r}")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()
