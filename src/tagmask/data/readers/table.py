"""Tables of tagged images: CSV `image,tags[,split]` and JSON lines with the same keys."""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tagmask.data.csv_cells import plain_cell
from tagmask.data.readers.problems import Problems
from tagmask.data.readers.source import (
    FileIndex,
    Options,
    Row,
    Source,
    class_list_beside,
    missing_image,
    read_text,
    record_name,
)
from tagmask.errors import TagmaskError

KEYS = ("image", "tags", "split", "unknown")
OPTIONAL = {"split", "unknown"}
CSV_SUFFIX = ".csv"
JSONL_SUFFIXES = (".jsonl", ".ndjson")
SHAPE = "expected a header `image,tags` or `image,tags,split`, tags joined by `;`"


def read_table(path: Path, options: Options, problems: Problems) -> Source:
    """Read a CSV or JSON lines file.

    Images are looked for in `image_folder`, else in `images/` beside the table, else relative to the table. `~tag`
    means that nobody knows whether the image bears the tag; a JSON line may list such tags under `unknown` as well.
    Keys nobody asked for are left alone, unless they look like a misspelt one.
    """
    text = read_text(path)
    entries = (
        _csv_entries(path, text, problems) if path.suffix.lower() == CSV_SUFFIX else _json_entries(path, text, problems)
    )
    folder = path.parent
    bases = [os.path.normpath(base) for base in _image_bases(folder, options.image_folder)]
    index = FileIndex()
    rows = [row for entry in entries if (row := _row(*entry, bases, index, problems)) is not None]
    if not rows and not problems.found:
        raise TagmaskError(f"{path}: has no rows; {SHAPE}, then one row an image")
    return Source(
        path=path,
        rows=rows,
        classes=class_list_beside(folder),
        classes_from=str(folder / "classes.txt"),
        tag_source=f"tags given in {path.name}",
        mask_folder=folder / "masks" if (folder / "masks").is_dir() else None,
    )


def _image_bases(folder: Path, image_folder: Path | None) -> list[Path]:
    if image_folder is not None:
        return [image_folder]
    images = folder / "images"
    return [images, folder] if images.is_dir() else [folder]


def _row(where: str, entry: dict[str, Any], bases: list[str], index: FileIndex, problems: Problems) -> Row | None:
    given = str(entry.get("image") or "").strip().replace("\\", "/")
    if not given:
        problems.add("row", where, "names no image; fill the cell `image` or remove the row")
        return None
    path = next((place for base in bases if index.has(place := _place(base, given))), None)
    if path is None:
        problems.add("missing image", where, missing_image(_place(bases[0], given), index))
    try:
        tags, doubted = _split_tags(entry.get("tags"), "tags")
        unknown, marked = _split_tags(entry.get("unknown"), "unknown")
    except TagmaskError as error:
        problems.add("row", where, str(error))
        return None
    unknown = tuple(dict.fromkeys((*doubted, *unknown, *marked)))
    both = sorted(set(tags) & set(unknown))
    if both:
        problems.add("row", where, f"tag {both[0]!r} is both given and unknown; keep one of the two")
    return Row(
        where=where,
        name=record_name(path or _place(bases[0], given), bases),
        image=Path(path) if path else None,
        tags=tags,
        unknown=unknown,
        split=str(entry.get("split") or "").strip(),
    )


def _place(base: str, given: str) -> str:
    return os.path.normpath(os.path.join(base, given))


def _split_tags(value: Any, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tags that are given and tags that are marked unknown, each once, in order."""
    if value is None:
        return (), ()
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise TagmaskError(f"`{key}` is {value!r}; expected a list of names, or names joined by `;`")
    names = dict.fromkeys(part.strip() for part in parts if part.strip())
    given = tuple(name for name in names if not name.startswith("~"))
    return given, tuple(name[1:].strip() for name in names if name.startswith("~"))


def _csv_entries(path: Path, text: str, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise TagmaskError(f"{path} row {reader.line_num}: {error}; check the row's quotes") from error
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(path, cells)
            continue
        where = f"{path} row {reader.line_num}"
        if len(cells) > len(header):
            problems.add(
                "row", where, f"{len(cells)} cells under a header of {len(header)}; join tags by `;`, not by commas"
            )
            continue
        yield where, dict(zip(header, map(plain_cell, cells), strict=False))


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    if "image" in names and "tags" in names:
        if misspelt := _misspelt(names):
            raise TagmaskError(f"{path} row 1: {misspelt}")
        doubled = [name for name in KEYS if names.count(name) > 1]
        if doubled:
            raise TagmaskError(f"{path} row 1: column {doubled[0]!r} stands twice; remove one")
        return names
    line = ",".join(cells)
    if len(cells) == 1 and "image" in names[0] and "tags" in names[0]:
        other = next((mark for mark in "\t;|" if mark in line), " ")
        raise TagmaskError(f"{path} row 1: columns are separated by {other!r}; separate them by commas; {SHAPE}")
    missing = [name for name in ("image", "tags") if name not in names]
    raise TagmaskError(f"{path} row 1: {line!r} lacks the column {missing[0]!r}; {SHAPE}")


def _json_entries(path: Path, text: str, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    known: set[str] = set()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} row {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            problems.add("row", where, f"is no JSON ({error.msg} at column {error.colno}); expected one object a line")
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            problems.add("row", where, 'expected an object like {"image": "a.jpg", "tags": ["cat"], "split": "train"}')
            continue
        if "tags" not in entry:
            problems.add("row", where, "lacks the key 'tags'; write \"tags\": [] for an image that bears none")
            continue
        if not known.issuperset(entry):
            if misspelt := _misspelt(entry):
                problems.add("row", where, misspelt)
            known.update(entry)
        yield where, entry


def _misspelt(names: Iterable[str]) -> str | None:
    """What to say of a column that looks like an optional one, misspelt; `image` and `tags` are missed if they are."""
    present = {name.strip().lower() for name in names}
    for key in OPTIONAL - present:
        close = difflib.get_close_matches(key, present, n=1, cutoff=0.8)
        if close:
            return f"column {close[0]!r} is not known; did you mean {key!r}?"
    return None
