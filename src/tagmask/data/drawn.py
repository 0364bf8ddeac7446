"""Masks that a person drew: whether all of them can be learnt from, told before the first training begins."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from tagmask.data.dataset import Dataset, Record
from tagmask.data.images import image_size
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import IGNORE

NAMED = 10  # faults that are told by name
LOOKED_AT = 64  # masks of a large set
TWO_VALUES = (
    "all masks that were looked at ({count}) hold only 0 and 255, and 255 means ignored; write the class's id in place "
    "of 255, 1 for the first one"
)


def is_two_valued(labels: np.ndarray, record: Record) -> bool:
    """Say whether a mask shows no class but ignored pixels, as white on black does, of an image that bears tags."""
    return bool(record.tags) and bool((labels == IGNORE).any()) and not ((labels != 0) & (labels != IGNORE)).any()


def shows_untagged(labels: np.ndarray, record: Record) -> bool:
    """Say whether a mask shows a class that its image is not tagged with, as where ids are in another order."""
    known = {0, IGNORE, *(tag + 1 for tag in (*record.tags, *record.unknown))}
    return bool(record.tags) and not known.issuperset(np.unique(labels).tolist())


def check_drawn(dataset: Dataset, most: int | None = None) -> None:
    """Raise where masks do not open, do not fit their images, or show no class at all.

    A training would meet them hours later, and leave out the images of some without a word until its end.

    Args:
        dataset: images, some of them with a mask.
        most: how many masks to look at, spread over the set; None: all, each of which has to be right.

    Raises:
        TagmaskError: names the first ten masks that are wrong; or all are of two values, 0 and 255.
    """
    drawn = [record for record in dataset.records if record.mask is not None]
    if most is not None:
        drawn = drawn[:: max(1, -(-len(drawn) // most))]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_look, drawn))
    faults = [each for each in found if isinstance(each, str)]
    if faults and most is None:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise TagmaskError(f"data.use_masks: {'; '.join(faults[:NAMED])}{more}; mend or remove them")
    told = [each for each in found if isinstance(each, bool)]
    if told and all(told):
        raise TagmaskError(f"{dataset_masks(drawn)}: {TWO_VALUES.format(count=len(told))}")


def masks_digest(dataset: Dataset) -> str:
    """Return a hash of the drawn masks' names and files, by which a run knows whether others were drawn since."""
    found = hashlib.sha256()
    for record in dataset.records:
        path = getattr(record.mask, "path", None)
        if record.mask is None:
            continue
        found.update(f"{record.name}\n".encode())
        with suppress(OSError):  # within a shard, or gone: its name counts
            found.update(b"" if path is None else hashlib.sha256(Path(path).read_bytes()).digest())
    return found.hexdigest()[:16]


def dataset_masks(records: Sequence[Record]) -> str:
    """Name the place of the masks: the folder of the first one's file, where it is of its own."""
    path = getattr(records[0].mask, "path", None)
    return "masks" if path is None else str(Path(path).parent)


def _look(record: Record) -> bool | str:
    """Load a mask: whether it is of two values, or what is wrong with it."""
    assert record.mask is not None
    try:
        width, height = image_size(record.image)
    except TagmaskError:
        return False  # the image's fault, which a training tells by itself
    try:
        return is_two_valued(record.mask.load(height, width), record)
    except TagmaskError as error:
        return str(error)
