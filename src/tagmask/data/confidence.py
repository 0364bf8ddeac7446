"""The table `confidence.csv` beside masks: how sure the network was of each image, and which classes it found."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tagmask.data.csv_cells import csv_text, plain_cell
from tagmask.errors import TagmaskError

CONFIDENCE = "confidence.csv"
COLUMNS = ("image", "confidence", "classes")


@dataclass(frozen=True, slots=True)
class MaskRow:
    """One mask as the table lists it.

    Attributes:
        name: of the mask, relative to its folder, without suffix.
        confidence: in 0..1; None for a mask that was begun, or of whose confidence nothing is known.
        classes: names of the classes found in the mask.
        number: of the row in its file, from 2; 0 for a row that was not read from one.
    """

    name: str
    confidence: float | None = None
    classes: tuple[str, ...] = ()
    number: int = 0


def read_confidence(table: Path, *, exact: bool = False) -> list[MaskRow]:
    """Read the table in the order of its rows.

    Args:
        table: with the columns `image` and `confidence`, and perhaps `classes`, joined by `;`.
        exact: whether to refuse further columns, which writing the table anew would lose.

    Raises:
        TagmaskError: the file cannot be read, lacks a column, or a row is damaged.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TagmaskError(f"{table}: cannot be read as CSV ({reason}); write the masks anew") from None
    header = rows[0] if rows else []
    if not {"image", "confidence"} <= set(header) or (exact and tuple(header) != COLUMNS):
        raise TagmaskError(f"{table}: expected the columns {', '.join(COLUMNS[:2])} and {COLUMNS[2]} in its first row")
    found = []
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(header):
            raise TagmaskError(f"{table} row {number}: {len(row)} cells, expected {len(header)}; correct the row")
        cells = dict(zip(header, map(plain_cell, row), strict=True))
        try:
            confidence = float(cells["confidence"]) if cells["confidence"] else None
        except ValueError:
            raise TagmaskError(
                f"{table} row {number}: confidence {cells['confidence']!r} is no number; write the masks anew"
            ) from None
        classes = tuple(name for name in cells.get("classes", "").split(";") if name)
        found.append(MaskRow(cells["image"], confidence, classes, number))
    return found


def confidence_text(rows: Iterable[MaskRow]) -> str:
    """Return the table's text, sorted by name."""
    cells: list[tuple[str, ...]] = [COLUMNS]
    for row in sorted(rows, key=lambda row: row.name):
        known = row.confidence is not None and math.isfinite(row.confidence)
        cells.append((row.name, f"{row.confidence:.4f}" if known else "", ";".join(row.classes)))
    return csv_text(cells)
