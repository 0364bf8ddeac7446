"""The folder that an export is written to, and the names in it. Nothing that an export did not write is replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tagmask.data.files import replacing, write_text
from tagmask.data.ledger import file_hash, hashes_below, stranger
from tagmask.data.limits import parse_json
from tagmask.data.lock import locked
from tagmask.errors import TagmaskError

MARK = "tagmask-export.json"


@contextmanager
def fresh_folder(output: Path, format: str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a folder to write to, which takes the place of `output` when the block ends well.

    An earlier export is replaced if nothing was added to it and nothing in it was changed. A kill at any moment leaves
    either export whole, or none at all.

    Raises:
        TagmaskError: the output is a file, holds anything that an export did not write, or cannot be written.
    """
    check_free(output, overwrite=overwrite)
    with locked(output, replaced=True), replacing(output) as folder:
        folder.mkdir()
        yield folder
        mark = {"tagmask": version("tagmask"), "format": format, "files": hashes_below(folder)}
        write_text(folder / MARK, json.dumps(mark, ensure_ascii=False, indent=0) + "\n")
        check_free(output, overwrite=overwrite)


def check_free(output: Path, *, overwrite: bool = False) -> None:
    """Refuse an output that holds anything but an untouched earlier export; to be overwritten it may be touched.

    Raises:
        TagmaskError: it does.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise TagmaskError(f"{output}: a file, not a folder; choose another output")
    if not any(output.iterdir()):
        return
    mark = output / MARK
    try:
        known = parse_json(mark.read_bytes())["files"]
        if isinstance(known, list):  # exports of version 0.1 wrote down names alone: what is newer was changed
            written = mark.stat().st_mtime_ns
            known = {name: file_hash(file) if _is_older(file := output / name, written) else "" for name in known}
        name = stranger(output, known, MARK)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, TagmaskError):
        raise TagmaskError(f"{output}: not empty and no earlier export; choose another output") from None
    if name is not None and not overwrite:
        what = "was changed since" if name in known else "was not written by"
        raise TagmaskError(
            f"{output}: holds {name}, which {what} the export; choose another output, or add --overwrite"
        )


def _is_older(file: Path, written: int) -> bool:
    return file.is_file() and file.lstat().st_mtime_ns <= written


class Targets:
    """Remembers which file of an export belongs to which image, so that no two images share one."""

    def __init__(self) -> None:
        self._sources: dict[str, str] = {}

    def claim(self, target: str, source: str) -> str:
        """Take a file name for an image.

        Raises:
            TagmaskError: another image has it already, small and capital letters being the same.
        """
        other = self._sources.setdefault(target.lower(), source)
        if other != source:
            raise TagmaskError(f"{source} and {other} would both be written as {target}; rename one of them")
        return target
