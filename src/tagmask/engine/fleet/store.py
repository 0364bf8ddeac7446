"""Folders on a disk or in an object store: files appear in them whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tagmask.data.files import write_bytes
from tagmask.data.walk import files_below
from tagmask.errors import TagmaskError, first_line


def is_remote(place: str | Path) -> bool:
    """Say whether this names a place in an object store, such as `s3://bucket/photos`."""
    return "://" in str(place) and not str(place).startswith("file://")


class Store:
    """A folder, by its path or by its address for fsspec; names in it are relative, with `/`.

    Raises:
        TagmaskError: fsspec or what it needs for such an address is missing.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place).removeprefix("file://").rstrip("/") or "/"
        self._fs, self._root = _file_system(self.place) if is_remote(self.place) else (None, self.place)

    def path(self, name: str = "") -> str:
        """Return the path or address of a file in the folder."""
        return f"{self.place}/{name}" if name else self.place

    def put(self, name: str, content: bytes) -> None:
        """Write a file: by a temporary name that is changed on a disk, by a single request in an object store."""
        if self._fs is None:
            write_bytes(Path(self.place, name), content)
        else:
            self._fs.pipe_file(f"{self._root}/{name}", content)

    def get(self, names: Iterable[str]) -> dict[str, bytes | Exception]:
        """Read files at once; for each its content, or why that one cannot be read.

        Raises:
            OSError: the store does not answer, which is no fault of a file.
        """
        if self._fs is None:
            return {name: _read(Path(self.place, name)) for name in names}
        addresses = {f"{self._root}/{name}": name for name in names}
        found: dict[str, Any] = self._fs.cat(list(addresses), on_error="return") if addresses else {}
        given = {addresses[address]: content for address, content in found.items()}
        for content in given.values():
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError | PermissionError):
                raise content
        return given

    def has(self, name: str) -> bool:
        """Say whether a file is there."""
        if self._fs is None:
            return Path(self.place, name).is_file()
        return bool(self._fs.isfile(f"{self._root}/{name}"))

    def size(self, name: str) -> int:
        """Return the bytes of a file."""
        return Path(self.place, name).stat().st_size if self._fs is None else int(self._fs.size(f"{self._root}/{name}"))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the bytes of every file below a folder by name, sorted; empty where there is none."""
        if self._fs is None:
            found = [path for path, regular in files_below(Path(self.place, folder), links=True) if regular]
            return {Path(path).relative_to(self.place).as_posix(): Path(path).stat().st_size for path in sorted(found)}
        self._fs.invalidate_cache()
        try:
            entries = self._fs.find(f"{self._root}/{folder}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return {}
        root = self._root.strip("/")
        sized = {path.strip("/").removeprefix(root).strip("/"): entry["size"] for path, entry in entries.items()}
        return dict(sorted(sized.items()))

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return Path(self.place, name).open("rb") if self._fs is None else self._fs.open(f"{self._root}/{name}", "rb")


def of_file(place: str) -> tuple[Store, str]:
    """Return the folder of a file, and the file's name in it."""
    folder, _, name = place.rpartition("/")
    return Store(folder or "."), PurePosixPath(name).name


def _read(path: Path) -> bytes | Exception:
    try:
        return path.read_bytes()
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        return error


def _file_system(place: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise TagmaskError(f"{place}: object stores need fsspec; pip install 'tagmask[ray]'") from None
    try:
        return fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise TagmaskError(
            f"{place}: cannot be opened ({first_line(error)}); such as s3:// takes pip install s3fs"
        ) from (error)
