"""Draw label maps and CAMs over the photograph."""

from __future__ import annotations

import numpy as np

from tagmask.data.label_maps import voc_palette


def overlay(
    image: np.ndarray, label_map: np.ndarray, opacity: float = 0.6, palette: np.ndarray | None = None
) -> np.ndarray:
    """Lay a label map's colours over the photograph; background stays as it is.

    Args:
        image: (h, w, 3) uint8.
        label_map: (h, w) uint8: 0 background, 1..K, 255 ignored.
        opacity: weight of the colours, in [0, 1].
        palette: (256, 3) uint8; by default that of PASCAL VOC.

    Returns:
        (h, w, 3) uint8.
    """
    _check_picture(image, label_map.shape)
    colours = (voc_palette() if palette is None else palette)[label_map]
    weight = opacity * (label_map != 0).astype(np.float32)[..., None]
    return _blend(image, colours, weight)


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
