"""The folders that `label` and `predict` write to: what in them is theirs, and what is not to be touched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from tagmask.data.cam_files import CLASSES, SUFFIX, encode_cams
from tagmask.data.confidence import CONFIDENCE, MaskRow, confidence_text, read_confidence
from tagmask.data.dataset import listed_classes
from tagmask.data.files import make_folder, write_classes, write_text
from tagmask.data.label_maps import encode_label_map
from tagmask.data.ledger import Ledger
from tagmask.data.mended import mask_ledger
from tagmask.data.rasters import georeference
from tagmask.errors import TagmaskError


class MaskFolder:
    """Masks `NAME.png` beside `classes.txt` and `confidence.csv`, which lists the masks that these verbs wrote.

    A mask is written over only if it is, byte for byte, one that they wrote; `Ledger` knows. A row without a
    confidence is a mask that was begun: a second start after a killed one makes it anew. Rows of other masks stay.

    Args:
        folder: made where there is none.
        classes: of the model; another list there means that ids would change their meaning.
        names: of the masks to come.
        overwrite: whether these masks, and a table of somebody else's, are replaced whatever they are.

    Raises:
        TagmaskError: the folder holds what would be lost.
    """

    def __init__(self, folder: Path, classes: Sequence[str], names: Sequence[str], *, overwrite: bool = False) -> None:
        self.folder = folder
        make_folder(folder)
        self._table = folder / CONFIDENCE
        rows = {} if overwrite and not self._table.exists() else self._read(overwrite)
        if rows is None and (folder / CLASSES).exists():
            raise _foreign(folder / CLASSES)
        check_classes(folder, classes)
        rows = rows or {}
        self._ledger = mask_ledger(folder, rows.values())
        for path in (self.mask(name) for name in names):
            if not overwrite and path.exists() and not self._ledger.owns(path):
                raise _changed(path) if path.relative_to(folder).with_suffix("").as_posix() in rows else _foreign(path)
        begun = {name: MaskRow(name) for name in names}
        self._others = [row for name, row in rows.items() if name not in begun]
        self._ledger.save()
        write_text(self._table, confidence_text([*self._others, *begun.values()]))
        write_classes(folder, classes)

    def mask(self, name: str) -> Path:
        """Return the file of an image's mask."""
        return self.folder / f"{name}.png"

    def write(self, name: str, labels: np.ndarray, image: Path | None = None) -> None:
        """Write an image's mask, (H, W) uint8 label ids, and beside it the place on the map where the image has one."""
        self._ledger.write(self.mask(name), encode_label_map(labels))
        if image is not None and (place := georeference(image)) is not None:
            write_text(self.folder / f"{name}.png.aux.xml", place)

    def finish(self, rows: Iterable[MaskRow]) -> None:
        """Write down what was written."""
        self._ledger.finish()
        write_text(self._table, confidence_text([*self._others, *rows]))

    def _read(self, overwrite: bool) -> dict[str, MaskRow] | None:
        """Return the rows by name; None where there is no table."""
        if not self._table.exists():
            return None
        try:
            return {row.name: row for row in read_confidence(self._table, exact=True)}
        except TagmaskError:
            if overwrite:
                return {}
            raise _foreign(self._table) from None


class CamFolder:
    """CAMs `NAME.npz` beside `classes.txt`; a file that is there is written over only if `label` wrote it.

    Args:
        folder: made where there is none.
        classes: of the model.
        names: of the files to come.
        overwrite: whether these files are replaced whatever they are.

    Raises:
        TagmaskError: the folder holds what would be lost.
    """

    def __init__(self, folder: Path, classes: Sequence[str], names: Sequence[str], *, overwrite: bool = False) -> None:
        self.folder = folder
        make_folder(folder)
        check_classes(folder, classes)
        self._ledger = Ledger(folder)
        for path in (self._file(name) for name in names):
            if not overwrite and path.exists() and not self._ledger.owns(path):
                raise _foreign(path)
        self._ledger.save()
        write_classes(folder, classes)

    def write(self, name: str, cams: Tensor, tags: Sequence[int]) -> None:
        """Write the CAMs (n, h, w) of an image's n tags."""
        self._ledger.write(self._file(name), encode_cams(cams, tags))

    def finish(self) -> None:
        """Write down what was written."""
        self._ledger.finish()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"


def check_classes(folder: Path, classes: Sequence[str]) -> None:
    """Refuse a folder of label ids that belong to another class list.

    Raises:
        TagmaskError: its `classes.txt` differs.
    """
    listed = folder / CLASSES
    if listed.is_file() and listed_classes(listed) != tuple(classes):
        raise TagmaskError(f"{listed}: lists other classes than {', '.join(classes)}; choose another output")


def _foreign(path: Path) -> TagmaskError:
    return TagmaskError(
        f"{path}: is there already, not written by `label` or `predict`, which would replace it; choose another"
        " output, or add --overwrite"
    )


def _changed(path: Path) -> TagmaskError:
    return TagmaskError(
        f"{path}: was changed since it was written; choose another output, move it away, or add --overwrite"
    )
