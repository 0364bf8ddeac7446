"""Copy-paste: the pixels of one class, cut out of an image along its mask, on another image.

A cow on a road and a car on grass break what always comes together in the photographs, and rare classes are seen on
more grounds. Masks that leave the rim of an object undecided serve as well: what is cut out is what they are sure of.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tagmask.ops.label_ids import IGNORE

LEAST, MOST = 0.02, 0.5  # of the view's area that what is cut out covers
REACH = 0.3  # of the view's side that it is moved by at the most, up or down and left or right


def cut_out(labels: np.ndarray, random: np.random.Generator, label: int | None = None) -> tuple[int, np.ndarray] | None:
    """Choose what to cut out of a view.

    Args:
        labels: (S, S) label ids; 0 is background, 255 undecided.
        random: draws one of the labels, where none is given.
        label: the one to cut out.

    Returns:
        the label and its pixels (S, S) as bool; None where there is no label, or it covers too little or too much.
    """
    if label is None:
        found = [int(each) for each in np.unique(labels) if each not in (0, IGNORE)]
        if not found:
            return None
        label = int(random.choice(found))
    pixels = labels == label
    return (label, pixels) if LEAST <= pixels.mean() <= MOST else None


def paste_onto(
    image: Tensor, mask: Tensor, donor: Tensor, label: int, pixels: np.ndarray, random: np.random.Generator
) -> int:
    """Paste `pixels` (S, S) of the view `donor` (3, S, S), moved at random, into `image` and, as `label`, into `mask`.

    Both are changed in place. What is moved out of the view is lost.

    Returns:
        how many pixels are left of what is pasted.

    Source: Simple Copy-Paste (Ghiasi et al., CVPR 2021), section 3; there objects are of drawn masks.
    """
    side = len(pixels)
    reach = round(REACH * side)
    down, right = (int(random.integers(-reach, reach + 1)) for _ in range(2))
    rows, columns = np.nonzero(pixels)
    inside = (rows + down >= 0) & (rows + down < side) & (columns + right >= 0) & (columns + right < side)
    rows, columns = rows[inside], columns[inside]
    image[:, rows + down, columns + right] = donor[:, rows, columns]
    mask[rows + down, columns + right] = label
    return len(rows)
