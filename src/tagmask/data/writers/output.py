"""The folder an export is written to: whole or not there, and never over a file that the export did not write."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tagmask.errors import TagmaskError

MARK = "tagmask-export.json"


@contextmanager
def fresh_folder(output: Path, format: str) -> Iterator[Path]:
    """A folder to write to, which takes the place of `output` when the block ends well.

    An earlier export is replaced if nothing was added to it and nothing in it was changed.

    Raises:
        TagmaskError: the output is a file, or holds anything that an export did not write.
    """
    check_free(output)
    partial = output.with_name(f".{output.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        files = sorted(file.relative_to(partial).as_posix() for file in partial.rglob("*") if file.is_file())
        text = json.dumps(
            {"tagmask": version("tagmask"), "format": format, "files": files}, ensure_ascii=False, indent=0
        )
        (partial / MARK).write_text(text + "\n", encoding="utf-8")
        check_free(output)
        if output.exists():
            shutil.rmtree(output)
        os.replace(partial, output)
    except OSError as error:
        raise TagmaskError(
            f"{output}: cannot be written ({error.strerror or error}); check the folder and its space"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(output: Path) -> None:
    """Refuse an output that holds anything but an untouched earlier export.

    Raises:
        TagmaskError: it does.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise TagmaskError(f"{output}: a file, not a folder; choose another output")
    present = [file for file in output.rglob("*") if not file.is_dir()]
    if not present and not any(output.iterdir()):
        return
    mark = output / MARK
    try:
        known = set(json.loads(mark.read_text(encoding="utf-8"))["files"])
        written = mark.stat().st_mtime_ns
    except (OSError, ValueError, KeyError, TypeError):
        raise TagmaskError(f"{output}: not empty and no earlier export; choose another output") from None
    for file in present:
        name = file.relative_to(output).as_posix()
        if file != mark and (name not in known or file.lstat().st_mtime_ns > written):
            what = "was changed since" if name in known else "was not written by"
            raise TagmaskError(f"{output}: holds {name}, which {what} the export; choose another output")


class Targets:
    """The files of an export, each for one image only."""

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
