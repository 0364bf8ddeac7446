"""The format of a path, told by the files that are there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tagmask.data.confidence import CONFIDENCE
from tagmask.data.images import is_image_name
from tagmask.data.ledger import LEDGER
from tagmask.data.readers.class_vectors import find_class_vectors
from tagmask.data.readers.coco import find_coco
from tagmask.data.readers.cvat import find_cvat
from tagmask.data.readers.foreign import BESIDE, foreign
from tagmask.data.readers.image_folder import find_image_folder, is_metadata
from tagmask.data.readers.label_studio import find_label_studio, is_task_list
from tagmask.data.readers.labelme import find_labelme, is_labelme
from tagmask.data.readers.parquet import find_parquet
from tagmask.data.readers.shards import find_shards
from tagmask.data.readers.table import TABLE_SUFFIXES
from tagmask.data.readers.voc import find_voc
from tagmask.data.readers.yolo import find_yolo
from tagmask.errors import TagmaskError, no_such
from tagmask.recipes.data_section import Found

FILES: dict[str, Found] = {
    ".yaml": "yolo",
    ".yml": "yolo",
    ".xml": "cvat",
    ".npy": "cls_labels",
    ".parquet": "parquet",
    ".tar": "tar",
}
# In the order in which they are looked for: what has a layout of its own first.
FOLDERS: dict[Found, Callable[[Path], object]] = {
    "cls_labels": find_class_vectors,
    "voc": find_voc,
    "coco": find_coco,
    "yolo": find_yolo,
    "cvat": find_cvat,
    "labelme": find_labelme,
    "imagefolder": find_image_folder,
    "parquet": find_parquet,
    "label_studio": find_label_studio,
}
ARCHIVES = (".zip", ".tgz", ".gz", ".7z", ".rar")
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
SAVE_AS_CSV = (
    "save it in its program by *Save as*, *CSV UTF-8*, with a header `image,tags`, and name that file; where the"
    " program writes semicolons between columns add --set data.separator=semicolon"
)
ONE_FILE = (
    "a table (.csv, .jsonl), a COCO instances file, a Label Studio export or a file of LabelMe (.json), a YOLO"
    " description (.yaml), a CVAT annotations.xml, a .parquet file, WebDataset shards (.tar), a cls_labels.npy"
)


def detect(path: Path) -> tuple[Found, Path]:
    """Tell the format of a path, and the file or folder to read.

    Raises:
        TagmaskError: nothing is there, or it is of no known format; the message says what was looked for.
    """
    if not os.path.exists(path):  # unlike Path.exists, False for names that are too long
        raise no_such(path)
    if path.is_file():
        return _of_file(path), path
    if table := _tags_table(path):
        return "table", table
    for found, find in FOLDERS.items():
        if find(path):
            return found, path
    if message := foreign(path):
        raise TagmaskError(message)
    if table := find_table(path):
        return "table", table
    if _has_class_folders(path) and not ((path / "images").is_dir() and _packed(path)):
        return "folders", path
    if find_shards(path):  # the last, for archives tend to lie beside what was unpacked from them
        return "tar", path
    raise TagmaskError(_undetected(path))


def given(path: Path, format: Found) -> Path:
    """Return what to read where the format is given: for a table's folder the table.

    Raises:
        TagmaskError: nothing is there, or a file where the format wants a folder.
    """
    if not os.path.exists(path):  # unlike Path.exists, False for names that are too long
        raise no_such(path)
    if format == "table" and path.is_dir():
        table = find_table(path)
        if table is None:
            raise TagmaskError(f"{path}: is a folder without a table; expected tags.csv in it, or name the file")
        return table
    if format in ("folders", "voc") and not path.is_dir():
        raise TagmaskError(f"{path}: is a file; format {format!r} reads a folder")
    return path


OWN = (CONFIDENCE, LEDGER)


def find_table(folder: Path) -> Path | None:
    """Return `tags.csv` or `tags.jsonl` of a folder, else its only table; None where it has none.

    Raises:
        TagmaskError: there are several, and none is called so.
    """
    if table := _tags_table(folder):
        return table
    tables = _tables(folder)
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables[:5])
        raise TagmaskError(f"{folder}: holds several tables ({names}); name one, or call the one to read tags.csv")
    return tables[0] if tables else None


def _of_file(path: Path) -> Found:
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        return "imagefolder" if is_metadata(path) else "table"
    if suffix == ".json":
        return "label_studio" if is_task_list(path) else "labelme" if is_labelme(path) else "coco"
    if suffix in FILES:
        return FILES[suffix]
    if suffix in ARCHIVES:
        raise TagmaskError(f"{path}: is an archive; unpack it and name the folder")
    if suffix in SPREADSHEETS:
        raise TagmaskError(f"{path}: is a spreadsheet; {SAVE_AS_CSV}")
    raise TagmaskError(f"{path}: expected {ONE_FILE}, or a folder")


def _tables(folder: Path) -> list[Path]:
    """The tables in a folder; the one that tagmask writes beside masks tells what it found, and no tags."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in TABLE_SUFFIXES and file.name not in OWN)
    return sorted(file for file in files if file.is_file())


def _tags_table(folder: Path) -> Path | None:
    return next((table for table in _tables(folder) if table.stem == "tags"), None)


def _has_class_folders(folder: Path) -> bool:
    """Tell whether an image lies in a folder of this folder, at most two folders down."""
    for place, folders, files in os.walk(folder, followlinks=True):  # two folders down, so no link leads round
        depth = len(Path(place).relative_to(folder).parts)
        if depth and any(map(is_image_name, files)):
            return True
        folders[:] = [name for name in folders if not name.startswith(".")] if depth < 2 else []
    return False


def _packed(path: Path) -> str | None:
    """Say what to do with a folder in which the tags, or all of it, lie in a spreadsheet or an archive."""
    names = sorted(os.listdir(path))
    if sheet := next((name for name in names if name.lower().endswith(SPREADSHEETS)), None):
        return f"{path}: holds no table but the spreadsheet {sheet}; {SAVE_AS_CSV}"
    if archive := next((name for name in names if name.lower().endswith(ARCHIVES)), None):
        return f"{path}: holds the archive {archive}; unpack it, and name the folder"
    return None


def _undetected(path: Path) -> str:
    entries = sorted(os.listdir(path))
    if not entries:
        return f"{path}: is empty; expected images with their tags"
    looked = (
        "looked for a table (tags.csv, tags.jsonl or one other .csv or .jsonl), a VOC tree (JPEGImages), COCO files"
        " (annotations/instances_*.json), YOLO (a .yaml with `names`, or images/ and labels/), CVAT (annotations.xml),"
        " LabelMe (a .json an image), an imagefolder (metadata.jsonl, metadata.csv), cls_labels*.npy, *.parquet, *.tar,"
        " a Label Studio export (.json),"
        " and folders of images named after classes"
    )
    if packed := _packed(path):
        return packed
    if any(map(is_image_name, entries)):
        images = {Path(name).stem for name in entries if is_image_name(name)}
        for suffix, told in BESIDE.items():
            if any(Path(name).suffix.lower() == suffix and Path(name).stem in images for name in entries):
                return f"{path}: holds images and, beside each, a {suffix} file, {told}"
        if table := _tags_table(Path(os.path.abspath(path)).parent):
            return f"{path}: holds images and no tags, which are in {table.name} beside it; give {table.parent}"
        return (
            f"{path}: holds images and no tags; {looked}. Write tags.csv with the header `image,tags` and a row an"
            " image, or sort the images into a folder a class"
        )
    more = ", ..." if len(entries) > 5 else ""
    return f"{path}: no format is recognised; {looked}; found {', '.join(entries[:5])}{more}"
