"""Readers: one format a file, one function for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, Unpack, get_args

from tagmask.data.dataset import Dataset
from tagmask.data.images import is_image_name
from tagmask.data.readers.assemble import Collected, assemble
from tagmask.data.readers.coco import find_coco, read_coco
from tagmask.data.readers.folders import read_folders
from tagmask.data.readers.problems import Problems, nearest
from tagmask.data.readers.source import Format, Options, ReadOptions, Source, TagSource, Untagged
from tagmask.data.readers.table import CSV_SUFFIX, JSONL_SUFFIXES, read_table
from tagmask.data.readers.voc import find_voc, read_voc
from tagmask.errors import TagmaskError

__all__ = ["ReadOptions", "read_dataset"]

Found = Literal["table", "folders", "coco", "voc"]
TABLE_SUFFIXES = (CSV_SUFFIX, *JSONL_SUFFIXES)
READERS: dict[Found, Callable[[Path, Options, Problems], Source]] = {
    "table": read_table,
    "folders": read_folders,
    "coco": read_coco,
    "voc": read_voc,
}


def read_dataset(path: str | Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read tagged images.

    Args:
        path: a table (CSV, JSON lines) or the folder it lies in, a folder of class folders, a COCO instances file or
            the folder of several, or a VOC tree.
        **options: all optional.
            `format`: "table", "folders", "coco" or "voc"; "auto" looks.
            `classes`: the chosen names in id order; a subset of the data's own list drops the other tags. None takes
            the own list (`classes.txt` beside a table or in a folder, categories, the 20 of VOC), else the tags seen.
            `background`: False where every pixel has one of the classes.
            `masks`: folder of masks `NAME.png`; None takes `masks/` beside a table, SegmentationClassAug or
            SegmentationClass of a VOC tree, the outlines of a COCO file.
            `mask_classes`: names in the order of the mask ids 1, 2, ...; None takes the data's own list. Ids of
            classes that are not chosen become 0 with background and 255 (ignored) without.
            `untagged`: what becomes of an image that bears none of the classes: "skip" leaves it out and says so in
            `Dataset.skipped`, "negative" keeps it as known to bear none, "error" refuses it.
            `image_folder`: where the images of a table or a COCO file are.
            `tag_source`: "masks" reads the tags of a VOC tree off its masks, in place of its XML files.

    Returns:
        The data set, in the order of the source.

    Raises:
        TagmaskError: the source is none of these, or any of its rows is wrong; the first ten are named.
    """
    problems = Problems()
    try:
        collected = collect(Path(path), problems, **options)
    except TagmaskError as error:
        if problems.found:
            problems.add("file", str(path), str(error).removeprefix(f"{path}: "))
            problems.raise_if_any(Path(path))
        raise
    problems.raise_if_any(Path(path))
    if not collected.dataset.records:
        left_out = f"; all {len(collected.untagged)} were left out as untagged" if collected.untagged else ""
        raise TagmaskError(f"{path}: no image to learn from{left_out}")
    return collected.dataset


def collect(
    path: Path,
    problems: Problems,
    *,
    format: Format = "auto",
    classes: Iterable[str] | None = None,
    background: bool = True,
    masks: str | Path | None = None,
    mask_classes: Iterable[str] | None = None,
    untagged: Untagged = "skip",
    image_folder: str | Path | None = None,
    tag_source: TagSource = "annotations",
) -> Collected:
    """Read as `read_dataset` does, but note wrong rows in `problems` and go on.

    Raises:
        TagmaskError: the source as a whole cannot be read.
    """
    for key, value, valid in (
        ("format", format, get_args(Format)),
        ("untagged", untagged, get_args(Untagged)),
        ("tag_source", tag_source, get_args(TagSource)),
    ):
        if value not in valid:
            raise TagmaskError(f"{key}: {value!r} is not known; {nearest(str(value), valid)}")
    options = Options(
        classes=None if classes is None else tuple(classes),
        background=background,
        masks=None if masks is None else Path(masks),
        mask_classes=None if mask_classes is None else tuple(mask_classes),
        untagged=untagged,
        image_folder=None if image_folder is None else Path(image_folder),
        tag_source=tag_source,
    )
    if options.image_folder is not None and not options.image_folder.is_dir():
        raise TagmaskError(f"image_folder: {image_folder} is no folder; name the one the images are in")
    found, place = detect(path) if format == "auto" else (format, _given(path, format))
    if tag_source == "masks" and found != "voc":
        raise TagmaskError(f"tag_source: masks is for VOC trees, and {path} is read as {found}; remove the key")
    return assemble(READERS[found](place, options, problems), options, problems)


def detect(path: Path) -> tuple[Found, Path]:
    """The format of a path, and the file or folder to read.

    Raises:
        TagmaskError: nothing is there, or it is of no known format; the message says what was looked for.
    """
    if not path.exists():
        raise TagmaskError(f"{path}: no such file or folder")
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix in TABLE_SUFFIXES:
            return "table", path
        if suffix == ".json":
            return "coco", path
        raise TagmaskError(f"{path}: expected a table (.csv, .jsonl), a COCO instances file (.json), or a folder")
    if table := find_table(path):
        return "table", table
    if find_voc(path):
        return "voc", path
    if find_coco(path):
        return "coco", path
    if _has_class_folders(path):
        return "folders", path
    raise TagmaskError(_undetected(path))


def find_table(folder: Path) -> Path | None:
    """`tags.csv` or `tags.jsonl` of a folder, else its only table; None where it has none.

    Raises:
        TagmaskError: there are several, and none is called so.
    """
    tables = sorted(file for file in folder.iterdir() if file.suffix.lower() in TABLE_SUFFIXES)
    for table in tables:
        if table.stem == "tags":
            return table
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables[:5])
        raise TagmaskError(f"{folder}: holds several tables ({names}); name one, or call the one to read tags.csv")
    return tables[0] if tables else None


def _given(path: Path, format: Found) -> Path:
    """What to read where the format is given: for a table's folder the table."""
    if not path.exists():
        raise TagmaskError(f"{path}: no such file or folder")
    if format == "table" and path.is_dir():
        table = find_table(path)
        if table is None:
            raise TagmaskError(f"{path}: is a folder without a table; expected tags.csv in it, or name the file")
        return table
    if format in ("folders", "voc") and not path.is_dir():
        raise TagmaskError(f"{path}: is a file; format {format!r} reads a folder")
    return path


def _has_class_folders(folder: Path) -> bool:
    """Whether an image lies in a folder of this folder, at most two folders down."""
    for place, folders, files in os.walk(folder, followlinks=True):
        depth = len(Path(place).relative_to(folder).parts)
        if depth and any(map(is_image_name, files)):
            return True
        folders[:] = [name for name in folders if not name.startswith(".")] if depth < 2 else []
    return False


def _undetected(path: Path) -> str:
    entries = sorted(os.listdir(path))
    if not entries:
        return f"{path}: is empty; expected images with their tags"
    looked = (
        "looked for a table (tags.csv, tags.jsonl or one other .csv or .jsonl), a VOC tree (JPEGImages), COCO files"
        " (annotations/instances_*.json), and folders of images named after classes"
    )
    if any(map(is_image_name, entries)):
        return (
            f"{path}: holds images and no tags; {looked}. Write tags.csv with the header `image,tags` and a row an"
            " image, or sort the images into a folder a class"
        )
    more = ", ..." if len(entries) > 5 else ""
    return f"{path}: no format is recognised; {looked}; found {', '.join(entries[:5])}{more}"
