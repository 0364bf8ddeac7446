"""The form in which every reader hands on what it found, and what readers have in common: files, lists, texts."""

from __future__ import annotations

import os
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from tagmask.data.colours import ColourMask
from tagmask.data.dataset import PathLike, check_class_list
from tagmask.data.images import is_image_name
from tagmask.data.limits import parse_json
from tagmask.data.masks import AgreedMask, PolygonMask
from tagmask.data.members import is_member, member_path, samples
from tagmask.data.readers.problems import Problems
from tagmask.data.yolo_labels import YoloMask
from tagmask.errors import TagmaskError, no_such
from tagmask.recipes.data_section import Format, TagSource, Untagged

OtherTags = Literal["doubt", "drop", "refuse"]


class ReadOptions(TypedDict, total=False):
    """The keyword arguments of `read_dataset`; it describes them."""

    format: Format
    classes: Iterable[str] | None
    context: Iterable[str]
    background: bool
    masks: str | Path | None
    mask_classes: Iterable[str] | None
    untagged: Untagged
    image_folder: str | Path | None
    tag_source: TagSource
    tag_list: str | Path | None
    separator: str
    tag_separator: str
    encoding: str
    other_tags: OtherTags


@dataclass(frozen=True)
class Options:
    """`ReadOptions` with every value given, lists as tuples and folders as paths."""

    classes: tuple[str, ...] | None = None
    context: tuple[str, ...] = ()
    background: bool = True
    masks: Path | None = None
    mask_classes: tuple[str, ...] | None = None
    untagged: Untagged = "skip"
    image_folder: Path | None = None
    tag_source: TagSource = "annotations"
    tag_list: Path | None = None
    separator: str = ","
    tag_separator: str = ";"
    encoding: str = "utf-8"
    other_tags: OtherTags = "doubt"


class Row(NamedTuple):
    """One image as a source describes it, its tags still names.

    Attributes:
        where: file and row, for messages.
        name: the record's name.
        image: the image file; None where it was missing, which the reader has noted.
        tags: names of the classes the image bears.
        unknown: names of the classes of which nobody knows; None where nobody knows any.
        split: the split's name or nothing.
        mask: the ground truth with the source's own ids; PNG files of a mask folder are found later.
        mask_name: the name of its PNG mask, without suffix, where that may be another than the record's.
    """

    where: str
    name: str
    image: PathLike | None
    tags: tuple[str, ...] = ()
    unknown: tuple[str, ...] | None = ()
    split: str = ""
    mask: PolygonMask | YoloMask | AgreedMask | ColourMask | None = None
    mask_name: str = ""


@dataclass(frozen=True)
class Source:
    """Everything a reader found in a file or folder.

    Attributes:
        path: the file or folder read, for messages.
        rows: one for every image.
        classes: the source's own class list, in the order of its mask ids; None where it has none.
        classes_from: where that list stands, for messages.
        tag_source: where the tags come from, in words.
        mask_folder: where the format keeps PNG masks; None where it has none.
        groups: names of the images of splits that overlap others (VOC: `train` lies within `train_aug`).
        skipped: what was left out, one line each.
        mask_names: names of the ids of the rows' masks, where those are another list than `classes`.
    """

    path: Path
    rows: list[Row]
    classes: tuple[str, ...] | None
    classes_from: str
    tag_source: str
    mask_folder: Path | None = None
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    mask_names: tuple[str, ...] | None = None


class FileIndex:
    """An index that tells whether files exist; it lists each folder once and does not ask the disk for each file.

    The paths of images inside tar archives are looked up too: a review of shards writes them into its table.
    """

    def __init__(self) -> None:
        self._folders: dict[str, frozenset[str]] = {}
        self._stems: dict[str, dict[str, str]] = {}
        self._samples: dict[str, dict[str, str]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """Return the names of the files of a folder; none where the folder does not exist."""
        if folder not in self._folders:
            try:
                with os.scandir(folder) as entries:
                    self._folders[folder] = frozenset(entry.name for entry in entries if entry.is_file())
            except (OSError, ValueError):  # no folder, or a name that no file can have: too long, NUL, not UTF-8
                self._folders[folder] = frozenset()
        return self._folders[folder]

    def has(self, path: str) -> bool:
        """Tell whether a path names a file, in a folder or inside an archive."""
        if "/@" in path and is_member(Path(path)):
            return self.sample(path) is not None
        folder, _, name = path.rpartition(os.sep)
        return name in self.names(folder or os.curdir)

    def sample(self, path: str) -> str | None:
        """Return the record's name of an image inside an archive, `SHARD/KEY` as for shards; None where it is none.

        Raises:
            TagmaskError: the archive is damaged.
        """
        if "/@" not in path or not is_member(Path(path)):
            return None
        archive = os.path.dirname(os.path.dirname(path))
        if archive not in self._samples:
            shard = os.path.splitext(os.path.basename(archive))[0]
            self._samples[archive] = {
                member_path("", *place, ""): f"{shard}/{key}"
                for key, parts, _ in (samples(Path(archive)) if os.path.isfile(archive) else ())
                for ending, place in parts.items()
                if is_image_name(f"x.{ending}")
            }
        return self._samples[archive].get(path[len(archive) : path.rindex("/") + 1])

    def images(self, folder: str) -> dict[str, str]:
        """Return the images of a folder: file names by names without suffix."""
        return {os.path.splitext(name)[0]: name for name in sorted(self.names(folder)) if is_image_name(name)}

    def alike(self, path: str) -> str | None:
        """Return a file of the folder whose name differs in suffix, capitals or encoding alone; None: there is none."""
        folder, _, name = path.rpartition(os.sep)
        if folder not in self._stems:
            self._stems[folder] = {
                _plain(os.path.splitext(other)[0]): other for other in self.names(folder or os.curdir)
            }
        stems = self._stems[folder]
        return stems.get(_plain(os.path.splitext(name)[0])) or stems.get(_plain(name))


def _plain(name: str) -> str:
    """Return a name without what capitals and the two encodings of marked letters make different."""
    return unicodedata.normalize("NFC", name).lower()


def find_image(
    where: str, places: Iterable[str], bases: Iterable[str], index: FileIndex, problems: Problems
) -> tuple[str, str | None]:
    """Return a record's name and its image file, or note that the file is missing.

    Args:
        where: file and row that name the image, for messages.
        places: normalised paths to look at, the likeliest first; at least one.
        bases: folders that record names are relative to, as for `record_name`.
    """
    places = list(places)
    found = next((place for place in places if index.has(place)), None)
    if found is None:
        problems.add("missing image", where, missing_image(places[0], index))
        return record_name(places[0], bases), None
    return index.sample(found) or record_name(found, bases), found


def record_name(path: str, bases: Iterable[str]) -> str:
    """Return a record's name: the path without suffix, relative to the first base it lies in, `/` between folders."""
    stem = os.path.splitext(path)[0]
    for base in bases:
        if stem.startswith(base + os.sep):
            return stem[len(base) + 1 :].replace(os.sep, "/")
    return "/".join(part for part in Path(stem).parts if part not in ("..", Path(stem).anchor))


def missing_image(path: str, index: FileIndex) -> str:
    """Say that an image file is not there, and what to do."""
    if os.path.isdir(path):
        return f"{path} is a folder, expected an image file; name the file inside it"
    if is_member(Path(path)):
        return (
            f"no image file {path}; the archive is gone or was written anew: correct the path, or make the table anew"
        )
    alike = index.alike(path)
    if alike and unicodedata.normalize("NFC", alike) == unicodedata.normalize("NFC", os.path.basename(path)):
        return (
            f"no image file {path}; one is there whose letters are encoded otherwise (Unicode NFC and NFD, as another "
            "system writes them): rename it, or write the row by the file's own name"
        )
    hint = f"did you mean {alike!r}?" if alike else "correct the path, or name the folder of images (image_folder)"
    return f"no image file {path}; {hint}"


def read_class_list(path: Path) -> tuple[str, ...]:
    """Read a class list, one name a line, in id order.

    Raises:
        TagmaskError: the file is missing, a folder, not UTF-8, or its names are no class list.
    """
    lines = read_text(path).rstrip().split("\n")
    return check_class_list((line.strip() for line in lines), str(path), most=None)


def class_list_beside(folder: Path) -> tuple[str, ...] | None:
    """Read the class list in `classes.txt` of a folder; None where there is none."""
    path = folder / "classes.txt"
    return read_class_list(path) if path.exists() else None


def json_lines(path: Path, text: str, shape: str, problems: Problems) -> Iterator[tuple[str, Any]]:
    """Yield place and content of each line of a JSON lines file, and note those that are no JSON.

    Args:
        path: the file, for messages.
        text: its content.
        shape: what a line should be, for messages.
        problems: where to note what is wrong.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path} row {number}"
        if not line.strip():
            continue
        try:
            yield where, parse_json(line)
        except TagmaskError as error:
            problems.add("row", where, f"{error}; {shape}")


def read_text(path: Path, encoding: str | None = None) -> str:
    """Read a text file in UTF-8, with or without a byte order mark, or in an encoding that the user may name.

    Raises:
        TagmaskError: the file is missing, a folder, empty or not in this encoding.
    """
    if path.is_dir():
        raise TagmaskError(f"{path}: is a folder, expected a file")
    try:
        known = (encoding or "utf-8").lower()
        text = path.read_text(encoding="utf-8-sig" if known == "utf-8" else known)
    except UnicodeError as error:
        place = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        likely = "utf-16" if path.read_bytes()[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "latin-1"
        mend = f", or name its encoding (--set data.encoding={likely})" if encoding else ""
        raise TagmaskError(f"{path}: is not {known.upper()} text ({reason}{place}); save it as UTF-8{mend}") from error
    except FileNotFoundError:
        raise no_such(path, "file") from None
    except OSError as error:
        mend = "; change the file's permissions" if isinstance(error, PermissionError) else ""
        raise TagmaskError(f"{path}: cannot be read ({error.strerror}){mend}") from error
    if not text.strip():
        raise TagmaskError(f"{path}: is empty")
    return text
