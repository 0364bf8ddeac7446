"""The colours label maps are written and shown in."""

from __future__ import annotations

import numpy as np


def voc_palette() -> np.ndarray:
    """The PASCAL VOC colour map, `(256, 3)` uint8: 0 black, 255 (ignored) ivory."""
    ids = np.arange(256, dtype=np.uint8)[:, None]
    bits = np.unpackbits(ids, axis=1, bitorder="little")
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= bits[:, bit] << np.uint8(7 - bit // 3)
    return colours
