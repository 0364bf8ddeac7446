"""The table of proposed tags: what a network thinks that photographs show, and what a person has said to it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmask.data.csv_cells import csv_text, plain_cell
from tagmask.data.files import write_text
from tagmask.data.names import image_name_fault
from tagmask.errors import TagmaskError

COLUMNS = ("image", "tags", "scores", "confirmed")
YES = "yes"
JOINED = ";"


@dataclass(frozen=True)
class ProposedTags:
    """One photograph of the table.

    Attributes:
        image: its path in the folder of photographs, with `/`.
        tags: names of the classes that it is said to show.
        scores: of every class in 0..1, the largest first.
        confirmed: whether a person has looked.
    """

    image: str
    tags: tuple[str, ...]
    scores: dict[str, float]
    confirmed: bool = False


def photo_folder(table: Path) -> Path:
    """Return the folder whose images a table names: `images/` beside it where there is one, else that of the table."""
    images = table.parent / "images"
    return images if images.is_dir() else table.parent


def write_proposed(path: Path, rows: Sequence[ProposedTags]) -> None:
    """Write the table; `tagmask train` reads it, and leaves the columns `scores` and `confirmed` alone."""
    lines = [
        (
            row.image,
            JOINED.join(row.tags),
            JOINED.join(f"{name} {score:.2f}" for name, score in row.scores.items()),
            YES if row.confirmed else "",
        )
        for row in rows
    ]
    write_text(path, csv_text([COLUMNS, *lines]))


def read_proposed(path: Path) -> list[ProposedTags]:
    """Read a table that `write_proposed` wrote.

    Raises:
        TagmaskError: no such file, or it is another one; names the row.
    """
    try:
        table = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TagmaskError(f"{path}: cannot be read ({error}); give a table that `tagmask tags` wrote") from None
    if not table or tuple(table[0]) != COLUMNS:
        raise TagmaskError(f"{path}: its columns are not {','.join(COLUMNS)}; give a table that `tagmask tags` wrote")
    rows = [_row(f"{path} row {number}", cells) for number, cells in enumerate(table[1:], start=2)]
    if not rows:
        raise TagmaskError(f"{path}: has no rows; write it anew with `tagmask tags`")
    return rows


def _row(where: str, cells: list[str]) -> ProposedTags:
    try:
        image, tags, scores, confirmed = map(plain_cell, cells)
        pairs = [each.rpartition(" ") for each in scores.split(JOINED)]
        known = {name: float(score) for name, _, score in pairs}
        valid = all(0 <= score <= 1 for score in known.values()) and "" not in known
    except ValueError:
        valid = False
    if not valid or confirmed not in ("", YES):
        raise TagmaskError(f"{where}: not as `tagmask tags` writes it; mend the row, or write the table anew")
    fault = image_name_fault(image)
    if fault:
        raise TagmaskError(f"{where}: the image's name {fault}; mend the row")
    chosen = tuple(name for name in tags.split(JOINED) if name)
    strange = [name for name in chosen if name not in known]
    if strange:
        raise TagmaskError(f"{where}: {strange[0]!r} has no score, so it is none of the classes; mend the row")
    return ProposedTags(image, chosen, known, confirmed == YES)
