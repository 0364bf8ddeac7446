"""Output folders and small text files, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tagmask.errors import TagmaskError


def check_folder(folder: Path) -> None:
    """Raise a TagmaskError where a file stands in the way of an output folder."""
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise TagmaskError(f"{folder}: {place} is a file, not a folder; choose another output")
            return


def make_folder(folder: Path) -> None:
    """Make an output folder where there is none.

    Raises:
        TagmaskError: a file stands in the way.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_classes(folder: Path, classes: Sequence[str]) -> None:
    """Write `classes.txt`, a name a line in id order: beside a model, masks or CAMs it says what their ids mean."""
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in classes))
