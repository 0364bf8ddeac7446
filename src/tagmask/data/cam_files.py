"""CAMs on disk: one file for each image, with the CAMs of the classes it bears."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagmask.data.files import write_bytes
from tagmask.errors import TagmaskError, first_line

SUFFIX = ".npz"
BELOW_ONE = np.nextafter(np.float16(1), np.float16(0))
"""The largest CAM in float16, which is below 1 as every CAM is."""
CLASSES = "classes.txt"
"""Beside the CAMs: the class list their ids are of, a name a line."""


def write_cams(path: Path, cams: Tensor, tags: Sequence[int]) -> None:
    """Write CAMs as float16, whole or not at all.

    Args:
        path: ends with `.npz`; missing folders are made.
        cams: (n, h, w) in [0, 1) of the image's tags; n may be 0.
        tags: their class indices 0..K-1, ascending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, encode_cams(cams, tags))


def encode_cams(cams: Tensor, tags: Sequence[int]) -> bytes:
    """Return the content of the file that `write_cams` writes."""
    # A CAM is below 1, also where float16 has no number between it and 1.
    values = np.minimum(cams.cpu().numpy().astype(np.float16), BELOW_ONE)
    buffer = io.BytesIO()
    np.savez(buffer, cams=values, ids=np.asarray(tags, dtype=np.int64) + 1)
    return buffer.getvalue()


def read_cams(path: Path) -> tuple[Tensor, Tensor]:
    """Read a file of `write_cams`: CAMs (n, h, w) float32 and their label ids (n,) int64, ascending.

    Raises:
        TagmaskError: the file is missing, damaged or holds something else.
    """
    if not path.is_file():
        raise TagmaskError(
            f"{path}: no CAMs of this image; write them with `tagmask label RUN --source cam --save-cams`"
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            cams, ids = arrays["cams"].astype(np.float32), arrays["ids"].astype(np.int64)
    except Exception as error:
        raise TagmaskError(
            f"{path}: damaged or no file of CAMs ({first_line(error)}); remove it and write it again"
        ) from None
    if cams.ndim != 3 or ids.shape != cams.shape[:1] or not np.isfinite(cams).all():
        raise TagmaskError(f"{path}: expected finite `cams` (n, h, w) and `ids` (n,), not {cams.shape} and {ids.shape}")
    if (ids < 1).any():
        raise TagmaskError(f"{path}: label ids {ids.tolist()}; they begin at 1. Remove it and write it again")
    if 0 in cams.shape[1:]:
        raise TagmaskError(f"{path}: CAMs of size {cams.shape[1]} x {cams.shape[2]}; remove it and write it again")
    return torch.from_numpy(cams), torch.from_numpy(ids)
