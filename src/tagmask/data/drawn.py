"""Masks that a person drew: whether all of them can be learnt from, told before the first training begins."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

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
BLANK = (
    "all masks that were looked at ({count}) show no class, and their images bear tags; write the ids of the classes, "
    "or remove the masks"
)
SHOWS_NOTHING = "show no class, though their images bear tags: they teach background there. Draw them, or remove them"
SHOWS_UNTAGGED = "show a class that is no tag of their image: mend the tags, or the ids in the mask"
logger = logging.getLogger(__name__)


class Looked(NamedTuple):
    """What the pixels of a mask say.

    Attributes:
        blank: it shows no class, and its image bears tags.
        two_valued: it is blank and has ignored pixels, as white on black has.
        untagged: it shows a class that its image is not tagged with.
    """

    blank: bool
    two_valued: bool
    untagged: bool


def look(labels: np.ndarray, record: Record) -> Looked:
    """Compare a mask (H, W) with the tags of its image."""
    blank = bool(record.tags) and not ((labels != 0) & (labels != IGNORE)).any()
    return Looked(blank, blank and bool((labels == IGNORE).any()), shows_untagged(labels, record))


def shows_untagged(labels: np.ndarray, record: Record) -> bool:
    """Say whether a mask shows a class that its image is not tagged with, as where ids are in another order."""
    known = {0, IGNORE, *(tag + 1 for tag in (*record.tags, *record.unknown))}
    return bool(record.tags) and not known.issuperset(np.unique(labels).tolist())


def check_drawn(dataset: Dataset, most: int | None = None) -> None:
    """Raise where masks do not open, do not fit their images, or show no class at all, and warn of doubtful ones.

    A training would meet them hours later, and leave out the images of some without a word until its end.

    Args:
        dataset: images, some of them with a mask.
        most: how many masks to look at, spread over the set; None: all, each of which has to be right.

    Raises:
        TagmaskError: names the first ten masks that are wrong; or all are of two values, 0 and 255, or blank.
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
    told = [(record, each) for record, each in zip(drawn, found, strict=True) if isinstance(each, Looked)]
    if told and all(each.two_valued for _, each in told):
        raise TagmaskError(f"{dataset_masks(drawn)}: {TWO_VALUES.format(count=len(told))}")
    if told and all(each.blank for _, each in told):
        raise TagmaskError(f"{dataset_masks(drawn)}: {BLANK.format(count=len(told))}")
    for doubt, said in (("blank", SHOWS_NOTHING), ("untagged", SHOWS_UNTAGGED)):
        names = [record.name for record, each in told if getattr(each, doubt)]
        if names and most is None:
            logger.warning("%d of %d drawn masks, such as that of %r, %s", len(names), len(drawn), names[0], said)


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


def _look(record: Record) -> Looked | str | None:
    """Load a mask, and say what it shows, or what is wrong with it; None where its image does not open."""
    assert record.mask is not None
    try:
        width, height = image_size(record.image)
    except TagmaskError:
        return None  # the image's fault, which a training tells by itself
    try:
        return look(record.mask.load(height, width), record)
    except TagmaskError as error:
        return str(error)
