"""Tables of tagged images: CSV `image,tags[,split]`, or a column a class, and JSON lines with the same keys."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tagmask.data.csv_cells import plain_cell
from tagmask.data.images import IMAGE_SUFFIXES, is_image_name
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
from tagmask.data.readers.table_header import ALSO, KEYS, MARKS, SHAPE, misspelt, named_columns, rename
from tagmask.errors import TagmaskError

CSV_SUFFIX = ".csv"
TABLE_SUFFIXES = (CSV_SUFFIX, ".jsonl", ".ndjson")


def read_table(path: Path, options: Options, problems: Problems) -> Source:
    """Read a CSV or JSON lines file.

    Images are looked for in `image_folder`, else in `images/` beside the table, else relative to the table; names
    without the suffix of an image get one. `~tag` means that nobody knows whether the image bears the tag; a JSON line
    may list such tags under `unknown` as well. A CSV without a column of tags may have a column a class, whose cells
    are 1, 0, or -1 or nothing where nobody knows. Keys nobody asked for are left alone, unless they look like a
    misspelt one. Columns are separated by `options.separator`, tags joined by `options.tag_separator`.
    """
    text = read_text(path, options.encoding)
    columns: tuple[str, ...] = ()
    if path.suffix.lower() == CSV_SUFFIX:
        header, cells = _csv_rows(path, text, options.separator, problems)
        if "tags" in header:
            entries = ((where, dict(zip(header, row, strict=False))) for where, row in cells)
        else:
            columns = tuple(name for name in header if name not in KEYS)
            entries = _from_columns(header, columns, cells, problems)
    else:
        entries = _json_entries(path, text, problems)
    folder = path.parent
    bases = [os.path.normpath(base) for base in _image_bases(folder, options.image_folder)]
    index = FileIndex()
    tags = _TagCells(options.tag_separator)
    rows = [row for entry in entries if (row := _row(*entry, tags, bases, index, problems))]
    if not rows and not problems.found:
        raise TagmaskError(f"{path}: has no rows; {SHAPE}, then one row an image")
    return Source(
        path=path,
        rows=rows,
        classes=class_list_beside(folder) or columns or None,
        classes_from=f"the columns of {path}" if columns else str(folder / "classes.txt"),
        tag_source=f"tags given in {path.name}",
        mask_folder=folder / "masks" if (folder / "masks").is_dir() else None,
    )


def _image_bases(folder: Path, image_folder: Path | None) -> list[Path]:
    if image_folder is not None:
        return [image_folder]
    images = folder / "images"
    return [images, folder] if images.is_dir() else [folder]


_PLAIN = re.compile(r"((?:[\w-][\w .-]*/)*[\w-][\w .-]*)(\.\w+)", re.ASCII)
"""A relative path that is normalised as it stands, in two parts: without suffix, and the suffix."""


def _row(
    where: str, entry: dict[str, Any], cells: _TagCells, bases: list[str], index: FileIndex, problems: Problems
) -> Row | None:
    given = str(entry.get("image") or "").strip().replace("\\", "/")
    if not given:
        problems.add("row", where, "names no image; fill the cell `image` or remove the row")
        return None
    plain = _PLAIN.fullmatch(given) if bases[0] not in (os.curdir, os.sep) else None
    if plain and plain[2].lower() in IMAGE_SUFFIXES and index.has(place := f"{bases[0]}{os.sep}{given}"):
        name, image = plain[1], place  # what the lines below come to, for most rows of most tables
    else:
        places = [os.path.normpath(os.path.join(base, given)) for base in bases]
        if not is_image_name(os.path.basename(given)):
            places += [place + suffix for place in places for suffix in sorted(IMAGE_SUFFIXES)]
        name, image = find_image(where, places, bases, index, problems)
    try:
        tags, unknown = cells.read(entry.get("tags"), "tags")
        further = entry.get("unknown")
        if further is not None:
            unknown = tuple(dict.fromkeys((*unknown, *chain(*cells.read(further, "unknown")))))
    except TagmaskError as error:
        problems.add("row", where, str(error))
        return None
    if unknown and (both := set(tags).intersection(unknown)):
        problems.add("row", where, f"tag {min(both)!r} is both given and unknown; keep one of the two")
    split = str(entry.get("split") or "").strip()
    return Row(where, name, image, tags, unknown, cells.stripped[split])


class _Stripped(dict[str, str]):
    """Text without the blanks around it; what returns is one string in memory, not a million."""

    def __missing__(self, text: str) -> str:
        name = text.strip()
        self[text] = name if name == text else self[name]
        return self[text]


class _TagCells:
    """Reads cells of tags that are joined by a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.stripped = _Stripped()

    def read(self, value: Any, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the tags that are given and those that are marked unknown, each once, in order."""
        if value is None:
            return (), ()
        if isinstance(value, str) and "~" not in value:
            return tuple(dict.fromkeys(filter(None, map(self.stripped.__getitem__, value.split(self.mark))))), ()
        parts = value.split(self.mark) if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise TagmaskError(f"`{key}` is {value!r}; expected a list of names, or names joined by `{self.mark}`")
        names = dict.fromkeys(filter(None, map(self.stripped.__getitem__, parts)))
        given = tuple(name for name in names if not name.startswith("~"))
        return given, tuple(name[1:].strip() for name in names if name.startswith("~"))


def _csv_rows(
    path: Path, text: str, separator: str, problems: Problems
) -> tuple[list[str], Iterator[tuple[str, list[str]]]]:
    """Return the header, with our names for the columns we know, and the place and cells of each row below it."""
    if told := _TOLD_SEPARATOR.match(text):
        separator, text = told[1], "\n" + text[told.end() :]
    rows = _csv_cells(path, text, separator)
    header = next(rows, ("", []))[1]
    first = next(rows, None)
    names = named_columns(path, header, first[1] if first else [], separator)
    return names, _plain(chain([first] if first else [], rows), len(header), separator, problems)


_TOLD_SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
"""A first line by which spreadsheets are told what stands between the columns."""


def _csv_cells(path: Path, text: str, separator: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and cells of the header, then of each row below it."""
    # Line by line: StringIO would hold the text in four bytes a character.
    reader = csv.reader((line[0] for line in re.finditer(r".*\n|.+", text)), delimiter=separator, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield f"{path} row {reader.line_num}", cells
    except csv.Error as error:
        raise TagmaskError(f"{path} row {reader.line_num}: {error}; check the row's quotes") from error


def _plain(
    rows: Iterable[tuple[str, list[str]]], width: int, separator: str, problems: Problems
) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows that are no longer than the header, without the quotes that keep spreadsheets from formulas."""
    mend = "join tags by `;`, not by commas"
    if separator != ",":
        mend = f"join tags by another mark than {separator!r} (data.tag_separator), or put quotes around them"
    for where, cells in rows:
        if len(cells) > width:
            problems.add("row", where, f"{len(cells)} cells under a header of {width}; {mend}")
        else:
            yield where, [plain_cell(cell) if cell[:1] == "'" else cell for cell in cells]


def _from_columns(
    header: list[str], classes: tuple[str, ...], rows: Iterable[tuple[str, list[str]]], problems: Problems
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of a table with a column a class, as a table with a column of tags has them."""
    for where, row in rows:
        entry: dict[str, Any] = dict(zip(header, row, strict=False))
        marks = {name: entry.get(name, "").strip() for name in classes}
        if wrong := next((name for name in classes if marks[name] not in MARKS), None):
            problems.add("row", where, f"column {wrong!r} holds {marks[wrong]!r}; expected 1, 0, or -1 for not known")
            continue
        entry["tags"] = [name for name in classes if MARKS[marks[name]]]
        entry["unknown"] = [name for name in classes if MARKS[marks[name]] is None]
        yield where, entry


def _json_entries(path: Path, text: str, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    known: set[str] = set()
    for where, entry in json_lines(path, text, "expected one object a line", problems):
        if isinstance(entry, dict):
            names = list(entry)
            for key in ALSO:
                rename(names, key)
            entry = dict(zip(names, entry.values(), strict=True))
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            problems.add("row", where, 'expected an object like {"image": "a.jpg", "tags": ["cat"], "split": "train"}')
            continue
        if "tags" not in entry:
            problems.add("row", where, "lacks the key 'tags'; write \"tags\": [] for an image that bears none")
            continue
        if not known.issuperset(entry):
            if wrong := misspelt(entry):
                problems.add("row", where, wrong)
            known.update(entry)
        yield where, entry
