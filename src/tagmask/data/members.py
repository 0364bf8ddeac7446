"""Files inside tar archives, named by a path and read in place: `shards/00.tar/@1536+20480/cow.jpg`.

The numbers are the first byte of the file in the archive and its length. Such a path goes wherever that of an image
goes, to other processes too, and nobody has to keep a list of what is where.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path

from tagmask.errors import TagmaskError, first_line

LARGEST = 1 << 30
"""Most bytes of a file that is read from an archive; it is held in memory."""
_PATH = re.compile(r"(.+\.tar)/@(\d{1,18})\+(\d{1,18})/[^/]+", re.DOTALL | re.IGNORECASE)
_BLOCK = 512


def member_path(archive: str, offset: int, size: int, name: str) -> str:
    """Return the path by which a file inside an archive is known."""
    return f"{archive}/@{offset}+{size}/{name}"


def is_member(path: Path) -> bool:
    """Tell whether a path is that of a file inside an archive."""
    return "/@" in str(path) and _PATH.fullmatch(str(path)) is not None


def read_member(path: Path) -> bytes:
    """Read a file inside an archive.

    Raises:
        TagmaskError: the archive is missing, shorter than it was, or the file larger than `LARGEST`.
    """
    found = _PATH.fullmatch(str(path))
    assert found is not None
    archive, offset, size = found[1], int(found[2]), int(found[3])
    if size > LARGEST:
        raise TagmaskError(f"{path}: has {size} bytes, and from an archive at most {LARGEST} are read; unpack it")
    try:
        with open(archive, "rb", buffering=0) as file:
            content = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise TagmaskError(f"{archive}: cannot be read ({error.strerror}); check the file and its disk") from error
    if len(content) < size:
        raise TagmaskError(f"{path}: damaged or cut short; copy {archive} again")
    return content


def copy_image(image: Path, target: Path) -> None:
    """Copy an image, in a folder or inside an archive, to a file."""
    if is_member(image):
        target.write_bytes(read_member(image))
    else:
        shutil.copyfile(image, target)


def samples(
    archive: Path, texts: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, tuple[int, int]], dict[str, bytes]]]:
    """Yield the samples of a WebDataset shard: consecutive files of one name up to its first dot.

    Args:
        archive: the tar file.
        texts: endings of files, in small letters, that are read now.

    Returns:
        the name; for each ending the first byte and the length of the file; and the contents of those in `texts`.

    Raises:
        TagmaskError: the archive cannot be read, or is damaged or cut short.
    """
    try:
        with archive.open("rb", buffering=0) as file:
            length, descriptor = os.fstat(file.fileno()).st_size, file.fileno()
            parts = ((sample_key(name), offset, size) for name, offset, size in _members(archive, descriptor))
            for key, group in groupby(parts, lambda part: part[0][0]):
                files = {ending: (offset, size) for (_, ending), offset, size in group}
                if max(offset + size for offset, size in files.values()) > length:
                    raise TagmaskError(f"{archive}: cut short in {key}; copy it again")
                few = {ending: files[ending] for ending in texts if ending in files}
                if any(size > LARGEST for _, size in few.values()):
                    raise TagmaskError(f"{archive}: a text of {key} is larger than {LARGEST} bytes; write it anew")
                yield key, files, {ending: os.pread(descriptor, *own[::-1]) for ending, own in few.items()}
    except tarfile.TarError as error:
        raise TagmaskError(f"{archive}: is no whole tar file ({first_line(error)}); copy it again") from error
    except OSError as error:
        raise TagmaskError(f"{archive}: cannot be read ({error.strerror}); check the file and its disk") from error


def sample_key(path: str) -> tuple[str, str]:
    """Part a file's name at the first dot of its last part."""
    folder, slash, name = path.removeprefix("./").rpartition("/")
    stem, _, ending = name.partition(".")
    return folder + slash + stem, ending.lower()


def _members(archive: Path, descriptor: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, first byte and length of each regular file; plain headers are read here, ten times as fast."""
    place = 0
    while (header := os.pread(descriptor, _BLOCK, place)).strip(b"\0"):
        kind, size = header[156:157], header[124:135]
        if header[257:262] != b"ustar" or kind not in b"05" or size.strip(b"01234567"):
            yield from _other_members(archive, place)
            return
        length = int(size, 8)
        if kind == b"0":
            name = header[:100].rstrip(b"\0").decode("utf-8", "surrogateescape")
            folder = header[345:500].rstrip(b"\0").decode("utf-8", "surrogateescape") if header[262] == 0 else ""
            yield (f"{folder}/{name}" if folder else name), place + _BLOCK, length
        place += _BLOCK + -(-length // _BLOCK) * _BLOCK


def _other_members(archive: Path, start: int) -> Iterator[tuple[str, int, int]]:
    """Yield the regular files from a place on, with the names and lengths that further headers give them."""
    with archive.open("rb") as file:
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:") as opened:
            for member in opened:
                if member.isfile() and not member.issparse():
                    yield member.name, member.offset_data, member.size
                opened.members = []  # pyright: ignore[reportAttributeAccessIssue]  # it would keep all of them
