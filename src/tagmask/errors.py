"""The one exception a user is meant to read, and what is said of a path at which nothing is."""

from __future__ import annotations

import difflib
import itertools
import os
from pathlib import Path

_LOOKED_AT = 10_000
"""Names of a folder among which the nearest is looked for; a folder may hold a million."""


class TagmaskError(Exception):
    """Something the user can mend.

    The message names the file, key or row, says what was expected, and how to put it right. The command line prints
    it without a traceback; everything else that is raised is a bug of ours.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def no_such(path: str | Path, what: str = "file or folder", mend: str = "correct the path") -> TagmaskError:
    """Return the error for a path at which nothing is, or a file in place of a folder: with the nearest path there is.

    Args:
        path: as the user gave it.
        what: what it should have been.
        mend: what to do where no path is near; the folder that was looked in is named, too.
    """
    if os.path.exists(path):
        return TagmaskError(f"{path}: is a {'folder' if os.path.isdir(path) else 'file'}, not a {what}; {mend}")
    near, folder = _nearest(Path(path))
    hint = f"did you mean {near}?" if near else f"{mend} (looked in {folder})"
    return TagmaskError(f"{path}: no such {what}; {hint}")


def _nearest(path: Path) -> tuple[Path | None, str]:
    """Return the path that is there and most like the given one, else None and the folder in which no name is like it.

    Each part is compared by itself, so that several may be misspelt; capitals do not count.
    """
    found = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        if os.path.lexists(found / part):
            found /= part
            continue
        try:
            with os.scandir(found) as entries:
                names = {entry.name.lower(): entry.name for entry in itertools.islice(entries, _LOOKED_AT)}
        except OSError:  # a file stands where a folder is needed, or nobody may read it
            names = {}
        near = difflib.get_close_matches(part.lower(), names, 1)
        if not near:
            return None, os.path.abspath(found)
        found /= names[near[0]]
    return (None, os.path.abspath(path.parent)) if found == path else (found, "")  # the former: a link to nothing
