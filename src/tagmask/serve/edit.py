"""Change a label map by hand: check what the browser sends, and change a region by a click."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE

RegionChange = Literal["delete", "relabel", "alone"]


def ground(background: bool) -> int:
    """Return the id of pixels that show no class: 0, or 255 (ignored) where a dataset has no background."""
    return 0 if background else IGNORE


def read_map(content: bytes, size: tuple[int, int], num_classes: int, *, background: bool) -> np.ndarray:
    """Read a label map as the browser sends it: a byte for each pixel, row by row.

    Args:
        content: the bytes.
        size: (height, width) of the image.
        num_classes: K.
        background: whether label 0 exists.

    Returns:
        (h, w) uint8 label map.

    Raises:
        TagmaskError: another number of bytes than pixels, or an id that is neither background, a class nor 255.
    """
    height, width = size
    if len(content) != height * width:
        raise TagmaskError(
            f"the mask has {len(content)} pixels, its image {height * width} ({width} x {height}); open it again"
        )
    labels = np.frombuffer(content, np.uint8).reshape(size)
    check_ids(labels, num_classes, background=background)
    return labels.copy()


def check_ids(labels: np.ndarray, num_classes: int, *, background: bool) -> None:
    """Refuse a label map with ids that no class has.

    Raises:
        TagmaskError: names the ids.
    """
    first = 0 if background else 1
    strange = [int(label) for label in np.unique(labels) if label != IGNORE and not first <= label <= num_classes]
    if strange:
        raise TagmaskError(
            f"ids {', '.join(map(str, strange[:5]))} in the mask are no class; expected {first} to {num_classes}, "
            f"or {IGNORE} (ignored)"
        )


def region_at(labels: np.ndarray, x: int, y: int) -> np.ndarray:
    """Find the pixels of one label that hang together with a point, along the sides of pixels.

    Args:
        labels: (h, w) label map.
        x, y: column and row of the point.

    Returns:
        (h, w) bool.

    Raises:
        TagmaskError: the point lies outside the map.
    """
    height, width = labels.shape
    if not (0 <= x < width and 0 <= y < height):
        raise TagmaskError(f"the point ({x}, {y}) lies outside the image of {width} x {height}")
    numbered, _ = ndimage.label(labels == labels[y, x])  # type: ignore[misc]
    return numbered == numbered[y, x]


def change_region(labels: np.ndarray, x: int, y: int, change: RegionChange, label: int) -> np.ndarray:
    """Change the region under a point.

    Args:
        labels: (h, w) uint8 label map; stays as it is.
        x, y: column and row of the point.
        change: `delete` gives the region the id `label` of what shows no class, `relabel` gives it a class; `alone`
            keeps it, and gives `label` to every other region of its class.
        label: the new id.

    Returns:
        The new (h, w) uint8 label map.

    Raises:
        TagmaskError: the point lies outside the map, or the change is unknown.
    """
    region = region_at(labels, x, y)
    if change not in ("delete", "relabel", "alone"):
        raise TagmaskError(f"change {change!r}: expected delete, relabel or alone")
    chosen = (labels == labels[y, x]) & ~region if change == "alone" else region
    return np.where(chosen, np.uint8(label), labels)
