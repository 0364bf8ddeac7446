"""Draw label maps and CAMs over the photograph."""

from __future__ import annotations

from functools import cache

import numpy as np

from tagmask.ops.label_ids import IGNORE

BRIGHT = (
    *("ff3399", "ffdd00", "00aaff", "ff7800", "783cff", "00f0a0"),
    *("66ffff", "996600", "cccc66", "cc33cc", "009966", "99ff66"),
)
"""Colours that stand out from grass, sky, water, soil and skin, and from each other, also for those who do not see red
or green: under protanopia and deuteranopia two of the first six are at least 20 apart in CIELAB, any two of them 12."""
OUTLINE = 1 / 300
"""The width of an outline, as a fraction of the longer side."""


@cache
def display_palette() -> np.ndarray:
    """Make the (256, 3) uint8 colours in which classes are shown; files keep those of PASCAL VOC.

    Label ids 1 to 12 have `BRIGHT`, the next twelve the same darker, the next lighter, and so on; 0 is black, 255
    (ignored) grey.
    """
    bright = np.array([tuple(bytes.fromhex(colour)) for colour in BRIGHT], np.float64)
    shades = np.concatenate([bright, bright * 0.6, bright * 0.55 + 255 * 0.45])
    palette = np.zeros((256, 3), np.uint8)
    palette[1:] = np.resize(np.rint(shades), (255, 3))
    palette[IGNORE] = 128
    palette.setflags(write=False)
    return palette


def colours_of(label_map: np.ndarray, palette: np.ndarray | None = None) -> np.ndarray:
    """Colour a label map, (h, w), as (h, w, 3) uint8; ids above 255 have the colours of 1 to 254 once more.

    Args:
        label_map: of ids.
        palette: (256, 3) uint8; by default `display_palette`.
    """
    if label_map.dtype == np.uint16:
        label_map = np.where(label_map <= IGNORE, label_map, (label_map - 2) % (IGNORE - 1) + 1)
    return (display_palette() if palette is None else palette)[label_map]


def overlay(
    image: np.ndarray, label_map: np.ndarray, opacity: float = 0.5, palette: np.ndarray | None = None
) -> np.ndarray:
    """Lay a label map's colours over the photograph, each region with an outline; background stays as it is.

    Args:
        image: (h, w, 3) uint8.
        label_map: (h, w): 0 background, 1..K, 255 ignored.
        opacity: weight of the colours inside the outlines, in [0, 1]; the outlines themselves have all of it.
        palette: (256, 3) uint8; by default `display_palette`.

    Returns:
        (h, w, 3) uint8.
    """
    _check_picture(image, label_map.shape)
    colours = colours_of(label_map, palette)
    edges = outlines(label_map, max(1, round(OUTLINE * max(label_map.shape))))
    weight = np.where(edges, 1.0, opacity) * (label_map != 0)
    return _blend(image, colours, weight.astype(np.float32)[..., None])


def outlines(label_map: np.ndarray, width: int = 1) -> np.ndarray:
    """Mark the pixels, (h, w) bool, that have one of another label within `width` pixels, along rows or columns."""
    edges = np.zeros(label_map.shape, dtype=bool)
    for step in range(1, width + 1):
        for own, other in ((np.s_[step:], np.s_[:-step]), (np.s_[:, step:], np.s_[:, :-step])):
            differs = label_map[own] != label_map[other]
            edges[own] |= differs
            edges[other] |= differs
    return edges


def heat_map(image: np.ndarray, cam: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Lay a CAM over the photograph in the colours of heat: dark violet 0, red about a half, pale yellow 1.

    Args:
        image: (h, w, 3) uint8.
        cam: (h, w) activation in [0, 1]; what lies outside is cut off.
        opacity: weight of the colours, in [0, 1].

    Returns:
        (h, w, 3) uint8.
    """
    from matplotlib import colormaps

    _check_picture(image, cam.shape)
    place = np.clip(np.asarray(cam, dtype=np.float32), 0.0, 1.0)
    colours = np.asarray(colormaps["inferno"](place))[..., :3] * 255
    return _blend(image, colours, np.float32(opacity))


def _blend(image: np.ndarray, colours: np.ndarray, weight: np.ndarray | np.float32) -> np.ndarray:
    mixed = image.astype(np.float32) * (1 - weight) + colours.astype(np.float32) * weight
    return np.rint(mixed).astype(np.uint8)


def _check_picture(image: np.ndarray, size: tuple[int, ...]) -> None:
    if image.dtype != np.uint8 or image.shape != (*size, 3):
        raise ValueError(f"image of {image.dtype} {image.shape}; expected uint8 ({size[0]}, {size[1]}, 3)")
