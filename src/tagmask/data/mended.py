"""Masks that a person mended or accepted, among those that tagmask wrote into the same folder."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from tagmask.data.cam_files import CLASSES
from tagmask.data.confidence import CONFIDENCE, MaskRow, confidence_text, read_confidence
from tagmask.data.csv_cells import plain_cell
from tagmask.data.dataset import Dataset, MaskSource, Record, listed_classes
from tagmask.data.files import write_text
from tagmask.data.label_maps import write_label_map
from tagmask.data.ledger import Ledger
from tagmask.data.lock import locked
from tagmask.data.masks import PngMask, id_map
from tagmask.errors import TagmaskError, no_such

logger = logging.getLogger(__name__)
Verdict = Literal["keep", "redo", "tags", "edited"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
REVIEW_COLUMNS = ["image", "tags", "split", "verdict"]


def with_mended(
    dataset: Dataset, folder: Path, review: Path | None = None, mask_classes: Sequence[str] | None = None
) -> Dataset:
    """Give each image the mask that a person made or accepted, and no other.

    In a folder that tagmask wrote, a mask is a person's where it is not, byte for byte, one that tagmask wrote there;
    in any other folder every mask is.

    Args:
        dataset: the images; masks they have already are not kept.
        folder: of masks `NAME.png`. A `classes.txt` in it says what their ids mean; else the masks that the images had
            from there do, then `mask_classes`; else they are those of the classes.
        review: table of a review on the page: masks that it says are to be kept count too, those to be redone do not.
        mask_classes: names in the order of the masks' ids, where the user gives them.

    Raises:
        TagmaskError: folder or table is missing or damaged, the masks are of other classes, or nobody says which id is
            which class.
    """
    if not folder.is_dir():
        raise no_such(folder, "folder of masks", "correct data.use_masks")
    listed = folder / CLASSES
    own_list = _id_map(dataset, listed_classes(listed), str(listed)) if listed.is_file() else None
    ids = own_list or (_id_map(dataset, mask_classes, "data.mask_classes") if mask_classes else None)
    if ids is None and not (dataset.context or dataset.dropped):  # the classes that are learnt are all there are
        ids = _id_map(dataset, dataset.classes, "")
    verdicts = {} if review is None else _verdicts(review)
    ledger = mask_ledger(folder)

    def mask_of(record: Record, path: Path) -> MaskSource:
        same = isinstance(record.mask, PngMask) and os.path.abspath(record.mask.path) == os.path.abspath(path)
        if same and own_list is None:
            return cast(PngMask, record.mask)  # read with the data, which say what its ids mean
        if ids is None:
            raise TagmaskError(
                f"{folder}: nobody says which id of the masks is which class, and the data have more classes than are "
                "learnt; write classes.txt there, one name a line in the order of the ids 1, 2, ..., or give "
                "data.mask_classes"
            )
        return PngMask(path, ids)

    def is_taken(image: Path, mask: Path) -> bool:
        verdict = verdicts.get(os.path.abspath(image), "")
        return mask.is_file() and (verdict == "keep" or (verdict != "redo" and not ledger.owns(mask)))

    paths = [folder / f"{record.name}.png" for record in dataset.records]
    records = tuple(
        replace(record, mask=mask_of(record, path) if is_taken(record.image, path) else None)
        for record, path in zip(dataset.records, paths, strict=True)
    )
    return replace(dataset, records=records)


def _id_map(dataset: Dataset, order: Sequence[str], where: str) -> dict[int, int]:
    """Return the label id of each id of masks, given the names in the order of these ids and where they stand.

    Raises:
        TagmaskError: the list lacks one of the data set's classes.
    """
    if not set(dataset.classes) <= set(order):
        raise TagmaskError(
            f"{where}: lists other classes than {', '.join(dataset.classes)}; name the masks of a run on these data"
        )
    return id_map(order, dataset.classes, dataset.background)


def doubt_own_masks(dataset: Dataset, review: Path | None = None) -> None:
    """Warn where ground truth to score against is what tagmask wrote itself and nobody mended or accepted.

    Args:
        dataset: the images to score, with their ground truth.
        review: table of a review on the page: masks that it says are to be kept are a person's.

    Raises:
        TagmaskError: the table of the review, or one beside the masks, is damaged.
    """
    verdicts = {} if review is None else _verdicts(review)
    ledgers: dict[Path, Ledger] = {}
    own: list[Path] = []
    for record in dataset.records:
        path = getattr(record.mask, "path", None)
        if path is None or verdicts.get(os.path.abspath(record.image)) == "keep":
            continue
        folder = Path(path.as_posix().removesuffix(f"/{record.name}.png"))
        if folder not in ledgers and folder.is_dir():
            ledgers[folder] = mask_ledger(folder)
        if folder in ledgers and ledgers[folder].owns(path):
            own.append(path)
    if own:
        logger.warning(
            "%d of %d masks to score against, such as %s, are not ground truth: tagmask wrote them, and nobody mended "
            "them. The score says how like them the answers are, not how right. Name the folder of drawn masks in "
            "data.masks",
            len(own),
            len(dataset),
            own[0],
        )


def mask_ledger(folder: Path, rows: Iterable[MaskRow] | None = None) -> Ledger:
    """Open the list of the masks that tagmask wrote into a folder.

    Folders of version 0.1 have none: there, what is newer than `confidence.csv` counts as somebody else's.

    Args:
        folder: of the masks; it need not be tagmask's.
        rows: of its table; None: they are read.

    Raises:
        TagmaskError: the table is damaged.
    """
    ledger, table = Ledger(folder), folder / CONFIDENCE
    if ledger.is_new and table.is_file():
        for row in read_confidence(table) if rows is None else rows:
            path = folder / f"{row.name}.png"
            known = row.confidence is not None and path.is_file()
            if known and path.stat().st_mtime_ns <= table.stat().st_mtime_ns:
                ledger.adopt(path)
    return ledger


def write_mended(folder: Path, name: str, labels: np.ndarray, classes: Iterable[str]) -> None:
    """Write a mended mask over the one that is there, and strike it from the list of what tagmask wrote.

    From then on `label` and `predict` take the mask for the user's, and never write over it, even where it is byte for
    byte as they would write it. Its row in `confidence.csv` names the classes that it shows now; the confidence stays,
    for it says how sure the network was.

    Args:
        folder: that `label` or `predict` wrote.
        name: of the mask in the table.
        labels: (h, w) uint8 label map.
        classes: names of the classes in it, in id order.

    Raises:
        TagmaskError: `label` or `predict` is writing there now, or a file cannot be read or written.
    """
    table, mask = folder / CONFIDENCE, folder / f"{name}.png"
    with locked(folder):
        rows = read_confidence(table)
        mask_ledger(folder, rows).disown(mask)
        write_label_map(mask, labels)
        shown = tuple(classes)
        write_text(table, confidence_text(replace(row, classes=shown) if row.name == name else row for row in rows))


def read_review(path: Path) -> list[list[str]]:
    """Read the rows of a review's table, four cells each as `REVIEW_COLUMNS` names them.

    Raises:
        TagmaskError: it cannot be read, or something else wrote it.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True))
    except FileNotFoundError:
        raise no_such(path, "table of a review") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TagmaskError(f"{path}: cannot be read as CSV ({reason}); choose another file") from None
    if not rows or rows[0] != REVIEW_COLUMNS:
        raise TagmaskError(
            f"{path}: does not begin with {','.join(REVIEW_COLUMNS)}, so something else wrote it; choose another file"
        )
    columns = len(REVIEW_COLUMNS)
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != columns:
            raise TagmaskError(f"{path} row {number}: {len(row)} cells, expected {columns}; correct the row")
    return [[plain_cell(cell) for cell in row] for row in rows[1:]]


def read_verdict(cell: str, path: Path, number: int) -> Verdict:
    """Read the verdict in a row of a review's table.

    Raises:
        TagmaskError: it is none; names the row.
    """
    for verdict in VERDICTS:
        if cell == verdict:
            return verdict
    raise TagmaskError(f"{path} row {number}: verdict {cell!r}; expected {', '.join(VERDICTS)}, or nothing")


def _verdicts(review: Path) -> dict[str, Verdict]:
    """Read the verdicts of a review by the absolute path of the image."""
    rows = enumerate(read_review(review), start=2)
    return {
        os.path.abspath(review.parent / image): read_verdict(verdict, review, number)
        for number, (image, _, _, verdict) in rows
        if verdict
    }
