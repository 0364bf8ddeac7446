"""Records of tagged images: the one form that every reader produces and everything else consumes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from tagmask.data.names import collision, image_name_fault, is_background, split_name_fault, text_fault
from tagmask.errors import TagmaskError
from tagmask.ops.label_ids import HIGHEST, IGNORE, IGNORED_CLASS

PathLike = Path | str
MAX_CLASSES = HIGHEST  # with `IGNORED_CLASS`
MOST_TAGS = IGNORE - 1  # of an image; what is made of it numbers its tags by ids below 255
PIECE = 10_000  # records whose text is made at a time


class MaskSource(Protocol):
    """Something that gives an image's label map: a PNG on disk, polygons of an annotation file, ..."""

    def load(self, height: int, width: int) -> np.ndarray:
        """Return the `(height, width)` label map: 0 background, 1..K, 255 ignored; uint8, of over 254 classes uint16.

        Raises:
            TagmaskError: the file is missing or damaged, has another size or holds ids that are no class.
        """
        ...


class _PathAsText:
    """The field of a frozen dataclass that keeps a path as text, in a fifth of the memory, and gives a `Path`."""

    def __get__(self, record: Record | None, owner: type | None = None) -> Path:
        if record is None:
            raise AttributeError  # so that dataclasses sees no default
        return Path(self.text(record))

    def __set__(self, record: Record, path: PathLike) -> None:
        object.__setattr__(record, "_image", os.fspath(path))

    @staticmethod
    def text(record: Record) -> str:
        return record._image  # pyright: ignore


@dataclass(frozen=True)
class Record:
    """One tagged image: its file, its tags as indices into the data set's class list, its split and mask.

    Attributes:
        name: unique in the data set, relative, with `/` between folders and without suffix; output files bear it.
        image: the image file.
        tags: sorted class indices 0..K-1 the image bears.
        unknown: class indices of which nobody knows whether the image bears them; left out of the loss.
        split: `train`, `val`, ...; empty where the source has no splits.
        mask: the ground truth, for evaluation and for `full`; None where there is none.
        context: sorted indices into the data set's `context`, the context classes the image shows.
        unknown_context: those of which nobody knows.

    Raises:
        TagmaskError: no file can be called after the name or the split, the image's path is not UTF-8, or it bears more
            than 254 classes.
    """

    name: str
    image: _PathAsText = _PathAsText()  # required: see there
    tags: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    split: str = ""
    mask: MaskSource | None = None
    context: tuple[int, ...] = ()
    unknown_context: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if fault := image_name_fault(self.name):
            raise TagmaskError(f"image name {self.name!r} {fault}")
        if fault := split_name_fault(self.split):
            raise TagmaskError(f"split {self.split!r} of image {self.name!r} {fault}")
        path = _PathAsText.text(self)
        try:
            path.encode()
        except UnicodeEncodeError:
            raise TagmaskError(f"image path {path!r} is not UTF-8; rename its folder or file") from None
        if len(self.tags) > MOST_TAGS:
            raise TagmaskError(f"image {self.name!r} bears {len(self.tags)} classes; one can bear {MOST_TAGS} at most")


@dataclass(frozen=True)
class Dataset:
    """Tagged images with the list of their classes.

    Attributes:
        classes: K foreground names; label-map id `i + 1` is `classes[i]`. Of more than 254, that of the id 255 is
            `IGNORED_CLASS`, which no image bears: see `numbered`.
        background: False where every pixel has one of the K classes; id 0 then never appears.
        tag_source: where the tags come from, in words; printed with every result.
        skipped: what the reader left out, one line each with file or row and reason.
        groups: names of the records of each split where splits overlap, as VOC's `train` lies within its `train_aug`;
            takes the place of `Record.split`, which holds one name only. Empty where splits do not overlap.
        context: names of context classes, which are tagged too: learnt like classes, background in every mask.
        averaged: names of the classes over which, with the background, scores are averaged; empty for all.
        dropped: tags that are none of the chosen classes, the commonest first, with how many images bear each.

    Raises:
        TagmaskError: the class list is none, an averaged class is not in it, or names of images or splits differ in
            capitals alone.
    """

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    background: bool = True
    tag_source: str = "tags given by the user"
    skipped: tuple[str, ...] = field(default=())
    context: tuple[str, ...] = ()
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    averaged: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_class_list(self.classes, "class list")
        if strange := [name for name in self.averaged if name not in self.classes]:
            raise TagmaskError(f"data.averaged: {strange[0]!r} is no class; the classes: {', '.join(self.classes)}")
        if self.context:
            check_class_list(self.context, "data.context")
        for split in self.splits:
            if fault := split_name_fault(split):
                raise TagmaskError(f"split {split!r} {fault}")
        for what, names in (("images", (record.name for record in self.records)), ("splits", self.splits)):
            if pair := collision(names):
                raise TagmaskError(
                    f"{what} {pair[0]!r} and {pair[1]!r} differ in capitals alone, and files are called after them;"
                    " rename one"
                )

    def __len__(self) -> int:
        return len(self.records)

    @property
    def averaged_ids(self) -> tuple[int, ...]:
        """The label ids over which scores are averaged: background, if there is one, and the averaged classes."""
        names = self.averaged or self.classes
        return (*((0,) if self.background else ()), *(self.classes.index(name) + 1 for name in names))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits that have a record, sorted."""
        names = {record.name if self.groups else record.split for record in self.records}
        if not self.groups:
            return tuple(sorted(names))
        return tuple(sorted(split for split, members in self.groups.items() if not members.isdisjoint(names)))

    def split(self, names: str | Sequence[str] | None) -> Dataset:
        """Keep the records of the named splits, each once; None keeps all.

        Raises:
            TagmaskError: a named split has no record.
        """
        if names is None:
            return self
        wanted = [names] if isinstance(names, str) else list(names)
        present = self.splits
        if missing := [name for name in wanted if name not in present]:
            have = ", ".join(map(repr, present)) or "none"
            raise TagmaskError(f"split {missing[0]!r} has no images; the splits of this data are: {have}")
        if not self.groups:
            return self.keep(record for record in self.records if record.split in wanted)
        members = frozenset[str]().union(*(self.groups[name] for name in wanted))
        return self.keep(record for record in self.records if record.name in members)

    def keep(self, records: Iterable[Record]) -> Dataset:
        """Return the data set with some of its records; their names, which were checked, are not checked again."""
        kept = copy(self)
        for derived in ("splits", "_digest"):
            kept.__dict__.pop(derived, None)
        object.__setattr__(kept, "records", tuple(records))
        return kept

    def with_context(self) -> Dataset:
        """Return the context classes as further classes behind the others, without masks, which do not know them."""
        if not self.context:
            return self
        first = len(self.classes)
        records = tuple(
            replace(
                record,
                tags=(*record.tags, *(first + index for index in record.context)),
                unknown=(*record.unknown, *(first + index for index in record.unknown_context)),
                mask=None,
                context=(),
                unknown_context=(),
            )
            for record in self.records
        )
        return replace(self, records=records, classes=(*self.classes, *self.context), context=())

    def digest(self) -> str:
        """Return a hash of the images' names, order and tags, by which a resumed training knows its data again."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        # The JSON of all records, in pieces: of a million, the whole text would take as much memory as they.
        found = hashlib.sha256(b"[")
        for start in range(0, len(self.records), PIECE):
            piece = self.records[start : start + PIECE]
            text = json.dumps(
                [(each.name, each.tags, each.unknown, each.context) for each in piece], ensure_ascii=False
            )
            found.update(f"{', ' if start else ''}{text[1:-1]}".encode())
        found.update(b"]")
        return found.hexdigest()[:16]

    def tag_matrix(self) -> np.ndarray:
        """Return the `(N, K)` uint8 table of tags; unknown ones count as 0 here."""
        table = np.zeros((len(self.records), len(self.classes)), dtype=np.uint8)
        rows, tags = self.tag_pairs()
        table[rows, tags] = 1
        return table

    def tag_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of the ones of `tag_matrix`, two int64 arrays, without making the matrix."""
        counts = np.fromiter((len(record.tags) for record in self.records), np.int64, len(self.records))
        tags = np.fromiter(chain.from_iterable(record.tags for record in self.records), np.int64, counts.sum())
        return np.repeat(np.arange(len(self.records)), counts), tags


def numbered(classes: Iterable[str]) -> tuple[str, ...]:
    """Put `IGNORED_CLASS` into a list of more than 254 classes as its 255th name; a shorter one has none.

    A list that has it already stays as it is.
    """
    names = tuple(name for name in classes if name != IGNORED_CLASS)
    return names if len(names) < IGNORE else (*names[: IGNORE - 1], IGNORED_CLASS, *names[IGNORE - 1 :])


def check_class_list(classes: Iterable[str], source: str, *, most: int | None = MAX_CLASSES) -> tuple[str, ...]:
    """Return the class names as a tuple, where they make a class list.

    Args:
        classes: names in the order of their ids.
        source: where they stand, for messages.
        most: how many there may be; None for a list of which classes are yet to be chosen and numbered.

    Raises:
        TagmaskError: no class, an empty, repeated or unfit name, `background` among them, more than `most`, or another
            name than `IGNORED_CLASS` where the id is 255.
    """
    names = tuple(classes)
    if not names:
        raise TagmaskError(f"{source}: no classes; name at least one")
    if most is not None and len(names) > most:
        raise TagmaskError(
            f"{source}: {len(names)} classes; label maps hold at most {most}. Join some, or share them out "
            "among several runs, each with data.classes of its own and data.untagged=negative"
        )
    if most is not None and len(names) >= IGNORE and names[IGNORE - 1] != IGNORED_CLASS:
        raise TagmaskError(
            f"{source}: {len(names)} classes, and the label id 255 means ignored; write {IGNORED_CLASS} as the 255th "
            "name, so that the class there and those after it have the next ids"
        )
    seen: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if not name.strip():
            raise TagmaskError(f"{source}: class {position} has an empty name; remove the line or name it")
        if fault := text_fault(name):
            raise TagmaskError(f"{source}: class {position}, {name!r}, {fault}")
        if name in seen:
            raise TagmaskError(f"{source}: class {name!r} stands twice, as {seen[name]} and {position}; remove one")
        if name == IGNORED_CLASS and position != IGNORE:
            raise TagmaskError(
                f"{source}: {name!r} stands for the label id 255, which is ignored; rename class {position}"
            )
        if is_background(name):
            raise TagmaskError(f"{source}: 'background' is id 0 and no class; remove it (data key `background`)")
        seen[name] = position
    return names


def listed_classes(path: Path) -> tuple[str, ...]:
    """Read a `classes.txt` that tagmask wrote: names in id order, a line each, as they are.

    Raises:
        TagmaskError: the file cannot be read, is not UTF-8, or its lines make no class list.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise TagmaskError(f"{path}: cannot be read ({reason}); write the class names, one a line") from None
    return check_class_list(lines, str(path))
