"""Files below a folder: each real folder is visited once, whatever links there are, and only regular files count."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tagmask.data.images import is_image_name, is_slide_name


def files_below(folder: str | Path, *, links: bool = False, hidden: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the path of everything below a folder that is no folder, and whether it is a regular file.

    Folders that cannot be listed are passed over.

    Args:
        folder: where to begin.
        links: whether links to folders are followed, after all true folders, so that a file keeps its true path.
        hidden: whether folders whose names begin with a dot are entered.
    """
    seen: set[str] = set()
    folders, linked = [os.fspath(folder)], list[str]()
    while folders or linked:
        place = folders.pop() if folders else linked.pop()
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(place):
            # Asked of the path where it is a link: one that leads to itself makes the entry raise.
            linking = entry.is_symlink()
            if not (os.path.isdir(entry.path) if linking else entry.is_dir()):
                yield entry.path, os.path.isfile(entry.path) if linking else entry.is_file()
            elif hidden or not entry.name.startswith("."):
                if not linking:
                    folders.append(entry.path)
                elif links:
                    linked.append(entry.path)


def image_files(folder: str | Path, *, links: bool = False, hidden: bool = False, slides: bool = False) -> list[str]:
    """Return the sorted paths of the regular files below a folder that end like images; see `files_below`.

    Args:
        folder: where to begin.
        links: see `files_below`.
        hidden: see `files_below`.
        slides: whether whole slides are images, too.
    """
    found = files_below(folder, links=links, hidden=hidden)
    names = ((path, os.path.basename(path)) for path, regular in found if regular)
    return sorted(path for path, name in names if is_image_name(name) or (slides and is_slide_name(name)))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
