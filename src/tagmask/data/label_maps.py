"""Label maps as PNG files, and the colours they are written in."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tagmask.data.files import replacing
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE


def voc_palette() -> np.ndarray:
    """Make the PASCAL VOC colour map, `(256, 3)` uint8: 0 black, 255 (ignored) ivory."""
    ids = np.arange(256, dtype=np.uint8)[:, None]
    bits = np.unpackbits(ids, axis=1, bitorder="little")
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= bits[:, bit] << np.uint8(7 - bit // 3)
    return colours


def encode_label_map(label_map: np.ndarray) -> bytes:
    """Return the content of the file that `write_label_map` writes."""
    buffer = io.BytesIO()
    _coloured(label_map, voc_palette()).save(buffer, format="PNG")
    return buffer.getvalue()


def write_label_map(path: Path | str, label_map: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Write a label map as a palette PNG, one of 16 bits as a grey PNG; the file is whole or not there.

    Folders on the way are made. The pixel values are the ids; the palette only makes them visible.

    Args:
        path: ends in `.png`.
        label_map: (h, w) uint8 or uint16: 0 background, 1..K, 255 ignored.
        palette: (256, 3) uint8; by default that of PASCAL VOC, in which 255 is ivory.

    Raises:
        TagmaskError: the path does not end in `.png`, or cannot be written.
    """
    write_png(path, _coloured(label_map, voc_palette() if palette is None else palette))


def _coloured(label_map: np.ndarray, palette: np.ndarray) -> Image.Image:
    if label_map.dtype not in (np.uint8, np.uint16) or label_map.ndim != 2:
        raise TypeError(f"label map of {label_map.dtype} {label_map.shape}; expected uint8 or uint16 (h, w)")
    image = Image.fromarray(label_map)
    if label_map.dtype == np.uint8:  # a palette has 256 colours
        image.putpalette(palette.ravel().tolist())
    return image


def write_png(path: Path | str, image: Image.Image) -> None:
    """Write a picture as PNG, whole or not at all; folders on the way are made.

    Raises:
        TagmaskError: the path does not end in `.png`, or cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise TagmaskError(f"{target}: label maps and pictures are written as PNG; give a name that ends in .png")
    with replacing(target) as temporary:
        image.save(temporary, format="PNG")


def classes_in(label_map: np.ndarray, num_classes: int) -> list[int]:
    """Return the label ids of the classes that a (h, w) label map shows, ascending; background and 255 are none."""
    pixels = np.bincount(label_map.ravel())[: num_classes + 1]
    return [label for label in np.flatnonzero(pixels).tolist() if label not in (0, IGNORE)]


def label_colours(classes: Sequence[str], *, ignored: bool = False) -> str:
    """The text of `labelmap.txt`, by which CVAT and Datumaro know the classes of coloured masks.

    A line is `name:red,green,blue:parts:actions`, both of the last empty; background comes first.

    Args:
        classes: names in id order.
        ignored: whether the masks hold ignored pixels, whose colour is then declared, too.

    Raises:
        TagmaskError: a class has a name that such a line cannot hold.

    Source: CVAT manual, "Segmentation Mask".
    """
    for name in classes:
        if ":" in name or name.startswith("#") or not name.isprintable():
            raise TagmaskError(f"class {name!r}: labelmap.txt has no names with `:` or `#`; rename the class")
    ids = {"background": 0, **{name: label for label, name in enumerate(classes, start=1)}}
    if ignored:
        ids.setdefault("ignored", IGNORE)
    colours = {name: ",".join(map(str, voc_palette()[label])) for name, label in ids.items()}
    return "".join(["# label:color_rgb:parts:actions\n", *(f"{name}:{rgb}::\n" for name, rgb in colours.items())])
