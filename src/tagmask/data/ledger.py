"""A list, by content, of the files that tagmask wrote into a folder: every other file there is the user's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tagmask.data.files import write_bytes, write_text
from tagmask.data.walk import files_below

LEDGER = "written.jsonl"


class Ledger:
    """Knows the files that tagmask wrote into a folder by their hashes, and writes further ones.

    `written.jsonl` in the folder holds a line `["NAME", "SHA-256"]` for each. The line is added before its file takes
    its place, so that after a kill too every file of tagmask's own is known; a name may therefore have several lines,
    of which its file matches one. A file that matches none was made or changed by somebody else.

    Attributes:
        is_new: whether the folder had no list yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._list = folder / LEDGER
        self.is_new = not self._list.exists()
        # Tuples, for the items of a list are memory of their own: one left there for each of many thousand masks broke
        # up what is freed between two images, and the process grew (docs/faults.md, soak).
        self._hashes: dict[str, tuple[str, ...]] = {}
        for line in [] if self.is_new else self._list.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                name, own = json.loads(line)
                self._add(str(name), str(own))
            except (ValueError, TypeError, RecursionError):
                continue  # the end of a line that a kill cut off; its file was not written

    def owns(self, path: Path) -> bool:
        """Return whether the file is, byte for byte, one that tagmask wrote there."""
        hashes = self._hashes.get(self._name(path))
        return bool(hashes) and path.is_file() and file_hash(path) in hashes

    def adopt(self, path: Path) -> None:
        """Take a file, as it stands, for one that tagmask wrote."""
        self._add(self._name(path), file_hash(path))

    def disown(self, path: Path) -> None:
        """Take a file for the user's from now on, whatever it holds; the list is written."""
        self._hashes.pop(self._name(path), None)
        self.save()

    def save(self) -> None:
        """Write the list whole."""
        write_text(self._list, ledger_text((name, own) for name, hashes in self._hashes.items() for own in hashes))

    def write(self, path: Path, content: bytes) -> None:
        """Note what the file will hold, then write it whole; folders on the way are made. Needs `save` once before."""
        name, own = self._name(path), _hash(content)
        hashes = self._hashes.get(name, ())
        if own not in hashes:
            with self._list.open("a", encoding="utf-8") as file:
                file.write(_line(name, own))
        self._hashes[name] = (*(each for each in hashes if each != own), own)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)

    def finish(self) -> None:
        """Forget what files held before they were last written."""
        self._hashes = {name: hashes[-1:] for name, hashes in self._hashes.items()}
        self.save()

    def _add(self, name: str, own: str) -> None:
        self._hashes[name] = (*self._hashes.get(name, ()), own)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def hashes_below(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, by its name relative to it."""
    files = sorted(path for path, regular in files_below(folder, hidden=True) if regular)
    return {Path(path).relative_to(folder).as_posix(): file_hash(Path(path)) for path in files}


def stranger(folder: Path, known: Mapping[str, str], mark: str) -> str | None:
    """Return the name of the first file below a folder that is not, byte for byte, a known one; None: there is none.

    Args:
        folder: that tagmask wrote as a whole.
        known: hashes by name, as of `hashes_below`.
        mark: name of the file that holds them, which is known, too.
    """
    for path, regular in sorted(files_below(folder, hidden=True)):
        name = Path(path).relative_to(folder).as_posix()
        if name != mark and (not regular or file_hash(Path(path)) != known.get(name)):
            return name
    return None


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ledger_text(files: Iterable[tuple[str, str]]) -> str:
    """Return what `written.jsonl` holds for names of files and their hashes."""
    return "".join(_line(name, own) for name, own in files)


def _line(name: str, own: str) -> str:
    return json.dumps([name, own]) + "\n"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
