"""The folder that `label` and `predict` write to: what in it is theirs, and what is not to be touched."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from tagmask.data.cam_files import CLASSES
from tagmask.data.csv_cells import csv_text, plain_cell
from tagmask.data.files import make_folder, write_classes, write_text
from tagmask.errors import TagmaskError

CONFIDENCE = "confidence.csv"
HEADER = ["image", "confidence", "classes"]


class MaskFolder:
    """Masks `NAME.png` beside `classes.txt` and `confidence.csv`, which lists the masks that these verbs wrote.

    A mask is written over only if it is listed there and was not changed since. A row without a confidence is a mask
    that was begun: a second start after a killed one makes it anew. Rows of other masks stay.

    Args:
        folder: made where there is none.
        classes: of the model; another list there means that ids would change their meaning.
        names: of the masks to come.

    Raises:
        TagmaskError: the folder holds what would be lost.
    """

    def __init__(self, folder: Path, classes: Sequence[str], names: Sequence[str]) -> None:
        self.folder = folder
        make_folder(folder)
        table = folder / CONFIDENCE
        rows = _read(table)
        if rows is None and (folder / CLASSES).exists():
            raise _foreign(folder / CLASSES)
        check_classes(folder, classes)
        rows = rows or {}
        for name in names:
            path = self.mask(name)
            if not path.exists():
                continue
            if name not in rows:
                raise _foreign(path)
            if rows[name][0] and path.stat().st_mtime_ns > table.stat().st_mtime_ns:
                raise TagmaskError(f"{path}: was changed since it was written; choose another output, or move it away")
        begun = dict.fromkeys(names, ("", ""))
        self._others = {name: row for name, row in rows.items() if name not in begun}
        write_text(table, _table({**self._others, **begun}))
        write_classes(folder, classes)

    def mask(self, name: str) -> Path:
        """The file of an image's mask."""
        return self.folder / f"{name}.png"

    def finish(self, rows: Iterable[tuple[str, float, str]]) -> None:
        """Say what was written: name, confidence, and the classes found, joined by `;`."""
        own = {name: (f"{value:.4f}" if math.isfinite(value) else "", found) for name, value, found in rows}
        write_text(self.folder / CONFIDENCE, _table({**self._others, **own}))


def check_classes(folder: Path, classes: Sequence[str]) -> None:
    """Refuse a folder of label ids that belong to another class list.

    Raises:
        TagmaskError: its `classes.txt` differs.
    """
    listed = folder / CLASSES
    if listed.is_file() and listed.read_text(encoding="utf-8").splitlines() != list(classes):
        raise TagmaskError(f"{listed}: lists other classes than {', '.join(classes)}; choose another output")


def _foreign(path: Path) -> TagmaskError:
    return TagmaskError(
        f"{path}: is there already, not written by `label` or `predict`, which would replace it; choose another output"
    )


def _read(table: Path) -> dict[str, tuple[str, str]] | None:
    """Confidence and classes by name; None where there is no table."""
    if not table.exists():
        return None
    try:
        with table.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
            if header != HEADER:
                raise _foreign(table)
            return {plain_cell(name): (confidence, plain_cell(found)) for name, confidence, found in rows}
    except (OSError, ValueError, csv.Error):
        raise _foreign(table) from None


def _table(rows: dict[str, tuple[str, str]]) -> str:
    return csv_text([HEADER, *((name, *rows[name]) for name in sorted(rows))])
