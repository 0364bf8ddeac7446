"""Tags as the cells of a column say them, in imagefolder metadata and in parquet files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tagmask.data.limits import parse_json
from tagmask.errors import TagmaskError

TAG_COLUMNS = ("tags", "labels", "tag", "label", "objects")
OBJECT_KEYS = ("categories", "category", "labels", "label")


def tag_column(columns: Collection[str]) -> str:
    """Return the column that holds the tags.

    Raises:
        TagmaskError: there is none.
    """
    for column in TAG_COLUMNS:
        if column in columns:
            return column
    raise TagmaskError(
        f"has no column of tags; expected one called {', '.join(TAG_COLUMNS)}, found {', '.join(columns)}"
    )


def read_tags(cell: Any, names: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Return the tags a cell gives, and those it marks as unknown.

    Args:
        cell: a name or a number or a list of them, names joined by `;`, a list written as JSON, or objects with their
            `categories`. A name after `~` is unknown. None: nobody knows any tag.
        names: the class names that numbers 0.. stand for; None where nobody says.

    Raises:
        TagmaskError: it is none of these, or a number has no name.
    """
    if cell is None:
        return (), None
    found = [_name(part, names) for part in _parts(cell)]
    unknown = tuple(dict.fromkeys(name[1:].strip() for name in found if name.startswith("~")))
    tags = tuple(dict.fromkeys(name for name in found if name and not name.startswith("~")))
    if both := set(tags) & set(unknown):
        raise TagmaskError(f"tag {min(both)!r} is both given and unknown; keep one of the two")
    return tags, unknown


def _parts(cell: Any) -> Sequence[Any]:
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = parse_json(cell)
        except TagmaskError as error:
            raise TagmaskError(f"tags {cell[:80]!r} begin as a JSON list and are none ({error})") from None
    if isinstance(cell, dict):
        cell = next((cell[key] for key in OBJECT_KEYS if key in cell), cell)
    if isinstance(cell, str):
        return cell.split(";")
    if isinstance(cell, int):
        return [cell]
    if not isinstance(cell, list):
        raise TagmaskError(f"tags are {cell!r}; expected a list of names, or names joined by `;`")
    return cell


def _name(part: Any, names: Sequence[str] | None) -> str:
    if isinstance(part, str):
        part = part.strip()
        if names is None or part in names or not part.isdecimal() or len(part) > 9:
            return part
        part = int(part)
    if not isinstance(part, int) or isinstance(part, bool):
        raise TagmaskError(f"tag {part!r} is neither a name nor a number; write names")
    if names is None:
        raise TagmaskError(f"tag {part} is a number, and nobody says its name; write classes.txt, one name a line")
    if not 0 <= part < len(names):
        raise TagmaskError(f"tag {part} is outside the class list, which goes from 0 to {len(names) - 1}")
    return names[part]
