"""The first row of a table: which columns are whose, and what to say where that cannot be told."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from tagmask.data.names import SPLITS
from tagmask.data.readers.foreign import COLUMNS
from tagmask.errors import TagmaskError

KEYS = ("image", "tags", "split", "unknown")
OPTIONAL = {"split", "unknown"}
ALSO = {
    "image": ("filename", "file_name", "image_name", "image_id", "id"),
    "tags": ("labels", "label", "classes", "category"),
}
"""Names that other people's tables have for a column, the likeliest first."""
ALSO_SPLIT = ("set", "subset", "partition", "fold")
"""Other names for the column of splits, where the first row holds the usual name of one."""
MARKS = {"1": True, "1.0": True, "0": False, "0.0": False, "-1": None, "-1.0": None, "": None}
"""What a cell of a class's own column says: the image bears it, does not, or nobody knows."""
TAB = "\t"
SHAPE = "expected a header `image,tags` or `image,tags,split`, tags joined by `;`"
ACCEPTED = "The names: " + "; ".join(f"`{key}`, or {', '.join(names)}" for key, names in ALSO.items())


def named_columns(path: Path, cells: list[str], first: list[str], separator: str) -> list[str]:
    """Return the names of the columns: ours where they are known, those of classes as they are.

    Args:
        path: the table, for messages.
        cells: its first row.
        first: its second, by which columns of classes are told.
        separator: what parted them.

    Raises:
        TagmaskError: no column is that of the image or of its tags, one stands twice or is misspelt.
    """
    names = [name if (name := cell.strip()).lower() not in KEYS else name.lower() for cell in cells]
    for key in ALSO:
        rename(names, key)
    for position, cell in enumerate(first[: len(names)]):
        if names[position].lower() in ALSO_SPLIT and cell.strip().lower() in SPLITS and "split" not in names:
            names[position] = "split"
    if "image" in names and "tags" in names:
        if wrong := misspelt(names):
            raise TagmaskError(f"{path} row 1: {wrong}")
    elif "image" not in names or not _are_marks(names, first):
        line = separator.join(cells)
        if told := next((told for column, told in COLUMNS.items() if column in names), None):
            raise TagmaskError(f"{path}: {told}")
        if len(cells) == 1 and (other := _separator(line)):
            raise TagmaskError(f"{path} row 1: {_parted_by(other, line, separator.join(first), separator)}")
        missing = next(key for key in ALSO if key not in names)
        raise TagmaskError(f"{path} row 1: {line!r} lacks the column {missing!r}; {SHAPE}. {ACCEPTED}")
    doubled = [name for name in names if names.count(name) > 1 and (name in KEYS or "tags" not in names)]
    if doubled:
        raise TagmaskError(f"{path} row 1: column {doubled[0]!r} stands twice; remove one")
    return names


def _separator(line: str) -> str | None:
    """Return the mark that parts a header into columns, one with the image's where there is one; None where none does.

    A comma may stand in the name of a column, so that it comes last.
    """
    known = {"image", *ALSO["image"]}
    marks = [mark for mark in (TAB, *";|,") if mark in line]
    named = (mark for mark in marks if known & {part.strip().lower() for part in line.split(mark)[:-1]})
    return next(named, marks[0] if marks else None)


def _parted_by(mark: str, header: str, first: str, given: str) -> str:
    """Say which keys read a table whose columns are parted by another mark, and how its columns are to be called.

    Args:
        mark: what parts the columns.
        header: the first row.
        first: the second.
        given: what should have parted them.
    """
    keys = [f"--set data.separator={'tab' if mark == TAB else repr(mark)}"]
    if mark == ";" and any("," in cell for cell in first.split(mark)):
        keys.append("--set data.tag_separator=comma, for its tags are joined by commas")
    said = f"columns are separated by {mark!r}; say so ({' '.join(keys)})"
    names = [cell.strip().lower() for cell in header.split(mark)]
    if all({key, *ALSO[key]}.intersection(names) for key in ALSO):
        return f"{said}, or separate them by commas; {SHAPE}" if given == "," else said
    return f"{said}, and name them so that tagmask knows them: {header!r} has no such names. {ACCEPTED}"


def rename(names: list[str], key: str) -> None:
    """Give a column our name, where other people's tables call it otherwise and none has ours."""
    lowered = [name.lower() for name in names]
    other = next((name for name in ALSO[key] if name in lowered), None)
    if key not in names and other is not None:
        names[lowered.index(other)] = key


def _are_marks(names: list[str], cells: list[str]) -> bool:
    """Tell whether the columns we have no name for are those of classes, by the cells of one row."""
    marks = [cell.strip() for name, cell in zip(names, cells, strict=False) if name not in KEYS]
    return any(marks) and all(mark in MARKS for mark in marks)


def misspelt(names: Iterable[str]) -> str | None:
    """Say that a column looks like an optional one, misspelt; `image` and `tags` are missed if they are."""
    present = {name.strip().lower() for name in names}
    for key in OPTIONAL - present:
        close = difflib.get_close_matches(key, present, n=1, cutoff=0.8)
        if close:
            return f"column {close[0]!r} is not known; did you mean {key!r}?"
    return None
