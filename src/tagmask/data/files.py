"""The one way files and folders are written: whole or not at all, and never outside the folder they belong in."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tagmask.errors import TagmaskError

_TEMPORARY = re.compile(r"\.tagmask-(\d+)-[0-9a-f]{8}(?:-([0-9a-f]{8}))?\.tmp")
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
MENDS = {
    errno.ENOSPC: "make room on that disk, or choose another place",
    errno.EDQUOT: "make room on that disk, or choose another place",
    errno.EFBIG: "that disk takes no file so large; choose another place",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.EACCES: "change the folder's permissions, or choose another place",
    errno.EPERM: "change the folder's permissions, or choose another place",
    errno.ENAMETOOLONG: "shorten the names of the image and its folders, or choose a place with a shorter path",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another place",
    errno.EEXIST: "a file stands where a folder is needed; choose another place",
    errno.EISDIR: "a folder has that name; rename it, or choose another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or set training.workers=0",
    errno.ELOOP: "remove the links that lead in a circle",
    errno.ENOENT: "check the name",
}
"""What to do about an error of the system, by its number."""
_OTHERWISE = "check the folder and its space"

_in_use: set[str] = set()
"""Names of the temporary files and folders that this process is writing now."""
_swept: set[Path] = set()
"""Folders that this process has searched for what killed processes left."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; what was written there becomes `path` when the block ends well.

    Under that name a file or a folder may be made. Where the block fails it is removed, and what `path` was before
    stays. Missing folders above `path` are made. The first time a process writes to a folder it removes the temporary
    files that killed processes left there.

    Raises:
        TagmaskError: the disk is full or read-only, the name too long, or whatever else the system objects to.
    """
    if path.name in ("", "..") or "\0" in str(path):
        raise TagmaskError(f"{str(path)!r}: names no file or folder of its own; give a name inside a folder")
    temporary = _temporary_name(path.parent)
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()  # says at once that a name is too long, not after the work
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        yield temporary
        if temporary.is_dir() and path.is_dir():
            _exchange(temporary, path)
        else:
            os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        _remove(temporary)
        _in_use.discard(temporary.name)


def unwritable(path: Path, error: OSError) -> TagmaskError:
    """What to tell the user when `path` could not be written."""
    reason, place = error.strerror or str(error), str(error.filename or path)
    if place != str(path) and not _TEMPORARY.search(place):  # another file is the cause, such as a source of a copy
        reason += f": {place}"
    return TagmaskError(f"{path}: cannot be written ({reason}); {MENDS.get(error.errno or 0, _OTHERWISE)}")


def check_writable(output: Path) -> None:
    """Refuse an output that this user may not write to, before long work for it begins.

    Raises:
        TagmaskError: the first folder that there is, of those that it lies in, takes no files.
    """
    place = next(each for each in (output, *output.absolute().parents) if each.exists())
    if not os.access(place, os.W_OK | os.X_OK if place.is_dir() else os.W_OK):
        raise unwritable(output, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def inside(folder: Path, name: str, what: str = "name") -> Path:
    """The path of `name` in `folder`, for names that come from data.

    Raises:
        TagmaskError: the path leads out of the folder, as `../a` and `/a` do, holds a `..` anywhere, or is no path.
    """
    path = folder / name
    strange = "\0" in name or ".." in Path(name).parts or path == folder
    if strange or not path.resolve().is_relative_to(folder.resolve()):
        raise TagmaskError(f"{what} {name!r}: leads out of the folder it is written to; rename it")
    return path


def check_folder(folder: Path) -> None:
    """Raise a TagmaskError where a file stands in the way of an output folder."""
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                where = f"{folder} is" if place == folder else f"{folder}: {place} is"
                raise TagmaskError(f"{where} a file, not a folder; choose another output")
            return


def make_folder(folder: Path) -> None:
    """Make an output folder where there is none.

    Raises:
        TagmaskError: a file stands in the way, or the folder cannot be made.
    """
    try:
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    except ValueError as error:  # a NUL in the name
        raise TagmaskError(f"{str(folder)!r}: no name of a folder ({error}); choose another output") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_classes(folder: Path, classes: Sequence[str]) -> None:
    """Write `classes.txt`, a name a line in id order: beside a model, masks or CAMs it says what their ids mean."""
    write_text(folder / "classes.txt", classes_text(classes))


def classes_text(classes: Sequence[str]) -> str:
    """Return what `classes.txt` holds for these names."""
    return "".join(f"{name}\n" for name in classes)


def is_temporary(name: str) -> bool:
    """Whether a file or folder is called as `replacing` calls what is not whole yet."""
    return bool(_TEMPORARY.fullmatch(name))


def _temporary_name(folder: Path) -> Path:
    """A free name in `folder` that says which process of which machine writes there."""
    name = f".tagmask-{os.getpid()}-{secrets.token_hex(4)}-{_MACHINE}.tmp"
    _in_use.add(name)
    return folder / name


def _exchange(new: Path, old: Path) -> None:
    """Put one folder in the place of another. A kill leaves one of them whole, never half of one."""
    aside = _temporary_name(old.parent)
    try:
        os.replace(old, aside)
        try:
            os.replace(new, old)
        except OSError:
            os.replace(aside, old)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        _in_use.discard(aside.name)


def _sweep(folder: Path) -> None:
    """Remove the temporary files and folders of processes that are no more, once a process and folder."""
    place = folder.absolute()
    if place in _swept:
        return
    _swept.add(place)
    for name in os.listdir(folder):
        found = _TEMPORARY.fullmatch(name)
        if not found or name in _in_use or found[2] not in (None, _MACHINE):  # of other machines nobody here can tell
            continue
        if int(found[1]) == os.getpid() or not _is_alive(int(found[1])):
            _remove(folder / name)


def _is_alive(process: int) -> bool:
    """Whether a process of this number runs on this machine; where nobody can tell, it is taken for alive."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
