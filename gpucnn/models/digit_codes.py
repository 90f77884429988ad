"""The target codes of LeNet-5's output layer: each digit drawn in 7x12 pixels.

After figure 3 of LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998),
drawn anew. Digits that look alike have codes that are alike, which is what the paper wants of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

WIDTH, HEIGHT = 7, 12
_DRAWINGS = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...##..  .#####.  .#####.  ....##.  #######  ..####.  #######  .#####.  .#####.
.##.##.  ..###..  ##...##  ##...##  ...###.  ##.....  .##....  #....##  ##...##  ##...##
##...##  .####..  .....##  .....##  ..####.  ##.....  ##.....  .....##  ##...##  ##...##
##...##  ...##..  .....##  .....##  .##.##.  ######.  ##.....  ....##.  ##...##  ##...##
##...##  ...##..  ....##.  ..####.  ##..##.  .....##  ######.  ....##.  .#####.  ##...##
##...##  ...##..  ...##..  .....##  ##..##.  .....##  ##...##  ...##..  ##...##  .######
##...##  ...##..  ..##...  .....##  #######  .....##  ##...##  ...##..  ##...##  .....##
.##.##.  ...##..  .##....  .....##  ....##.  ##...##  ##...##  ..##...  ##...##  .....##
..###..  ...##..  ##.....  ##...##  ....##.  ##...##  ##...##  ..##...  ##...##  ....##.
.......  .######  #######  .#####.  ....##.  .#####.  .#####.  ..##...  .#####.  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


def digit_codes(num_classes: int) -> np.ndarray[Any, Any]:
    """(num_classes, 84) of +1 (ink) and -1, float32. ValueError for more classes than the ten digits."""
    if not 1 <= num_classes <= 10:
        raise ValueError(f"LeNet-5 of 1998 has codes for 1 to 10 classes, the digits, not for {num_classes}")
    rows = [line.split() for line in _DRAWINGS.strip().splitlines()]
    ink = np.array([[[pixel == "#" for pixel in row] for row in digit] for digit in zip(*rows, strict=True)])
    return np.where(ink[:num_classes], 1, -1).reshape(num_classes, WIDTH * HEIGHT).astype(np.float32)
