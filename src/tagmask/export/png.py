"""Label maps as palette PNG, and pictures that show label maps and CAMs over the photograph."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import numpy as np
from PIL import Image

from tagmask.errors import TagmaskError
from tagmask.palette import voc_palette


def write_label_map(path: Path | str, label_map: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Write a label map as a palette PNG; the file is whole or not there.

    Folders on the way are made. The pixel values are the ids; the palette only makes them visible.

    Args:
        path: ends in `.png`.
        label_map: (h, w) uint8: 0 background, 1..K, 255 ignored.
        palette: (256, 3) uint8; by default that of PASCAL VOC, in which 255 is ivory.

    Raises:
        TagmaskError: the path does not end in `.png`, or cannot be written.
    """
    target = Path(path)
    if label_map.dtype != np.uint8 or label_map.ndim != 2:
        raise TypeError(f"label map of {label_map.dtype} {label_map.shape}; expected uint8 (h, w)")
    image = Image.fromarray(label_map)
    image.putpalette((voc_palette() if palette is None else palette).ravel().tolist())
    write_png(target, image)


def write_png(path: Path | str, image: Image.Image) -> None:
    """Write a picture as PNG, to a temporary name first; folders on the way are made.

    Raises:
        TagmaskError: the path does not end in `.png`, or cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise TagmaskError(f"{target}: label maps and pictures are written as PNG; give a name that ends in .png")
    partial = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(partial, format="PNG")
        os.replace(partial, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise TagmaskError(
            f"{target}: cannot be written ({error.strerror or error}); check the folder and its space"
        ) from error


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
