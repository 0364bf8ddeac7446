"""Hugging Face imagefolders: images beside a metadata.csv or metadata.jsonl."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tagmask.data.readers.cells import read_tags, tag_column
from tagmask.data.readers.folders import SPLIT_NAMES
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import (
    FileIndex,
    Options,
    Row,
    Source,
    class_list_beside,
    find_image,
    json_lines,
    read_text,
)
from tagmask.errors import TagmaskError

FILES = ("metadata.jsonl", "metadata.csv")
FILE_COLUMNS = ("file_name", "image_file_name")
SHAPE = 'expected lines like {"file_name": "a.jpg", "tags": ["cat"]}, or a CSV with the header file_name,tags'


def is_metadata(file: Path) -> bool:
    """Tell whether a file has the name and the first line of an imagefolder's metadata."""
    if file.name not in FILES or not file.is_file():
        return False
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        return any(column in stream.readline() for column in FILE_COLUMNS)


def find_image_folder(folder: Path) -> list[Path]:
    """Return the metadata files of a folder or, where it has none, of the folders in it, at most two down; sorted."""
    for pattern in ("", "*/", "*/*/"):
        found = sorted(file for name in FILES for file in folder.glob(f"{pattern}{name}") if is_metadata(file))
        if found:
            return found
    return []


def read_image_folder(path: Path, options: Options, problems: Problems) -> Source:
    """Read a metadata file, or all of a folder.

    Images are named relative to the metadata file, or to `image_folder`. Tags are in a column `tags` or `labels` (a
    list, or names joined by `;`), or are the categories of `objects`; numbers are looked up in `classes.txt`. `~tag`,
    a column `unknown` and null say that nobody knows. The split is the folder that has a split's name.

    Source: Hugging Face Datasets, "Create an image dataset", section ImageFolder.
    """
    files = find_image_folder(path) if path.is_dir() else [path]
    if not files:
        raise TagmaskError(f"{path}: no metadata.jsonl or metadata.csv in it that names images; {SHAPE}")
    root = path if path.is_dir() else path.parent
    names = class_list_beside(root)
    index = FileIndex()
    rows: list[Row] = []
    for file in files:
        base = os.path.normpath(options.image_folder or file.parent)
        top = base if options.image_folder else os.path.normpath(root)
        for where, entry in _entries(file, problems):
            try:
                rows.append(_row(where, entry, names, base, top, _split(file, root), index, problems))
            except TagmaskError as error:
                problems.add("row", where, str(error))
    if not rows and not problems.found:
        raise TagmaskError(f"{files[0]}: has no rows; {SHAPE}")
    return Source(
        path=path,
        rows=rows,
        classes=names,
        classes_from=str(root / "classes.txt"),
        tag_source=f"tags given in {', '.join(dict.fromkeys(file.name for file in files))}",
    )


def _split(file: Path, root: Path) -> str:
    folders = file.relative_to(root).parts[:-1]
    return next((name for name in folders if name.lower() in SPLIT_NAMES), "")


def _row(
    where: str,
    entry: dict[str, Any],
    names: tuple[str, ...] | None,
    base: str,
    top: str,
    split: str,
    index: FileIndex,
    problems: Problems,
) -> Row:
    given = next((entry[column] for column in FILE_COLUMNS if entry.get(column)), None)
    if not isinstance(given, str):
        raise TagmaskError(f"names no image; {SHAPE}")
    tags, unknown = read_tags(entry.get(tag_column(entry.keys())), names)
    if entry.get("unknown") and unknown is not None:
        unknown = (*unknown, *read_tags(entry["unknown"], names)[0])
    place = os.path.normpath(os.path.join(base, given.replace("\\", "/")))
    return Row(where, *find_image(where, [place], [top], index, problems), tags, unknown, split)


def _entries(file: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    text = read_text(file)
    if file.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            for entry in reader:
                yield f"{file} row {reader.line_num}", {key: cell or "" for key, cell in entry.items() if key}
        except csv.Error as error:
            raise TagmaskError(f"{file} row {reader.line_num}: {error}; check the row's quotes") from error
        return
    for where, entry in json_lines(file, text, SHAPE, problems):
        if isinstance(entry, dict):
            yield where, entry
        else:
            problems.add("row", where, f"is no object; {SHAPE}")
